"""ResNet for large pictures (18 to 152 layers), wide ResNet and ResNeXt.

K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", 2015, arXiv 1512.03385, table 1.
S. Zagoruyko, N. Komodakis, "Wide residual networks", 2016, arXiv 1605.07146: `width_per_group=128`.
S. Xie, R. Girshick, P. Dollár, Z. Tu, K. He, "Aggregated residual transformations for deep neural networks", 2016,
arXiv 1611.05431: `groups=32`, `width_per_group=4`.

Deliberate deviations from the first paper:
- A bottleneck strides in its 3×3 convolution (v1.5, as torchvision and fb.resnet.torch): ResNet-50 takes 4.09 billion
  multiply-adds. `stride_in="1x1"` is the paper's v1, which strides in the first 1×1: 3.86 billion.
- Weights start as torchvision's: He normal over fan_out, norms at 1 and 0, the last layer with PyTorch's default.
- Each activation is a module of its own, and each block has a place, `drop_path`, on its residual branch before the
  addition. Both are for changes to the built network; neither has parameters.

The `small` form, for 28 to 96 pixels, has a 3×3 stem without stride and no max pooling, so that the four stages see
32×32, 16×16, 8×8 and 4×4 of a 32×32 picture. It is not the paper's network for CIFAR: see `zoo/models/resnet_cifar.py`.

Shapes: B batch, C channels, H W size, K classes.
"""

import math
from fractions import Fraction
from functools import partial
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

# blocks in each of the four stages (table 1); the two shallow networks have basic blocks, the others bottlenecks
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
BASIC = (18, 34)


class SubsampleAndPad(nn.Module):
    """Shortcut A: every `stride`-th pixel, and zeros for the channels that are added, behind the others."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.added, self.stride = out_channels - in_channels, stride

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added))


def make_shortcut(kind: str, in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    """What brings a block's input to the shape of its output (section 4.1); None for the input as it is."""
    if kind != "C" and stride == 1 and in_channels == out_channels:
        return None
    if kind == "A":
        return SubsampleAndPad(in_channels, out_channels, stride)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
    )


