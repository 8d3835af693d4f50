"""Changes to a built network by the type of its modules: activation, norm, dropout, noise on residual branches.

One place for what every model file would otherwise take as arguments. A swap works in place, before the weights are
initialised or loaded, and keeps device, dtype, training mode and every key of the state dict that it does not replace.
An object that stands in several places is replaced by one object in all of them. A swap that finds nothing to change,
or that makes no sense, is a ValueError.

Shapes: B batch, C channels, H W size, F features.
"""

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd
from torchvision.ops import StochasticDepth

from zoo.models.lenet import Squash
from zoo.models.mlp import ScaledTanh

Activation = Literal[
    "relu", "leaky_relu", "prelu", "elu", "selu", "softplus", "silu", "gelu", "tanh", "scaled_tanh", "sigmoid"
]
Norm = Literal["batch", "layer", "instance", "group", "none"]
DropoutKind = Literal["plain", "spatial"]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "softplus": nn.Softplus,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "scaled_tanh": ScaledTanh,
    "sigmoid": nn.Sigmoid,
}
_SATURATING: tuple[type[nn.Module], ...] = (nn.Tanh, nn.Sigmoid, nn.Softsign, ScaledTanh, Squash)
_RECTIFYING: tuple[type[nn.Module], ...] = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.ELU, nn.CELU, nn.SELU, nn.Softplus),
    *(nn.SiLU, nn.Mish, nn.GELU, nn.Hardswish),
)

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)  # by the number of dimensions of a map, from 1
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_NORMS = (*_BATCH_NORMS, *_INSTANCE_NORMS, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm)


class DropBlock(nn.Module):
    """In training, zero square blocks of each map, and scale the rest to keep the mean.

    G. Ghiasi, T.-Y. Lin, Q. Le, "DropBlock: a regularization method for convolutional networks", 2018, 1810.12890,
    algorithm 1 and equation 1. `p` is 1 − keep_prob; blocks of `block_size`, or of the whole map where that is smaller,
    lie inside the map and may overlap, so that slightly less than the share `p` is dropped. (torchvision's DropBlock2d
    gives the same, but fails where the clipped size is even, as at the 4×4 maps of small networks.)
    """

    def __init__(self, *, p: float, block_size: int = 7) -> None:
        super().__init__()
        self.p, self.block_size = p, block_size

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        if not self.training or self.p == 0:
            return input
        batch, channels, height, width = input.shape
        size = min(self.block_size, height, width)
        corners = (height - size + 1, width - size + 1)  # where a block's upper left corner can lie
        gamma = self.p / size**2 * height * width / (corners[0] * corners[1])
        seeds = input.new_empty(batch, channels, *corners).bernoulli_(gamma)
        kept = 1 - F.max_pool2d(F.pad(seeds, [size - 1] * 4), size, stride=1)  # (B, C, H, W)
        share = kept.mean(dtype=torch.promote_types(kept.dtype, torch.float32))  # a sum overflows in half precision
        return input * kept / share.clamp(min=1 / kept.numel())

    def extra_repr(self) -> str:
        return f"p={self.p}, block_size={self.block_size}"


NOISE = (_DropoutNd, StochasticDepth, DropBlock)  # what draws random numbers in training


def swap(
    network: nn.Module,
    *,
    activation: Activation | None = None,
    norm: Norm | None = None,
    dropout: float | None = None,
    dropout_kind: DropoutKind | None = None,
    stochastic_depth: float = 0.0,
    drop_block: float = 0.0,
    drop_block_size: int = 7,
) -> nn.Module:
    """Change `network` in place and return it; None and 0 leave things as they are.

    `dropout` is the rate of every dropout layer, `dropout_kind` says whether single units or whole maps are dropped;
    `stochastic_depth` and `drop_block` are probabilities. The functions below say what each does. Raises ValueError for
    an unknown name, a number out of range, and for a network without a place for the change.
    """
    names = (("activation", activation, Activation), ("norm", norm, Norm), ("dropout_kind", dropout_kind, DropoutKind))
    for argument, name, known in names:
        if name is not None and name not in get_args(known):
            raise ValueError(f"swap.{argument}={name}: must be one of {', '.join(get_args(known))}")
    rates = {"dropout": dropout, "stochastic_depth": stochastic_depth, "drop_block": drop_block}
    for argument, rate in rates.items():
        if rate is not None and not 0 <= rate < 1:
            raise ValueError(f"swap.{argument}={rate}: must be at least 0 and below 1")
    if drop_block_size < 1:
        raise ValueError(f"swap.drop_block_size={drop_block_size}: must be at least 1")
    if norm is not None:
        _swap_norm(network, norm)
    if activation is not None:
        _swap_activation(network, activation)
    if dropout_kind is not None:
        _swap_dropout(network, dropout_kind)
    if dropout is not None:
        _set_dropout(network, dropout)
    if stochastic_depth or drop_block:
        _swap_drop_path(network, stochastic_depth, drop_block, drop_block_size)
    return network


