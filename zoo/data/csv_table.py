"""A person's own table: a CSV file with a header, one column of which is predicted from the others.

How cells become features is told in `zoo.data.tables`. Nothing is changed without a word: a row or a cell that cannot
be right stops the run, named by its line in the file, and a column or row that is left out is noted.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.data.arrays import ArraySplit
from zoo.data.own import OwnData, identify, listed, note
from zoo.data.splits import Folds
from zoo.data.tables import (
    NUMBER,
    SEPARATORS,
    Table,
    check_names,
    encode,
    feature_names,
    fit_columns,
    missing,
    numbers,
    read_table,
)
from zoo.errors import ZooError

_FEWEST_ROWS = 10


@dataclass(kw_only=True, eq=False)
class CsvTable(Folds, OwnData):
    """The table in `path`: `target` is predicted from the other columns, as a class or, `kind` regression, a number.

    Inputs are float32 (B, F); targets int64 (B,) or float32 (B, 1). With `standardize_target` a regression learns
    (target - target_mean) / target_std, two facts from the training rows; without, they are 0 and 1.
    """

    path: str | None = None
    target: str | None = None
    kind: str = "classification"
    separator: str = "auto"
    encoding: str = "utf-8"
    categorical: Sequence[str] = ()
    ignore: Sequence[str] = ()
    max_categories: int = 100
    drop_missing_target: bool = False
    standardize_target: bool = True
    feature_names: Sequence[str] | None = None
    target_mean: float | None = None
    target_std: float | None = None
    columns: Sequence[Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("classification", "regression"):
            raise ValueError(f"kind={self.kind}: must be classification or regression")
        if self.separator not in ("auto", *SEPARATORS, *SEPARATORS.values()):
            raise ValueError(
                f"separator={self.separator!r}: must be auto, {', '.join(SEPARATORS)} or the character itself"
            )
        self.categorical, self.ignore = [str(name) for name in self.categorical], [str(name) for name in self.ignore]
        super().__post_init__()

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What `read_table` and `encode` need for new rows, and what the network's output means."""
        kept = ("columns", "feature_names", "target_mean", "target_std")
        reading = {"separator": self.separator, "encoding": self.encoding, "target": self.target}
        return super().preprocessing | reading | {name: self.facts[name] for name in kept}

    def read(self) -> None:
        if self.path is None:
            raise ZooError("data.path=null: say which table to read, as in data.path=table.csv.")
        path, source = Path(self.path).expanduser(), self.path
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ZooError(f"data.path={self.path}: cannot read {path.absolute()}: {error.strerror}.") from None
        identify(self.facts, source, content)
        table = read_table(content, source, separator=self.separator, encoding=self.encoding, ignore=self.ignore)
        table, answers = self._without_target(table, source)
        if len(answers) < _FEWEST_ROWS:
            raise ZooError(f"{source} has {len(answers)} rows, and at least {_FEWEST_ROWS} are needed.")
        classes = self._classes(answers, table.lines, source) if self.kind == "classification" else []
        labels = torch.tensor([classes.index(answer) if classes else 0 for answer in answers])
        indices = self.refold(self.divide(labels, classes or ["all rows"]), labels, seed=self.split_seed)
        train = indices["train"].tolist()
        targets = labels if classes else self._numbers(answers, table.lines, train, source)
        if self.facts["columns"] is None:
            check_names(self.categorical, list(table.cells), "data.categorical", source)
            self.facts["columns"] = fit_columns(
                table, train, source, categorical=self.categorical, max_categories=self.max_categories
            )
        inputs, names = encode(table, self.facts["columns"], source), feature_names(self.facts["columns"])
        self.state({"num_features": len(names), "feature_names": names, "num_classes": len(classes) or 1})
        for name in ("train", "val", "test"):
            augment = self.augmentation if name == "train" else None  # refused: a table is no image
            self.splits[name] = ArraySplit(inputs[indices[name]], targets[indices[name]], augment=augment)
        sizes = ", ".join(f"{len(split)} {name}" for name, split in self.splits.items())
        what = f"{len(classes)} classes ({listed(classes)})" if classes else "a number"
        note(f"{source}: {len(table.cells)} columns as {len(names)} features; {self.target} is {what}; rows {sizes}.")

    def _without_target(self, table: Table, source: str) -> tuple[Table, list[str]]:
        """The table without the target's column, and that column; rows that lack a target are refused or left out."""
        if self.target is None:
            raise ZooError(f"data.target=null: say which column to predict; {source} has {listed(list(table.cells))}.")
        check_names([self.target], list(table.cells), "data.target", source)
        answers = table.cells.pop(self.target)
        absent = [str(line) for line, answer in zip(table.lines, answers, strict=True) if missing(answer)]
        if absent and not self.drop_missing_target:
            raise ZooError(
                f"{source}: no {self.target} in line {listed(absent)}; fill it in, or leave such rows out with "
                "data.drop_missing_target=true."
            )
        if absent:
            note(f"{source}: rows without {self.target} left out: line {listed(absent)}.")
        kept = [row for row, answer in enumerate(answers) if not missing(answer)]
        return table.pick(kept), [answers[row] for row in kept]

    def _classes(self, answers: Sequence[str], lines: Sequence[int], source: str) -> list[str]:
        """The class names, in order of value if all are numbers, else of the alphabet."""
        found = set(answers)
        order = sorted(found, key=float) if all(NUMBER.fullmatch(name) for name in found) else sorted(found)
        if len(order) > len(answers) / 2:
            raise ZooError(
                f"{source}: {self.target} has {len(order)} different values in {len(answers)} rows, too many for "
                "classes; if it is a number to predict, say data.kind=regression task=regression."
            )
        names = self.facts["class_names"] or order
        if len(names) < 2:
            raise ZooError(
                f"{source}: {self.target} is {listed(names) or 'nowhere'} in every row; there is nothing to tell apart."
            )
        if strange := [
            f"{name!r} in line {line}" for name, line in zip(answers, lines, strict=True) if name not in names
        ]:
            raise ZooError(
                f"{source} column {self.target!r}: {listed(strange)}: not among the classes {listed(names)}."
            )
        self.state({"class_names": names})
        return names

    def _numbers(self, answers: Sequence[str], lines: Sequence[int], train: Sequence[int], source: str) -> Tensor:
        """The targets of a regression, float32 (N, 1), standardised by the training rows `train`."""
        values = torch.tensor(numbers(answers, lines, f"{source} column {self.target!r}"), dtype=torch.float64)
        mean, std = values[list(train)].mean().item(), values[list(train)].std(correction=0).item()
        if len(values[list(train)].unique()) == 1:
            raise ZooError(
                f"{source}: {self.target} is {answers[train[0]]} in every training row; there is nothing to learn."
            )
        if not math.isfinite(std):
            raise ZooError(f"{source} column {self.target!r}: the numbers are too large; rescale them.")
        if self.facts["target_mean"] is None or self.facts["target_std"] is None:
            self.facts["target_mean"], self.facts["target_std"] = (mean, std) if self.standardize_target else (0.0, 1.0)
        return ((values - self.facts["target_mean"]) / self.facts["target_std"]).float()[:, None]
