"""DenseNet: counts and tables of the paper, torchvision's networks and functions as twins, forms, arguments."""

import math
import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from parity import Functional
from torch import Tensor, nn

from zoo.models import densenet
from zoo.models.densenet import Bottleneck, DenseLayer, DenseNet, DenseNetCIFAR
from zoo.summary import summarize

BC = {"bottleneck": True, "compression": 0.5}
TORCHVISION = {
    121: torchvision.models.densenet121,
    161: torchvision.models.densenet161,
    169: torchvision.models.densenet169,
    201: torchvision.models.densenet201,
}


@pytest.mark.parametrize(
    ("depth", "parameters", "multiply_adds", "channels"),
    [
        (121, 7_978_856, 2_834_161_664, (64, 256, 512, 1024, 1024)),
        (161, 28_681_000, 7_727_907_072, (96, 384, 768, 2112, 2208)),
        (169, 14_149_480, 3_359_843_328, (64, 256, 512, 1280, 1664)),
        (201, 20_013_928, 4_291_365_888, (64, 256, 512, 1792, 1920)),
    ],
)
def test_counts_and_layer_table_of_the_paper(
    depth: int, parameters: int, multiply_adds: int, channels: tuple[int, ...]
) -> None:
    """Table 1: sides of 56, 28, 14 and 7 pixels; all layers with weights are the name's number."""
    with torch.device("meta"):
        network = getattr(densenet, f"densenet{depth}")()
    found = summarize(network, torch.empty(1, 3, 224, 224))
    assert (found.parameters, found.multiply_adds, network.form) == (parameters, multiply_adds, "paper")
    seen: dict[str, Tensor] = {}
    for name, module in network.features.named_children():
        module.register_forward_hook(lambda module, inputs, output, name=name: seen.__setitem__(name, output))
    network(torch.empty(1, 3, 224, 224, device="meta"))
    blocks = ["pool0", *(f"denseblock{number}" for number in (1, 2, 3, 4))]
    assert [tuple(seen[name].shape[1:]) for name in blocks] == [
        (c, side, side) for c, side in zip(channels, (56, 56, 28, 14, 7), strict=True)
    ]
    assert [seen[f"transition{n}"].shape[1:] for n in (1, 2, 3)] == [
        (c // 2, side, side) for c, side in zip(channels[1:4], (28, 14, 7), strict=True)
    ]
    assert sum(layer.type in ("Conv2d", "Linear") for layer in found.layers) == depth


@pytest.mark.parametrize(
    ("arguments", "parameters", "multiply_adds"),
    [  # table 2 has millions: 1.0, 7.0, 27.2, 0.8, 15.3, 25.6
        ({"depth": 40}, 1_019_722, 264_812_928),
        ({"depth": 100}, 6_979_642, 1_769_516_448),
        ({"depth": 100, "growth_rate": 24}, 27_249_082, 6_889_347_744),
        ({"depth": 100, **BC}, 769_162, 287_929_692),
        ({"depth": 250, "growth_rate": 24, **BC}, 15_324_406, 5_418_785_724),
        ({"depth": 190, "growth_rate": 40, **BC}, 25_624_430, 9_301_945_740),
    ],
)
def test_counts_for_small_pictures(arguments: dict[str, object], parameters: int, multiply_adds: int) -> None:
    with torch.device("meta"):
        network = DenseNetCIFAR(**arguments)
    found = summarize(network, torch.empty(1, 3, 32, 32))
    assert (found.parameters, found.multiply_adds) == (parameters, multiply_adds)
    assert sum(layer.type in ("Conv2d", "Linear") for layer in found.layers) == arguments["depth"]
    sides = {layer.output_shape[-1] for layer in found.layers if layer.type == "Conv2d"}
    assert sides == {32, 16, 8}


def test_names() -> None:
    with torch.device("meta"):
        for name in ("densenet40", "densenet100", "densenet_bc100"):
            network = getattr(densenet, name)()
            layer = network.features.denseblock1.denselayer1
            assert type(layer) is (Bottleneck if "bc" in name else DenseLayer)
            weighted = sum(isinstance(module, nn.Conv2d | nn.Linear) for module in network.modules())
            assert weighted == int(re.sub(r"\D", "", name))


# Twins ---------------------------------------------------------------------------------------------------------------


def for_small_pictures(twin: nn.Module, channels: int) -> nn.Module:
    """torchvision's network with a 3×3 stem of stride 1 and no pooling."""
    twin.features.conv0, twin.features.pool0 = nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.Identity()
    return twin


@pytest.mark.parametrize("depth", [121, *(pytest.param(depth, marks=pytest.mark.slow) for depth in (161, 169, 201))])
def test_twin(certify: Callable[..., None], depth: int) -> None:
    torch.manual_seed(0)
    certify(
        f"densenet{depth}",
        DenseNet(depth=depth),
        TORCHVISION[depth](),
        source=f"torchvision.models.densenet{depth}",
        image_size=64,
    )


def test_twin_of_the_small_form(certify: Callable[..., None]) -> None:
    torch.manual_seed(0)
    certify(
        "densenet121 form=small",
        DenseNet(image_size=32),
        for_small_pictures(TORCHVISION[121](), 64),
        source="torchvision.models.densenet121, 3×3 stem, no pooling",
        image_size=16,
    )


def test_twin_for_small_pictures_with_bottlenecks(certify: Callable[..., None]) -> None:
    torch.manual_seed(0)
    twin = for_small_pictures(torchvision.models.DenseNet(12, (16, 16, 16), 24, num_classes=10), 24)
    twin.features.norm0 = twin.features.relu0 = nn.Identity()
    certify(
        "densenet_bc100",
        DenseNetCIFAR(depth=100, **BC),
        twin,
        source="torchvision.models.DenseNet, three blocks, a 3×3 stem without norm and pooling",
        image_size=16,
        num_classes=10,
    )


def densenet40(tensors: list[Tensor], images: Tensor, training: bool) -> Tensor:
    """Every layer reads the list of all maps before it, part by part: no concatenated input is ever made."""
    rest = iter(tensors)

    def normalised(parts: list[Tensor]) -> list[Tensor]:
        gamma, beta, mean, variance = next(rest), next(rest), next(rest), next(rest)
        next(rest)  # how many batches the statistics are of
        found, at = [], 0
        for part in parts:
            own = slice(at, at := at + part.shape[1])
            found.append(F.batch_norm(part, mean[own], variance[own], gamma[own], beta[own], training).clamp(min=0))
        return found

    def convolved(parts: list[Tensor], padding: int) -> Tensor:
        """A convolution of all is the sum of one of each part."""
        kernels = next(rest).split([part.shape[1] for part in parts], 1)
        sums = [F.conv2d(part, kernel, padding=padding) for part, kernel in zip(parts, kernels, strict=True)]
        return torch.stack(sums).sum(0)

    parts = [F.conv2d(images, next(rest), padding=1)]
    for block in range(3):
        for _ in range(12):
            parts.append(convolved(normalised(parts), 1))
        if block < 2:
            x = convolved(normalised(parts), 0)
            parts = [x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5))]
    pooled = torch.cat(normalised(parts), 1).mean((2, 3))
    weight, bias = next(rest), next(rest)
    return pooled @ weight.T + bias


