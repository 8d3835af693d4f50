"""What a sweep varies, and the points it tries: all combinations, random draws, or what Optuna proposes.

Points are functions of the settings and of the scores before them, so an interrupted sweep goes on as if it had not
been: nothing but `sweep.json` is stored. Imports no torch.
"""

import itertools
import math
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from hydra.core.override_parser.types import IntervalSweep, Override

from zoo.checks import read_argument, values_of
from zoo.errors import ZooError

Point = dict[str, str]  # what each varied key is set to, as it is typed
REPEATS = ("seed", "data.fold")  # what is not searched over: every point is run with all of these


class Dimension(NamedTuple):
    """A key and what it may be set to: one of `values`, or a number from `low` to `high`."""

    key: str
    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    is_log: bool = False
    is_whole: bool = False

    def at(self, share: float) -> str:
        """The value at a share, from 0 to below 1, of what there is to choose from."""
        if self.values:
            return self.values[int(share * len(self.values))]
        low, high = (self.low - 0.5, self.high + 0.5) if self.is_whole else (self.low, self.high)
        if self.is_log:
            return self.text(math.exp(math.log(low) + share * (math.log(high) - math.log(low))))
        return self.text(low + share * (high - low))

    def text(self, number: float) -> str:
        """A number as it is typed: whole, or of six digits, and not beyond the ends."""
        number = min(max(number, self.low), self.high)
        return str(round(number)) if self.is_whole else repr(min(max(float(f"{number:.6g}"), self.low), self.high))


def dimensions(arguments: Sequence[str]) -> tuple[list[str], list[Dimension]]:
    """The words that all runs share, and what varies."""
    shared: list[str] = []
    varied: list[Dimension] = []
    for argument in arguments:
        override = read_argument(argument)
        if override is None or not override.is_sweep_override():
            shared.append(argument)
        else:
            varied.append(_dimension(override))
    return shared, varied


def _dimension(override: Override) -> Dimension:
    key, value = override.get_key_element(), override.value()
    if not isinstance(value, IntervalSweep):
        return Dimension(key, tuple(dict.fromkeys(values_of(override))))
    low, high = value.start, value.end
    assert low is not None
    assert high is not None
    is_log, is_whole = "log" in value.tags, isinstance(low, int) and isinstance(high, int)
    if not (math.isfinite(low) and low < high < math.inf):
        raise ZooError(f"{override.input_line}: an interval goes from a number to a larger one.")
    if is_log and low <= 0:
        raise ZooError(f"{override.input_line}: an interval with tag(log, …) begins above 0.")
    return Dimension(key, (), low, high, is_log, is_whole)


def grid(varied: Sequence[Dimension]) -> list[Point]:
    """All combinations, the last key varying fastest."""
    keys = [dimension.key for dimension in varied]
    return [
        dict(zip(keys, values, strict=True))
        for values in itertools.product(*(dimension.values for dimension in varied))
    ]


def draw(varied: Sequence[Dimension], number: int, *, seed: int) -> Point:
    """Point `number` of a random search (Bergstra, Bengio 2012, JMLR 13), each key drawn for itself."""
    return {d.key: d.at(random.Random(f"{seed} {number} {d.key}").random()) for d in varied}


def propose(
    varied: Sequence[Dimension], told: Sequence[tuple[Point, float | None]], *, count: int, seed: int, mode: str
) -> list[Point]:
    """`count` points from Optuna's tree-structured Parzen estimator (Bergstra et al. 2011, NIPS 24).

    `told` are the points before, with their scores; None where a point has none because a run of it failed.
    """
    optuna = import_optuna()
    spaces: dict[str, Any] = {}
    for d in varied:
        if d.values:
            spaces[d.key] = optuna.distributions.CategoricalDistribution(d.values)
        elif d.is_whole:
            spaces[d.key] = optuna.distributions.IntDistribution(int(d.low), int(d.high), log=d.is_log)
        else:
            spaces[d.key] = optuna.distributions.FloatDistribution(d.low, d.high, log=d.is_log)
    sampler = optuna.samplers.TPESampler(seed=(seed * 1_000_003 + len(told)) % 2**32)
    study = optuna.create_study(sampler=sampler, direction={"min": "minimize", "max": "maximize"}[mode])
    kinds = {d.key: str if d.values else int if d.is_whole else float for d in varied}
    for point, score in told:
        failed = score is None or not math.isfinite(score)
        study.add_trial(
            optuna.trial.create_trial(
                params={key: kinds[key](value) for key, value in point.items()},
                distributions=spaces,
                value=None if failed else score,
                state=optuna.trial.TrialState.FAIL if failed else optuna.trial.TrialState.COMPLETE,
            )
        )
    asked = [study.ask(spaces).params for _ in range(count)]
    return [{d.key: params[d.key] if d.values else d.text(params[d.key]) for d in varied} for params in asked]


def import_optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ZooError(
            "sweep=optuna: Optuna is not installed. Install it with: pip install optuna, or search with sweep=random."
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
