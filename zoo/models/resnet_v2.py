"""ResNet v2, with pre-activation: batch norm and ReLU stand before each convolution, nothing stands on the shortcut.

K. He, X. Zhang, S. Ren, J. Sun, "Identity mappings in deep residual networks", 2016, arXiv:1603.05027.

`ResNetV2` is the network for ImageNet, `ResNetV2CIFAR` the one for CIFAR (ResNet-164, ResNet-1001).

Deliberate deviations:
- A unit that halves the size strides in its 3×3 convolution (v1.5), as PyTorch's ports do; the authors' code strides
  in the first 1×1. The parameters are the same, ResNet-164 takes 247.6 instead of 244.5 million multiply-adds.
- Stem of `ResNetV2`: convolution, pooling, and the first unit's batch norm and ReLU after that. In 18 and 34 the first
  unit's shortcut is an identity and passes round these two; the paper (appendix) activates before the paths split.
- The paper has no 18, 34 and 50 for ImageNet, and its 200 is not here.

The small form of `ResNetV2` has a 3×3 stem of stride 1 and no pooling; its units are the paper's.

Shapes: B batch, C channels, H W size, K classes.
"""

import math
from fractions import Fraction
from functools import partial
from typing import Literal

from torch import Tensor, nn


class BasicUnit(nn.Module):
    """Two 3×3 convolutions, the first with `stride`; the shortcut is a 1×1 convolution where the shape changes."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()  # not in place: if the norm before it is taken out, its input is the shortcut's
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.drop_path = nn.Identity()
        same = stride == 1 and in_channels == channels
        self.downsample = None if same else nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        active = self.relu1(self.bn1(input))
        shortcut = input if self.downsample is None else self.downsample(active)
        out = self.conv1(active)
        out = self.conv2(self.relu2(self.bn2(out)))
        return shortcut + self.drop_path(out)


class Bottleneck(nn.Module):
    """1×1, 3×3 with `stride`, 1×1 to four times the channels; shortcut as in `BasicUnit`."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        out_channels = self.expansion * channels
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()  # not in place, as above
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.relu3 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.drop_path = nn.Identity()
        same = stride == 1 and in_channels == out_channels
        self.downsample = None if same else nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        active = self.relu1(self.bn1(input))
        shortcut = input if self.downsample is None else self.downsample(active)
        out = self.conv1(active)
        out = self.conv2(self.relu2(self.bn2(out)))
        out = self.conv3(self.relu3(self.bn3(out)))
        return shortcut + self.drop_path(out)


Unit = type[BasicUnit] | type[Bottleneck]

