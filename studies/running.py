"""What the studies share: a training run that is not repeated, its curves, and where pictures and numbers go."""

import csv
import hashlib
import json
import math
import statistics
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
RUNS = Path("runs/studies")
OUT = ROOT / "docs" / "studies"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe & Ito 2008


class Run(NamedTuple):
    """Final scores by name, and every logged number as (epoch, value) by name."""

    scores: dict[str, float]
    curves: dict[str, list[tuple[int, float]]]
    folder: Path

    def last(self, name: str) -> float:
        return self.curves[name][-1][1]


def train(*words: str) -> Run:
    """What `python train.py word …` gives; a run of the same words that is finished is only read."""
    from zoo.checks import check
    from zoo.errors import ZooError
    from zoo.run import resume
    from zoo.run import train as start

    digest = hashlib.sha256(" ".join(words).encode()).hexdigest()[:8]
    folder = RUNS / digest
    if not (folder / "scores.json").exists():
        print(" ".join(words), flush=True)
        try:
            with redirect_stdout(StringIO()):
                if (folder / "config.yaml").exists():
                    resume(folder, {})
                else:
                    folder.mkdir(parents=True, exist_ok=True)
                    job = check([*words, "logger=csv"])
                    start(job.config, folder, choices=job.choices, command=["python", "train.py", *words])
        except ZooError as error:  # a loss that is no longer finite is a result, too
            if "training loss became" not in str(error):
                raise
            (folder / "scores.json").write_text("{}")
    curves: dict[str, list[tuple[int, float]]] = {}
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            curves.setdefault(row["name"], []).append((int(row["epoch"]) + 1, float(row["value"])))
    return Run(json.loads((folder / "scores.json").read_text(encoding="utf-8")), curves, folder)


def by_epoch(curve: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    """The mean of each epoch."""
    epochs = sorted({epoch for epoch, _ in curve})
    return epochs, [statistics.fmean(value for at, value in curve if at == epoch) for epoch in epochs]


def mean_std(values: Sequence[float]) -> str:
    if not all(map(math.isfinite, values)):
        return "not finite"
    return f"{statistics.fmean(values):.4f}" + (f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else "")


def figure(width: float, height: float, title: str, columns: int = 1) -> tuple[Figure, list[Any]]:
    """A figure without pyplot, with a row of axes."""
    made = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(made)
    made.suptitle(title, fontsize=11, x=0.01, ha="left", fontweight="bold")
    axes = list(made.subplots(1, columns, squeeze=False)[0])
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(alpha=0.25, linewidth=0.6)
    return made, axes


def write(name: str, picture: Figure, numbers: dict[str, Any]) -> None:
    """Put a study's picture and numbers into docs/studies/, and print the numbers."""
    OUT.mkdir(parents=True, exist_ok=True)
    picture.savefig(OUT / f"{name}.png")
    text = json.dumps(numbers, indent=1, ensure_ascii=False, allow_nan=False)
    (OUT / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(text)
    print(f"wrote {OUT / name}.png and .json")
