"""Picture and mask stay together in every step, and every step is what another computation gives."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from torch import Tensor

from zoo.data.mask_augment import MaskAugment

SIZE = 16
GEOMETRY: dict[str, Any] = {"shift": 3, "flip": 0.5, "flip_vertical": 0.5, "quarter_turns": 0.75, "crop": 11}


def tiles(count: int = 200) -> tuple[Tensor, Tensor]:
    """Pictures whose first channel is the mask, so that what belongs together is seen."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    return images, images[:, 0].clone()


def apply(augment: MaskAugment, count: int = 200, epoch: int = 0) -> tuple[Tensor, Tensor]:
    images, masks = tiles(count)
    weights = masks.float() / 2
    got_images, got_masks, got_weights = augment(images, masks, epoch, torch.arange(count), weights)
    assert got_weights is not None
    assert torch.equal(got_weights, got_masks.float() / 2)
    assert (got_images.dtype, got_masks.dtype) == (torch.uint8, torch.uint8)
    return got_images, got_masks


@pytest.mark.parametrize("options", [{name: value} for name, value in GEOMETRY.items()] + [GEOMETRY])
def test_copied_pixels_keep_their_label(options: dict[str, Any]) -> None:
    images, masks = apply(MaskAugment(**options))
    assert torch.equal(images[:, 0], masks)
    assert masks.shape[-1] == options.get("crop", SIZE)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_are_torch_rot90(turns: int) -> None:
    images, _ = tiles()
    got, _ = apply(MaskAugment(quarter_turns=1.0))
    same = (got == torch.rot90(images, turns, (-2, -1))).flatten(1).all(1)
    assert 45 < int(same.sum()) < 90


def test_flips_are_torch_flip() -> None:
    images, _ = tiles()
    assert torch.equal(apply(MaskAugment(flip=1.0))[0], images.flip(-1))
    assert torch.equal(apply(MaskAugment(flip_vertical=1.0))[0], images.flip(-2))
    both = apply(MaskAugment(flip=1.0, flip_vertical=1.0, quarter_turns=1.0))[0]
    assert torch.equal(both, torch.rot90(apply(MaskAugment(quarter_turns=1.0))[0], 2, (-2, -1)))


def test_the_eight_ways_to_lay_a_square_are_alike() -> None:
    images, _ = tiles(1600)
    got, _ = apply(MaskAugment(flip=0.5, flip_vertical=0.5, quarter_turns=0.75), 1600)
    ways = [torch.rot90(mirrored, turns, (-2, -1)) for turns in range(4) for mirrored in (images, images.flip(-1))]
    shares = [(got == way).flatten(1).all(1).double().mean().item() for way in ways]
    assert sum(shares) == pytest.approx(1)
    assert min(shares) > 0.09
    assert max(shares) < 0.16


def test_half_of_a_probability_is_half() -> None:
    images, _ = tiles(1000)
    for options, other in ({"flip": 0.5}, images.flip(-1)), ({"flip_vertical": 0.5}, images.flip(-2)):
        same = (apply(MaskAugment(**options), 1000)[0] == other).flatten(1).all(1)
        assert 430 < int(same.sum()) < 570
    kept = (apply(MaskAugment(quarter_turns=0.5), 1000)[0] == images).flatten(1).all(1)
    assert 430 < int(kept.sum()) < 570


