"""What happens in a network, read from the network: `torch.export` runs it once and says which call feeds which.

The calls of one module become one node. So a drawing shows skips, branches and shapes as the code has them; what is
drawn cannot differ from what is trained.
"""

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

# calls that change no number: edges go through them
TRANSPARENT = {
    *(
        "view",
        "reshape",
        "flatten",
        "unflatten",
        "unsqueeze",
        "squeeze",
        "transpose",
        "permute",
        "expand",
        "contiguous",
    ),
    *("getitem", "chunk", "split", "slice", "select", "unbind", "index", "stack", "movedim", "narrow", "tensor_split"),
    *("to", "_to_copy", "clone", "detach", "detach_", "alias", "copy_", "lift_fresh_copy", "type_as", "numpy_T", "t"),
    *("zeros", "zeros_like", "full", "ones", "ones_like", "arange", "empty", "new_zeros", "new_full", "scalar_tensor"),
    *("eq", "ne", "lt", "le", "gt", "ge", "logical_not", "masked_fill", "triu", "tril", "pad", "constant_pad_nd"),
    *("dropout", "sym_size", "size", "_assert_tensor_metadata"),
}
NAMES = {
    **{"add": "+", "add_": "+", "mul": "×", "mul_": "×", "sub": "−", "rsub": "1 −", "div": "÷"},
    **{"sigmoid": "σ", "sigmoid_": "σ", "relu_": "relu", "cat": "join", "scatter": "back to the maxima"},
    **{"conv2d": "conv", "addmm": "linear", "matmul": "matrix product", "bmm": "matrix product"},
    **{"scaled_dot_product_attention": "attention", "upsample_bilinear2d": "bilinear ×2"},
}


@dataclass
class Node:
    """One module's call, or one call of a function; `shape` is what leaves it, without the batch."""

    label: str
    kind: str
    path: str = ""
    shape: tuple[int, ...] = ()
    parameters: int = 0
    before: list[int] = field(default_factory=list)


def read(
    network: nn.Module,
    inputs: Sequence[Any],
    *,
    expand: Collection[str] = (),
    leaves: bool = False,
    names: Sequence[str] = (),
) -> list[Node]:
    """The nodes in order. Modules are those on top, or below the ones in `expand`; all without children, if `leaves`.

    `names` are those of inputs, then of outputs; without, inputs are called as in the code, outputs are not drawn.
    """
    with warnings.catch_warnings():  # of what the fused recurrent layers of PyTorch keep beside their parameters
        warnings.filterwarnings("ignore", message="The tensor attributes .* were assigned during export")
        program = torch.export.export(network.eval(), tuple(inputs), strict=False)
    modules = dict(network.named_modules())
    constants = {spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name != "USER_INPUT"}
    nodes: list[Node] = []
    place: dict[str, list[int]] = {}  # of each call the nodes whose numbers it hands on
    last: str | None = None
    for call in program.graph.nodes:
        if call.op == "placeholder":
            place[call.name] = []
            if call.name not in constants and not _is_mask(call):
                label = names[len(nodes)] if names else call.name.replace("_", " ")
                nodes.append(Node(label, "input", "", _shape(call)))
                place[call.name] = [len(nodes) - 1]
            continue
        if call.op != "call_function":
            continue
        before = list(dict.fromkeys(number for given in call.all_input_nodes for number in place[given.name]))
        operation = _operation(call)
        path = _group(call, modules, expand, leaves)
        if path and describe(modules[path])[1] == "nothing":
            place[call.name] = before
        elif path:
            if path != last:
                module = modules[path]
                label, kind = describe(module)
                above = path.rpartition(".")[0]
                if above and above not in expand and not leaves and not isinstance(modules[above], nn.ModuleList):
                    parts = path.split(".")
                    label += f" ({parts[-1]} of {'.'.join(parts[:2])})"  # called outside of the module it is in
                parameters = sum(p.numel() for p in module.parameters())
                nodes.append(Node(label, kind, path, _shape(call), parameters))
            own = len(nodes) - 1
            nodes[own].before += [n for n in before if n != own and n not in nodes[own].before]
            if operation != "getitem":  # of several things that a module gives the first is meant
                nodes[own].shape = _shape(call) or nodes[own].shape
            place[call.name], last = [own], path
        elif operation in TRANSPARENT or not before:
            place[call.name] = before
        else:
            shape = () if operation == "scatter" else _shape(call)
            nodes.append(Node(NAMES.get(operation, operation.replace("_", " ")), "function", "", shape, 0, before))
            place[call.name], last = [len(nodes) - 1], None
    outputs = [given.name for given in program.graph.output_node().all_input_nodes]
    for name, label in zip(outputs, names[-len(outputs) :] if names else (), strict=False):
        nodes.append(Node(label, "input", "", (), 0, place[name]))
        place[name] = [len(nodes) - 1]
    return _without_loose_ends(nodes, [number for name in outputs for number in place[name]])


