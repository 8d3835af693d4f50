"""U-Net: counts and layer table of the paper, a functional twin, sizes, and what its options change."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from parity import Functional
from torch import Tensor, nn

from zoo.models.unet import UNet, unet_2015
from zoo.summary import summarize

PLAIN = {"in_channels": 1, "batch_norm": False}
TINY = {"width": 1 / 8, "num_classes": 3}  # 8, 16, 32, 64, 128 channels


@pytest.mark.parametrize(
    ("arguments", "size", "parameters", "multiply_adds", "output"),
    [
        ({**PLAIN, "valid": True}, (572, 572), 31_030_658, 150_428_424_448, (2, 388, 388)),
        (PLAIN, (512, 512), 31_030_658, 192_384_335_872, (2, 512, 512)),
        ({**PLAIN, "in_channels": 3}, (512, 512), 31_031_810, 192_686_325_760, (2, 512, 512)),
        ({**PLAIN, "num_classes": 1}, (512, 512), 31_030_593, 192_367_558_656, (1, 512, 512)),
        ({}, (640, 960), 31_037_698, 451_608_576_000, (2, 640, 960)),
        ({"upsampling": "bilinear"}, (640, 960), 17_263_042, 374_852_812_800, (2, 640, 960)),
        ({"width": 0.5, "num_classes": 1}, (256, 256), 7_763_041, 12_071_206_912, (1, 256, 256)),
    ],
)
def test_published_counts(arguments: dict, size: tuple, parameters: int, multiply_adds: int, output: tuple) -> None:
    with torch.device("meta"):
        network = UNet(image_size=size[0], **arguments)
    found = summarize(network, torch.empty(1, arguments.get("in_channels", 3), *size))
    assert (found.parameters, found.multiply_adds) == (parameters, multiply_adds)
    assert found.layers[-1].output_shape == (1, *output)


def test_layer_table_of_the_paper() -> None:
    """Figure 1: channels and sides after all 23 convolutional layers, from left to right."""
    with torch.device("meta"):
        found = summarize(unet_2015(in_channels=1), torch.empty(1, 1, 572, 572))
    expected = [(64, 570), (64, 568), (128, 282), (128, 280), (256, 138), (256, 136), (512, 66), (512, 64)]
    expected += [(1024, 30), (1024, 28)]
    for channels, side in ((512, 56), (256, 104), (128, 200), (64, 392)):
        expected += [(channels, side), (channels, side - 2), (channels, side - 4)]
    layers = [layer for layer in found.layers if layer.type in ("Conv2d", "ConvTranspose2d")]
    assert [layer.output_shape[1:] for layer in layers] == [(c, side, side) for c, side in [*expected, (2, 388)]]


def functional(depth: int, *, valid: bool, norm: bool, bilinear: bool, skips: bool) -> Callable[..., Tensor]:
    """U-Net once more: crops by negative padding, up-convolutions as a matrix and a shuffle of pixels."""

    def compute(tensors: list[Tensor], images: Tensor, training: bool) -> Tensor:
        rest = iter(tensors)

        def block(maps: Tensor) -> Tensor:
            for _ in range(2):
                if norm:
                    weight, scale, shift, mean, variance, _ = (next(rest) for _ in range(6))
                    maps = F.conv2d(maps, weight, padding=int(not valid))
                    maps = F.batch_norm(maps, mean, variance, scale, shift, training)
                else:
                    maps = F.conv2d(maps, next(rest), next(rest), padding=int(not valid))
                maps = maps.clamp(min=0)
            return maps

        def enlarge(maps: Tensor) -> Tensor:
            if not bilinear:
                weight, bias = next(rest), next(rest)
                matrix = weight.permute(1, 2, 3, 0).flatten(0, 2)  # (4·C', C)
                return F.pixel_shuffle(torch.einsum("oc,bchw->bohw", matrix, maps), 2) + bias.view(1, -1, 1, 1)
            for axis in (2, 3):  # each new pixel is ¾ of its own and ¼ of the neighbour it is nearer to
                ends = maps.narrow(axis, 0, 1), maps.narrow(axis, maps.shape[axis] - 1, 1)
                bordered = torch.cat([ends[0], maps, ends[1]], axis)
                before, after = (bordered.narrow(axis, start, maps.shape[axis]) for start in (0, 2))
                maps = torch.stack([0.75 * maps + 0.25 * before, 0.75 * maps + 0.25 * after], axis + 1)
                maps = maps.flatten(axis, axis + 1)
            return F.pad(maps, (-1,) * 4) if valid else maps

        copies = []
        for _ in range(depth):
            images = block(images)
            copies.append(images)
            odd = F.pad(images, (0, images.shape[3] % 2, 0, images.shape[2] % 2), value=-math.inf)
            images = odd.unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5))
        images = block(images)
        for copy in reversed(copies):
            images = enlarge(images)
            if valid:
                top, left = ((copy.shape[axis] - images.shape[axis]) // 2 for axis in (2, 3))
                copy = F.pad(copy, (-left, -left, -top, -top))
            else:
                images = images[:, :, : copy.shape[2], : copy.shape[3]]
            images = block(torch.cat([copy, images], 1) if skips else images)
        return F.conv2d(images, next(rest), next(rest))

    return compute


@pytest.mark.parametrize(
    ("name", "size", "arguments"),
    [
        ("unet_2015 ×1/8", 188, {"valid": True, "batch_norm": False}),
        (
            "unet_2015 ×1/8, batch normalisation, bilinear",
            56,
            {"valid": True, "upsampling": "bilinear"},
        ),
        ("unet ×1/8", 32, {}),
        ("unet ×1/8 at a size that pools round", 23, {}),
        ("unet ×1/8 without batch normalisation", 32, {"batch_norm": False}),
        ("unet ×1/8 with bilinear up-sampling", 23, {"upsampling": "bilinear"}),
        ("unet ×1/8 without skips", 23, {"skips": False}),
    ],
)
def test_equals_a_functional_twin(name: str, size: int, arguments: dict, certify: Callable[..., None]) -> None:
    torch.manual_seed(0)
    depth = 2 if size == 56 else 4
    ours = UNet(image_size=size, depth=depth, dropout=0.5, **TINY, **arguments)
    twin = functional(
        depth,
        valid=arguments.get("valid", False),
        norm=arguments.get("batch_norm", True),
        bilinear="upsampling" in arguments,
        skips=arguments.get("skips", True),
    )
    source = "torch.nn.functional, tests/models/test_unet.py"
    certify(name, ours, Functional(ours, twin), source=source, image_size=size, num_classes=3, rename=Functional.rename)


@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 31), (50, 20)])
def test_padded_takes_any_size(size: tuple[int, int], upsampling: str) -> None:
    network = UNet(image_size=size[0], upsampling=upsampling, **TINY).eval()
    assert network(torch.randn(2, 3, *size)).shape == (2, 3, *size)
    assert network.output_size(size[0]) == size[0]


@pytest.mark.parametrize(
    ("depth", "upsampling", "sizes"),
    [
        (1, "transposed", {18: 2, 20: 4, 22: 6}),
        (2, "transposed", {44: 4, 48: 8, 64: 24}),
        (2, "bilinear", {48: 2, 64: 18}),
        (3, "transposed", {92: 4, 100: 12, 180: 92}),
    ],
)
def test_valid_takes_the_sizes_it_names(depth: int, upsampling: str, sizes: dict[int, int]) -> None:
    smallest = min(sizes)
    network = UNet(valid=True, depth=depth, upsampling=upsampling, image_size=smallest, **TINY).eval()
    for size, output in sizes.items():
        assert network.output_size(size) == output
        assert network(torch.randn(1, 3, size, smallest)).shape == (1, 3, output, sizes[smallest])
    step = 2**depth
    with pytest.raises(ValueError, match=f"image_size={smallest - 1}: must be {smallest}, the smallest for valid=True"):
        network.output_size(smallest - 1)
    between = f"must be {smallest + step} or {smallest + 2 * step}, the nearest .* with depth={depth}"
    with pytest.raises(ValueError, match=between):
        network(torch.randn(1, 3, smallest, smallest + step + 1))


@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
def test_valid_output_is_that_of_the_middle_whatever_lies_around(upsampling: str) -> None:
    """The prediction of a crop is the crop of the prediction: no pixel has seen the edge."""
    torch.manual_seed(0)
    network = UNet(valid=True, depth=2, upsampling=upsampling, image_size=64, **TINY).eval().double()
    image = torch.randn(1, 3, 80, 80, dtype=torch.float64)
    with torch.no_grad():
        whole, part = network(image), network(image[:, :, 8:72, 12:76])
    side = part.shape[2]
    torch.testing.assert_close(whole[:, :, 8 : 8 + side, 12 : 12 + side], part, rtol=0, atol=1e-12)


def test_without_skips_only_the_bottom_joins_both_paths() -> None:
    torch.manual_seed(0)
    joined, apart = (UNet(depth=2, skips=skips, **TINY).eval() for skips in (True, False))
    blocks = [block[0].in_channels for block in (expansion.block for expansion in joined.expanding)]
    assert [expansion.block[0].in_channels * 2 for expansion in apart.expanding] == blocks == [32, 16]
    for network, seen in ((joined, True), (apart, False)):
        network.bottom.register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
        images = torch.randn(2, 3, 16, 16)
        assert (network(images[:1]) - network(images[1:])).abs().max().item() > 1e-3 or not seen
        assert seen or torch.equal(network(images[:1]), network(images[1:]))


@pytest.mark.parametrize("arguments", [{}, {"valid": True, "batch_norm": False}, {"upsampling": "bilinear"}])
def test_starts_as_the_paper(arguments: dict) -> None:
    """N(0, √(2/N)), N the incoming nodes of a unit: 9·C of a convolution, C of an up-convolution."""
    torch.manual_seed(0)
    for layer in UNet(depth=3, width=0.5, **{"image_size": 180, **arguments}).modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            incoming = layer.in_channels * {3: 9, 2: 1, 1: 1}[layer.kernel_size[0]]
            if layer.weight.numel() > 1000:
                assert math.isclose(layer.weight.std().item(), math.sqrt(2 / incoming), rel_tol=0.08)
            assert layer.bias is None or not layer.bias.any()


def test_dropout_stands_at_the_end_of_the_contracting_path() -> None:
    network = unet_2015(depth=3, image_size=92, width=1 / 8)
    rates = {name: layer.p for name, layer in network.named_modules() if isinstance(layer, nn.Dropout)}
    assert rates == {"contracting.2.4": 0.5, "bottom.4": 0.5}


@pytest.mark.parametrize(
    ("arguments", "form"),
    [
        ({"valid": True}, "valid"),
        ({}, "padded"),
        ({"width": 0.5}, "padded ×1/2"),
        ({"width": 0.25, "depth": 3, "skips": False}, "padded ×1/4, depth 3, no skips"),
    ],
)
def test_form_says_what_was_built(arguments: dict, form: str) -> None:
    with torch.device("meta"):
        assert UNet(**arguments).form == form


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"in_channels": 0}, "in_channels=0: must be 1 or more"),
        ({"num_classes": 0}, "num_classes=0: must be 1 or more"),
        ({"image_size": 0}, "image_size=0: must be 1 or more"),
        ({"depth": 0}, "depth=0: must be from 1 to 8"),
        ({"depth": 9}, "depth=9: must be from 1 to 8"),
        ({"width": 0.0}, "width=0.0: must be more than 0"),
        ({"upsampling": "nearest"}, "upsampling=nearest: must be transposed or bilinear"),
        ({"dropout": 1.0}, "dropout=1.0: must be at least 0 and below 1"),
        ({"valid": True, "image_size": 64}, "image_size=64: must be 188, the smallest for valid=True with depth=4"),
        ({"valid": True, "image_size": 570}, "image_size=570: must be 556 or 572, the nearest for valid=True"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict, sentence: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=sentence):
        UNet(**arguments)
