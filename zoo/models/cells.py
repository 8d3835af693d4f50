"""Recurrent cells written out from their equations, and the network that unrolls them over time.

- RNN: J. Elman, "Finding structure in time", Cognitive Science 14, 1990; with ReLU: Q. Le, N. Jaitly, G. Hinton 2015,
  1504.00941.
- GRU: K. Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine translation",
  2014, 1406.1078, equations 5 to 8.
- LSTM: S. Hochreiter, J. Schmidhuber, "Long short-term memory", Neural Computation 9, 1997, with the forget gate of
  F. Gers, J. Schmidhuber, F. Cummins, "Learning to forget", Neural Computation 12, 2000.

Everything here takes and gives what its namesake in `torch.nn` does, and has its parameters, so that state dicts go
both ways; tests/models/test_cells.py proves outputs and gradients equal. These are for reading and for changing:
training an LSTM of 256 units with them takes about twice as long on a CPU as with the fused ones of `torch.nn`.

Deliberate deviations, which are cuDNN's and thus PyTorch's:
- Each layer has two bias vectors, b_ih and b_hh, where the papers have one or none.
- The GRU's reset gate acts after the matrix product, r ⊙ (W_hn·h + b_hn), where Cho et al. write W_hn·(r ⊙ h).
- The LSTM has no peephole connections, and its cell's input and output are squashed by tanh.

Shapes: B sequences, T steps, F features, H hidden units, G gates (1 of an RNN, 3 of a GRU, 4 of an LSTM), L layers,
D directions (1 or 2), N all steps of all sequences.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

CellName = Literal["rnn", "rnn_relu", "gru", "lstm"]
State = tuple[Tensor, ...]  # (hidden,), of an LSTM (hidden, cell)

# The equations --------------------------------------------------------------------------------------------------------
# One step each: x (B, G·H) is W_ih·x_t + b_ih, which does not depend on the state; weight (G·H, H) and bias (G·H,) are
# W_hh and b_hh; the state's tensors are (B, H).


def rnn_step(x: Tensor, state: State, weight: Tensor, bias: Tensor) -> State:
    """h' = tanh(W_ih·x + b_ih + W_hh·h + b_hh)."""
    (h,) = state
    return (torch.tanh(x + F.linear(h, weight, bias)),)


def rnn_relu_step(x: Tensor, state: State, weight: Tensor, bias: Tensor) -> State:
    """h' = max(0, W_ih·x + b_ih + W_hh·h + b_hh)."""
    (h,) = state
    return (torch.relu(x + F.linear(h, weight, bias)),)


def gru_step(x: Tensor, state: State, weight: Tensor, bias: Tensor) -> State:
    (h,) = state
    x_r, x_z, x_n = x.chunk(3, -1)
    h_r, h_z, h_n = F.linear(h, weight, bias).chunk(3, -1)
    reset = torch.sigmoid(x_r + h_r)  # r = σ(W_ir·x + b_ir + W_hr·h + b_hr)
    update = torch.sigmoid(x_z + h_z)  # z = σ(W_iz·x + b_iz + W_hz·h + b_hz)
    candidate = torch.tanh(x_n + reset * h_n)  # n = tanh(W_in·x + b_in + r ⊙ (W_hn·h + b_hn))
    return ((1 - update) * candidate + update * h,)  # h' = (1 − z) ⊙ n + z ⊙ h


def lstm_step(x: Tensor, state: State, weight: Tensor, bias: Tensor) -> State:
    h, c = state
    x_i, x_f, x_g, x_o = x.chunk(4, -1)
    h_i, h_f, h_g, h_o = F.linear(h, weight, bias).chunk(4, -1)
    input_gate = torch.sigmoid(x_i + h_i)  # i = σ(W_ii·x + b_ii + W_hi·h + b_hi)
    forget_gate = torch.sigmoid(x_f + h_f)  # f = σ(W_if·x + b_if + W_hf·h + b_hf)
    candidate = torch.tanh(x_g + h_g)  # g = tanh(W_ig·x + b_ig + W_hg·h + b_hg)
    output_gate = torch.sigmoid(x_o + h_o)  # o = σ(W_io·x + b_io + W_ho·h + b_ho)
    c = forget_gate * c + input_gate * candidate  # c' = f ⊙ c + i ⊙ g
    return output_gate * torch.tanh(c), c  # h' = o ⊙ tanh(c')


_STEPS: dict[str, Callable[[Tensor, State, Tensor, Tensor], State]] = {
    "rnn": rnn_step,
    "rnn_relu": rnn_relu_step,
    "gru": gru_step,
    "lstm": lstm_step,
}
_MODES = {"rnn": "RNN_TANH", "rnn_relu": "RNN_RELU", "gru": "GRU", "lstm": "LSTM"}  # what PyTorch calls them


# One step as a module -------------------------------------------------------------------------------------------------


class _Cell(nn.RNNCellBase):
    """Holds weight_ih (G·H, F), weight_hh (G·H, H), bias_ih and bias_hh (G·H,), drawn from U(±1/√H)."""

    def __init__(self, cell: CellName, input_size: int, hidden_size: int) -> None:
        gates = {"gru": 3, "lstm": 4}.get(cell, 1)
        super().__init__(input_size, hidden_size, bias=True, num_chunks=gates)
        self.cell = cell

    def _step(self, input: Tensor, state: State) -> State:
        return _STEPS[self.cell](F.linear(input, self.weight_ih, self.bias_ih), state, self.weight_hh, self.bias_hh)

    def _zeros(self, input: Tensor) -> Tensor:
        return input.new_zeros(len(input), self.hidden_size)


