"""Many runs from one command: planned, handed to Hydra's launchers, and continued when interrupted.

A sweep's folder holds `sweep.json` (what was asked for, and the words and the end of each run), a run folder
`<number>/` and `logs/<number>.txt` for each run (zoo/sweep_runs.py) and, at the end, `sweep.csv`, `sweep.md` and
`sweep.png` (zoo/sweep_tables.py). How a run ended is told by its own files, so nothing is lost when the sweep itself is
killed. Imports no torch: only the processes of the runs do.
"""

import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import env_override
from hydra.errors import ConfigCompositionException
from hydra.types import HydraContext, RunMode

from zoo.checks import CONFIGS, check, check_saved, check_sweep, name_of, raw_value, read_yaml
from zoo.errors import ZooError
from zoo.folders import new_folder
from zoo.layout import one_line
from zoo.search import REPEATS, Dimension, Point, dimensions, draw, grid, import_optuna, propose
from zoo.signals import stop_signals
from zoo.signatures import class_value
from zoo.sweep_runs import RECORD, STOPPED, SWEEP, alone, job, python_path, read_json, read_record, write_json
from zoo.sweep_tables import write_tables

FOLDER = Path("runs/multirun")
SETTINGS = CONFIGS / "sweep.yaml"
QUIET = ["hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none"]
Json = dict[str, Any]


# Asking --------------------------------------------------------------------------------------------------------------


def is_setting(word: str) -> bool:
    """Whether a word says how to sweep, not what to run."""
    return name_of(word) == "sweep" or name_of(word).startswith("sweep.")


def read_settings(words: Sequence[str]) -> Json:
    """`sweep.…` as keys without `sweep.`; `sweep=random` is short for `sweep.by=random`."""
    spelt = [re.sub(r"^sweep=", "sweep.by=", word) for word in words]
    given = check_saved(SETTINGS, spelt)
    return {name.removeprefix("sweep."): value for name, value in given.items()}


def start(arguments: Sequence[str], *, command: Sequence[str]) -> int:
    """Check every run, make the sweep's folder, run what was asked for. ZooError: a mistake, or runs that failed."""
    given = read_settings([word for word in arguments if is_setting(word)])
    launcher = [word for word in arguments if word.startswith(("hydra.", "hydra/"))]
    words = [word for word in arguments if not is_setting(word) and word not in launcher]
    settings = read_yaml(SETTINGS)["sweep"] | given
    check_launcher(launcher)
    check_sweep(words)
    shared, varied = dimensions(words)
    check_search(settings, given, varied)
    config = check([*shared, *(f"{d.key}={d.values[0] if d.values else d.text(d.low)}" for d in varied)]).config
    task = str(config.task._target_)
    record: Json = {
        "command": list(command),
        "words": words,
        "settings": settings,
        "launcher": [word for word in launcher if name_of(word) != "hydra.sweep.dir"],
        "monitor": class_value(task, "monitor") or "val/loss",
        "mode": class_value(task, "mode") or "min",
        "runs": [],
    }
    own = [raw_value(word) for word in launcher if name_of(word) == "hydra.sweep.dir"]
    folder = Path(own[-1]) if own else new_folder(FOLDER)
    if own:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ZooError(
                f"hydra.sweep.dir={folder}: is not empty; name a new folder, or continue with resume={folder}"
            )
        folder.mkdir(parents=True, exist_ok=True)
    return go(folder, record)


def resume(folder: Path, arguments: Sequence[str]) -> int:
    """Run what is not done of an interrupted sweep. `arguments`: more trials, another launcher."""
    record = read_record(folder)
    settings = [word for word in arguments if name_of(word) in ("sweep.trials", "sweep.at_once")]
    launcher = [word for word in arguments if word.startswith(("hydra.launcher.", "hydra/launcher"))]
    for word in arguments:
        if word not in (*settings, *launcher) and name_of(word) != "resume":
            raise ZooError(
                f"{word}: a continued sweep keeps its runs. Beside resume= may stand sweep.trials, sweep.at_once and "
                "hydra/launcher with hydra.launcher.…"
            )
    given = read_settings(settings)
    check_search(record["settings"], given, dimensions(record["words"])[1])
    record["settings"] |= given
    check_launcher(launcher)
    if launcher:
        record["launcher"] = launcher
    return go(folder, record)


def check_search(settings: Json, given: Json, varied: Sequence[Dimension]) -> None:
    """Refuse what cannot be searched so."""
    by = settings["by"]
    if by == "grid":
        for name in given.keys() - {"by"}:
            raise ZooError(
                f"sweep.{name}={given[name]}: a grid runs all combinations; add sweep=random or sweep=optuna."
            )
        for d in (d for d in varied if not d.values):
            raise ZooError(f"{d.key}: an interval has no end of values; add sweep=random or sweep=optuna.")
    elif not any(d.key.lstrip("+") not in REPEATS for d in varied):
        raise ZooError(
            f"sweep={by}: there is nothing to search over. Add ranges: 'optimizer.lr=tag(log,interval(1e-4,1e-1))'"
        )
    if by == "random" and "at_once" in given:
        raise ZooError(f"sweep.at_once={given['at_once']}: random points are all launched together; only Optuna waits.")
    if by == "optuna":
        import_optuna()


def check_launcher(words: Sequence[str]) -> None:
    """Refuse words for Hydra that it does not know, or that sweeps do not take."""
    for word in words:
        if name_of(word).startswith(("hydra/sweeper", "hydra.sweeper")):
            raise ZooError(f"{word}: write sweep=random or sweep=optuna; Hydra's own sweepers are not used.")
        if name_of(word) in ("hydra.sweep.subdir", "hydra.run.dir"):
            raise ZooError(f"{word}: runs are numbered; hydra.sweep.dir=… names the folder of all runs.")
    if words:
        with launching(words):
            pass


