"""Initialisations of a whole network, to compare what the first weights do.

Each is called once on the built network with a generator, and with a batch of inputs where `needs_inputs` is true. It
fills the weights of every linear, convolutional and recurrent layer and of attention's projections, and makes their
biases zero, an LSTM's forget-gate biases too, unless `zero_bias=False`. Normalisation layers, embeddings, frozen
parameters and buffers are left alone.

Weights that hold several matrices are filled one matrix at a time: the gates of a recurrent layer, the projections of
attention, the groups of a convolution. fan_in is the number of inputs to a unit and fan_out the number of units an
input goes to, within that matrix. PyTorch's functions differ where they cannot see the layer: they swap the two for
transposed convolutions, and count the fan_out of all groups or gates together. Strides are left out, as usual.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from zoo.swaps import NOISE

_LAYERS = (nn.Linear, _ConvNd, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)


@dataclass(frozen=True, kw_only=True)
class Default:
    """The model's own initialisation, as its file or PyTorch has it: nothing is changed."""

    needs_inputs: ClassVar[bool] = False

    def __call__(self, network: nn.Module, generator: torch.Generator, *inputs: Tensor) -> None:
        return


@dataclass(frozen=True, kw_only=True)
class Init:
    """Base: walks over the network and calls `fill` on every matrix. Raises ValueError if the network has none."""

    needs_inputs: ClassVar[bool] = False  # whether `inputs`, the network's arguments for a batch, must be given

    zero_bias: bool = True  # false leaves the biases as the model has them

    @torch.no_grad()
    def __call__(self, network: nn.Module, generator: torch.Generator, *inputs: Tensor) -> None:
        filled = 0
        for module in network.modules():
            if not isinstance(module, _LAYERS):
                continue
            for name, parameter in module.named_parameters(recurse=False):
                if not parameter.requires_grad:
                    continue
                if "bias" in name:
                    if self.zero_bias:
                        parameter.zero_()
                    continue
                for matrix, fan_in, fan_out in _matrices(module, name, parameter):
                    self.fill(matrix, fan_in, fan_out, generator)
                    filled += 1
        if not filled:
            raise ValueError(f"init={type(self).__name__}: the network has no weight matrix to fill; use init=default")

    def fill(self, matrix: Tensor, fan_in: int, fan_out: int, generator: torch.Generator) -> None:
        """Fill one matrix, or one group of convolution kernels, in place."""
        raise NotImplementedError


def _matrices(module: nn.Module, name: str, weight: Tensor) -> Iterator[tuple[Tensor, int, int]]:
    """The matrices stacked in a weight, each with its fan_in and fan_out."""
    stacked = 1
    if isinstance(module, _ConvNd):
        stacked = module.groups
    elif isinstance(module, nn.RNNBase | nn.RNNCellBase) and name.startswith(("weight_ih", "weight_hh")):
        stacked = len(weight) // module.hidden_size
    elif name == "in_proj_weight":  # query, key and value of nn.MultiheadAttention
        stacked = 3
    for matrix in weight.chunk(stacked):
        kernel = matrix[0, 0].numel()
        rows, columns = matrix.shape[0] * kernel, matrix.shape[1] * kernel
        yield (matrix, rows, columns) if isinstance(module, _ConvTransposeNd) else (matrix, columns, rows)


@dataclass(frozen=True, kw_only=True)
class _Scaled(Init):
    """Base of those that choose the variance of the weights by the fans."""

    distribution: Literal["uniform", "normal"] = "uniform"

    def __post_init__(self) -> None:
        if self.distribution not in ("uniform", "normal"):
            raise ValueError(f"distribution={self.distribution}: must be uniform or normal")

    def variance(self, fan_in: int, fan_out: int) -> float:
        raise NotImplementedError

    def fill(self, matrix: Tensor, fan_in: int, fan_out: int, generator: torch.Generator) -> None:
        std = math.sqrt(self.variance(fan_in, fan_out))
        if self.distribution == "normal":
            matrix.normal_(0.0, std, generator=generator)
        else:
            matrix.uniform_(-math.sqrt(3) * std, math.sqrt(3) * std, generator=generator)


@dataclass(frozen=True, kw_only=True)
class LeCun(_Scaled):
    """Variance 1/fan_in. LeCun, Bottou, Orr, Müller 1998, "Efficient backprop", section 4.6."""

    def variance(self, fan_in: int, fan_out: int) -> float:
        return 1 / fan_in


@dataclass(frozen=True, kw_only=True)
class Glorot(_Scaled):
    """Variance 2/(fan_in + fan_out). Glorot & Bengio 2010, "Understanding the difficulty of training deep
    feedforward neural networks", eq. 12 and 16."""

    def variance(self, fan_in: int, fan_out: int) -> float:
        return 2 / (fan_in + fan_out)


@dataclass(frozen=True, kw_only=True)
class He(_Scaled):
    """Variance 2/((1 + a²)·fan) for ReLUs of the negative slope a. He et al. 2015, 1502.01852, eq. 10, 14 and 15."""

    mode: Literal["fan_in", "fan_out"] = "fan_in"
    negative_slope: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in ("fan_in", "fan_out"):
            raise ValueError(f"mode={self.mode}: must be fan_in or fan_out")

    def variance(self, fan_in: int, fan_out: int) -> float:
        return 2 / ((1 + self.negative_slope**2) * (fan_in if self.mode == "fan_in" else fan_out))


