"""Prediction for an image larger than the network's input, tile by tile.

The overlap-tile strategy of Ronneberger et al. 2015, "U-Net", 1505.04597, figure 2: tiles overlap, of each prediction
only the centre is kept, and what a tile would see beyond the image's border is the image mirrored there.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def centre_crop(maps: Tensor, size: Sequence[int]) -> Tensor:
    """The centre of maps (…, H, W), (…, h, w); of an odd rest one row or column more goes at the end."""
    height, width = size
    if height > maps.shape[-2] or width > maps.shape[-1]:
        raise ValueError(f"size={tuple(size)}: must be at most that of the maps, {tuple(maps.shape[-2:])}")
    top, left = (maps.shape[-2] - height) // 2, (maps.shape[-1] - width) // 2
    return maps[..., top : top + height, left : left + width]


def mirrored(start: int, length: int, size: int) -> Tensor:
    """Which of `size` pixels show at `start` … `start + length − 1` when the image is mirrored at its first and last.

    Any number of times, so that context may be wider than the image.
    """
    period = max(1, 2 * (size - 1))
    place = torch.arange(start, start + length) % period
    return torch.minimum(place, period - place)


@torch.no_grad()
def predict_tiled(
    network: nn.Module, image: Tensor, *, tile: int, overlap: int = 0, multiple: int = 1, batch_size: int = 4
) -> Tensor:
    """The logits (K, H, W) of an image (C, H, W) from square tiles of side `tile`, `batch_size` at once.

    A network with padding gives logits (B, K, tile, tile); of these a border of `overlap` pixels is dropped. One with
    valid convolutions gives fewer, centred in the tile: what it cuts off is its context, and `overlap` may stay 0.

    Where no pixel kept sees further than its tile's context, the result is that for the whole image at once, with
    mirrored context for a network with valid convolutions; for one that pads, away from the image's border. A network
    that pools or strides must see every tile on the same grid: `multiple` is its coarsest stride (16 for the U-Net),
    all tiles start at multiples of it, and `overlap` must be one.
    """
    if network.training:
        raise ValueError("network: must be in evaluation mode, as tiles are no batch to learn from; call .eval()")
    for name, value, least in (("overlap", overlap, 0), ("multiple", multiple, 1), ("batch_size", batch_size, 1)):
        if value < least:
            raise ValueError(f"{name}={value}: must be at least {least}")
    if overlap % multiple:
        raise ValueError(f"overlap={overlap}: must be a multiple of {multiple}, the network's stride")
    height, width = image.shape[-2:]

    def cut(top: int, left: int) -> Tensor:
        rows, columns = mirrored(top, tile, height).to(image.device), mirrored(left, tile, width).to(image.device)
        return image[:, rows][:, :, columns]

    side = network(cut(0, 0)[None]).shape[-1]  # only now we know how much the network cuts off
    margin = (tile - side) // 2 + overlap
    step = (side - 2 * overlap) // multiple * multiple
    if step < 1:
        raise ValueError(
            f"tile={tile}: must be larger, as nothing is left of predictions of {side} pixels with overlap={overlap} "
            f"and multiple={multiple}"
        )
    corners = [(top, left) for top in range(0, height, step) for left in range(0, width, step)]
    result: Tensor | None = None
    for first in range(0, len(corners), batch_size):
        part = corners[first : first + batch_size]
        logits = network(torch.stack([cut(top - margin, left - margin) for top, left in part]))
        if result is None:
            result = logits.new_empty(logits.shape[1], height, width)
        for (top, left), kept in zip(part, logits[:, :, overlap:, overlap:], strict=True):
            rows, columns = min(step, height - top), min(step, width - left)
            result[:, top : top + rows, left : left + columns] = kept[:, :rows, :columns]
    assert result is not None
    return result
