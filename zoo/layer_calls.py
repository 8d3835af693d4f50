"""Watching a network compute: every call of a layer and what came out of it, in the order of the calls."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from zoo.swaps import NOISE

_PASSING_ON = (nn.Identity, nn.Flatten, *NOISE)  # in evaluation their output is their input


@contextmanager
def watch(network: nn.Module, see: Callable[[str, nn.Module, Tensor], None]) -> Iterator[None]:
    """While this is open, `see(name, module, output)` follows every call of a layer, before anything uses the output.

    A layer is a module that calls no further one, so that one which computes by itself what its children hold counts
    as one layer. Its second call is named `relu (2)`. Of a recurrent layer the outputs are seen, not its state.
    Identity, flattening, dropout and its like are left out, and so is what gives no floating-point numbers.
    """
    names = {module: name or "(network)" for name, module in network.named_modules()}
    calls = Counter[nn.Module]()
    started: list[int] = []  # for each module that is computing, how many had finished when it started
    finished = 0

    def before(module: nn.Module, inputs: object) -> None:
        started.append(finished)

    def after(module: nn.Module, inputs: object, output: object) -> None:
        nonlocal finished
        calls_others = started.pop() != finished
        finished += 1
        if calls_others or isinstance(module, _PASSING_ON):
            return
        if isinstance(module, nn.RNNBase):
            output = output[0].data if isinstance(output[0], PackedSequence) else output[0]  # type: ignore[index]
        if isinstance(output, Tensor) and output.is_floating_point():
            calls[module] += 1
            again = f" ({calls[module]})" if calls[module] > 1 else ""
            see(names[module] + again, module, output)

    hooks = [hook for m in names for hook in (m.register_forward_pre_hook(before), m.register_forward_hook(after))]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def maps(network: nn.Module, input: Tensor) -> dict[str, tuple[int, int]]:
    """Height and width of what each module, layers and blocks alike, gives as maps (B, C, H, W), last finished last.

    The whole network, and pooling to a fixed grid, which repeats a smaller map, are left out.
    """
    found: dict[str, tuple[int, int]] = {}

    def see(name: str, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            found.pop(name, None)  # called again: to the end
            found[name] = (output.shape[2], output.shape[3])

    hooks = [
        module.register_forward_hook(lambda module, inputs, output, name=name: see(name, output))
        for name, module in network.named_modules()
        if name and not isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d)
    ]
    try:
        network(input)
    finally:
        for hook in hooks:
            hook.remove()
    return found
