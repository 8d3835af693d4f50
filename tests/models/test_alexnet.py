"""AlexNet: counts and table of the paper, its formula written out tower by tower, and torchvision's one-tower form."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from zoo.models.alexnet import AlexNet, AlexNetOriginal, alexnet, alexnet_2012
from zoo.summary import Summary, summarize

BOTH = [AlexNet, AlexNetOriginal]


def summary(network: type[nn.Module], image_size: int, **arguments: object) -> Summary:
    with torch.device("meta"):
        built = network(image_size=image_size, **arguments)
    return summarize(built, torch.empty(1, 3, image_size, image_size))


def shapes(found: Summary, *types: str) -> list[tuple[int, ...]]:
    """(channels, side) of maps and (features,) of vectors, layer by layer."""
    return [layer.output_shape[1:][:2] for layer in found.layers if layer.type in types]


@pytest.mark.parametrize("image_size", [224, 227])
def test_original_counts_and_layer_table(image_size: int) -> None:
    """Figure 2 of the paper: 55, 27, 13 a side, and 96-256-384-384-256 maps over both towers."""
    found = summary(alexnet_2012, image_size)
    assert (found.parameters, found.multiply_adds) == (60_965_224, 724_406_816)
    assert shapes(found, "Conv2d", "MaxPool2d", "Linear") == [
        *((96, 55), (96, 27), (256, 27), (256, 13), (384, 13), (384, 13), (256, 13), (256, 6)),
        *((4096,), (4096,), (1000,)),
    ]
    order = [layer.type for layer in found.layers]
    assert order[:8] == ["Conv2d", "ReLU", "LocalResponseNorm", "MaxPool2d"] * 2
    assert order[-7:] == ["Linear", "ReLU", "Dropout"] * 2 + ["Linear"]
    with torch.device("meta"):
        network = AlexNetOriginal(image_size=image_size)
    convolutions = [layer for layer in network.features if isinstance(layer, nn.Conv2d)]
    assert [layer.groups for layer in convolutions] == [1, 2, 1, 2, 2]
    assert convolutions[0].padding == ((0, 0) if image_size == 227 else (2, 2))


def test_one_tower_counts_and_layer_table() -> None:
    found = summary(alexnet, 224)
    assert (found.parameters, found.multiply_adds) == (61_100_840, 714_188_480)
    assert shapes(found, "Conv2d", "MaxPool2d", "Linear") == [
        *((64, 55), (64, 27), (192, 27), (192, 13), (384, 13), (256, 13), (256, 13), (256, 6)),
        *((4096,), (4096,), (1000,)),
    ]


def test_one_tower_equals_torchvision(certify: Callable[..., None]) -> None:
    with torch.device("meta"):  # its own initial weights are not needed
        twin = torchvision.models.alexnet()
    ours = AlexNet(image_size=127)
    certify("alexnet", ours, twin.to_empty(device="cpu"), source="torchvision.models.alexnet", image_size=127)


def test_one_tower_starts_as_torchvisions() -> None:
    torch.manual_seed(0)
    ours = AlexNet().state_dict()
    torch.manual_seed(0)
    theirs = torchvision.models.alexnet().state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def response_norm(maps: np.ndarray) -> np.ndarray:
    """Section 3.3 of the paper, a sum for every map: k = 2, n = 5, α = 1e-4, β = .75."""
    count = maps.shape[1]
    out = np.empty_like(maps)
    for i in range(count):
        total = np.zeros_like(maps[:, i])
        for j in range(max(0, i - 2), min(count - 1, i + 2) + 1):
            total += maps[:, j] ** 2
        out[:, i] = maps[:, i] / (2 + 1e-4 * total) ** 0.75
    return out


def test_original_is_the_paper_tower_by_tower() -> None:
    """Each tower computed by itself; large inputs, so that the response normalisation shows."""
    torch.manual_seed(0)
    network = AlexNetOriginal(image_size=67, width=1 / 8, num_classes=5).double().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0, 0.1)
    w1, b1, w2, b2, w3, b3, w4, b4, w5, b5, w6, b6, w7, b7, w8, b8 = network.parameters()

    def towers(maps: list[Tensor], weight: Tensor, bias: Tensor, padding: int) -> list[Tensor]:
        """Each tower's own half of the kernels, which sees that tower's maps only."""
        halves = zip(maps, weight.chunk(2), bias.chunk(2), strict=True)
        return [F.relu(F.conv2d(one, w, b, padding=padding)) for one, w, b in halves]

    def normalise_and_pool(maps: list[Tensor]) -> list[Tensor]:
        together = torch.from_numpy(response_norm(torch.cat(maps, 1).detach().numpy()))
        return [F.max_pool2d(half, 3, 2) for half in together.chunk(2, 1)]

    images = 300 * torch.randn(2, 3, 67, 67, dtype=torch.float64)
    x = normalise_and_pool(list(F.relu(F.conv2d(images, w1, b1, stride=4, padding=2)).chunk(2, 1)))
    x = normalise_and_pool(towers(x, w2, b2, 2))
    x = list(F.relu(F.conv2d(torch.cat(x, 1), w3, b3, padding=1)).chunk(2, 1))
    x = towers(towers(x, w4, b4, 1), w5, b5, 1)
    y = F.max_pool2d(torch.cat(x, 1), 3, 2).reshape(2, -1)
    y = F.relu(F.relu(y @ w6.T + b6) @ w7.T + b7) @ w8.T + b8
    torch.testing.assert_close(network(images), y, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("tower_bias", "start"), [(None, 1.0), (0.1, 0.1)])
def test_original_starts_as_the_paper_says(tower_bias: float | None, start: float) -> None:
    torch.manual_seed(0)
    network = AlexNetOriginal(image_size=227, width=0.25, num_classes=100, tower_bias=tower_bias)
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    biases = [0, start, 0, start, start, start, start, 0]
    for layer, bias in zip(layers, biases, strict=True):
        assert torch.equal(layer.bias, torch.full_like(layer.bias, bias))
        assert math.isclose(layer.weight.std().item(), 0.01, rel_tol=0.03)
        assert abs(layer.weight.mean().item()) < 5e-4


@pytest.mark.parametrize("network", BOTH)
def test_small_form_starts_with_he_and_no_biases(network: type[nn.Module]) -> None:
    torch.manual_seed(0)
    layers = [
        layer for layer in network(image_size=32, num_classes=100).modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    assert len(layers) == 8
    for layer in layers:
        assert not layer.bias.any()
        assert math.isclose(layer.weight.std().item(), math.sqrt(2 / layer.weight[0].numel()), rel_tol=0.05)


def test_small_original_takes_a_tower_bias() -> None:
    network = AlexNetOriginal(image_size=32, width=0.25, tower_bias=0.1)
    means = [p.mean().item() for name, p in network.named_parameters() if name.endswith("bias")]
    assert means == pytest.approx([0, 0.1, 0, 0.1, 0.1, 0.1, 0.1, 0])


@pytest.mark.parametrize("network", BOTH)
@pytest.mark.parametrize(("image_size", "side"), [(28, 2), (32, 3), (64, 7), (96, 11)])
@pytest.mark.parametrize("channels", [1, 3])
def test_small_form_takes_28_to_96_pixels(network: type[nn.Module], image_size: int, side: int, channels: int) -> None:
    torch.manual_seed(0)
    built = network(in_channels=channels, num_classes=7, image_size=image_size, form="small", width=0.25)
    images = torch.randn(2, channels, image_size, image_size)
    assert built.features(images).shape == (2, 64, side, side)
    logits = built(images)
    assert logits.shape == (2, 7)
    F.cross_entropy(logits, torch.tensor([0, 6])).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in built.parameters())


@pytest.mark.parametrize("network", BOTH)
def test_small_form_overfits_one_batch(network: type[nn.Module]) -> None:
    torch.manual_seed(0)
    built = network(num_classes=5, image_size=32, width=0.25)
    images, targets = torch.randn(8, 3, 32, 32), torch.arange(8) % 5
    optimizer = torch.optim.Adam(built.parameters(), lr=1e-3)
    for _ in range(60):
        loss = F.cross_entropy(built(images), targets)
        if loss < 0.02:
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    raise AssertionError(f"the loss on eight examples is still {loss.item():.3f}")


@pytest.mark.parametrize("network", BOTH)
@pytest.mark.parametrize(
    ("arguments", "form"),
    [
        ({}, "paper"),
        ({"image_size": 65}, "paper"),
        ({"image_size": 64}, "small"),
        ({"image_size": 63, "form": "paper"}, "paper"),
        ({"image_size": 96, "form": "small"}, "small"),
        ({"image_size": 32, "width": 0.25}, "small ×1/4"),
        ({"image_size": 200, "width": 1.5}, "paper ×3/2"),
    ],
)
def test_form_says_what_was_built(network: type[nn.Module], arguments: dict, form: str) -> None:
    with torch.device("meta"):
        built = network(**arguments)
        assert built.form == form
        size = arguments.get("image_size", 227 if network is AlexNetOriginal else 224)
        assert built(torch.empty(1, 3, size, size)).shape == (1, 1000)
    assert built.features[0].kernel_size == ((11, 11) if form.startswith("paper") else (5, 5))


@pytest.mark.parametrize("network", BOTH)
def test_width_and_dropout_reach_every_layer(network: type[nn.Module]) -> None:
    with torch.device("meta"):
        built = network(width=1 / 16, dropout=0.3, num_classes=10)
    widths = [layer.out_channels for layer in built.features if isinstance(layer, nn.Conv2d)]
    assert widths == ([8, 16, 24, 24, 16] if network is AlexNetOriginal else [8, 12, 24, 16, 16])  # never below 8
    assert [layer.out_features for layer in built.classifier if isinstance(layer, nn.Linear)] == [256, 256, 10]
    assert [layer.p for layer in built.classifier if isinstance(layer, nn.Dropout)] == [0.3, 0.3]


@pytest.mark.parametrize("network", BOTH)
@pytest.mark.parametrize(("image_size", "dropout"), [(32, 0.0), (224, 0.5)])
def test_dropout_is_a_half_in_the_paper_form(network: type[nn.Module], image_size: int, dropout: float) -> None:
    with torch.device("meta"):
        built = network(image_size=image_size)
    assert [layer.p for layer in built.classifier if isinstance(layer, nn.Dropout)] == [dropout, dropout]


@pytest.mark.parametrize("network", BOTH)
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"form": "tiny"}, "form=tiny: must be one of auto, paper, small"),
        ({"width": 0.0}, "width=0.0: must be more than 0"),
        ({"dropout": 1.0}, "dropout=1.0: must be at least 0 and below 1"),
        ({"dropout": -0.1}, "dropout=-0.1: must be at least 0"),
        ({"image_size": 62, "form": "paper"}, "image_size=62: must be at least 63 for form=paper"),
        ({"image_size": 27}, "image_size=27: must be 28 to 96 for form=small"),
        ({"image_size": 97, "form": "small"}, "image_size=97: must be 28 to 96 for form=small"),
    ],
)
def test_wrong_arguments_are_refused(network: type[nn.Module], arguments: dict, sentence: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=sentence):
        network(**arguments)


def test_original_refuses_what_two_towers_cannot_share_and_other_sizes() -> None:
    with torch.device("meta"):
        with pytest.raises(ValueError, match=r"width=0\.3: must give even widths"):
            AlexNetOriginal(width=0.3)
        with pytest.raises(ValueError, match=r"must be \(batch, 3, 227, 227\)"):
            AlexNetOriginal()(torch.empty(1, 3, 224, 224))
