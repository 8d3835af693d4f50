"""Learning-rate schedules as functions of the step.

A schedule gives the factor by which the optimiser's own rate (`optimizer.lr`) is multiplied for the optimisation step
number `step`, counted from 0. It keeps nothing between calls, so that a run that is killed and continued takes the same
steps; only `Plateau` has a state. The harness knows how long the run is and passes it in.

Any schedule can have a warm-up in front: w steps during which the rate grows linearly to the schedule's first value, as
(step + 1) / (w + 1) (Goyal et al. 2017, 1706.02677, section 2.2). The schedule itself starts at step w: its epochs and
milestones are counted from the end of the warm-up, and its total is what is left of the run.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

Unit = Literal["epoch", "step"]


def _check(condition: bool, name: str, value: object, accepted: str) -> None:
    if not condition:
        raise ValueError(f"{name}={value}: must be {accepted}")


def _check_unit(unit: str) -> None:
    _check(unit in ("epoch", "step"), "unit", unit, "epoch or step")


def _count(unit: Unit, step: int, steps_per_epoch: int) -> int:
    """How many whole epochs, or steps, are done before step number `step`."""
    return step if unit == "step" else step // steps_per_epoch


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


@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """Always 1: the optimiser's own rate."""

    def after_warmup(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Step(Schedule):
    """factor^⌊n/every⌋ after n epochs or steps. Szegedy et al. 2014, 1409.4842, section 6: × 0.96 every 8 epochs."""

    every: int = 10
    factor: float = 0.1
    unit: Unit = "epoch"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.every >= 1, "every", self.every, "at least 1")
        _check(self.factor > 0, "factor", self.factor, "above 0")
        _check_unit(self.unit)

    def after_warmup(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        return self.factor ** (_count(self.unit, step, steps_per_epoch) // self.every)


@dataclass(frozen=True, kw_only=True)
class MultiStep(Schedule):
    """factor^(number of milestones passed). Zagoruyko & Komodakis 2016, 1605.07146: × 0.2 at epochs 60, 120, 160."""

    milestones: Sequence[int] = (10, 15)
    factor: float = 0.1
    unit: Unit = "epoch"

    def __post_init__(self) -> None:
        super().__post_init__()
        rising = all(a < b for a, b in pairwise([0, *self.milestones]))
        _check(rising, "milestones", list(self.milestones), "rising numbers of epochs or steps, each above 0")
        _check(self.factor > 0, "factor", self.factor, "above 0")
        _check_unit(self.unit)

    def after_warmup(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        count = _count(self.unit, step, steps_per_epoch)
        return self.factor ** sum(milestone <= count for milestone in self.milestones)


@dataclass(frozen=True, kw_only=True)
class Exponential(Schedule):
    """factor^n after n epochs or steps. Szegedy et al. 2016, 1512.00567, section 8: × 0.94 every two epochs."""

    factor: float = 0.9
    unit: Unit = "epoch"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(0 < self.factor <= 1, "factor", self.factor, "above 0 and at most 1")
        _check_unit(self.unit)

    def after_warmup(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        return self.factor ** _count(self.unit, step, steps_per_epoch)


@dataclass(frozen=True, kw_only=True)
class InverseTime(Schedule):
    """1/(1 + decay·n) after n epochs or steps. Robbins & Monro 1951, "A stochastic approximation method"."""

    decay: float = 0.1
    unit: Unit = "epoch"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.decay >= 0, "decay", self.decay, "0 or more")
        _check_unit(self.unit)

    def after_warmup(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        return 1 / (1 + self.decay * _count(self.unit, step, steps_per_epoch))


@dataclass(frozen=True, kw_only=True)
class Polynomial(Schedule):
    """end + (1 − end)·(1 − step/total)^power. Chen et al. 2018, 1606.00915, section 4.1 ("poly", power 0.9)."""

    power: float = 1.0
    end: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.power > 0, "power", self.power, "above 0")
        _check(0 <= self.end <= 1, "end", self.end, "between 0 and 1: last rate / first rate")

    def after_warmup(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        return self.end + (1 - self.end) * (1 - step / total_steps) ** self.power


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
class CosineRestarts(Schedule):
    """Cosine over `period`, then again from the start, each period `growth` times as long as the one before.

    Loshchilov & Hutter 2017, 1608.03983, eq. 5 (SGDR: T_0 = period, T_mult = growth).
    """

    period: float = 5
    growth: float = 2.0
    end: float = 0.0
    unit: Unit = "epoch"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.period > 0, "period", self.period, "above 0")
        _check(self.growth >= 1, "growth", self.growth, "at least 1")
        _check(0 <= self.end <= 1, "end", self.end, "between 0 and 1: last rate / first rate")
        _check_unit(self.unit)

    def after_warmup(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        place, length = float(step), self.period * (steps_per_epoch if self.unit == "epoch" else 1)
        while place >= length:
            place, length = place - length, length * self.growth
        return _cosine(1.0, self.end, place / length)


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


@dataclass(frozen=True, kw_only=True)
class Cyclic(Schedule):
    """Linearly from `low` up to 1 and back within each `period`; the rise shrinks by `shrink` after every period.

    Smith 2017, 1506.01186: shrink 1 is the paper's "triangular" policy, 0.5 its "triangular2".
    """

    period: float = 4
    low: float = 0.1
    shrink: float = 1.0
    unit: Unit = "epoch"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.period > 0, "period", self.period, "above 0")
        _check(0 <= self.low <= 1, "low", self.low, "between 0 and 1: lowest rate / largest rate")
        _check(0 < self.shrink <= 1, "shrink", self.shrink, "above 0 and at most 1")
        _check_unit(self.unit)

    def after_warmup(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        cycle, place = divmod(step / (self.period * (steps_per_epoch if self.unit == "epoch" else 1)), 1)
        return self.low + (1 - self.low) * self.shrink**cycle * (1 - abs(2 * place - 1))


@dataclass(frozen=True, kw_only=True)
class Plateau(Schedule):
    """Multiplied by `factor` when the monitored value has not improved for more than `patience` validations.

    An improvement is one by more than `min_delta`. After a cut, `cooldown` validations go uncounted; the multiplier
    never falls below `minimum`. The rule of He et al. 2016, 1512.03385, section 3.4 ("when the error plateaus").
    """

    factor: float = 0.1
    patience: int = 5
    min_delta: float = 0.0
    cooldown: int = 0
    minimum: float = 0.0
    state: dict[str, float] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(0 < self.factor < 1, "factor", self.factor, "above 0 and below 1")
        _check(self.patience >= 0, "patience", self.patience, "0 or more")
        _check(self.min_delta >= 0, "min_delta", self.min_delta, "0 or more")
        _check(self.cooldown >= 0, "cooldown", self.cooldown, "0 or more")
        _check(0 <= self.minimum <= 1, "minimum", self.minimum, "between 0 and 1: lowest rate / first rate")
        self.state.update(multiplier=1.0, bad=0, cooling=0)

    def after_warmup(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        return self.state["multiplier"]

    def observe(self, score: float, mode: str) -> None:
        """Take the score of a validation; `mode` says whether "min" or "max" is better."""
        _check(mode in ("min", "max"), "mode", mode, "min or max")
        state = self.state
        worst = math.inf if mode == "min" else -math.inf
        gain = (state.get("best", worst) - score) * (1 if mode == "min" else -1)
        if gain > self.min_delta:  # never so for a score that is not a number
            state["best"], state["bad"] = score, 0
        else:
            state["bad"] += 1
        if state["cooling"] > 0:
            state["cooling"] -= 1
            state["bad"] = 0
        if state["bad"] > self.patience:
            state["multiplier"] = max(state["multiplier"] * self.factor, self.minimum)
            state["cooling"], state["bad"] = self.cooldown, 0

    def state_dict(self) -> dict[str, float]:
        return dict(self.state)

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.state.clear()
        self.state.update(state)
