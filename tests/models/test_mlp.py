"""Softmax regression and the MLP: counts, the order of the layers, and what they refuse."""

import math

import pytest
import torch
from torch import nn

from zoo.models.linear import SoftmaxRegression
from zoo.models.mlp import ACTIVATIONS, MLP
from zoo.summary import summarize


@pytest.mark.parametrize(
    ("hidden", "parameters", "multiply_adds"),
    [
        ([128], 101_770, 101_632),
        ([300], 238_510, 238_200),
        ([1000], 795_010, 794_000),
        ([300, 100], 266_610, 266_200),
        ([500, 150], 469_160, 468_500),
        ([2500, 2000, 1500, 1000, 500], 11_972_510, 11_965_000),
        ([], 7_850, 7_840),
    ],
)
def test_parameters_and_multiply_adds(hidden: list[int], parameters: int, multiply_adds: int) -> None:
    with torch.device("meta"):
        network = MLP(hidden=hidden)
    found = summarize(network, torch.empty(1, 1, 28, 28))
    assert (found.parameters, found.multiply_adds) == (parameters, multiply_adds)


def test_softmax_regression_is_one_linear_map_of_images_and_tables() -> None:
    network = SoftmaxRegression(in_features=12, num_classes=3)
    weight, bias = network.parameters()
    images = torch.randn(4, 3, 2, 2)
    torch.testing.assert_close(network(images), images.reshape(4, 12) @ weight.T + bias)
    assert torch.equal(network(images), network(images.flatten(1)))
    assert (weight.shape, bias.shape) == ((3, 12), (3,))


FORMULAS = {
    "relu": lambda x: max(x, 0.0),
    "tanh": math.tanh,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "scaled_tanh": lambda x: 1.7159 * math.tanh(2 * x / 3),
    "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
    "silu": lambda x: x / (1 + math.exp(-x)),
    "elu": lambda x: x if x > 0 else math.exp(x) - 1,
    "selu": lambda x: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * (math.exp(x) - 1)),
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "softplus": lambda x: math.log1p(math.exp(x)),
}


@pytest.mark.parametrize("name", sorted({*ACTIVATIONS, *FORMULAS}))
def test_activations_are_their_formulas(name: str) -> None:
    network = MLP(in_features=1, num_classes=1, hidden=[1], activation=name)
    for parameter in network.parameters():
        nn.init.constant_(parameter, float(parameter.ndim == 2))  # weights 1, biases 0: the activation alone is left
    for x in (-2.0, -0.5, 0.0, 0.7, 3.0):
        assert network(torch.tensor([[x]])).item() == pytest.approx(FORMULAS[name](x), abs=1e-6)


def test_scaled_tanh_keeps_one() -> None:
    assert ACTIVATIONS["scaled_tanh"]()(torch.tensor([1.0, -1.0])).tolist() == pytest.approx([1, -1], abs=1e-4)


def test_order_within_a_layer() -> None:
    network = MLP(hidden=[5, 6], norm="batch", dropout=0.2, activation="tanh")
    one = [nn.Linear, nn.BatchNorm1d, nn.Tanh, nn.Dropout]
    assert [type(layer) for layer in network.layers] == [nn.Flatten, *one, *one, nn.Linear]
    assert {layer.p for layer in network.layers if isinstance(layer, nn.Dropout)} == {0.2}
    assert isinstance(MLP(norm="layer").layers[2], nn.LayerNorm)
    assert isinstance(MLP(activation="selu", dropout=0.1).layers[3], nn.AlphaDropout)
    assert [type(layer) for layer in MLP().layers] == [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear]


def test_every_parameter_gets_a_gradient_and_one_example_is_enough_to_evaluate() -> None:
    network = MLP(in_features=8, num_classes=3, hidden=[7, 6], norm="batch", dropout=0.1)
    network(torch.randn(16, 8)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
    assert network.eval()(torch.randn(1, 8)).shape == (1, 3)


@pytest.mark.parametrize("network", [SoftmaxRegression, MLP])
def test_wrong_input_is_refused(network: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 3, 28, 28\): must have 784 numbers"):
        network()(torch.zeros(2, 3, 28, 28))


@pytest.mark.parametrize(
    ("argument", "value", "accepted"),
    [
        ("hidden", [16, 0], "widths of at least 1"),
        ("activation", "swish", "one of relu"),
        ("norm", "group", "one of none, batch, layer"),
        ("dropout", 1.0, "at least 0 and below 1"),
        ("dropout", -0.1, "at least 0 and below 1"),
    ],
)
def test_wrong_arguments_are_refused(argument: str, value: object, accepted: str) -> None:
    with pytest.raises(ValueError, match=f"^{argument}=.*must be {accepted}"):
        MLP(**{argument: value})
