"""AlexNet, twice: the network of 2012 in two towers, and the one-tower form that became common.

A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet classification with deep convolutional neural networks", NIPS 2012.
A. Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014, 1404.5997.

`AlexNetOriginal` is the network of 2012, 60,965,224 parameters. The two GPUs are two groups of convolutions 2, 4 and 5;
convolution 3 and the linear layers see both. Its deliberate deviations and readings:
- The paper's 224 pixels do not give its 55×55 maps; 227 do. From 227 up the first convolution has no padding; below,
  it has 2, which makes 55×55 of 224, too. The first linear layer has as many inputs as the image leaves: 6×6 maps at
  224 and 227.
- The response normalisation runs over all maps of a layer, as the paper's formula does, so across the towers' border.
- Weights start normal with standard deviation 0.01, and the biases of convolutions 2, 4 and 5 and of the hidden linear
  layers at `tower_bias`, the others at 0, as in the paper, whose `tower_bias` is 1. BVLC's reproduction in Caffe
  found the loss flat with 1, and took 0.1.

`AlexNet` is torchvision's form of the one-tower network, 61,100,840 parameters. Its deliberate deviations from the
paper of 2014: the fourth convolution has 256 maps, not 384; the output is a softmax over the classes, not 1000 logistic
units; PyTorch's initial weights; an adaptive pool to 6×6, nothing at 224 pixels, lets other sizes in.

The small forms have a first convolution of 5×5 with stride 1, average over the maps that the third pool leaves (3×3 at
32 pixels), and have hidden linear layers of 1024. Their weights are He's (1502.01852, fan in), so that the signal keeps
its size through the layers, and their biases 0. Dropout, which the paper has for 4096 units, is 0 unless given.

Shapes: B batch, C channels, S image size, K classes.
"""

from fractions import Fraction
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn


def _resolve(form: str, image_size: int, width: float, dropout: float | None) -> tuple[str, bool, float]:
    """Check what both networks take; the form's name, whether it is the small one, and the dropout."""
    if form not in ("auto", "paper", "small"):
        raise ValueError(f"form={form}: must be one of auto, paper, small")
    if not width > 0:
        raise ValueError(f"width={width}: must be more than 0")
    if dropout is not None and not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout}: must be at least 0 and below 1")
    small = form == "small" or (form == "auto" and image_size <= 64)
    if small and not 28 <= image_size <= 96:
        raise ValueError(f"image_size={image_size}: must be 28 to 96 for form=small")
    if not small and image_size < 63:
        raise ValueError(f"image_size={image_size}: must be at least 63 for form=paper")
    name = ("small" if small else "paper") + ("" if width == 1 else f" ×{Fraction(str(width))}")
    return name, small, (0.0 if small else 0.5) if dropout is None else dropout


def _scale(widths: tuple[int, ...], width: float) -> list[int]:
    return [max(8, round(channels * width)) for channels in widths]


def _response_norm() -> nn.LocalResponseNorm:
    """a / (2 + 1e-4 Σa²)^.75 over five neighbouring maps; torch divides its alpha by their number."""
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)


