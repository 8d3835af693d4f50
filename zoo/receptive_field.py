"""What each unit of a network sees of its input, traced through any graph of convolutions, poolings and branches.

A. Araujo, W. Norris, J. Sim, "Computing receptive fields of convolutional neural networks", Distill 2019. Along one
axis unit i of a map sees the pixels start + i·jump … start + i·jump + size − 1. A window of k units with stride s,
dilation d and padding p makes of these

    jump' = jump·s,   start' = start − p·jump,   size' = size + (k − 1)·d·jump,

and where branches meet (addition, concatenation) a unit sees from their first start to their last end. Padding counts
as if the image went on, so that a field may be larger than the image. That a norm looks at a whole map is not counted.
Nothing is computed: the network runs on the `meta` device, and every operation that it calls, as a module or as a
function, is followed. What any other than those below gives has no window: a linear layer, the mean of a map,
interpolation, a transposed convolution.
"""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zoo.layer_calls import watch


class Field(NamedTuple):
    """Along one axis unit i sees the pixels start + i·jump … start + i·jump + size − 1."""

    jump: int
    start: int
    size: int

    @property
    def centre(self) -> float:
        """The centre of what the first unit sees; the first pixel's is 0."""
        return self.start + (self.size - 1) / 2


Fields = tuple[Field, Field]  # along height and width


class Row(NamedTuple):
    layer: str
    type: str
    map: tuple[int, int]  # height and width
    fields: Fields

    def cells(self) -> tuple[str, ...]:
        """Layer, type, map, jump, field, centre, as text; one number where both axes have the same."""
        height, width = self.fields
        pairs = [(height.jump, width.jump), (height.size, width.size), (height.centre, width.centre)]
        numbers = [f"{a:g}" if a == b else f"{a:g}×{b:g}" for a, b in pairs]
        return (self.layer, self.type, "×".join(map(str, self.map)), *numbers)


COLUMNS = ("layer", "type", "map", "jump", "field", "centre")

# Operations, by their names in ATen, that work place by place, besides those that torch itself tags as pointwise …
_ALIKE = {"cat", "view", "_unsafe_view", "unsqueeze", "squeeze", "expand", "repeat", "clone", "detach", "alias"}
_ALIKE |= {"_to_copy", "slice", "index", "channel_shuffle", "_prelu_kernel"}
_ALIKE |= {"native_batch_norm", "native_group_norm", "native_layer_norm"}
_POOLS = {"max_pool2d_with_indices", "avg_pool2d", "avg_pool3d"}  # … those with windows …
_GRIDS = {"_adaptive_avg_pool2d", "adaptive_max_pool2d"}  # … with windows where they divide the map …
_PADS = {"constant_pad_nd", "replication_pad2d", "reflection_pad2d"}  # … and those that add a border.


def receptive_fields(network: nn.Module, input: Tensor) -> list[Row]:
    """The layers whose output is a map (B, C, H, W) of more than one place, in the order of the calls.

    Only the shape (1, C, H, W) of `input` matters. The network is copied and traced in evaluation mode.
    """
    rows: list[Row] = []
    traced = copy.deepcopy(network).to("meta").eval()
    image = torch.empty_like(input, device="meta")
    trace = _Trace(image)

    def see(name: str, module: nn.Module, output: Tensor) -> None:
        fields = trace.fields.get(output)
        if fields is not None and output.ndim == 4 and output.shape[2:].numel() > 1:
            rows.append(Row(name, type(module).__name__, (output.shape[2], output.shape[3]), fields))

    with torch.no_grad(), watch(traced, see), trace:
        traced(image)
    return rows


class _Trace(TorchDispatchMode):
    """Follows the fields of all that is computed from an image; None is for what has no window on it."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.fields: dict[Tensor, Fields | None] = {image: (Field(1, 0, 1), Field(1, 0, 1))}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operands = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x in self.fields]
        before = [(self.fields[x], x.shape[-2:]) for x in operands]
        outputs = func(*args, **(kwargs or {}))
        for output in tree_leaves(outputs) if operands else ():
            self.fields[output] = _fields(func, args, before, output)
        return outputs


def _fields(func: Any, args: Any, before: list[tuple[Fields | None, torch.Size]], output: Tensor) -> Fields | None:
    name, (fields, shape) = func.overloadpacket.__name__, before[0]
    if fields is None or output.ndim < 3:
        return None
    if name == "convolution":  # input, weight, bias, stride, padding, dilation, transposed
        return None if args[6] else _slide(fields, args[1].shape[2:], args[3], args[4], args[5])
    if name in _POOLS:  # input, kernel, stride, padding, and of max pooling dilation
        _, kernel, stride, padding, dilation = [*args, *([], 0, 1)[len(args) - 2 :]][:5]
        return _slide(fields, kernel, stride or kernel, padding, dilation if name.startswith("max") else 1)
    if name in _GRIDS:
        if any(n % m for n, m in zip(shape, output.shape[-2:], strict=True)):
            return None
        windows = [n // m for n, m in zip(shape, output.shape[-2:], strict=True)]
        return _slide(fields, windows, windows, 0, 1)
    if name in _PADS:  # left, right, top, bottom, …
        return _slide(fields, 1, 1, [args[1][2] if len(args[1]) > 2 else 0, args[1][0]], 1)
    if name == "slice" and len(args) > 2 and (axis := args[1] % output.ndim + 2 - output.ndim) >= 0:
        steps, borders = [1, 1], [0, 0]  # every step-th row or column from a first one on
        first, _, steps[axis] = slice(*args[2:]).indices(shape[axis])
        borders[axis] = -first
        return _slide(fields, 1, steps, borders, 1)
    if not (name in _ALIKE or torch.Tag.pointwise in func.tags) or (name == "index" and len(args[1]) > 2):
        return None
    return _union([fields if shape == output.shape[-2:] else None for fields, shape in before])


def _slide(fields: Fields, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Fields:
    """The fields of units that see a window of units; each argument is a number or has one for each axis."""
    window = [[n, n] if isinstance(n, int) else [*n, *n][-2:] for n in (kernel, stride, padding, dilation)]
    height, width = (_window(field, *(n[axis] for n in window)) for axis, field in enumerate(fields))
    return height, width


def _window(field: Field, k: int, s: int, p: int, d: int) -> Field:
    jump, start, size = field
    return Field(jump * s, start - p * jump, size + (k - 1) * d * jump)


def _union(branches: Sequence[Fields | None]) -> Fields | None:
    """What is seen through any of the branches; None if one has no window, or if their jumps differ."""
    known = [fields for fields in branches if fields is not None]
    axes = list(zip(*known, strict=True))
    if len(known) < len(branches) or any(len({field.jump for field in axis}) > 1 for axis in axes):
        return None
    starts = [min(field.start for field in axis) for axis in axes]
    ends = [max(field.start + field.size for field in axis) for axis in axes]
    joined = [Field(axis[0].jump, start, end - start) for axis, start, end in zip(axes, starts, ends, strict=True)]
    return joined[0], joined[1]
