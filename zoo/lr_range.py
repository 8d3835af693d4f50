"""`zoo lr [group=option …] [key=value …] [min=1e-7] [max=10] [steps=100]`: the learning-rate range test.

    zoo lr model=mlp data=fashion
    zoo lr experiment=digits_lenet5 optimizer=sgd min=1e-4 max=100 steps=200

A new network is trained for a few steps while the rate grows exponentially, and the loss of each step is drawn over
the rate (Smith 2017, 1506.01186). Too small a rate changes nothing, a good one lets the loss fall fastest, too large a
one lets it rise. Groups and keys are those of `zoo train`, so all but the schedule is what a run would have.

The suggested rate is a tenth of the one at which the smoothed loss is least; where it falls fastest is told too. They
are where to begin, for this batch size and optimizer, and the peak of a schedule rather than its mean. `lr.csv` and
`lr.png` are written to a new folder `runs/lr-<model>-<data>/<date>_<time>/`, or to `run_dir`; nothing is kept of the
network. A GAN has two losses that work against each other, so its curve would say nothing: it is refused.
"""

import csv
import io
import math
import shutil
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from omegaconf import DictConfig, OmegaConf

from zoo.checks import CONFIGS, check, check_saved, name_of, read_yaml
from zoo.errors import ZooError
from zoo.folders import run_folder
from zoo.schedules import Schedule

SETTINGS = CONFIGS / "lr_range.yaml"
FEWEST = 10  # steps that tell anything
WIDTH = 0.1  # decades: the standard deviation of the Gaussian that smooths the losses