def test_twin_for_small_pictures_as_functions(certify: Callable[..., None]) -> None:
    torch.manual_seed(0)
    network = DenseNetCIFAR(depth=40)
    certify(
        "densenet40",
        network,
        Functional(network, densenet40),
        source="written as functions in tests/models/test_densenet.py",
        image_size=16,
        num_classes=10,
        rename=Functional.rename,
    )


# Layers and initial weights ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [DenseLayer, Bottleneck])
def test_a_layer_hands_on_what_it_was_given_also_without_norms(layer: type[nn.Module]) -> None:
    input = torch.randn(2, 16, 6, 6)
    before = input.clone()
    built = layer(16, 12, 0.0)
    built.norm1 = nn.Identity()
    output = built(input)
    assert output.shape == (2, 28, 6, 6)
    assert torch.equal(output[:, :16], before)
    assert torch.equal(input, before)


@pytest.mark.parametrize(
    ("network", "convolutions"), [(DenseNet(image_size=32, dropout=0.3), 119), (DenseNetCIFAR(dropout=0.3), 38)]
)
def test_dropout_follows_each_convolution_but_the_first(network: nn.Module, convolutions: int) -> None:
    dropouts = [module for module in network.modules() if isinstance(module, nn.Dropout)]
    assert {module.p for module in dropouts} == {0.3}
    assert len(dropouts) == convolutions == sum(isinstance(module, nn.Conv2d) for module in network.modules()) - 1
    layer = network.features.denseblock1.denselayer1.train()
    torch.manual_seed(0)
    new = layer(torch.randn(4, layer.norm1.num_features, 32, 32))[:, layer.norm1.num_features :]
    assert (new == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)


