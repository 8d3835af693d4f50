"""Tiles cover a picture, evaluation counts each pixel once, and border weights are those of the paper's formula."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.data.border_weights import border_weights, class_balance
from zoo.data.mask_augment import MaskAugment
from zoo.data.tiles import IGNORED, MaskData, MaskSplit, cut, padded, repeats, starts


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 9), more=st.integers(0, 40), stride=st.integers(1, 9))
def test_tiles_cover_a_length_evenly_and_are_as_few_as_can_be(size: int, more: int, stride: int) -> None:
    length, stride = size + more, min(stride, size)
    begins = starts(length, size, stride)
    assert begins[0] == 0
    assert begins[-1] == length - size
    assert {place for begin in begins for place in range(begin, begin + size)} == set(range(length))
    gaps = np.diff(begins)
    assert all(gap <= stride for gap in gaps)
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 1
    assert len(begins) == 1 or (len(begins) - 2) * stride < length - size


@settings(max_examples=30, deadline=None)
@given(size=st.integers(2, 6), height=st.integers(6, 20), width=st.integers(6, 20))
def test_tiles_without_their_repeats_hold_every_pixel_once(size: int, height: int, width: int) -> None:
    picture = np.arange(height * width).reshape(height, width)
    tiles = cut(np.stack([picture, -picture]), size, size)
    assert np.array_equal(tiles[:, 0], -tiles[:, 1])
    repeated = repeats(height, width, size)
    assert sorted(tiles[:, 0][~repeated]) == list(range(height * width))
    seen = np.zeros(height * width, bool)
    for tile, again in zip(tiles[:, 0], repeated, strict=True):  # an earlier tile has it, not a later one
        assert np.array_equal(seen[tile], again)
        seen[tile.ravel()] = True


def test_a_small_scene_grows_by_its_mirror_image_and_ignored_pixels() -> None:
    image, mask = np.arange(6, dtype=np.uint8).reshape(1, 2, 3), np.ones((2, 3), np.uint8)
    grown, label = padded((image, mask), 4)
    assert grown[0].tolist() == [[0, 1, 2, 1], [3, 4, 5, 4], [0, 1, 2, 1], [3, 4, 5, 4]]
    assert label[:2, :3].tolist() == mask.tolist()
    assert (label == IGNORED).sum() == 10
    assert padded((image, mask), 2)[0] is image
    around, label = padded((image, mask), 5, context=1)
    assert around[0].tolist() == [[4, 3, 4, 5, 4], [1, 0, 1, 2, 1], [4, 3, 4, 5, 4], [1, 0, 1, 2, 1], [4, 3, 4, 5, 4]]
    assert (label == 1).sum() == 6
    assert (label[1:3, 1:4] == 1).all()
    single = padded((image[:, :1, :1] + 7, mask[:1, :1]), 3)[0]
    assert (single == 7).all()


def test_a_batch_is_normalised_and_carries_masks_and_weights() -> None:
    images = torch.randint(0, 256, (5, 2, 4, 4), dtype=torch.uint8)
    masks = torch.randint(0, 3, (5, 4, 4), dtype=torch.uint8)
    weights = torch.rand(5, 4, 4)
    split = MaskSplit(images, masks, mean=(0.5, 0.25), std=(0.5, 2.0), weights=weights)
    indices = torch.tensor([3, 0])
    batch = split.batch(0, torch.tensor([7, 1]), indices)
    mean, std = torch.tensor([0.5, 0.25]).view(2, 1, 1), torch.tensor([0.5, 2.0]).view(2, 1, 1)
    torch.testing.assert_close(batch["input"], (images[indices].float() / 255 - mean) / std)
    assert batch["target"].dtype == torch.int64
    assert torch.equal(batch["target"], masks[indices].long())
    assert torch.equal(batch["weight"], weights[indices])
    assert batch["position"].tolist() == [7, 1]
    assert "weight" not in MaskSplit(images, masks).batch(0, indices, indices)
    assert len(split) == 5
    split.augment = MaskAugment(flip=1.0)
    flipped = split.batch(0, torch.tensor([7, 1]), indices)
    for name in ("input", "target", "weight"):
        assert torch.equal(flipped[name], batch[name].flip(-1))


class Scenes(MaskData):
    """Three pictures of random pixels; the mask says which pixel it is, and with `empty` rows of background follow."""

    def read(self) -> None:
        self.state({"channels": 1, "num_classes": 200, "class_names": [str(k) for k in range(200)]})
        draws = np.random.default_rng(0)
        self.scenes = {}
        for name, (height, width) in {"train": (23, 14), "val": (11, 17), "test": (9, 5)}.items():
            image = draws.integers(0, 256, (1, height, width), dtype=np.uint8)
            self.scenes[name] = [(image, (np.arange(height * width) % 199 + 1).astype(np.uint8).reshape(height, width))]
        self.scenes["train"][0][1][:, 3:] = 0
        self.keep(self.scenes)


@pytest.mark.parametrize(("image_size", "context"), [(6, 0), (10, 2), (12, 5), (26, 7)])
def test_each_pixel_is_a_target_once_in_the_middle_of_its_surroundings(image_size: int, context: int) -> None:
    data = Scenes(image_size=image_size, context=context, mean=[0.0], std=[1 / 255], border_weight=1.0)
    data.setup()
    for name in ("val", "test"):
        ((image, mask),) = data.scenes[name]
        everything = torch.arange(len(data.splits[name]))
        batch = data.splits[name].batch(0, everything, everything)
        side = image_size - 2 * context
        assert batch["target"].shape == batch["weight"].shape == (len(everything), side, side)
        assert torch.equal(batch["weight"] == 0, batch["target"] == IGNORED)
        counted = batch["target"][batch["target"] != IGNORED]
        assert sorted(counted.tolist()) == sorted(mask.ravel().tolist())
        around = np.pad(image[0], image_size, mode="reflect")
        for tile, target in zip(batch["input"][:, 0].round(), batch["target"], strict=True):
            for row, column in (target != IGNORED).nonzero().tolist():
                place = np.argwhere(mask == target[row, column].item())[0] + image_size - context - (row, column)
                window = around[place[0] : place[0] + image_size, place[1] : place[1] + image_size]
                assert np.array_equal(window, tile)


def test_the_middle_is_cut_out_behind_the_augmentation() -> None:
    data = Scenes(image_size=10, context=3, mean=[0.0], std=[1.0], augment={"shift": 2, "flip": 0.5})
    data.setup()
    split = data.splits["train"]
    assert isinstance(split, MaskSplit)
    everything = torch.arange(len(split))
    assert split.augment
    _, masks, _ = split.augment(split.images, split.masks, 0, everything)
    assert torch.equal(split.batch(0, everything, everything)["target"], masks[:, 3:7, 3:7].long())


def test_a_share_of_the_training_tiles_of_background_is_kept() -> None:
    every, half = (Scenes(image_size=5, background_share=share, mean=[0.0], std=[1.0]) for share in (1.0, 0.5))
    empty, tiles = {}, {}
    for data in (every, half):
        data.setup()
        split = data.splits["train"]
        assert isinstance(split, MaskSplit)
        empty[data] = int((split.masks == 0).all(2).all(1).sum())
        tiles[data] = {image.numpy().tobytes() for image in split.images}
    assert len(every.splits["train"]) == 15
    assert (empty[every], empty[half]) == (10, 5)
    assert len(half.splits["train"]) == 10
    assert tiles[half] < tiles[every]
    assert [len(half.splits[name]) for name in ("val", "test")] == [len(every.splits[name]) for name in ("val", "test")]


def brute_force(mask: np.ndarray, balance: np.ndarray, weight: float, sigma: float, background: int) -> np.ndarray:
    """Equation 2 pixel by pixel: cells by flood fill, distances to all pixels of every cell that have one beside it."""
    cells: list[list[tuple[int, int]]] = []
    left = {place for place in np.ndindex(*mask.shape) if mask[place] < len(balance) and mask[place] != background}
    while left:
        cell, edge = [], [left.pop()]
        while edge:
            y, x = edge.pop()
            cell.append((y, x))
            near = [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
            found = [place for place in near if place in left and mask[place] == mask[y, x]]
            left -= set(found)
            edge += found
        rim = [(y, x) for y, x in cell if {(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)} - set(cell)]
        cells.append(rim)
    weights = np.zeros(mask.shape)
    for y, x in np.ndindex(*mask.shape):
        if mask[y, x] >= len(balance):
            continue
        distances = sorted(min(np.hypot(y - v, x - u) for v, u in rim) for rim in cells)
        weights[y, x] = balance[mask[y, x]]
        if len(distances) > 1:
            weights[y, x] += weight * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return weights


@pytest.mark.parametrize(("seed", "sigma", "background"), [(0, 2.0, 0), (1, 0.8, 0), (2, 1.5, 2), (3, 5.0, 1)])
def test_border_weights_are_equation_2(seed: int, sigma: float, background: int) -> None:
    draws = np.random.default_rng(seed)
    mask = np.full((18, 23), background, np.uint8)
    for label in (0, 1, 2, IGNORED, 0, 1, 2):
        top, left, tall, wide = draws.integers([0, 0, 1, 1], [16, 20, 6, 6])
        mask[top : top + tall, left : left + wide] = label
    balance = np.array([0.5, 2.0, 3.0])
    found = border_weights(mask, balance, weight=10.0, sigma=sigma, background=background)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, brute_force(mask, balance, 10.0, sigma, background), atol=1e-5)


def test_a_single_cell_or_none_has_no_border_weight() -> None:
    mask = np.zeros((5, 5), np.uint8)
    assert (border_weights(mask, np.ones(2), weight=10.0, sigma=2.0) == 1).all()
    mask[2, 2] = 1
    assert (border_weights(mask, np.ones(2), weight=10.0, sigma=2.0) == 1).all()


def test_class_weights_balance_the_classes() -> None:
    balance = class_balance(np.array([80, 0, 15, 5]))
    assert balance[[0, 2, 3]] * [80, 15, 5] == pytest.approx([100 / 3] * 3)
    assert balance[1] == 1
