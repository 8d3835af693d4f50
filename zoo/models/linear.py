"""Softmax regression: one linear layer, one template per class.

Known since the 1950s as multinomial logistic regression; with images it is the linear classifier of LeCun et al. 1998,
"Gradient-based learning applied to document recognition", section III.C.1 (12.0 % errors on MNIST with squared error).
The softmax itself is part of the loss. With `num_classes` outputs and a regression loss it is linear regression.

Shapes: B batch, F features, K classes.
"""

from torch import Tensor, nn


class SoftmaxRegression(nn.Module):
    """Logits W·x + b of the flattened input. Raises ValueError for an input that has not `in_features` numbers each."""

    def __init__(self, *, in_features: int = 784, num_classes: int = 10) -> None:
        super().__init__()
        self.in_features = in_features
        self.linear = nn.Linear(in_features, num_classes)

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, …) with F = `in_features` numbers an example to logits (B, K)."""
        if input.numel() != len(input) * self.in_features:
            raise ValueError(f"input of shape {tuple(input.shape)}: must have {self.in_features} numbers an example")
        return self.linear(input.flatten(1))