def _without_loose_ends(nodes: list[Node], ends: Sequence[int]) -> list[Node]:
    """Only what reaches an output: masks and checks on the way are no part of the drawing."""
    wanted: set[int] = set()
    pending = list(ends)
    while pending:
        number = pending.pop()
        if number not in wanted:
            wanted.add(number)
            pending += nodes[number].before
    order = sorted(wanted)
    new = {old: number for number, old in enumerate(order)}
    for old in order:
        nodes[old].before = [new[number] for number in nodes[old].before]
    return [nodes[old] for old in order]


def _is_mask(call: Any) -> bool:
    """Whether an input is a mask or lengths, which say what counts and are no data."""
    value = call.meta.get("val")
    return isinstance(value, torch.Tensor) and (
        value.dtype == torch.bool or (value.dtype == torch.int64 and value.ndim == 1)
    )


def _shape(call: Any) -> tuple[int, ...]:
    value = call.meta.get("val")
    value = value[0] if isinstance(value, tuple | list) and value else value
    return tuple(int(n) for n in value.shape[1:]) if isinstance(value, torch.Tensor) else ()


def _operation(call: Any) -> str:
    name = getattr(call.target, "__name__", str(call.target))
    return str(name).split(".")[0]


def _group(call: Any, modules: dict[str, nn.Module], expand: Collection[str], leaves: bool) -> str:
    """The path of the module that a call is drawn as part of; empty for a call between modules."""
    stack = call.meta.get("nn_module_stack") or {}
    paths = [str(path).split("@")[0] for path, _ in stack.values()]
    for path in paths:
        inner = path and path in modules and (not leaves or not any(modules[path].children()))
        if inner and path not in expand and not isinstance(modules[path], nn.ModuleList):
            return path
    return ""


def describe(module: nn.Module) -> tuple[str, str]:
    """A module in words, and its kind, which has a colour."""
    match module:
        case nn.Conv2d():
            size = "×".join(map(str, module.kernel_size))
            parts = [f"conv {size}"]
            if module.groups == module.in_channels > 1:
                parts = [f"depthwise {size}"]
            elif module.groups > 1:
                parts.append(f"{module.groups} groups")
            if module.stride != (1, 1):
                parts.append(f"stride {module.stride[0]}")
            if module.dilation != (1, 1):
                parts.append(f"dilation {module.dilation[0]}")
            return ", ".join(parts), "convolution"
        case nn.ConvTranspose2d():
            size = "×".join(map(str, module.kernel_size))
            return f"transposed {size}, stride {module.stride[0]}", "up"
        case nn.Linear():
            return f"linear → {module.out_features}", "linear"
        case nn.Embedding():
            return f"embedding of {module.num_embeddings}", "linear"
        case nn.MaxPool2d() | nn.AvgPool2d():
            kind = "max" if isinstance(module, nn.MaxPool2d) else "average"
            return f"{kind} pool {module.kernel_size}, stride {module.stride}".replace("(", "").replace(")", ""), "pool"
        case nn.AdaptiveAvgPool2d():
            whole = module.output_size in (1, (1, 1))
            return "average over the map" if whole else f"average pool to {module.output_size}", "pool"
        case nn.RNNBase():
            kind = {"LSTM": "LSTM", "GRU": "GRU"}.get(module.mode, "RNN")
            ways = ", both directions" if module.bidirectional else ""
            return f"{kind}, {module.hidden_size} units{ways}", "recurrent"
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            return "batch norm", "norm"
        case nn.LayerNorm():
            return "layer norm", "norm"
        case nn.GroupNorm():
            return "group norm", "norm"
        case nn.LocalResponseNorm():
            return "response norm", "norm"
        case nn.ReLU() | nn.Sigmoid() | nn.Tanh() | nn.GELU() | nn.SiLU() | nn.LeakyReLU():
            return type(module).__name__, "activation"
        case nn.Identity() | nn.Dropout() | nn.Flatten() | nn.Unflatten() | nn.Dropout2d():
            return "", "nothing"
        case nn.Sequential() if len(module) and len({type(child) for child in module}) == 1:
            inner, kind = type(module[0]).__name__, describe(module[0])[1]
            return (f"{len(module)} × {inner}" if len(module) > 1 else inner), kind
        case nn.Upsample():
            return f"{module.mode} ×{module.scale_factor:g}", "up"
        case nn.ZeroPad2d():
            return "pad", "pool"
    name = type(module).__name__
    told = [pair for pair in map(describe, module.children()) if pair[0]]
    convolutions = [kind for _, kind in told if kind in ("convolution", "up")]
    kinds = {kind for _, kind in told}
    if isinstance(module, nn.Sequential) and "block" not in kinds and 0 < len(told) <= 3:
        return ", ".join(label for label, _ in told), (convolutions or [told[-1][1]])[0]
    if convolutions == ["convolution"] and kinds <= {"convolution", "norm", "activation"}:
        return " · ".join(label for label, _ in told), "convolution"
    if name in ("Squash", "ScaledTanh"):
        return name, "activation"
    return name, "attention" if "ttention" in name else "pool" if name == "Subsampling" else "block"
