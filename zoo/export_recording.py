"""Recording a network's operations with torch.export, for any size of the batch and any number of steps."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table

from zoo.export_calls import Signature


def record(called: Signature, *, batch: int) -> torch.export.ExportedProgram:
    """The operations of a call with examples of this batch, inside `recording`; raises whatever torch.export raises.

    Where running the code fixes a size that must be free, as `len(input)` does, it is read instead (`strict`).
    """
    free = torch.export.Dim.DYNAMIC
    axes = [{i: free for i, axis in enumerate(each.shape) if isinstance(axis, str)} for each in called.arguments]
    args, shapes = called.example(batch, called.steps), called.arranged(axes)
    try:
        return torch.export.export(called.module, args, dynamic_shapes=shapes, strict=False)
    except Exception:
        return torch.export.export(called.module, args, dynamic_shapes=shapes, strict=True)


@contextmanager
def recording() -> Iterator[None]:
    """Recurrent layers of any number of steps; and what torch.export tells of itself is for those who develop it.

    PyTorch finds the shapes that an RNN gives by unrolling it, which fixes the number of its steps in the recording.
    Here shapes are told by a function instead. The recording is of the layer itself, which computes as it always does.
    """
    silenced = logging.root.manager.disable
    implicit = torch._C.DispatchKey.CompositeImplicitAutograd
    own = {operator: (operator.py_kernels[implicit], decomposition_table[operator]) for operator in _SHAPES}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        for operator, shapes in _SHAPES.items():
            operator.py_kernels[implicit] = shapes
            decomposition_table[operator] = shapes
        try:
            yield
        finally:
            logging.disable(silenced)
            for operator, (kernel, decomposition) in own.items():
                operator.py_kernels[implicit], decomposition_table[operator] = kernel, decomposition


def _outputs(input: Tensor, state: Tensor, bidirectional: bool) -> Tensor:
    return input.new_empty(*input.shape[:2], state.shape[-1] * (2 if bidirectional else 1))


def _shapes_of_one_state(
    input: Tensor,
    state: Tensor,
    params: Any,
    biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    return _outputs(input, state, bidirectional), torch.empty_like(state)


def _shapes_of_lstm(
    input: Tensor,
    states: Sequence[Tensor],
    params: Any,
    biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    return _outputs(input, states[0], bidirectional), *(torch.empty_like(state) for state in states)


_SHAPES: dict[Any, Any] = {
    torch.ops.aten.rnn_tanh.input: _shapes_of_one_state,
    torch.ops.aten.rnn_relu.input: _shapes_of_one_state,
    torch.ops.aten.gru.input: _shapes_of_one_state,
    torch.ops.aten.lstm.input: _shapes_of_lstm,
}
