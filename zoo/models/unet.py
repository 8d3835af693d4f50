"""U-Net: a contracting and an expanding path of 3×3 convolutions, joined at every size.

O. Ronneberger, P. Fischer, T. Brox, "U-Net: convolutional networks for biomedical image segmentation", 2015,
1505.04597.

`unet_2015` is the paper's network: convolutions without padding, skips cropped around their centre, 572×572 → 388×388,
31,030,658 parameters from one channel to two classes. `UNet()` is what is mostly called by that name today: padded, so
that the output is as large as the input, with batch normalisation. Deliberate choices where the paper leaves them open
or they go beyond it:
- Nothing follows an up-convolution, as in the paper's text; the authors' Caffe files have a ReLU there.
- Dropout acts on the two deepest levels of the contracting path, with 0.5 in `unet_2015`, both as in those files.
- Biases start at 0. Convolutions that batch normalisation follows have none.
- Padded, the pools round up and what was added is cropped off again, so that any size goes in.
- Bilinear up-sampling has no weights, and does not halve the channels: the block before it does. Corners are not
  aligned, or its values would depend on the size of the image.

Shapes: B batch, C channels, H W size, K classes.
"""

import itertools
import math
from fractions import Fraction
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn


class Block(nn.Sequential):
    """Two 3×3 convolutions, each with its ReLU: (B, C, H, W) → (B, out_channels, H, W); 4 pixels less if `valid`."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        out_channels: int,
        *,
        valid: bool,
        batch_norm: bool,
        dropout: float | None = None,
    ) -> None:
        layers: list[nn.Module] = []
        for before, after in ((in_channels, channels), (channels, out_channels)):
            layers.append(nn.Conv2d(before, after, 3, padding=0 if valid else 1, bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm2d(after))
            layers.append(nn.ReLU(inplace=True))
        if dropout is not None:
            layers.append(nn.Dropout(dropout))
        super().__init__(*layers)


def _centre(maps: Tensor, height: int, width: int) -> Tensor:
    """The middle of maps (B, C, H, W); of an odd rest the larger part is cut off at the end."""
    top, left = (maps.shape[2] - height) // 2, (maps.shape[3] - width) // 2
    return maps[:, :, top : top + height, left : left + width]


class Expansion(nn.Module):
    """Maps (B, C, h, w) twice as large, behind the copy (B, C', H, W) from across, which `skips=False` leaves out."""

    def __init__(self, upsampling: nn.Module, block: Block, *, crop: int, skips: bool) -> None:
        super().__init__()
        self.upsampling, self.block, self.crop, self.skips = upsampling, block, crop, skips

    def forward(self, input: Tensor, copy: Tensor) -> Tensor:
        x = self.upsampling(input)
        x = _centre(x, x.shape[2] - 2 * self.crop, x.shape[3] - 2 * self.crop)
        # valid: the copy is the larger; padded: x is, by the pixel that a pool had rounded up
        height, width = min(x.shape[2], copy.shape[2]), min(x.shape[3], copy.shape[3])
        x = _centre(x, height, width)
        return self.block(torch.cat([_centre(copy, height, width), x], 1) if self.skips else x)


class UNet(nn.Module):
    """`depth` halvings; 64 channels at full size, twice as many after each.

    With `valid` the convolutions do not pad: the output is smaller than the input, belongs to its middle, and each of
    its pixels has seen image only. Such a network takes certain sizes, which `output_size` knows; padded it takes any.
    `skips=False` is the twin without the copies across, otherwise the same. `width` is a factor on every number of
    channels, of which at least 8 remain.

    Raises ValueError for arguments out of range, and for an `image_size` or an input that a valid network cannot take.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 2,
        image_size: int = 572,
        width: float = 1.0,
        depth: int = 4,
        valid: bool = False,
        batch_norm: bool = True,
        upsampling: Literal["transposed", "bilinear"] = "transposed",
        skips: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        for name, value in {"in_channels": in_channels, "num_classes": num_classes, "image_size": image_size}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: must be 1 or more")
        if not 1 <= depth <= 8:
            raise ValueError(f"depth={depth}: must be from 1 to 8")
        if not 0 < width < math.inf:
            raise ValueError(f"width={width}: must be more than 0")
        if upsampling not in ("transposed", "bilinear"):
            raise ValueError(f"upsampling={upsampling}: must be transposed or bilinear")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}: must be at least 0 and below 1")
        self.form = ("valid" if valid else "padded") + ("" if width == 1 else f" ×{Fraction(str(width))}")
        self.form += ("" if depth == 4 else f", depth {depth}") + ("" if skips else ", no skips")

        widths = [max(8, round(64 * 2**level * width)) for level in range(depth + 1)]
        bilinear = upsampling == "bilinear"
        # what leaves each level upwards: the block halves the channels where up-sampling does not
        upwards = [widths[0], *widths[:-1]] if bilinear else widths
        self.depth, self.valid = depth, valid
        self.crop = 1 if valid and bilinear else 0  # up-sampling had extrapolated the outermost pixels
        self.output_size(image_size)
        kind = {"valid": valid, "batch_norm": batch_norm}
        self.contracting = nn.ModuleList()
        for level in range(depth):
            before = widths[level - 1] if level else in_channels
            rate = dropout if level == depth - 1 else None
            self.contracting.append(Block(before, widths[level], widths[level], **kind, dropout=rate))
        self.pool = nn.MaxPool2d(2, ceil_mode=not valid)
        self.bottom = Block(widths[-2], upwards[-1], upwards[-1], **kind, dropout=dropout)
        self.expanding = nn.ModuleList()  # deepest level first
        for level in reversed(range(depth)):
            if bilinear:
                twice: nn.Module = nn.Upsample(scale_factor=2, mode="bilinear")
            else:
                twice = nn.ConvTranspose2d(widths[level + 1], widths[level], 2, stride=2)
            block = Block(widths[level] * (2 if skips else 1), widths[level], upwards[level], **kind)
            self.expanding.append(Expansion(twice, block, crop=self.crop, skips=skips))
        self.classifier = nn.Conv2d(widths[0], num_classes, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                # N, the incoming nodes of a unit; without overlap an up-convolution has one place's channels
                incoming = layer.in_channels * (layer.kernel_size[0] ** 2 if isinstance(layer, nn.Conv2d) else 1)
                nn.init.normal_(layer.weight, 0, math.sqrt(2 / incoming))
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def output_size(self, size: int) -> int:
        """Height or width of the logits for an input of this height or width; ValueError if the network refuses it."""
        output = self._valid_output(size) if self.valid else size
        if output is None:
            below = next((near for near in range(size - 1, 0, -1) if self._valid_output(near)), None)
            above = next(near for near in itertools.count(size + 1) if self._valid_output(near))
            sizes = f"{below} or {above}, the nearest" if below else f"{above}, the smallest"
            raise ValueError(
                f"image_size={size}: must be {sizes} for valid=True with depth={self.depth}; "
                "a smaller depth takes smaller images, and valid=False any"
            )
        return output

    def _valid_output(self, size: int) -> int | None:
        """What is left of `size` without padding; None where a pool would drop a pixel or nothing is left."""
        for _ in range(self.depth):
            size -= 4
            if size < 2 or size % 2:
                return None
            size //= 2
        size -= 4
        for _ in range(self.depth):
            size = 2 * size - 2 * self.crop - 4
        return size if size > 0 else None

    def forward(self, input: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, K, H, W), of a valid network (B, K, H', W') for the middle."""
        for size in input.shape[2:]:
            self.output_size(size)
        x, copies = input, []
        for block in self.contracting:
            copies.append(block(x))
            x = self.pool(copies[-1])
        x = self.bottom(x)
        for expansion in self.expanding:
            x = expansion(x, copies.pop())
        return self.classifier(x)


unet = UNet
unet_2015 = partial(UNet, valid=True, batch_norm=False, dropout=0.5)
