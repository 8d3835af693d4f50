"""Every pixel of the test stripes counts once, no split shares a stripe, and the labels are those of the map."""

import hashlib
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from conftest import compose_config
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

import zoo.data.earth_masks
from zoo.checks import CONFIGS
from zoo.data.arrays import statistics
from zoo.data.earth_masks import EarthSegmentation, earth_stripes
from zoo.data.embedded import FILES
from zoo.data.tiles import IGNORED, MaskSplit, cut
from zoo.errors import ZooError

STRIPE_AREA = 2250 * 180
# sha256 over the masks of train, val and test in order: results compare only on the very same splits.
HASH = "89792ea6a7f3879238df44f4c8c3f11174c8c045300f34cc1a26a1ae646d7c41"


@pytest.fixture(scope="module", autouse=True)
def read_the_maps_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zoo.data.earth_masks, "earth_stripes", cache(earth_stripes))
        yield


@lru_cache(maxsize=2)
def load(**changes: Any) -> EarthSegmentation:
    data: EarthSegmentation = instantiate({**compose_config(["data=earth_segmentation"]).data, **changes})
    data.setup()
    return data


def split(data: EarthSegmentation, name: str) -> MaskSplit:
    part = data.splits[name]
    assert isinstance(part, MaskSplit)
    return part


def counts(masks: Tensor) -> list[int]:
    """How many pixels of each class count."""
    return torch.bincount(masks[masks != IGNORED].long(), minlength=6).tolist()


def expected_counts(stripes: list[int]) -> list[int]:
    """The same from the map itself."""
    with Image.open(FILES / "earth_climate.png") as file:
        climate = np.asarray(file)[:2250]
    firsts = [0, 1, 5, 9, 18, 30, 32, 33]  # the first number of A, B, C, D, E and of ocean; 0 nowhere
    pixels = np.concatenate([climate[:, 180 * stripe : 180 * (stripe + 1)].ravel() for stripe in stripes])
    histogram = np.histogram(pixels, bins=firsts)[0].tolist()
    assert histogram[0] == 0
    return histogram[1:]


def test_hash_of_the_splits() -> None:
    digest = hashlib.sha256()
    for name in ("train", "val", "test"):
        digest.update(split(load(), name).masks.numpy().tobytes())
    assert digest.hexdigest() == HASH


@pytest.mark.parametrize("image_size", [64, 128])
def test_each_pixel_of_the_test_stripes_counts_once(image_size: int) -> None:
    data = load(image_size=image_size)
    found = counts(split(data, "test").masks)
    assert sum(found) == 6 * STRIPE_AREA
    assert found == expected_counts([4, 9, 14, 19, 24, 29])
    assert sum(counts(split(data, "val").masks)) == 3 * STRIPE_AREA


def test_splits_are_whole_stripes() -> None:
    data = load(image_size=180)
    stripe_of = {
        tile.tobytes(): number for number, (image, _) in enumerate(earth_stripes()) for tile in cut(image, 180, 180)
    }
    found = {
        name: {stripe_of[tile.tobytes()] for tile in split(data, name).images.numpy()}
        for name in ("train", "val", "test")
    }
    assert found["test"] == {4, 9, 14, 19, 24, 29}
    assert len(found["val"]) == 3
    assert len(found["train"]) == 21
    assert not found["train"] & found["val"]
    assert not (found["train"] | found["val"]) & found["test"]
    val = sorted(found["val"])
    assert counts(split(data, "val").masks) == expected_counts(val)


def test_every_class_gives_validation_its_share_and_the_seed_chooses_it() -> None:
    train = torch.tensor(expected_counts([stripe for stripe in range(30) if stripe % 5 != 4]))
    found = [torch.tensor(counts(split(load(split_seed=seed), "val").masks)) for seed in (0, 1, 2)]
    for val in found:
        assert (val / train).min() > 0.05
        assert (val / train).max() < 0.16
    assert not torch.equal(found[0], found[1]) or not torch.equal(found[0], found[2])


def test_training_tiles_overlap_and_keep_their_pixels() -> None:
    few, many = split(load(), "train"), split(load(train_stride=32), "train")
    assert len(few) == 21 * 36 * 3
    assert len(many) == 21 * 70 * 5
    assert not (few.masks == IGNORED).any()
    assert len(split(load(train_stride=32), "test")) == len(split(load(), "test"))


