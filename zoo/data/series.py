"""Time series: the values of a window of the past go in, those of the next `horizon` steps are to be told.

The splits are stretches of time, training first and test last. The targets of an example lie within its split; its
window may reach back into the split before, as that of a forecast made on that day would. Inputs and targets are
standardised by the mean and deviation of the training stretch.

Shapes: N rows of a series, F columns of which the target is the first, B examples.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.embedded import shipped
from zoo.data.loaders import Batch
from zoo.data.module import DataModule
from zoo.data.own import OwnData, identify, listed, note
from zoo.data.tables import NUMBER, check_names, missing, read_table
from zoo.errors import ZooError

_DATE = re.compile(r"\d{4}-\d\d(-\d\d([T ].*)?)?")  # sorted as text, sorted in time


class SeriesSplit:
    """The examples whose first target is one of the rows `origins` (M,) of `values` (N, F), float32."""

    augment = None

    def __init__(self, values: Tensor, origins: Tensor, *, window: int, horizon: int) -> None:
        self.values, self.origins = values, origins
        self.past, self.future = torch.arange(-window, 0), torch.arange(horizon)

    def __len__(self) -> int:
        return len(self.origins)

    def batch(self, epoch: int, positions: Tensor, indices: Tensor) -> Batch:
        """`input` (B, window, F), oldest first, and `target` (B, horizon)."""
        origins = self.origins.index_select(0, indices)[:, None]
        inputs, targets = self.values[origins + self.past], self.values[:, 0][origins + self.future]
        return {"input": inputs, "target": targets, "position": positions}


@dataclass(kw_only=True, eq=False)
class Series(DataModule):
    """Base of the series: a subclass implements `series`. `season` is the length of a cycle in steps, if there is one.

    Facts: `mean` and `std` of each column, `target_mean` and `target_std` of the target, all of the training stretch.
    """

    window: int = 11
    horizon: int = 1
    season: int | None = None
    num_tokens: int | None = None
    sequence_length: int | None = None
    feature_names: Sequence[str] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    target_mean: float | None = None
    target_std: float | None = None

    def __post_init__(self) -> None:
        for name in ("window", "horizon", "season"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        super().__post_init__()
        if self.augmentation:
            raise ZooError("augment: these data are not images, and only images are augmented; say augment=none.")

    def series(self) -> tuple[Tensor, list[str], int, int]:
        """The values, float64 (N, F), the names of the columns, and the rows where validation and test begin."""
        raise NotImplementedError

    def read(self) -> None:
        values, names, val, test = self.series()
        stretches = {"train": (self.window, val), "val": (val, test), "test": (test, len(values))}
        for name, (first, end) in stretches.items():
            if end - first <= self.horizon:  # two examples: fewer make no batch
                rows, needed = (end if name == "train" else end - first), self.horizon + 1
                needed += self.window if name == "train" else 0
                larger = f" or a larger data.{name}_fraction" if hasattr(self, f"{name}_fraction") else ""
                raise ZooError(
                    f"The {name} part of the series has {rows} rows, and window={self.window} horizon={self.horizon} "
                    f"need {needed}: give a longer series, or a smaller data.window or data.horizon{larger}."
                )
        self._complete_facts(values[:val], names)
        mean, std = (torch.tensor(self.facts[name], dtype=torch.float64) for name in ("mean", "std"))
        scaled = ((values - mean) / std).float()
        for name, column, spread in zip(names, scaled.unbind(1), std, strict=True):
            if not (column.isfinite().all() and spread.isfinite()):
                raise ZooError(f"column {name!r}: the numbers are too large; rescale them.")
        self.splits = {
            name: SeriesSplit(
                scaled, torch.arange(first, end - self.horizon + 1), window=self.window, horizon=self.horizon
            )
            for name, (first, end) in stretches.items()
        }

    def _complete_facts(self, train: Tensor, names: list[str]) -> None:
        self.state({"num_features": len(names), "feature_names": names})
        self.state({"num_classes": self.horizon, "sequence_length": self.window})
        if self.facts["mean"] is None or self.facts["std"] is None:
            for name, column in zip(names, train.unbind(1), strict=True):
                if (column == column[0]).all():
                    raise ZooError(
                        f"column {name!r} is {column[0].item():g} in all {len(train)} training rows: there is nothing "
                        "to learn from it; leave it out, or give a longer series."
                    )
            self.facts |= {"mean": train.mean(0).tolist(), "std": train.std(0, correction=0).tolist()}
        self.facts |= {"target_mean": self.facts["mean"][0], "target_std": self.facts["std"][0]}


@dataclass(kw_only=True, eq=False)
class Sunspots(Series):
    """The yearly sunspot number, 1700 to 2008: train to 1908, validation to 1948, test to 2008.

    The sixty years of test are the last fifth of all windows of eleven years.
    """

    season: int | None = 11

    def series(self) -> tuple[Tensor, list[str], int, int]:
        file = shipped("sunspots.csv", "f67889b1d9002cd5")
        values = torch.from_numpy(np.loadtxt(file, delimiter=",", skiprows=1, usecols=[1]))
        return values[:, None], ["sunspots"], len(values) - 100, len(values) - 60


@dataclass(kw_only=True, eq=False)
class CsvSeries(Series, OwnData):
    """The table in `path`, a row a step: `target` is forecast from its own past and that of the columns `inputs`.

    The last `test_fraction` of the rows are test, the `val_fraction` before them validation. Rows that have a column
    `time` must be in its order: numbers, or dates with the year first.
    """

    path: str | None = None
    target: str | None = None
    inputs: Sequence[str] = ()
    time: str | None = None
    separator: str = "auto"
    encoding: str = "utf-8"
    ignore: Sequence[str] = ()

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Also what reads the columns of a new file."""
        reading = {"separator": self.separator, "encoding": self.encoding, "feature_names": self.facts["feature_names"]}
        return super().preprocessing | reading

    def series(self) -> tuple[Tensor, list[str], int, int]:
        if self.path is None:
            raise ZooError("data.path=null: say which table to read, as in data.path=table.csv.")
        path, source = Path(self.path).expanduser(), self.path
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ZooError(f"data.path={self.path}: cannot read {path.absolute()}: {error.strerror}.") from None
        identify(self.facts, source, content)
        table = read_table(content, source, separator=self.separator, encoding=self.encoding, ignore=self.ignore)
        there = list(table.cells)
        if self.target is None:
            raise ZooError(f"data.target=null: say which column to forecast; {source} has {listed(there)}.")
        names = [self.target, *map(str, self.inputs)]
        check_names([self.target], there, "data.target", source)
        check_names(names[1:], there, "data.inputs", source)
        if len(set(names)) < len(names):
            raise ZooError(f"data.inputs={listed(names[1:])}: name each column once, and the target not at all.")
        if self.time is not None:
            check_names([self.time], there, "data.time", source)
            check_order(table.cells[self.time], table.lines, f"{source} column {self.time!r}")
        columns = [known(table.cells[name], table.lines, f"{source} column {name!r}") for name in names]
        rows = len(table.lines)
        test = rows - round(rows * self.test_fraction)
        val = test - round(rows * self.val_fraction)
        if self.season is not None and self.season > self.window:
            note(f"data.season={self.season} is more than data.window={self.window}: no seasonal forecast is compared.")
        note(f"{source}: {self.target} from {listed(names)}; rows {val} train, {test - val} val, {rows - test} test.")
        return torch.tensor(columns, dtype=torch.float64).T, names, val, test


