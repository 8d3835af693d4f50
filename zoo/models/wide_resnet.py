"""Wide ResNet: few pre-activated residual units, each of many channels.

S. Zagoruyko, N. Komodakis, "Wide residual networks", 2016, arXiv:1605.07146. WRN-d-k has d = 6n+4 layers and k times
the channels of the thin network; its unit is B(3,3). (The wide ResNet-50-2 for ImageNet is a ResNet v1.5.)

No deliberate deviations.

Shapes: B batch, C channels, H W size, K classes.
"""

import math
from fractions import Fraction
from functools import partial
from typing import Literal

from torch import Tensor, nn


class WideUnit(nn.Module):
    """Norm, ReLU, 3×3 with `stride`, norm, ReLU, dropout, 3×3; the shortcut is 1×1 where the shape changes."""

    def __init__(self, in_channels: int, channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()  # not in place: if the norm before it is taken out, its input is the shortcut's
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.drop_path = nn.Identity()
        same = stride == 1 and in_channels == channels
        self.downsample = None if same else nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        active = self.relu1(self.bn1(input))
        shortcut = input if self.downsample is None else self.downsample(active)
        out = self.conv1(active)
        out = self.conv2(self.dropout(self.relu2(self.bn2(out))))
        return shortcut + self.drop_path(out)


class WideResNet(nn.Module):
    """WRN-`depth`-`widen_factor`, for CIFAR.

    The published network is made for 32 pixels, so there is no other form; `width` is a factor on every layer, the
    first one too, which `widen_factor` leaves at 16; at least 8 channels remain. Raises ValueError for another `depth`
    than 6n+4, a `dropout` outside [0, 1), another `form` than auto and paper, an `image_size` below 4, and numbers that
    are not positive.
    """

    def __init__(
        self,
        *,
        depth: int = 28,
        widen_factor: int = 10,
        dropout: float = 0.0,
        in_channels: int = 3,
        num_classes: int = 10,
        image_size: int = 32,
        form: Literal["auto", "paper"] = "auto",
        width: float = 1.0,
    ) -> None:
        super().__init__()
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"depth={depth}: must be 6n+4, such as 16, 28 and 40")
        numbers = {"widen_factor": widen_factor, "in_channels": in_channels, "num_classes": num_classes}
        for name, value in numbers.items():
            if value < 1:
                raise ValueError(f"{name}={value}: must be 1 or more")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}: must be at least 0 and below 1")
        if form not in ("auto", "paper"):
            raise ValueError(f"form={form}: must be auto or paper, as the paper's network is made for 32 pixels")
        if image_size < 4:
            raise ValueError(f"image_size={image_size}: must be at least 4")
        if not 0 < width < math.inf:
            raise ValueError(f"width={width}: must be more than 0")
        self.form = "paper" if width == 1 else f"paper ×{Fraction(str(width))}"
        k, count = widen_factor, depth // 6
        first, *widths = (max(8, round(width * channels)) for channels in (16, 16 * k, 32 * k, 64 * k))

        def stage(in_channels: int, channels: int, stride: int) -> nn.Sequential:
            rest = [WideUnit(channels, channels, 1, dropout) for _ in range(count - 1)]
            return nn.Sequential(WideUnit(in_channels, channels, stride, dropout), *rest)

        self.conv1 = nn.Conv2d(in_channels, first, 3, 1, 1, bias=False)
        self.layer1 = stage(first, widths[0], stride=1)  # (B, 16k, H, W)
        self.layer2 = stage(widths[0], widths[1], stride=2)  # (B, 32k, H/2, W/2)
        self.layer3 = stage(widths[1], widths[2], stride=2)  # (B, 64k, H/4, W/4)
        self.bn = nn.BatchNorm2d(widths[2])
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[2], num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As the authors' code: He normal by fan-out, no bias; the linear weights keep PyTorch's draw."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, K)."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(input))))
        x = self.relu(self.bn(x))
        return self.fc(self.avgpool(x).flatten(1))


wide_resnet16_4 = partial(WideResNet, depth=16, widen_factor=4)
wide_resnet40_4 = partial(WideResNet, depth=40, widen_factor=4)
wide_resnet28_10 = partial(WideResNet, depth=28, widen_factor=10)
