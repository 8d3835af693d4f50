"""DCGAN: a generator of transposed convolutions against a discriminator of strided ones.

A. Radford, L. Metz, S. Chintala, "Unsupervised representation learning with deep convolutional generative adversarial
networks", 2016, 1511.06434.

The paper form starts from 4×4 maps and doubles them up to the size of the picture; at 64×64 the maps of the generator
are 1024, 512, 256 and 128 deep, 12,658,432 parameters against 11,036,160. `width=0.5` has the widths that most public
code has, 3,576,704 against 2,765,568. The small form is ours, for pictures such as 28×28: it starts from a quarter of
the size, doubles twice, and is 128 and 64 deep. Deliberate choices where the paper leaves them open, or differs:
- Kernels are 4×4, which stride 2 covers evenly; the paper's figure has 5×5.
- The first layer is a transposed convolution of one pixel, the same sum as the paper's "project and reshape". No
  convolution has a bias but those whose norm was taken away.
- The scales of norms start at N(1, 0.02), as in the authors' code; the paper says N(0, 0.02) of all weights.
- The latent is as the task draws it, normal; the paper's is uniform.
- Above 64×64 no maps are deeper than 1024.

Conditional, both networks are told the class: the generator by an embedding as long as the latent, joined to it, the
discriminator by projection (T. Miyato, M. Koyama, "cGANs with projection discriminator", 2018, 1802.05637): the score
is w·φ(x) + v_y·φ(x), where φ(x) are the last maps. They are not summed over their places, as where a stroke is tells
a 6 from a 9.

Spectral norm is that of T. Miyato et al., "Spectral normalization for generative adversarial networks", 2018,
1802.05957, on every layer of the discriminator, with one step of power iteration a call while training.

Shapes: B batch, Z latent, C channels, S size, K classes.
"""

import math
from fractions import Fraction
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


def require_condition(condition: Tensor | None, num_classes: int | None) -> None:
    """Refuse a network that knows classes and is told none, or the other way round."""
    if condition is not None and num_classes is None:
        raise ValueError("condition: must be None, as the network knows no classes (conditional=False)")
    if condition is None and num_classes is not None:
        raise ValueError(f"condition=None: must be classes (B,) from 0 to {num_classes - 1}, as conditional=True")


class Generator(nn.Module):
    """A latent (B, Z) to pictures (B, C, S, S) from −1 to 1, through maps `widths` deep, each twice the size before."""

    def __init__(self, latent: int, widths: list[int], channels: int, *, start: int, num_classes: int | None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.embedding = None if num_classes is None else nn.Embedding(num_classes, latent)
        joined = latent if num_classes is None else 2 * latent
        layers: list[nn.Module] = [nn.ConvTranspose2d(joined, widths[0], start, bias=False)]
        for before, after in pairwise(widths):
            layers += [nn.BatchNorm2d(before), nn.ReLU(inplace=True)]
            layers.append(nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False))
        layers += [nn.BatchNorm2d(widths[-1]), nn.ReLU(inplace=True)]
        layers.append(nn.ConvTranspose2d(widths[-1], channels, 4, 2, 1, bias=False))
        self.layers = nn.Sequential(*layers)

    def forward(self, noise: Tensor, condition: Tensor | None = None) -> Tensor:
        """`noise` (B, Z), `condition` (B,) int64 classes where the network knows them → (B, C, S, S)."""
        require_condition(condition, self.num_classes)
        if self.embedding is not None:
            noise = torch.cat([noise, self.embedding(condition)], 1)
        # a function, not a layer: a swap of the activations leaves the range of the pixels alone
        return torch.tanh(self.layers(noise[:, :, None, None]))


class Discriminator(nn.Module):
    """Pictures (B, C, S, S) to scores (B,), not squashed; `widths` is the depth of the maps, each half the size."""

    def __init__(
        self, channels: int, widths: list[int], *, size: int, end: int, norm: str, num_classes: int | None
    ) -> None:
        super().__init__()
        self.shape, self.num_classes = (channels, size, size), num_classes
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
        for before, after in pairwise(widths):
            layers.append(nn.Conv2d(before, after, 4, 2, 1, bias=norm == "none"))
            if norm == "batch":
                layers.append(nn.BatchNorm2d(after))
            elif norm == "layer":
                layers.append(nn.GroupNorm(1, after))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(widths[-1], 1, end, bias=False)
        self.projection = None if num_classes is None else nn.Embedding(num_classes, widths[-1] * end**2)

    def forward(self, input: Tensor, condition: Tensor | None = None) -> Tensor:
        """`input` (B, C, S, S), `condition` (B,) int64 classes where the network knows them → scores (B,)."""
        require_condition(condition, self.num_classes)
        if input.shape[1:] != self.shape:
            raise ValueError(f"input of shape {tuple(input.shape)}: must be (B, {', '.join(map(str, self.shape))})")
        maps = self.body(input)
        scores = self.head(maps).flatten()
        if self.projection is not None:
            scores = scores + (self.projection(condition) * maps.flatten(1)).sum(1)
        return scores


