"""Splits over tensors: what a batch holds, how classes are divided, which facts are filled in or refused."""

from typing import Any

import pytest
import torch

from zoo.data.arrays import ArrayDataModule, Arrays, ArraySplit, statistics
from zoo.data.augment import Augment
from zoo.data.splits import balanced, stratified
from zoo.data.synthetic import Synthetic
from zoo.errors import ZooError


def images(count: int = 30, channels: int = 3, size: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)


class Small(ArrayDataModule):
    """Thirty pictures of three classes, and the first ten as validation."""

    def arrays(self) -> dict[str, Arrays]:
        targets = torch.arange(30) % 3
        return {"train": (images(), targets), "val": (images()[:10], targets[:10])}


def test_a_batch_of_images_is_normalised_per_channel() -> None:
    mean, std = (0.5, 0.25, 0.1), (0.2, 0.3, 0.4)
    targets = torch.arange(30)
    indices, positions = torch.tensor([4, 29, 0]), torch.tensor([10, 11, 12])
    batch = ArraySplit(images(), targets, mean=mean, std=std).batch(0, positions, indices)
    expected = (images()[indices].double() / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(batch["input"], expected.float())
    assert batch["input"].is_contiguous()
    assert torch.equal(batch["target"], indices)
    assert torch.equal(batch["position"], positions)


def test_a_batch_of_vectors_is_normalised_per_feature_and_the_data_stay() -> None:
    inputs = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    before = inputs.clone()
    mean, std = statistics(inputs)
    split = ArraySplit(inputs, torch.zeros(20, 2), mean=mean, std=std)
    batch = split.batch(0, torch.arange(20), torch.arange(20))
    torch.testing.assert_close(batch["input"].mean(0), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(batch["input"].std(0, correction=0), torch.ones(4), atol=1e-3, rtol=0)
    assert torch.equal(inputs, before)


def test_augmentation_follows_the_epoch_and_the_position_not_the_index() -> None:
    same = images(1, size=16).expand(30, -1, -1, -1).contiguous()
    augment = Augment(seed=4, shift=3)
    split = ArraySplit(same, torch.zeros(30), augment=augment)
    positions, indices = torch.tensor([7, 3]), torch.tensor([0, 1])
    for epoch in (0, 2, 0):  # back again: what is kept of one epoch must not leak into another
        expected = augment(same[:2], epoch, positions).float() / 255
        torch.testing.assert_close(split.batch(epoch, positions, indices)["input"], expected)


@pytest.mark.parametrize(("held_out", "counts"), [(10, [60, 30, 10]), (25, [60, 30, 10]), (7, [50, 3, 40])])
def test_stratified_gives_every_class_its_share(held_out: int, counts: list[int]) -> None:
    targets = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    rest, held = stratified(targets, held_out, seed=5)
    assert len(held) == held_out
    assert torch.equal(torch.cat([rest, held]).sort().values, torch.arange(sum(counts)))
    share = torch.bincount(targets[held], minlength=3) - torch.tensor(counts) * held_out / sum(counts)
    assert share.abs().max() <= 1
    assert torch.bincount(targets[held], minlength=3).min() >= 1


def test_stratified_is_seeded_and_mixes_within_the_classes() -> None:
    targets = torch.arange(100) // 50
    first = stratified(targets, 20, seed=0)[1]
    assert torch.equal(first, stratified(targets, 20, seed=0)[1])
    assert not torch.equal(first, stratified(targets, 20, seed=1)[1])
    assert first[targets[first] == 0].max() > 20  # not simply the first of each class
    rest = stratified(targets, 20, seed=0)[0]
    assert len(targets[first[:10]].unique()) == len(targets[rest[:10]].unique()) == 2


@pytest.mark.parametrize(
    ("count", "expected"), [(0, [0, 0, 0]), (3, [1, 1, 1]), (7, [3, 2, 2]), (12, [6, 2, 4]), (99, [50, 2, 40])]
)
def test_a_small_part_has_as_many_of_each_class_as_there_are(count: int, expected: list[int]) -> None:
    order = torch.randperm(92, generator=torch.Generator().manual_seed(0))
    targets = torch.repeat_interleave(torch.arange(3), torch.tensor([50, 2, 40]))[order]
    chosen = balanced(targets, count)
    found = torch.bincount(targets[chosen], minlength=3).tolist()
    assert sum(found) == sum(expected)
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= 1
    for label in range(3):  # the first of the class, in the order they had
        members = torch.nonzero(targets == label)[:, 0]
        assert torch.equal(chosen[targets[chosen] == label], members[: found[label]])
    assert torch.equal(chosen, chosen.sort().values)
    assert set(chosen.tolist()) <= set(balanced(targets, count + 5).tolist())


@pytest.mark.parametrize("wanted", [9, 0.3])
def test_train_examples_are_the_first_of_each_class(wanted: float) -> None:
    class Sorted(ArrayDataModule):
        def arrays(self) -> dict[str, Arrays]:
            return {"train": (images(), torch.arange(30) // 10), "val": (images()[:10], torch.arange(10) // 4)}

    data = Sorted(batch_size=9)
    data.setup()
    everyone = data.indices("train")
    data.train_examples = wanted
    assert torch.equal(everyone, torch.arange(30))
    assert (data.size("train"), data.size("val")) == (9, 10)
    expected = torch.tensor([0, 1, 2, 10, 11, 12, 20, 21, 22])
    for training in (True, False):
        loader = data.loader("train", training=training)
        ((_, positions, indices),) = loader.sampler
        assert torch.equal(positions, torch.arange(9))
        assert torch.equal(indices if not training else indices.sort().values, expected)
        assert torch.equal(next(iter(loader))["target"], indices // 10)
    data.train_examples = 100
    assert data.size("train") == 30


def test_train_examples_without_classes_are_the_first() -> None:
    data = Synthetic(kind="regression")
    data.setup()
    data.train_examples = 7
    assert torch.equal(data.indices("train"), torch.arange(7))


def test_statistics_are_those_of_numpy() -> None:
    values = images().numpy() / 255
    mean, std = statistics(images())
    assert mean == pytest.approx(values.mean((0, 2, 3)), abs=6e-5)
    assert std == pytest.approx(values.std((0, 2, 3)), abs=6e-5)
    vectors = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    assert statistics(vectors) == ([2.0, 5.0], [1.0, 1.0])  # the constant feature is left as it is


def test_absent_facts_are_filled_in() -> None:
    data = Small(batch_size=4)
    data.setup()
    mean, std = statistics(images())
    assert data.facts == {
        "channels": 3,
        "image_size": 8,
        "num_features": 192,
        "num_classes": 3,
        "class_names": ["0", "1", "2"],
        "mean": mean,
        "std": std,
    }
    assert data.preprocessing == {n: data.facts[n] for n in ("channels", "image_size", "num_features", "mean", "std")}


def test_stated_facts_stand_and_are_used() -> None:
    data = Small(batch_size=4, mean=[0.0], std=[0.5], class_names=["a", "b", "c"])
    data.setup()
    assert data.facts["mean"] == [0.0]
    assert data.facts["class_names"] == ["a", "b", "c"]
    batch = next(iter(data.val_dataloader()))
    torch.testing.assert_close(batch["input"], images()[:10].float() / 255 / 0.5)


@pytest.mark.parametrize(
    "facts",
    [{"channels": 1}, {"image_size": 28}, {"num_features": 3}, {"num_classes": 2}, {"class_names": ["a", "b"]}],
)
def test_facts_that_contradict_the_data_are_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(ZooError, match=f"data.{next(iter(facts))}"):
        Small(batch_size=4, **facts).setup()


@pytest.mark.parametrize(("name", "value"), [("mean", [0.1, 0.2]), ("std", [1.0, 1.0]), ("std", [0.0])])
def test_impossible_statistics_are_refused(name: str, value: list[float]) -> None:
    with pytest.raises(ValueError, match=f"^{name}="):
        ArraySplit(images(), torch.arange(30), **{"mean": [0.0], "std": [1.0], name: value})  # type: ignore[arg-type]


def test_only_training_is_augmented() -> None:
    data = Small(batch_size=30, augment={"flip": 1.0}, mean=[0.0], std=[1.0])
    data.setup()
    batch = next(iter(data.train_dataloader()))
    order = next(iter(data.train_dataloader().sampler))[2]
    torch.testing.assert_close(batch["input"], images()[order].flip(-1).float() / 255)
    for split, count in (("val", 10), ("train", 30)):  # scoring the training examples is evaluation too
        scored = next(iter(data.loader(split)))["input"]
        torch.testing.assert_close(scored, images()[:count].float() / 255)
    first = torch.arange(10)
    torch.testing.assert_close(data.splits["val"].batch(0, first, first)["input"], images()[:10].float() / 255)


def test_training_needs_training_examples() -> None:
    data = Small(batch_size=4)
    data.setup()
    del data.splits["train"]
    data.setup("test")
    with pytest.raises(ZooError, match="no examples to train on, only val"):
        data.setup("fit")


@pytest.mark.parametrize("kind", ["images", "vectors"])
def test_synthetic_classes_can_be_told_apart_but_not_for_nothing(kind: str) -> None:
    data = Synthetic(kind=kind, num_classes=4, train_size=200, val_size=100)
    data.setup()
    batches = {s: data.splits[s].batch(0, torch.arange(100), torch.arange(100)) for s in ("train", "val")}
    x, y = (batches["train"][name] for name in ("input", "target"))
    centres = torch.stack([x[y == label].flatten(1).mean(0) for label in range(4)])
    nearest = torch.cdist(batches["val"]["input"].flatten(1), centres).argmin(1)
    assert (nearest == batches["val"]["target"]).float().mean() > 0.95
    assert not torch.equal(batches["train"]["input"], batches["val"]["input"])


def test_synthetic_regression_is_linear_under_noise() -> None:
    data = Synthetic(kind="regression", train_size=500, num_features=6)
    data.setup()
    batch = data.splits["train"].batch(0, torch.arange(500), torch.arange(500))
    assert batch["target"].shape == (500, 1)
    assert batch["target"].dtype == torch.float32
    design = torch.cat([batch["input"], torch.ones(500, 1)], 1)
    residual = batch["target"] - design @ torch.linalg.lstsq(design, batch["target"]).solution
    assert residual.std() == pytest.approx(0.1, rel=0.1)
    assert data.facts["num_classes"] == 1


def test_synthetic_is_seeded_and_refuses_nonsense() -> None:
    first, again, other = (Synthetic(split_seed=seed) for seed in (0, 0, 1))
    for data in (first, again, other):
        data.setup()
    inputs = [
        data.splits["train"].batch(0, torch.arange(9), torch.arange(9))["input"] for data in (first, again, other)
    ]
    assert torch.equal(inputs[0], inputs[1])
    assert not torch.equal(inputs[0], inputs[2])
    with pytest.raises(ValueError, match="kind=sounds"):
        Synthetic(kind="sounds")
    with pytest.raises(ValueError, match="val_size=0"):
        Synthetic(val_size=0)
    Synthetic(kind="vectors", augment={"shift": 0}).setup()
    with pytest.raises(ZooError, match="only images are augmented"):
        Synthetic(kind="vectors", augment={"shift": 1}).setup()
