"""Inception v3: convolutions factorised into small and one-sided ones, reduced grids, an auxiliary head.

C. Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016, 1512.00567.
Layers and names are torchvision's: 23,834,568 parameters, 27,161,264 with the auxiliary head. Deliberate deviations:
- From the paper, as torchvision: from 73×73×64 to 35×35 there are a 1×1, a 3×3 and a pooling in place of three 3×3
  (Table 1), and the first three blocks keep one 5×5 where figure 5 has two of 3×3.
- From torchvision: initial weights are normal and cut at ±2σ; torchvision passes ±2 as absolute bounds, which cut none.
- On images below 299 the head's 5×5 pooling of stride 3 leaves less than the 5×5 that follows needs: it then pools
  adaptively to 5×5.

`form="small"`: all layers are padded and the stem's second pooling is left out: 32×32 pixels become grids of 8×8, 4×4
and 2×2 where 299×299 become 35×35, 17×17 and 8×8. The head pools adaptively.

Shapes: B batch, C channels, H W size, K classes; those in the comments are of 299×299 images and width 1.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Scale = Callable[..., list[int]]  # the widths of the paper to those that are built


class Conv(nn.Module):
    """Convolution without bias, batch normalisation, ReLU. It keeps the size unless `valid`, which does not pad."""

    def __init__(self, in_channels: int, channels: int, *kernel: int, stride: int = 1, valid: bool = False) -> None:
        super().__init__()
        high, wide = kernel[0], kernel[-1]  # one number: square
        padding = (0, 0) if valid else (high // 2, wide // 2)
        self.conv = nn.Conv2d(in_channels, channels, (high, wide), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(channels, eps=0.001)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, input: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(input)))


average = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1)  # of the blocks that keep the grid


class InceptionA(nn.Module):
    """1×1; 1×1, 5×5; 1×1, two of 3×3; pooling, 1×1."""

    def __init__(self, channels: int, pool_features: int, scale: Scale) -> None:
        super().__init__()
        c48, c64, c96, last = scale(48, 64, 96, pool_features)
        self.out_channels = c64 + c64 + c96 + last
        self.branch1x1 = Conv(channels, c64, 1)
        self.branch5x5_1 = Conv(channels, c48, 1)
        self.branch5x5_2 = Conv(c48, c64, 5)
        self.branch3x3dbl_1 = Conv(channels, c64, 1)
        self.branch3x3dbl_2 = Conv(c64, c96, 3)
        self.branch3x3dbl_3 = Conv(c96, c96, 3)
        self.branch_pool = Conv(channels, last, 1)

    def forward(self, input: Tensor) -> Tensor:
        five = self.branch5x5_2(self.branch5x5_1(input))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(input)))
        return torch.cat([self.branch1x1(input), five, double, self.branch_pool(average(input))], 1)


class InceptionB(nn.Module):
    """Halves the grid (figure 10): 3×3 of stride 2; 1×1, 3×3, 3×3 of stride 2; pooling."""

    def __init__(self, channels: int, scale: Scale, *, valid: bool) -> None:
        super().__init__()
        c64, c96, c384 = scale(64, 96, 384)
        self.out_channels = c384 + c96 + channels
        self.branch3x3 = Conv(channels, c384, 3, stride=2, valid=valid)
        self.branch3x3dbl_1 = Conv(channels, c64, 1)
        self.branch3x3dbl_2 = Conv(c64, c96, 3)
        self.branch3x3dbl_3 = Conv(c96, c96, 3, stride=2, valid=valid)
        self.pool = nn.MaxPool2d(3, stride=2, padding=0 if valid else 1)

    def forward(self, input: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(input)))
        return torch.cat([self.branch3x3(input), double, self.pool(input)], 1)


class InceptionC(nn.Module):
    """Figure 6 with n = 7: 1×1; 1×1, 1×7, 7×1; 1×1, then 7×1 and 1×7 twice; pooling, 1×1."""

    def __init__(self, channels: int, channels_7x7: int, scale: Scale) -> None:
        super().__init__()
        c7, c192 = scale(channels_7x7, 192)
        self.out_channels = 4 * c192
        self.branch1x1 = Conv(channels, c192, 1)
        self.branch7x7_1 = Conv(channels, c7, 1)
        self.branch7x7_2 = Conv(c7, c7, 1, 7)
        self.branch7x7_3 = Conv(c7, c192, 7, 1)
        self.branch7x7dbl_1 = Conv(channels, c7, 1)
        self.branch7x7dbl_2 = Conv(c7, c7, 7, 1)
        self.branch7x7dbl_3 = Conv(c7, c7, 1, 7)
        self.branch7x7dbl_4 = Conv(c7, c7, 7, 1)
        self.branch7x7dbl_5 = Conv(c7, c192, 1, 7)
        self.branch_pool = Conv(channels, c192, 1)

    def forward(self, input: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(input)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(input)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(input), seven, double, self.branch_pool(average(input))], 1)


class InceptionD(nn.Module):
    """Halves the grid: 1×1, 3×3 of stride 2; 1×1, 1×7, 7×1, 3×3 of stride 2; pooling."""

    def __init__(self, channels: int, scale: Scale, *, valid: bool) -> None:
        super().__init__()
        c192, c320 = scale(192, 320)
        self.out_channels = c320 + c192 + channels
        self.branch3x3_1 = Conv(channels, c192, 1)
        self.branch3x3_2 = Conv(c192, c320, 3, stride=2, valid=valid)
        self.branch7x7x3_1 = Conv(channels, c192, 1)
        self.branch7x7x3_2 = Conv(c192, c192, 1, 7)
        self.branch7x7x3_3 = Conv(c192, c192, 7, 1)
        self.branch7x7x3_4 = Conv(c192, c192, 3, stride=2, valid=valid)
        self.pool = nn.MaxPool2d(3, stride=2, padding=0 if valid else 1)

    def forward(self, input: Tensor) -> Tensor:
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(input))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(input)), seven, self.pool(input)], 1)


class InceptionE(nn.Module):
    """Figure 7, where the 3×3 are a 1×3 beside a 3×1: 1×1; 1×1, both; 1×1, 3×3, both; pooling, 1×1."""

    def __init__(self, channels: int, scale: Scale) -> None:
        super().__init__()
        c192, c320, c384, c448 = scale(192, 320, 384, 448)
        self.out_channels = c320 + 4 * c384 + c192
        self.branch1x1 = Conv(channels, c320, 1)
        self.branch3x3_1 = Conv(channels, c384, 1)
        self.branch3x3_2a = Conv(c384, c384, 1, 3)
        self.branch3x3_2b = Conv(c384, c384, 3, 1)
        self.branch3x3dbl_1 = Conv(channels, c448, 1)
        self.branch3x3dbl_2 = Conv(c448, c384, 3)
        self.branch3x3dbl_3a = Conv(c384, c384, 1, 3)
        self.branch3x3dbl_3b = Conv(c384, c384, 3, 1)
        self.branch_pool = Conv(channels, c192, 1)

    def forward(self, input: Tensor) -> Tensor:
        three = self.branch3x3_1(input)
        threes = [self.branch3x3_2a(three), self.branch3x3_2b(three)]
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(input))
        doubles = [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        return torch.cat([self.branch1x1(input), *threes, *doubles, self.branch_pool(average(input))], 1)


class AuxiliaryHead(nn.Module):
    """A classifier on the 17×17 grid, with batch normalisation (section 4), which only training sees."""

    def __init__(self, channels: int, num_classes: int, pool: nn.Module, scale: Scale) -> None:
        super().__init__()
        c128, c768 = scale(128, 768)
        self.pool = pool
        self.conv0 = Conv(channels, c128, 1)
        self.conv1 = Conv(c128, c768, 5, valid=True)
        self.fc = nn.Linear(c768, num_classes)

    def forward(self, input: Tensor) -> Tensor:
        x = self.conv1(self.conv0(self.pool(input)))  # (B, 768, 1, 1)
        return self.fc(x.mean((2, 3)))


class InceptionV3(nn.Module):
    """Inception v3: images (B, C, H, W) to logits (B, K), in training with the auxiliary head to a dict.

    The dict is {"logits": (B, K), "aux": [(B, K)]}. `form` auto is paper above 64 pixels and small below. Raises
    ValueError for an image_size that the form does not take, paper: at least 75; small: 28 to 96.
    """

    def __init__(
        self,
        *,
        aux_heads: bool = True,
        dropout: float = 0.5,
        in_channels: int = 3,
        num_classes: int = 1000,
        image_size: int = 299,
        form: Literal["auto", "paper", "small"] = "auto",
        width: float = 1.0,
    ) -> None:
        super().__init__()
        if form not in ("auto", "paper", "small"):
            raise ValueError(f"form={form}: must be one of auto, paper, small")
        form = ("paper" if image_size > 64 else "small") if form == "auto" else form
        if form == "paper" and image_size < 75:
            raise ValueError(f"image_size={image_size}: must be at least 75 for form=paper (up to 96 form=small fits)")
        if form == "small" and not 28 <= image_size <= 96:
            raise ValueError(f"image_size={image_size}: must be 28 to 96 for form=small")
        if not width > 0:
            raise ValueError(f"width={width}: must be above 0")
        self.form: str = form if width == 1 else f"{form} ×{Fraction(width).limit_denominator(64)}"
        paper = form == "paper"

        def scale(*widths: int) -> list[int]:
            return [max(8, round(width * channels)) for channels in widths]

        c32, c64, c80, c192 = scale(32, 64, 80, 192)
        self.Conv2d_1a_3x3 = Conv(in_channels, c32, 3, stride=2, valid=paper)  # (B, 32, 149, 149)
        self.Conv2d_2a_3x3 = Conv(c32, c32, 3, valid=paper)  # (B, 32, 147, 147)
        self.Conv2d_2b_3x3 = Conv(c32, c64, 3)  # (B, 64, 147, 147)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, padding=0 if paper else 1)  # (B, 64, 73, 73)
        self.Conv2d_3b_1x1 = Conv(c64, c80, 1)  # (B, 80, 73, 73)
        self.Conv2d_4a_3x3 = Conv(c80, c192, 3, valid=paper)  # (B, 192, 71, 71)
        self.maxpool2 = nn.MaxPool2d(3, stride=2) if paper else nn.Identity()  # (B, 192, 35, 35)
        self.Mixed_5b = InceptionA(c192, 32, scale)  # (B, 256, 35, 35)
        self.Mixed_5c = InceptionA(self.Mixed_5b.out_channels, 64, scale)  # (B, 288, 35, 35)
        self.Mixed_5d = InceptionA(self.Mixed_5c.out_channels, 64, scale)  # (B, 288, 35, 35)
        self.Mixed_6a = InceptionB(self.Mixed_5d.out_channels, scale, valid=paper)  # (B, 768, 17, 17)
        self.Mixed_6b = InceptionC(self.Mixed_6a.out_channels, 128, scale)  # (B, 768, 17, 17), as far as 6e
        self.Mixed_6c = InceptionC(self.Mixed_6b.out_channels, 160, scale)
        self.Mixed_6d = InceptionC(self.Mixed_6c.out_channels, 160, scale)
        self.Mixed_6e = InceptionC(self.Mixed_6d.out_channels, 192, scale)
        self.AuxLogits: AuxiliaryHead | None = None
        if aux_heads:
            pool = nn.AvgPool2d(5, stride=3) if paper and image_size >= 299 else nn.AdaptiveAvgPool2d(5)
            self.AuxLogits = AuxiliaryHead(self.Mixed_6e.out_channels, num_classes, pool, scale)
        self.Mixed_7a = InceptionD(self.Mixed_6e.out_channels, scale, valid=paper)  # (B, 1280, 8, 8)
        self.Mixed_7b = InceptionE(self.Mixed_7a.out_channels, scale)  # (B, 2048, 8, 8)
        self.Mixed_7c = InceptionE(self.Mixed_7b.out_channels, scale)  # (B, 2048, 8, 8)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(self.Mixed_7c.out_channels, num_classes)
        # N(0, σ²) cut at ±2σ, by the inverse of its distribution function: nn.init.trunc_normal_ takes far longer
        special = {} if self.AuxLogits is None else {self.AuxLogits.conv1.conv: 0.01, self.AuxLogits.fc: 0.001}
        inside = math.erf(2 / math.sqrt(2))  # P(|x| < 2σ)
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, (nn.Conv2d, nn.Linear)):
                    sigma = special.get(module, 0.1)
                    module.weight.uniform_(-inside, inside).erfinv_().mul_(sigma * math.sqrt(2))

    def forward(self, input: Tensor) -> Tensor | dict[str, Tensor | list[Tensor]]:
        """Map images (B, C, H, W) to logits (B, K), or to the dict of the class docstring."""
        x = self.maxpool1(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(input))))
        x = self.maxpool2(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        middle = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(middle)))
        logits = self.fc(self.dropout(self.avgpool(x).flatten(1)))
        if self.AuxLogits is None or not self.training:
            return logits
        return {"logits": logits, "aux": [self.AuxLogits(middle)]}


inception_v3 = InceptionV3
