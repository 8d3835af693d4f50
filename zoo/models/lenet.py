"""LeNet-5, twice: as it is commonly built today, and as the paper has it.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition",
Proceedings of the IEEE 86(11), 1998, section II.B.

`LeNet5` is the common modern form. Its deliberate deviations: C3 sees all six maps of S2, pooling has no parameters,
the activation is ReLU (or tanh), the output is linear: 61,706 parameters at 1 → 10.

`LeNet5Original` is the paper's network with exactly 60,000 trainable parameters. Its deliberate deviations:
- The target bitmaps are our own drawings of the ten digits; the paper prints its own, for all of ASCII, as a picture.
- 28×28 input is padded to 32×32 by repeating its border, not with the paper's background level −0.1, so that it fits
  any normalisation of the data.
- It gives the negative penalties, so that cross-entropy and argmax apply. Cross-entropy is then the paper's criterion
  (eq. 9) without the constant e^−j of a rubbish class. In exact arithmetic ‖x‖² cancels between the classes, so only
  the order of the penalties is learnt: nothing draws F6 to the bitmap itself, as e^−j would.

Shapes: B batch, C channels, S image size, K classes.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}
_POOLS = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}


def _check_input(input: Tensor, channels: int, size: int) -> None:
    if input.ndim != 4 or input.shape[1:] != (channels, size, size):
        raise ValueError(f"input of shape {tuple(input.shape)}: must be (batch, {channels}, {size}, {size})")


def _check_size(image_size: int) -> None:
    if image_size not in (28, 32):
        raise ValueError(f"image_size={image_size}: must be 28 (padded to 32) or 32")


class LeNet5(nn.Module):
    """The common modern form: two full 5×5 convolutions of 6 and 16 maps, then 120-84-K.

    Raises ValueError for an `image_size` other than 28 and 32, and for an input of another shape than (B, C, S, S).
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        num_classes: int = 10,
        image_size: int = 28,
        activation: Literal["relu", "tanh"] = "relu",
        pool: Literal["max", "average"] = "max",
    ) -> None:
        super().__init__()
        _check_size(image_size)
        if activation not in _ACTIVATIONS:
            raise ValueError(f"activation={activation}: must be one of {', '.join(_ACTIVATIONS)}")
        if pool not in _POOLS:
            raise ValueError(f"pool={pool}: must be one of {', '.join(_POOLS)}")
        self.in_channels, self.image_size = in_channels, image_size
        squash, halve = _ACTIVATIONS[activation], _POOLS[pool]
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 6, 5, padding=(32 - image_size) // 2),  # (B, 6, 28, 28)
            squash(),
            halve(2),  # (B, 6, 14, 14)
            nn.Conv2d(6, 16, 5),  # (B, 16, 10, 10)
            squash(),
            halve(2),  # (B, 16, 5, 5)
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),  # (B, 400)
            nn.Linear(400, 120),
            squash(),
            nn.Linear(120, 84),
            squash(),
            nn.Linear(84, num_classes),
        )

    def forward(self, input: Tensor) -> Tensor:
        """Map images (B, C, S, S) to logits (B, K)."""
        _check_input(input, self.in_channels, self.image_size)
        return self.classifier(self.features(input))


# Table I of the paper: which maps of S2 each of the 16 maps of C3 sees, here by how many it sees.
_C3_TABLE = (
    ((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (4, 5, 0), (5, 0, 1)),
    (
        *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (3, 4, 5, 0), (4, 5, 0, 1), (5, 0, 1, 2)),
        *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    ),
    ((0, 1, 2, 3, 4, 5),),
)

# The target of each class at F6: a picture of the digit, 7 wide and 12 high, ink +1 and background −1.
_BITMAPS = """
..###..  ...#...  .#####.  .#####.  ....##.
.##.##.  ..##...  ##...##  ##...##  ...###.
##...##  .###...  ##...##  .....##  ..####.
##...##  ...#...  .....##  .....##  .##.##.
##...##  ...#...  .....##  .....##  .#..##.
##...##  ...#...  ....##.  ..####.  ##..##.
##...##  ...#...  ...##..  ..####.  ##..##.
##...##  ...#...  ..##...  .....##  #######
##...##  ...#...  .##....  .....##  #######
##...##  ...#...  ##.....  .....##  ....##.
.##.##.  ...#...  ##.....  ##...##  ....##.
..###..  .#####.  #######  .#####.  ....##.

#######  ..####.  #######  .#####.  .#####.
##.....  .##....  #######  ##...##  ##...##
##.....  ##.....  .....##  ##...##  ##...##
##.....  ##.....  ....##.  ##...##  ##...##
##.....  ##.....  ....##.  .##.##.  ##...##
######.  ######.  ...##..  ..###..  .######
.....##  ##...##  ...##..  .##.##.  ..#####
.....##  ##...##  ..##...  ##...##  .....##
.....##  ##...##  ..##...  ##...##  .....##
.....##  ##...##  .##....  ##...##  .....##
##...##  ##...##  .##....  ##...##  ....##.
.#####.  .#####.  .##....  .#####.  .####..
"""


