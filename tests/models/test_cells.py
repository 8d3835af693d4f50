"""The written-out cells and the unrolled network against torch.nn's, in double precision with the same weights."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from parity import RATE, described, largest, relative
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from zoo.models.cells import GRUCell, LSTMCell, RNNCell, Unrolled

BAR = 1e-9
TWINS: dict[str, Callable[..., nn.RNNBase]] = {
    "rnn": nn.RNN,
    "rnn_relu": lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="relu", **options),
    "gru": nn.GRU,
    "lstm": nn.LSTM,
}
CELLS: dict[str, tuple[Callable[..., nn.Module], Callable[..., nn.Module]]] = {
    "rnn": (RNNCell, nn.RNNCell),
    "rnn_relu": (
        lambda *sizes: RNNCell(*sizes, nonlinearity="relu"),
        lambda *sizes: nn.RNNCell(*sizes, nonlinearity="relu"),
    ),
    "gru": (GRUCell, nn.GRUCell),
    "lstm": (LSTMCell, nn.LSTMCell),
}


def tensors(result: Any) -> list[Tensor]:
    """All tensors in what a network returned, in order."""
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, PackedSequence):
        return [result.data]
    return [tensor for part in result for tensor in tensors(part)]


def difference(first: list[Tensor], second: list[Tensor]) -> float:
    return largest([part.detach() for part in first], [part.detach() for part in second])


def pair(cell: str, layers: int = 1, **options: Any) -> tuple[Unrolled, nn.RNNBase]:
    """Ours and torch's with the same weights, in double precision; no bias is the other's."""
    twin = TWINS[cell](5, 4, layers, **options).double()
    ours = Unrolled(cell, 5, 4, layers, **options).double()
    assert list(ours.state_dict()) == list(twin.state_dict())
    ours.load_state_dict(twin.state_dict())
    return ours, twin


def step_later(networks: tuple[nn.Module, nn.Module], gradients: list[list[Tensor]]) -> float:
    """How far two networks' weights are apart after a step; the gradients of their parameters come first."""
    ours, twin = (
        {
            name: p.detach() - RATE * gradient
            for (name, p), gradient in zip(network.named_parameters(), own, strict=False)
        }
        for network, own in zip(networks, gradients, strict=True)
    )
    return relative(ours, twin, {name: name for name in ours})


def outcome(network: nn.Module, input: Tensor, lengths: Tensor | None, state: list[Tensor]) -> tuple[list, list]:
    """Outputs and last states; the gradients of every parameter, the input and the first states."""
    input = input.clone().requires_grad_()
    state = [part.clone().requires_grad_() for part in state]
    fed = input if lengths is None else pack_padded_sequence(input, lengths, batch_first=True, enforce_sorted=False)
    outputs = tensors(network(fed, (state[0] if len(state) == 1 else tuple(state)) if state else None))
    generator = torch.Generator().manual_seed(2)
    loss = sum((part * torch.randn(part.shape, generator=generator, dtype=part.dtype)).sum() for part in outputs)
    return outputs, list(torch.autograd.grad(loss, [*network.parameters(), input, *state]))


@pytest.mark.parametrize("cell", TWINS)
def test_unrolled_equals_torch(cell: str, certify_row: Callable[..., None]) -> None:
    torch.manual_seed(0)
    input = torch.randn(4, 7, 5, dtype=torch.float64)
    worst = [0.0, 0.0, 0.0]
    cases = list(itertools.product((1, 2, 3), (False, True), (None, [3, 7, 1, 3], [7, 5, 5, 2]), (False, True)))
    for layers, both, lengths, given in cases:
        networks = pair(cell, layers, bidirectional=both, batch_first=True)
        count = (2 if cell == "lstm" else 1) if given else 0
        state = [torch.randn(layers * (1 + both), 4, 4, dtype=torch.float64) for _ in range(count)]
        length = None if lengths is None else torch.tensor(lengths)
        ours, theirs = (outcome(network, input, length, state) for network in networks)
        for place in (0, 1):
            worst[place] = max(worst[place], difference(ours[place], theirs[place]))
        worst[2] = max(worst[2], step_later(networks, [ours[1], theirs[1]]))
    certify_row(
        f"unrolled {cell}",
        outputs=worst[0],
        gradients=worst[1],
        source="torch.nn: outputs, last states; gradients of weights, input, first states; largest differences",
        cases=f"{len(cases)}: 1 to 3 layers, one direction and both, packed lengths, first states",
        **{**described(networks[0]), "weights after a step": worst[2]},  # the last case is the largest network
    )
    assert max(worst) <= BAR


