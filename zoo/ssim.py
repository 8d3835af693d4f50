"""Structural similarity of images, differentiable.

Z. Wang, A. Bovik, H. Sheikh, E. Simoncelli, "Image quality assessment: from error visibility to structural similarity",
IEEE Transactions on Image Processing 13(4), 2004, section III. As there: an 11×11 Gaussian window of deviation 1.5,
K₁ = 0.01, K₂ = 0.03, and only windows that lie inside the image. Beyond it: colour channels are averaged, and in images
of fewer than 11 pixels a side the window is the largest odd one that fits.

Shapes: B images, C channels, H×W pixels, h×w places of the window.
"""

import torch
from torch import Tensor

K1, K2 = 0.01, 0.03


def _windows(size: int, side: int, sigma: float, like: Tensor) -> Tensor:
    """(size − side + 1, size): in each row the Gaussian window, sum 1, one place further on."""
    offset = torch.arange(size, device=like.device) - torch.arange(size - side + 1, device=like.device)[:, None]
    weight = torch.exp(-((offset - side // 2).to(like.dtype) ** 2) / (2 * sigma**2))
    weight = weight * ((offset >= 0) & (offset < side))
    return weight / weight.sum(1, keepdim=True)


def ssim(images: Tensor, others: Tensor, *, side: int = 11, sigma: float = 1.5, data_range: float = 1.0) -> Tensor:
    """The mean SSIM index of each pair of images, (B, C, H, W) twice → (B,), at most 1.

    `data_range` is the distance from black to white. Computed in float32 at least, under mixed precision too. Raises
    ValueError for other shapes, an even window or ranges that are not above 0.
    """
    if images.ndim != 4 or images.shape != others.shape:
        raise ValueError(f"images of {tuple(images.shape)} and {tuple(others.shape)}: must be (B, C, H, W) and alike")
    if side < 1 or side % 2 == 0:
        raise ValueError(f"side={side}: must be odd")
    if sigma <= 0 or data_range <= 0:
        raise ValueError(f"sigma={sigma}, data_range={data_range}: must be above 0")
    height, width = images.shape[2:]
    shortest = min(height, width)
    side = min(side, shortest - 1 + shortest % 2)
    with torch.autocast(images.device.type, enabled=False):  # a variance is a small difference of two means
        dtype = torch.promote_types(torch.promote_types(images.dtype, others.dtype), torch.float32)
        x, y = images.to(dtype), others.to(dtype)
        down, across = _windows(height, side, sigma, x), _windows(width, side, sigma, x)
        # the window is a product: first along columns, then along rows
        means = down @ torch.stack([x, y, x * x, y * y, x * y]) @ across.T  # (5, B, C, h, w)
        mean_x, mean_y, square_x, square_y, product = means
        var_x, var_y, covariance = square_x - mean_x**2, square_y - mean_y**2, product - mean_x * mean_y
        c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
        luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
        structure = (2 * covariance + c2) / (var_x + var_y + c2)
        return (luminance * structure).mean((1, 2, 3))