class RNNCell(_Cell):
    """`torch.nn.RNNCell`: input (B, F) and hidden (B, H), zeros unless given, to the next hidden (B, H)."""

    def __init__(self, input_size: int, hidden_size: int, *, nonlinearity: Literal["tanh", "relu"] = "tanh") -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"nonlinearity={nonlinearity}: must be tanh or relu")
        super().__init__("rnn" if nonlinearity == "tanh" else "rnn_relu", input_size, hidden_size)

    def forward(self, input: Tensor, hidden: Tensor | None = None) -> Tensor:
        return self._step(input, (self._zeros(input) if hidden is None else hidden,))[0]


class GRUCell(_Cell):
    """`torch.nn.GRUCell`: input (B, F) and hidden (B, H), zeros unless given, to the next hidden (B, H)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__("gru", input_size, hidden_size)

    def forward(self, input: Tensor, hidden: Tensor | None = None) -> Tensor:
        return self._step(input, (self._zeros(input) if hidden is None else hidden,))[0]


class LSTMCell(_Cell):
    """`torch.nn.LSTMCell`: input (B, F) and (hidden, cell), each (B, H) and zeros unless given, to the next two."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__("lstm", input_size, hidden_size)

    def forward(self, input: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        hidden, cell = self._step(input, (self._zeros(input), self._zeros(input)) if state is None else state)
        return hidden, cell


# All steps, layers and directions -------------------------------------------------------------------------------------


class Unrolled(nn.RNNBase):
    """`torch.nn.RNN`, `GRU` or `LSTM`, written out: stacked layers of one cell, in one direction or both.

    `nn.RNNBase` holds the parameters and gives them PyTorch's names, order and first values; what is computed is here.
    Above the first layer a layer reads the hidden states of the one below, of both directions beside each other, after
    `dropout` in training.

    Raises ValueError for an unknown `cell`, and for an input that is neither three-dimensional nor packed.
    """

    def __init__(
        self,
        cell: CellName,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
    ) -> None:
        if cell not in _STEPS:
            raise ValueError(f"cell={cell}: must be one of {', '.join(_STEPS)}")
        super().__init__(
            _MODES[cell],
            input_size,
            hidden_size,
            num_layers,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
        )
        self.cell = cell

    def forward(
        self, input: Tensor | PackedSequence, state: Tensor | tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor | PackedSequence, Tensor | tuple[Tensor, ...]]:
        """Map (T, B, F), (B, T, F) with `batch_first`, or packed sequences to hidden states (…, D·H) in the same form.

        `state` is (L·D, B, H), of an LSTM two of them; zeros unless given. The last states come back as second: for
        packed sequences those after each one's own last step.
        """
        packed = input if isinstance(input, PackedSequence) else None
        if isinstance(input, PackedSequence):
            x, running = input.data, input.batch_sizes.tolist()
        elif input.ndim == 3:
            steps = input.transpose(0, 1) if self.batch_first else input  # (T, B, F)
            x, running = steps.flatten(0, 1), [steps.shape[1]] * len(steps)
        else:
            raise ValueError(f"input of shape {tuple(input.shape)}: must have three dimensions, or be packed")
        # x (N, F): all sequences' first step, then their second …; running[t] of them, the longest first, have step t

        directions = 2 if self.bidirectional else 1
        if state is None:
            zeros = x.new_zeros(self.num_layers * directions, running[0], self.hidden_size)
            start: State = (zeros, zeros) if self.cell == "lstm" else (zeros,)
        else:
            start = (state,) if isinstance(state, Tensor) else state
            if packed is not None and packed.sorted_indices is not None:
                start = tuple(part[:, packed.sorted_indices] for part in start)

        ends: list[State] = []
        for layer in range(self.num_layers):
            if layer:
                x = F.dropout(x, self.dropout, self.training)
            outputs = []
            for number in range(layer * directions, (layer + 1) * directions):
                begin = tuple(part[number] for part in start)  # (B, H)
                output, end = self._unroll(
                    x, running, begin, self.all_weights[number], backward=number % directions == 1
                )
                outputs.append(output)
                ends.append(end)
            x = torch.cat(outputs, -1)  # (N, D·H)

        last = tuple(torch.stack(parts) for parts in zip(*ends, strict=True))  # (L·D, B, H) each
        if packed is not None:
            if packed.unsorted_indices is not None:
                last = tuple(part[:, packed.unsorted_indices] for part in last)
            return packed._replace(data=x), last if self.cell == "lstm" else last[0]
        result = x.unflatten(0, (len(running), running[0]))  # (T, B, D·H)
        return result.transpose(0, 1) if self.batch_first else result, last if self.cell == "lstm" else last[0]

    def _unroll(
        self, x: Tensor, running: Sequence[int], state: State, weights: Sequence[Tensor], *, backward: bool
    ) -> tuple[Tensor, State]:
        """One layer in one direction: (N, F) to the hidden states (N, H), and the state (B, H) of each at its end.

        A sequence that has no step t keeps its state: forwards it is over, backwards it has not begun.
        """
        weight_ih, weight_hh, bias_ih, bias_hh = weights
        step = _STEPS[self.cell]
        projected = F.linear(x, weight_ih, bias_ih).split(list(running))  # T of (≤ B, G·H)
        outputs: list[Tensor] = [x] * len(running)
        for t in reversed(range(len(running))) if backward else range(len(running)):
            count = running[t]
            new = step(projected[t], tuple(part[:count] for part in state), weight_hh, bias_hh)
            outputs[t] = new[0]
            state = tuple(torch.cat([n, part[count:]]) for n, part in zip(new, state, strict=True))
        return torch.cat(outputs), state
