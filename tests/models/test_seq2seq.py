"""Seq2Seq: every kind against a plain loop over sentences and steps, counts, masks, step by step, what it refuses."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from parity import differences
from torch import Tensor, nn

from zoo.models.seq2seq import Seq2Seq

KINDS = ("additive", "dot", "none")
LENGTHS = torch.tensor([4, 7, 1])
SIZES: dict[str, Any] = {"num_source_tokens": 11, "num_target_tokens": 9, "embedding": 5, "hidden": 6}


def make(**options: Any) -> Seq2Seq:
    torch.manual_seed(0)
    network = Seq2Seq(**{**SIZES, **options}).double().eval()
    with torch.no_grad():  # no bias at 0, where an exchange of two would not show
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def pairs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    source = torch.randint(4, 11, (3, 7), generator=generator)
    return source, LENGTHS, torch.randint(1, 9, (3, 6), generator=generator)


# The equations, for one sentence without padding --------------------------------------------------------------------


def advance(recurrent: nn.RNNBase, weights: list[Tensor], x: Tensor, state: list[Tensor]) -> list[Tensor]:
    if isinstance(recurrent, nn.LSTM):
        return list(torch.lstm_cell(x[None], [part[None] for part in state], *weights))
    return [torch.gru_cell(x[None], state[0][None], *weights)]


def read(recurrent: nn.RNNBase, weights: list[Tensor], xs: list[Tensor], parts: int) -> list[list[Tensor]]:
    """The states after each step."""
    state, states = [torch.zeros(recurrent.hidden_size, dtype=torch.float64)] * parts, []
    for x in xs:
        state = [part[0] for part in advance(recurrent, weights, x, state)]
        states.append(state)
    return states


def plainly(network: Seq2Seq, source: list[int], target: list[int]) -> tuple[Tensor, Tensor | None]:
    """Logits (T, K) and attention (T, S) of one sentence."""
    parts = 2 if isinstance(network.encoder, nn.LSTM) else 1
    xs = [network.source_embedding.weight[token] for token in source]
    starts = []
    layers = network.encoder.all_weights
    directions = 2 if network.encoder.bidirectional else 1
    for layer in range(network.encoder.num_layers):
        forward = read(network.encoder, layers[directions * layer], xs, parts)
        ends = forward[-1]
        if directions == 2:
            backward = read(network.encoder, layers[2 * layer + 1], xs[::-1], parts)
            ends = [torch.cat(both) for both in zip(ends, backward[-1], strict=True)]
            xs = [torch.cat([a[0], b[0]]) for a, b in zip(forward, backward[::-1], strict=True)]
        else:
            xs = [state[0] for state in forward]
        vector = ends[0]
        if directions == 2:
            ends = [torch.tanh(b.weight @ end + b.bias) for b, end in zip(network.bridges, ends, strict=True)]
        starts.append(ends)
    annotations = torch.stack(xs)
    logits, attention = [], []

    def mix(scores: Tensor) -> Tensor:
        attention.append(scores.exp() / scores.exp().sum())
        return attention[-1] @ annotations

    for token in target:
        embedded = network.target_embedding.weight[token]
        context = vector
        if network.kind == "additive":
            summed = network.query.weight @ starts[-1][0] + network.query.bias + annotations @ network.key.weight.T
            context = mix(torch.tanh(summed) @ network.score.weight[0])
        x = embedded if network.kind == "dot" else torch.cat([embedded, context])
        for layer, weights in enumerate(network.decoder.all_weights):
            starts[layer] = [part[0] for part in advance(network.decoder, weights, x, starts[layer])]
            x = starts[layer][0]
        if network.kind == "dot":
            keys = annotations @ network.key.weight.T if directions == 2 else annotations
            context = mix(keys @ x)
            features = torch.tanh(network.combine.weight @ torch.cat([context, x]))
        else:
            features = torch.cat([x, context, embedded])
        logits.append(network.output.weight @ features + network.output.bias)
    return torch.stack(logits), torch.stack(attention) if attention else None


def against_plain(network: Seq2Seq) -> dict[str, Any]:
    """What `differences` finds of logits and loss; of the attention no difference is allowed."""
    source, lengths, target = pairs()
    mine, weights = network(source, lengths, target), network.attention(source, lengths, target)
    rows = zip(source, lengths, target, strict=True)
    plain = [plainly(network, row[:length].tolist(), goal.tolist()) for row, length, goal in rows]
    theirs = torch.stack([logits for logits, _ in plain])
    first, second = (
        [logits, F.cross_entropy(logits.flatten(0, 1), target.roll(-1, 1).flatten())] for logits in (mine, theirs)
    )
    assert (weights is None) == (network.kind == "none")
    if weights is not None:
        assert weights.shape == (3, 6, 7)
        for row, (length, (_, attention)) in enumerate(zip(lengths.tolist(), plain, strict=True)):
            torch.testing.assert_close(weights[row, :, :length], attention, rtol=0, atol=1e-12)
            assert (weights[row, :, length:] == 0).all()
    return differences(network, first, second)


@pytest.mark.parametrize("kind", KINDS)
def test_twin(certify_row: Callable[..., None], kind: str) -> None:
    cases = list(itertools.product(("gru", "lstm"), (False, True), (1, 2)))
    found = [
        against_plain(make(attention=kind, cell=cell, bidirectional=both, layers=layers))
        for cell, both, layers in cases
    ]
    certify_row(
        f"seq2seq {kind}",
        **{part: max(one[part] for one in found) for part in found[0]},  # of the largest network, too
        source="written as loops over sentences and steps in tests/models/test_seq2seq.py; largest differences",
        cases=f"{len(cases)}: GRU and LSTM, one direction and both, 1 and 2 layers; sources of several lengths",
    )


# Everything else ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "parameters"),
    [({}, 20_518_405), ({"attention": "none", "bidirectional": False}, 14_219_781)],
)
def test_parameters_of_the_well_known_translators(options: dict, parameters: int) -> None:
    """German to English on Multi30k with a GRU: Bahdanau's attention, Cho's fixed vector (bentrevett's tutorials)."""
    tokens = torch.empty(2, 3, dtype=torch.int64, device="meta")
    with torch.device("meta"):
        network = Seq2Seq(num_source_tokens=7853, num_target_tokens=5893, embedding=256, hidden=512, **options)
    assert sum(p.numel() for p in network.parameters()) == parameters
    for lengths in (torch.tensor([3, 1]), torch.empty(2, dtype=torch.int64, device="meta")):  # known, or shapes alone
        assert network(tokens, lengths, tokens).shape == (2, 3, 5893)


CASES = list(itertools.product(KINDS, ("gru", "lstm"), (False, True)))


@pytest.mark.parametrize(("kind", "cell", "bidirectional"), CASES)
def test_steps_give_what_the_whole_gives(kind: str, cell: str, bidirectional: bool) -> None:
    network = make(attention=kind, cell=cell, bidirectional=bidirectional, layers=2)
    source, lengths, target = pairs()
    expected, state = network(source, lengths, target), network.start(source, lengths)
    for t in range(6):
        assert all(len(part) == 3 for part in state), "the batch is the first axis of every part"
        logits, state = network.step(target[:, t], state)
        torch.testing.assert_close(logits, expected[:, t], rtol=0, atol=1e-12)
    order = torch.tensor([2, 0, 0])  # rows can be taken along, as a beam does
    picked, _ = network.step(target[order, 0], tuple(part.index_select(0, order) for part in state))
    logits, _ = network.step(target[:, 0], state)
    torch.testing.assert_close(picked, logits[order], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_later_targets_and_padding_of_the_source_do_not_matter(kind: str) -> None:
    network = make(attention=kind)
    source, lengths, target = pairs()
    logits = network(source, lengths, target)
    for t in range(6):
        changed = target.clone()
        changed[:, t] = 9 - changed[:, t]
        other = network(source, lengths, changed)
        assert torch.equal(other[:, :t], logits[:, :t])
        assert not torch.allclose(other[:, t], logits[:, t])
    padded = F.pad(source.masked_fill(torch.arange(7) >= lengths[:, None], 3), (0, 4), value=2)
    torch.testing.assert_close(network(padded, lengths, target), logits, rtol=0, atol=1e-12)


def test_dropout_is_on_embedded_tokens_and_between_layers() -> None:
    network = make(dropout=0.3, layers=2)
    assert (network.dropout.p, network.encoder.dropout, network.decoder.dropout) == (0.3, 0.3, 0.3)
    source, lengths, target = pairs()
    seen: list[tuple[int, ...]] = []
    network.dropout.register_forward_hook(lambda module, args, output: seen.append(tuple(output.shape)))
    network(source, lengths, target)
    assert seen == [(3, 7, 5), (3, 6, 5)]
    assert make(dropout=0.3).encoder.dropout == 0, "one layer has nothing between"


def test_first_weights_are_orthogonal_and_forget_gates_open() -> None:
    torch.manual_seed(0)
    network = Seq2Seq(**SIZES, cell="lstm")
    for recurrent in (network.encoder, network.decoder):
        for gate in recurrent.weight_hh_l0.split(6):
            torch.testing.assert_close(gate @ gate.T, torch.eye(6), rtol=0, atol=1e-5)
        assert (recurrent.bias_ih_l0 + recurrent.bias_hh_l0).tolist() == [0.0] * 6 + [1.0] * 6 + [0.0] * 12


@pytest.mark.parametrize("kind", KINDS)
def test_overfits_a_batch_with_a_gradient_for_every_parameter(kind: str) -> None:
    torch.manual_seed(0)
    network = Seq2Seq(**{**SIZES, "hidden": 16}, attention=kind, cell="lstm")
    source, lengths, target = pairs()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-2)
    for step in range(150):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(source, lengths, target[:, :-1]).flatten(0, 1), target[:, 1:].flatten())
        loss.backward()
        if step == 0:
            for name, parameter in network.named_parameters():
                assert parameter.grad is not None, name
                assert parameter.grad.abs().sum() > 0, name
        optimizer.step()
        if loss.item() < 0.02:
            return
    raise AssertionError(f"the loss is still {loss.item():.3f}")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"attention": "cosine"}, "attention=cosine: must be one of additive, dot, none"),
        ({"cell": "rnn"}, "cell=rnn: must be gru or lstm"),
        ({"num_source_tokens": 0}, "num_source_tokens=0: must be at least 1"),
        ({"num_target_tokens": 0}, "num_target_tokens=0: must be at least 1"),
        ({"embedding": 0}, "embedding=0: must be at least 1"),
        ({"hidden": 0}, "hidden=0: must be at least 1"),
        ({"layers": 0}, "layers=0: must be at least 1"),
        ({"dropout": 1.0}, "dropout=1.0: must be at least 0 and below 1"),
    ],
)
def test_wrong_arguments_are_refused(options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        make(**options)