@pytest.mark.parametrize("cell", CELLS)
def test_one_step_equals_torch(cell: str, certify_row: Callable[..., None]) -> None:
    torch.manual_seed(0)
    ours, twin = (make(5, 4).double() for make in CELLS[cell])
    assert list(ours.state_dict()) == list(twin.state_dict())
    ours.load_state_dict(twin.state_dict())
    input = torch.randn(3, 5, dtype=torch.float64)
    worst = [0.0, 0.0, 0.0]
    for count in (0, 2 if cell == "lstm" else 1):
        state = [torch.randn(3, 4, dtype=torch.float64) for _ in range(count)]
        first, second = (outcome(network, input, None, state) for network in (ours, twin))
        assert [part.shape for part in first[0]] == [part.shape for part in second[0]]
        now = [*map(difference, first, second), step_later((ours, twin), [first[1], second[1]])]
        worst = [max(pair) for pair in zip(worst, now, strict=True)]
    certify_row(
        f"cell {cell}",
        outputs=worst[0],
        gradients=worst[1],
        source="torch.nn, one step; largest differences",
        **{**described(ours), "weights after a step": worst[2]},
    )
    assert max(worst) <= BAR


@pytest.mark.parametrize("cell", TWINS)
@pytest.mark.parametrize("lengths", [None, [2, 3, 1]])
def test_results_have_torchs_form(cell: str, lengths: list[int] | None) -> None:
    ours, twin = pair(cell, 2, bidirectional=True)
    input: Any = torch.randn(3, 3, 5, dtype=torch.float64)
    if lengths is not None:
        input = pack_padded_sequence(input, torch.tensor(lengths), enforce_sorted=False)
    (first, first_end), (second, second_end) = ours(input), twin(input)
    assert isinstance(first_end, tuple) == isinstance(second_end, tuple)
    assert [part.shape for part in tensors(first_end)] == [part.shape for part in tensors(second_end)]
    if lengths is None:
        assert first.shape == second.shape
    else:
        assert [torch.equal(a, b) for a, b in zip(first[1:], second[1:], strict=True)] == [True] * 3
    assert difference(tensors((first, first_end)), tensors((second, second_end))) <= BAR


@pytest.mark.parametrize("lengths", [None, [7, 2, 4]])
def test_dropout_between_layers_is_torchs(lengths: list[int] | None) -> None:
    """Both draw one number for each value between two layers, so that one seed drops the same."""
    ours, twin = pair("gru", 3, dropout=0.5, batch_first=True)
    input: Any = torch.randn(3, 7, 5, dtype=torch.float64)
    if lengths is not None:
        input = pack_padded_sequence(input, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    results = []
    for network, seed in ((ours, 0), (twin, 0), (ours, 1)):
        torch.manual_seed(seed)
        results.append(tensors(network(input)))
    assert difference(results[0], results[1]) <= BAR
    assert difference(results[0], results[2]) > 1e-3
    assert difference(tensors(ours.eval()(input)), tensors(twin.eval()(input))) <= BAR  # none in evaluation


def test_packed_in_order_has_no_indices() -> None:
    ours, twin = pair("lstm")
    packed = pack_padded_sequence(torch.randn(4, 2, 5, dtype=torch.float64), torch.tensor([4, 2]))
    packed = PackedSequence(packed.data, packed.batch_sizes)
    state = (torch.randn(1, 2, 4, dtype=torch.float64), torch.randn(1, 2, 4, dtype=torch.float64))
    assert difference(tensors(ours(packed, state)), tensors(twin(packed, state))) <= BAR


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="cell=tanh: must be one of rnn, rnn_relu, gru, lstm"):
        Unrolled("tanh", 2, 3)
    with pytest.raises(ValueError, match="nonlinearity=sigmoid: must be tanh or relu"):
        RNNCell(2, 3, nonlinearity="sigmoid")
    with pytest.raises(ValueError, match=r"input of shape \(4, 2\): must have three dimensions"):
        Unrolled("gru", 2, 3)(torch.zeros(4, 2))
