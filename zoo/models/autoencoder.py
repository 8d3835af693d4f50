"""Autoencoders: an image is squeezed through a short code and made again from it.

G. Hinton, R. Salakhutdinov, "Reducing the dimensionality of data with neural networks", Science 313, 2006:
`DenseAutoencoder()` is their 784-1000-500-250-30 with logistic units and a linear code, 2,837,314 parameters.
Deliberate deviation: no layer-wise pre-training by restricted Boltzmann machines, as Adam does without it. The first
weights next to saturating units are Glorot's (Glorot & Bengio 2010, section 4), with sigmoids four times as large, as
theirs has slope 1/4 at 0; next to other units He's (2015, 1502.01852). Biases start at 0.

`DenseAutoencoder(widths=[], output="linear")` is the linear autoencoder. At its least squared error the decoder spans
the subspace of the first principal components (Bourlard & Kamp 1988; Baldi & Hornik 1989). PCA's mean needs no care:
the biases learn it, as x̂ = W₂(W₁x + b₁) + b₂ is best with W₂W₁ = P, the projection, and W₂b₁ + b₂ = (1 − P)·mean.

What makes an autoencoder sparse, denoising or contractive is its loss: zoo/tasks/reconstruction.py. There is no batch
normalisation here: the contractive penalty needs codes that depend on their own image only.

The one rule on outputs: `decode` gives values of any size, which is what a cross-entropy wants; `pixels` makes pixels
of them, by the sigmoid where `output` is sigmoid, and unchanged where it is linear. `forward` gives pixels.

Shapes: B batch, C channels, H W size, Z units of the code, K classes.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.models.mlp import ACTIVATIONS

HIDDEN_2006 = (1000, 500, 250)  # the hidden layers of Hinton & Salakhutdinov
_SATURATING = ("sigmoid", "tanh", "scaled_tanh")


class Transposed(nn.Module):
    """The linear layer `of` the other way round, with the same weights and a bias of its own ("tied weights")."""

    def __init__(self, of: nn.Linear) -> None:
        super().__init__()
        self.of = (of,)  # in a tuple, so that the weights are registered once
        self.bias = nn.Parameter(torch.zeros(of.in_features))

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.of[0].weight.T, self.bias)


class Autoencoder(nn.Module):
    """What all autoencoders share; a subclass gives `encoder` and `decoder`. `code` is the number of its units."""

    encoder: nn.Sequential
    decoder: nn.Sequential

    def __init__(self, *, in_channels: int, image_size: int, code: int, output: Literal["sigmoid", "linear"]) -> None:
        super().__init__()
        if output not in ("sigmoid", "linear"):
            raise ValueError(f"output={output}: must be sigmoid or linear")
        self.shape = (in_channels, image_size, image_size)
        self.code, self.output = code, output

    def encode(self, input: Tensor) -> Tensor:
        """Map images (B, C, H, W) to codes (B, Z). Raises ValueError for images of another size."""
        if input.shape[1:] != self.shape:
            wanted = ", ".join(map(str, self.shape))
            raise ValueError(f"input of shape {tuple(input.shape)}: must be (B, {wanted})")
        return self.encoder(input)

    def decode(self, code: Tensor) -> Tensor:
        """Map codes (B, Z) to values (B, C, H, W), of which `pixels` makes pixels."""
        return self.decoder(code)

    def pixels(self, values: Tensor) -> Tensor:
        return torch.sigmoid(values) if self.output == "sigmoid" else values

    def forward(self, input: Tensor) -> Tensor:
        """Map images (B, C, H, W) to their reconstructions, pixels of the same shape."""
        return self.pixels(self.decode(self.encode(input)))


class DenseAutoencoder(Autoencoder):
    """Fully connected: `widths` hidden layers down to the code, and the same up again.

    `activation` follows each hidden layer and `code_activation` the code; linear is none. With `tied` the decoder's
    weights are the encoder's transposed, as in Vincent et al. 2008 and Rifai et al. 2011. Raises ValueError for
    arguments out of range.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        image_size: int = 28,
        widths: Sequence[int] = HIDDEN_2006,
        code: int = 30,
        activation: str = "sigmoid",
        code_activation: str = "linear",
        output: Literal["sigmoid", "linear"] = "sigmoid",
        tied: bool = False,
    ) -> None:
        super().__init__(in_channels=in_channels, image_size=image_size, code=code, output=output)
        self.encoder = _dense_encoder(in_channels, image_size, widths, code, activation, code_activation)
        linear = [layer for layer in self.encoder if isinstance(layer, nn.Linear)]
        layers: list[nn.Module] = []
        for layer in reversed(linear):
            layers.append(Transposed(layer) if tied else nn.Linear(layer.out_features, layer.in_features))
            if layer is not linear[0]:
                layers.append(ACTIVATIONS[activation]())
        self.decoder = nn.Sequential(*layers, nn.Unflatten(1, (in_channels, image_size, image_size)))
        _initialise(self, activation)