@contextmanager
def launching(words: Sequence[str]) -> Iterator[Any]:
    """Hydra's launcher, as `words` choose and set it."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        try:
            config = hydra.compose_config(None, [*QUIET, *words], RunMode.MULTIRUN)
        except ConfigCompositionException as error:
            lacking = re.search(r"'hydra/launcher/(\w+)'", str(error.__cause__ or error))
            packages = {"joblib": "hydra-joblib-launcher", "submitit": "hydra-submitit-launcher"}
            package = next((p for name, p in packages.items() if lacking and lacking[1].startswith(name)), None)
            if package is None:
                raise
            raise ZooError(f"hydra/launcher={lacking[1]}: is not installed: pip install {package}") from None  # type: ignore[index]
        context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(config))
        yield Plugins.instance().instantiate_launcher(context, job, config)


# Planning and launching ----------------------------------------------------------------------------------------------


def go(folder: Path, record: Json) -> int:
    """Run what is not done, then write the tables. ZooError: runs failed. Stopped: a signal came."""
    tried: set[int] = set()
    with stop_signals(folder), alone(folder):
        (folder / "logs").mkdir(exist_ok=True)
        gather(folder, record)
        print(f"sweep folder: {folder}", flush=True)
        while True:
            pending = [run["number"] for run in record["runs"] if run["end"] != "done" and run["number"] not in tried]
            if pending:
                tried |= {*pending}
                try:
                    launch(folder, record["launcher"], pending)
                finally:
                    gather(folder, record)
            elif plan(record):
                write_json(folder / RECORD, record)
            else:
                break
    for line in write_tables(folder, record):
        print(line, flush=True)
    failed = [run for run in record["runs"] if run["end"] != "done"]
    for run in failed:
        print(f"run {run['number']} ({' '.join(run['words'])}) {run['end']}: {run['says']}", file=sys.stderr)
    if failed:
        raise ZooError(
            f"{len(failed)} of {len(record['runs'])} runs are not done. "
            f"To run them again: python train.py resume={shlex.quote(str(folder))}"
        )
    return 0


def plan(record: Json) -> bool:
    """Add the runs of the next points to the record; False if there are no more."""
    settings, runs = record["settings"], record["runs"]
    shared, varied = dimensions(record["words"])
    repeats = grid([d for d in varied if d.key.lstrip("+") in REPEATS])
    searched = [d for d in varied if d.key.lstrip("+") not in REPEATS]
    planned = 1 + max((run["point"] for run in runs), default=-1)
    points: list[Point]
    if settings["by"] == "grid":
        points = grid(searched)[planned:]
    elif settings["by"] == "random":
        points = [draw(searched, number, seed=settings["seed"]) for number in range(planned, settings["trials"])]
    else:
        count = min(settings["at_once"], settings["trials"] - planned)
        told = [score_of(runs, point, [d.key for d in searched]) for point in range(planned)]
        points = propose(searched, told, count=count, seed=settings["seed"], mode=record["mode"]) if count > 0 else []
    for point, values in enumerate(points, planned):
        for repeat in repeats:
            number, chosen = len(runs), values | repeat
            words = [*shared, *(f"{d.key}={chosen[d.key]}" for d in varied)]
            run = {"number": number, "point": point, "values": chosen, "words": words}
            runs.append(run | {"end": "waiting", "says": "", "score": None, "seconds": 0.0})
    return bool(points)


def score_of(runs: Sequence[Json], point: int, keys: Sequence[str]) -> tuple[Point, float | None]:
    """A point, and the mean score of its runs; None if one has none."""
    its_runs = [run for run in runs if run["point"] == point]
    scores = [run["score"] for run in its_runs]
    score = None if None in scores else sum(scores) / len(scores)
    return {key: its_runs[0]["values"][key] for key in keys}, score


def launch(folder: Path, words: Sequence[str], numbers: Sequence[int]) -> None:
    """Hand runs to Hydra's launcher, by number."""
    quoted = str(folder).replace("'", "\\'")
    with launching([*words, f"hydra.sweep.dir='{quoted}'"]) as launcher:
        try:
            with env_override({"PYTHONPATH": python_path(), SWEEP: str(os.getpid())}):  # for launchers' processes
                ended = launcher.launch([[f"hydra.sweep.subdir={number}"] for number in numbers], numbers[0])
        except Exception as error:
            if not type(error).__module__.startswith(("submitit", "joblib")):
                raise
            resume = f"python train.py resume={shlex.quote(str(folder))}"
            raise ZooError(f"The launcher lost a job: {one_line(error)}\nGo on with: {resume}") from error
    for job_return in ended:
        _ = job_return.return_value  # raises what `job` raised


def gather(folder: Path, record: Json) -> None:
    """Bring the record up to what the runs' own files tell, and store it."""
    for run in record["runs"]:
        place, ended = folder / str(run["number"]), read_json(folder / "logs" / f"{run['number']}.json")
        scores = read_json(place / "scores.json")
        run |= {"end": "waiting", "says": "", "score": None, "seconds": ended.get("seconds", 0.0)}
        if scores:
            run["end"], run["score"] = "done", scores.get(record["monitor"])
        elif ended and ended["exit"] not in (0, *STOPPED):
            run["end"], run["says"] = "failed", ended["says"]
        elif (place / "config.yaml").exists():
            run["end"], run["says"] = "stopped", "it can be continued"
    write_json(folder / RECORD, record)
