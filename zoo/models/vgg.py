"""VGG: 3×3 convolutions all the way, with 11, 13, 16 or 19 layers that have weights.

K. Simonyan, A. Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015, 1409.1556.

Deliberate deviations of the paper form, which is torchvision's:
- Initial weights are He's (1502.01852, fan out) in the convolutions and normal with standard deviation 0.01 in the
  linear layers; biases are 0. The paper states a normal distribution of variance 0.01, from which the 11-layer
  network trains; the deeper ones start from its first four convolutions and its linear layers, or, as the authors
  found later, from Glorot's weights.
- An adaptive pool to 7×7 before the linear layers, nothing at 224 pixels, lets other sizes in.
- `batch_norm=True` puts batch normalisation (1502.03167) between each convolution, which keeps its bias, and its ReLU.

The small form has the same convolutions and five pools, which round up so that 28 pixels last, then averages over what
is left (1×1 from 32 pixels) and has a single linear layer: 14,728,266 parameters for 16 layers with batch
normalisation and ten classes. The convolutions' weights are He's over fan in, not out, so that the signal keeps its
size where the maps double, and the plain networks learn from the first epoch; the linear layer keeps PyTorch's; biases
are 0.

Shapes: B batch, C channels, S image size, K classes.
"""

from fractions import Fraction
from functools import partial
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

# Table 1 of the paper: convolutions of each of the five blocks, columns A, B, D and E.
_CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_WIDTHS = (64, 128, 256, 512, 512)


class VGG(nn.Module):
    """Five blocks of convolutions, each ended by a 2×2 max pool, then 4096-4096-K (paper) or K (small).

    `pointwise` makes the third convolution of a block 1×1: column C of the paper, 16 layers only. `width` multiplies
    every width. `dropout` acts on what goes into the linear layers, except the first of the paper form; unless given it
    is 0.5 in the paper form and 0 in the small one. `image_size` chooses and checks the form; any size that the form
    takes can then be put in.

    Raises ValueError for an image size below 32 in the paper form, outside 28 to 96 in the small one, and for any other
    argument out of range.
    """

    def __init__(
        self,
        *,
        depth: Literal[11, 13, 16, 19] = 16,
        batch_norm: bool = False,
        pointwise: bool = False,
        in_channels: int = 3,
        num_classes: int = 1000,
        image_size: int = 224,
        form: Literal["auto", "paper", "small"] = "auto",
        width: float = 1.0,
        dropout: float | None = None,
    ) -> None:
        super().__init__()
        if depth not in _CONVOLUTIONS:
            raise ValueError(f"depth={depth}: must be one of {', '.join(map(str, _CONVOLUTIONS))}")
        if pointwise and depth != 16:
            raise ValueError(f"pointwise={pointwise}: must be False with depth={depth}, or depth 16")
        if form not in ("auto", "paper", "small"):
            raise ValueError(f"form={form}: must be one of auto, paper, small")
        if not width > 0:
            raise ValueError(f"width={width}: must be more than 0")
        if dropout is not None and not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}: must be at least 0 and below 1")
        small = form == "small" or (form == "auto" and image_size <= 64)
        if small and not 28 <= image_size <= 96:
            raise ValueError(f"image_size={image_size}: must be 28 to 96 for form=small")
        if not small and image_size < 32:
            raise ValueError(f"image_size={image_size}: must be at least 32 for form=paper")
        if dropout is None:
            dropout = 0.0 if small else 0.5
        self.form = ("small" if small else "paper") + ("" if width == 1 else f" ×{Fraction(str(width))}")

        *widths, hidden = (max(8, round(channels * width)) for channels in (*_WIDTHS, 4096))
        layers: list[nn.Module] = []
        for (before, after), convolutions in zip(pairwise([in_channels, *widths]), _CONVOLUTIONS[depth], strict=True):
            for place in range(convolutions):
                size = 1 if pointwise and place == 2 else 3
                layers.append(nn.Conv2d(after if place else before, after, size, padding=size // 2))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(after))
                layers.append(nn.ReLU(inplace=True))
            layers.append(nn.MaxPool2d(2, ceil_mode=small))
        self.features = nn.Sequential(*layers)  # (B, 512, S/32, S/32)
        self.avgpool = nn.AdaptiveAvgPool2d(1 if small else 7)
        if small:
            self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(widths[-1], num_classes))
        else:
            self.classifier = nn.Sequential(
                nn.Linear(widths[-1] * 7 * 7, hidden),
                nn.ReLU(inplace=True),
                nn.Dropout(dropout),
                nn.Linear(hidden, hidden),
                nn.ReLU(inplace=True),
                nn.Dropout(dropout),
                nn.Linear(hidden, num_classes),
            )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_in" if small else "fan_out", nonlinearity="relu")
            elif isinstance(layer, nn.Linear) and not small:
                nn.init.normal_(layer.weight, 0, 0.01)
            if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Map images (B, C, S, S) to logits (B, K)."""
        return self.classifier(self.avgpool(self.features(input)).flatten(1))


vgg11 = partial(VGG, depth=11)
vgg13 = partial(VGG, depth=13)
vgg16 = partial(VGG, depth=16)
vgg19 = partial(VGG, depth=19)
vgg11_bn = partial(VGG, depth=11, batch_norm=True)
vgg13_bn = partial(VGG, depth=13, batch_norm=True)
vgg16_bn = partial(VGG, depth=16, batch_norm=True)
vgg19_bn = partial(VGG, depth=19, batch_norm=True)
vgg16_c = partial(VGG, depth=16, pointwise=True)
