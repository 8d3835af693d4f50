"""The first GAN: a dense generator against a dense discriminator.

I. Goodfellow et al., "Generative adversarial nets", 2014, 1406.2661. Widths, rates of dropout and first weights are
those of the authors' file for MNIST. Deliberate deviations:
- The discriminator's two hidden layers are 1200 leaky rectifiers; the authors' take the largest of each 5 of their 1200
  (maxout, 240 remain). So its weights start as the generator's, U(−0.05, 0.05), and not U(−0.005, 0.005).
- Pixels run from −1 to 1 and leave a tanh; the authors' run from 0 to 1 and leave a sigmoid, whose biases start at the
  pixels' means.
- The latent is as the task draws it, normal; the authors' is uniform.
- Conditional, both networks see the class as a one-hot vector beside what they read: M. Mirza, S. Osindero,
  "Conditional generative adversarial nets", 2014, 1411.1784.

Shapes: B batch, Z latent, C channels, S size, K classes.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.models.dcgan import require_condition


def _joined(input: Tensor, condition: Tensor | None, num_classes: int | None) -> Tensor:
    """(B, F), with one-hot classes (B, K) behind it where the network knows them."""
    require_condition(condition, num_classes)
    if condition is None or num_classes is None:
        return input
    return torch.cat([input, F.one_hot(condition, num_classes).to(input)], 1)


class Generator(nn.Module):
    """A latent (B, Z) to pictures (B, C, S, S) from −1 to 1."""

    def __init__(
        self, latent: int, hidden: Sequence[int], shape: tuple[int, int, int], *, num_classes: int | None
    ) -> None:
        super().__init__()
        self.shape, self.num_classes = shape, num_classes
        widths = [latent + (num_classes or 0), *hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], math.prod(shape)))

    def forward(self, noise: Tensor, condition: Tensor | None = None) -> Tensor:
        """`noise` (B, Z), `condition` (B,) int64 classes where the network knows them → (B, C, S, S)."""
        # a function, not a layer: a swap of the activations leaves the range of the pixels alone
        return torch.tanh(self.layers(_joined(noise, condition, self.num_classes))).view(-1, *self.shape)


class Discriminator(nn.Module):
    """Pictures (B, C, S, S) to scores (B,), not squashed."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        hidden: Sequence[int],
        *,
        dropout_input: float,
        dropout: float,
        num_classes: int | None,
    ) -> None:
        super().__init__()
        self.shape, self.num_classes = shape, num_classes
        widths = [math.prod(shape) + (num_classes or 0), *hidden]
        layers: list[nn.Module] = [nn.Dropout(dropout_input)]
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.LeakyReLU(0.2, inplace=True), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, input: Tensor, condition: Tensor | None = None) -> Tensor:
        """`input` (B, C, S, S), `condition` (B,) int64 classes where the network knows them → scores (B,)."""
        if input.shape[1:] != self.shape:
            raise ValueError(f"input of shape {tuple(input.shape)}: must be (B, {', '.join(map(str, self.shape))})")
        return self.layers(_joined(input.flatten(1), condition, self.num_classes)).squeeze(1)


class MLPGAN(nn.Module):
    """A `generator` and a `discriminator`; called, the score of what is generated.

    Raises ValueError for arguments out of range, and for an input of another size or without its condition.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        image_size: int = 28,
        num_classes: int | None = 10,
        conditional: bool = False,
        latent: int = 100,
        generator_hidden: Sequence[int] = (1200, 1200),
        discriminator_hidden: Sequence[int] = (1200, 1200),
        dropout_input: float = 0.2,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        for name, value in {"in_channels": in_channels, "image_size": image_size, "latent": latent}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: must be 1 or more")
        if conditional and (num_classes is None or num_classes < 1):
            raise ValueError(f"conditional=true: must be false for data without classes (num_classes={num_classes})")
        for name, widths in {
            "generator_hidden": generator_hidden,
            "discriminator_hidden": discriminator_hidden,
        }.items():
            if not widths or min(widths) < 1:
                raise ValueError(f"{name}={list(widths)}: must be at least one width, each of at least 1")
        for name, rate in {"dropout_input": dropout_input, "dropout": dropout}.items():
            if not 0 <= rate < 1:
                raise ValueError(f"{name}={rate}: must be at least 0 and below 1")
        self.latent, self.num_classes = latent, num_classes if conditional else None
        shape = (in_channels, image_size, image_size)
        self.generator = Generator(latent, generator_hidden, shape, num_classes=self.num_classes)
        self.discriminator = Discriminator(
            shape, discriminator_hidden, dropout_input=dropout_input, dropout=dropout, num_classes=self.num_classes
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.uniform_(module.weight, -0.05, 0.05)
                nn.init.zeros_(module.bias)

    def forward(self, noise: Tensor, condition: Tensor | None = None) -> Tensor:
        """`noise` (B, Z), `condition` (B,) int64 or None → scores (B,)."""
        return self.discriminator(self.generator(noise, condition), condition)