class DCGAN(nn.Module):
    """A `generator` and a `discriminator`; called, the score of what is generated.

    `form`: `paper` takes sizes that are a power of two from 32, `small` multiples of 4 from 16 to 48; `auto` is small
    below 64. `width` is a factor on every depth of maps, of which at least 8 remain. `norm_discriminator` is batch
    normalisation, layer normalisation (over a whole example) or none: what is penalised by the gradient at each example
    (WGAN-GP) must not mix examples. Spectral norm takes none, as a norm would undo the bound it gives.

    Raises ValueError for arguments out of range, and for an input of another size or without its condition.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        image_size: int = 64,
        num_classes: int | None = 10,
        conditional: bool = False,
        latent: int = 100,
        form: Literal["auto", "paper", "small"] = "auto",
        width: float = 1.0,
        norm_discriminator: Literal["batch", "layer", "none"] = "batch",
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        for name, value in {"in_channels": in_channels, "latent": latent}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: must be 1 or more")
        if conditional and (num_classes is None or num_classes < 1):
            raise ValueError(f"conditional=true: must be false for data without classes (num_classes={num_classes})")
        if form not in ("auto", "paper", "small"):
            raise ValueError(f"form={form}: must be auto, paper or small")
        if not 0 < width < math.inf:
            raise ValueError(f"width={width}: must be more than 0")
        if norm_discriminator not in ("batch", "layer", "none"):
            raise ValueError(f"norm_discriminator={norm_discriminator}: must be batch, layer or none")
        if spectral_norm and norm_discriminator != "none":
            raise ValueError(f"norm_discriminator={norm_discriminator}: must be none where spectral_norm is true")
        if form == "auto":
            form = "small" if image_size < 64 else "paper"
        if form == "paper" and (image_size < 32 or image_size & (image_size - 1)):
            raise ValueError(
                f"image_size={image_size}: must be a power of two from 32 in the paper form; form=small takes 28"
            )
        if form == "small" and (image_size % 4 or not 16 <= image_size <= 48):
            raise ValueError(f"image_size={image_size}: must be a multiple of 4 from 16 to 48 in the small form")
        self.form: str = form if width == 1 else f"{form} ×{Fraction(str(width))}"
        self.latent, self.num_classes = latent, num_classes if conditional else None

        start = 4 if form == "paper" else image_size // 4
        last, doublings = (128 if form == "paper" else 64), (image_size // start).bit_length() - 1
        widths = [max(8, round(min(last * 2**level, 1024) * width)) for level in range(doublings)]
        self.generator = Generator(latent, widths[::-1], in_channels, start=start, num_classes=self.num_classes)
        self.discriminator = Discriminator(
            in_channels, widths, size=image_size, end=start, norm=norm_discriminator, num_classes=self.num_classes
        )
        initialise(self)
        if spectral_norm:
            normalise_spectra(self.discriminator)

    def forward(self, noise: Tensor, condition: Tensor | None = None) -> Tensor:
        """`noise` (B, Z), `condition` (B,) int64 or None → scores (B,)."""
        return self.discriminator(self.generator(noise, condition), condition)


def initialise(network: DCGAN) -> None:
    """Paper, section 4: weights N(0, 0.02); scales N(1, 0.02), as in the authors' code.

    The generator's classes start at N(0, 0.1), small beside the latent that they are joined to. As large as the latent
    they were all it listened to in our trials: one and the same picture for each class.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
            nn.init.normal_(module.weight, 1.0, 0.02)
    if network.generator.embedding is not None:
        nn.init.normal_(network.generator.embedding.weight, 0.0, 0.1)
    if network.discriminator.projection is not None:
        nn.init.normal_(network.discriminator.projection.weight, 0.0, 0.02)


def normalise_spectra(discriminator: nn.Module) -> None:
    for module in list(discriminator.modules()):
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.Embedding)):
            spectral_norm(module)