def known(cells: Sequence[str], lines: Sequence[int], what: str) -> list[float]:
    """Cells as numbers; raises ZooError naming the lines of those that are missing, or no finite number."""
    if gaps := [f"line {line}" for cell, line in zip(cells, lines, strict=True) if missing(cell)]:
        raise ZooError(
            f"{what}: no value in {listed(gaps)}; a series needs one in every row: fill the gaps in, such as with the "
            "value before, or cut the series there."
        )
    wrong = [
        f"line {line}: {cell!r}"
        for cell, line in zip(cells, lines, strict=True)
        if not NUMBER.fullmatch(cell) or not math.isfinite(float(cell))
    ]
    if wrong:
        raise ZooError(f"{what}: not a finite number in {listed(wrong)}; write numbers as 12.5, 1000 or 1e3.")
    return [float(cell) for cell in cells]


def check_order(cells: Sequence[str], lines: Sequence[int], what: str) -> None:
    """Refuse times that do not rise from row to row."""
    form = max((NUMBER, _DATE), key=lambda form: sum(form.fullmatch(cell) is not None for cell in cells))
    strange = [f"line {line}: {cell!r}" for cell, line in zip(cells, lines, strict=True) if not form.fullmatch(cell)]
    if strange:
        raise ZooError(
            f"{what}: neither numbers nor dates such as 2024-01-31, or unlike the other rows: {listed(strange)}; mend "
            "them, or say data.time=null if the rows are in order."
        )
    times: list[Any] = [float(cell) for cell in cells] if form is NUMBER else list(cells)
    for row in range(1, len(times)):
        if not times[row - 1] < times[row]:
            raise ZooError(
                f"{what} line {lines[row]}: {cells[row]} does not come after {cells[row - 1]}; sort the rows, oldest "
                "first, and keep one for each time."
            )
