"""ResNet for small pictures, and its plain twin without shortcuts.

K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", 2015, arXiv 1512.03385, section 4.2.

6n + 2 layers: a 3×3 convolution, three stages of n blocks of two 3×3 convolutions with 16, 32 and 64 channels, global
average pooling and one linear layer. 0.27 million parameters at 20 layers, 1.7 million at 110.

Deliberate deviations from the paper:
- `shortcut="B"`, projections where the shape changes. The paper has only A here, which costs no parameters, so that a
  network and its plain twin have equally many.
- The paper starts from "the initialization in [13]" (He et al. 2015, arXiv 1502.01852), of which this is the forward
  form, N(0, 2/fan_in), for the linear layer too, with biases of 0.
- Each activation is a module of its own, and each residual block has a place, `drop_path`, on its residual branch
  before the addition. Both are for changes to the built network; neither has parameters.

Shapes: B batch, C channels, H W size, K classes.
"""

import math
from fractions import Fraction
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn


class SubsampleAndPad(nn.Module):
    """Shortcut A: every `stride`-th pixel, and zeros for the channels that are added, behind the others."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.added, self.stride = out_channels - in_channels, stride

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added))


class PlainBlock(nn.Module):
    """3×3, 3×3: (B, in_channels, H, W) → (B, out_channels, H/stride, W/stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU(inplace=True)

    def branch(self, input: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(input)))))

    def forward(self, input: Tensor) -> Tensor:
        return self.relu2(self.branch(input))


class ResidualBlock(PlainBlock):
    """A plain block whose input is added before the last activation."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut: str) -> None:
        super().__init__(in_channels, out_channels, stride)
        self.drop_path = nn.Identity()
        self.downsample: nn.Module | None = None
        if stride > 1:
            self.downsample = SubsampleAndPad(in_channels, out_channels, stride)
            if shortcut == "B":
                projection = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
                self.downsample = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def forward(self, input: Tensor) -> Tensor:
        kept = input if self.downsample is None else self.downsample(input)
        return self.relu2(self.drop_path(self.branch(input)) + kept)


class ResNetCIFAR(nn.Module):
    """The paper's network for 32×32 pictures; it takes 28 to 96 pixels.

    `depth` is 6n + 2. `residual=False` is the plain twin, the same layers without shortcuts. `shortcut` is A (without
    parameters) or B (projections where the shape changes). `width` is a factor on every number of channels, of which
    at least 8 remain.

    Raises ValueError for values out of range.
    """

    def __init__(
        self,
        *,
        depth: int = 20,
        in_channels: int = 3,
        num_classes: int = 10,
        image_size: int = 32,
        width: float = 1.0,
        shortcut: Literal["A", "B"] = "A",
        residual: bool = True,
    ) -> None:
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"depth={depth}: must be 6n + 2, such as 20, 32, 44, 56 or 110")
        if not 28 <= image_size <= 96:
            raise ValueError(f"image_size={image_size}: must be from 28 to 96")
        for name, value in {"in_channels": in_channels, "num_classes": num_classes}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: must be 1 or more")
        if not 0 < width < math.inf:
            raise ValueError(f"width={width}: must be more than 0")
        if shortcut not in ("A", "B"):
            raise ValueError(f"shortcut={shortcut}: must be A or B")
        if shortcut == "B" and not residual:
            raise ValueError("shortcut=B: must be A for residual=false, which has no shortcuts")
        self.form = "paper" if width == 1 else f"paper ×{Fraction(str(width))}"
        widths = [max(8, round(channels * width)) for channels in (16, 32, 64)]
        channels = widths[0]
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        stages = []
        for stage, out in enumerate(widths):
            blocks: list[nn.Module] = []
            for place in range((depth - 2) // 6):
                stride = 2 if stage > 0 and place == 0 else 1
                blocks.append(
                    ResidualBlock(channels, out, stride, shortcut) if residual else PlainBlock(channels, out, stride)
                )
                channels = out
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        nn.init.zeros_(self.fc.bias)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, input: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, K)."""
        x = self.relu(self.bn1(self.conv1(input)))  # (B, 16, H, W)
        x = self.layer3(self.layer2(self.layer1(x)))  # (B, 64, H/4, W/4)
        return self.fc(self.avgpool(x).flatten(1))


resnet20 = partial(ResNetCIFAR, depth=20)
resnet32 = partial(ResNetCIFAR, depth=32)
resnet44 = partial(ResNetCIFAR, depth=44)
resnet56 = partial(ResNetCIFAR, depth=56)
resnet110 = partial(ResNetCIFAR, depth=110)
plain20 = partial(ResNetCIFAR, depth=20, residual=False)
plain56 = partial(ResNetCIFAR, depth=56, residual=False)
