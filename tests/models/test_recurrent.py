"""Recurrent networks: counts, first weights, carried states, variable lengths, and what they refuse."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.models.cells import Unrolled
from zoo.models.recurrent import RecurrentLanguageModel, RecurrentPredictor, make_recurrent
from zoo.summary import summarize

CELLS = ["rnn", "rnn_relu", "gru", "lstm"]


@pytest.mark.parametrize(
    ("cell", "inputs", "bidirectional", "parameters"),
    [
        ("rnn", 1, False, 16_768),
        ("gru", 1, False, 50_304),
        ("lstm", 1, False, 67_072),
        ("lstm", 1, True, 134_144),
        ("rnn", 28, False, 20_224),
        ("gru", 28, False, 60_672),
        ("lstm", 28, False, 80_896),
    ],
)
@pytest.mark.parametrize("fused", [True, False])
def test_parameters(cell: str, inputs: int, bidirectional: bool, parameters: int, fused: bool) -> None:
    with torch.device("meta"):
        network = make_recurrent(cell=cell, inputs=inputs, hidden=128, bidirectional=bidirectional, fused=fused)
    found = summarize(network, torch.empty(1, 3, inputs, device="meta"))
    assert found.parameters == parameters
    assert found.multiply_adds == 3 * (parameters - 2 * parameters // (inputs + 128 + 2))  # all but the two biases


@pytest.mark.parametrize(("hidden", "parameters"), [(200, 4_653_200), (650, 19_780_400), (1500, 66_034_000)])
def test_zaremba_s_language_models(hidden: int, parameters: int) -> None:
    """1409.2329, with PyTorch's second bias vectors: 8·hidden more than with one."""
    with torch.device("meta"):
        network = RecurrentLanguageModel(num_tokens=10_000, embedding=hidden, hidden=hidden, layers=2, dropout=0.5)
    found = summarize(network, torch.empty(1, 35, dtype=torch.int64, device="meta"))
    assert found.parameters == parameters
    assert found.multiply_adds == 35 * (2 * 8 * hidden**2 + 10_000 * hidden)


@pytest.mark.parametrize(("cell", "parameters"), [("rnn", 21_514), ("gru", 61_962), ("lstm", 82_186)])
def test_predictor_counts_and_traces(cell: str, parameters: int) -> None:
    with torch.device("meta"):
        network = RecurrentPredictor(cell=cell, num_features=28, num_classes=10, fused=cell != "gru")
    assert summarize(network, torch.empty(1, 28, 28)).parameters == parameters
    with torch.device("meta"):
        network = RecurrentPredictor(num_tokens=30, num_classes=4, embedding=3, hidden=5, bidirectional=True)
    found = summarize(network, torch.zeros(1, 20, dtype=torch.int64), torch.tensor([12]))
    assert found.multiply_adds == 12 * 2 * 4 * 5 * (3 + 5) + 10 * 4


def blocks(weight: Tensor, hidden: int = 6) -> list[Tensor]:
    return [gate.detach() for gate in weight.split(hidden)]


@pytest.mark.parametrize("fused", [True, False])
def test_orthogonal_weights_gate_by_gate_and_the_forget_bias_once(fused: bool) -> None:
    torch.manual_seed(0)
    network = make_recurrent(cell="lstm", inputs=5, hidden=6, layers=2, bidirectional=True, forget_bias=2, fused=fused)
    for weight_ih, weight_hh, bias_ih, bias_hh in network.all_weights:
        for gate in blocks(weight_hh):
            torch.testing.assert_close(gate @ gate.T, torch.eye(6), atol=1e-5, rtol=0)
        for gate in blocks(weight_ih):
            limit = (6 / (6 + gate.shape[1])) ** 0.5  # Glorot's, of one gate
            assert 0.7 * limit < gate.abs().max() <= limit
        assert [float(gate.unique()) for gate in blocks(bias_ih)] == [0, 2, 0, 0]
        assert not bias_hh.any()
    for *_, bias_ih, bias_hh in make_recurrent(cell="gru", inputs=5, hidden=6, fused=fused).all_weights:
        assert not bias_ih.any()
        assert not bias_hh.any()


def test_identity_weights() -> None:
    torch.manual_seed(0)
    network = make_recurrent(cell="rnn_relu", inputs=50, hidden=60, layers=2, recurrent_init="identity")
    for weights in network.all_weights:
        weight_ih, weight_hh, bias_ih, bias_hh = (weight.detach() for weight in weights)
        assert torch.equal(weight_hh, torch.eye(60))
        assert float(weight_ih.std()) == pytest.approx(0.001, rel=0.1)
        assert float(weight_ih.mean()) == pytest.approx(0, abs=1e-4)
        assert not bias_ih.any()
        assert not bias_hh.any()


