"""Xception: a stack of depthwise separable convolutions with residual connections.

F. Chollet, "Xception: deep learning with depthwise separable convolutions", 2016, arXiv:1610.02357.

A separable convolution is a depthwise 3×3 and a pointwise 1×1 with nothing between them (the paper's figure 10: an
activation there costs accuracy); batch norm follows it. Deliberate deviations:
- Batch norm's epsilon is PyTorch's 1e-5, as in the PyTorch ports of the published weights; Keras has 1e-3.
- Max pooling pads all sides alike; TensorFlow pads an even map at its end only.

The small form keeps every layer. Its stem has no stride and pads, and the last residual block has no stride either:
three halvings instead of five.

Shapes: B batch, C channels, H W size, K classes.
"""

import math
from fractions import Fraction
from typing import Literal

from torch import Tensor, nn


class SeparableConv2d(nn.Module):
    """Depthwise 3×3, then pointwise 1×1: (B, C, H, W) → (B, C', H, W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(input))


class Block(nn.Module):
    """Separable convolutions to the given channels, each after a ReLU and before a norm; max pooling if `stride` is 2.

    The shortcut is a 1×1 convolution and a norm where the shape changes.
    """

    def __init__(self, in_channels: int, channels: tuple[int, ...], stride: int = 1, relu_first: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for place, (fan_in, fan_out) in enumerate(zip((in_channels, *channels), channels, strict=False)):
            if place or relu_first:
                layers.append(nn.ReLU(inplace=place > 0))  # the first one's input is also the shortcut's
            layers += [SeparableConv2d(fan_in, fan_out), nn.BatchNorm2d(fan_out)]
        if stride > 1:
            layers.append(nn.MaxPool2d(3, stride, 1))
        self.residual = nn.Sequential(*layers)
        self.drop_path = nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != channels[-1]:
            projection = nn.Conv2d(in_channels, channels[-1], 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels[-1]))

    def forward(self, input: Tensor) -> Tensor:
        return self.shortcut(input) + self.drop_path(self.residual(input))


class Xception(nn.Module):
    """Entry flow, middle flow of `middle_blocks` equal blocks, exit flow: with eight, 36 convolutional layers.

    `width` is a factor on every number of channels, of which at least 8 remain. `dropout` stands before the last layer.
    Raises ValueError for an unknown `form`, an `image_size` below 32 (paper) or outside 28 to 96 (small), a `dropout`
    outside [0, 1), `middle_blocks` below 0, and other numbers that are not positive.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        image_size: int = 299,
        form: Literal["auto", "paper", "small"] = "auto",
        width: float = 1.0,
        middle_blocks: int = 8,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if form not in ("auto", "paper", "small"):
            raise ValueError(f"form={form}: must be one of auto, paper, small")
        paper = form == "paper" or (form == "auto" and image_size > 64)
        if paper and image_size < 32:
            raise ValueError(f"image_size={image_size}: must be at least 32 for form=paper")
        if not paper and not 28 <= image_size <= 96:
            raise ValueError(f"image_size={image_size}: must be from 28 to 96 for form=small")
        if not 0 < width < math.inf:
            raise ValueError(f"width={width}: must be more than 0")
        for number, value in {"in_channels": in_channels, "num_classes": num_classes}.items():
            if value < 1:
                raise ValueError(f"{number}={value}: must be 1 or more")
        if middle_blocks < 0:
            raise ValueError(f"middle_blocks={middle_blocks}: must be at least 0")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}: must be at least 0 and below 1")
        self.form = "paper" if paper else "small"
        if width != 1:
            self.form += f" ×{Fraction(str(width))}"
        if middle_blocks != 8:
            self.form += f", {middle_blocks} middle blocks"
        c32, c64, c128, c256, c728, c1024, c1536, c2048 = (
            max(8, round(width * channels)) for channels in (32, 64, 128, 256, 728, 1024, 1536, 2048)
        )
        stride, padding = (2, 0) if paper else (1, 1)
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, c32, 3, stride, padding, bias=False),  # (B, 32, 149, 149) of 299
            nn.BatchNorm2d(c32),
            nn.ReLU(inplace=True),
            nn.Conv2d(c32, c64, 3, 1, padding, bias=False),  # (B, 64, 147, 147)
            nn.BatchNorm2d(c64),
            nn.ReLU(inplace=True),
        )
        self.entry = nn.Sequential(
            Block(c64, (c128, c128), stride=2, relu_first=False),  # (B, 128, 74, 74)
            Block(c128, (c256, c256), stride=2),  # (B, 256, 37, 37)
            Block(c256, (c728, c728), stride=2),  # (B, 728, 19, 19)
        )
        self.middle = nn.Sequential(*(Block(c728, (c728, c728, c728)) for _ in range(middle_blocks)))
        self.exit = nn.Sequential(
            Block(c728, (c728, c1024), stride=stride),  # (B, 1024, 10, 10)
            SeparableConv2d(c1024, c1536),
            nn.BatchNorm2d(c1536),
            nn.ReLU(inplace=True),
            SeparableConv2d(c1536, c2048),
            nn.BatchNorm2d(c2048),
            nn.ReLU(inplace=True),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(c2048, num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As the author's Keras code does by default: Glorot uniform, no bias."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(self.fc.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, K)."""
        x = self.exit(self.middle(self.entry(self.stem(input))))
        return self.fc(self.dropout(self.avgpool(x).flatten(1)))