def _weights_and_biases(network: nn.Module) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Of each of the eight layers, in order: no other layer has parameters."""
    parameters = list(network.parameters())
    return list(zip(parameters[::2], parameters[1::2], strict=True))


class AlexNetOriginal(nn.Module):
    """Two towers of five convolutions, 96-256-384-384-256 together, then 4096-4096-K (paper) or 1024-1024-K (small).

    `width` multiplies every width. `dropout` is 0.5 and `tower_bias` 1 in the paper form, and both are 0 in the small
    one, unless given. Raises ValueError for an image size below 63 in the paper form, outside 28 to 96 in the small
    one, for any other argument out of range, and for an input of another shape than (B, C, S, S).
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        image_size: int = 227,
        form: Literal["auto", "paper", "small"] = "auto",
        width: float = 1.0,
        dropout: float | None = None,
        tower_bias: float | None = None,
    ) -> None:
        super().__init__()
        self.form, small, dropout = _resolve(form, image_size, width, dropout)
        self.in_channels, self.image_size = in_channels, image_size
        widths = _scale((96, 256, 384, 384, 256), width)
        if any(channels % 2 for channels in widths):
            raise ValueError(f"width={width}: must give even widths, which two towers share, not {widths}")
        size, stride = (5, 1) if small else (11, 4)
        padding = 0 if image_size >= 227 else 2
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], size, stride=stride, padding=padding),
            nn.ReLU(inplace=True),  # (B, 96, 55, 55)
            _response_norm(),
            nn.MaxPool2d(3, stride=2),  # (B, 96, 27, 27)
            nn.Conv2d(widths[0], widths[1], 5, padding=2, groups=2),
            nn.ReLU(inplace=True),
            _response_norm(),
            nn.MaxPool2d(3, stride=2),  # (B, 256, 13, 13)
            nn.Conv2d(widths[1], widths[2], 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(widths[2], widths[3], 3, padding=1, groups=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(widths[3], widths[4], 3, padding=1, groups=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),  # (B, 256, 6, 6)
        )
        side = (image_size + 2 * padding - 11) // 4 + 1
        for _ in range(3):  # pools
            side = (side - 3) // 2 + 1
        self.avgpool = nn.AdaptiveAvgPool2d(1) if small else nn.Identity()
        inputs = widths[4] if small else widths[4] * side * side
        hidden = _scale((1024, 1024) if small else (4096, 4096), width)
        layers: list[nn.Module] = []
        for before, after in pairwise([inputs, *hidden]):
            layers += [nn.Linear(before, after), nn.ReLU(inplace=True), nn.Dropout(dropout)]
        self.classifier = nn.Sequential(*layers, nn.Linear(hidden[-1], num_classes))
        if tower_bias is None:
            tower_bias = 0.0 if small else 1.0
        for place, (weight, bias) in enumerate(_weights_and_biases(self), start=1):
            if small:
                nn.init.kaiming_normal_(weight, nonlinearity="relu")
            else:
                nn.init.normal_(weight, 0, 0.01)
            nn.init.constant_(bias, tower_bias if place in (2, 4, 5, 6, 7) else 0.0)

    def forward(self, input: Tensor) -> Tensor:
        """Map images (B, C, S, S) to logits (B, K)."""
        if input.shape[1:] != (self.in_channels, self.image_size, self.image_size):
            size = self.image_size
            raise ValueError(
                f"input of shape {tuple(input.shape)}: must be (batch, {self.in_channels}, {size}, {size})"
            )
        return self.classifier(self.avgpool(self.features(input)).flatten(1))


class AlexNet(nn.Module):
    """One tower of five convolutions, 64-192-384-256-256, then 4096-4096-K (paper) or 1024-1024-K (small).

    `width` multiplies every width. `dropout` is 0.5 in the paper form and 0 in the small one, unless given.
    `image_size` chooses and checks the form; any size that the form takes can then be put in. Raises ValueError for an
    image size below 63 in the paper form, outside 28 to 96 in the small one, and for any other argument out of range.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        image_size: int = 224,
        form: Literal["auto", "paper", "small"] = "auto",
        width: float = 1.0,
        dropout: float | None = None,
    ) -> None:
        super().__init__()
        self.form, small, dropout = _resolve(form, image_size, width, dropout)
        widths = _scale((64, 192, 384, 256, 256), width)
        size, stride = (5, 1) if small else (11, 4)
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], size, stride=stride, padding=2),
            nn.ReLU(inplace=True),  # (B, 64, 55, 55)
            nn.MaxPool2d(3, stride=2),  # (B, 64, 27, 27)
            nn.Conv2d(widths[0], widths[1], 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),  # (B, 192, 13, 13)
            nn.Conv2d(widths[1], widths[2], 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(widths[2], widths[3], 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(widths[3], widths[4], 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2),  # (B, 256, 6, 6)
        )
        side = 1 if small else 6
        self.avgpool = nn.AdaptiveAvgPool2d(side)
        hidden = _scale((1024, 1024) if small else (4096, 4096), width)
        layers: list[nn.Module] = []
        for before, after in pairwise([widths[4] * side * side, *hidden]):
            layers += [nn.Dropout(dropout), nn.Linear(before, after), nn.ReLU(inplace=True)]
        self.classifier = nn.Sequential(*layers, nn.Linear(hidden[-1], num_classes))
        if small:
            for weight, bias in _weights_and_biases(self):
                nn.init.kaiming_normal_(weight, nonlinearity="relu")
                nn.init.zeros_(bias)

    def forward(self, input: Tensor) -> Tensor:
        """Map images (B, C, S, S) to logits (B, K)."""
        return self.classifier(self.avgpool(self.features(input)).flatten(1))


alexnet = AlexNet
alexnet_2012 = AlexNetOriginal
