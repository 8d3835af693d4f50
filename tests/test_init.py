"""Initialisations: variances, limits and fans, against torch.nn.init where it knows the layer and by hand elsewhere."""

import math

import pytest
import torch
from torch import Tensor, nn

from zoo import init
from zoo.models.lenet import LeNet5Original


def start(network: nn.Module, how: init.Init, seed: int = 0) -> nn.Module:
    how(network, torch.Generator().manual_seed(seed))
    return network


LAYERS = {  # layer, fan_in, fan_out of one unit, by hand
    "linear": (lambda: nn.Linear(300, 200), 300, 200),
    "convolution": (lambda: nn.Conv2d(16, 40, 5), 16 * 25, 40 * 25),
    "convolution in 1-D": (lambda: nn.Conv1d(60, 50, 7), 60 * 7, 50 * 7),
    "grouped": (lambda: nn.Conv2d(32, 64, 5, groups=4), 8 * 25, 16 * 25),
    "depthwise": (lambda: nn.Conv2d(512, 512, 5, groups=512), 25, 25),
    "transposed": (lambda: nn.ConvTranspose2d(16, 40, 5), 16 * 25, 40 * 25),
    "grouped and transposed": (lambda: nn.ConvTranspose2d(32, 64, 5, groups=4), 8 * 25, 16 * 25),
}
RULES = {
    "lecun": (init.LeCun, {}, lambda i, o: 1 / i),
    "glorot": (init.Glorot, {}, lambda i, o: 2 / (i + o)),
    "he_in": (init.He, {}, lambda i, o: 2 / i),
    "he_out": (init.He, {"mode": "fan_out"}, lambda i, o: 2 / o),
    "he_leaky": (init.He, {"negative_slope": 0.5}, lambda i, o: 2 / (1.25 * i)),
}


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layer", LAYERS)
def test_variance_by_the_fans(layer: str, rule: str, distribution: str) -> None:
    make, fan_in, fan_out = LAYERS[layer]
    method, arguments, variance = RULES[rule]
    module = start(make(), method(distribution=distribution, **arguments))
    weight, std = module.weight.detach(), math.sqrt(variance(fan_in, fan_out))
    assert weight.mean().item() == pytest.approx(0, abs=6 * std / math.sqrt(weight.numel()))
    assert weight.std().item() == pytest.approx(std, rel=0.03)
    # the largest of n numbers: just below √3·σ if uniform, well above it if normal
    assert (weight.abs().max() <= math.sqrt(3) * std) == (distribution == "uniform")
    assert weight.abs().max() > 1.7 * std
    assert (module.bias == 0).all()


TWINS = [
    (init.LeCun(distribution="uniform"), lambda w, g: nn.init.kaiming_uniform_(w, nonlinearity="linear", generator=g)),
    (init.LeCun(distribution="normal"), lambda w, g: nn.init.kaiming_normal_(w, nonlinearity="linear", generator=g)),
    (init.Glorot(distribution="uniform"), lambda w, g: nn.init.xavier_uniform_(w, generator=g)),
    (init.Glorot(distribution="normal"), lambda w, g: nn.init.xavier_normal_(w, generator=g)),
    (init.He(distribution="uniform"), lambda w, g: nn.init.kaiming_uniform_(w, generator=g)),
    (init.He(distribution="normal"), lambda w, g: nn.init.kaiming_normal_(w, generator=g)),
    (
        init.He(distribution="normal", mode="fan_out"),
        lambda w, g: nn.init.kaiming_normal_(w, mode="fan_out", generator=g),
    ),
    (
        init.He(distribution="normal", negative_slope=0.2),
        lambda w, g: nn.init.kaiming_normal_(w, a=0.2, nonlinearity="leaky_relu", generator=g),
    ),
    (init.Orthogonal(gain=1.5), lambda w, g: nn.init.orthogonal_(w, 1.5, generator=g)),
    (init.Normal(std=0.3), lambda w, g: nn.init.normal_(w, 0, 0.3, generator=g)),
    (init.Uniform(limit=0.3), lambda w, g: nn.init.uniform_(w, -0.3, 0.3, generator=g)),
    (init.TruncatedNormal(std=0.3), lambda w, g: nn.init.trunc_normal_(w, 0, 0.3, -0.6, 0.6, generator=g)),
    (init.Constant(value=0.3), lambda w, g: nn.init.constant_(w, 0.3)),
]


@pytest.mark.parametrize(("how", "twin"), TWINS)
@pytest.mark.parametrize("make", [lambda: nn.Linear(20, 30), lambda: nn.Conv2d(4, 6, 3)])
def test_plain_layers_are_torchs_to_the_bit(make, how: init.Init, twin) -> None:
    expected = make()
    twin(expected.weight, torch.Generator().manual_seed(0))
    torch.testing.assert_close(start(make(), how).weight, expected.weight)