def _replace(network: nn.Module, make: Callable[[nn.Module], nn.Module | None]) -> int:
    """Put what `make` gives in the place of each module for which it gives one; how many objects were replaced."""
    first = next(network.parameters(), torch.empty(0))
    made: dict[nn.Module, nn.Module] = {}
    for name, module in network.named_modules():  # each object once, in the order of registration
        if name and (new := make(module)) is not None:
            like = next(module.parameters(), first)
            made[module] = new if new is module else new.to(like.device, like.dtype).train(module.training)
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):  # named_children() leaves out the second place of an object
            if child in made:
                setattr(parent, name, made[child])
    return len(made)


# Activation ---------------------------------------------------------------------------------------------------------


def _swap_activation(network: nn.Module, activation: str) -> None:
    """Replace every activation. Beside rectifiers (ReLU and its kin), tanh and sigmoid are taken for gates and outputs
    and stay.

    The new ones are never in place, since not all of them could be. A PReLU has one slope, starting at 1/4 (He et al.
    2015, 1502.01852, "channel-shared"); where one object served several places, these share the slope. SELU needs
    dropout that keeps mean and variance (Klambauer et al. 2017, 1706.02515): dropout becomes alpha dropout with it,
    and alpha dropout plain with any other activation.
    """
    rectifies = any(isinstance(module, _RECTIFYING) for module in network.modules())
    old = _RECTIFYING if rectifies else _SATURATING
    if not _replace(network, lambda module: ACTIVATIONS[activation]() if isinstance(module, old) else None):
        raise ValueError(f"swap.activation={activation}: the network has no activation to replace")
    alpha: dict[type, type] = {nn.Dropout: nn.AlphaDropout, nn.Dropout2d: nn.FeatureAlphaDropout}
    kinds = alpha if activation == "selu" else {new: plain for plain, new in alpha.items()}

    def make(module: nn.Module) -> nn.Module | None:
        return kinds[type(module)](module.p) if type(module) in kinds else None

    _replace(network, make)


# Normalisation ------------------------------------------------------------------------------------------------------


def _swap_norm(network: nn.Module, norm: str) -> None:
    """Replace every normalisation of (B, C, …) maps or (B, F) vectors; eps, gamma and beta are those of the old one.

    `layer` is over (C, H, W) with a gamma for each channel: one group. `group` has up to 32 groups (Wu & He 2018,
    1803.08494) of equally many channels, at least two each, as one-channel groups would be `instance`, which has gamma
    and beta too. Vectors have no maps, so `group` and `instance` are refused for them. `none` also gives every
    convolution without a bias one, at 0, since it went without only for the norm's beta.

    nn.LayerNorm normalises the last axes, and nothing tells where its channels are: only `none` replaces it. A local
    response normalisation is taken to have the channels of the convolution registered before it. Batch norms stay
    under `batch`.
    """
    channels: int | None = None

    def make(module: nn.Module) -> nn.Module | None:
        nonlocal channels
        if isinstance(module, _ConvNd):
            channels = module.out_channels
        if not isinstance(module, _NORMS):
            return None
        if norm == "none":
            return nn.Identity()
        if isinstance(module, nn.LayerNorm):
            if norm == "layer":
                return module
            raise ValueError(f"swap.norm={norm}: must be layer or none for nn.LayerNorm, whose channels nothing tells")
        if isinstance(module, nn.LocalResponseNorm):
            if channels is None:
                raise ValueError(f"swap.norm={norm}: must be none for a response normalisation before any convolution")
            return _make_norm(norm, channels, 2, 1e-5)
        if isinstance(module, nn.GroupNorm):
            new = _make_norm(norm, module.num_channels, 2, module.eps)
        else:
            dimensions = 1 + next(i for i in range(3) if isinstance(module, (_BATCH_NORMS[i], _INSTANCE_NORMS[i])))
            if norm == "batch" and isinstance(module, _BATCH_NORMS):
                return module
            if norm in ("group", "instance") and isinstance(module, nn.BatchNorm1d):
                raise ValueError(f"swap.norm={norm}: must be batch, layer or none for vectors, which have no maps")
            new = _make_norm(norm, module.num_features, dimensions, module.eps)
        if module.weight is not None:
            new.weight, new.bias = module.weight, module.bias
        return new

    if not _replace(network, make):
        raise ValueError(f"swap.norm={norm}: the network has no normalisation layer to replace")
    if norm == "none":
        for module in network.modules():
            if isinstance(module, _ConvNd) and module.bias is None:
                module.bias = nn.Parameter(module.weight.new_zeros(module.out_channels))
            if getattr(module, "inplace", False):
                module.inplace = False  # type: ignore[assignment]  # the norm's output was free to overwrite; its input may be a shortcut's, too


