"""A recorded network as an ONNX file, run by ONNX Runtime. Needs the packages of the extra `onnx`.

Recurrent layers become ONNX's own operators, for any number of steps. They are translated here, as PyTorch unrolls an
RNN into as many operators as there were steps, and onnxscript 0.7 has the GRU's reset gate before the matrix product,
where PyTorch has it behind (`linear_before_reset`). So is average pooling, whose divisor onnxscript forgets.

Shapes: T steps, B sequences, F features, D directions, H hidden units, G gates.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from onnxscript import FLOAT, opset18
from onnxscript.function_libs.torch_lib.ops.nn import aten_avg_pool2d
from torch import Tensor

from zoo.export_calls import Signature, tensors
from zoo.exporting import Run

op: Any = opset18
_GATES = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 3, 1, 2)}  # where ONNX's gates, in its order, stand in PyTorch's


def write_onnx(program: torch.export.ExportedProgram, called: Signature, path: Path, about: str) -> Run:
    """Write the file, with `about` in its metadata as `zoo`, and read it again; what runs it."""
    names = [argument.name for argument in called.arguments]
    axes = [{i: a for i, a in enumerate(argument.shape) if isinstance(a, str)} for argument in called.arguments]
    model = torch.onnx.export(
        program,
        input_names=names,
        output_names=called.outputs,
        dynamic_shapes=called.arranged(axes),
        custom_translation_table=_TRANSLATIONS,
        verbose=False,
    )
    assert model is not None
    model.model.metadata_props["zoo"] = about
    model.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    taken = [put.name for put in session.get_inputs()]

    def run(args: tuple[Any, ...]) -> list[Tensor]:
        given = dict(zip(names, tensors(args), strict=True))
        return [torch.from_numpy(array) for array in session.run(None, {name: given[name].numpy() for name in taken})]

    return run


# Recurrent layers -----------------------------------------------------------------------------------------------------


def _stacked(kind: str, weights: Sequence[Any], hidden: int) -> Any:
    """PyTorch's (G·H, …) of each direction as ONNX's (D, G·H, …)."""
    found = []
    for weight in weights:
        gates = [op.Slice(weight, [place * hidden], [(place + 1) * hidden], [0]) for place in _GATES[kind]]
        found.append(op.Unsqueeze(op.Concat(*gates, axis=0), [0]))
    return op.Concat(*found, axis=0)


def _layers(
    kind: str, input: Any, states: Sequence[Any], params: Sequence[Any], layers: int, bidirectional: bool, first: bool
) -> tuple[Any, ...]:
    """All layers: hidden states (T, B, D·H), or (B, T, D·H) with the batch `first`, and the last states (L·D, B, H)."""
    x = op.Transpose(input, perm=[1, 0, 2]) if first else input
    hidden, directions = params[1].shape[1], 2 if bidirectional else 1
    options: dict[str, Any] = {"hidden_size": hidden, "direction": "bidirectional" if bidirectional else "forward"}
    if kind == "GRU":
        options["linear_before_reset"] = 1
    elif kind == "RNN_RELU":
        kind, options["activations"] = "RNN", ["Relu"] * directions
    ends: list[list[Any]] = [[] for _ in states]
    for layer in range(layers):
        numbers = range(layer * directions, (layer + 1) * directions)
        weights, recurrent, bias, bias_hidden = (
            _stacked(kind, [params[4 * number + part] for number in numbers], hidden) for part in range(4)
        )
        starts = [op.Slice(state, [numbers[0]], [numbers[-1] + 1], [0]) for state in states]
        biases = op.Concat(bias, bias_hidden, axis=1)
        y, *last = getattr(op, kind)(x, weights, recurrent, biases, None, *starts, **options)  # (T, D, B, H)
        x = op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), [0, 0, -1])
        for end, state in zip(ends, last, strict=True):
            end.append(state)
    return op.Transpose(x, perm=[1, 0, 2]) if first else x, *(op.Concat(*end, axis=0) for end in ends)


def _one_state(kind: str) -> Any:
    def translate(
        input: FLOAT,
        hx: FLOAT,
        params: Sequence[FLOAT],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[FLOAT, FLOAT]:
        return _layers(kind, input, [hx], params, num_layers, bidirectional, batch_first)

    return translate


def _lstm(
    input: FLOAT,
    hx: Sequence[FLOAT],
    params: Sequence[FLOAT],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[FLOAT, FLOAT, FLOAT]:
    return _layers("LSTM", input, hx, params, num_layers, bidirectional, batch_first)


def _avg_pool2d(
    input: FLOAT,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> FLOAT:
    """onnxscript's, which leaves `divisor_override` out: 1 makes the mean a sum."""
    if divisor_override is None:
        return aten_avg_pool2d(input, kernel_size, stride, padding, ceil_mode, count_include_pad)
    mean = aten_avg_pool2d(input, kernel_size, stride, padding, ceil_mode, True)
    pixels = math.prod(kernel_size) if len(kernel_size) > 1 else kernel_size[0] ** 2
    return op.Mul(mean, pixels / divisor_override)


_TRANSLATIONS: dict[Any, Any] = {
    torch.ops.aten.avg_pool2d.default: _avg_pool2d,
    torch.ops.aten.rnn_tanh.input: _one_state("RNN"),
    torch.ops.aten.rnn_relu.input: _one_state("RNN_RELU"),
    torch.ops.aten.gru.input: _one_state("GRU"),
    torch.ops.aten.lstm.input: _lstm,
}
