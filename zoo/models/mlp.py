"""Multi-layer perceptron.

D. Rumelhart, G. Hinton, R. Williams, "Learning representations by back-propagating errors", Nature 323, 1986. The layer
widths of the MNIST literature (784-300-10, 784-300-100-10: LeCun et al. 1998, section III.C) are `hidden=[300]` and
`hidden=[300, 100]`.

Deliberate deviation: the defaults are today's (ReLU, PyTorch's initial weights). LeCun's are `activation=scaled_tanh`
with `init=lecun_uniform`. Each hidden layer is linear, norm, activation, dropout, in this order.

Shapes: B batch, F features, K classes.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class ScaledTanh(nn.Module):
    """1.7159·tanh(2x/3) maps ±1 to ±1, where its second derivative is largest. LeCun 1998, "Efficient backprop"."""

    def forward(self, input: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(input * (2 / 3))


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "scaled_tanh": ScaledTanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "leaky_relu": nn.LeakyReLU,
    "softplus": nn.Softplus,
}
NORMS: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


class MLP(nn.Module):
    """Fully connected layers of the widths `hidden`, then a linear output; `hidden=[]` is softmax regression.

    Raises ValueError for a width below 1, an unknown activation or norm, a dropout outside [0, 1), and for an input
    that has not `in_features` numbers each.
    """

    def __init__(
        self,
        *,
        in_features: int = 784,
        num_classes: int = 10,
        hidden: Sequence[int] = (128,),
        activation: str = "relu",
        dropout: float = 0.0,
        norm: str = "none",
    ) -> None:
        super().__init__()
        if any(width < 1 for width in hidden):
            raise ValueError(f"hidden={list(hidden)}: must be widths of at least 1")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation}: must be one of {', '.join(ACTIVATIONS)}")
        if norm not in ("none", *NORMS):
            raise ValueError(f"norm={norm}: must be one of none, {', '.join(NORMS)}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}: must be at least 0 and below 1")
        self.in_features = in_features
        # SELU keeps mean 0 and variance 1 only with alpha dropout (Klambauer et al. 2017, 1706.02515).
        drop = nn.AlphaDropout if activation == "selu" else nn.Dropout
        layers: list[nn.Module] = [nn.Flatten()]  # (B, F)
        for fan_in, width in pairwise([in_features, *hidden]):
            layers.append(nn.Linear(fan_in, width))
            if norm != "none":
                layers.append(NORMS[norm](width))
            layers.append(ACTIVATIONS[activation]())
            if dropout:
                layers.append(drop(dropout))
        self.layers = nn.Sequential(*layers, nn.Linear([in_features, *hidden][-1], num_classes))

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, …) with F = `in_features` numbers an example to logits (B, K)."""
        if input.numel() != len(input) * self.in_features:
            raise ValueError(f"input of shape {tuple(input.shape)}: must have {self.in_features} numbers an example")
        return self.layers(input)
