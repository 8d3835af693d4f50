"""DenseNet: each layer sees the maps of all layers before it in its block.

G. Huang, Z. Liu, L. van der Maaten, K. Weinberger, "Densely connected convolutional networks", 2016, arXiv 1608.06993.

`DenseNet` is the network for ImageNet (table 1), `DenseNetCIFAR` the one for small pictures (table 2). A layer adds k
maps, its growth rate, behind those that it was given: L layers cost few parameters each, and their inputs grow.

Deliberate deviations from the paper:
- Weights start as torchvision's: He normal over fan_in, norms at 1 and 0, no bias in the last layer.
- 161, with k = 48, is the authors' wide network, as in torchvision. Their 264 is not here.
- Nothing is computed a second time to save memory: batch statistics would then be counted twice.

The `small` form of `DenseNet`, for 28 to 96 pixels, has a 3×3 stem without stride and no max pooling, so that the four
blocks see 32×32, 16×16, 8×8 and 4×4 of a 32×32 picture. It is not the paper's network for small pictures.

Shapes: B batch, C channels, H W size, K classes, k growth rate.
"""

import math
from fractions import Fraction
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

# growth rate, layers in each of the four blocks (table 1)
DEPTHS = {
    121: (32, (6, 12, 24, 16)),
    161: (48, (6, 12, 36, 24)),
    169: (32, (6, 12, 32, 32)),
    201: (32, (6, 12, 48, 32)),
}


