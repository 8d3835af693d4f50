"""What run folders and sweeps say of themselves, read without torch; what cannot be read becomes a note, no error.

Every number is one that stands in the run's files: `scores.json`, `metrics.csv`, `model.txt`, `run.json`, and for the
seconds the clock in the TensorBoard events.
"""

import json
import math
import os
import re
import shlex
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from zoo.run_pages_curves import read_curves
from zoo.run_pages_events import Picture, read_events
from zoo.signatures import class_value
from zoo.sweep_tables import rows

try:
    import fcntl
except ImportError:  # Windows: nobody tells whether a run is under way
    fcntl = None  # type: ignore[assignment]

Json = dict[str, Any]
RUN_FILES = ("config.yaml", "run.json", "metrics.csv", "scores.json")  # a folder with one of these is a run's
LONGEST = 120  # characters of a setting
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class Run:
    """One run. `state` is done, running, unfinished, failed (in a sweep), waiting (in a sweep) or damaged."""

    name: str  # relative to the folder that was asked for
    folder: str
    state: str = "unfinished"
    notes: list[str] = field(default_factory=list)  # what is wrong, in sentences
    model: str | None = None
    data: str | None = None
    task: str | None = None
    seed: int | None = None
    monitor: str | None = None
    mode: str | None = None
    score: str | None = None  # the name of the one by which it is judged: the monitor's on test
    scores: dict[str, float | str] = field(default_factory=dict)  # what is no number is text: nan, inf
    parameters: int | None = None
    multiply_adds: int | None = None
    seconds: float | None = None
    steps: int | None = None
    epochs: int | None = None
    started: str | None = None
    commit: str | None = None
    command: str | None = None
    about: dict[str, str] = field(default_factory=dict)  # hardware, versions, memory
    sweep: int | None = None
    curves: list[Json] = field(default_factory=list)  # {step, epoch, seconds, values: {name: […]}, every}
    settings: dict[str, str] = field(default_factory=dict)
    texts: list[tuple[str, str]] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


# Finding --------------------------------------------------------------------------------------------------------------


def find(root: Path) -> tuple[list[Path], list[Path]]:
    """The run folders and the sweeps' folders at and below `root`, sorted."""
    runs, sweeps = [], []
    for place, folders, files in os.walk(root):
        if "sweep.json" in files:
            sweeps.append(Path(place))
        is_run = any(name in files for name in RUN_FILES)
        if is_run or any(name.endswith(".ckpt") for name in _names(Path(place, "checkpoints"))):
            runs.append(Path(place))
            folders.clear()  # what lies in a run is the run's
        folders[:] = [name for name in folders if not name.startswith(".")]
    return sorted(runs), sorted(sweeps)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


# A run ----------------------------------------------------------------------------------------------------------------


def read_run(folder: Path, name: str) -> Run:
    """All that a run folder tells."""
    run = Run(name, str(folder))
    config = read_mapping(folder / "config.yaml", run.notes)
    about = read_mapping(folder / "run.json", run.notes)
    scores = read_mapping(folder / "scores.json", run.notes)
    if not config and not run.notes:
        run.notes.append("config.yaml is missing.")
    _describe(run, config, about)
    _count(run, folder / "model.txt")
    for key, value in scores.items():
        if isinstance(value, float) or (type(value) is int and abs(value) < 10**300):  # longer ones are no float
            run.scores[key] = value if math.isfinite(value) else str(value)
        else:
            run.notes.append(f"scores.json is damaged: {short(key)} is no number.")
    tested = (run.monitor or "").replace("val/", "test/")
    run.score = next((key for key in (tested, run.monitor) if key in run.scores), None)
    events = read_events(folder, run.notes)
    run.curves = read_curves(folder / "metrics.csv", events.seconds_at, run.notes)
    if run.curves:
        run.steps = max(group["step"][-1] for group in run.curves)
        run.epochs = 1 + max(group["epoch"][-1] for group in run.curves)
    run.seconds = None if events.seconds is None else round(events.seconds, 1)
    run.pictures, run.texts = events.pictures + pictures_in(folder), events.texts
    damaged = any(note.startswith(RUN_FILES) for note in run.notes)
    run.state = "running" if _is_held(folder) else "damaged" if damaged else "done" if run.scores else "unfinished"
    return run


def read_mapping(file: Path, notes: list[str]) -> Json:
    """A JSON or YAML file that holds a mapping; {} where there is none, with a note where it is damaged."""
    if not file.exists():
        return {}
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text) if file.suffix == ".json" else yaml.load(text, _LOADER)
        if isinstance(content, dict):
            return content
        reason = "it is empty" if content is None else "it holds no names with values"
    except OSError as error:
        reason = (error.strerror or "it cannot be read").lower()
    except (ValueError, yaml.YAMLError, RecursionError):
        reason = "it is cut off, or no longer " + ("JSON" if file.suffix == ".json" else "YAML")
    notes.append(f"{file.name} is damaged: {reason}.")
    return {}


