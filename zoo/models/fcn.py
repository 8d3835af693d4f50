"""FCN: a classifier of images made to classify every pixel, by convolutions alone.

J. Long, E. Shelhamer, T. Darrell, "Fully convolutional networks for semantic segmentation", CVPR 2015, 1411.4038.

The body is VGG-16 (1409.1556) with its linear layers as convolutions: 7×7, then 1×1. Scores at stride 32 are brought to
the size of the image by a transposed convolution (FCN-32s), or first to stride 16 and added to scores of the fourth
pool (16s), and to stride 8 and those of the third (8s). The paper form is that of the authors' `net.py` files: padding
of 100 before the first convolution, pools that round up, crops at 5, 9 and 19, 27 or 31 pixels, and up-sampling by
bilinear kernels that are full matrices over the classes, without bias, and frozen. Its `features` have the keys of
torchvision's `vgg16`, whose weights the authors start from and without which, they say, training is not feasible.

Deliberate deviations:
- The body starts from He's weights (1502.01852, fan in), biases from 0. As in the paper the scores start from 0, so
  that the body has no gradient before the first step.
- `learn_upsampling` frees the bilinear kernels of all three, where the paper's text frees those before the last.
- `at_once` scales the pools' values before their scores, by 0.01 and 0.0001, as the authors' network that is trained
  all at once; they otherwise start 16s from 32s, and 8s from 16s. It suits values as large as the published VGG-16's.

The small form pads by 1 before the first convolution too, by 3 before the 7×7 one, and up-samples as if the outermost
scores went on outside: nothing is cropped but what the pools had rounded up. Its scores start from a normal
distribution of standard deviation 0.01, so that the body, which has learnt nothing before, learns from the first step.

Shapes: B batch, C channels, H W size, K classes.
"""

import math
from fractions import Fraction
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels and convolutions of VGG-16, each before a pool
_POOL3, _POOL4 = 16, 23  # places in `features`
_CROPS = {32: 19, 16: 27, 8: 31}  # of the paper form, from the top left, so that scores lie on their pixels
_CROP4, _CROP3 = 5, 9


class Upsampling(nn.ConvTranspose2d):
    """A transposed convolution that starts bilinear: (B, K, h, w) → (B, K, (h + 1)·stride, (w + 1)·stride).

    `aligned` repeats the border and cuts it off again: (B, K, h·stride, w·stride), with equal corners of all pixels.
    """

    def __init__(self, channels: int, stride: int, *, aligned: bool, learn: bool) -> None:
        super().__init__(channels, channels, 2 * stride, stride, bias=False)
        self.aligned, self.factor = aligned, stride
        ramp = 1 - (torch.arange(2 * stride) - stride + 0.5).abs() / stride
        with torch.no_grad():
            self.weight.zero_()
            self.weight[range(channels), range(channels)] = ramp.outer(ramp)
        self.weight.requires_grad_(learn)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if not self.aligned:
            return super().forward(input, output_size)
        outside = 3 * self.factor // 2
        maps = super().forward(F.pad(input, (1, 1, 1, 1), mode="replicate"))
        return maps[:, :, outside:-outside, outside:-outside]


def _add(scores: Tensor, skip: Tensor, crop: int) -> Tensor:
    """The sum of scores and of a skip's from row and column `crop` on, as far as both go."""
    skip = skip[:, :, crop:, crop:]
    height, width = min(scores.shape[2], skip.shape[2]), min(scores.shape[3], skip.shape[3])
    return scores[:, :, :height, :width] + skip[:, :, :height, :width]


class FCN(nn.Module):
    """FCN-32s, 16s or 8s, after `stride`.

    `form=auto` is the paper's above 64 pixels, which takes any size, and the small one up to there, for 28 to 96.
    `width` is a factor on every number of channels of the body, of which at least 8 remain; `dropout` follows both
    convolutions that were linear layers. Raises ValueError for arguments out of range.
    """

    def __init__(
        self,
        *,
        stride: Literal[32, 16, 8] = 8,
        in_channels: int = 3,
        num_classes: int = 21,
        image_size: int = 500,
        form: Literal["auto", "paper", "small"] = "auto",
        width: float = 1.0,
        at_once: bool = False,
        learn_upsampling: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if stride not in _CROPS:
            raise ValueError(f"stride={stride}: must be one of 32, 16, 8")
        for name, value in {"in_channels": in_channels, "num_classes": num_classes, "image_size": image_size}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: must be 1 or more")
        if form not in ("auto", "paper", "small"):
            raise ValueError(f"form={form}: must be one of auto, paper, small")
        small = form == "small" or (form == "auto" and image_size <= 64)
        if small and not 28 <= image_size <= 96:
            raise ValueError(f"image_size={image_size}: must be from 28 to 96 for form=small")
        if not 0 < width < math.inf:
            raise ValueError(f"width={width}: must be more than 0")
        if at_once and stride == 32:
            raise ValueError("at_once=True: must be False for stride=32, which has no scores of pools to scale")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}: must be at least 0 and below 1")
        self.form = ("small" if small else "paper") + ("" if width == 1 else f" ×{Fraction(str(width))}")
        self.small, self.stride = small, stride
        self.scale4, self.scale3 = (0.01, 0.0001) if at_once else (1.0, 1.0)

        *widths, hidden = (max(8, round(width * channels)) for channels in (*(block[0] for block in _BLOCKS), 4096))
        layers: list[nn.Module] = []
        for (before, after), (_, convolutions) in zip(pairwise([in_channels, *widths]), _BLOCKS, strict=True):
            for place in range(convolutions):
                padding = 1 if layers or small else 100
                layers.append(nn.Conv2d(after if place else before, after, 3, padding=padding))
                layers.append(nn.ReLU(inplace=True))
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Conv2d(widths[-1], hidden, 7, padding=3 if small else 0),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Conv2d(hidden, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        kind = {"aligned": small, "learn": learn_upsampling}
        self.score = nn.Conv2d(hidden, num_classes, 1)
        if stride <= 16:
            self.upscore2 = Upsampling(num_classes, 2, **kind)
            self.score_pool4 = nn.Conv2d(widths[3], num_classes, 1)
        if stride == 8:
            self.upscore_pool4 = Upsampling(num_classes, 2, **kind)
            self.score_pool3 = nn.Conv2d(widths[2], num_classes, 1)
        self.upscore = Upsampling(num_classes, stride, **kind)
        for name, layer in self.named_modules():
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.zeros_(layer.bias)
                if name.startswith("score"):
                    nn.init.normal_(layer.weight, 0, 0.01) if small else nn.init.zeros_(layer.weight)

    def forward(self, input: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, K, H, W)."""
        x, pools = input, {}
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in (_POOL3, _POOL4):
                pools[place] = x
        scores = self.score(self.classifier(x))
        if self.stride <= 16:
            skip = self.score_pool4(self.scale4 * pools[_POOL4])
            scores = _add(self.upscore2(scores), skip, 0 if self.small else _CROP4)
        if self.stride == 8:
            skip = self.score_pool3(self.scale3 * pools[_POOL3])
            scores = _add(self.upscore_pool4(scores), skip, 0 if self.small else _CROP3)
        crop = 0 if self.small else _CROPS[self.stride]
        return self.upscore(scores)[:, :, crop : crop + input.shape[2], crop : crop + input.shape[3]]


fcn32s = partial(FCN, stride=32)
fcn16s = partial(FCN, stride=16)
fcn8s = partial(FCN, stride=8)
