"""What came out of a sweep: sweep.csv (every run), sweep.md (every point, best first), sweep.png. Imports no torch."""

import csv
import json
import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zoo.search import REPEATS

Json = dict[str, Any]
SHOWN = 5  # points that are printed


class Row(NamedTuple):
    """One point: what it sets, and the scores of its runs over seeds and folds."""

    values: dict[str, str]
    scores: list[float]
    numbers: list[int]  # of its runs

    @property
    def mean(self) -> float:
        return statistics.fmean(self.scores) if self.scores else math.nan

    def outcome(self) -> str:
        """Mean ± sample standard deviation, and of how many."""
        lacking = len(self.numbers) - len(self.scores)
        text = f"{self.mean:.4g}" if self.scores else "—"
        if len(self.numbers) > 1:
            deviation = f" ± {statistics.stdev(self.scores):.2g}" if len(self.scores) > 1 else ""
            text += f"{deviation} (n = {len(self.scores)}{f', {lacking} not done' if lacking else ''})"
        return text


def shown(values: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items())


def rows(record: Json) -> list[Row]:
    """The points of a sweep, the best first, those without a score last."""
    found: dict[int, Row] = {}
    for run in record["runs"]:
        values = {key: value for key, value in run["values"].items() if key.lstrip("+") not in REPEATS}
        row = found.setdefault(run["point"], Row(values, [], []))
        row.numbers.append(run["number"])
        if run["score"] is not None:
            row.scores.append(run["score"])
    sign = -1 if record["mode"] == "max" else 1
    return sorted(found.values(), key=lambda row: (math.isnan(row.mean), sign * row.mean))


def write_tables(folder: Path, record: Json) -> list[str]:
    """Write the three files; the lines to print."""
    ordered, monitor = rows(record), record["monitor"]
    better = "higher" if record["mode"] == "max" else "lower"
    _write_csv(folder / "sweep.csv", folder, record)
    keys = list(dict.fromkeys(key for row in ordered for key in row.values))
    lines = ["| " + " | ".join([*keys, monitor, "runs"]) + " |", "|" + "---|" * (len(keys) + 2)]
    for row in ordered:
        cells = [*(row.values[key] for key in keys), row.outcome(), ", ".join(map(str, row.numbers))]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    done = sum(run["end"] == "done" for run in record["runs"])
    head = [
        "# Sweep",
        "",
        f"`{shlex.join(record['command'])}`",
        "",
        f"{done} of {len(record['runs'])} runs done. {monitor}: {better} is better; where a point was run with several "
        "seeds or folds: mean ± sample standard deviation.",
        "",
    ]
    (folder / "sweep.md").write_text("\n".join([*head, *lines, ""]), encoding="utf-8")
    files = "sweep.csv, sweep.md"
    if any(row.scores for row in ordered):
        picture(record).savefig(folder / "sweep.png", dpi=100)
        files += ", sweep.png"
    best = [f"  {row.outcome():>10}  {shown(row.values)}".rstrip() for row in ordered[:SHOWN] if row.scores]
    count = f"{done} of {len(record['runs'])} runs done"
    return [f"{count}; {monitor}, {better} is better:" if best else f"{count}.", *best, f"{files}: {folder}"]


def _write_csv(file: Path, folder: Path, record: Json) -> None:
    """A line for each run: what it sets, how it ended, all its scores."""
    scores: dict[int, dict[str, float]] = {}
    for run in record["runs"]:
        if run["end"] == "done":
            text = (folder / str(run["number"]) / "scores.json").read_text(encoding="utf-8")
            scores[run["number"]] = json.loads(text)
    names = list(dict.fromkeys(name for of_run in scores.values() for name in of_run))
    keys = list(dict.fromkeys(key for run in record["runs"] for key in run["values"]))
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["run", *keys, "end", "seconds", *names])
        for run in record["runs"]:
            values = [run["values"].get(key, "") for key in keys]
            of_run = [scores.get(run["number"], {}).get(name, "") for name in names]
            writer.writerow([run["number"], *values, run["end"], run["seconds"], *of_run])


def picture(record: Json) -> Any:
    """The score against each varied value: a dot for each run, a ring for the mean of a point."""
    from matplotlib.figure import Figure

    done = [run for run in record["runs"] if run["score"] is not None]
    ordered = [row for row in rows(record) if row.scores]
    keys = list(dict.fromkeys(key for run in done for key in run["values"])) or [""]
    figure = Figure(figsize=(min(4 * len(keys), 20), 3.6), layout="constrained")
    for axes, key in zip(figure.subplots(1, len(keys), sharey=True, squeeze=False)[0], keys, strict=True):
        texts = [run["values"].get(key, "") for run in done]
        numbers = [] if key.lstrip("+") in REPEATS else _numbers(texts)
        place, is_log = _axis(texts, numbers)
        axes.scatter([place[text] for text in texts], [run["score"] for run in done], s=14, alpha=0.6)
        if key in ordered[0].values:
            x = [place[row.values[key]] for row in ordered]
            axes.scatter(x, [row.mean for row in ordered], s=60, facecolors="none", edgecolors="C1", label="mean")
        if is_log:
            axes.set_xscale("log")
        elif not numbers:
            names = list(place)
            axes.set_xticks(range(len(names)), [name[:20] for name in names], rotation=30, ha="right")
        axes.set_xlabel(key)
        axes.grid(alpha=0.3)
    figure.get_axes()[0].set_ylabel(record["monitor"])
    return figure


def _numbers(texts: Sequence[str]) -> list[float]:
    """The values as numbers; empty where one is none."""
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


def _axis(texts: Sequence[str], numbers: Sequence[float]) -> tuple[dict[str, float], bool]:
    """Where each value stands on its axis, and whether that is logarithmic: `numbers` that span a factor of 20."""
    if numbers:
        is_log = min(numbers) > 0 and max(numbers) / min(numbers) >= 20
        return dict(zip(texts, numbers, strict=True)), is_log
    return {text: float(place) for place, text in enumerate(dict.fromkeys(texts))}, False