def test_truncated_normal_is_cut_at_two_standard_deviations() -> None:
    weight = start(nn.Linear(500, 400), init.TruncatedNormal(std=0.1)).weight
    assert 0.199 < weight.abs().max() <= 0.2
    assert weight.std().item() == pytest.approx(0.0880, rel=0.01)


def eye_of(matrix: Tensor) -> Tensor:
    flat = matrix.flatten(1)
    return flat @ flat.T if flat.shape[0] <= flat.shape[1] else flat.T @ flat


@pytest.mark.parametrize(
    ("make", "matrices"),
    [
        (lambda: nn.Linear(20, 30), 1),
        (lambda: nn.Conv2d(8, 12, 3), 1),
        (lambda: nn.Conv2d(8, 12, 3, groups=4), 4),
        (lambda: nn.ConvTranspose2d(8, 12, 3, groups=2), 2),
    ],
)
def test_orthogonal_in_every_group(make, matrices: int) -> None:
    for part in start(make(), init.Orthogonal(gain=2.0)).weight.chunk(matrices):
        product = eye_of(part)
        torch.testing.assert_close(product, 4 * torch.eye(len(product)), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("make", "gates"),
    [
        (lambda: nn.RNN(6, 8, num_layers=2, bidirectional=True), 1),
        (lambda: nn.GRU(6, 8, num_layers=2), 3),
        (lambda: nn.LSTM(6, 8, proj_size=5), 4),
        (lambda: nn.LSTMCell(6, 8), 4),
    ],
)
def test_recurrent_layers_gate_by_gate(make, gates: int) -> None:
    module = start(make(), init.Orthogonal())
    for name, parameter in module.named_parameters():
        if "bias" in name:
            assert (parameter == 0).all(), name
            continue
        for gate in parameter.chunk(1 if "weight_hr" in name else gates):
            product = eye_of(gate)
            torch.testing.assert_close(product, torch.eye(len(product)), atol=1e-5, rtol=0)
    wide = start(nn.LSTM(300, 200), init.Glorot(distribution="normal"))
    assert wide.weight_ih_l0.std().item() == pytest.approx(math.sqrt(2 / 500), rel=0.02)


def test_attention_projection_by_projection() -> None:
    module = start(nn.MultiheadAttention(16, 4), init.Orthogonal())
    for part in (*module.in_proj_weight.chunk(3), module.out_proj.weight):
        torch.testing.assert_close(part @ part.T, torch.eye(16), atol=1e-5, rtol=0)
    assert (module.in_proj_bias == 0).all()


def test_norms_embeddings_frozen_weights_and_buffers_are_left_alone() -> None:
    network = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    network[4].requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    start(network, init.Constant(value=0.5))
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"1.weight", "1.bias"}

    lenet = LeNet5Original()
    centres, gain = lenet.output.centres.clone(), lenet.s2.gain.detach().clone()
    start(lenet, init.Constant(value=0.5))
    assert torch.equal(lenet.output.centres, centres)
    assert torch.equal(lenet.s2.gain, gain)
    assert (lenet.c3.four.weight == 0.5).all()


def test_biases_can_be_kept() -> None:
    layer = nn.Linear(3, 3)
    before = layer.bias.detach().clone()
    start(layer, init.Normal(zero_bias=False))
    assert torch.equal(layer.bias, before)


def test_default_changes_nothing() -> None:
    layer = nn.Linear(3, 3)
    before = layer.weight.detach().clone()
    init.Default()(layer, torch.Generator())
    assert torch.equal(layer.weight, before)


def test_the_generator_decides_and_the_global_one_is_not_drawn_from() -> None:
    before = torch.get_rng_state()
    for how in (init.He(), init.Orthogonal(), init.TruncatedNormal(), init.Normal()):
        layer = nn.utils.skip_init(nn.Linear, 8, 8)
        first, again, other = (start(layer, how, seed).weight.detach().clone() for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_without_matrices_is_refused() -> None:
    for network in (nn.BatchNorm1d(4), nn.Embedding(3, 4), nn.Linear(3, 3).requires_grad_(False)):
        with pytest.raises(ValueError, match="init=Orthogonal: the network has no weight matrix"):
            start(network, init.Orthogonal())


@pytest.mark.parametrize(
    ("how", "arguments"),
    [
        (init.LeCun, {"distribution": "gaussian"}),
        (init.He, {"distribution": "gaussian"}),
        (init.He, {"mode": "fan_avg"}),
        (init.Normal, {"std": 0.0}),
        (init.TruncatedNormal, {"std": -1.0}),
        (init.Uniform, {"limit": 0.0}),
    ],
)
def test_wrong_values_are_refused(how: type[init.Init], arguments: dict) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(arguments))}=.*must be"):
        how(**arguments)
