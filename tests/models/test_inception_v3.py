"""Inception v3: counts, the layer table, and torchvision's network as a twin."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models.inception import InceptionAux

from zoo.models.inception_v3 import AuxiliaryHead, InceptionV3
from zoo.summary import Summary, summarize


def summary(image_size: int = 299, **arguments: object) -> Summary:
    with torch.device("meta"):
        network = InceptionV3(image_size=image_size, **arguments)
    return summarize(network, torch.empty(1, 3, image_size, image_size))


def twin(*, aux_logits: bool) -> nn.Module:
    return torchvision.models.Inception3(
        num_classes=10, aux_logits=aux_logits, transform_input=False, init_weights=False
    )


@pytest.mark.parametrize(("aux_heads", "parameters"), [(False, 23_834_568), (True, 27_161_264)])
def test_parameters_and_multiply_adds(aux_heads: bool, parameters: int) -> None:
    found = summary(aux_heads=aux_heads)
    assert (found.parameters, found.multiply_adds) == (parameters, 5_713_216_096)
    norms = sum(layer.trainable for layer in found.layers if layer.type == "BatchNorm2d" and "Aux" not in layer.name)
    assert norms == 2 * 17_216  # without gammas, as TensorFlow's has it, 23,817,352 parameters


def grids(image_size: int, form: str) -> dict[str, tuple[int, int]]:
    """Channels and side of what leaves the stem's layers and each block."""
    with torch.device("meta"):
        network = InceptionV3(image_size=image_size, form=form, aux_heads=False).eval()
        found = {}
        for name, module in network.named_children():
            module.register_forward_hook(lambda m, i, output, name=name: found.update({name: tuple(output.shape[1:3])}))
        network(torch.empty(1, 3, image_size, image_size))
    return found


def test_layer_table() -> None:
    assert grids(299, "paper") == {
        **{"Conv2d_1a_3x3": (32, 149), "Conv2d_2a_3x3": (32, 147), "Conv2d_2b_3x3": (64, 147), "maxpool1": (64, 73)},
        **{"Conv2d_3b_1x1": (80, 73), "Conv2d_4a_3x3": (192, 71), "maxpool2": (192, 35)},
        **{"Mixed_5b": (256, 35), "Mixed_5c": (288, 35), "Mixed_5d": (288, 35)},
        **{f"Mixed_6{block}": (768, 17) for block in "abcde"},
        **{"Mixed_7a": (1280, 8), "Mixed_7b": (2048, 8), "Mixed_7c": (2048, 8)},
        **{"avgpool": (2048, 1), "dropout": (2048,), "fc": (1000,)},
    }


@pytest.mark.parametrize(
    ("image_size", "sides"), [(28, (7, 4, 2)), (32, (8, 4, 2)), (64, (16, 8, 4)), (96, (24, 12, 6))]
)
def test_grids_of_the_small_form(image_size: int, sides: tuple[int, int, int]) -> None:
    found = grids(image_size, "small")
    assert tuple(found[block][1] for block in ("Mixed_5d", "Mixed_6e", "Mixed_7c")) == sides


def test_torchvision(certify: Callable[..., None]) -> None:
    torch.manual_seed(0)
    ours = InceptionV3(image_size=75, num_classes=10, aux_heads=False)
    source = "torchvision inception_v3, without the auxiliary head"
    certify("inception_v3 without head", ours, twin(aux_logits=False), source=source, image_size=75, num_classes=10)


def test_head_of_torchvision(certify: Callable[..., None]) -> None:
    torch.manual_seed(0)
    ours = InceptionV3(num_classes=10).AuxLogits
    source = "torchvision inception_v3, the auxiliary head by itself on its 17×17 grid"
    options = {"source": source, "image_size": 17, "channels": 768, "num_classes": 10}
    certify("inception_v3 head", ours, InceptionAux(768, 10), **options)


@pytest.mark.slow
def test_torchvision_at_full_size(certify: Callable[..., None]) -> None:
    """Head and body at once: torchvision's head needs 299 pixels."""
    torch.manual_seed(0)
    source = "torchvision inception_v3, with the auxiliary head"
    ours = InceptionV3(num_classes=10)
    certify("inception_v3", ours, twin(aux_logits=True), source=source, image_size=299, num_classes=10)


def test_the_head_sits_after_6e() -> None:
    torch.manual_seed(0)
    network = InceptionV3(image_size=75, width=1 / 8, num_classes=4, dropout=0.0)
    seen = []
    network.Mixed_6e.register_forward_hook(lambda module, inputs, output: seen.append(output))
    outputs = network(torch.randn(2, 3, 75, 75))
    assert outputs["logits"].shape == (2, 4)
    torch.testing.assert_close(outputs["aux"], [network.AuxLogits(seen[0])])
    with torch.device("meta"):
        ours, theirs = InceptionV3(num_classes=10), twin(aux_logits=True)
    assert {n: t.shape for n, t in ours.state_dict().items()} == {n: t.shape for n, t in theirs.state_dict().items()}
    assert ours.dropout.p == theirs.dropout.p


