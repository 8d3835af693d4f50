"""What goes through each layer of a network, forwards and backwards, in one batch."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zoo.layer_calls import watch
from zoo.swaps import ACTIVATIONS

KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "convolution, linear": (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear),
    "activation": tuple(ACTIVATIONS.values()),
    "norm": (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm),
}
_OF_OUTPUT = ("mean", "std", "zeros", "dead", "gradient_norm", "gradient_std")
_OF_WEIGHTS = ("weight_norm", "weight_gradient_norm", "weight_gradient_std", "weight_gradient_ratio")
COLUMNS = ("layer", "type", "shape", *_OF_OUTPUT, *_OF_WEIGHTS)


def layer_statistics(network: nn.Module, loss: Callable[[], Tensor]) -> list[dict[str, Any]]:
    """One row for each call of a layer that `loss()` makes, in that order; its keys are `kind` and `COLUMNS`.

    `zeros` is the share of the output's numbers that are 0, `dead` the share of its units (channels of maps, features
    of vectors and of the steps of a sequence) that are 0 for every example and everywhere. Gradients are those of the
    loss, by the layer's output and by its weights (all but biases; None without weights; of all calls of the layer
    together); the ratio is |gradient| / |weight|. Existing gradients of the network are cleared.
    """
    rows: list[dict[str, Any]] = []
    modules: list[nn.Module] = []

    def see(name: str, module: nn.Module, output: Tensor) -> None:
        values = output.detach()
        is_zero = values == 0
        kind = next((kind for kind, types in KINDS.items() if isinstance(module, types)), "other")
        row = {"kind": kind, **dict.fromkeys(COLUMNS), "layer": name, "type": type(module).__name__}
        row |= {"shape": "×".join(map(str, values.shape[1:])), "mean": values.mean().item(), "std": _std(values)}
        row |= {"zeros": is_zero.float().mean().item()}
        units = -1 if values.ndim == 3 and not isinstance(module, nn.Conv1d) else 1  # (B, T, F), else (B, C, …)
        row |= {"dead": is_zero.movedim(units, 0).flatten(1).all(1).float().mean().item() if values.ndim > 1 else None}
        if output.requires_grad:  # a hook set here gets the gradient of this value, also if it is overwritten later
            output.register_hook(lambda g: row.update(gradient_norm=g.norm().item(), gradient_std=_std(g)))
        rows.append(row)
        modules.append(module)

    network.zero_grad()
    with torch.enable_grad(), watch(network, see):
        loss().backward()
    for row, module in zip(rows, modules, strict=True):
        weights = [p for name, p in module.named_parameters() if not name.endswith("bias") and p.grad is not None]
        if weights:
            weight = torch.cat([p.detach().flatten() for p in weights])
            gradient = torch.cat([p.grad.flatten() for p in weights if p.grad is not None])
            size, slope = weight.norm().item(), gradient.norm().item()
            row |= {"weight_norm": size, "weight_gradient_norm": slope, "weight_gradient_std": _std(gradient)}
            row |= {"weight_gradient_ratio": slope / size if size else None}
    network.zero_grad()
    return rows


def _std(values: Tensor) -> float:
    return values.detach().std(correction=0).item()
