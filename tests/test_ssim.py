"""SSIM against the paper's formula written out in numpy, and against torchmetrics."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from zoo.ssim import ssim


def pictures(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(shape, generator=generator, dtype=torch.float64)
    return images, (images + 0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)).clamp(0, 1)


def by_brute_force(x: np.ndarray, y: np.ndarray, side: int, data_range: float) -> float:
    """One channel, one window after the other: Wang et al. 2004, equations 13 to 17."""
    at = np.arange(side) - side // 2
    weight = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * 1.5**2))
    weight /= weight.sum()
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    found = []
    for i in range(x.shape[0] - side + 1):
        for j in range(x.shape[1] - side + 1):
            a, b = (picture[i : i + side, j : j + side] for picture in (x, y))
            mu_a, mu_b = (weight * a).sum(), (weight * b).sum()
            var_a, var_b = (weight * (a - mu_a) ** 2).sum(), (weight * (b - mu_b) ** 2).sum()
            covariance = (weight * (a - mu_a) * (b - mu_b)).sum()
            top = (2 * mu_a * mu_b + c1) * (2 * covariance + c2)
            found.append(top / ((mu_a**2 + mu_b**2 + c1) * (var_a + var_b + c2)))
    return float(np.mean(found))


@pytest.mark.parametrize(
    ("height", "width", "side", "data_range"), [(16, 13, 11, 1.0), (11, 11, 11, 2.0), (8, 20, 7, 1.0), (5, 6, 5, 1.0)]
)
def test_ssim_is_the_formula_in_windows_that_fit(height: int, width: int, side: int, data_range: float) -> None:
    images, others = (data_range * picture for picture in pictures(2, 3, height, width))
    found = ssim(images, others, data_range=data_range)
    for number in range(2):
        pairs = zip(images[number].numpy(), others[number].numpy(), strict=True)
        expected = np.mean([by_brute_force(a, b, side, data_range) for a, b in pairs])
        assert found[number].item() == pytest.approx(expected, abs=1e-12)


def test_ssim_is_torchmetrics_inside_the_border(certify_row: Callable[..., None]) -> None:
    """torchmetrics also counts windows over the border, whose outside it fills by reflection."""
    images, others = pictures(3, 3, 28, 32)
    images.requires_grad_()
    options = {"data_range": 1.0, "reduction": "none", "return_full_image": True}
    _, full = structural_similarity_index_measure(others, images, **options)
    expected = full[..., 5:-5, 5:-5].mean((1, 2, 3))
    found = ssim(images, others)
    gradients = [torch.autograd.grad(value.sum(), images)[0] for value in (found, expected)]
    certify_row(
        "ssim",
        outputs=(found - expected).abs().max().item(),
        gradients=((gradients[0] - gradients[1]).abs().max() / gradients[1].abs().max()).item(),
        source="torchmetrics.functional.image.structural_similarity_index_measure, without windows over the border",
    )
    torch.testing.assert_close(ssim(images.float(), others.float()), expected.float(), rtol=0, atol=1e-5)


def test_ssim_of_itself_is_one_and_of_the_negative_less() -> None:
    images, _ = pictures(2, 1, 28, 28)
    torch.testing.assert_close(ssim(images, images), torch.ones(2, dtype=torch.float64))
    assert (ssim(images, 1 - images) < 0).all()


def test_ssim_is_differentiable() -> None:
    images, others = pictures(1, 2, 6, 5)
    assert torch.autograd.gradcheck(ssim, (images.requires_grad_(), others.requires_grad_()))


def test_ssim_keeps_its_digits_under_mixed_precision() -> None:
    images, others = (picture.float() for picture in pictures(2, 1, 28, 28))
    expected = ssim(images, others)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(ssim(images, others), expected, rtol=0, atol=1e-7)
        assert ssim(images.bfloat16(), others.bfloat16()).dtype == torch.float32


def test_what_ssim_refuses() -> None:
    images, others = pictures(1, 1, 12, 12)
    for wrong in ((images[0], others[0]), (images, others[..., 1:])):
        with pytest.raises(ValueError, match="must be"):
            ssim(*wrong)
    for name, value in {"side": 4, "sigma": 0.0, "data_range": 0.0}.items():
        with pytest.raises(ValueError, match=f"{name}={value}.*must be"):
            ssim(images, others, **{name: value})


def test_ssim_of_pictures_of_two_precisions() -> None:
    images, others = pictures(2, 1, 16, 16)
    torch.testing.assert_close(ssim(images.float(), others), ssim(images, others), rtol=1e-5, atol=1e-6)
    assert ssim(images.bfloat16(), others.float()).dtype == torch.float32