def test_first_weights_are_those_of_he() -> None:
    torch.manual_seed(0)
    network = DenseNet(image_size=32)
    for name, parameter in network.features.named_parameters():
        if parameter.ndim == 4:
            error = 5 / math.sqrt(2 * parameter.numel())  # five standard deviations of a sample's
            assert parameter.std().item() == pytest.approx(math.sqrt(2 / parameter[0].numel()), rel=error), name
    assert network.classifier.bias.abs().max() == 0


# Sizes and arguments -------------------------------------------------------------------------------------------------


def test_form_by_size_and_width() -> None:
    with torch.device("meta"):
        forms = [
            DenseNet(image_size=64).form,
            DenseNet(image_size=65).form,
            DenseNet(image_size=32, form="paper").form,
            DenseNet(image_size=96, form="small", width=0.25).form,
            DenseNetCIFAR(width=0.5).form,
        ]
        thin = DenseNet(image_size=32, width=0.1)
        wide = DenseNetCIFAR(width=2.0)
    assert forms == ["small", "paper", "paper", "small ×1/4", "paper ×1/2"]
    assert [thin.features.conv0.out_channels, thin.features.denseblock1.denselayer1.conv2.out_channels] == [16, 8]
    assert [wide.features.conv0.out_channels, wide.features.denseblock1.denselayer1.conv1.out_channels] == [32, 24]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [28, 33, 96])
@pytest.mark.parametrize(
    "network",
    [
        lambda **known: DenseNet(form="small", width=0.25, **known),
        lambda **known: DenseNetCIFAR(depth=10, **known),
        lambda **known: DenseNetCIFAR(depth=10, bottleneck=True, compression=0.7, **known),
    ],
    ids=["small", "cifar", "bc"],
)
def test_sizes_and_a_gradient_for_every_parameter(network: Callable[..., nn.Module], size: int, channels: int) -> None:
    torch.manual_seed(0)
    built = network(in_channels=channels, num_classes=7, image_size=size)
    logits = built(torch.randn(2, channels, size, size))
    assert logits.shape == (2, 7)
    F.cross_entropy(logits, torch.tensor([0, 1])).backward()
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_smallest_pictures() -> None:
    for network, size in (
        (DenseNet(image_size=29, form="paper", width=0.25), 29),
        (DenseNetCIFAR(depth=7, image_size=4), 4),
    ):
        assert network.eval()(torch.randn(1, 3, size, size)).isfinite().all()


def test_wrong_arguments_are_refused() -> None:
    for arguments, said in (
        ({"depth": 120}, "depth=120: must be one of 121, 161, 169, 201"),
        ({"form": "large"}, "form=large: must be one of auto, paper, small"),
        ({"image_size": 28, "form": "paper"}, "image_size=28: must be at least 29 for form=paper"),
        ({"image_size": 27}, "image_size=27: must be from 28 to 96 for form=small"),
        ({"image_size": 97, "form": "small"}, "image_size=97: must be from 28 to 96 for form=small"),
        ({"width": 0.0}, "width=0.0: must be more than 0"),
        ({"width": math.inf}, "width=inf: must be more than 0"),
        ({"dropout": 1.0}, "dropout=1.0: must be at least 0 and below 1"),
        ({"in_channels": 0}, "in_channels=0: must be 1 or more"),
        ({"num_classes": 0}, "num_classes=0: must be 1 or more"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
            DenseNet(**arguments)
    for arguments, said in (
        ({"depth": 41}, "depth=41: must be 3n+4, such as 40 and 100"),
        ({"depth": 4}, "depth=4: must be 3n+4"),
        ({"depth": 43, "bottleneck": True}, "depth=43: must be 6n+4"),
        ({"growth_rate": 0}, "growth_rate=0: must be 1 or more"),
        ({"compression": 0.0}, "compression=0.0: must be more than 0 and at most 1"),
        ({"compression": 1.1}, "compression=1.1: must be more than 0 and at most 1"),
        ({"form": "small"}, "form=small: must be auto or paper"),
        ({"image_size": 3}, "image_size=3: must be at least 4"),
        ({"dropout": -0.1}, "dropout=-0.1: must be at least 0 and below 1"),
        ({"width": -1.0}, "width=-1.0: must be more than 0"),
        ({"num_classes": 0}, "num_classes=0: must be 1 or more"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
            DenseNetCIFAR(**arguments)
