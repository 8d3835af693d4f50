"""LeNet-5 twice: counts of the paper, layer by layer, and outputs against calculations by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo.models.lenet import LeNet5, LeNet5Original, SparseConvolution
from zoo.summary import summarize


def on_meta(network: type[nn.Module], **arguments: object) -> nn.Module:
    with torch.device("meta"):
        return network(**arguments)


@pytest.mark.parametrize("pool", ["max", "average"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("image_size", [28, 32])
def test_modern_parameters_and_multiply_adds(image_size: int, activation: str, pool: str) -> None:
    network = on_meta(LeNet5, image_size=image_size, activation=activation, pool=pool)
    found = summarize(network, torch.empty(1, 1, image_size, image_size))
    assert (found.parameters, found.multiply_adds) == (61_706, 416_520)


def test_modern_colour_and_classes() -> None:
    network = on_meta(LeNet5, in_channels=3, num_classes=100, image_size=32)
    assert sum(p.numel() for p in network.parameters()) == 61_706 + 2 * 6 * 25 + 90 * 85
    assert LeNet5(in_channels=3, num_classes=100, image_size=32)(torch.zeros(1, 3, 32, 32)).shape == (1, 100)


@pytest.mark.parametrize(("activation", "pool"), [("relu", "max"), ("tanh", "average")])
def test_modern_is_the_formula(activation: str, pool: str) -> None:
    torch.manual_seed(0)
    network = LeNet5(activation=activation, pool=pool)
    w1, b1, w2, b2, w3, b3, w4, b4, w5, b5 = network.parameters()
    squash = {"relu": torch.relu, "tanh": torch.tanh}[activation]
    halve = {"max": F.max_pool2d, "average": F.avg_pool2d}[pool]
    input = torch.randn(2, 1, 28, 28)
    x = halve(squash(F.conv2d(F.pad(input, (2, 2, 2, 2)), w1, b1)), 2)
    x = halve(squash(F.conv2d(x, w2, b2)), 2).reshape(2, 400)
    x = squash(squash(x @ w3.T + b3) @ w4.T + b4) @ w5.T + b5
    torch.testing.assert_close(network(input), x)


def test_original_has_60000_parameters_layer_by_layer() -> None:
    network = on_meta(LeNet5Original)
    counts = {name: sum(p.numel() for p in layer.parameters()) for name, layer in network.named_children()}
    assert counts == {
        **{"c1": 156, "s2": 12, "c3": 1_516, "s4": 32, "c5": 48_120, "f6": 10_164},
        **{"squash": 0, "output": 0},
    }
    assert sum(counts.values()) == 60_000
    # the paper's connections of C1, C3, C5 and F6 less those of the biases
    connections = 122_304 + 151_600 + 48_120 + 10_164
    biases = 6 * 28 * 28 + 16 * 10 * 10 + 120 + 84
    assert summarize(network, torch.empty(1, 1, 28, 28)).multiply_adds == connections - biases


def test_c3_is_the_table_of_the_paper() -> None:
    table = [  # Table I: rows are maps of S2, columns those of C3
        "X...XXX..XXXX.XX",
        "XX...XXX..XXXX.X",
        "XXX...XXX..X.XXX",
        ".XXX..XXXX..X.XX",
        "..XXX..XXXX.XX.X",
        "...XXX..XXXX.XXX",
    ]
    c3 = SparseConvolution()
    reached = torch.zeros(6, 16, dtype=torch.bool)
    for number in range(6):
        input = torch.zeros(1, 6, 5, 5)
        input[0, number] = 1
        reached[number] = (c3(input) - c3(torch.zeros(1, 6, 5, 5)))[0, :, 0, 0] != 0
    assert ["".join("X" if seen else "." for seen in row) for row in reached] == table


def test_c3_is_the_same_dense_and_grouped() -> None:
    torch.manual_seed(0)
    c3, input = SparseConvolution(), torch.randn(2, 6, 14, 14)
    three = [c3.three(input[:, [n % 6 for m in range(6) for n in range(m, m + 3)]])]
    dense = c3(input)
    torch.testing.assert_close(dense[:, :6], three[0])
    torch.testing.assert_close(dense[:, 15:], c3.six(input))

    class Elsewhere(torch.Tensor):
        """A tensor that says it is on another device, to take the path of accelerators."""

        device = torch.device("cuda")

    torch.testing.assert_close(c3(input.as_subclass(Elsewhere)).as_subclass(torch.Tensor), dense)


def test_original_is_the_formula() -> None:
    torch.manual_seed(0)
    network = LeNet5Original().double()
    input = torch.randn(3, 1, 32, 32, dtype=torch.float64)
    state = network.state_dict()

    def squash(x: torch.Tensor) -> torch.Tensor:
        return 1.7159 * torch.tanh(2 / 3 * x)

    def subsample(x: torch.Tensor, name: str) -> torch.Tensor:
        total = x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]
        return squash(total * state[f"{name}.gain"] + state[f"{name}.bias"])

    x = subsample(squash(F.conv2d(input, state["c1.weight"], state["c1.bias"])), "s2")
    x = subsample(squash(network.c3(x)), "s4")
    x = squash(F.conv2d(x, state["c5.weight"], state["c5.bias"])).reshape(3, 120)
    f6 = squash(x @ state["f6.weight"].T + state["f6.bias"]).detach().numpy()
    centres = network.output.centres.numpy()
    by_hand = np.zeros((3, 10))
    for b in range(3):
        for k in range(10):
            by_hand[b, k] = -sum((f6[b, i] - centres[k, i]) ** 2 for i in range(84))
    large = LeNet5Original(image_size=32).double()
    large.load_state_dict(state)
    np.testing.assert_allclose(large(input).detach().numpy(), by_hand, rtol=1e-9)
    cut = input[:, :, 2:-2, 2:-2]
    torch.testing.assert_close(network(cut), large(F.pad(cut, (2, 2, 2, 2), mode="replicate")))


def test_centres_are_fixed_distinct_bitmaps() -> None:
    network = LeNet5Original()
    centres = network.output.centres
    assert centres.shape == (10, 84)
    assert set(centres.unique().tolist()) == {-1.0, 1.0}
    assert not centres.requires_grad
    different = (centres[:, None] != centres).sum(2) + 84 * torch.eye(10)
    assert different.min() >= 12  # pixels, of 84
    one = centres[1].reshape(12, 7)
    assert (one[1:-1, 3] == 1).all()  # the stem of a 1, row by row


def test_original_starts_as_the_paper_says() -> None:
    torch.manual_seed(0)
    network = LeNet5Original()
    for layer, fan_in in (
        (network.c1, 25),
        (network.s4, 4),
        (network.c3.four, 100),
        (network.c5, 400),
        (network.f6, 120),
    ):
        values = torch.cat([p.flatten() for p in layer.parameters()]).abs()
        assert values.max() <= 2.4 / fan_in
        assert values.max() > 0.9 * 2.4 / fan_in
    assert math.isclose(network.f6.weight.std().item(), 2.4 / 120 / math.sqrt(3), rel_tol=0.03)


@pytest.mark.parametrize("network", [LeNet5, LeNet5Original])
def test_wrong_input_and_size_are_refused(network: type[nn.Module]) -> None:
    for shape in ((2, 1, 32, 32), (2, 3, 28, 28), (1, 28, 28), (2, 784)):
        with pytest.raises(ValueError, match=r"must be \(batch, 1, 28, 28\)"):
            network()(torch.zeros(shape))
    with pytest.raises(ValueError, match="image_size=64: must be 28"):
        network(image_size=64)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="activation=gelu: must be one of relu, tanh"):
        LeNet5(activation="gelu")
    with pytest.raises(ValueError, match="pool=min: must be one of max, average"):
        LeNet5(pool="min")
    with pytest.raises(ValueError, match="num_classes=5: must be 10"):
        LeNet5Original(num_classes=5)
