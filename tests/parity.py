"""Hold a network against an independent implementation with the same weights, in double precision.

Compared are logits (auxiliary ones too) and loss in evaluation and in training mode, the gradient of every parameter,
the buffers after the pass (running statistics), and every parameter after one step of SGD. Dropout is set to 0 in both.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

OUTPUT_BAR, GRADIENT_BAR = 1e-9, 1e-7  # logits and loss: absolute; gradients: of a tensor's largest entry
ZERO = 1e-10  # a gradient below this is 0 but for rounding, as a bias's before batch normalisation; then absolute
RATE = 0.1


def outputs_of(result: Any) -> list[Tensor]:
    """Logits, then those of the auxiliary heads there are, of our dict or of torchvision's named tuple."""
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, dict):
        return [result["logits"], *result["aux"]]
    return [output for output in (result.logits, *result[1:]) if output is not None]


class Functional(nn.Module):
    """A twin that is a function: `compute(tensors, images, training)` with the state dict of `ours` in its order.

    Dots in names become underscores: `rename=Functional.rename`. What is frozen in `ours` is frozen here.
    """

    def __init__(self, ours: nn.Module, compute: Callable[[list[Tensor], Tensor, bool], Tensor]) -> None:
        super().__init__()
        self.compute, self.order = compute, [self.rename(name) for name in ours.state_dict()]
        for name, parameter in ours.named_parameters():
            twin = nn.Parameter(torch.empty_like(parameter), requires_grad=parameter.requires_grad)
            self.register_parameter(self.rename(name), twin)
        for name, buffer in ours.named_buffers():
            if name in ours.state_dict():
                self.register_buffer(self.rename(name), buffer.clone())

    @staticmethod
    def rename(name: str) -> str:
        return name.replace(".", "_")

    def forward(self, images: Tensor) -> Tensor:
        return self.compute([getattr(self, name) for name in self.order], images, self.training)


def of_pixels(targets: Tensor, logits: Tensor) -> Tensor:
    """The targets (B,); for logits of pixels (B, K, H, W) a class for each, (B, H, W), beginning with those."""
    if logits.ndim == 2:
        return targets
    places = torch.arange(logits[0, 0].numel()).view(logits.shape[2:])
    return (targets[:, None, None] + places) % logits.shape[1]


def run(network: nn.Module, images: Tensor, targets: Tensor) -> dict[str, Any]:
    """Everything that is compared, from a copy of `network`."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    with torch.no_grad():
        in_eval = outputs_of(network.eval()(images))
    in_train = outputs_of(network.train()(images))
    # the heads weigh differently, so that two exchanged heads would show
    loss = sum(
        (0.3**place) * F.cross_entropy(logits, of_pixels(targets, logits)) for place, logits in enumerate(in_train)
    )
    assert isinstance(loss, Tensor)
    assert all(torch.isfinite(output).all() for output in [*in_eval, *in_train]), "no number, so nothing to compare"
    loss.backward()
    gradients = {}
    for name, parameter in network.named_parameters():
        gradients[name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        assert torch.isfinite(gradients[name]).all(), f"{name} has a gradient that is no number"
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter -= RATE * parameter.grad
    return {
        "outputs": [*in_eval, *(logits.detach() for logits in in_train), loss.detach()],
        "gradients": gradients,
        "weights": {name: p.detach() for name, p in network.named_parameters()},
        "buffers": {name: b for name, b in network.named_buffers() if b.is_floating_point()},
    }


def largest(first: list[Tensor], second: list[Tensor]) -> float:
    return max((float((a - b).abs().max()) for a, b in zip(first, second, strict=True)), default=0.0)


def relative(ours: dict[str, Tensor], theirs: dict[str, Tensor], names: dict[str, str]) -> float:
    """Largest difference of a tensor over its largest entry, absolute for tensors that are 0 but for rounding."""
    worst = 0.0
    for name, tensor in ours.items():
        scale = float(theirs[names[name]].abs().max())
        difference = float((tensor - theirs[names[name]]).abs().max())
        worst = max(worst, difference if scale < ZERO else difference / scale)
    return worst


def differences(network: nn.Module, ours: list[Tensor], twin: list[Tensor]) -> dict[str, Any]:
    """What `compare` measures, of what a network and a twin compute with the same parameters; the last is the loss.

    For networks that do not map one image to logits.
    """
    names, parameters = zip(*network.named_parameters(), strict=True)
    first, second = (
        dict(zip(names, torch.autograd.grad(tensors[-1], parameters), strict=True)) for tensors in (ours, twin)
    )
    with torch.no_grad():
        outputs = largest(ours, twin)
        stepped = [
            {name: p - RATE * gradients[name] for name, p in network.named_parameters()}
            for gradients in (first, second)
        ]
    same = {name: name for name in names}
    return {
        **described(network),
        "outputs": outputs,
        "gradients": relative(first, second, same),
        "weights after a step": relative(*stepped, same),
    }


def described(network: nn.Module) -> dict[str, Any]:
    return {"network": type(network).__name__, "parameters": sum(p.numel() for p in network.parameters())}


def compare(
    ours: nn.Module,
    twin: nn.Module,
    *,
    image_size: int,
    channels: int = 3,
    num_classes: int = 1000,
    batch: int = 2,
    rename: Callable[[str], str] = lambda name: name,
) -> dict[str, Any]:
    """The differences between `ours` and `twin`, which gets our weights; `rename` turns our state-dict keys into its.

    Raises AssertionError where the keys or shapes differ.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # no norm is at its start, no bias at 0: equal numbers would hide an exchange
        for name, tensor in [*ours.named_parameters(), *ours.named_buffers()]:
            if tensor.ndim == 1 and tensor.is_floating_point():
                noise = 0.1 * torch.randn(tensor.shape, generator=generator)
                tensor.add_(noise.abs() if "running_var" in name else noise)
    state = ours.state_dict()
    names = {name: rename(name) for name in state}
    missing = set(twin.state_dict()) ^ set(names.values())
    assert not missing, f"keys that only one of the two has: {sorted(missing)[:6]}"
    twin.load_state_dict({names[name]: tensor for name, tensor in state.items()})
    images = torch.randn(batch, channels, image_size, image_size, generator=generator)
    targets = torch.arange(batch) % num_classes
    single = [run(network, images, targets)["outputs"] for network in (ours, twin)]
    first, second = (run(network.double(), images.double(), targets) for network in (ours, twin))
    return {
        **described(ours),
        "outputs": largest(first["outputs"], second["outputs"]),
        "gradients": relative(first["gradients"], second["gradients"], names),
        "weights after a step": relative(first["weights"], second["weights"], names),
        "buffers": relative(first["buffers"], second["buffers"], names),
        "outputs in single precision": largest(*single),
    }
