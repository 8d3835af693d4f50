"""Variational autoencoders: dense, convolutional, and told the class.

D. P. Kingma, M. Welling, "Auto-encoding variational Bayes", ICLR 2014, 1312.6114; the condition: K. Sohn, X. Yan,
H. Lee, "Learning structured output representation using deep conditional generative models", NIPS 2015.

`VAE` with one hidden layer of 500 tanh units, all parameters from N(0, .01), which is a variance, is the
paper's network for digits; with one of 400 ReLU units, 20 latents and PyTorch's initial weights the one of PyTorch's
examples; `hidden=[200, 200]`, `latent_size=50`, tanh that of Burda et al. 2016, 1509.00519, with one stochastic layer.
`ConvVAE` is ours: 4×4 convolutions of stride 2 and their mirror image, without normalisation, PyTorch's initial
weights.

Deliberate deviations: a Gaussian decoder has one learnt σ for all pixels, not one for each (which lets single pixels
collapse on their mean); the condition, a class, joins the encoder's input and the latent, as in Sohn et al., but the
prior does not depend on it.

Shapes: B batch, C channels, S image size, Z latent dimensions, K classes.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU}
Likelihood = Literal["bernoulli", "gaussian"]


class _Base(nn.Module):
    """What the networks share. A subclass builds `encoder` (pictures and class to features), `mean`, `log_variance`
    and `decoder` (latent and class to pictures).

    Raises ValueError for a latent size below 1, an unknown likelihood or activation, `conditional` without
    `num_classes`, for an input of another shape than (B, C, S, S), and for a condition that is missing or not wanted.
    """

    encoder: nn.Module
    mean: nn.Module
    log_variance: nn.Module
    decoder: nn.Module

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: int,
        latent_size: int,
        activation: str,
        likelihood: str,
        num_classes: int | None,
        conditional: bool,
    ) -> None:
        super().__init__()
        if latent_size < 1:
            raise ValueError(f"latent_size={latent_size}: must be at least 1")
        if activation not in _ACTIVATIONS:
            raise ValueError(f"activation={activation}: must be one of {', '.join(_ACTIVATIONS)}")
        if likelihood not in ("bernoulli", "gaussian"):
            raise ValueError(f"likelihood={likelihood}: must be bernoulli or gaussian")
        if conditional and (num_classes is None or num_classes < 2):
            raise ValueError(f"conditional=true: must be false for data without classes (num_classes={num_classes})")
        self.shape = (in_channels, image_size, image_size)
        self.latent_size, self.likelihood = latent_size, likelihood
        self.num_classes = num_classes if conditional else None
        if likelihood == "gaussian":
            # σ of all pixels; it starts near the deviation of a data set's pixels, as its rate is that of the weights
            self.log_scale = nn.Parameter(torch.tensor(math.log(0.25)))

    def forward(self, input: Tensor, noise: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(B, C, S, S), standard normal noise (B, Z), classes (B,): reconstruction (B, C, S, S), mean, log-variance.

        The reconstruction is of the latent mean + exp(log_variance/2)·noise; what it is: see `decode`.
        """
        mean, log_variance = self.encode(input, condition)
        return self.decode(mean + torch.exp(0.5 * log_variance) * noise, condition), mean, log_variance

    def encode(self, input: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, both (B, Z), of the latents of pictures (B, C, S, S) with pixels from 0 to 1."""
        if input.shape[1:] != self.shape:
            raise ValueError(f"input of shape {tuple(input.shape)}: must be (batch, {', '.join(map(str, self.shape))})")
        features = self.encoder(self.join(input, condition))
        return self.mean(features), self.log_variance(features)

    def decode(self, latent: Tensor, condition: Tensor | None = None) -> Tensor:
        """Pictures (B, C, S, S) of latents (B, Z): logits (bernoulli) or means from 0 to 1 (gaussian)."""
        output = self.decoder(torch.cat([latent, *self.one_hot(condition, latent)], 1)).view(-1, *self.shape)
        # "constrained to (0, 1) using a sigmoidal activation": Kingma & Welling, section 5
        return torch.sigmoid(output) if self.likelihood == "gaussian" else output

    def join(self, input: Tensor, condition: Tensor | None) -> Tensor:
        """The pictures, and the class where there is one, as the encoder reads them."""
        raise NotImplementedError

    def one_hot(self, condition: Tensor | None, like: Tensor) -> list[Tensor]:
        """Classes (B,) as one tensor (B, K) in the type and on the device of `like`; nothing without."""
        if self.num_classes is None:
            if condition is not None:
                raise ValueError("condition: must be left out, as this network is not conditional")
            return []
        if condition is None:
            raise ValueError(f"condition: must be given, classes from 0 to {self.num_classes - 1}")
        return [F.one_hot(condition.to(like.device), self.num_classes).to(like.dtype)]


class VAE(_Base):
    """Fully connected layers of the widths `hidden`, and their mirror image: 652,824 parameters by default.

    `init_std`: all weights and biases from N(0, init_std²); None: PyTorch's own. Raises ValueError also for widths
    below 1, or none, and for an `init_std` that is not above 0.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        image_size: int = 28,
        hidden: Sequence[int] = (400,),
        latent_size: int = 20,
        activation: Literal["relu", "tanh", "silu"] = "relu",
        likelihood: Likelihood = "bernoulli",
        num_classes: int | None = None,
        conditional: bool = False,
        init_std: float | None = None,
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            image_size=image_size,
            latent_size=latent_size,
            activation=activation,
            likelihood=likelihood,
            num_classes=num_classes,
            conditional=conditional,
        )
        if not hidden or any(width < 1 for width in hidden):
            raise ValueError(f"hidden={list(hidden)}: must be one width or more, each at least 1")
        if init_std is not None and not 0 < init_std < math.inf:
            raise ValueError(f"init_std={init_std}: must be above 0, or null for PyTorch's initial weights")
        pixels, classes = math.prod(self.shape), self.num_classes or 0

        def layers(widths: list[int]) -> list[nn.Module]:
            pairs = ([nn.Linear(*pair), _ACTIVATIONS[activation]()] for pair in pairwise(widths))
            return [module for pair in pairs for module in pair]

        self.encoder = nn.Sequential(*layers([pixels + classes, *hidden]))
        self.mean = nn.Linear(hidden[-1], latent_size)
        self.log_variance = nn.Linear(hidden[-1], latent_size)
        self.decoder = nn.Sequential(*layers([latent_size + classes, *reversed(hidden)]), nn.Linear(hidden[0], pixels))
        if init_std is not None:
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    nn.init.normal_(module.weight, std=init_std)
                    nn.init.normal_(module.bias, std=init_std)

    def join(self, input: Tensor, condition: Tensor | None) -> Tensor:
        return torch.cat([input.flatten(1), *self.one_hot(condition, input)], 1)  # (B, C·S·S + K)


