"""Learning-rate schedules as functions of the step.

A schedule gives the factor by which the optimiser's own rate (`optimizer.lr`) is multiplied for the optimisation step
number `step`, counted from 0. It keeps nothing between calls, so that a run that is killed and continued takes the same
steps. The harness knows how long the run is and passes it in.

Any schedule can have a warm-up in front: w steps during which the rate grows linearly to the schedule's first value, as
(step + 1) / (w + 1) (Goyal et al. 2017, 1706.02677, section 2.2). The schedule itself starts at step w: its epochs and
milestones are counted from the end of the warm-up, and its total is what is left of the run.
"""

import math
from dataclasses import dataclass
from typing import Literal

Unit = Literal["epoch", "step"]


def _check(condition: bool, name: str, value: object, accepted: str) -> None:
    if not condition:
        raise ValueError(f"{name}={value}: must be {accepted}")


def _cosine(start: float, end: float, progress: float) -> float:
    """Half a cosine wave from `start` (progress 0) to `end` (progress 1)."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Base: warm-up in steps or in epochs (not both), then `after_warmup`."""

    warmup_steps: int = 0
    warmup_epochs: float = 0

    def __post_init__(self) -> None:
        _check(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "0 or more")
        _check(self.warmup_epochs >= 0, "warmup_epochs", self.warmup_epochs, "0 or more")
        one = not (self.warmup_steps and self.warmup_epochs)
        _check(one, "warmup_epochs", self.warmup_epochs, "0 when warmup_steps is set: give one of the two")

    def multiplier(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        """The factor of the optimiser's rate for step number `step` (from 0) of `total_steps`."""
        warmup = self.warmup_steps or round(self.warmup_epochs * steps_per_epoch)
        if warmup and warmup >= total_steps:
            name = "warmup_steps" if self.warmup_steps else "warmup_epochs"
            raise ValueError(
                f"{name}={getattr(self, name)}: must be shorter than the run, which has {total_steps} steps "
                f"({steps_per_epoch} an epoch)"
            )
        if step < warmup:
            return (step + 1) / (warmup + 1) * self.after_warmup(0, total_steps - warmup, steps_per_epoch)
        return self.after_warmup(step - warmup, total_steps - warmup, steps_per_epoch)

    def after_warmup(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        """The factor for step number `step` after the warm-up, of the `total_steps` that then are left."""
        raise NotImplementedError

    def observe(self, score: float, mode: str) -> None:
        """Told the monitored value after every validation; `mode` says whether "min" or "max" is better."""

    def state_dict(self) -> dict[str, float]:
        return {}

    def load_state_dict(self, state: dict[str, float]) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """end + (1 − end)·(1 + cos(π·step/total))/2. Loshchilov & Hutter 2017, 1608.03983, eq. 5, without restarts."""

    end: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(0 <= self.end <= 1, "end", self.end, "between 0 and 1: last rate / first rate")

    def after_warmup(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        return _cosine(1.0, self.end, step / total_steps)


@dataclass(frozen=True, kw_only=True)
class OneCycle(Schedule):
    """From `start` up to 1 during `warmup_fraction` of the run, then down to `end`, each along half a cosine.

    Smith & Topin 2018, 1708.07120 (which moves linearly; the cosine is fastai's and PyTorch's form).
    """

    warmup_fraction: float = 0.3
    start: float = 0.04
    end: float = 4e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(0 <= self.warmup_fraction < 1, "warmup_fraction", self.warmup_fraction, "at least 0 and below 1")
        _check(0 < self.start <= 1, "start", self.start, "above 0 and at most 1: first rate / largest rate")
        _check(0 <= self.end <= 1, "end", self.end, "between 0 and 1: last rate / largest rate")

    def after_warmup(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        peak = max(0.0, self.warmup_fraction * total_steps - 1)  # a run of one step takes it at the full rate
        if step < peak:
            return _cosine(self.start, 1.0, step / peak)
        return _cosine(1.0, self.end, (step - peak) / max(total_steps - 1 - peak, 1e-9))
