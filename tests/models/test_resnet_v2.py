"""ResNet v2: counts and layer table, timm's network as twin, both forms, the CIFAR networks."""

import math
import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d, ClassifierHead, create_conv2d
from timm.models import resnetv2 as timm
from torch import nn

from zoo.models import resnet_v2
from zoo.models.resnet_v2 import BasicUnit, Bottleneck, ResNetV2, ResNetV2CIFAR
from zoo.summary import summarize

UNITS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


@pytest.mark.parametrize(
    ("name", "image_size", "parameters", "multiply_adds"),
    [
        ("resnetv2_18", 224, 11_687_720, 1_814_073_344),  # those of v1.5, whose stem has one norm more
        ("resnetv2_34", 224, 21_795_880, 3_663_761_408),
        ("resnetv2_50", 224, 25_549_352, 4_089_184_256),
        ("resnetv2_101", 224, 44_541_480, 7_801_405_440),
        ("resnetv2_152", 224, 60_185_128, 11_513_626_624),
        ("resnetv2_164", 32, 1_703_258, 247_646_720),
        ("resnetv2_1001", 32, 10_327_706, 1_490_995_712),
    ],
)
def test_parameters_and_multiply_adds(name: str, image_size: int, parameters: int, multiply_adds: int) -> None:
    with torch.device("meta"):
        network = getattr(resnet_v2, name)()
    found = summarize(network, torch.empty(1, 3, image_size, image_size))
    assert (found.parameters, found.multiply_adds) == (parameters, multiply_adds)
    assert network.form == "paper"
    weighted = [layer for layer in found.layers if layer.multiply_adds and "downsample" not in layer.name]
    assert len(weighted) == int(name.removeprefix("resnetv2_"))


def shapes(network: nn.Module, image_size: int) -> dict[str, tuple[int, ...]]:
    """What leaves the stem and each stage, without the batch."""
    found = {}
    for name in ("maxpool", "layer1", "layer2", "layer3", "layer4"):
        if hasattr(network, name):
            getattr(network, name).register_forward_hook(
                lambda module, inputs, output, name=name: found.__setitem__(name, tuple(output.shape[1:]))
            )
    network(torch.empty(1, 3, image_size, image_size, device="meta"))
    return found


@pytest.mark.parametrize("depth", UNITS)
def test_layer_table_of_both_forms(depth: int) -> None:
    wide = 4 if depth >= 50 else 1
    channels = [64, *(wide * number for number in (64, 128, 256, 512))]
    with torch.device("meta"):
        paper, small = ResNetV2(depth=depth), ResNetV2(depth=depth, image_size=32)
    names = ("maxpool", "layer1", "layer2", "layer3", "layer4")
    sides = {"paper": (56, 56, 28, 14, 7), "small": (32, 32, 16, 8, 4)}
    for network, size in ((paper, 224), (small, 32)):
        expected = {n: (c, s, s) for n, c, s in zip(names, channels, sides[network.form], strict=True)}
        assert shapes(network, size) == expected
        assert tuple(len(getattr(network, name)) for name in names[1:]) == UNITS[depth]


def test_layer_table_for_cifar() -> None:
    with torch.device("meta"):
        network = ResNetV2CIFAR(depth=164)
    assert shapes(network, 32) == {"layer1": (64, 32, 32), "layer2": (128, 16, 16), "layer3": (256, 8, 8)}
    assert [len(stage) for stage in (network.layer1, network.layer2, network.layer3)] == [18, 18, 18]


# Twins ---------------------------------------------------------------------------------------------------------------


def twin(counts: tuple[int, ...], channels: tuple[int, ...], basic: bool, stem: int, num_classes: int) -> nn.Module:
    """timm's network; where `stem` is not 0, a 3×3 stem of that many channels without stride and pooling."""
    network = timm.ResNetV2(
        list(counts),
        channels,
        basic=basic,
        bottle_ratio=1 if basic else 0.25,
        num_classes=num_classes,
        conv_layer=create_conv2d,
        norm_layer=BatchNormAct2d,
    )
    if stem:
        network.stem = nn.Sequential()
        network.stem.add_module("conv", nn.Conv2d(3, stem, 3, padding=1, bias=False))
        first = network.stages[0].blocks[0]
        if stem != 64:  # built for a stem of 64
            first.norm1, first.conv1 = BatchNormAct2d(stem), nn.Conv2d(stem, first.conv1.out_channels, 1, bias=False)
            first.downsample.conv = nn.Conv2d(stem, channels[0], 1, bias=False)
    network.head = ClassifierHead(channels[-1], num_classes)  # with a linear layer; timm's own is a 1×1 convolution
    return network


def in_timm(name: str) -> str:
    name = re.sub(r"^layer(\d)\.(\d+)\.", lambda found: f"stages.{int(found[1]) - 1}.blocks.{found[2]}.", name)
    name = re.sub(r"\bbn(\d)", r"norm\1", name).replace("downsample", "downsample.conv")
    return re.sub(r"^conv1", "stem.conv", re.sub(r"^bn", "norm", re.sub(r"^fc", "head.fc", name)))


@pytest.mark.parametrize(
    ("depth", "form"),
    [
        (18, "paper"),
        (18, "small"),
        (34, "paper"),
        (50, "paper"),
        (50, "small"),
        pytest.param(101, "paper", marks=pytest.mark.slow),
        pytest.param(152, "paper", marks=pytest.mark.slow),
    ],
)
def test_twin(certify: Callable[..., None], depth: int, form: str) -> None:
    torch.manual_seed(0)
    channels = (64, 128, 256, 512) if depth < 50 else (256, 512, 1024, 2048)
    certify(
        f"resnetv2_{depth}" + (" form=small" if form == "small" else ""),
        ResNetV2(depth=depth, image_size=64, form=form),
        twin(UNITS[depth], channels, depth < 50, 0 if form == "paper" else 64, 1000),
        source=f"timm.models.resnetv2.resnetv2_{depth}" + (", 3×3 stem, no pooling" if form == "small" else ""),
        image_size=64 if form == "paper" else 16,
        rename=in_timm,
    )