def test_most_training_tiles_are_ocean_of_which_a_share_may_do() -> None:
    assert (split(load(), "train").masks == 5).flatten(1).all(1).sum() == 1274
    assert len(split(load(background_share=0.1), "train")) == 2268 - 1274 + 128


def test_the_facts_are_those_of_the_files() -> None:
    stated = OmegaConf.load(CONFIGS / "data" / "earth_segmentation.yaml")
    data = load()
    mean, std = statistics(split(data, "train").images)
    assert list(stated.mean) == pytest.approx(mean, abs=2e-4)
    assert list(stated.std) == pytest.approx(std, abs=2e-4)
    measured = load(mean=None, std=None)
    assert (measured.facts["mean"], measured.facts["std"]) == (mean, std)
    assert data.facts["num_features"] == 3 * 64 * 64
    assert data.facts["ignore_index"] == IGNORED
    assert len(data.facts["class_names"]) == data.facts["num_classes"] == 6
    train = split(data, "train")
    batch = train.batch(0, torch.arange(3), torch.arange(3))
    assert batch["input"].shape == (3, 3, 64, 64)
    assert torch.equal(batch["target"], train.masks[:3].long())


def test_colour_alone_reaches_the_baseline() -> None:
    """The most frequent class of each of 64³ colours: picture and mask belong together, and the split is the known."""
    data = load()

    def colours(name: str) -> tuple[Tensor, Tensor]:
        part = split(data, name)
        levels = (part.images >> 2).int()
        kept = part.masks != IGNORED
        return ((levels[:, 0] << 12) + (levels[:, 1] << 6) + levels[:, 2])[kept], part.masks[kept].int()

    table = torch.zeros(6 << 18, dtype=torch.int32)
    for name in ("train", "val"):
        colour, label = colours(name)
        table += torch.bincount(label * (1 << 18) + colour, minlength=len(table)).int()
    # A colour never seen is ocean's, the most frequent.
    guess = torch.where(table.view(6, -1).sum(0) > 0, table.view(6, -1).argmax(0), 5)
    colour, label = colours("test")
    confusion = torch.bincount(label * 6 + guess[colour], minlength=36).view(6, 6).double()
    right = confusion.diag()
    iou = right / (confusion.sum(0) + confusion.sum(1) - right)
    assert right.sum() / confusion.sum() == pytest.approx(0.880, abs=0.005)
    assert iou.mean() == pytest.approx(0.514, abs=0.01)


def test_border_weights_go_with_the_masks() -> None:
    data = load(border_weight=10.0, image_size=180)
    for name in ("train", "test"):
        part = split(data, name)
        assert part.weights is not None
        assert part.weights.shape == part.masks.shape
        assert torch.equal(part.weights == 0, part.masks == IGNORED)
    train = split(data, "train")
    assert train.weights is not None
    whole = torch.tensor(counts(train.masks)).double()
    least = torch.stack([train.weights[train.masks == label].min() for label in range(6)]).double()
    # Far from any border a pixel weighs what balances its class; overlaps shift the counts of tiles by a little.
    torch.testing.assert_close(least, whole.sum() / (6 * whole), rtol=0.03, atol=0)
    assert float(train.weights.max()) > 5
    assert data.splits["train"].batch(0, torch.arange(2), torch.arange(2))["weight"].dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_size": 181}, "image_size=181: must leave at most 180"),
        ({"image_size": 64, "context": 32}, "context=32: must be 0 or more, below half of image_size=64"),
        ({"train_stride": 40, "context": 20}, "train_stride=40: must be from 1 to 24"),
        ({"background_share": 0.0}, "background_share=0.0: must be above 0"),
        ({"context": 8, "augment": {"crop": 16}}, "crop=16: must be more than twice the context, 8"),
        ({"image_size": 1}, "image_size=1: must be at least 2"),
        ({"train_stride": 65}, "train_stride=65: must be from 1 to 64, the side"),
        ({"border_weight": -1.0}, "border_weight=-1.0: must be 0"),
        ({"border_sigma": 0.0}, "border_sigma=0.0: must be above 0"),
        ({"border_sigma": float("inf")}, "border_sigma=inf: must be above 0"),
        ({"border_weight": float("nan")}, "border_weight=nan: must be 0"),
        ({"ignore_index": 0}, "ignore_index=0: must be 255"),
        ({"class_names": list("abcdef")}, "class_names"),
    ],
)
def test_wrong_values_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises((ValueError, ZooError), match=words):
        EarthSegmentation(**options).setup()