def _bitmaps() -> Tensor:
    """The ten pictures as (10, 84) of ±1, row by row."""
    halves = [half.splitlines() for half in _BITMAPS.strip().split("\n\n")]
    digits = ["".join(line.split()[column] for line in half) for half in halves for column in range(5)]
    return torch.tensor([[1.0 if pixel == "#" else -1.0 for pixel in digit] for digit in digits])


class Squash(nn.Module):
    """1.7159·tanh(2x/3), the paper's activation (appendix A)."""

    def forward(self, input: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(input * (2 / 3))


class Subsampling(nn.Module):
    """S2 and S4: the sum of 2×2 units, times a gain and plus a bias, both trained, one of each a map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.empty(channels, 1, 1))
        self.bias = nn.Parameter(torch.empty(channels, 1, 1))

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool2d(input, 2, divisor_override=1) * self.gain + self.bias


class SparseConvolution(nn.Module):
    """C3: 5×5 convolution in which each output map sees its own choice of input maps, `_C3_TABLE`.

    One grouped convolution for all maps that see equally many inputs, so that only connections that exist have weights.
    """

    places: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.three, self.four, self.six = (
            nn.Conv2d(len(maps) * len(maps[0]), len(maps), 5, groups=len(maps)) for maps in _C3_TABLE
        )
        seen = enumerate(chosen for maps in _C3_TABLE for chosen in maps)
        places = torch.tensor([6 * output + number for output, chosen in seen for number in chosen])
        self.register_buffer("places", places, persistent=False)  # of the 60 kernels among 16×6

    def forward(self, input: Tensor) -> Tensor:
        parts = (self.three, self.four, self.six)
        if input.device.type == "cpu":
            # There a dense convolution, zero where nothing is connected, is 15 times as fast as the grouped ones.
            kernels = torch.cat([part.weight.flatten(0, 1) for part in parts])  # (60, 5, 5)
            dense = kernels.new_zeros(96, 5, 5).index_copy(0, self.places, kernels).view(16, 6, 5, 5)
            return F.conv2d(input, dense, torch.cat([part.bias for part in parts if part.bias is not None]))
        seen = [[number for chosen in maps for number in chosen] for maps in _C3_TABLE]
        return torch.cat([part(input[:, maps]) for part, maps in zip(parts, seen, strict=True)], 1)


class RBFOutput(nn.Module):
    """−‖x − c_k‖² for the fixed bitmaps c_k: the negative penalties of the paper's Euclidean RBF units (eq. 7)."""

    centres: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("centres", _bitmaps())  # (10, 84)

    def forward(self, input: Tensor) -> Tensor:
        return -(input[:, None, :] - self.centres).square().sum(2)


class LeNet5Original(nn.Module):
    """The paper's network: sparse C3, trained sub-sampling, squashing everywhere, RBF output; 60,000 parameters.

    Raises ValueError for another number of classes than 10, for an `image_size` other than 28 and 32, and for an input
    of another shape than (B, C, S, S).
    """

    def __init__(self, *, in_channels: int = 1, num_classes: int = 10, image_size: int = 28) -> None:
        super().__init__()
        if num_classes != 10:
            raise ValueError(
                f"num_classes={num_classes}: must be 10, as the output's bitmaps are digits; use model=lenet5"
            )
        _check_size(image_size)
        self.in_channels, self.image_size = in_channels, image_size
        self.c1 = nn.Conv2d(in_channels, 6, 5)
        self.s2 = Subsampling(6)
        self.c3 = SparseConvolution()
        self.s4 = Subsampling(16)
        self.c5 = nn.Conv2d(16, 120, 5)  # a convolution, as the input could be larger than 32
        self.f6 = nn.Linear(120, 84)
        self.squash = Squash()
        self.output = RBFOutput()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights and biases from U(±2.4/F), F the number of inputs of a unit (appendix A)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                limit = 2.4 / module.weight[0].numel()
            elif isinstance(module, Subsampling):
                limit = 2.4 / 4
            else:
                continue
            for parameter in module.parameters():
                nn.init.uniform_(parameter, -limit, limit)

    def forward(self, input: Tensor) -> Tensor:
        """Map images (B, C, S, S) to negative penalties (B, 10); the greatest is the answer."""
        _check_input(input, self.in_channels, self.image_size)
        x = F.pad(input, [(32 - self.image_size) // 2] * 4, mode="replicate")  # (B, C, 32, 32)
        x = self.squash(self.c1(x))  # (B, 6, 28, 28)
        x = self.squash(self.s2(x))  # (B, 6, 14, 14)
        x = self.squash(self.c3(x))  # (B, 16, 10, 10)
        x = self.squash(self.s4(x))  # (B, 16, 5, 5)
        x = self.squash(self.c5(x)).flatten(1)  # (B, 120)
        x = self.squash(self.f6(x))  # (B, 84)
        return self.output(x)
