"""Initialisations: variances, limits and fans, against torch.nn.init where it knows the layer and by hand elsewhere."""

import math

import pytest
import torch
from conftest import compose_config
from torch import Tensor, nn

from zoo import init
from zoo.data.synthetic import Synthetic
from zoo.models.inception_v1 import InceptionV1
from zoo.models.lenet import LeNet5Original
from zoo.models.mlp import MLP
from zoo.models.resnet import resnet18
from zoo.network import construct, initialise
from zoo.report import to_plain
from zoo.run import first_inputs
from zoo.swaps import swap


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
        (init.LSUV, {"tol": 0.0}),
        (init.LSUV, {"max_tries": 0}),
    ],
)
def test_wrong_values_are_refused(how: type[init.Init], arguments: dict) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(arguments))}=.*must be"):
        how(**arguments)


# Layer-sequential unit variance -------------------------------------------------------------------------------------


def batch(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def sequential(network: nn.Module, inputs: Tensor | None, **arguments) -> nn.Module:
    init.LSUV(**arguments)(network, torch.Generator().manual_seed(0), *([] if inputs is None else [inputs]))
    return network


def output_variances(network: nn.Module, inputs: Tensor) -> dict[str, float]:
    """Of the layers with weights, at their first call in training mode, by a walk of its own."""
    found: dict[str, float] = {}
    names = {module: name for name, module in network.named_modules()}

    def look(module: nn.Module, args: tuple, output: Tensor) -> None:
        found.setdefault(names[module], output.var(correction=0).item())

    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(look)
    with torch.no_grad():
        network.train()(inputs)
    return found


@pytest.mark.parametrize(
    "make",
    [
        lambda: MLP(in_features=48, hidden=[60] * 10, activation="tanh"),
        lambda: MLP(in_features=48, hidden=[60] * 10, activation="relu", norm="layer"),
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(8, 6, 2),
            nn.ReLU(),
            nn.Conv2d(6, 4, 1, groups=2),
        ),
        lambda: resnet18(image_size=32, width=0.125, num_classes=5),
    ],
)
def test_lsuv_gives_every_layer_unit_variance(make) -> None:
    network = sequential(make(), batch(64, 3, 4, 4), tol=1e-3)
    variances = output_variances(network, batch(64, 3, 4, 4))
    assert variances
    assert variances == pytest.approx(dict.fromkeys(variances, 1.0), abs=2e-3)
    for module in network.modules():
        if type(module) in (nn.Linear, nn.Conv2d) and getattr(module, "groups", 1) == 1:
            product = eye_of(module.weight.detach())  # still orthogonal, of one scale
            torch.testing.assert_close(product, product[0, 0] * torch.eye(len(product)), atol=1e-4, rtol=1e-4)


def test_lsuv_goes_in_the_order_of_the_calls() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first, self.unused = nn.Linear(20, 5), nn.Linear(9, 20), nn.Linear(9, 9)

        def forward(self, input: Tensor) -> Tensor:
            return self.last(3 * self.first(input).relu())

    network = sequential(Backwards(), 5 * batch(200, 9), tol=1e-3)
    assert output_variances(network, 5 * batch(200, 9)) == pytest.approx({"first": 1.0, "last": 1.0}, abs=2e-3)
    torch.testing.assert_close(network.unused.weight @ network.unused.weight.T, torch.eye(9), atol=1e-5, rtol=0)


def test_lsuv_leaves_statistics_modes_and_the_global_generator() -> None:
    network = nn.Sequential(
        *(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.9), nn.Linear(8, 8), nn.AlphaDropout(0.5), nn.Linear(8, 4))
    ).eval()
    network[2].train()
    modes = [module.training for module in network.modules()]
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    state = torch.get_rng_state()
    sequential(network, 7 * batch(100, 6) + 3)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in network.named_buffers())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks for module in network.modules())
    # measured without dropout, and behind a batch norm on the batch's own statistics
    network[2].p = network[4].p = 0.0
    assert output_variances(network, 7 * batch(100, 6) + 3)["3"] == pytest.approx(1, abs=0.1)


def test_lsuv_is_off_for_noise_on_residual_branches() -> None:
    network = swap(resnet18(image_size=32, width=0.125, num_classes=5), stochastic_depth=0.9, drop_block=0.5)
    state = torch.get_rng_state()
    sequential(network, batch(8, 3, 32, 32))
    assert torch.equal(torch.get_rng_state(), state)


def test_lsuv_reaches_auxiliary_heads_of_a_network_in_evaluation_mode() -> None:
    network = sequential(InceptionV1(image_size=224, width=0.125, num_classes=5).eval(), batch(4, 3, 224, 224))
    assert not network.training
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    variances = output_variances(network, batch(4, 3, 224, 224))
    assert len(variances) == sum(isinstance(module, nn.Linear | nn.Conv2d) for module in network.modules())
    assert variances == pytest.approx(dict.fromkeys(variances, 1.0), abs=0.101)