def _describe(run: Run, config: Json, about: Json) -> None:
    """Names and origin of a run, from its config and run.json, of which neither need be whole."""
    choices = _mapping(about.get("choices"))
    parts = {name: _mapping(config.get(name)) for name in ("model", "data", "task")}
    for name, part in parts.items():
        target = str(part.get("_target_", "")).rpartition(".")[2]
        setattr(run, name, short(choices.get(name) or target) or None)
    seed = config.get("seed")
    run.seed = seed if isinstance(seed, int) else None
    target = str(parts["task"].get("_target_", ""))
    if target:
        run.monitor, run.mode = class_value(target, "monitor") or "val/loss", class_value(target, "mode") or "min"
    command = about.get("command")
    if isinstance(command, list):
        run.command = shlex.join(map(str, command))
    run.commit = short(about.get("commit")) or None
    run.started = short(about.get("started")) or None
    for name in ("hardware", "peak_memory", "versions"):
        if node := _mapping(about.get(name)):
            run.about[name.replace("_", " ")] = ", ".join(f"{key} {short(value)}" for key, value in node.items())
    if _mapping(config.get("data")).get("augment") == config.get("augment"):
        config = {**config, "data": {key: v for key, v in _mapping(config.get("data")).items() if key != "augment"}}
    run.settings = {short(key): short(value) for key, value in choices.items()} | dict(flat(config))


def _mapping(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def flat(config: Mapping[Any, Any], prefix: str = "", depth: int = 12) -> Iterator[tuple[str, str]]:
    """Nested keys joined by dots, with their values as short text."""
    for name, value in config.items():
        if isinstance(value, dict) and depth:
            yield from flat(value, f"{prefix}{name}.", depth - 1)
        else:
            yield short(f"{prefix}{name}"), short(value)


def short(value: Any) -> str:
    """A value as text; of a long one the beginning, its length and a checksum, so that two different ones differ."""
    try:
        text = "" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)
    except (TypeError, ValueError):  # keys that JSON has not, a list that holds itself
        text = repr(value)
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST - 40]}… ({len(text):,} characters, {zlib.crc32(text.encode()):08x})"


def _count(run: Run, file: Path) -> None:
    """Parameters and multiply-adds, from the last line of the network's table."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    if found := re.search(r"^total +([\d,]+) +([\d,]+)$", text, re.MULTILINE):
        run.parameters, run.multiply_adds = (int(number.replace(",", "")) for number in found.groups())


def _is_held(folder: Path) -> bool:
    """Whether a process trains there."""
    try:
        with (folder / ".lock").open() as file:
            if fcntl is not None:
                fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def pictures_in(folder: Path) -> list[Picture]:
    """The pictures that verbs left in a run folder: samples, the nearest neighbours of a judgement, what inspect saw.

    `curves.png` is not among them: its curves are drawn anew.
    """
    files = [file for pattern in ("*.png", "*/*.png") for file in sorted(folder.glob(pattern))]
    return [Picture(file.stem, str(file.relative_to(folder)), file) for file in files if file.name != "curves.png"]


# Sweeps ---------------------------------------------------------------------------------------------------------------


def read_sweep(folder: Path, name: str, number: int, runs: list[Run]) -> Json:
    """What a sweep tried and what came out, by the scores of its runs; marks these, and adds those without a folder."""
    notes: list[str] = []
    record = read_mapping(folder / "sweep.json", notes)
    sweep: Json = {"name": name, "notes": notes, "command": "", "monitor": "", "rows": [], "done": 0, "total": 0}
    known = {run.folder: run for run in runs}
    try:
        sweep |= {"command": shlex.join(map(str, record["command"])), "monitor": str(record["monitor"])}
        for entry in record["runs"]:
            place = folder / str(entry["number"])
            run = known.get(str(place))
            if run is None:
                run = Run(f"{name}/{entry['number']}", str(place), state="waiting")
                run.settings = {short(key): short(value) for key, value in entry["values"].items()}
                run.model, run.data = run.settings.get("model"), run.settings.get("data")
                runs.append(run)
            run.sweep = number
            if run.state == "done" and run.seconds is None:
                run.seconds = float(entry["seconds"])
            if entry["end"] == "failed" and run.state != "done":
                run.state = "failed"
                run.notes.append(short(entry["says"]))
            score = run.scores.get(record["monitor"])
            entry["score"] = score if isinstance(score, float) else None
            sweep["done"] += run.state == "done"
        sweep["total"] = len(record["runs"])
        for row in rows(record):
            values = {short(key): short(value) for key, value in row.values.items()}
            sweep["rows"].append({"values": values, "outcome": row.outcome(), "numbers": row.numbers})
    except (KeyError, TypeError, ValueError, AttributeError):
        notes.append("sweep.json is damaged: it no longer says what was swept.")
    return sweep
