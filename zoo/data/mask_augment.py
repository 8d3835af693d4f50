"""Augmentation of pictures together with their masks, drawn for every example by its position.

Takes a batch at a time: uint8 pictures (B, C, S, S), uint8 masks (B, S, S) and, where there are, weights (B, S, S).
All that moves pixels is one map from the pixels of the result to places in the picture: pictures are read there
bilinearly, masks and weights at the nearest pixel, and beyond its edge a picture is mirrored, as in Ronneberger et al.
2015 (1505.04597), so that nothing comes in without its label. Without `rotation` and `elastic` every pixel is copied
exactly. What happens to an example is a function of (seed, epoch, position) alone.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.randomness import key, normal, uniform

# What each column of the draws decides.
_FLIP, _UPSIDE, _TURN, _DOWN, _RIGHT, _ANGLE, _BRIGHTNESS, _CONTRAST = range(8)


class MaskAugment:
    """Crops and shifts, deforms, rotates, flips and turns; then contrast, brightness and noise of the picture alone.

    An argument at zero leaves its step out. Names that `zoo.data.augment.Augment` has too mean the same: `shift` in
    pixels, each way (padding and a random crop); `flip` and `flip_vertical` probabilities; `rotation` in degrees, each
    way, about the centre; `noise` the standard deviation of Gaussian noise, 1 being the range from black to white.
    `erase` must be 0, for whatever it hides has a label; `erase_size` and `erase_fill` have then no effect.

    `quarter_turns` is the probability of a turn by 90°, 180° or 270°; with 3/4 and both flips at 1/2 each of the eight
    ways to lay a square is as likely. `crop` trains on random windows of so many pixels. `elastic` is the standard
    deviation, in pixels, of random displacements on a grid of `elastic_grid` × `elastic_grid` points, bicubic between
    them (1505.04597, section 3.1: 10 pixels, 3 × 3, on pictures of 512). `brightness` b multiplies a picture by a
    factor from 1 - b to 1 + b, `contrast` its differences from its mean.
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
        quarter_turns: float = 0.0,
        crop: int = 0,
        elastic: float = 0.0,
        elastic_grid: int = 3,
        brightness: float = 0.0,
        contrast: float = 0.0,
    ) -> None:
        if erase:
            raise ValueError(f"erase={erase}: must be 0 for data with masks, as an erased pixel keeps its label")
        for name, pixels in (("shift", shift), ("crop", crop)):
            if pixels != int(pixels) or pixels < 0:
                raise ValueError(f"{name}={pixels}: must be a whole number of pixels, 0 or more")
        shares = {"flip": flip, "flip_vertical": flip_vertical, "quarter_turns": quarter_turns}
        for name, value in (shares | {"brightness": brightness, "contrast": contrast}).items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value}: must be from 0 to 1")
        if not 0 <= rotation <= 180:
            raise ValueError(f"rotation={rotation}: must be from 0 to 180 degrees")
        if not 0 <= noise <= 1:
            raise ValueError(f"noise={noise}: must be from 0 to 1, where 1 is the range from black to white")
        if not 0 <= elastic < math.inf:
            raise ValueError(f"elastic={elastic}: must be 0 pixels or more")
        if elastic_grid < 2 or elastic_grid != int(elastic_grid):
            raise ValueError(f"elastic_grid={elastic_grid}: must be a whole number, at least 2 points each way")
        self.seed, self.shift, self.crop = seed, int(shift), int(crop)
        self.flip, self.flip_vertical, self.quarter_turns, self.rotation = flip, flip_vertical, quarter_turns, rotation
        self.elastic, self.elastic_grid = elastic, int(elastic_grid)
        self.brightness, self.contrast, self.noise = brightness, contrast, noise

    @property
    def _copies(self) -> bool:
        """Whether pixels only change places, so that none falls between others."""
        return not (self.rotation or self.elastic)

    @property
    def _moves(self) -> bool:
        whole = self.shift or self.crop or self.flip or self.flip_vertical or self.quarter_turns
        return bool(whole) or not self._copies

    def __bool__(self) -> bool:
        """Whether any step is left in."""
        return self._moves or any((self.brightness, self.contrast, self.noise))

    def __call__(
        self, images: Tensor, masks: Tensor, epoch: int, positions: Tensor, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The augmented pictures, masks and weights."""
        if images.dtype != torch.uint8 or images.shape[-2] != images.shape[-1]:
            raise ValueError(f"images are {images.dtype} {tuple(images.shape)}: must be torch.uint8 and square")
        size = images.shape[-1]
        if self.shift >= size:
            raise ValueError(f"shift={self.shift}: must be smaller than the picture, {size} pixels")
        if self.crop > size:
            raise ValueError(f"crop={self.crop}: must be at most the picture's {size} pixels")
        draws = uniform(key(self.seed, "mask augment", epoch), positions, 8)
        if self._moves:
            rows, columns = self._places(size, epoch, positions, draws)
            side = rows.shape[-1]
            nearest = (rows.round().long() * size + columns.round().long()).flatten(1)  # (B, side²)
            masks = masks.flatten(1).gather(1, nearest).unflatten(1, (side, side))
            if weights is not None:
                weights = weights.flatten(1).gather(1, nearest).unflatten(1, (side, side))
            if self._copies:
                planes = nearest[:, None].expand(-1, images.shape[1], -1)
                images = images.flatten(2).gather(2, planes).unflatten(2, (side, side))
            else:
                grid = torch.stack([columns, rows], dim=-1) * (2 / (size - 1)) - 1
                read = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=True)
                images = read.round_().clamp_(0, 255).to(torch.uint8)
        if self.brightness or self.contrast or self.noise:
            images = self._colour(images, epoch, positions, draws)
        return images, masks, weights

    def _places(self, size: int, epoch: int, positions: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Row and column in the picture that each pixel of the result is read from, float32 (B, side, side)."""
        side = self.crop or size
        start = (draws[:, _DOWN : _RIGHT + 1] * (size + 2 * self.shift - side + 1)).floor() - self.shift
        line = torch.arange(side) - (side - 1) / 2  # from the centre of the window, about which it turns
        y, x = line[:, None].expand(len(draws), side, side), line.expand(len(draws), side, side)
        if self.elastic:
            points = self.elastic_grid
            coarse = normal(key(self.seed, "elastic", epoch), positions, 2 * points**2) * self.elastic
            bend = F.interpolate(coarse.view(-1, 2, points, points), (side, side), mode="bicubic", align_corners=True)
            y, x = y + bend[:, 0], x + bend[:, 1]
        if self.rotation:
            angle = (2 * draws[:, _ANGLE] - 1) * math.radians(self.rotation)
            cos, sin = torch.cos(angle)[:, None, None], torch.sin(angle)[:, None, None]
            y, x = sin * x + cos * y, cos * x - sin * y
        rows, columns = (offset + start[:, place, None, None] + (side - 1) / 2 for place, offset in enumerate((y, x)))
        # A quarter turn is a transposition and a mirroring: torch.rot90 by `turns`, 0 to 3.
        turn = draws[:, _TURN] / self.quarter_turns if self.quarter_turns else torch.ones(len(draws))
        turns = torch.where(turn < 1, 1 + (3 * turn).floor().clamp(max=2), 0)[:, None, None]
        rows, columns = torch.where(turns % 2 == 1, columns, rows), torch.where(turns % 2 == 1, rows, columns)
        upside = (draws[:, _UPSIDE] < self.flip_vertical)[:, None, None] ^ (turns >= 2)
        mirror = (draws[:, _FLIP] < self.flip)[:, None, None] ^ ((turns == 1) | (turns == 2))
        rows, columns = torch.where(upside, size - 1 - rows, rows), torch.where(mirror, size - 1 - columns, columns)
        return _mirrored(rows, size), _mirrored(columns, size)

    def _colour(self, images: Tensor, epoch: int, positions: Tensor, draws: Tensor) -> Tensor:
        bright = 1 + self.brightness * (2 * draws[:, _BRIGHTNESS] - 1)
        steep = 1 + self.contrast * (2 * draws[:, _CONTRAST] - 1)
        pixels = images.float()
        mean = pixels.mean((1, 2, 3))
        pixels = pixels * (bright * steep)[:, None, None, None] + (bright * (1 - steep) * mean)[:, None, None, None]
        if self.noise:
            numbers = normal(key(self.seed, "noise", epoch), positions, images[0].numel())
            pixels += numbers.view(images.shape) * (255 * self.noise)
        return pixels.round_().clamp_(0, 255).to(torch.uint8)


def _mirrored(places: Tensor, size: int) -> Tensor:
    """Coordinates reflected at the first and last pixel until they are within."""
    return (size - 1) - ((size - 1) - torch.remainder(places, 2 * (size - 1))).abs()