class ConvAutoencoder(Autoencoder):
    """`depth` convolutions 3×3 with stride 2 and a linear layer to the code; back by transposed convolutions 4×4.

    The first has 32 channels and each further one twice as many, times `width`. A transposed convolution of 4×4 with
    stride 2 covers every pixel equally often, which one of 3×3 does not (Odena et al. 2016, "Deconvolution and
    checkerboard artifacts"). Raises ValueError for arguments out of range and an `image_size` that cannot be halved
    `depth` times.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        image_size: int = 28,
        width: float = 1.0,
        depth: int = 2,
        code: int = 30,
        activation: str = "relu",
        code_activation: str = "linear",
        output: Literal["sigmoid", "linear"] = "sigmoid",
    ) -> None:
        super().__init__(in_channels=in_channels, image_size=image_size, code=code, output=output)
        self.encoder = _conv_encoder(in_channels, image_size, width, depth, code, activation, code_activation)
        convolutions = [layer for layer in self.encoder if isinstance(layer, nn.Conv2d)]
        channels, size = convolutions[-1].out_channels, image_size // 2**depth
        layers: list[nn.Module] = [nn.Linear(code, channels * size**2), ACTIVATIONS[activation]()]
        layers.append(nn.Unflatten(1, (channels, size, size)))
        for layer in reversed(convolutions):
            layers.append(nn.ConvTranspose2d(layer.out_channels, layer.in_channels, 4, stride=2, padding=1))
            if layer is not convolutions[0]:
                layers.append(ACTIVATIONS[activation]())
        self.decoder = nn.Sequential(*layers)
        _initialise(self, activation)


class EncoderClassifier(nn.Module):
    """An autoencoder's encoder, with the same names of its weights, and a linear head on the code.

    `kind` dense takes the arguments of `DenseAutoencoder`, conv those of `ConvAutoencoder`. The head starts near 0: the
    units of a learnt code have deviations of 2 and means as large, and with He's weights their logits would take a
    hundred steps to undo. Raises ValueError as they do, and for an option of the other kind that is not at its default.
    """

    def __init__(
        self,
        *,
        kind: Literal["dense", "conv"] = "conv",
        in_channels: int = 1,
        image_size: int = 28,
        num_classes: int = 10,
        widths: Sequence[int] = HIDDEN_2006,
        width: float = 1.0,
        depth: int = 2,
        code: int = 30,
        activation: str = "relu",
        code_activation: str = "linear",
    ) -> None:
        super().__init__()
        if kind not in ("dense", "conv"):
            raise ValueError(f"kind={kind}: must be dense or conv")
        if num_classes < 1:
            raise ValueError(f"num_classes={num_classes}: must be 1 or more")
        if kind == "conv" and tuple(widths) != HIDDEN_2006:
            raise ValueError(f"widths={list(widths)}: must be {list(HIDDEN_2006)} with kind=conv, which has none")
        if kind == "dense" and (width, depth) != (1.0, 2):
            raise ValueError(f"width={width}, depth={depth}: must be 1.0 and 2 with kind=dense, which has neither")
        if kind == "dense":
            self.encoder = _dense_encoder(in_channels, image_size, widths, code, activation, code_activation)
        else:
            self.encoder = _conv_encoder(in_channels, image_size, width, depth, code, activation, code_activation)
        self.head = nn.Linear(code, num_classes)
        _initialise(self, activation)
        nn.init.normal_(self.head.weight, 0, 0.01)

    def forward(self, input: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, K)."""
        return self.head(self.encoder(input))


def _check(in_channels: int, image_size: int, code: int, activation: str, code_activation: str) -> None:
    for name, value in {"in_channels": in_channels, "image_size": image_size, "code": code}.items():
        if value < 1:
            raise ValueError(f"{name}={value}: must be 1 or more")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation={activation}: must be one of {', '.join(ACTIVATIONS)}")
    if code_activation not in ("linear", *ACTIVATIONS):
        raise ValueError(f"code_activation={code_activation}: must be one of linear, {', '.join(ACTIVATIONS)}")


def _dense_encoder(
    in_channels: int, image_size: int, widths: Sequence[int], code: int, activation: str, code_activation: str
) -> nn.Sequential:
    _check(in_channels, image_size, code, activation, code_activation)
    if any(width < 1 for width in widths):
        raise ValueError(f"widths={list(widths)}: must be 1 or more each")
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise([in_channels * image_size**2, *widths, code]):
        layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
    layers.pop()  # the code has its own
    return nn.Sequential(*layers, *([] if code_activation == "linear" else [ACTIVATIONS[code_activation]()]))


def _conv_encoder(
    in_channels: int, image_size: int, width: float, depth: int, code: int, activation: str, code_activation: str
) -> nn.Sequential:
    _check(in_channels, image_size, code, activation, code_activation)
    if not 0 < width < math.inf:
        raise ValueError(f"width={width}: must be more than 0")
    if depth < 1:
        raise ValueError(f"depth={depth}: must be 1 or more")
    if image_size % 2**depth:
        raise ValueError(
            f"image_size={image_size}: must be a multiple of {2**depth} for depth={depth}, as each level halves it"
        )
    channels = [in_channels, *(max(1, round(32 * 2**level * width)) for level in range(depth))]
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), ACTIVATIONS[activation]()]
    layers += [nn.Flatten(), nn.Linear(channels[-1] * (image_size // 2**depth) ** 2, code)]
    return nn.Sequential(*layers, *([] if code_activation == "linear" else [ACTIVATIONS[code_activation]()]))


def _initialise(network: nn.Module, activation: str) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            if activation in _SATURATING:
                nn.init.xavier_uniform_(layer.weight, gain=4.0 if activation == "sigmoid" else 1.0)
            else:
                # a transposed convolution's weight is (in, out, …), and with stride 2 a quarter of it meets in a pixel
                incoming = layer.weight[0].numel()
                if isinstance(layer, nn.ConvTranspose2d):
                    incoming = layer.in_channels * math.prod(layer.kernel_size) // math.prod(layer.stride)
                nn.init.normal_(layer.weight, 0, math.sqrt(2 / incoming))
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
