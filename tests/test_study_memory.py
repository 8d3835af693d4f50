"""The study of memory: its gradients against ones measured by perturbing a state, and when a descent ends."""

import math

import pytest
import torch
import torch.nn.functional as F

from studies import memory
from studies.memory import KINDS, STEPS, batches, by_lag, descend, gradient_norms, network
from zoo.data.sequences import SequentialDigits


@pytest.mark.parametrize("name", ["RNN, orthogonal", "identity RNN", "GRU", "LSTM, forget bias 1"])
def test_gradients_are_those_of_a_perturbed_state(name: str) -> None:
    """(L(s + ε·e) − L(s − ε·e)) / 2ε for each unit of the state after one step, the rest of the sequence run on."""
    kind, length, at, epsilon = KINDS[name], 7, 3, 1e-6
    model = network(kind, 0).double()
    inputs, targets = (part[:2].double() for part in next(batches(length, 1)))
    norms = gradient_norms(model, kind.cell, inputs, targets)
    assert norms.shape == (2, length)
    weight_ih, weight_hh, bias_ih, bias_hh = model.recurrent.all_weights[0]
    step, projected = STEPS[kind.cell], F.linear(inputs, weight_ih, bias_ih)

    def loss_from(state: tuple[torch.Tensor, ...]) -> torch.Tensor:
        for t in range(at + 1, length):
            state = step(projected[:, t], state, weight_hh, bias_hh)
        return (model.head(state[0]) - targets).square()[:, 0]

    with torch.no_grad():
        state = tuple(torch.zeros(2, memory.HIDDEN, dtype=torch.float64) for _ in range(1 + (kind.cell == "lstm")))
        for t in range(at + 1):
            state = step(projected[:, t], state, weight_hh, bias_hh)
        squares = torch.zeros(2, dtype=torch.float64)
        for part in range(len(state)):
            for unit in range(memory.HIDDEN):
                ends = []
                for sign in (1, -1):
                    moved = [tensor.clone() for tensor in state]
                    moved[part][:, unit] += sign * epsilon
                    ends.append(loss_from(tuple(moved)))
                squares += ((ends[0] - ends[1]) / (2 * epsilon)) ** 2
    torch.testing.assert_close(norms[:, at], squares.sqrt(), rtol=1e-5, atol=1e-12)


def test_a_linear_network_s_gradient_shrinks_by_its_factor() -> None:
    """An RNN near 0 with W_hh = r·I: each step back multiplies the gradient by r."""
    model = network(KINDS["RNN, orthogonal"], 0)
    with torch.no_grad():
        model.recurrent.weight_hh_l0.copy_(0.8 * torch.eye(memory.HIDDEN))
        model.recurrent.weight_ih_l0.mul_(1e-6)
    curve = by_lag(model, "rnn", 20)
    torch.testing.assert_close(curve, 0.8 ** torch.arange(20.0, dtype=torch.float64), rtol=1e-6, atol=0)


def test_a_descent_ends_where_it_is_no_longer_finite() -> None:
    data = SequentialDigits(augment=None)
    data.setup()
    losses, norms = descend(data, rate=0.1, clip=math.inf, steps=30)
    assert len(losses) == len(norms) < 30
    assert max(norms) > 1e3
    losses, norms = descend(data, rate=0.1, clip=1.0, steps=30)
    assert len(losses) == len(norms) == 30
    assert all(map(math.isfinite, losses))
    assert max(norms) > 1  # measured before clipping