def test_uniform_weights_are_torchs() -> None:
    torch.manual_seed(0)
    plain = nn.LSTM(5, 6)
    made = []
    for forget_bias in (None, 0.5):
        torch.manual_seed(0)
        made.append(make_recurrent(cell="lstm", inputs=5, hidden=6, recurrent_init="uniform", forget_bias=forget_bias))
    for name, weight in plain.named_parameters():
        assert torch.equal(weight, made[0].get_parameter(name))
        gates = zip(blocks(weight), blocks(made[1].get_parameter(name)), range(4), strict=True)
        for before, after, gate in gates:
            if "bias" in name and gate == 1:
                assert torch.equal(after, torch.full((6,), 0.5 if "ih" in name else 0.0))
            else:
                assert torch.equal(before, after)


@pytest.mark.parametrize("cell", CELLS)
def test_fused_and_written_out_are_the_same_network(cell: str) -> None:
    options: dict[str, Any] = {"cell": cell, "hidden": 6, "embedding": 5, "layers": 2}
    tokens, length = torch.randint(9, (3, 7)), torch.tensor([4, 7, 2])
    languages = [RecurrentLanguageModel(num_tokens=9, **options, fused=fused).double() for fused in (True, False)]
    predictors = [
        RecurrentPredictor(num_tokens=9, num_classes=4, bidirectional=True, **options, fused=fused).double()
        for fused in (True, False)
    ]
    for first, second in (languages, predictors):
        assert isinstance(second.recurrent, Unrolled) > isinstance(first.recurrent, Unrolled)
        assert list(first.state_dict()) == list(second.state_dict())
        second.load_state_dict(first.state_dict())
    torch.testing.assert_close(languages[0](tokens)[0], languages[1](tokens)[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(predictors[0](tokens, length), predictors[1](tokens, length), rtol=0, atol=1e-9)


@pytest.mark.parametrize("cell", CELLS)
def test_a_carried_state_goes_on_where_it_was(cell: str) -> None:
    network = RecurrentLanguageModel(cell=cell, num_tokens=9, embedding=5, hidden=6, layers=2).eval()
    tokens = torch.randint(9, (3, 8))
    whole, end = network(tokens)
    first, state = network(tokens[:, :5])
    second, last = network(tokens[:, 5:], state)
    assert whole.shape == (3, 8, 9)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(last, end)
    assert isinstance(state, tuple) == (cell == "lstm")
    assert not torch.allclose(second, network(tokens[:, 5:])[0])


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_padded_sequence_gives_what_it_gives_alone(cell: str, bidirectional: bool, pooling: str) -> None:
    options: dict[str, Any] = {"cell": cell, "hidden": 6, "layers": 2, "bidirectional": bidirectional}
    network = RecurrentPredictor(num_features=2, num_classes=4, pooling=pooling, **options)
    input = torch.randn(4, 7, 2)
    for lengths in ([3, 6, 1, 3], [7, 2, 7, 5], [4, 4, 4, 4], [7, 7, 7, 7]):
        alone = torch.cat([network(one[None, :length]) for one, length in zip(input, lengths, strict=True)])
        torch.testing.assert_close(network(input, torch.tensor(lengths)), alone)
    torch.testing.assert_close(network(input), alone)


def test_pooling_reads_the_last_states_or_the_mean_of_all() -> None:
    input = torch.randn(3, 7, 2)
    network = RecurrentPredictor(num_features=2, num_classes=4, hidden=6, layers=2, bidirectional=True)
    outputs, (hidden, _) = network.recurrent(input)
    ends = torch.cat([outputs[:, -1, :6], outputs[:, 0, 6:]], 1)  # forwards after the last step, backwards the first
    torch.testing.assert_close(network(input), network.head(ends))
    torch.testing.assert_close(network(input), network.head(torch.cat([hidden[2], hidden[3]], 1)))
    network.pooling = "mean"
    torch.testing.assert_close(network(input), network.head(outputs.mean(1)))


def test_tied_weights_are_one_tensor() -> None:
    options: dict[str, Any] = {"num_tokens": 50, "embedding": 64, "hidden": 64}
    free, tied = RecurrentLanguageModel(**options), RecurrentLanguageModel(**options, tie=True)
    assert tied.head.weight is tied.embedding.weight
    count = [sum(p.numel() for p in network.parameters()) for network in (free, tied)]
    assert count[0] - count[1] == 50 * 64
    assert float(tied.head.weight.detach().std()) == pytest.approx(1 / 8, rel=0.1)


def test_dropout_acts_on_all_but_the_recurrent_connections_and_raw_numbers() -> None:
    network: Any = RecurrentLanguageModel(num_tokens=9, layers=2, dropout=0.4, hidden=8)
    assert (network.dropout.p, network.recurrent.dropout) == (0.4, 0.4)
    assert RecurrentLanguageModel(num_tokens=9, dropout=0.4).recurrent.dropout == 0  # it has no place in one layer
    seen: list[Tensor] = []
    for module in (network.recurrent, network.head):
        module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    network(torch.ones(4, 5, dtype=torch.int64))
    reader = RecurrentPredictor(num_features=3, num_classes=2, hidden=50, dropout=0.4)
    for module in (reader.recurrent, reader.head):
        module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    reader(torch.ones(4, 5, 3))
    assert [bool((part == 0).any()) for part in seen] == [True, True, False, True]


@pytest.mark.parametrize("cell", CELLS)
def test_learns_to_tell_first_from_last(cell: str) -> None:
    """Which of two tokens came first, twelve steps before the end: the state has to be kept, with lengths between."""
    torch.manual_seed(0)
    init = "identity" if cell == "rnn_relu" else "orthogonal"
    network = RecurrentPredictor(
        cell=cell, num_tokens=3, num_classes=2, embedding=4, hidden=16, recurrent_init=init, bidirectional=cell == "gru"
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    target = torch.arange(16) % 2
    tokens = torch.full((16, 12), 2)
    tokens[:, 0] = target
    length = torch.arange(16) % 10 + 3
    for _ in range(150):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(tokens, length), target)
        loss.backward()
        optimizer.step()
        if loss.item() < 0.05:
            break
    assert loss.item() < 0.05
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


LANGUAGE = {"num_tokens": 5}
PREDICTOR = {"num_features": 2, "num_classes": 3}


@pytest.mark.parametrize(
    ("network", "options", "sentence"),
    [
        (RecurrentLanguageModel, {**LANGUAGE, "cell": "elman"}, "cell=elman: must be one of rnn, rnn_relu, gru, lstm"),
        (RecurrentLanguageModel, {**LANGUAGE, "hidden": 0}, "hidden=0: must be at least 1"),
        (RecurrentLanguageModel, {**LANGUAGE, "layers": 0}, "layers=0: must be at least 1"),
        (RecurrentLanguageModel, {**LANGUAGE, "embedding": 0}, "embedding=0: must be at least 1"),
        (RecurrentLanguageModel, {"num_tokens": 0}, "num_tokens=0: must be at least 1"),
        (RecurrentLanguageModel, {**LANGUAGE, "dropout": 1}, "dropout=1: must be at least 0 and below 1"),
        (
            RecurrentLanguageModel,
            {**LANGUAGE, "tie": True},
            "tie=True: must be False unless embedding=64 and hidden=256",
        ),
        (RecurrentLanguageModel, {**LANGUAGE, "recurrent_init": "eye"}, "recurrent_init=eye: must be one of"),
        (
            RecurrentPredictor,
            {**PREDICTOR, "recurrent_init": "identity"},
            "recurrent_init=identity: must be orthogonal",
        ),
        (
            RecurrentPredictor,
            {**PREDICTOR, "num_tokens": 4},
            "num_tokens=4: must be given for tokens, or num_features=2",
        ),
        (RecurrentPredictor, {"num_classes": 3}, "num_tokens=None: must be given"),
        (RecurrentPredictor, {**PREDICTOR, "num_features": 0}, "num_features=0: must be at least 1"),
        (RecurrentPredictor, {**PREDICTOR, "num_classes": 0}, "num_classes=0: must be at least 1"),
        (RecurrentPredictor, {**PREDICTOR, "pooling": "max"}, "pooling=max: must be last or mean"),
    ],
)
def test_what_is_refused(network: type[nn.Module], options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        network(**options)


def test_inputs_that_are_refused() -> None:
    numbers = RecurrentPredictor(**PREDICTOR)
    tokens = RecurrentPredictor(num_tokens=5, num_classes=3)
    with pytest.raises(ValueError, match=r"input of shape \(4, 6, 3\): must be \(batch, steps, 2\)"):
        numbers(torch.zeros(4, 6, 3))
    with pytest.raises(ValueError, match=r"input of shape \(4, 6, 1\): must be tokens \(batch, steps\)"):
        tokens(torch.zeros(4, 6, 1, dtype=torch.int64))
    for lengths, found in (([1, 0], "from 0 to 1"), ([7, 2], "from 2 to 7")):
        with pytest.raises(ValueError, match=f"length {found}: must be from 1 to the 6 steps there are"):
            numbers(torch.zeros(2, 6, 2), torch.tensor(lengths))
