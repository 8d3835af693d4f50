"""SegNet: published counts and tables, a functional twin with torch's own unpooling, and odd sizes."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from parity import Functional
from torch import Tensor, nn

from zoo.models.segnet import SegNet, SegNetBasic
from zoo.summary import summarize

TINY = {"width": 1 / 8, "num_classes": 3}
NETWORKS = {"segnet": SegNet, "segnet_basic": SegNetBasic}


@pytest.mark.parametrize(
    ("network", "classes", "parameters", "multiply_adds"),
    [
        (SegNet, 11, 29_449_355, 106_712_432_640),
        (SegNet, 12, 29_449_932, 106_811_965_440),
        (SegNetBasic, 11, 1_416_331, 59_188_838_400),
    ],
)
def test_published_counts(network: type[nn.Module], classes: int, parameters: int, multiply_adds: int) -> None:
    with torch.device("meta"):
        found = summarize(network(num_classes=classes), torch.empty(1, 3, 360, 480))
    assert (found.parameters, found.multiply_adds) == (parameters, multiply_adds)
    assert found.layers[-1].output_shape == (1, classes, 360, 480)


def test_the_decoder_mirrors_the_encoder_which_is_torchvisions_vgg16_bn() -> None:
    with torch.device("meta"):
        network, vgg = SegNet(), torchvision.models.vgg16_bn()
    network.features.load_state_dict(vgg.features.state_dict())
    shapes = [
        layer.output_shape[1:3]
        for layer in summarize(network, torch.empty(1, 3, 360, 480)).layers
        if layer.type == "Conv2d"
    ]
    widths = [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
    sides = [360] * 2 + [180] * 2 + [90] * 3 + [45] * 3 + [23] * 3
    assert shapes[:13] == list(zip(widths, sides, strict=True))
    back = [512] * 5 + [256] * 3 + [128] * 2 + [64] * 2 + [11]
    assert shapes[13:] == list(zip(back, reversed(sides), strict=True))
    classifier = network.classifier
    assert (classifier.kernel_size, len(network.decoder[-1])) == ((3, 3), 3)  # the very last convolution is alone


def functional(name: str) -> Callable[..., Tensor]:
    """SegNet once more, with `max_unpool2d`; the encoder as a recursion that calls the decoder on its way back."""
    encoder, decoder = ([2, 2, 3, 3, 3], [3, 3, 3, 2, 1]) if name == "segnet" else ([1] * 4, [1] * 4)
    padding = 1 if name == "segnet" else 3

    def compute(tensors: list[Tensor], images: Tensor, training: bool) -> Tensor:
        rest = iter(tensors)

        def block(maps: Tensor, convolutions: int, *, bias: bool = True, relu: bool = True) -> Tensor:
            for _ in range(convolutions):
                maps = F.conv2d(maps, next(rest), next(rest) if bias else None, padding=padding)
                scale, shift, mean, variance, _ = (next(rest) for _ in range(5))
                maps = F.batch_norm(maps, mean, variance, scale, shift, training)
                maps = maps.clamp(min=0) if relu else maps
            return maps

        def level(maps: Tensor, depth: int) -> Tensor:
            if depth == len(encoder):
                return maps
            maps = block(maps, encoder[depth])
            pooled, places = F.max_pool2d(maps, 2, ceil_mode=True, return_indices=True)
            maps = F.max_unpool2d(level(pooled, depth + 1), places, 2, output_size=maps.shape[2:])
            full = name == "segnet"
            return block(maps, decoder[-1 - depth], bias=full, relu=full)

        return F.conv2d(level(images, 0), next(rest), next(rest), padding=1 if name == "segnet" else 0)

    return compute


@pytest.mark.parametrize("size", [32, 45])
@pytest.mark.parametrize("name", NETWORKS)
def test_equals_a_functional_twin(name: str, size: int, certify: Callable[..., None]) -> None:
    torch.manual_seed(0)
    ours = NETWORKS[name](image_size=size, **TINY)
    certify(
        f"{name} ×1/8 at {size} pixels",
        ours,
        Functional(ours, functional(name)),
        source="torch.nn.functional, tests/models/test_segnet.py",
        image_size=size,
        num_classes=3,
        rename=Functional.rename,
    )


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(17, 17), (28, 31), (64, 50)])
def test_any_size_comes_back(name: str, size: tuple[int, int]) -> None:
    network = NETWORKS[name](in_channels=1, image_size=size[0], **TINY)
    logits = network(torch.randn(3, 1, *size))
    assert logits.shape == (3, 3, *size)
    F.cross_entropy(logits, torch.randint(3, (3, *size))).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_unpooling_puts_values_back_where_the_maxima_were() -> None:
    network = SegNetBasic(image_size=16, **TINY).eval()
    seen = {}
    network.features[-2].register_forward_hook(lambda module, inputs, output: seen.update(before=output))
    network.decoder[0].register_forward_pre_hook(lambda module, inputs: seen.update(unpooled=inputs[0]))
    with torch.no_grad():
        network(torch.randn(2, 3, 40, 40))
    before, unpooled = seen["before"], seen["unpooled"]  # the deepest pool's input: 5×5
    assert before.shape == unpooled.shape == (2, 8, 5, 5)
    assert torch.equal(unpooled, before * (unpooled > 0))
    maxima = F.max_pool2d(before, 2, ceil_mode=True)
    assert torch.equal(F.max_pool2d(unpooled, 2, ceil_mode=True), maxima)
    assert ((unpooled > 0).sum((2, 3)) == (maxima > 0).sum((2, 3))).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_convolutions_start_from_hes_weights(name: str) -> None:
    torch.manual_seed(0)
    for layer in NETWORKS[name](width=0.5).modules():
        if isinstance(layer, nn.Conv2d):
            if layer.weight.numel() > 4000:
                fan = layer.weight[0].numel()
                assert math.isclose(layer.weight.std().item(), math.sqrt(2 / fan), rel_tol=0.05)
            assert layer.bias is None or not layer.bias.any()


def test_form_and_width() -> None:
    with torch.device("meta"):
        assert (SegNet().form, SegNetBasic(width=0.25).form) == ("paper", "paper ×1/4")
        widths = [layer.out_channels for layer in SegNet(width=0.05).modules() if isinstance(layer, nn.Conv2d)]
    assert widths == [8] * 4 + [13] * 3 + [26] * 6 + [26] * 5 + [13] + [13] * 2 + [8] + [8] + [8] + [8] + [11]


@pytest.mark.parametrize(
    ("network", "arguments", "sentence"),
    [
        (SegNet, {"in_channels": 0}, "in_channels=0: must be 1 or more"),
        (SegNet, {"num_classes": 0}, "num_classes=0: must be 1 or more"),
        (SegNet, {"width": 0.0}, "width=0.0: must be more than 0"),
        (SegNet, {"image_size": 16}, "image_size=16: must be more than 16, as there are 5 pools"),
        (SegNetBasic, {"image_size": 8}, "image_size=8: must be more than 8, as there are 4 pools"),
    ],
)
def test_wrong_arguments_are_refused(network: type[nn.Module], arguments: dict, sentence: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=sentence):
        network(**arguments)
