"""Grad-CAM: which places of an image speak for a class.

R. Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization", 2016,
1610.02391. With the maps A^k of a layer, Z places each, and the score y^c of class c before the softmax:

    α_k^c = 1/Z Σ_ij ∂y^c/∂A^k_ij   (eq. 1),      L^c = ReLU(Σ_k α_k^c A^k)   (eq. 2).

Shapes: B batch, C channels, H W size, K classes.
"""

import torch
from torch import Tensor, nn


def grad_cam(network: nn.Module, input: Tensor, *, layer: str, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """L^c (B, H, W) of the layer's last call, and the logits (B, K), for images (B, C, H, W).

    `classes` (B,) are the c, by default those that the network, which should be in evaluation mode, predicts.
    """
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[-1].clone()  # the next layer may work in place

    hook = network.get_submodule(layer).register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logits = network(input)
            chosen = logits.argmax(1) if classes is None else classes
            # an example's logits depend on itself alone, so that the gradient of the sum holds those of the examples
            (gradient,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), kept[-1])
    finally:
        hook.remove()
    weights = gradient.mean((2, 3), keepdim=True)  # (B, C, 1, 1)
    return (weights * kept[-1].detach()).sum(1).relu(), logits.detach()


def default_layer(maps: dict[str, tuple[int, int]]) -> str | None:
    """The last of `zoo.layer_calls.maps` with more than one place, else the last; None for a network without maps."""
    return next((name for name, (h, w) in reversed(maps.items()) if h * w > 1), next(reversed(maps), None))