class DenseLayer(nn.Module):
    """Norm, ReLU, 3×3 to k maps, which are put behind the input: (B, C, H, W) → (B, C + k, H, W)."""

    def __init__(self, in_channels: int, growth_rate: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()  # not in place: if the norm before it is taken out, its input is everyone's
        self.conv1 = nn.Conv2d(in_channels, growth_rate, 3, padding=1, bias=False)
        self.dropout1 = nn.Dropout(dropout)

    def forward(self, input: Tensor) -> Tensor:
        return torch.cat([input, self.dropout1(self.conv1(self.relu1(self.norm1(input))))], 1)


class Bottleneck(nn.Module):
    """The same with a 1×1 to 4k maps before the 3×3 (DenseNet-B)."""

    def __init__(self, in_channels: int, growth_rate: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()  # not in place, as above
        self.conv1 = nn.Conv2d(in_channels, 4 * growth_rate, 1, bias=False)
        self.dropout1 = nn.Dropout(dropout)
        self.norm2 = nn.BatchNorm2d(4 * growth_rate)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4 * growth_rate, growth_rate, 3, padding=1, bias=False)
        self.dropout2 = nn.Dropout(dropout)

    def forward(self, input: Tensor) -> Tensor:
        new = self.dropout1(self.conv1(self.relu1(self.norm1(input))))
        new = self.dropout2(self.conv2(self.relu2(self.norm2(new))))
        return torch.cat([input, new], 1)


class Transition(nn.Sequential):
    """Norm, ReLU, 1×1, and the mean of each 2×2: (B, in_channels, H, W) → (B, out_channels, H/2, W/2)."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.pool = nn.AvgPool2d(2)


def _add_blocks(
    features: nn.Sequential,
    layer: type[DenseLayer] | type[Bottleneck],
    channels: int,
    growth_rate: int,
    counts: tuple[int, ...],
    compression: float,
    dropout: float,
) -> int:
    """Put dense blocks with transitions between them behind `features`; the channels of what leaves the last."""
    for number, count in enumerate(counts, 1):
        block = nn.Sequential()
        for place in range(1, count + 1):
            block.add_module(f"denselayer{place}", layer(channels, growth_rate, dropout))
            channels += growth_rate
        features.add_module(f"denseblock{number}", block)
        if number < len(counts):
            kept = max(1, math.floor(compression * channels))
            features.add_module(f"transition{number}", Transition(channels, kept, dropout))
            channels = kept
    return channels


def _check(width: float, dropout: float, in_channels: int, num_classes: int) -> None:
    if not 0 < width < math.inf:
        raise ValueError(f"width={width}: must be more than 0")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout}: must be at least 0 and below 1")
    for name, value in {"in_channels": in_channels, "num_classes": num_classes}.items():
        if value < 1:
            raise ValueError(f"{name}={value}: must be 1 or more")


def _initialise(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


class DenseNet(nn.Module):
    """Four dense blocks of bottlenecks, halved in channels and sides between them (DenseNet-BC), for ImageNet.

    `dropout` follows each convolution but the first. `width` is a factor on the growth rate, of which at least 8
    remains, and so on every number of channels. State-dict keys are torchvision's.

    Raises ValueError for an unknown `depth` or `form`, an `image_size` below 29 (paper) or outside 28 to 96 (small),
    and numbers out of range.
    """

    def __init__(
        self,
        *,
        depth: Literal[121, 161, 169, 201] = 121,
        in_channels: int = 3,
        num_classes: int = 1000,
        image_size: int = 224,
        form: Literal["auto", "paper", "small"] = "auto",
        width: float = 1.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise ValueError(f"depth={depth}: must be one of {', '.join(map(str, DEPTHS))}")
        if form not in ("auto", "paper", "small"):
            raise ValueError(f"form={form}: must be one of auto, paper, small")
        if form == "auto":
            form = "paper" if image_size > 64 else "small"
        if form == "paper" and image_size < 29:  # the last transition would have nothing to take the mean of
            raise ValueError(f"image_size={image_size}: must be at least 29 for form=paper")
        if form == "small" and not 28 <= image_size <= 96:
            raise ValueError(f"image_size={image_size}: must be from 28 to 96 for form=small")
        _check(width, dropout, in_channels, num_classes)
        self.form = form if width == 1 else f"{form} ×{Fraction(str(width))}"
        growth_rate, counts = DEPTHS[depth]
        growth_rate = max(8, round(growth_rate * width))
        channels = 2 * growth_rate
        # (B, C, H, W) → (B, 2k, H/4, W/4), or (B, 2k, H, W) in the small form
        self.features = nn.Sequential()
        stem = (7, 2, 3) if form == "paper" else (3, 1, 1)  # side, stride, padding
        self.features.add_module("conv0", nn.Conv2d(in_channels, channels, *stem, bias=False))
        self.features.add_module("norm0", nn.BatchNorm2d(channels))
        self.features.add_module("relu0", nn.ReLU(inplace=True))
        self.features.add_module("pool0", nn.MaxPool2d(3, 2, 1) if form == "paper" else nn.Identity())
        channels = _add_blocks(self.features, Bottleneck, channels, growth_rate, counts, 0.5, dropout)
        self.features.add_module("norm5", nn.BatchNorm2d(channels))
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        _initialise(self)

    def forward(self, input: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, K)."""
        x = self.relu(self.features(input))  # (B, 1024 at 121, H/32, W/32), small: H/8, W/8
        return self.classifier(self.avgpool(x).flatten(1))


class DenseNetCIFAR(nn.Module):
    """The paper's network for CIFAR: three dense blocks of equally many layers, for 32 pixels, so in one form only.

    `bottleneck` is the B of DenseNet-BC, `compression` (the paper's θ) what a transition keeps of the channels: 0.5 is
    its C. `depth` is 3n+4, with bottlenecks 6n+4. `dropout` follows each convolution but the first; the paper has 0.2
    where pictures are not augmented. `width` is a factor on the growth rate, of which at least 8 remains, and on the
    first layer. Raises ValueError for another `depth`, another `form` than auto and paper, an `image_size` below 4, and
    numbers out of range.
    """

    def __init__(
        self,
        *,
        depth: int = 40,
        growth_rate: int = 12,
        bottleneck: bool = False,
        compression: float = 1.0,
        dropout: float = 0.0,
        in_channels: int = 3,
        num_classes: int = 10,
        image_size: int = 32,
        form: Literal["auto", "paper"] = "auto",
        width: float = 1.0,
    ) -> None:
        super().__init__()
        step = 6 if bottleneck else 3  # a bottleneck is two layers deep
        if depth < step + 4 or depth % step != 4 % step:
            raise ValueError(f"depth={depth}: must be {step}n+4, such as 40 and 100")
        if growth_rate < 1:
            raise ValueError(f"growth_rate={growth_rate}: must be 1 or more")
        if not 0 < compression <= 1:
            raise ValueError(f"compression={compression}: must be more than 0 and at most 1")
        if form not in ("auto", "paper"):
            raise ValueError(f"form={form}: must be auto or paper, as the paper's network is made for 32 pixels")
        if image_size < 4:
            raise ValueError(f"image_size={image_size}: must be at least 4")
        _check(width, dropout, in_channels, num_classes)
        self.form = "paper" if width == 1 else f"paper ×{Fraction(str(width))}"
        growth_rate = growth_rate if width == 1 else max(8, round(growth_rate * width))
        # section 4.2: 16 channels, for DenseNet-BC 2k
        is_bc = bottleneck and compression < 1
        channels = 2 * growth_rate if is_bc else max(8, round(16 * width))
        self.features = nn.Sequential()
        self.features.add_module("conv0", nn.Conv2d(in_channels, channels, 3, padding=1, bias=False))  # (B, 16, H, W)
        layer, counts = Bottleneck if bottleneck else DenseLayer, ((depth - 4) // step,) * 3
        channels = _add_blocks(self.features, layer, channels, growth_rate, counts, compression, dropout)
        self.features.add_module("norm5", nn.BatchNorm2d(channels))
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        _initialise(self)

    def forward(self, input: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, K)."""
        x = self.relu(self.features(input))  # (B, 448 at depth 40, H/4, W/4)
        return self.classifier(self.avgpool(x).flatten(1))


densenet121 = partial(DenseNet, depth=121)
densenet161 = partial(DenseNet, depth=161)
densenet169 = partial(DenseNet, depth=169)
densenet201 = partial(DenseNet, depth=201)
densenet40 = partial(DenseNetCIFAR, depth=40)
densenet100 = partial(DenseNetCIFAR, depth=100)
densenet_bc100 = partial(DenseNetCIFAR, depth=100, bottleneck=True, compression=0.5)
