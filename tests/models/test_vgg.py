"""VGG: counts and table of the paper, torchvision's networks as twins, and the small form."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from parity import GRADIENT_BAR, OUTPUT_BAR, compare
from torch import nn

from zoo.models import vgg
from zoo.models.vgg import VGG
from zoo.summary import Summary, summarize


def summary(image_size: int, **arguments: object) -> Summary:
    with torch.device("meta"):
        network = VGG(image_size=image_size, **arguments)
    return summarize(network, torch.empty(1, 3, image_size, image_size))


# Table 1 of the paper, row by row; 0 is a pool, and -n a 1×1 convolution
TABLE = {
    "vgg11": (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0),
    "vgg13": (64, 64, 0, 128, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0),
    "vgg16_c": (64, 64, 0, 128, 128, 0, 256, 256, -256, 0, 512, 512, -512, 0, 512, 512, -512, 0),
    "vgg16": (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0),
    "vgg19": (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512, 0),
}


@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"),
    [
        ("vgg11", 132_863_336, 7_609_090_048),
        ("vgg11_bn", 132_868_840, 7_609_090_048),
        ("vgg13", 133_047_848, 11_308_466_176),
        ("vgg13_bn", 133_053_736, 11_308_466_176),
        ("vgg16_c", 133_638_952, 11_770_888_192),
        ("vgg16", 138_357_544, 15_470_264_320),
        ("vgg16_bn", 138_365_992, 15_470_264_320),
        ("vgg19", 143_667_240, 19_632_062_464),
        ("vgg19_bn", 143_678_248, 19_632_062_464),
    ],
)
def test_counts_and_layer_table_of_the_paper(name: str, parameters: int, multiply_adds: int) -> None:
    with torch.device("meta"):
        network = getattr(vgg, name)()
    found = summarize(network, torch.empty(1, 3, 224, 224))
    assert (found.parameters, found.multiply_adds) == (parameters, multiply_adds)
    expected, side = [], 224
    for entry in TABLE[name.removesuffix("_bn")]:
        side = side if entry else side // 2
        channels = abs(entry) or expected[-1][0]
        expected.append((channels, side, 1 if entry < 0 else 3 if entry else 0))
    layers = dict(network.named_modules())
    shapes = [
        (*layer.output_shape[1:3], layers[layer.name].kernel_size[0] if layer.type == "Conv2d" else 0)
        for layer in found.layers
        if layer.type in ("Conv2d", "MaxPool2d")
    ]
    assert shapes == expected
    assert [tuple(p.shape) for p in network.classifier.parameters()][::2] == [(4096, 25088), (4096, 4096), (1000, 4096)]
    kinds = [type(layer).__name__ for layer in network.features[:4]]
    batch = ["Conv2d", "BatchNorm2d", "ReLU"]
    assert kinds[:3] == batch if name.endswith("_bn") else kinds[:2] == ["Conv2d", "ReLU"]


NAMES = [name + norm for name in ("vgg11", "vgg13", "vgg16", "vgg19") for norm in ("", "_bn")]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_equals_torchvision(name: str, certify: Callable[..., None]) -> None:
    """A quarter of a minute and gigabytes each; the next test does the same at a quarter of the width."""
    ours = getattr(vgg, name)(image_size=32, form="paper")
    with torch.device("meta"):  # its own initial weights are not needed
        twin = getattr(torchvision.models, name)()
    certify(name, ours, twin.to_empty(device="cpu"), source=f"torchvision.models.{name}", image_size=32)


@pytest.mark.parametrize("name", NAMES)
def test_equals_torchvision_at_a_quarter_of_the_width(name: str) -> None:
    """At 45 pixels, of which the pools drop some."""
    ours = getattr(vgg, name)(image_size=45, form="paper", num_classes=10, width=0.25)
    letters = torchvision.models.vgg.cfgs[{"11": "A", "13": "B", "16": "D", "19": "E"}[name[3:5]]]
    narrow = [letter if letter == "M" else letter // 4 for letter in letters]
    with torch.device("meta"):
        features = torchvision.models.vgg.make_layers(narrow, batch_norm=name.endswith("_bn"))
        twin = torchvision.models.vgg.VGG(features, num_classes=10)
        for place, sizes in ((0, (128 * 49, 1024)), (3, (1024, 1024)), (6, (1024, 10))):
            twin.classifier[place] = nn.Linear(*sizes)
    row = compare(ours, twin.to_empty(device="cpu"), image_size=45, num_classes=10)
    assert row["outputs"] <= OUTPUT_BAR, row
    assert max(row["gradients"], row["weights after a step"], row["buffers"]) <= GRADIENT_BAR, row


def test_paper_form_starts_as_torchvisions() -> None:
    torch.manual_seed(0)
    network = vgg.vgg11_bn(num_classes=20, width=0.25, image_size=224)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            assert math.isclose(layer.weight.std().item(), math.sqrt(2 / (9 * layer.out_channels)), rel_tol=0.1)
        if isinstance(layer, nn.Linear):
            assert math.isclose(layer.weight.std().item(), 0.01, rel_tol=0.03)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert not layer.bias.any()


@pytest.mark.parametrize(
    ("depth", "parameters", "multiply_adds"),
    [(11, 9_231_114, "0.153"), (13, 9_416_010, "0.228"), (16, 14_728_266, "0.313"), (19, 20_040_522, "0.398")],
)
def test_counts_of_the_small_form(depth: int, parameters: int, multiply_adds: str) -> None:
    found = summary(32, depth=depth, batch_norm=True, num_classes=10)
    assert (found.parameters, f"{found.multiply_adds / 1e9:.3f}") == (parameters, multiply_adds)


@pytest.mark.parametrize(("image_size", "side"), [(28, 1), (32, 1), (64, 2), (96, 3)])
@pytest.mark.parametrize("channels", [1, 3])
def test_small_form_takes_28_to_96_pixels(image_size: int, side: int, channels: int) -> None:
    network = VGG(depth=11, in_channels=channels, num_classes=7, image_size=image_size, form="small", width=0.25)
    images = torch.randn(2, channels, image_size, image_size)
    assert network.features(images).shape == (2, 128, side, side)
    logits = network(images)
    assert logits.shape == (2, 7)
    F.cross_entropy(logits, torch.tensor([0, 6])).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_plain_small_network_keeps_the_signals_size() -> None:
    """Mean squares stay within a factor of four through sixteen layers, up to the head."""
    torch.manual_seed(0)
    network = vgg.vgg16(num_classes=10, image_size=32)
    squares = []
    for layer in network.features:
        if isinstance(layer, nn.ReLU):
            layer.register_forward_hook(lambda module, inputs, output: squares.append(output.square().mean().item()))
    network(torch.randn(4, 3, 32, 32))
    assert len(squares) == 13
    assert all(1 / 4 < square < 4 for square in squares), squares


@pytest.mark.parametrize("name", ["vgg11", "vgg13_bn", "vgg16", "vgg16_c", "vgg19", "vgg19_bn"])
def test_small_form_overfits_one_batch(name: str) -> None:
    torch.manual_seed(0)
    network = getattr(vgg, name)(num_classes=5, image_size=32, width=0.25)
    images, targets = torch.randn(8, 3, 32, 32), torch.arange(8) % 5
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(60):
        loss = F.cross_entropy(network(images), targets)
        if loss < 0.02:
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    raise AssertionError(f"the loss on eight examples is still {loss.item():.3f}")


@pytest.mark.parametrize(
    ("arguments", "form"),
    [
        ({"image_size": 224}, "paper"),
        ({"image_size": 65}, "paper"),
        ({"image_size": 64}, "small"),
        ({"image_size": 32, "form": "paper"}, "paper"),
        ({"image_size": 96, "form": "small"}, "small"),
        ({"image_size": 32, "width": 0.25}, "small ×1/4"),
        ({"image_size": 224, "width": 1.5}, "paper ×3/2"),
    ],
)
def test_form_says_what_was_built(arguments: dict, form: str) -> None:
    with torch.device("meta"):
        network = VGG(**arguments)
    assert network.form == form
    assert isinstance(network.classifier[0], nn.Linear) == form.startswith("paper")


def test_width_and_dropout_reach_every_layer() -> None:
    with torch.device("meta"):
        network = VGG(depth=11, width=0.05, dropout=0.3, num_classes=10)
    widths = [layer.out_channels for layer in network.features if isinstance(layer, nn.Conv2d)]
    assert widths == [8, 8, 13, 13, 26, 26, 26, 26]  # never below 8
    assert [layer.out_features for layer in network.classifier if isinstance(layer, nn.Linear)] == [205, 205, 10]
    assert [layer.p for layer in network.classifier if isinstance(layer, nn.Dropout)] == [0.3, 0.3]
    with torch.device("meta"):
        assert VGG(image_size=32, dropout=0.3).classifier[0].p == 0.3
        assert VGG(image_size=32).classifier[0].p == 0
        assert VGG(image_size=224).classifier[2].p == VGG(image_size=224).classifier[5].p == 0.5


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"depth": 12}, "depth=12: must be one of 11, 13, 16, 19"),
        ({"depth": 19, "pointwise": True}, "pointwise=True: must be False with depth=19"),
        ({"form": "tiny"}, "form=tiny: must be one of auto, paper, small"),
        ({"width": 0.0}, "width=0.0: must be more than 0"),
        ({"dropout": 1.0}, "dropout=1.0: must be at least 0 and below 1"),
        ({"dropout": -0.1}, "dropout=-0.1: must be at least 0"),
        ({"image_size": 31, "form": "paper"}, "image_size=31: must be at least 32 for form=paper"),
        ({"image_size": 27}, "image_size=27: must be 28 to 96 for form=small"),
        ({"image_size": 97, "form": "small"}, "image_size=97: must be 28 to 96 for form=small"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict, sentence: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=sentence):
        VGG(**arguments)
