"""GoogLeNet: Table 1 of the paper, a calculation by hand, and torchvision's network as a twin."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from zoo.models.inception_v1 import AuxiliaryHead, ConvNormActivation, InceptionV1, googlenet, inception_v1
from zoo.summary import Summary, summarize

VARIANTS = {"paper": inception_v1, "torchvision": googlenet}


def summary(image_size: int = 224, **arguments: object) -> Summary:
    with torch.device("meta"):
        network = InceptionV1(image_size=image_size, **arguments)
    return summarize(network, torch.empty(1, 3, image_size, image_size))


@pytest.mark.parametrize(
    ("variant", "aux_heads", "parameters", "multiply_adds"),
    [
        ("paper", False, 6_998_552, 1_582_671_872),
        ("paper", True, 13_378_280, 1_582_671_872),  # evaluation does not call the heads
        ("torchvision", False, 6_624_904, 1_498_376_192),
        ("torchvision", True, 13_004_888, 1_498_376_192),
    ],
)
def test_parameters_and_multiply_adds(variant: str, aux_heads: bool, parameters: int, multiply_adds: int) -> None:
    found = summary(variant=variant, aux_heads=aux_heads)
    assert (found.parameters, found.multiply_adds) == (parameters, multiply_adds)


def test_multiply_adds_of_the_heads() -> None:
    network = InceptionV1()
    heads = [(network.aux1, 512), (network.aux2, 528)]
    found = sum(summarize(head, torch.empty(1, channels, 14, 14)).multiply_adds for head, channels in heads)
    assert 1_582_671_872 + found == 1_591_044_096


def test_table_1_of_the_paper() -> None:
    shapes = {layer.name: layer.output_shape[1:] for layer in summary(aux_heads=False).layers}
    assert shapes["conv1.relu"] == (64, 112, 112)
    assert shapes["maxpool1"] == (64, 56, 56)
    assert shapes["conv3.relu"] == (192, 56, 56)
    assert shapes["maxpool2"] == (192, 28, 28)
    assert (shapes["maxpool3"], shapes["maxpool4"]) == ((480, 14, 14), (832, 7, 7))
    assert (shapes["avgpool"], shapes["fc"]) == ((1024, 1, 1), (1000,))
    table = {  # output channels and side, then #1×1, #3×3 reduce, #3×3, #5×5 reduce, #5×5, pool proj
        "3a": ((256, 28), (64, 96, 128, 16, 32, 32)),
        "3b": ((480, 28), (128, 128, 192, 32, 96, 64)),
        "4a": ((512, 14), (192, 96, 208, 16, 48, 64)),
        "4b": ((512, 14), (160, 112, 224, 24, 64, 64)),
        "4c": ((512, 14), (128, 128, 256, 24, 64, 64)),
        "4d": ((528, 14), (112, 144, 288, 32, 64, 64)),
        "4e": ((832, 14), (256, 160, 320, 32, 128, 128)),
        "5a": ((832, 7), (256, 160, 320, 32, 128, 128)),
        "5b": ((1024, 7), (384, 192, 384, 48, 128, 128)),
    }
    branches = ("branch1", "branch2.0", "branch2.1", "branch3.0", "branch3.1", "branch4.1")
    for block, ((channels, side), widths) in table.items():
        found = [shapes[f"inception{block}.{branch}.relu"] for branch in branches]
        assert found == [(width, side, side) for width in widths]
        assert sum(found[place][0] for place in (0, 2, 4, 5)) == channels


def by_hand(state: dict[str, Tensor], image: Tensor) -> list[Tensor]:
    """The paper's network without any of our modules: logits, then those of the two heads."""

    def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = state[f"{name}.conv.weight"]
        return F.conv2d(x, weight, state[f"{name}.conv.bias"], stride, weight.shape[2] // 2).clamp(min=0)

    def pool(x: Tensor) -> Tensor:  # rounds up: the last window may hang over
        x = F.pad(x, (0, 1 - x.shape[3] % 2, 0, 1 - x.shape[2] % 2), value=-math.inf)
        return x.unfold(2, 3, 2).unfold(3, 3, 2).amax((4, 5))

    def normalise(x: Tensor) -> Tensor:  # over 5 neighbouring maps
        squares = F.pad(x * x, (0, 0, 0, 0, 2, 2))
        return x / (1 + 1e-4 / 5 * sum(squares[:, i : i + x.shape[1]] for i in range(5))) ** 0.75

    def inception(name: str, x: Tensor) -> Tensor:
        name = f"inception{name}"
        around = F.pad(x, (1, 1, 1, 1), value=-math.inf).unfold(2, 3, 1).unfold(3, 3, 1).amax((4, 5))
        three = conv(f"{name}.branch2.1", conv(f"{name}.branch2.0", x))
        five = conv(f"{name}.branch3.1", conv(f"{name}.branch3.0", x))
        return torch.cat([conv(f"{name}.branch1", x), three, five, conv(f"{name}.branch4.1", around)], 1)

    def head(name: str, x: Tensor) -> Tensor:
        windows = x.unfold(2, 5, 3).unfold(3, 5, 3).mean((4, 5))
        x = conv(f"{name}.conv", windows).flatten(1)
        x = (x @ state[f"{name}.fc1.weight"].T + state[f"{name}.fc1.bias"]).clamp(min=0)
        return x @ state[f"{name}.fc2.weight"].T + state[f"{name}.fc2.bias"]

    x = normalise(pool(conv("conv1", image, stride=2)))
    x = pool(normalise(conv("conv3", conv("conv2", x))))
    x = pool(inception("3b", inception("3a", x)))
    first = inception("4a", x)
    second = inception("4d", inception("4c", inception("4b", first)))
    x = inception("5b", inception("5a", pool(inception("4e", second)))).mean((2, 3))
    return [x @ state["fc.weight"].T + state["fc.bias"], head("aux1", first), head("aux2", second)]


def test_the_paper_by_hand() -> None:
    torch.manual_seed(0)
    network = InceptionV1(width=1 / 8, num_classes=7, dropout=0.0, aux_dropout=0.0).double()
    for bias in (network.fc.bias, network.aux1.fc2.bias, network.aux2.fc2.bias):
        nn.init.normal_(bias)
    images = 20 * torch.randn(1, 3, 224, 224, dtype=torch.float64)  # large: normalisation has an effect
    with torch.no_grad():
        found, expected = network(images), by_hand(network.state_dict(), images)
        torch.testing.assert_close([found["logits"], *found["aux"]], expected)
        torch.testing.assert_close(network.eval()(images), expected[0])


class Twin(torchvision.models.GoogLeNet):
    """torchvision's network with its heads in the order of the network: it names the second one first."""

    def eager_outputs(self, x: Tensor, aux2: Tensor, aux1: Tensor | None) -> object:
        return torchvision.models.GoogLeNetOutputs(x, aux1, aux2) if self.training else x


def test_torchvision(certify: Callable[..., None]) -> None:
    torch.manual_seed(0)
    ours = googlenet(image_size=64, form="paper", num_classes=10)
    twin = Twin(num_classes=10, aux_logits=True, transform_input=False, init_weights=False)
    source = "torchvision googlenet, with auxiliary heads"
    certify("googlenet", ours, twin, source=source, image_size=64, num_classes=10)


def test_batch_norm_and_dropout_as_in_torchvision() -> None:
    ours, twin = googlenet(), torchvision.models.GoogLeNet(init_weights=False)
    assert {m.eps for m in ours.modules() if isinstance(m, nn.BatchNorm2d)} == {0.001}
    assert [ours.dropout.p, ours.aux1.dropout.p] == [twin.dropout.p, twin.aux1.dropout.p]
    assert (InceptionV1().dropout.p, InceptionV1().aux2.dropout.p) == (0.4, 0.7)


@pytest.mark.parametrize(
    ("image_size", "pool"),
    [(222, nn.AdaptiveAvgPool2d), (223, nn.AvgPool2d), (270, nn.AvgPool2d), (271, nn.AdaptiveAvgPool2d)],
)
def test_heads_pool_to_4x4_at_every_size(image_size: int, pool: type[nn.Module]) -> None:
    with torch.device("meta"):
        network = InceptionV1(image_size=image_size, width=1 / 8)
        seen = []
        network.aux2.pool.register_forward_hook(lambda *call: seen.append(tuple(call[2].shape)))
        network.train()(torch.empty(1, 3, image_size, image_size))
    assert seen == [(1, 66, 4, 4)]
    assert isinstance(network.aux1.pool, pool)


@pytest.mark.parametrize(("variant", "smallest"), [("paper", 31), ("torchvision", 15)])
def test_smallest_image_of_the_paper_form(variant: str, smallest: int) -> None:
    assert summary(smallest, variant=variant, form="paper").layers
    with pytest.raises(ValueError, match=f"image_size={smallest - 1}: must be at least {smallest} for form=paper"):
        InceptionV1(variant=variant, form="paper", image_size=smallest - 1)
    with torch.device("meta"), pytest.raises(RuntimeError, match="Output size is too small"):  # and no later
        InceptionV1(variant=variant)(torch.empty(2, 3, smallest - 1, smallest - 1))


def layers(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]


def test_first_weights() -> None:
    torch.manual_seed(0)
    network = InceptionV1()
    classifiers = [network.fc, network.aux1.fc2, network.aux2.fc2]
    for layer in layers(network):
        bound = math.sqrt(3 / layer.weight[0].numel())
        assert 0.98 * bound < layer.weight.abs().max() <= bound
        assert (layer.bias == (0.0 if layer in classifiers else 0.2)).all()
    small = InceptionV1(image_size=32)
    for layer in layers(small):
        assert math.isclose(layer.weight.detach().square().mean(), 2 / layer.weight[0].numel(), rel_tol=0.1)
        assert (layer.bias == 0).all()
    for layer in layers(googlenet(form="small", image_size=32)):
        assert layer.weight.abs().max() <= 0.0200001
        assert math.isclose(layer.weight.detach().std(), 0.0088, rel_tol=0.05)


def test_the_signal_lives_through_the_small_form() -> None:
    """Logits of a fresh network differ between images: nothing has faded, nothing has grown out of bounds."""
    torch.manual_seed(0)
    network = InceptionV1(image_size=32, width=0.25, num_classes=10).eval()
    with torch.no_grad():
        spread = network(torch.randn(64, 3, 32, 32)).std(0).mean()
    assert 0.05 < spread < 5


@pytest.mark.parametrize("variant", ["paper", "torchvision"])
@pytest.mark.parametrize("image_size", [28, 32, 64, 96])
@pytest.mark.parametrize("channels", [1, 3])
def test_small_form(variant: str, image_size: int, channels: int) -> None:
    torch.manual_seed(0)
    build = VARIANTS[variant]
    network = build(in_channels=channels, num_classes=5, image_size=image_size, form="small", width=0.25)
    assert network.form == "small ×1/4"
    images = torch.randn(2, channels, image_size, image_size)
    outputs = network(images)
    logits = [outputs["logits"], *outputs["aux"]]
    assert [tuple(out.shape) for out in logits] == [(2, 5)] * 3
    sum(F.cross_entropy(out, torch.tensor([0, 1])) for out in logits).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without
    assert network.eval()(images[:1]).shape == (1, 5)


@pytest.mark.parametrize("variant", ["paper", "torchvision"])
def test_small_form_overfits_one_batch(variant: str) -> None:
    torch.manual_seed(0)
    network = VARIANTS[variant](image_size=28, num_classes=4, width=0.25, dropout=0.0, aux_heads=False)
    images, targets = torch.randn(8, 3, 28, 28), torch.arange(8) % 4
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for _ in range(40):
        loss = F.cross_entropy(network(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05
    assert (network(images).argmax(1) == targets).all()


def test_small_form_keeps_blocks_and_heads() -> None:
    paper, small = (InceptionV1(form=form, image_size=96).state_dict() for form in ("paper", "small"))
    assert {name for name in paper if paper[name].shape != small[name].shape} == {"conv1.conv.weight"}
    shapes = {layer.name: layer.output_shape for layer in summary(32).layers}
    assert shapes["maxpool2"] == (1, 192, 16, 16)
    assert (shapes["maxpool3"], shapes["maxpool4"]) == ((1, 480, 8, 8), (1, 832, 4, 4))


def test_width_scales_every_layer_in_both_forms() -> None:
    for form in ("paper", "small"):
        with torch.device("meta"):
            whole, half, thin = (InceptionV1(form=form, image_size=96, width=w) for w in (1.0, 0.5, 0.05))
        for one, other, least in zip(layers(whole), layers(half), layers(thin), strict=True):
            if len(one.weight) != 1000:
                assert 2 * len(other.weight) == len(one.weight)
                assert len(least.weight) == max(8, round(0.05 * len(one.weight)))
        assert (whole.form, half.form) == (form, f"{form} ×1/2")


def test_form_follows_the_size() -> None:
    with torch.device("meta"):
        assert [InceptionV1(image_size=size).form for size in (64, 65)] == ["small", "paper"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "keras"}, "variant=keras: must be one of paper, torchvision"),
        ({"form": "tiny"}, "form=tiny: must be one of auto, paper, small"),
        ({"image_size": 27}, "image_size=27: must be 28 to 96 for form=small"),
        ({"image_size": 97, "form": "small"}, "image_size=97: must be 28 to 96"),
        ({"width": 0.0}, "width=0.0: must be above 0"),
    ],
)
def test_refusals(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InceptionV1(**arguments)


def test_training_without_heads_gives_logits() -> None:
    network = InceptionV1(aux_heads=False, image_size=28, width=0.125, num_classes=3)
    assert network.train()(torch.zeros(2, 3, 28, 28)).shape == (2, 3)
    assert not any(isinstance(module, AuxiliaryHead) for module in network.modules())
    assert all(
        isinstance(module.relu, nn.ReLU) for module in network.modules() if isinstance(module, ConvNormActivation)
    )