@dataclass(frozen=True, kw_only=True)
class Ramp(Schedule):
    """A factor that grows exponentially from `first` to `last` over the run."""

    first: float
    last: float

    def after_warmup(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        return self.first * (self.last / self.first) ** (step / max(1, total_steps - 1))


class Finding(NamedTuple):
    """What a range test shows: the curve, up to where the loss leaves it, and the rates that stand out."""

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    steepest: float
    least: float
    still_falls: bool  # at the last rate

    @property
    def suggested(self) -> float:
        return float(f"{self.least / 10:.2g}")


def main(arguments: Sequence[str]) -> int:
    """Run the test, write its curve and picture, print the suggested rate."""
    names = read_yaml(SETTINGS)
    own = [word for word in arguments if name_of(word) in names]
    settings: dict[str, Any] = {**names, **check_saved(SETTINGS, own)}
    low, high, steps = settings["min"], settings["max"], settings["steps"]
    if not 0 < low < high < math.inf:
        raise ZooError(f"min={low} max={high}: both must be above 0, and max the larger.")
    if steps < FEWEST:
        raise ZooError(f"steps={steps}: must be {FEWEST} or more, each a larger rate.")
    words = [word for word in arguments if word not in own]
    for word in words:
        if word.startswith("-") or name_of(word) == "resume":
            raise ZooError(
                f"{word}: zoo lr takes group=option and key=value, as zoo train does, and {', '.join(names)}."
            )
    job = check(words)
    if str(job.config.task._target_).endswith(".Gan"):
        raise ZooError("zoo lr: a GAN has two losses that work against each other; no curve of theirs tells a rate.")
    prepare(job.config, low=low, high=high, steps=steps)
    choices = {**job.choices, "model": f"lr-{job.choices['model']}"}
    with run_folder(job.config.run_dir, choices) as folder:
        print(f"{steps} steps with rates from {low:g} to {high:g} …", flush=True)
        rates, losses = measure(job.config, folder / ".run", job.choices)
        finding = find(rates, losses)
        write(folder, finding, rates, losses)
    print(f"the loss falls fastest at {finding.steepest:.2g} and is least at {finding.least:.2g}")
    if finding.still_falls:
        print(f"it still falls at the largest rate: give more than max={high:g}")
    print(f"suggested, a tenth of that: optimizer.lr={finding.suggested:g}")
    print(f"lr.csv, lr.png: {folder}")
    return 0


def prepare(config: DictConfig, *, low: float, high: float, steps: int) -> None:
    """Turn the config of a run into that of a test: another schedule and length, no validation, nothing kept."""
    base = config.optimizer.lr
    target = f"{Ramp.__module__}.{Ramp.__name__}"
    config.scheduler = {"_target_": target, "first": low / base, "last": high / base}
    changes = {
        "trainer.max_steps": steps,
        "trainer.log_every_n_steps": 1,
        "trainer.limit_val_batches": 0,
        "trainer.limit_test_batches": 1,
        "logger.tensorboard": False,
        "logger.pictures": False,
        "checkpoint.keep_best": False,
        "checkpoint.every_n_steps": None,
        "early_stopping.patience": None,
        "ema_decay": None,
    }
    for name, value in changes.items():
        OmegaConf.update(config, name, value, force_add=True)


def measure(config: DictConfig, folder: Path, choices: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Train in `folder`, which is removed again: the rate of each step, and the loss that it led to."""
    from zoo.launching import train
    from zoo.logs import METRICS

    folder.mkdir()
    try:
        try:
            with redirect_stdout(io.StringIO()):
                train(config, folder, choices=choices, command=["zoo", "lr"])
        except ZooError as error:
            if not str(error).startswith("The training loss became"):  # which is where a test may well end
                raise
        with (folder / METRICS).open(encoding="utf-8") as file:
            rows = [(row["name"], float(row["value"])) for row in csv.DictReader(file)]
    finally:
        shutil.rmtree(folder)
    rates = np.array([value for name, value in rows if name == "lr"])
    losses = np.array([value for name, value in rows if name == "train/loss"])
    # a step's loss is from before its update: a rate shows in the loss of the next
    return rates[: len(losses) - 1], losses[1:]


def find(rates: np.ndarray, losses: np.ndarray) -> Finding:
    """Smooth the losses over the logarithm of the rate, cut the curve where it leaves the start, and read it.

    The start is the mean of the first tenth. Losses count as at most twice as far above the start as the least is
    below it, so that one that explodes does not hide what is before; the curve ends where it comes to that.
    """
    if len(losses) < FEWEST:
        raise ZooError(f"The loss left all bounds after {len(losses)} steps: give a smaller min.")
    start = losses[: max(1, len(losses) // 10)].mean()
    top = start + 2 * max(start - losses.min(), 1e-12)
    places = np.log10(rates)
    weights = np.exp(-((places[:, None] - places) ** 2) / (2 * WIDTH**2))
    smoothed = weights @ np.minimum(losses, top) / weights.sum(1)
    lowest = int(smoothed.argmin())
    left = np.flatnonzero(smoothed[lowest:] >= start + 0.9 * (top - start))
    end = lowest + int(left[0]) + 1 if len(left) else len(losses)
    slopes = np.gradient(smoothed[:end], places[:end])
    if lowest < len(losses) // 10 or smoothed[lowest] >= start:
        raise ZooError(
            "The loss falls at none of these rates: try others (min, max), more steps, or a larger data.batch_size."
        )
    return Finding(
        rates[:end],
        losses[:end],
        smoothed[:end],
        steepest=float(rates[slopes[: lowest + 1].argmin()]),
        least=float(rates[lowest]),
        still_falls=lowest >= len(losses) - 2,
    )


def write(folder: Path, finding: Finding, rates: np.ndarray, losses: np.ndarray) -> None:
    """`lr.csv`, all steps, and `lr.png`, the curve up to where it ends."""
    from matplotlib.figure import Figure

    smoothed = [repr(float(value)) for value in finding.smoothed] + [""] * (len(rates) - len(finding.smoothed))
    with (folder / "lr.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["lr", "loss", "smoothed"])
        writer.writerows(zip(map(float, rates), map(float, losses), smoothed, strict=True))
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(finding.rates, finding.losses, color="C0", alpha=0.3, label="loss")
    axes.plot(finding.rates, finding.smoothed, color="C0", label="smoothed")
    axes.axvline(finding.steepest, color="C2", linestyle=":", label=f"falls fastest: {finding.steepest:.2g}")
    axes.axvline(finding.suggested, color="C1", label=f"suggested: {finding.suggested:g}")
    low, high = finding.smoothed.min(), finding.smoothed.max()
    axes.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(folder / "lr.png", dpi=100)
