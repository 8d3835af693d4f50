"""The copying and the adding problem against their definitions, and digits as sequences against the pictures."""

import math
from typing import Any

import pytest
import torch
from conftest import compose_config
from hydra.utils import instantiate

from zoo.data.embedded import Digits
from zoo.data.module import DataModule
from zoo.data.sequences import AddingTask, CopyTask, SequentialDigits
from zoo.errors import ZooError


def made(name: str, *words: str) -> Any:
    data = instantiate(compose_config([f"data={name}", *words]).data)
    data.setup()
    return data


def examples(data: DataModule, split: str, epoch: int = 0, first: int = 0, end: int = 1000) -> dict[str, torch.Tensor]:
    numbers = torch.arange(first, end)
    return data.splits[split].batch(epoch, numbers - first, numbers)


# Drawn tasks ----------------------------------------------------------------------------------------------------------


def test_copying_is_as_defined() -> None:
    data = made("copy_task", "data.delay=7")
    batch = examples(data, "val")
    inputs, targets = batch["input"], batch["target"]
    assert inputs.shape == targets.shape == (1000, 27)
    assert inputs.dtype == targets.dtype == torch.int64
    assert set(inputs[:, :10].unique().tolist()) == set(range(1, 9))
    assert (inputs[:, 10:16] == 0).all()  # delay - 1 blanks
    assert (inputs[:, 16] == 9).all()
    assert (inputs[:, 17:] == 0).all()
    assert (targets[:, :17] == 0).all()
    assert torch.equal(targets[:, 17:], inputs[:, :10])
    counts = torch.bincount(inputs[:, :10].flatten(), minlength=9)[1:] / 10_000
    assert counts.sub(1 / 8).abs().max() < 0.015  # four standard deviations
    assert len(inputs.unique(dim=0)) == 1000
    facts = data.facts
    assert (facts["num_tokens"], facts["num_classes"], facts["recall"], facts["sequence_length"]) == (10, 10, 10, 27)
    assert len(facts["vocabulary"]) == 10


def test_copying_without_memory_costs_what_the_page_says() -> None:
    """The best answer to each step alone: a blank, then any of the eight symbols."""
    data = CopyTask()
    data.setup()
    target = examples(data, "test")["target"]
    logits = torch.full((*target.shape, 10), -1e9)
    logits[:, :40, 0] = 0
    logits[:, 40:, 1:9] = 0
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten())
    assert loss.item() == pytest.approx(10 * math.log(8) / 50, rel=1e-6)
    assert loss.item() == pytest.approx(0.4159, abs=1e-4)


@pytest.mark.parametrize("length", [100, 7])
def test_adding_is_as_defined(length: int) -> None:
    data = made("adding_task", f"data.length={length}")
    batch = examples(data, "val")
    values, marks = batch["input"].unbind(2)
    assert values.shape == (1000, length)
    assert batch["input"].dtype == batch["target"].dtype == torch.float32
    assert set(marks.unique().tolist()) == {0.0, 1.0}
    half = length // 2
    assert (marks[:, :half].sum(1) == 1).all()
    assert (marks[:, half:].sum(1) == 1).all()
    assert (marks.sum(0) > 0).all()  # every step is marked somewhere
    torch.testing.assert_close(batch["target"], (values * marks).sum(1, keepdim=True))
    assert 0 <= values.min() < 0.01
    assert 0.99 < values.max() < 1
    assert values.mean().item() == pytest.approx(0.5, abs=0.015)
    assert (batch["target"] - 1).square().mean().item() == pytest.approx(1 / 6, abs=0.02)
    facts = data.facts
    assert (facts["num_features"], facts["num_classes"], facts["sequence_length"]) == (2, 1, length)
    assert facts["num_tokens"] is None


