"""SegNet: a decoder that puts every value back where its maximum had been.

V. Badrinarayanan, A. Kendall, R. Cipolla, "SegNet: a deep convolutional encoder-decoder architecture for image
segmentation", 2015, 1511.00561.

Each pool keeps the places of its maxima; the decoder's unpooling puts values at those places, zeros elsewhere, and
convolutions fill the gaps. `SegNet` has the 13 convolutions of VGG-16 (1409.1556), which keep the keys of torchvision's
`vgg16_bn.features`, and the same mirrored; the last one gives the logits. `SegNetBasic` has four 7×7 convolutions of 64
channels on either side, the decoder's with neither bias nor ReLU (the authors' Caffe files give them biases, 256
parameters more), and a 1×1 classifier.

Deliberate deviations:
- All convolutions start from He's weights (1502.01852, fan in), biases from 0; the paper takes the encoder from VGG-16.
- No local contrast normalisation of the input: the data say how inputs are normalised.
- Batch normalisation's epsilon and momentum are PyTorch's; its shift starts at 0, in the Caffe files at 0.001.
- The pools round up, as Caffe's do, and unpooling goes back to the size there was: any image size goes in.

Shapes: B batch, C channels, H W size, K classes.
"""

import math
from fractions import Fraction
from itertools import pairwise

import torch
from torch import Tensor, nn

_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels and convolutions of VGG-16, each before a pool


def _unpool(values: Tensor, places: Tensor, size: torch.Size) -> Tensor:
    """Values (B, C, h, w) at the places where a pool found them in maps of `size` (B, C, H, W), zeros elsewhere.

    As `nn.MaxUnpool2d`, which has no deterministic form on CUDA. No place comes twice: windows do not overlap.
    """
    empty = values.new_zeros(size).flatten(2)
    return empty.scatter(2, places.flatten(2), values.flatten(2)).view(size)


def _convolutions(*channels: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return layers


class _Unpooling(nn.Module):
    """Base: what runs `features`, whose pools keep their places, `decoder`, deepest block first, and `classifier`."""

    features: nn.Sequential
    decoder: nn.ModuleList
    classifier: nn.Conv2d

    def __init__(self, *, in_channels: int, num_classes: int, image_size: int, width: float, pools: int) -> None:
        super().__init__()
        for name, value in {"in_channels": in_channels, "num_classes": num_classes}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: must be 1 or more")
        if image_size <= 2 ** (pools - 1):
            raise ValueError(
                f"image_size={image_size}: must be more than {2 ** (pools - 1)}, as there are {pools} pools"
            )
        if not 0 < width < math.inf:
            raise ValueError(f"width={width}: must be more than 0")
        self.form = "paper" + ("" if width == 1 else f" ×{Fraction(str(width))}")

    def initialise(self) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, K, H, W)."""
        x, pooled = input, []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                size = x.shape
                x, places = layer(x)
                pooled.append((places, size))
            else:
                x = layer(x)
        for block in self.decoder:
            x = block(_unpool(x, *pooled.pop()))
        return self.classifier(x)


class SegNet(_Unpooling):
    """The encoder of VGG-16, and its mirror image: 29,449,355 parameters at 11 classes.

    `width` is a factor on every number of channels, of which at least 8 remain. Raises ValueError for an `image_size`
    below 17, of which one of the five pools would see a single pixel, and for other arguments out of range.
    """

    def __init__(
        self, *, in_channels: int = 3, num_classes: int = 11, image_size: int = 360, width: float = 1.0
    ) -> None:
        super().__init__(
            in_channels=in_channels, num_classes=num_classes, image_size=image_size, width=width, pools=len(_BLOCKS)
        )
        blocks = [(max(8, round(channels * width)), convolutions) for channels, convolutions in _BLOCKS]
        encoder, decoder = [], []
        before = in_channels
        for place, (channels, convolutions) in enumerate(blocks):
            encoder += _convolutions(before, *[channels] * convolutions)
            encoder.append(nn.MaxPool2d(2, ceil_mode=True, return_indices=True))
            # back: as many convolutions, the last of them to the channels before; the very last is the classifier
            decoder.append(_convolutions(*[channels] * convolutions, *([before] if place else [])))
            before = channels
        self.features = nn.Sequential(*encoder)
        self.decoder = nn.ModuleList(nn.Sequential(*layers) for layers in reversed(decoder))
        self.classifier = nn.Conv2d(blocks[0][0], num_classes, 3, padding=1)
        self.initialise()


class SegNetBasic(_Unpooling):
    """Four 7×7 convolutions of 64 channels down, four up: 1,416,331 parameters at 11 classes.

    `width` is a factor on the 64, of which at least 8 remain. Raises ValueError for an `image_size` below 9, of which
    one of the four pools would see a single pixel, and for other arguments out of range.
    """

    def __init__(
        self, *, in_channels: int = 3, num_classes: int = 11, image_size: int = 360, width: float = 1.0
    ) -> None:
        super().__init__(in_channels=in_channels, num_classes=num_classes, image_size=image_size, width=width, pools=4)
        channels = max(8, round(64 * width))
        self.features, self.decoder = nn.Sequential(), nn.ModuleList()
        for place in range(4):
            convolution = nn.Conv2d(channels if place else in_channels, channels, 7, padding=3)
            pool = nn.MaxPool2d(2, ceil_mode=True, return_indices=True)
            self.features.extend([convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True), pool])
            back = nn.Conv2d(channels, channels, 7, padding=3, bias=False)
            self.decoder.append(nn.Sequential(back, nn.BatchNorm2d(channels)))
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        self.initialise()


segnet = SegNet
segnet_basic = SegNetBasic