@pytest.mark.parametrize("depth", [164, pytest.param(1001, marks=pytest.mark.slow)])
def test_twin_for_cifar(certify: Callable[..., None], depth: int) -> None:
    torch.manual_seed(0)
    certify(
        f"resnetv2_{depth}",
        ResNetV2CIFAR(depth=depth),
        twin((depth // 9,) * 3, (64, 128, 256), False, 16, 10),
        source="timm.models.resnetv2.ResNetV2, bottlenecks of 64, 128 and 256 channels, 3×3 stem, no pooling",
        image_size=16,
        num_classes=10,
        rename=in_timm,
    )


# Units and initial weights -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [BasicUnit, Bottleneck])
def test_drop_path_takes_the_residual_branch_away_and_leaves_the_shortcut(unit: type[nn.Module]) -> None:
    input = torch.randn(2, 16, 6, 6)
    block = unit(16, 16 // unit.expansion, 1)
    block.drop_path = nn.Threshold(math.inf, 0.0)
    torch.testing.assert_close(block(input), input)


@pytest.mark.parametrize("unit", [BasicUnit, Bottleneck])
def test_the_shortcut_is_the_input_also_without_norms(unit: type[nn.Module]) -> None:
    block = unit(16, 16 // unit.expansion, 1)
    block.bn1 = nn.Identity()
    input = torch.randn(2, 16, 6, 6)
    before = input.clone()
    block(input)
    assert torch.equal(input, before)


def test_initial_weights_are_he_by_fan_out() -> None:
    torch.manual_seed(0)
    network = ResNetV2(depth=18, image_size=32)
    for convolution, fan_out in ((network.conv1, 64 * 9), (network.layer3[1].conv2, 256 * 9)):
        assert convolution.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
    assert network.layer4[0].downsample.weight.std().item() == pytest.approx(math.sqrt(2 / 512), rel=0.05)
    assert network.fc.bias.abs().max() == 0


# Sizes and arguments -------------------------------------------------------------------------------------------------


def test_form_by_size_and_width() -> None:
    with torch.device("meta"):
        forms = {
            ResNetV2(depth=18, image_size=64).form,
            ResNetV2(depth=18, image_size=65).form,
            ResNetV2(depth=18, image_size=32, form="paper").form,
            ResNetV2(depth=18, image_size=96, form="small", width=0.25).form,
            ResNetV2CIFAR(depth=11, width=0.5).form,
        }
        thin = ResNetV2(depth=50, image_size=32, width=0.1)
    assert forms == {"small", "paper", "small ×1/4", "paper ×1/2"}
    assert [thin.conv1.out_channels, thin.layer1[0].conv3.out_channels, thin.fc.in_features] == [8, 32, 4 * 51]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [28, 32, 64, 96])
@pytest.mark.parametrize(
    "network",
    [
        lambda **known: ResNetV2(depth=18, form="small", width=0.25, **known),
        lambda **known: ResNetV2(depth=50, form="small", width=0.125, **known),
        lambda **known: ResNetV2CIFAR(depth=29, **known),
    ],
    ids=["basic", "bottleneck", "cifar"],
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


@pytest.mark.parametrize(
    "name",
    [
        "resnetv2_18",
        "resnetv2_34",
        "resnetv2_50",
        pytest.param("resnetv2_101", marks=pytest.mark.slow),
        pytest.param("resnetv2_152", marks=pytest.mark.slow),
        pytest.param("resnetv2_164", marks=pytest.mark.slow),
    ],
)
def test_overfits_one_batch(name: str) -> None:
    torch.manual_seed(0)
    network = getattr(resnet_v2, name)(num_classes=5, image_size=28, width=0.25)
    images, targets = torch.randn(8, 3, 28, 28), torch.arange(8) % 5
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images), targets)
        loss.backward()
        optimizer.step()
        if loss.item() < 0.02:
            return
    raise AssertionError(f"the loss is still {loss.item():.3f}")


def test_wrong_arguments_are_refused() -> None:
    for arguments, said in (
        ({"depth": 20}, "depth=20: must be one of 18, 34, 50, 101, 152"),
        ({"form": "large"}, "form=large: must be one of auto, paper, small"),
        ({"image_size": 31, "form": "paper"}, "image_size=31: must be at least 32 for form=paper"),
        ({"image_size": 27}, "image_size=27: must be from 28 to 96 for form=small"),
        ({"image_size": 97, "form": "small"}, "image_size=97: must be from 28 to 96 for form=small"),
        ({"width": 0.0}, "width=0.0: must be more than 0"),
        ({"width": math.inf}, "width=inf: must be more than 0"),
        ({"in_channels": 0}, "in_channels=0: must be 1 or more"),
        ({"num_classes": 0}, "num_classes=0: must be 1 or more"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
            ResNetV2(**arguments)
    for arguments, said in (
        ({"depth": 110 + 1}, "depth=111: must be 9n+2, such as 164 and 1001"),
        ({"depth": 2}, "depth=2: must be 9n+2"),
        ({"form": "small"}, "form=small: must be auto or paper"),
        ({"image_size": 3}, "image_size=3: must be at least 4"),
        ({"width": -1.0}, "width=-1.0: must be more than 0"),
        ({"num_classes": 0}, "num_classes=0: must be 1 or more"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
            ResNetV2CIFAR(**arguments)
