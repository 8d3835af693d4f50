"""Folds: every example of the pool validates once, each class has its share, the test split stays."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from zoo.data.csv_table import CsvTable
from zoo.data.embedded import Digits, Earth, earth_tiles
from zoo.data.image_folder import ImageFolder
from zoo.data.sequences import SequentialDigits
from zoo.data.splits import folded
from zoo.data.synthetic import Synthetic


@pytest.mark.parametrize("folds", [2, 3, 7])
def test_each_example_is_in_one_fold_and_each_class_in_all(folds: int) -> None:
    targets = torch.tensor([0] * 31 + [1] * 16 + [2] * 8)
    held_out = [folded(targets, folds, fold, seed=3) for fold in range(folds)]
    assert torch.equal(torch.cat([val for _, val in held_out]).sort().values, torch.arange(55))
    for train, val in held_out:
        assert torch.equal(torch.cat([train, val]).sort().values, torch.arange(55))
        counts = torch.bincount(targets[val], minlength=3)
        assert ((counts - torch.tensor([31, 16, 8]) / folds).abs() < 1.5).all()
        assert len(val) in (55 // folds, -(-55 // folds))
    assert not torch.equal(held_out[0][1], folded(targets, folds, 0, seed=4)[1])


def rows(*parts: Tensor) -> list[tuple[float, ...]]:
    return sorted(tuple(row) for part in parts for row in part.flatten(1).tolist())


def test_folds_of_a_data_set() -> None:
    options = {"kind": "vectors", "train_size": 50, "val_size": 13}
    whole = Synthetic(**options)  # type: ignore[arg-type]
    whole.setup()
    pool = rows(whole.splits["train"].inputs, whole.splits["val"].inputs)
    seen = []
    for fold in range(4):
        data = Synthetic(**options, folds=4, fold=fold)  # type: ignore[arg-type]
        data.setup()
        assert rows(data.splits["train"].inputs, data.splits["val"].inputs) == pool
        assert torch.equal(data.splits["test"].inputs, whole.splits["test"].inputs)
        assert data.facts["mean"] != whole.facts["mean"]  # measured on what is left to train on
        seen.append(data.splits["val"].inputs)
    assert rows(*seen) == pool


def test_digits_and_their_sequences_have_the_same_folds() -> None:
    pictures, sequences = Digits(folds=5, fold=3), SequentialDigits(folds=5, fold=3)
    for data in (pictures, sequences):
        data.setup()
        assert torch.equal(torch.bincount(data.splits["val"].targets), torch.full((10,), 80))
    assert torch.equal(pictures.splits["val"].inputs, sequences.splits["val"].inputs)


def test_folds_of_the_earth_are_stripes() -> None:
    tiles, _, stripes = earth_tiles()
    stripe_of = dict(zip(map(bytes, tiles.numpy()), stripes.tolist(), strict=True))
    held_out: list[int] = []
    for fold in range(2):
        data = Earth(folds=2, fold=fold)
        data.setup()
        there = {name: {stripe_of[bytes(x)] for x in split.inputs.numpy()} for name, split in data.splits.items()}
        assert not there["train"] & there["val"]
        assert there["test"] == {4, 9, 14, 19, 24, 29}
        shares = torch.bincount(data.splits["val"].targets) / torch.bincount(data.splits["train"].targets)
        assert ((shares > 0.6) & (shares < 1.6)).all()  # 1, were they even
        held_out += there["val"]
    assert sorted(held_out) == sorted({*range(30)} - there["test"])


def test_folds_of_a_table_and_of_folders(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("x,y\n" + "".join(f"{n},{'ab'[n % 2]}\n" for n in range(60)))
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for number in range(4):
                Image.new("L", (8, 8), 9 * number).save(tmp_path / part / name / f"{number}.png")
    sizes = []
    for fold in range(2):
        rows_of = CsvTable(path=str(table), target="y", folds=2, fold=fold)
        pictures = ImageFolder(root=str(tmp_path), image_size=8, folds=2, fold=fold)
        for data in (rows_of, pictures):
            data.setup()
            sizes.append({name: len(split) for name, split in data.splits.items()})
    assert sizes == [{"train": 24, "val": 24, "test": 12}, {"train": 7, "val": 7, "test": 2}] * 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"fold": 0}, "data.fold=0: must be null"),
        ({"folds": 3}, "data.fold=None: must be one of 0,1,2"),
        ({"folds": 3, "fold": 3}, "data.fold=3: must be one of 0,1,2"),
        ({"folds": 1, "fold": 0}, "data.folds=1: must be from 2 to 320"),
        ({"folds": 321, "fold": 0}, "data.folds=321: must be from 2 to 320"),
    ],
)
def test_refused(options: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Synthetic(**options).setup()  # type: ignore[arg-type]