@pytest.mark.parametrize("task", [CopyTask, AddingTask])
def test_training_examples_are_fresh_and_others_fixed(task: type[CopyTask] | type[AddingTask]) -> None:
    data, again, other = task(), task(batch_size=7), task(seed=1)
    for each in (data, again, other):
        each.setup()
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 6400, "val": 1000, "test": 1000}

    def inputs(of: DataModule, split: str, epoch: int, **part: int) -> torch.Tensor:
        return examples(of, split, epoch, **part)["input"]

    train = inputs(data, "train", 3)
    assert torch.equal(train, inputs(again, "train", 3))
    assert torch.equal(train[20:30], inputs(data, "train", 3, first=20, end=30))  # whatever the batch
    assert not torch.equal(train[0], inputs(data, "train", 4)[0])
    assert not torch.equal(train[0], inputs(other, "train", 3)[0])
    for split in ("val", "test"):
        assert torch.equal(inputs(data, split, 0), inputs(other, split, 5))
    assert not torch.equal(inputs(data, "val", 0)[0], inputs(data, "test", 0)[0])
    assert not torch.equal(inputs(data, "val", 0)[0], inputs(data, "train", 0)[0])
    moved, kept = task(split_seed=1), task(fresh=False)
    for each in (moved, kept):
        each.setup()
    assert not torch.equal(inputs(moved, "val", 0)[0], inputs(data, "val", 0)[0])
    assert torch.equal(inputs(kept, "train", 3), inputs(kept, "train", 4))


def test_wrong_sizes_of_drawn_tasks() -> None:
    for wrong, sentence in (({"delay": 0}, "delay=0"), ({"train_size": 0}, "train_size=0"), ({"val_size": -1}, "val_")):
        with pytest.raises(ValueError, match=f"{sentence}.*must be at least 1"):
            CopyTask(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="length=1: must be at least 2"):
        AddingTask(length=1)
    with pytest.raises(ZooError, match="augment=none"):
        AddingTask(augment={"shift": 2})
    wrong = AddingTask(num_features=3)
    with pytest.raises(ZooError, match="num_features=3: these data have 2"):
        wrong.setup()


# Digits ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> Digits:
    return made("digits")


@pytest.mark.parametrize(("name", "shape"), [("digits_rows", (28, 28)), ("digits_pixels", (784, 1))])
def test_digits_are_read_top_to_bottom(digits: Digits, name: str, shape: tuple[int, int]) -> None:
    data = made(name)
    for split in ("train", "val", "test"):
        assert len(data.splits[split]) == len(digits.splits[split])
        numbers = torch.arange(50, 90)
        batch, pictures = (of.loader(split).split.batch(0, numbers, numbers) for of in (data, digits))  # not augmented
        assert batch["input"].shape == (40, *shape)
        assert torch.equal(batch["input"].flatten(), pictures["input"].flatten())
        assert torch.equal(batch["target"], pictures["target"])
        assert "length" not in batch
    facts = data.facts
    assert (facts["sequence_length"], facts["num_features"]) == shape
    assert facts["num_classes"] == len(facts["class_names"]) == 10
    assert facts["num_tokens"] is None


def test_training_digits_are_augmented_as_pictures(digits: Digits) -> None:
    rows, pictures = (examples(of, "train", epoch=2)["input"] for of in (made("digits_rows"), digits))
    assert torch.equal(rows, pictures[:, 0])
    plain = examples(made("digits_rows", "augment=none"), "train", epoch=2)["input"]
    assert not torch.equal(rows, plain)


def test_permuted_digits_share_one_order() -> None:
    plain, permuted = (made("digits_pixels", f"data.permute={word}") for word in ("false", "true"))
    before, after = (examples(data, "val", end=400)["input"][:, :, 0] for data in (plain, permuted))
    assert not torch.equal(before, after)
    assert torch.equal(before.sort().values, after.sort().values)
    # pixels that differ somewhere in these pictures have their own column, found again at one place for all pictures
    columns = {tuple(column) for column in before.T.tolist()}
    assert {tuple(column) for column in after.T.tolist()} == columns
    assert torch.equal(
        examples(made("digits_pixels", "data.permute=true", "seed=1"), "val", end=400)["input"][:, :, 0], after
    )
    other = made("digits_pixels", "data.permute=true", "data.split_seed=1")
    blank = after.std(0) == 0
    assert not torch.equal(examples(other, "val", end=400)["input"][:, :, 0].std(0) == 0, blank)


def test_statistics_are_measured_when_left_out() -> None:
    data = SequentialDigits()
    data.setup()
    assert (data.facts["mean"], data.facts["std"]) == ([0.1312], [0.3084])
    assert (data.facts["sequence_length"], data.facts["num_features"]) == (28, 28)
    with pytest.raises(ValueError, match="by=columns: must be rows or pixels"):
        SequentialDigits(by="columns")  # type: ignore[arg-type]