class ConvVAE(_Base):
    """Convolutions that halve the picture to 7×7 (28 pixels) or 4×4 (32, 64), and their mirror image.

    32, 64, 128 and 256 channels times `width`, as many as there are halvings; the class joins the picture as K constant
    channels. Raises ValueError also for another `image_size`, and for a `width` that is not above 0.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        image_size: int = 28,
        latent_size: int = 20,
        width: float = 1.0,
        activation: Literal["relu", "tanh", "silu"] = "relu",
        likelihood: Likelihood = "bernoulli",
        num_classes: int | None = None,
        conditional: bool = False,
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            image_size=image_size,
            latent_size=latent_size,
            activation=activation,
            likelihood=likelihood,
            num_classes=num_classes,
            conditional=conditional,
        )
        halvings = {28: 2, 32: 3, 64: 4}.get(image_size)
        if halvings is None:
            raise ValueError(f"image_size={image_size}: must be 28, 32 or 64")
        if not 0 < width < math.inf:
            raise ValueError(f"width={width}: must be above 0")
        classes, side = self.num_classes or 0, image_size >> halvings
        channels = [max(1, round(32 * 2**i * width)) for i in range(halvings)]
        features = channels[-1] * side**2
        act = _ACTIVATIONS[activation]

        encoder: list[nn.Module] = []
        for inner, outer in pairwise([in_channels + classes, *channels]):
            encoder += [nn.Conv2d(inner, outer, 4, stride=2, padding=1), act()]  # 4 = 2·2: each pixel seen as often
        self.encoder = nn.Sequential(*encoder, nn.Flatten())
        self.mean = nn.Linear(features, latent_size)
        self.log_variance = nn.Linear(features, latent_size)
        decoder: list[nn.Module] = [nn.Linear(latent_size + classes, features)]
        decoder.append(nn.Unflatten(1, (channels[-1], side, side)))
        for inner, outer in pairwise([*reversed(channels), in_channels]):
            decoder += [act(), nn.ConvTranspose2d(inner, outer, 4, stride=2, padding=1)]
        self.decoder = nn.Sequential(*decoder)

    def join(self, input: Tensor, condition: Tensor | None) -> Tensor:
        planes = [one[:, :, None, None].expand(-1, -1, *self.shape[1:]) for one in self.one_hot(condition, input)]
        return torch.cat([input, *planes], 1)  # (B, C + K, S, S)
