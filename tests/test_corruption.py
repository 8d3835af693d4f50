"""Corruptions: what they do to pixels, how often, and that the position alone decides."""

import math

import pytest
import torch

from zoo.corruption import corrupt

IMAGES = torch.rand(64, 2, 20, 20, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
POSITIONS = torch.arange(64)


def test_gaussian_adds_noise_of_its_deviation_and_does_not_clip() -> None:
    noise = corrupt(IMAGES, POSITIONS, seed=1, corruption="gaussian", level=0.5) - IMAGES
    assert noise.mean().item() == pytest.approx(0, abs=0.01)
    assert noise.std().item() == pytest.approx(0.5, rel=0.02)
    assert noise.abs().max() > 1.5
    assert torch.corrcoef(torch.stack([noise[:, 0].flatten(), noise[:, 1].flatten()]))[0, 1].abs() < 0.02


@pytest.mark.parametrize("level", [0.1, 0.6])
def test_masking_makes_a_share_of_the_values_zero(level: float) -> None:
    seen = corrupt(IMAGES, POSITIONS, seed=1, corruption="masking", level=level)
    hit = seen != IMAGES
    assert hit.float().mean().item() == pytest.approx(level, abs=0.01)
    assert not seen[hit].any()


@pytest.mark.parametrize("level", [0.1, 0.6])
def test_salt_and_pepper_are_alike_in_number(level: float) -> None:
    seen = corrupt(IMAGES, POSITIONS, seed=1, corruption="salt_pepper", level=level)
    hit = seen != IMAGES
    assert hit.float().mean().item() == pytest.approx(level, abs=0.01)
    assert set(seen[hit].tolist()) == {0.0, 1.0}
    assert seen[hit].mean().item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("corruption", ["gaussian", "masking", "salt_pepper"])
def test_the_position_decides_not_the_batch(corruption: str) -> None:
    whole = corrupt(IMAGES, POSITIONS, seed=1, corruption=corruption, level=0.3)
    part = corrupt(IMAGES[7:9], POSITIONS[7:9], seed=1, corruption=corruption, level=0.3)
    assert torch.equal(whole[7:9], part)
    assert not torch.equal(corrupt(IMAGES, POSITIONS, seed=2, corruption=corruption, level=0.3), whole)
    same = corrupt(IMAGES[:1].expand(2, -1, -1, -1), POSITIONS[:2], seed=1, corruption=corruption, level=0.3)
    assert not torch.equal(same[0], same[1])


def test_none_is_the_image_itself() -> None:
    assert corrupt(IMAGES, POSITIONS, seed=1, corruption="none", level=0.3) is IMAGES


@pytest.mark.parametrize(
    ("corruption", "level"),
    [("gaussian", 0.0), ("gaussian", math.inf), ("masking", 0.0), ("masking", 1.0), ("salt_pepper", math.nan)],
)
def test_a_level_out_of_range_is_refused(corruption: str, level: float) -> None:
    with pytest.raises(ValueError, match=f"corruption_level={level}: must"):
        corrupt(IMAGES, POSITIONS, seed=1, corruption=corruption, level=level)


def test_an_unknown_corruption_is_refused() -> None:
    with pytest.raises(ValueError, match="corruption=blur: must be one of none, gaussian"):
        corrupt(IMAGES, POSITIONS, seed=1, corruption="blur", level=0.3)
