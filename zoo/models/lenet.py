"""LeNet-5, twice: as it is commonly built today, and as the paper has it.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition",
Proceedings of the IEEE 86(11), 1998, section II.B.

`LeNet5` is the common modern form. Its deliberate deviations: C3 sees all six maps of S2, pooling has no parameters,
the activation is ReLU (or tanh), the output is linear: 61,706 parameters at 1 → 10.

Shapes: B batch, C channels, S image size, K classes.
"""

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
        activation: str = "relu",
        pool: str = "max",
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
