"""Wide ResNet: counts and layer table, timm's pre-activation ResNet as twin, where dropout stands."""

import math
import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d, ClassifierHead, create_conv2d
from timm.models import resnetv2 as timm
from torch import nn

from zoo.models import wide_resnet
from zoo.models.wide_resnet import WideResNet, WideUnit
from zoo.summary import summarize


@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"),
    [
        ("wide_resnet16_4", 2_748_890, 392_612_352),
        ("wide_resnet40_4", 8_949_210, 1_298_582_016),
        ("wide_resnet28_10", 36_479_194, 5_243_328_768),
    ],
)
def test_parameters_multiply_adds_and_depth(name: str, parameters: int, multiply_adds: int) -> None:
    with torch.device("meta"):
        network = getattr(wide_resnet, name)()
    found = summarize(network, torch.empty(1, 3, 32, 32))
    assert (found.parameters, found.multiply_adds) == (parameters, multiply_adds)
    assert network.form == "paper"
    # the name's depth counts the projections, three of them, and not the linear layer: 6n + 1 + 3
    assert sum(layer.type == "Conv2d" for layer in found.layers) == int(re.findall(r"\d+", name)[0])


def test_layer_table_of_the_paper() -> None:
    """Table 1 for n = 4, k = 10."""
    with torch.device("meta"):
        network = WideResNet()
        x = network.conv1(torch.empty(1, 3, 32, 32))
    assert x.shape[1:] == (16, 32, 32)
    for stage, shape in (("layer1", (160, 32, 32)), ("layer2", (320, 16, 16)), ("layer3", (640, 8, 8))):
        assert len(getattr(network, stage)) == 4
        x = getattr(network, stage)(x)
        assert x.shape[1:] == shape


def in_timm(name: str) -> str:
    name = re.sub(r"^layer(\d)\.(\d+)\.", lambda found: f"stages.{int(found[1]) - 1}.blocks.{found[2]}.", name)
    name = re.sub(r"\bbn(\d)", r"norm\1", name).replace("downsample", "downsample.conv")
    return re.sub(r"^conv1", "stem.conv", re.sub(r"^bn", "norm", re.sub(r"^fc", "head.fc", name)))


@pytest.mark.parametrize(
    ("depth", "factor"),
    [(16, 4), pytest.param(40, 4, marks=pytest.mark.slow), pytest.param(28, 10, marks=pytest.mark.slow)],
)
def test_twin(certify: Callable[..., None], depth: int, factor: int) -> None:
    torch.manual_seed(0)
    twin = timm.ResNetV2(
        [depth // 6] * 3,
        (16 * factor, 32 * factor, 64 * factor),
        stem_chs=16,
        basic=True,
        bottle_ratio=1,
        conv_layer=create_conv2d,
        norm_layer=BatchNormAct2d,
    )
    twin.stem = nn.Sequential()
    twin.stem.add_module("conv", nn.Conv2d(3, 16, 3, padding=1, bias=False))
    twin.head = ClassifierHead(64 * factor, 10)  # with a linear layer; timm's own is a 1×1 convolution
    certify(
        f"wide_resnet{depth}_{factor}",
        WideResNet(depth=depth, widen_factor=factor),
        twin,
        source=f"timm.models.resnetv2.ResNetV2, basic units of {factor}×(16, 32, 64) channels, 3×3 stem, no pooling",
        image_size=12,
        num_classes=10,
        rename=in_timm,
    )


def test_dropout_stands_before_the_second_convolution() -> None:
    unit = WideUnit(8, 8, 1, 0.4)
    nn.init.normal_(unit.bn2.bias)
    input = torch.randn(4, 8, 6, 6)
    torch.manual_seed(1)
    found = unit(input)
    torch.manual_seed(1)
    dropped = F.dropout(F.relu(unit.bn2(unit.conv1(F.relu(unit.bn1(input))))), 0.4)
    torch.testing.assert_close(found, input + unit.conv2(dropped))
    network = WideResNet(depth=16, widen_factor=1, dropout=0.3)
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout)] == [0.3] * 6


def test_drop_path_takes_the_residual_branch_away_and_leaves_the_shortcut() -> None:
    unit, input = WideUnit(8, 8, 1, 0.0), torch.randn(2, 8, 6, 6)
    unit.bn1 = nn.Identity()  # without a norm before it, the first ReLU must not write into the shortcut
    unit.drop_path = nn.Threshold(math.inf, 0.0)
    before = input.clone()
    assert torch.equal(unit(input), before)


def test_initial_weights_are_he_by_fan_out() -> None:
    torch.manual_seed(0)
    network = WideResNet(depth=10, widen_factor=4)
    assert network.conv1.weight.std().item() == pytest.approx(math.sqrt(2 / (16 * 9)), rel=0.1)
    assert network.layer3[0].conv1.weight.std().item() == pytest.approx(math.sqrt(2 / (256 * 9)), rel=0.02)
    assert network.fc.bias.abs().max() == 0


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [28, 32, 64, 96])
def test_sizes_and_a_gradient_for_every_parameter(size: int, channels: int) -> None:
    torch.manual_seed(0)
    network = WideResNet(depth=16, widen_factor=2, in_channels=channels, num_classes=7, image_size=size)
    logits = network(torch.randn(2, channels, size, size))
    assert logits.shape == (2, 7)
    F.cross_entropy(logits, torch.tensor([0, 1])).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    "name", ["wide_resnet16_4", "wide_resnet40_4", pytest.param("wide_resnet28_10", marks=pytest.mark.slow)]
)
def test_overfits_one_batch(name: str) -> None:
    torch.manual_seed(0)
    network = getattr(wide_resnet, name)(num_classes=5, image_size=28, width=0.25)
    assert network.form == "paper ×1/4"
    assert network.conv1.out_channels == 8
    assert network.fc.in_features == 64 * int(name.rpartition("_")[2]) / 4
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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"depth": 20}, "depth=20: must be 6n+4, such as 16, 28 and 40"),
        ({"depth": 4}, "depth=4: must be 6n+4"),
        ({"widen_factor": 0}, "widen_factor=0: must be 1 or more"),
        ({"in_channels": 0}, "in_channels=0: must be 1 or more"),
        ({"num_classes": 0}, "num_classes=0: must be 1 or more"),
        ({"dropout": 1.0}, "dropout=1.0: must be at least 0 and below 1"),
        ({"dropout": -0.1}, "dropout=-0.1: must be at least 0 and below 1"),
        ({"form": "small"}, "form=small: must be auto or paper"),
        ({"image_size": 3}, "image_size=3: must be at least 4"),
        ({"width": 0.0}, "width=0.0: must be more than 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
        WideResNet(**arguments)