def test_lsuv_measures_a_shared_layer_once_and_leaves_what_is_frozen_or_does_not_vary() -> None:
    shared = nn.Linear(6, 6)
    tied = nn.Linear(6, 6)
    tied.weight = shared.weight
    frozen = nn.Linear(6, 6).requires_grad_(False)
    before = frozen.weight.clone()
    gamma = nn.LayerNorm(6)
    nn.init.zeros_(gamma.weight)
    network = nn.Sequential(shared, nn.ReLU(), shared, tied, frozen, gamma, nn.Linear(6, 6))
    sequential(network, 3 * batch(100, 6), tol=1e-3)
    assert shared(3 * batch(100, 6)).var(correction=0).item() == pytest.approx(1, abs=2e-3)
    assert torch.equal(frozen.weight, before)
    torch.testing.assert_close(network[6].weight @ network[6].weight.T, torch.eye(6), atol=1e-5, rtol=0)


def test_lsuv_looks_at_examples_that_are_trained_on() -> None:
    data, config = (
        Synthetic(train_size=600),
        to_plain(compose_config(["data=synthetic", "task.class_weights=balanced"])),
    )
    data.setup("fit")
    (inputs,) = first_inputs(config, nn.Identity(), data)
    assert 128 < len(inputs) <= 256
    data.splits["train"].targets = torch.arange(10).repeat_interleave(60)  # class after class
    data.train_examples = 7
    used = data.indices("train")
    assert used.tolist() == list(range(0, 420, 60))
    (inputs,) = first_inputs(config, nn.Identity(), data)
    assert torch.equal(inputs, data.splits["train"].batch(0, torch.arange(7), used)["input"])


def test_lsuv_calls_a_network_with_all_its_arguments(small_run, capsys) -> None:
    small = ["data.train_size=40", "data.val_size=8", "data.test_size=8", "model.hidden=8", "model.embedding=8"]
    folder, _ = small_run("model=seq2seq", "data=reversal", "task=seq2seq", "init=lsuv", *small, "trainer.max_steps=1")
    assert (folder / "scores.json").exists()


def test_a_forget_bias_is_not_made_zero_without_a_word(capsys) -> None:
    config = to_plain(compose_config(["model=lstm_forecaster", "init=orthogonal"]))
    config["model"] |= {"num_features": 1, "num_classes": 1}
    network = construct(config)
    initialise(network, {**config, "init": {**config["init"], "zero_bias": False}})
    assert network.recurrent.bias_hh_l0.any() or network.recurrent.bias_ih_l0.any()
    assert "note" not in capsys.readouterr().err
    initialise(network, config)
    assert not network.recurrent.bias_hh_l0.any()
    assert "forget gates too; init.zero_bias=false leaves them." in capsys.readouterr().err


def test_lsuv_stops_within_the_tolerance() -> None:
    inputs = batch(500, 6) * 1.2  # an orthonormal square matrix keeps the variance, 1.44
    near, far = (sequential(nn.Linear(6, 6), inputs, tol=tol).weight for tol in (0.6, 0.3))
    torch.testing.assert_close(near @ near.T, torch.eye(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(far, near / (inputs @ near.T).var(correction=0).sqrt(), rtol=1e-4, atol=1e-6)


def test_lsuv_keeps_biases_if_told_and_says_where_they_are_too_large() -> None:
    layer = nn.Linear(6, 6)
    nn.init.normal_(layer.bias, std=0.5)
    before = layer.bias.detach().clone()
    sequential(layer, 3 * batch(100, 6), zero_bias=False, tol=0.01)
    assert torch.equal(layer.bias, before)
    assert layer(3 * batch(100, 6)).var(correction=0).item() == pytest.approx(1, abs=0.011)
    network = nn.Sequential(nn.Linear(6, 6))
    nn.init.constant_(network[0].bias[:3], 9.0)
    with pytest.raises(ValueError, match=r"^init=LSUV: the outputs of 0 have variance .* after max_tries=10"):
        sequential(network, batch(100, 6), zero_bias=False)
    assert not network[0]._forward_hooks


def test_lsuv_alone_needs_inputs_and_refuses_without() -> None:
    assert [how.needs_inputs for how in (init.LSUV(), init.He(), init.Default())] == [True, False, False]
    with pytest.raises(ValueError, match=r"^init=LSUV: must be given a batch of inputs"):
        sequential(nn.Linear(3, 3), None)
    layer, twin = nn.Linear(3, 3), nn.Linear(3, 3)
    init.He()(layer, torch.Generator().manual_seed(0), batch(2, 3))
    assert torch.equal(layer.weight, start(twin, init.He()).weight)
