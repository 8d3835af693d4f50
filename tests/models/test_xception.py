"""Xception: counts and layer table, timm's network as twin, both forms, where ReLU and dropout stand."""

import math
import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from timm.models.xception import Xception as TimmXception
from torch import nn

from zoo.models.xception import Block, SeparableConv2d, Xception
from zoo.summary import summarize


def test_parameters_multiply_adds_and_the_36_layers() -> None:
    with torch.device("meta"):
        network = Xception()
    found = summarize(network, torch.empty(1, 3, 299, 299))
    assert (found.parameters, found.multiply_adds) == (22_855_952, 8_357_403_496)
    assert network.form == "paper"
    separable = sum(isinstance(module, SeparableConv2d) for module in network.modules())
    assert separable + 2 == 36  # the abstract's convolutional layers, without the projections of shortcuts


def test_layer_table_of_both_forms() -> None:
    """Figure 5 of the paper for 299 pixels, whose sides it gives where the flows meet (19×19), and ours for 32."""
    channels = (64, 128, 256, 728, 728, 1024, 2048)
    with torch.device("meta"):
        for size, sides in ((299, (147, 74, 37, 19, 19, 10, 10)), (32, (32, 16, 8, 4, 4, 4, 4))):
            network = Xception(image_size=size)
            x = network.stem(torch.empty(1, 3, size, size))
            found = [x]
            for part in (*network.entry, network.middle, network.exit[0], network.exit[1:]):
                x = part(x)
                found.append(x)
            assert [tuple(x.shape[1:]) for x in found] == [(c, s, s) for c, s in zip(channels, sides, strict=True)]


def in_timm(name: str) -> str:
    parts = {"stem.0": "conv1", "stem.1": "bn1", "stem.3": "conv2", "stem.4": "bn2"}
    parts |= {"exit.0": "block12", "exit.1": "conv3", "exit.2": "bn3", "exit.4": "conv4", "exit.5": "bn4"}
    parts |= {f"entry.{place}": f"block{place + 1}" for place in range(3)}
    parts |= {f"middle.{place}": f"block{place + 4}" for place in range(8)}
    name = re.sub(r"^\w+\.\d+\b", lambda found: parts.get(found[0], found[0]), name)
    name = name.replace("shortcut.0", "skip").replace("shortcut.1", "skipbn")
    return name.replace("residual", "rep").replace("depthwise", "conv1")


@pytest.mark.parametrize("form", ["paper", "small"])
def test_twin(certify: Callable[..., None], form: str) -> None:
    torch.manual_seed(0)
    twin = TimmXception(num_classes=1000)
    if form == "small":
        twin.conv1.stride, twin.conv1.padding, twin.conv2.padding = (1, 1), (1, 1), (1, 1)
        twin.block12.skip.stride, twin.block12.rep = (1, 1), twin.block12.rep[:-1]
    certify(
        "xception" + (" form=small" if form == "small" else ""),
        Xception(image_size=64, form=form),
        twin,
        source="timm.models.xception.Xception"
        + (", without the strides of stem and block 12" if form == "small" else ""),
        image_size=65 if form == "paper" else 20,
        rename=in_timm,
    )


def test_relu_stands_before_each_separable_convolution_but_the_first() -> None:
    with torch.device("meta"):
        network = Xception(image_size=32)
    first = [type(block.residual[0]) for block in (*network.entry, *network.middle, network.exit[0])]
    assert first == [SeparableConv2d, *[nn.ReLU] * 11]
    for block in (*network.entry, *network.middle, network.exit[0]):
        kinds = [type(layer) for layer in block.residual]
        for place, kind in enumerate(kinds):
            if kind is SeparableConv2d and place:
                assert kinds[place - 1] is nn.ReLU
            if kind is SeparableConv2d:
                assert kinds[place + 1] is nn.BatchNorm2d


def test_drop_path_takes_the_residual_branch_away_and_leaves_the_shortcut() -> None:
    input = torch.randn(2, 8, 6, 6)
    for block, shape in (
        (Block(8, (8, 8)), (2, 8, 6, 6)),
        (Block(8, (8, 8), stride=2), (2, 8, 3, 3)),  # so narrow a network has it
        (Block(8, (8, 12)), (2, 12, 6, 6)),
    ):
        block.drop_path = nn.Threshold(math.inf, 0.0)
        before = block.shortcut(input.clone())
        assert before.shape == shape
        torch.testing.assert_close(block(input), before)


def test_dropout_stands_before_the_last_layer_in_training_only() -> None:
    torch.manual_seed(0)
    network = Xception(image_size=28, width=0.25, num_classes=3)
    network.exit[-2].bias.data.fill_(1.0)  # so that hardly a feature is 0 but for dropout
    seen: list[float] = []
    network.fc.register_forward_pre_hook(lambda module, inputs: seen.append((inputs[0] == 0).float().mean().item()))
    for mode in (True, False):
        network.train(mode)(torch.randn(4, 3, 28, 28))
    assert seen[0] == pytest.approx(0.5, abs=0.05)
    assert seen[1] < 0.05


def test_initial_weights_are_glorot_uniform() -> None:
    torch.manual_seed(0)
    network = Xception(image_size=32, width=0.25)
    first = network.middle[0].residual[1]
    # the fans of a depthwise kernel are 9 and 9·182, as Keras counts them
    for layer, fans in ((first.depthwise, 9 + 9 * 182), (first.pointwise, 2 * 182), (network.fc, 512 + 1000)):
        largest = layer.weight.abs().max().item()
        assert 0.97 * math.sqrt(6 / fans) < largest <= math.sqrt(6 / fans)
    assert network.fc.bias.abs().max() == 0


def test_form_by_size_width_and_middle_flow() -> None:
    with torch.device("meta"):
        assert Xception(image_size=64).form == "small"
        assert Xception(image_size=65, width=0.5).form == "paper ×1/2"
        short = Xception(image_size=32, width=0.25, middle_blocks=3)
    assert short.form == "small ×1/4, 3 middle blocks"
    assert len(short.middle) == 3
    assert [short.stem[0].out_channels, short.middle[0].residual[1].pointwise.out_channels] == [8, 182]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [28, 32, 64, 96])
def test_small_form_sizes_and_a_gradient_for_every_parameter(size: int, channels: int) -> None:
    torch.manual_seed(0)
    network = Xception(in_channels=channels, num_classes=7, image_size=size, form="small", width=0.125)
    logits = network(torch.randn(2, channels, size, size))
    assert logits.shape == (2, 7)
    F.cross_entropy(logits, torch.tensor([0, 1])).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_overfits_one_batch() -> None:
    torch.manual_seed(0)
    network = Xception(num_classes=5, image_size=28, width=0.25)
    images, targets = torch.randn(8, 3, 28, 28), torch.arange(8) % 5
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(80):
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
        ({"form": "tiny"}, "form=tiny: must be one of auto, paper, small"),
        ({"image_size": 31, "form": "paper"}, "image_size=31: must be at least 32 for form=paper"),
        ({"image_size": 27}, "image_size=27: must be from 28 to 96 for form=small"),
        ({"image_size": 97, "form": "small"}, "image_size=97: must be from 28 to 96 for form=small"),
        ({"width": 0.0}, "width=0.0: must be more than 0"),
        ({"middle_blocks": -1}, "middle_blocks=-1: must be at least 0"),
        ({"dropout": 1.0}, "dropout=1.0: must be at least 0 and below 1"),
        ({"in_channels": 0}, "in_channels=0: must be 1 or more"),
        ({"num_classes": 0}, "num_classes=0: must be 1 or more"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
        Xception(**arguments)