@pytest.mark.parametrize(("shift", "crop"), [(3, 0), (0, 12), (2, 12), (7, 4)])
def test_windows_are_cut_from_the_mirrored_picture(shift: int, crop: int) -> None:
    images, _ = tiles(60)
    got, _ = apply(MaskAugment(shift=shift, crop=crop), 60)
    side = crop or SIZE
    around = np.pad(images.numpy(), [(0, 0), (0, 0), (shift, shift), (shift, shift)], mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(around, (side, side), axis=(2, 3))
    found = set()
    for number, picture in enumerate(got.numpy()):
        rows, columns = np.nonzero((windows[number] == picture[:, None, None]).all((0, 3, 4)))
        assert len(rows)
        found.add((int(rows[0]), int(columns[0])))
    top = np.array(sorted(found))
    assert len(found) > 12, "windows differ"
    assert top.max() > 0.8 * (windows.shape[2] - 1)
    assert top.min() < 0.2 * windows.shape[2]


def test_rotation_reads_the_picture_bilinearly_and_the_mask_at_the_nearest_pixel() -> None:
    """Against torch's own affine grid; the angle is the one of many that fits best."""
    images, masks = tiles(30)
    got, labels, _ = MaskAugment(rotation=30.0)(images, masks, 1, torch.arange(30))
    angles = torch.linspace(-30, 30, 1201).deg2rad()
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros(1201)
    turns = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    grids = F.affine_grid(turns, [1201, 1, SIZE, SIZE], align_corners=True)
    options: dict[str, Any] = {"padding_mode": "reflection", "align_corners": True}
    chosen = []
    for image, mask, turned, label in zip(images, masks, got, labels, strict=True):
        every = F.grid_sample(image[None].float().expand(1201, -1, -1, -1), grids, **options)
        errors = (every - turned).abs().mean((1, 2, 3))
        best = int(errors.argmin())
        assert errors[best] < 0.6
        nearest = F.grid_sample(mask[None, None].float(), grids[best : best + 1], mode="nearest", **options)
        assert (nearest[0, 0] == label).float().mean() > 0.95
        chosen.append(angles[best].rad2deg().item())
    assert min(chosen) < -20
    assert max(chosen) > 20
    assert abs(np.mean(chosen)) < 10


def test_nearest_labels_are_found_among_the_labels_of_the_tile() -> None:
    images, masks = tiles(20)
    masks = masks // 64 * 60  # 0 60 120 180: what lies between is no class
    _, labels, _ = MaskAugment(rotation=180.0, elastic=2.0, **GEOMETRY)(images, masks, 0, torch.arange(20))
    assert set(labels.unique().tolist()) == {0, 60, 120, 180}


def test_elastic_displacements_are_bicubic_between_the_points_of_a_grid() -> None:
    """A picture that tells its own coordinates shows how far each pixel came."""
    count, size, sigma = 300, 33, 1.5
    line = torch.arange(size, dtype=torch.uint8) * 7
    images = torch.stack([line[:, None].expand(size, size), line.expand(size, size)]).expand(count, -1, -1, -1)
    got, _, _ = MaskAugment(elastic=sigma)(images, images[:, 0], 0, torch.arange(count))
    moved = (got.float() - images.float()) / 7  # (B, 2, S, S): rows and columns, to a fourteenth of a pixel
    centre = moved[:, :, size // 2, size // 2]
    assert centre.std(0).tolist() == pytest.approx([sigma, sigma], rel=0.15)
    assert abs(torch.corrcoef(centre.T)[0, 1].item()) < 0.2
    # Where no pixel is mirrored, all displacements follow from nine points.
    inner = slice(8, 25)
    bumps = F.interpolate(torch.eye(9).view(9, 1, 3, 3), (size, size), mode="bicubic", align_corners=True)
    basis = bumps[..., inner, inner].flatten(1).T  # (pixels, 9)
    smooth = moved[..., inner, inner].flatten(2).flatten(0, 1).T
    points = torch.linalg.lstsq(basis, smooth).solution
    assert (basis @ points - smooth).abs().max() < 0.2
    assert points.std().item() == pytest.approx(sigma, rel=0.1)
    finer = MaskAugment(elastic=sigma, elastic_grid=9)(images, images[:, 0], 0, torch.arange(count))[0]
    smooth = ((finer.float() - images.float()) / 7)[..., inner, inner].flatten(2).flatten(0, 1).T
    assert (basis @ torch.linalg.lstsq(basis, smooth).solution - smooth).abs().max() > 1


def test_elastic_moves_picture_and_mask_together() -> None:
    size = 33
    image = torch.zeros(1, 1, size, size, dtype=torch.uint8)
    image[..., 10:22, 8:24] = 255
    images = image.expand(50, -1, -1, -1).clone()
    got, masks, _ = MaskAugment(elastic=2.0, rotation=20.0)(images, images[:, 0] // 255, 3, torch.arange(50))
    clear = (got[:, 0] < 60) | (got[:, 0] > 195)
    assert torch.equal(got[:, 0][clear] > 127, masks[clear] == 1)
    assert (masks.flatten(1).float().sum(1) != 12 * 16).any()


def test_brightness_and_contrast_are_a_factor_and_a_slope_and_leave_the_mask() -> None:
    images, masks = tiles(100)
    images = 64 + images // 4  # room to grow brighter
    for option in ("brightness", "contrast"):
        got, labels, _ = MaskAugment(**{option: 0.5})(images, masks, 0, torch.arange(100))
        assert torch.equal(labels, masks)
        before, after = images.flatten(1).double(), got.flatten(1).double()
        slope = ((before - before.mean(1, True)) * after).sum(1) / ((before - before.mean(1, True)) ** 2).sum(1)
        expected = slope * before.mean(1) if option == "brightness" else before.mean(1)
        torch.testing.assert_close(after.mean(1), expected, atol=1.0, rtol=0)
        assert 0.5 <= slope.min() < 0.6
        assert 1.4 < slope.max() <= 1.51


def test_noise_has_the_width_asked_for() -> None:
    images = torch.full((50, 3, SIZE, SIZE), 128, dtype=torch.uint8)
    got, masks, _ = MaskAugment(noise=0.1)(images, images[:, 0], 0, torch.arange(50))
    assert got.float().std().item() == pytest.approx(25.5, rel=0.02)
    assert torch.equal(masks, images[:, 0])


def test_an_example_does_not_depend_on_its_batch_and_changes_with_epoch_and_seed() -> None:
    everything = {**GEOMETRY, "rotation": 20.0, "elastic": 1.5, "brightness": 0.2, "contrast": 0.2, "noise": 0.05}
    images, masks = tiles(12)
    whole = MaskAugment(seed=1, **everything)(images, masks, 2, torch.arange(12))
    part = torch.tensor([9, 4])
    some = MaskAugment(seed=1, **everything)(images[part], masks[part], 2, part)
    for full, few in zip(whole[:2], some[:2], strict=True):
        assert torch.equal(full[part], few)
    for other, epoch in ((MaskAugment(seed=1, **everything), 3), (MaskAugment(seed=2, **everything), 2)):
        assert not torch.equal(other(images, masks, epoch, torch.arange(12))[1], whole[1])


def test_nothing_is_left_in_at_zero() -> None:
    assert not MaskAugment()
    for name in ("shift", "flip", "flip_vertical", "rotation", "noise", "quarter_turns", "crop", "elastic"):
        assert MaskAugment(**{name: 1})
    assert MaskAugment(brightness=0.1)
    assert MaskAugment(contrast=0.1)
    images, masks = tiles(3)
    got = MaskAugment()(images, masks, 0, torch.arange(3))
    assert torch.equal(got[0], images)
    assert torch.equal(got[1], masks)


@pytest.mark.parametrize(
    "options",
    [
        *(
            {name: bad}
            for name in ("flip", "flip_vertical", "quarter_turns", "brightness", "noise")
            for bad in (-0.1, 1.1)
        ),
        *({name: bad} for name in ("shift", "crop") for bad in (-1, 1.5)),
        *({"contrast": 2.0}, {"erase": 0.5}, {"rotation": 181.0}, {"elastic": -1.0}, {"elastic_grid": 1}),
        {"elastic": float("nan")},
    ],
)
def test_wrong_values_are_refused_by_name(options: dict[str, Any]) -> None:
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"^{name}={value}: must be "):
        MaskAugment(**options)


def test_windows_must_fit_the_tile() -> None:
    images, masks = tiles(2)
    for options in ({"shift": SIZE}, {"crop": SIZE + 1}):
        with pytest.raises(ValueError, match="pixels"):
            MaskAugment(**options)(images, masks, 0, torch.arange(2))
    with pytest.raises(ValueError, match="square"):
        MaskAugment(flip=1.0)(images[..., :-1], masks[..., :-1], 0, torch.arange(2))


@pytest.mark.parametrize("option", ["none", "flip", "flips", "flip_shift", "tiles", "elastic"])
def test_the_options_of_augment_are_accepted(option: str) -> None:
    from conftest import compose_config

    config = compose_config(["data=earth_segmentation", f"augment={option}"])
    data = instantiate(config.data)
    assert isinstance(data.augmentation, MaskAugment)
    assert bool(data.augmentation) == (option != "none")
