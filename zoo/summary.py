"""What a network is made of: every layer's output shape, parameters and multiply-adds, without computing anything.

Convention of all our tables: multiply-adds are those of convolutions, transposed convolutions, linear layers and
recurrent layers, for one example; biases, normalisation, activations and products of two activations are not counted.
ResNet-50 v1.5 then has 4,089,184,256, as torchvision states it.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Layer:
    """A module without children, or one with parameters of its own."""

    name: str
    type: str
    output_shape: Shape | None  # of the last call, batch first; None: not called in evaluation (an auxiliary head)
    trainable: int
    frozen: int
    multiply_adds: int  # over all calls


@dataclass(frozen=True)
class Summary:
    layers: tuple[Layer, ...]

    @property
    def trainable(self) -> int:
        return sum(layer.trainable for layer in self.layers)

    @property
    def frozen(self) -> int:
        return sum(layer.frozen for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Trainable and frozen; a parameter that two layers share counts once."""
        return self.trainable + self.frozen

    @property
    def multiply_adds(self) -> int:
        return sum(layer.multiply_adds for layer in self.layers)

    def table(self) -> str:
        """A plain table, one line a layer, the totals below."""
        head = ("layer", "type", "output", "parameters", "multiply-adds")
        rows = [
            (
                layer.name or "(network)",
                layer.type,
                "not called" if layer.output_shape is None else "×".join(map(str, layer.output_shape[1:])) or "scalar",
                f"{layer.trainable + layer.frozen:,}" + (" frozen" if layer.frozen and not layer.trainable else ""),
                f"{layer.multiply_adds:,}" if layer.multiply_adds else "–",
            )
            for layer in self.layers
        ]
        total = ("total", "", "", f"{self.parameters:,}", f"{self.multiply_adds:,}")
        widths = [max(len(row[i]) for row in (head, total, *rows)) for i in range(len(head))]
        rule = "─" * (sum(widths) + 2 * (len(widths) - 1))

        def line(row: Sequence[str]) -> str:
            left = [cell.ljust(width) for cell, width in zip(row[:3], widths[:3], strict=True)]
            right = [cell.rjust(width) for cell, width in zip(row[3:], widths[3:], strict=True)]
            return "  ".join([*left, *right])

        lines = [line(head), rule, *map(line, rows), rule, line(total)]
        if self.frozen:
            lines.append(f"of the parameters {self.trainable:,} are trained and {self.frozen:,} are frozen")
        return "\n".join(lines)


def summarize(network: nn.Module, *inputs: Tensor | None) -> Summary:
    """Trace one forward pass in evaluation mode on the `meta` device: shapes only, no memory and no arithmetic.

    `inputs` are the network's arguments for a batch of one; their values do not matter, but for lengths (B,). The
    network itself is not changed, on whatever device it is. A forward pass that depends on the values of other tensors
    raises torch's own error.
    """
    tensors = [*network.parameters(), *network.buffers()]
    as_meta = {id(tensor): _meta(tensor) for tensor in tensors}  # deepcopy takes these for the copies of its tensors
    traced = copy.deepcopy(network, as_meta).eval()
    shapes: dict[str, Shape | None] = {}
    multiply_adds: dict[str, int] = {}
    names: dict[nn.Module, str] = {}

    def record(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        name = names[module]
        shapes[name] = _shape(output)
        multiply_adds[name] = multiply_adds.get(name, 0) + _multiply_adds(module, args, output)

    counted: set[Tensor] = set()
    own: dict[str, tuple[int, int]] = {}
    for name, module in traced.named_modules():
        parameters = [p for p in module.parameters(recurse=False) if p not in counted]
        countable = isinstance(module, (nn.Linear, *CONVOLUTIONS, *TRANSPOSED))  # spectral norm gives these children
        if parameters or countable or not any(module.children()):
            counted.update(parameters)
            trainable = sum(p.numel() for p in parameters if p.requires_grad)
            own[name] = (trainable, sum(p.numel() for p in parameters) - trainable)
            names[module] = name
            module.register_forward_hook(record)
    with torch.no_grad():
        traced(*(None if x is None else x if _is_length(x) else torch.empty_like(x, device="meta") for x in inputs))
    return Summary(
        tuple(
            Layer(name, type(module).__name__, shapes.get(name), *own[name], multiply_adds.get(name, 0))
            for module, name in names.items()
        )
    )


def _is_length(tensor: Tensor) -> bool:
    """Whether a network would read the numbers of this tensor, to pack sequences."""
    return tensor.ndim == 1 and tensor.dtype == torch.int64 and not tensor.is_meta


def _meta(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def _shape(output: Any) -> Shape | None:
    """The shape of the first tensor in what a module returned."""
    if isinstance(output, Tensor):
        return tuple(output.shape)
    items = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    return next((shape for item in items if (shape := _shape(item)) is not None), None)


def _multiply_adds(module: nn.Module, args: tuple[Any, ...], output: Any) -> int:
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):  # each of its weights meets each step of each sequence once
        steps = args[0].data.numel() // module.input_size  # of a tensor or of packed sequences
        return steps * sum(p.numel() for name, p in module.named_parameters() if name.startswith("weight"))
    if isinstance(module, nn.Linear):
        return output.numel() * module.in_features
    if isinstance(module, TRANSPOSED):
        return args[0].numel() * math.prod(module.kernel_size) * module.out_channels // module.groups
    if isinstance(module, CONVOLUTIONS):
        return output.numel() * math.prod(module.kernel_size) * module.in_channels // module.groups
    return 0
