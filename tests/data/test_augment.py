"""Every step of the augmentation against a picture-by-picture computation, and its independence of the batch."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zoo.data.augment import Augment

EVERYTHING: dict[str, Any] = {"shift": 3, "flip": 0.5, "rotation": 20.0, "erase": 0.5, "noise": 0.05}


def pictures(count: int = 40, channels: int = 3, height: int = 12, width: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (count, channels, height, width), generator=generator, dtype=torch.uint8)


def shifted(picture: np.ndarray, down: int, right: int) -> np.ndarray:
    """Roll one picture (C, H, W) and blank what came round."""
    out = np.roll(picture, (down, right), axis=(1, 2))
    height, width = out.shape[1:]
    out[:, : max(down, 0)] = 0
    out[:, height + min(down, 0) :] = 0
    out[:, :, : max(right, 0)] = 0
    out[:, :, width + min(right, 0) :] = 0
    return out


@settings(max_examples=30, deadline=None)
@given(
    shift=st.integers(0, 4), flip=st.sampled_from([0.0, 0.5, 1.0]), channels=st.integers(1, 3), seed=st.integers(0, 99)
)
def test_flip_and_shift_match_the_picture_by_picture_computation(
    shift: int, flip: float, channels: int, seed: int
) -> None:
    images, positions = pictures(channels=channels), torch.arange(40)
    augment = Augment(seed=seed, shift=shift, flip=flip)
    draws = augment.draws(2, positions).numpy()
    for image, draw, got in zip(images.numpy(), draws, augment(images, 2, positions).numpy(), strict=True):
        if draw[0] < flip:
            image = image[:, :, ::-1]
        down, right = (shift - int(d * (2 * shift + 1)) for d in draw[1:3])
        np.testing.assert_array_equal(got, shifted(image, down, right))


def test_every_shift_is_as_likely() -> None:
    count, shift = 9000, 1
    images = torch.zeros(count, 1, 5, 5, dtype=torch.uint8)
    images[:, :, 2, 2] = 1
    moved = Augment(shift=shift)(images, 0, torch.arange(count))
    share = moved.float().mean((0, 1))
    assert share.sum() == pytest.approx(1)
    assert torch.count_nonzero(share) == 9
    assert (share[1:4, 1:4] - 1 / 9).abs().max() < 0.015


def test_flip_with_certainty_is_torch_flip_and_half_flips_half() -> None:
    images = pictures(1000)
    assert torch.equal(Augment(flip=1.0)(images, 0, torch.arange(1000)), images.flip(-1))
    some = Augment(flip=0.5)(images, 0, torch.arange(1000))
    flipped = (some == images.flip(-1)).flatten(1).all(1)
    kept = (some == images).flatten(1).all(1)
    assert torch.all(flipped ^ kept)
    assert 430 < flipped.sum() < 570


def test_vertical_flip_with_certainty_is_torch_flip_and_half_flips_half_apart_from_the_mirror() -> None:
    images = torch.randint(0, 256, (1000, 3, 6, 6), dtype=torch.uint8)
    places = torch.arange(1000)
    assert torch.equal(Augment(flip_vertical=1.0)(images, 0, places), images.flip(-2))
    turned = (Augment(flip_vertical=0.5)(images, 0, places) == images.flip(-2)).flatten(1).all(1)
    mirrored = (Augment(flip=0.5)(images, 0, places) == images.flip(-1)).flatten(1).all(1)
    assert 430 < int(turned.sum()) < 570
    assert 180 < int((turned & mirrored).sum()) < 320, "the two are drawn apart"
    again = (Augment(flip_vertical=0.5)(images, 1, places) == images.flip(-2)).flatten(1).all(1)
    assert not torch.equal(turned, again), "each epoch draws anew"


@pytest.mark.parametrize(("draw", "turns"), [(0.5, 0), (0.75, 1), (0.0, 2), (0.25, 3)])
def test_quarter_turns_are_exact(draw: float, turns: int) -> None:
    images = pictures(8, height=10, width=10)
    draws = torch.full((8, 9), draw)
    turned = Augment(rotation=180.0)(images, 0, torch.arange(8), draws)
    assert torch.equal(turned, torch.rot90(images, turns, dims=(2, 3)))


def test_rotation_matches_bilinear_sampling_by_hand() -> None:
    """Also where the picture is not square, where a turn in normalised coordinates would shear."""
    images, positions = pictures(6, channels=1, height=9, width=14), torch.arange(6)
    augment = Augment(rotation=30.0)
    angles = (2 * augment.draws(0, positions)[:, 3].double() - 1) * np.pi / 6
    got = augment(images, 0, positions)
    padded = np.pad(images[:, 0].numpy().astype(float), ((0, 0), (9, 9), (9, 9)))
    for image, angle, result in zip(padded, angles.tolist(), got[:, 0].numpy(), strict=True):
        for y in range(9):
            for x in range(14):
                from_x = (x - 6.5) * np.cos(angle) - (y - 4) * np.sin(angle) + 6.5 + 9
                from_y = (x - 6.5) * np.sin(angle) + (y - 4) * np.cos(angle) + 4 + 9
                left, top = int(np.floor(from_x)), int(np.floor(from_y))
                u, v = from_x - left, from_y - top
                value = (1 - v) * ((1 - u) * image[top, left] + u * image[top, left + 1])
                value += v * ((1 - u) * image[top + 1, left] + u * image[top + 1, left + 1])
                assert abs(result[y, x] - value) <= 0.51


def test_rotation_angles_fill_the_range_evenly() -> None:
    augment = Augment(rotation=90.0)
    degrees = (2 * augment.draws(0, torch.arange(5000))[:, 3] - 1) * 90
    assert degrees.min() < -85
    assert degrees.max() > 85
    assert abs(degrees.mean()) < 3


def test_erased_rectangles_have_the_asked_share_size_and_fill() -> None:
    images = pictures(2000, channels=2, height=20, width=20)
    erased = Augment(erase=0.25, erase_size=(0.1, 0.2), erase_fill=0.0)(images, 0, torch.arange(2000))
    hit = (erased == 0).numpy()  # the pictures have no zeros of their own
    share = hit.any(axis=(1, 2, 3))
    assert 0.2 < share.mean() < 0.3
    np.testing.assert_array_equal(erased.numpy()[~hit], images.numpy()[~hit])
    places = np.zeros((20, 20))
    for mask in hit[share]:
        np.testing.assert_array_equal(mask[0], mask[1])
        rows, columns = np.nonzero(mask[0].any(1))[0], np.nonzero(mask[0].any(0))[0]
        box = mask[0][rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box.all()
        assert 0.08 < box.size / 400 < 0.24  # rounding of the sides
        places += mask[0]
    assert places.min() > 0


def test_an_erased_area_of_one_covers_the_picture_with_the_fill() -> None:
    draws = torch.full((2, 9), 0.5)  # the middle draw is a square
    square = pictures(2, height=8, width=8)
    covered = Augment(erase=1.0, erase_size=(1.0, 1.0), erase_fill=0.5)(square, 0, torch.arange(2), draws)
    assert torch.equal(covered, torch.full_like(square, 128))


def test_noise_has_the_asked_deviation_is_fresh_and_clipped() -> None:
    grey = torch.full((100, 1, 20, 20), 128, dtype=torch.uint8)
    augment = Augment(noise=0.1)
    noisy = augment(grey, 0, torch.arange(100))
    difference = noisy.double() - 128
    assert abs(difference.mean()) < 0.5
    assert difference.std() == pytest.approx(25.5, rel=0.02)
    assert not torch.equal(noisy[0], noisy[1])
    assert not torch.equal(noisy, augment(grey, 1, torch.arange(100)))
    white = augment(torch.full_like(grey, 250), 0, torch.arange(100))
    assert 200 < white.double().mean() <= 250  # wrapping around would send a third of the pixels to black


def parts(total: int, size: int) -> Iterator[Tensor]:
    return iter(torch.arange(total).split(size))


@pytest.mark.parametrize("size", [1, 7, 64])
def test_an_example_does_not_depend_on_its_batch(size: int) -> None:
    images = pictures(64, height=16, width=16)
    augment = Augment(seed=3, **EVERYTHING)
    whole = augment(images, 5, torch.arange(64))
    split = torch.cat([augment(images[part], 5, part) for part in parts(64, size)])
    assert torch.equal(whole, split)


def test_seed_epoch_and_position_each_change_what_happens() -> None:
    same = pictures(1).expand(64, -1, -1, -1).contiguous()
    positions = torch.arange(64)
    base = Augment(seed=0, **EVERYTHING)(same, 0, positions)
    assert len(base.flatten(1).unique(dim=0)) == 64
    for other in (
        Augment(seed=1, **EVERYTHING)(same, 0, positions),
        Augment(seed=0, **EVERYTHING)(same, 1, positions),
        Augment(seed=0, **EVERYTHING)(same, 0, positions + 64),
    ):
        assert not (base == other).flatten(1).all(1).any()


def test_adding_one_step_leaves_the_draws_of_the_others() -> None:
    images, positions = pictures(), torch.arange(40)
    alone = Augment(shift=2)(images, 0, positions)
    both = Augment(shift=2, flip=1e-9)(images, 0, positions)
    assert torch.equal(alone, both)


def test_nothing_asked_for_changes_nothing() -> None:
    images = pictures()
    assert torch.equal(Augment()(images, 0, torch.arange(40)), images)


def test_the_images_given_are_left_alone() -> None:
    images = pictures()
    before = images.clone()
    Augment(**EVERYTHING)(images, 0, torch.arange(40))
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    "values",
    [
        {"shift": -1},
        {"shift": 1.5},
        {"flip": 1.1},
        {"flip": -0.1},
        {"rotation": 181.0},
        {"rotation": -1.0},
        {"erase": 2.0},
        {"erase_size": (0.5, 0.2)},
        {"erase_size": (0.0, 0.2)},
        {"erase_size": (0.1, 1.2)},
        {"erase_size": (0.1,)},
        {"erase_fill": 255.0},
        {"noise": -0.1},
        {"noise": 25.0},
        {"noise": float("nan")},
    ],
)
def test_unreasonable_values_are_refused_by_name(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(values))}="):
        Augment(**values)


def test_a_shift_as_large_as_the_picture_and_float_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match="shift=9"):
        Augment(shift=9)(pictures(), 0, torch.arange(40))
    with pytest.raises(ValueError, match="uint8"):
        Augment(shift=1)(pictures().float(), 0, torch.arange(40))