@dataclass(frozen=True, kw_only=True)
class Orthogonal(Init):
    """Orthonormal rows or columns, whichever are fewer, times `gain`. Saxe, McClelland, Ganguli 2013, 1312.6120."""

    gain: float = 1.0

    def fill(self, matrix: Tensor, fan_in: int, fan_out: int, generator: torch.Generator) -> None:
        nn.init.orthogonal_(matrix, self.gain, generator=generator)


@dataclass(frozen=True, kw_only=True)
class LSUV(Init):
    """Layer-sequential unit variance. Mishkin & Matas 2015, "All you need is a good init", 1511.06422, algorithm 1.

    Orthonormal weights first. Then, from the first layer called to the last, the weights of each linear or
    convolutional layer are divided by the standard deviation of its outputs over the whole batch, until their variance
    is within `tol` of 1. The inputs should have variance 1 themselves, and be a few hundred. Batch norms run on the
    batch's statistics and keep their own; dropout is off; the network's mode stays as it is.

    A layer that several places share is measured where it is called first. Left orthonormal are layers that are not
    called as modules, recurrent layers, attention, and layers whose outputs do not vary, as behind a gamma of 0.

    Raises ValueError without inputs, and if a layer is not there after `max_tries` divisions, as one whose biases alone
    vary more than 1.
    """

    needs_inputs: ClassVar[bool] = True

    tol: float = 0.1
    max_tries: int = 10

    def __post_init__(self) -> None:
        _check_positive("tol", self.tol)
        if self.max_tries < 1:
            raise ValueError(f"max_tries={self.max_tries}: must be at least 1")

    @torch.no_grad()
    def __call__(self, network: nn.Module, generator: torch.Generator, *inputs: Tensor) -> None:
        if not inputs:
            raise ValueError("init=LSUV: must be given a batch of inputs")
        super().__call__(network, generator)
        modes = {module: module.training for module in network.modules()}
        buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
        names = {module: name for name, module in network.named_modules()}
        done: set[nn.Parameter] = set()

        def scale(layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            """Scale a layer's weight at its first call, and let the later layers see what it gives then."""
            weight = layer._parameters.get("weight")
            if weight is None or weight in done or not weight.requires_grad:
                return output
            done.add(weight)
            for _ in range(self.max_tries):
                variance = output.var(correction=0).item()
                if variance == 0 or abs(variance - 1) < self.tol:
                    return output
                weight.div_(math.sqrt(variance))
                output = layer.forward(*args)
            variance = output.var(correction=0).item()
            if not abs(variance - 1) < self.tol:
                raise ValueError(
                    f"init=LSUV: the outputs of {names[layer]} have variance {variance:.3g} after "
                    f"max_tries={self.max_tries}; use zero_bias=true, or more tries or tolerance"
                )
            return output

        layers = [module for module in network.modules() if isinstance(module, nn.Linear | _ConvNd)]
        hooks = [layer.register_forward_hook(scale) for layer in layers]
        try:
            network.train()
            for module in network.modules():
                if isinstance(module, NOISE):
                    module.eval()
            network(*inputs)
        finally:
            for hook in hooks:
                hook.remove()
            for module, mode in modes.items():
                module.training = mode
            for buffer, value in buffers:
                buffer.copy_(value)

    def fill(self, matrix: Tensor, fan_in: int, fan_out: int, generator: torch.Generator) -> None:
        nn.init.orthogonal_(matrix, generator=generator)


@dataclass(frozen=True, kw_only=True)
class Normal(Init):
    """N(0, std²) in every layer, as Krizhevsky et al. 2012 with std 0.01."""

    std: float = 0.01

    def __post_init__(self) -> None:
        _check_positive("std", self.std)

    def fill(self, matrix: Tensor, fan_in: int, fan_out: int, generator: torch.Generator) -> None:
        matrix.normal_(0.0, self.std, generator=generator)


@dataclass(frozen=True, kw_only=True)
class TruncatedNormal(Init):
    """N(0, std²) cut at ±2·std, as in the Inception networks (Szegedy et al. 2016, 1512.00567).

    `std` is that of the normal distribution before the cut; the weights then have 0.8796·std.
    """

    std: float = 0.1

    def __post_init__(self) -> None:
        _check_positive("std", self.std)

    def fill(self, matrix: Tensor, fan_in: int, fan_out: int, generator: torch.Generator) -> None:
        # The bounds are absolute, not in units of std.
        nn.init.trunc_normal_(matrix, 0.0, self.std, -2 * self.std, 2 * self.std, generator=generator)


@dataclass(frozen=True, kw_only=True)
class Uniform(Init):
    """U(−limit, limit) in every layer."""

    limit: float = 0.05

    def __post_init__(self) -> None:
        _check_positive("limit", self.limit)

    def fill(self, matrix: Tensor, fan_in: int, fan_out: int, generator: torch.Generator) -> None:
        matrix.uniform_(-self.limit, self.limit, generator=generator)


@dataclass(frozen=True, kw_only=True)
class Constant(Init):
    """The same value everywhere, to see it fail: equal units get equal gradients and stay equal."""

    value: float = 0.0

    def fill(self, matrix: Tensor, fan_in: int, fan_out: int, generator: torch.Generator) -> None:
        matrix.fill_(self.value)


def _check_positive(name: str, value: float) -> None:
    if value <= 0:
        raise ValueError(f"{name}={value}: must be above 0")