@pytest.mark.parametrize(("image_size", "grid"), [(75, 3), (298, 16), (299, 17), (400, 23)])
def test_the_head_takes_every_size(image_size: int, grid: int) -> None:
    with torch.device("meta"):
        network = InceptionV3(image_size=image_size, width=1 / 8)
        shapes = []
        network.AuxLogits.pool.register_forward_hook(
            lambda m, i, output: shapes.append((i[0].shape[2], output.shape[2]))
        )
        network(torch.empty(2, 3, image_size, image_size))
    assert shapes == [(grid, max(5, (grid - 5) // 3 + 1))]
    assert isinstance(network.AuxLogits.pool, nn.AvgPool2d) == (image_size >= 299)


def test_first_weights() -> None:
    torch.manual_seed(0)
    network = InceptionV3()
    sigmas = {"AuxLogits.conv1.conv": 0.01, "AuxLogits.fc": 0.001}
    for name, layer in network.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            sigma, weight = sigmas.get(name, 0.1), layer.weight.detach()
            assert 1.9 * sigma < weight.abs().max() <= 2.000001 * sigma
            assert math.isclose(weight.std(), 0.8796 * sigma, rel_tol=0.05)  # of a normal distribution cut at ±2σ
            assert math.isclose(weight.abs().lt(sigma).float().mean(), 0.6827 / 0.9545, rel_tol=0.05)
        elif isinstance(layer, nn.BatchNorm2d):
            assert layer.eps == 0.001


@pytest.mark.parametrize("image_size", [28, 32, 64, 96])
@pytest.mark.parametrize("channels", [1, 3])
def test_small_form(image_size: int, channels: int) -> None:
    torch.manual_seed(0)
    network = InceptionV3(in_channels=channels, num_classes=5, image_size=image_size, form="small", width=0.25)
    assert network.form == "small ×1/4"
    images = torch.randn(4, channels, image_size, image_size)
    outputs = network(images)
    logits = [outputs["logits"], *outputs["aux"]]
    assert [tuple(out.shape) for out in logits] == [(4, 5)] * 2
    sum(F.cross_entropy(out, torch.tensor([0, 1, 2, 3])) for out in logits).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without
    assert network.eval()(images[:1]).shape == (1, 5)


def test_small_form_overfits_one_batch() -> None:
    torch.manual_seed(0)
    network = InceptionV3(image_size=28, num_classes=4, width=0.25, dropout=0.0, aux_heads=False)
    images, targets = torch.randn(8, 3, 28, 28), torch.arange(8) % 4
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for _ in range(30):
        loss = F.cross_entropy(network(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05
    assert (network(images).argmax(1) == targets).all()


def test_the_forms_have_the_same_layers() -> None:
    paper, small = (InceptionV3(form=form, image_size=96).state_dict() for form in ("paper", "small"))
    assert {n: t.shape for n, t in paper.items()} == {n: t.shape for n, t in small.items()}


def test_width_scales_every_layer_in_both_forms() -> None:
    for form in ("paper", "small"):
        with torch.device("meta"):
            whole, half = (InceptionV3(form=form, image_size=96, width=width) for width in (1.0, 0.5))
        for (name, one), other in zip(whole.named_modules(), half.modules(), strict=True):
            if isinstance(one, nn.Conv2d):
                assert 2 * len(other.weight) == len(one.weight), name
        assert (whole.form, half.form) == (form, f"{form} ×1/2")
    assert min(len(p) for p in InceptionV3(image_size=32, width=0.01).parameters()) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"form": "tiny"}, "form=tiny: must be one of auto, paper, small"),
        ({"image_size": 74}, "image_size=74: must be at least 75 for form=paper"),
        ({"image_size": 27}, "image_size=27: must be 28 to 96 for form=small"),
        ({"image_size": 97, "form": "small"}, "image_size=97: must be 28 to 96"),
        ({"width": 0.0}, "width=0.0: must be above 0"),
    ],
)
def test_refusals(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InceptionV3(**arguments)


def test_form_follows_the_size_and_74_pixels_are_too_few() -> None:
    with torch.device("meta"):
        assert [InceptionV3(image_size=size).form for size in (64, 75)] == ["small", "paper"]
        with pytest.raises(RuntimeError, match="greater than actual input size"):  # 75 is not a limit of our own
            InceptionV3()(torch.empty(2, 3, 74, 74))


def test_training_without_the_head_gives_logits() -> None:
    network = InceptionV3(aux_heads=False, image_size=28, width=0.125, num_classes=3)
    assert network.train()(torch.zeros(2, 3, 28, 28)).shape == (2, 3)
    assert not any(isinstance(module, AuxiliaryHead) for module in network.modules())
