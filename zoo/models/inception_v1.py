"""GoogLeNet, the first Inception network: the paper's, and the one that torchvision has under its name.

C. Szegedy et al., "Going deeper with convolutions", CVPR 2015, 1409.4842, Table 1 and section 5.

`variant="paper"`: biases, local response normalisation, no batch normalisation, 5×5 kernels in the 5×5 branch, pooling
that rounds up: 6,998,552 parameters, 13,378,280 with both auxiliary heads. Its deliberate deviations:
- What the paper does not say is as in Caffe's replica (BVLC/caffe, models/bvlc_googlenet): the constants of LRN, biases
  of 0.2 (0 in the classifiers), weights from U(−√(3/fan_in), √(3/fan_in)), which Caffe calls xavier.
- Where the grid at the auxiliary heads is not 14 to 16 wide (images below 223 or above 270), their 5×5 pooling of
  stride 3 does not give the 4×4 that follows, and they pool adaptively to 4×4.

`variant="torchvision"`: batch normalisation (eps 0.001) in place of biases and LRN, **3×3 kernels in the 5×5 branch**,
a last pooling of 2×2, heads that pool adaptively; 6,624,904 and 13,004,888 parameters. Its deliberate deviation from
torchvision: initial weights are N(0, 0.01²) cut at ±2σ; torchvision passes ±2 as absolute bounds, which cut nothing.

`form="small"`: the first convolution is 3×3 without stride, and one pooling, not two, comes before 3a; blocks, later
poolings and heads are the same, and the heads pool adaptively. The paper variant then leaves LRN out, which at this
scale of activations changes them by less than 1 % and took a quarter of a training step, and starts from He's
N(0, 2/fan_in) with biases of 0, which keep the signal's variance where nothing normalises it.

Shapes: B batch, C channels, H W size, K classes; those in the comments are of 224×224 images and width 1.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

_SMALLEST = {"paper": 31, "torchvision": 15}  # the last pooling still finds an input


class ConvNormActivation(nn.Module):
    """A convolution that keeps the size (divided by `stride`), batch normalisation or a bias, ReLU."""

    def __init__(self, in_channels: int, channels: int, kernel: int, *, stride: int = 1, batch_norm: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, bias=not batch_norm)
        self.bn = nn.BatchNorm2d(channels, eps=0.001) if batch_norm else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, input: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(input)))


Convolution = Callable[..., ConvNormActivation]


class Inception(nn.Module):
    """Branches side by side (figure 2b): 1×1; 1×1, 3×3; 1×1, 5×5; pooling, 1×1. The widths are a row of Table 1."""

    def __init__(
        self, channels: int, one: int, reduce3: int, three: int, reduce5: int, five: int, pool: int, *,
        kernel5: int, conv: Convolution,
    ) -> None:  # fmt: skip
        super().__init__()
        self.out_channels = one + three + five + pool
        self.branch1 = conv(channels, one, 1)
        self.branch2 = nn.Sequential(conv(channels, reduce3, 1), conv(reduce3, three, 3))
        self.branch3 = nn.Sequential(conv(channels, reduce5, 1), conv(reduce5, five, kernel5))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), conv(channels, pool, 1))

    def forward(self, input: Tensor) -> Tensor:
        return torch.cat([self.branch1(input), self.branch2(input), self.branch3(input), self.branch4(input)], 1)


class AuxiliaryHead(nn.Module):
    """A classifier on a 4×4 grid in the middle of the network, which only training sees (section 5)."""

    def __init__(
        self, channels: int, num_classes: int, *, pool: nn.Module, conv: Convolution, widths: list[int], dropout: float
    ) -> None:
        super().__init__()
        self.pool = pool
        self.conv = conv(channels, widths[0], 1)
        self.fc1 = nn.Linear(widths[0] * 16, widths[1])
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(widths[1], num_classes)

    def forward(self, input: Tensor) -> Tensor:
        x = self.conv(self.pool(input)).flatten(1)  # (B, 2048)
        return self.fc2(self.dropout(self.relu(self.fc1(x))))


class InceptionV1(nn.Module):
    """GoogLeNet: images (B, C, H, W) to logits (B, K), in training with two auxiliary heads to a dict.

    The dict is {"logits": (B, K), "aux": [(B, K) after 4a, (B, K) after 4d]}; the paper adds 0.3 times their losses.
    `form` auto is paper above 64 pixels and small below. Raises ValueError for an image_size that the form does not
    take, paper: at least 31 (15 in torchvision's variant); small: 28 to 96.
    """

    def __init__(
        self,
        *,
        variant: Literal["paper", "torchvision"] = "paper",
        aux_heads: bool = True,
        dropout: float = 0.4,
        aux_dropout: float = 0.7,
        in_channels: int = 3,
        num_classes: int = 1000,
        image_size: int = 224,
        form: Literal["auto", "paper", "small"] = "auto",
        width: float = 1.0,
    ) -> None:
        super().__init__()
        if variant not in _SMALLEST:
            raise ValueError(f"variant={variant}: must be one of {', '.join(_SMALLEST)}")
        if form not in ("auto", "paper", "small"):
            raise ValueError(f"form={form}: must be one of auto, paper, small")
        form = ("paper" if image_size > 64 else "small") if form == "auto" else form
        if form == "paper" and image_size < _SMALLEST[variant]:
            raise ValueError(f"image_size={image_size}: must be at least {_SMALLEST[variant]} for form=paper")
        if form == "small" and not 28 <= image_size <= 96:
            raise ValueError(f"image_size={image_size}: must be 28 to 96 for form=small")
        if not width > 0:
            raise ValueError(f"width={width}: must be above 0")
        self.form: str = form if width == 1 else f"{form} ×{Fraction(width).limit_denominator(64)}"
        small, batch_norm = form == "small", variant == "torchvision"

        def scaled(*widths: int) -> list[int]:
            return [max(8, round(width * channels)) for channels in widths]

        first, reduced, channels = scaled(64, 64, 192)
        conv = partial(ConvNormActivation, batch_norm=batch_norm)
        halve = partial(nn.MaxPool2d, 3, stride=2, ceil_mode=True)

        def norm() -> nn.Module:
            return nn.Identity() if batch_norm or small else nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)

        def inception(*widths: int) -> Inception:
            nonlocal channels
            block = Inception(channels, *scaled(*widths), kernel5=3 if batch_norm else 5, conv=conv)
            channels = block.out_channels
            return block

        def head() -> AuxiliaryHead:
            grid = (image_size + 1) // 16  # of 4a to 4d in the paper form
            fits = variant == "paper" and form == "paper" and 14 <= grid <= 16
            pool = nn.AvgPool2d(5, stride=3) if fits else nn.AdaptiveAvgPool2d(4)
            widths = scaled(128, 1024)
            return AuxiliaryHead(channels, num_classes, pool=pool, conv=conv, widths=widths, dropout=aux_dropout)

        kernel, stride = (3, 1) if small else (7, 2)
        self.conv1 = conv(in_channels, first, kernel, stride=stride)  # (B, 64, 112, 112)
        self.maxpool1 = halve()  # (B, 64, 56, 56)
        self.norm1 = norm()
        self.conv2 = conv(first, reduced, 1)
        self.conv3 = conv(reduced, channels, 3)  # (B, 192, 56, 56)
        self.norm2 = norm()
        self.maxpool2 = nn.Identity() if small else halve()  # (B, 192, 28, 28)
        self.inception3a = inception(64, 96, 128, 16, 32, 32)  # (B, 256, 28, 28)
        self.inception3b = inception(128, 128, 192, 32, 96, 64)  # (B, 480, 28, 28)
        self.maxpool3 = halve()  # (B, 480, 14, 14)
        self.inception4a = inception(192, 96, 208, 16, 48, 64)  # (B, 512, 14, 14)
        self.aux1 = head() if aux_heads else None
        self.inception4b = inception(160, 112, 224, 24, 64, 64)  # (B, 512, 14, 14)
        self.inception4c = inception(128, 128, 256, 24, 64, 64)  # (B, 512, 14, 14)
        self.inception4d = inception(112, 144, 288, 32, 64, 64)  # (B, 528, 14, 14)
        self.aux2 = head() if aux_heads else None
        self.inception4e = inception(256, 160, 320, 32, 128, 128)  # (B, 832, 14, 14)
        self.maxpool4 = nn.MaxPool2d(2, stride=2, ceil_mode=True) if batch_norm else halve()  # (B, 832, 7, 7)
        self.inception5a = inception(256, 160, 320, 32, 128, 128)  # (B, 832, 7, 7)
        self.inception5b = inception(384, 192, 384, 48, 128, 128)  # (B, 1024, 7, 7)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)
        self._initialise(small=small, batch_norm=batch_norm)

    @torch.no_grad()
    def _initialise(self, *, small: bool, batch_norm: bool) -> None:
        classifiers = {self.fc, *(head.fc2 for head in (self.aux1, self.aux2) if head is not None)}
        for module in self.modules():
            if not isinstance(module, (nn.Conv2d, nn.Linear)):
                continue
            if batch_norm:
                # by the inverse distribution function, in place: nn.init.trunc_normal_ takes ten times as long
                inside = math.erf(2 / math.sqrt(2))  # P(|x| < 2σ)
                module.weight.uniform_(-inside, inside).erfinv_().mul_(0.01 * math.sqrt(2))
            elif small:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            else:
                nn.init.kaiming_uniform_(module.weight, nonlinearity="linear")  # gain 1: ±√(3/fan_in)
            if not batch_norm and module.bias is not None:
                module.bias.fill_(0.0 if small or module in classifiers else 0.2)

    def forward(self, input: Tensor) -> Tensor | dict[str, Tensor | list[Tensor]]:
        """Map images (B, C, H, W) to logits (B, K), or to the dict of the class docstring."""
        x = self.norm1(self.maxpool1(self.conv1(input)))
        x = self.maxpool2(self.norm2(self.conv3(self.conv2(x))))
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        after_4a = self.inception4a(x)
        after_4d = self.inception4d(self.inception4c(self.inception4b(after_4a)))
        x = self.maxpool4(self.inception4e(after_4d))
        x = self.inception5b(self.inception5a(x))
        logits = self.fc(self.dropout(self.avgpool(x).flatten(1)))
        if self.aux1 is None or self.aux2 is None or not self.training:
            return logits
        return {"logits": logits, "aux": [self.aux1(after_4a), self.aux2(after_4d)]}


inception_v1 = InceptionV1
googlenet = partial(InceptionV1, variant="torchvision", dropout=0.2)
