"""Augmentation of image batches: flips, shift, rotation, erasing, noise, drawn for every example by its position.

Works on uint8 (B, C, H, W), a batch at a time. What happens to an example is a function of (seed, epoch, position), so
it does not depend on the size of the batch, on the process or on the worker that makes it.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.randomness import key, normal, uniform

# What each column of the draws decides.
_FLIP, _DOWN, _RIGHT, _ANGLE, _ERASE, _AREA, _ASPECT, _TOP, _LEFT = range(9)
_ASPECTS = (0.3, 1 / 0.3)  # height / width of the erased rectangle: section 3.2 of 1708.04896


class Augment:
    """Flips, then shifts, rotates, erases and adds noise; an argument at zero leaves its step out.

    `shift` in pixels, each way, uncovered pixels zero (padding p and a random crop: shift=p). `flip` is the probability
    of a horizontal flip, `flip_vertical` that of an upside-down one. `rotation` in degrees, each way, bilinear, about
    the centre. `erase` is the probability of erasing a rectangle (Zhong et al. 2017, "Random Erasing Data
    Augmentation", 1708.04896) of an area within `erase_size`, as fractions of the image, filled with `erase_fill`.
    `noise` is the standard deviation of Gaussian noise, clipped to the valid range; `noise` and `erase_fill` count from
    0 (black) to 1 (white).
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        shift: int = 0,
        flip: float = 0.0,
        flip_vertical: float = 0.0,
        rotation: float = 0.0,
        erase: float = 0.0,
        erase_size: Sequence[float] = (0.02, 0.4),
        erase_fill: float = 0.0,
        noise: float = 0.0,
    ) -> None:
        if shift != int(shift) or shift < 0:
            raise ValueError(f"shift={shift}: must be a whole number of pixels, 0 or more")
        shares = {"flip": flip, "flip_vertical": flip_vertical, "erase": erase, "erase_fill": erase_fill}
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value}: must be from 0 to 1")
        if not 0 <= rotation <= 180:
            raise ValueError(f"rotation={rotation}: must be from 0 to 180 degrees")
        if len(erase_size) != 2 or not 0 < erase_size[0] <= erase_size[1] <= 1:
            raise ValueError(f"erase_size={list(erase_size)}: must be two fractions, 0 < smallest <= largest <= 1")
        if not 0 <= noise <= 1:
            raise ValueError(f"noise={noise}: must be from 0 to 1, where 1 is the range from black to white")
        self.seed, self.shift, self.flip, self.rotation = seed, int(shift), flip, rotation
        self.flip_vertical = flip_vertical
        self.erase, self.erase_size, self.erase_fill, self.noise = erase, tuple(erase_size), erase_fill, noise

    def __bool__(self) -> bool:
        """Whether any step is left in."""
        return any((self.shift, self.flip, self.flip_vertical, self.rotation, self.erase, self.noise))

    def draws(self, epoch: int, positions: Tensor) -> Tensor:
        """Uniform numbers in [0, 1), (B, 9), that decide all but the noise for the examples at `positions` (B,)."""
        return uniform(key(self.seed, "augment", epoch), positions, 9)

    def __call__(self, images: Tensor, epoch: int, positions: Tensor, draws: Tensor | None = None) -> Tensor:
        """Augment uint8 `images` (B, C, H, W); `draws`, when at hand, saves computing them again."""
        if images.dtype != torch.uint8:
            raise ValueError(f"images are {images.dtype}: must be torch.uint8, as only images are augmented")
        if self.shift >= min(images.shape[-2:]):
            raise ValueError(f"shift={self.shift}: must be smaller than the image, {tuple(images.shape[-2:])}")
        if draws is None:
            draws = self.draws(epoch, positions)
        if self.flip_vertical:
            turned = uniform(key(self.seed, "flip_vertical", epoch), positions, 1)[:, 0] < self.flip_vertical
            images = torch.where(turned[:, None, None, None], images.flip(-2), images)
        if self.flip or self.shift:
            images = self._flip_and_shift(images, draws)
        if self.rotation:
            images = self._rotate(images, draws)
        if self.erase:
            images = self._erase(images, draws)
        if self.noise:
            images = self._add_noise(images, epoch, positions)
        return images

    def _flip_and_shift(self, images: Tensor, draws: Tensor) -> Tensor:
        """Copy whole rows out of the padded batch (and its mirror image): eight times faster than indexing pixels."""
        batch, channels, height, width = images.shape
        pad, wide = self.shift, width + 2 * self.shift
        padded = F.pad(images, (pad, pad, pad, pad))
        plane = (height + 2 * pad) * wide
        start = torch.arange(batch) * (channels * plane)
        if self.shift:
            offset = (draws[:, _DOWN : _RIGHT + 1] * (2 * pad + 1)).long()  # 0: `pad` pixels down or right
            start += offset[:, 0] * wide + offset[:, 1]
        if self.flip:
            padded = torch.cat([padded, padded.flip(-1)])
            start += (draws[:, _FLIP] < self.flip) * (batch * channels * plane)
        rows = torch.arange(channels)[:, None] * plane + torch.arange(height) * wide  # (C, H)
        windows = padded.view(-1).unfold(0, width, 1)  # every run of `width` pixels, without copying
        return windows.index_select(0, (start[:, None] + rows.view(-1)).view(-1)).view(images.shape)

    def _rotate(self, images: Tensor, draws: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        angle = (2 * draws[:, _ANGLE] - 1) * math.radians(self.rotation)
        cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
        y = torch.arange(height)[:, None] - (height - 1) / 2  # pixels from the centre: a turn counted in units of the
        x = torch.arange(width) - (width - 1) / 2  # sides would shear a picture that is not square
        # Not affine_grid: its matrix product follows torch.set_float32_matmul_precision.
        grid = torch.stack([(cos * x - sin * y) * (2 / width), (sin * x + cos * y) * (2 / height)], dim=-1)
        turned = F.grid_sample(images.float(), grid.float(), mode="bilinear", align_corners=False)
        return turned.round_().clamp_(0, 255).to(torch.uint8)

    def _erase(self, images: Tensor, draws: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        smallest, largest = self.erase_size
        area = (smallest + (largest - smallest) * draws[:, _AREA]) * (height * width)
        low, high = (math.log(aspect) for aspect in _ASPECTS)
        aspect = torch.exp(low + (high - low) * draws[:, _ASPECT])
        tall = torch.sqrt(area * aspect).round().clamp(1, height)
        wide = torch.sqrt(area / aspect).round().clamp(1, width)
        top = (draws[:, _TOP] * (height - tall + 1)).floor()
        left = (draws[:, _LEFT] * (width - wide + 1)).floor()
        y, x = torch.arange(height), torch.arange(width)
        inside_y = (y >= top[:, None]) & (y < (top + tall)[:, None])  # (B, H)
        inside_x = (x >= left[:, None]) & (x < (left + wide)[:, None])  # (B, W)
        inside_y &= draws[:, _ERASE, None] < self.erase
        return images.masked_fill((inside_y[:, :, None] & inside_x[:, None, :])[:, None], round(255 * self.erase_fill))

    def _add_noise(self, images: Tensor, epoch: int, positions: Tensor) -> Tensor:
        numbers = normal(key(self.seed, "noise", epoch), positions, images[0].numel()).view(images.shape)
        return numbers.mul_(255 * self.noise).add_(images).round_().clamp_(0, 255).to(torch.uint8)