class BasicBlock(nn.Module):
    """3×3, 3×3 and the addition: (B, in_channels, H, W) → (B, out_channels, H/stride, W/stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = make_shortcut(shortcut, in_channels, out_channels, stride)
        self.drop_path = nn.Identity()
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, input: Tensor) -> Tensor:
        branch = self.relu1(self.bn1(self.conv1(input)))
        branch = self.bn2(self.conv2(branch))
        kept = input if self.downsample is None else self.downsample(input)
        return self.relu2(self.drop_path(branch) + kept)


class Bottleneck(nn.Module):
    """1×1 to `middle` channels, 3×3 in `groups`, 1×1 to `out_channels`, and the addition.

    (B, in_channels, H, W) → (B, out_channels, H/stride, W/stride).
    """

    def __init__(
        self,
        in_channels: int,
        middle: int,
        out_channels: int,
        stride: int,
        shortcut: str,
        groups: int,
        stride_in: str,
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_in == "1x1" else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, middle, 1, stride=first, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride=second, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(middle, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = make_shortcut(shortcut, in_channels, out_channels, stride)
        self.drop_path = nn.Identity()
        self.relu3 = nn.ReLU(inplace=True)

    def forward(self, input: Tensor) -> Tensor:
        branch = self.relu1(self.bn1(self.conv1(input)))
        branch = self.relu2(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
        kept = input if self.downsample is None else self.downsample(input)
        return self.relu3(self.drop_path(branch) + kept)


class ResNet(nn.Module):
    """A stem, four stages of residual blocks, global average pooling and one linear layer.

    `shortcut` is what joins blocks of different shapes: A without parameters, B (the paper's choice) a projection where
    the shape changes, C a projection in every block. `zero_init_residual` starts the last gamma of each block at 0, so
    that blocks start as their shortcuts (Goyal et al. 2017, arXiv 1706.02677). `width` is a factor on every number of
    channels, of which at least 8 remain. State-dict keys are torchvision's.

    Raises ValueError for values out of range and for combinations that make no network.
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
        groups: int = 1,
        width_per_group: int = 64,
        stride_in: Literal["3x3", "1x1"] = "3x3",
        shortcut: Literal["A", "B", "C"] = "B",
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise ValueError(f"depth={depth}: must be one of {', '.join(map(str, DEPTHS))}")
        if form not in ("auto", "paper", "small"):
            raise ValueError(f"form={form}: must be one of auto, paper, small")
        if form == "auto":
            form = "paper" if image_size > 64 else "small"
        if form == "paper" and image_size < 32:  # the stages divide a picture by 32 in all
            raise ValueError(f"image_size={image_size}: must be at least 32 for form=paper")
        if form == "small" and not 28 <= image_size <= 96:
            raise ValueError(f"image_size={image_size}: must be from 28 to 96 for form=small")
        if not 0 < width < math.inf:
            raise ValueError(f"width={width}: must be more than 0")
        sizes = {"in_channels": in_channels, "num_classes": num_classes, "groups": groups}
        for name, value in (sizes | {"width_per_group": width_per_group}).items():
            if value < 1:
                raise ValueError(f"{name}={value}: must be 1 or more")
        if stride_in not in ("3x3", "1x1"):
            raise ValueError(f"stride_in={stride_in}: must be 3x3 (v1.5) or 1x1 (v1)")
        if shortcut not in ("A", "B", "C"):
            raise ValueError(f"shortcut={shortcut}: must be one of A, B, C")
        if depth in BASIC and (groups, width_per_group, stride_in) != (1, 64, "3x3"):
            given = f"groups={groups}, width_per_group={width_per_group}, stride_in={stride_in}"
            raise ValueError(f"{given}: must be 1, 64 and 3x3 for depth={depth}, which has no bottlenecks")
        self.form = form if width == 1 else f"{form} ×{Fraction(str(width))}"

        def scaled(channels: float) -> int:
            return max(8, round(channels * width))

        channels = scaled(64)
        if form == "paper":
            self.conv1 = nn.Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False)
        else:
            self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if form == "paper" else nn.Identity()
        stages = []
        for stage, repeats in enumerate(DEPTHS[depth]):
            planes = 64 * 2**stage
            middle = scaled(planes * groups * width_per_group / 64)
            if middle % groups:
                raise ValueError(f"width={width}: leaves {middle} channels, which groups={groups} must divide")
            blocks: list[nn.Module] = []
            for place in range(repeats):
                stride = 2 if stage > 0 and place == 0 else 1
                if depth in BASIC:
                    blocks.append(BasicBlock(channels, middle, stride, shortcut))
                    channels = middle
                else:
                    out = 4 * scaled(planes)
                    blocks.append(Bottleneck(channels, middle, out, stride, shortcut, groups, stride_in))
                    channels = out
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif zero_init_residual and isinstance(module, BasicBlock):
                nn.init.zeros_(module.bn2.weight)
            elif zero_init_residual and isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)

    def forward(self, input: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, K)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(input))))  # (B, 64, H/4, W/4), small: (B, 64, H, W)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (B, 512 or 2048, H/32, W/32), small: H/8, W/8
        return self.fc(self.avgpool(x).flatten(1))


resnet18 = partial(ResNet, depth=18)
resnet34 = partial(ResNet, depth=34)
resnet50 = partial(ResNet, depth=50)
resnet101 = partial(ResNet, depth=101)
resnet152 = partial(ResNet, depth=152)
resnet50_v1 = partial(ResNet, depth=50, stride_in="1x1")
wide_resnet50_2 = partial(ResNet, depth=50, width_per_group=128)
wide_resnet101_2 = partial(ResNet, depth=101, width_per_group=128)
resnext50_32x4d = partial(ResNet, depth=50, groups=32, width_per_group=4)
resnext101_32x8d = partial(ResNet, depth=101, groups=32, width_per_group=8)
resnext101_64x4d = partial(ResNet, depth=101, groups=64, width_per_group=4)
