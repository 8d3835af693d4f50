"""The shipped data: sizes, fixed splits, nothing shared between them, facts equal to what the files hold."""

import hashlib
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from conftest import compose_config
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from zoo.data.arrays import ArrayDataModule, ArraySplit, statistics
from zoo.data.embedded import FILES, earth_tiles

CONFIGS = FILES.parents[2] / "configs" / "data"
SIZES = {"digits": (3600, 400, 1000), "fashion": (4500, 500, 1000), "earth": (5904, 703, 1748)}
# sha256 over the inputs and targets of train, val and test in order: results compare only on the very same splits.
# Of Earth only the targets (which follow the tiles' places): decoders of JPEG may differ in the last bit of a pixel.
HASHES = {
    "digits": "42aaf1576c4a6ae2a9ecbdc15dd9f0c7e5852e5ed83372e59c3587d6594d14f8",
    "fashion": "8165a1765ef389f692604e89f8911912b1bc0018f4d472d806137e5d4f04d3cc",
    "earth": "d51a9eb32b8c54584eb27640d726a1b3c8236441156cbe7ebd1195d3418f59e6",
}


@cache
def load(name: str, **changes: Any) -> ArrayDataModule:
    data: ArrayDataModule = instantiate({**compose_config([f"data={name}"]).data, **changes})
    data.setup()
    return data


@pytest.fixture(scope="module", params=["digits", "fashion", "earth"])
def named(request: pytest.FixtureRequest) -> tuple[str, ArrayDataModule]:
    return request.param, load(request.param)


def split(data: ArrayDataModule, name: str) -> ArraySplit:
    part = data.splits[name]
    assert isinstance(part, ArraySplit)
    return part


def test_sizes_and_hash_of_the_splits(named: tuple[str, ArrayDataModule]) -> None:
    name, data = named
    assert tuple(len(split(data, part)) for part in ("train", "val", "test")) == SIZES[name]
    digest = hashlib.sha256()
    for part in ("train", "val", "test"):
        if name != "earth":
            digest.update(split(data, part).inputs.numpy().tobytes())
        digest.update(split(data, part).targets.numpy().tobytes())
    assert digest.hexdigest() == HASHES[name]


def test_the_facts_are_those_of_the_files(named: tuple[str, ArrayDataModule]) -> None:
    name, data = named
    stated = OmegaConf.load(CONFIGS / f"{name}.yaml")
    train = split(data, "train")
    mean, std = statistics(train.inputs)
    assert list(stated.mean) == pytest.approx(mean, abs=1.5e-4 if name == "earth" else 0)
    assert list(stated.std) == pytest.approx(std, abs=1.5e-4 if name == "earth" else 0)
    assert list(train.inputs.shape[1:]) == [stated.channels, stated.image_size, stated.image_size]
    assert stated.num_features == train.inputs[0].numel()
    assert len(stated.class_names) == stated.num_classes == len(train.targets.unique())


def rows(part: ArraySplit) -> set[bytes]:
    return {row.tobytes() for row in part.inputs.numpy()}


def test_no_picture_is_in_two_splits(named: tuple[str, ArrayDataModule]) -> None:
    name, data = named
    parts = [rows(split(data, part)) for part in ("train", "val", "test")]
    shared = len(parts[0] & parts[1]) + len(parts[0] & parts[2]) + len(parts[1] & parts[2])
    assert shared == 0, name


def test_the_digits_are_stratified_and_all_used_once() -> None:
    data = load("digits")
    for part, count in (("train", 360), ("val", 40), ("test", 100)):
        assert torch.bincount(split(data, part).targets).tolist() == [count] * 10
    with np.load(FILES / "mnist_5k.npz") as file:
        every = {image.tobytes() + bytes([label]) for image, label in zip(file["x"], file["y"], strict=True)}
    used = {
        image.tobytes() + bytes([label])
        for part in ("train", "val", "test")
        for image, label in zip(split(data, part).inputs.numpy(), split(data, part).targets.tolist(), strict=True)
    }
    assert used == every


def test_fashion_keeps_the_official_test_part() -> None:
    data = load("fashion")
    with np.load(FILES / "fashion_mnist_5k_1k.npz") as file:
        np.testing.assert_array_equal(split(data, "test").inputs[:, 0].numpy(), file["x_test"])
        np.testing.assert_array_equal(split(data, "test").targets.numpy(), file["y_test"])
    assert torch.bincount(split(data, "val").targets).tolist() == [50] * 10


def test_another_split_seed_gives_another_split() -> None:
    assert not torch.equal(split(load("digits", split_seed=1), "test").targets, split(load("digits"), "test").targets)


@pytest.fixture(scope="module")
def tiles() -> tuple[Tensor, Tensor, Tensor]:
    return earth_tiles()


def test_earth_tiles_are_what_the_rule_says(tiles: tuple[Tensor, Tensor, Tensor]) -> None:
    """Every tile of one stripe, found pixel by pixel from the two maps."""
    with Image.open(FILES / "earth.jpg") as file:
        picture = np.asarray(file)
    with Image.open(FILES / "earth_climate.png") as file:
        climate = np.asarray(file)
    climates = "Af Am As Aw BSh BSk BWh BWk Cfa Cfb Cfc Csa Csb Csc Cwa Cwb Cwc Dfa Dfb Dfc Dfd"
    climates += " Dsa Dsb Dsc Dsd Dwa Dwb Dwc Dwd EF ET Ocean"
    letters = np.array(["?", *(climate[0] for climate in climates.split())])
    expected, labels = [], []
    stripe = 7  # the east of North America, all five groups
    for top in range(0, 2250 - 31, 16):
        for left in range(0, 5400 - 31, 16):
            if left // 180 != stripe or (left + 31) // 180 != stripe:
                continue
            inside = letters[climate[top : top + 32, left : left + 32]]
            for number, letter in enumerate("ABCDE"):
                if (inside == letter).mean() >= 0.8:
                    expected.append(picture[top : top + 32, left : left + 32].transpose(2, 0, 1))
                    labels.append(number)
    inputs, targets, stripes = tiles
    assert len(labels) > 100
    assert targets[stripes == stripe].tolist() == labels
    np.testing.assert_array_equal(inputs[stripes == stripe].numpy(), np.stack(expected))


def test_earth_splits_are_whole_stripes(tiles: tuple[Tensor, Tensor, Tensor]) -> None:
    data = load("earth")
    stripes = {row.tobytes(): stripe for row, stripe in zip(tiles[0].numpy(), tiles[2].tolist(), strict=True)}
    found = {part: {stripes[row] for row in rows(split(data, part))} for part in ("train", "val", "test")}
    assert found["test"] == {4, 9, 14, 19, 24, 29}
    assert len(found["val"]) == 3
    assert not found["train"] & found["val"]
    assert not (found["train"] | found["val"]) & found["test"]


def test_every_climate_gives_validation_its_share() -> None:
    data = load("earth")
    train, val = (torch.bincount(split(data, part).targets, minlength=5) for part in ("train", "val"))
    share = val / (train + val)
    assert share.min() > 0.05
    assert share.max() < 0.15