# Depth → units in each of the four stages.
_STAGES: dict[int, tuple[Unit, tuple[int, ...]]] = {
    18: (BasicUnit, (2, 2, 2, 2)),
    34: (BasicUnit, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


def _check_and_scale(channels: tuple[int, ...], width: float, in_channels: int, num_classes: int) -> list[int]:
    """`channels` times `width`, of which at least 8 remain."""
    if not 0 < width < math.inf:
        raise ValueError(f"width={width}: must be more than 0")
    for name, value in {"in_channels": in_channels, "num_classes": num_classes}.items():
        if value < 1:
            raise ValueError(f"{name}={value}: must be 1 or more")
    return [max(8, round(width * number)) for number in channels]


def _stage(unit: Unit, in_channels: int, channels: int, count: int, stride: int) -> nn.Sequential:
    rest = [unit(unit.expansion * channels, channels, 1) for _ in range(count - 1)]
    return nn.Sequential(unit(in_channels, channels, stride), *rest)


def _initialise(network: nn.Module) -> None:
    """As the authors' code: He normal by fan-out, no bias; the linear weights keep PyTorch's draw."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


def _form(name: str, width: float) -> str:
    return name if width == 1 else f"{name} ×{Fraction(str(width))}"


class ResNetV2(nn.Module):
    """Pre-activation ResNet of four stages, for ImageNet.

    `width` is a factor on every number of channels, of which at least 8 remain. Raises ValueError for an unknown
    `depth` or `form`, an `image_size` below 32 (paper) or outside 28 to 96 (small), and numbers that are not positive.
    """

    def __init__(
        self,
        *,
        depth: Literal[18, 34, 50, 101, 152] = 50,
        in_channels: int = 3,
        num_classes: int = 1000,
        image_size: int = 224,
        form: Literal["auto", "paper", "small"] = "auto",
        width: float = 1.0,
    ) -> None:
        super().__init__()
        if depth not in _STAGES:
            raise ValueError(f"depth={depth}: must be one of {', '.join(map(str, _STAGES))}")
        if form not in ("auto", "paper", "small"):
            raise ValueError(f"form={form}: must be one of auto, paper, small")
        paper = form == "paper" or (form == "auto" and image_size > 64)
        if paper and image_size < 32:
            raise ValueError(f"image_size={image_size}: must be at least 32 for form=paper")
        if not paper and not 28 <= image_size <= 96:
            raise ValueError(f"image_size={image_size}: must be from 28 to 96 for form=small")
        unit, counts = _STAGES[depth]
        widths = _check_and_scale((64, 128, 256, 512), width, in_channels, num_classes)
        self.form = _form("paper" if paper else "small", width)
        ins = [widths[0], *(unit.expansion * channels for channels in widths)]
        # (B, C, H, W) → (B, 64, H/4, W/4), or (B, 64, H, W) in the small form
        self.conv1 = nn.Conv2d(in_channels, ins[0], *((7, 2, 3) if paper else (3, 1, 1)), bias=False)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if paper else nn.Identity()
        self.layer1 = _stage(unit, ins[0], widths[0], counts[0], stride=1)
        self.layer2 = _stage(unit, ins[1], widths[1], counts[1], stride=2)
        self.layer3 = _stage(unit, ins[2], widths[2], counts[2], stride=2)
        self.layer4 = _stage(unit, ins[3], widths[3], counts[3], stride=2)
        self.bn = nn.BatchNorm2d(ins[4])
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(ins[4], num_classes)
        _initialise(self)

    def forward(self, input: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, K)."""
        x = self.maxpool(self.conv1(input))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = self.relu(self.bn(x))
        return self.fc(self.avgpool(x).flatten(1))


class ResNetV2CIFAR(nn.Module):
    """The paper's network for CIFAR: three stages of n bottlenecks each, 9n+2 layers deep.

    The paper's ResNet-110 has basic units and is not this network at `depth=110`. The published network is made for 32
    pixels, so there is no other form; `width` is as in `ResNetV2`. Raises ValueError for another `depth` than 9n+2,
    another `form` than auto and paper, an `image_size` below 4, and numbers that are not positive.
    """

    def __init__(
        self,
        *,
        depth: int = 164,
        in_channels: int = 3,
        num_classes: int = 10,
        image_size: int = 32,
        form: Literal["auto", "paper"] = "auto",
        width: float = 1.0,
    ) -> None:
        super().__init__()
        if depth < 11 or depth % 9 != 2:
            raise ValueError(f"depth={depth}: must be 9n+2, such as 164 and 1001")
        if form not in ("auto", "paper"):
            raise ValueError(f"form={form}: must be auto or paper, as the paper's network is made for 32 pixels")
        if image_size < 4:
            raise ValueError(f"image_size={image_size}: must be at least 4")
        widths, count = _check_and_scale((16, 32, 64), width, in_channels, num_classes), depth // 9
        self.form = _form("paper", width)
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, 1, 1, bias=False)
        self.layer1 = _stage(Bottleneck, widths[0], widths[0], count, stride=1)  # (B, 64, H, W)
        self.layer2 = _stage(Bottleneck, 4 * widths[0], widths[1], count, stride=2)  # (B, 128, H/2, W/2)
        self.layer3 = _stage(Bottleneck, 4 * widths[1], widths[2], count, stride=2)  # (B, 256, H/4, W/4)
        self.bn = nn.BatchNorm2d(4 * widths[2])
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * widths[2], num_classes)
        _initialise(self)

    def forward(self, input: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, K)."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(input))))
        x = self.relu(self.bn(x))
        return self.fc(self.avgpool(x).flatten(1))


resnetv2_18 = partial(ResNetV2, depth=18)
resnetv2_34 = partial(ResNetV2, depth=34)
resnetv2_50 = partial(ResNetV2, depth=50)
resnetv2_101 = partial(ResNetV2, depth=101)
resnetv2_152 = partial(ResNetV2, depth=152)
resnetv2_164 = partial(ResNetV2CIFAR, depth=164)
resnetv2_1001 = partial(ResNetV2CIFAR, depth=1001)