def _make_norm(norm: str, channels: int, dimensions: int, eps: float) -> nn.Module:
    if norm == "batch":
        return _BATCH_NORMS[dimensions - 1](channels, eps=eps)
    if norm == "instance":
        return _INSTANCE_NORMS[dimensions - 1](channels, eps=eps, affine=True)
    groups = 1
    if norm == "group":
        groups = max(n for n in range(1, 33) if channels % n == 0 and (n == 1 or channels // n >= 2))
    return nn.GroupNorm(groups, channels, eps=eps)


# Dropout and noise on residual branches -----------------------------------------------------------------------------


def _swap_dropout(network: nn.Module, kind: str) -> None:
    """Make dropout `plain` (single units), or `spatial` (whole maps; Tompson et al. 2015, 1411.4280).

    Spatial dropout needs maps (B, C, H, W): it comes before convolutions only. What is followed by a linear layer, or
    by none, in the order of registration, sees vectors or pooled maps and stays as it is.
    """
    before: dict[nn.Module, nn.Module] = {}  # the layer with weights that follows each dropout
    waiting: list[nn.Module] = []
    for module in network.modules():
        if isinstance(module, _DropoutNd):
            waiting.append(module)
        elif isinstance(module, _ConvNd | nn.Linear):
            before.update(dict.fromkeys(waiting, module))
            waiting.clear()

    def make(module: nn.Module) -> nn.Module | None:
        if not isinstance(module, _DropoutNd):
            return None
        if kind == "plain":
            return nn.Dropout(module.p)
        return nn.Dropout2d(module.p) if isinstance(before.get(module), nn.Conv2d | nn.ConvTranspose2d) else None

    if not _replace(network, make):
        lacks = "dropout layer" if kind == "plain" else "dropout before a convolution, where there are maps to drop"
        raise ValueError(f"swap.dropout_kind={kind}: the network has no {lacks}")


def _set_dropout(network: nn.Module, rate: float) -> None:
    layers = [module for module in network.modules() if isinstance(module, _DropoutNd)]
    if not layers:
        raise ValueError(f"swap.dropout={rate}: the network has no dropout layer whose rate this could be")
    for layer in layers:
        layer.p = rate
    for stack in network.modules():
        if isinstance(stack, nn.RNNBase) and stack.num_layers > 1:  # these drop between their layers themselves
            stack.dropout = rate


def _swap_drop_path(network: nn.Module, stochastic_depth: float, drop_block: float, block_size: int) -> None:
    """Put noise at the end of each residual branch, where a block has its `drop_path`; no parameters.

    Stochastic depth: G. Huang, Y. Sun, Z. Liu, D. Sedra, K. Weinberger, "Deep networks with stochastic depth", 2016,
    1603.09382. Block l of L loses its branch with the probability l/L·p (the paper's linear decay; p = 0.5 there).
    Deviations: each example is drawn on its own, not the mini-batch, and what survives is scaled up in training instead
    of down in evaluation, which is the same in the mean.

    DropBlock is put into the last two stages, as the paper does with groups 3 and 4 of ResNet-50, a stage being the
    container of the blocks. Deviations: at the end of the branch only, not after each convolution and on shortcuts; the
    probability is the same from the first epoch on.
    """
    given = f"swap.stochastic_depth={stochastic_depth}" if stochastic_depth else f"swap.drop_block={drop_block}"
    places = [name for name, _ in network.named_modules() if name.rpartition(".")[2] == "drop_path"]
    if not places:
        raise ValueError(f"{given}: the network has no residual branches with a place for it (drop_path)")
    stages = [place.rpartition(".")[0].rpartition(".")[0] for place in places]  # of layer4.0.drop_path: layer4
    late = list(dict.fromkeys(stages))[-2:]
    for number, (place, stage) in enumerate(zip(places, stages, strict=True), 1):
        noise: list[nn.Module] = []
        if stochastic_depth:
            noise.append(StochasticDepth(number / len(places) * stochastic_depth, "row"))
        if drop_block and stage in late:
            noise.append(DropBlock(p=drop_block, block_size=block_size))
        if noise:
            training = network.get_submodule(place).training
            network.set_submodule(place, nn.Sequential(*noise).train(training))
