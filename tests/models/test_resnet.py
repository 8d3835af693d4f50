"""ResNet, wide ResNet, ResNeXt: counts and tables of the papers, and torchvision's networks as twins."""

import math
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from zoo.models import resnet
from zoo.models.resnet import BasicBlock, Bottleneck, ResNet
from zoo.summary import Summary, summarize


def summary(image_size: int, **arguments: object) -> Summary:
    with torch.device("meta"):
        network = ResNet(image_size=image_size, **arguments)
    return summarize(network, torch.empty(1, 3, image_size, image_size))


BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


@pytest.mark.parametrize(
    ("depth", "stride_in", "parameters", "multiply_adds"),
    [
        (18, "3x3", 11_689_512, 1_814_073_344),
        (34, "3x3", 21_797_672, 3_663_761_408),
        (50, "3x3", 25_557_032, 4_089_184_256),
        (101, "3x3", 44_549_160, 7_801_405_440),
        (152, "3x3", 60_192_808, 11_513_626_624),
        (50, "1x1", 25_557_032, 3_857_973_248),
        (101, "1x1", 44_549_160, 7_570_194_432),
        (152, "1x1", 60_192_808, 11_282_415_616),
    ],
)
def test_counts_and_layer_table_of_the_paper(depth: int, stride_in: str, parameters: int, multiply_adds: int) -> None:
    """Table 1: channels and side of every block's output; the number of weighted layers is the name."""
    found = summary(224, depth=depth, stride_in=stride_in)
    assert (found.parameters, found.multiply_adds) == (parameters, multiply_adds)
    shapes = {layer.name: layer.output_shape for layer in found.layers}
    assert (shapes["conv1"], shapes["maxpool"]) == ((1, 64, 112, 112), (1, 64, 56, 56))
    last, expansion = ("relu2", 1) if depth < 50 else ("relu3", 4)
    expected = {
        f"layer{stage + 1}.{place}.{last}": (1, 64 * 2**stage * expansion, 56 // 2**stage, 56 // 2**stage)
        for stage, repeats in enumerate(BLOCKS[depth])
        for place in range(repeats)
    }
    assert {name: shape for name, shape in shapes.items() if name.endswith(f".{last}")} == expected
    weighted = [n for n in found.layers if n.type in ("Conv2d", "Linear") and "downsample" not in n.name]
    assert len(weighted) == depth
    side = 56 if depth >= 50 and stride_in == "3x3" else 28
    assert shapes["layer2.0.relu1"] == (1, 128, side, side)


@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"),
    [  # torchvision states billions of multiply-adds with three digits behind the point
        ("wide_resnet50_2", 68_883_240, "11.398"),
        ("wide_resnet101_2", 126_886_696, "22.753"),
        ("resnext50_32x4d", 25_028_904, "4.230"),
        ("resnext101_32x8d", 88_791_336, "16.414"),
        ("resnext101_64x4d", 83_455_272, "15.460"),
    ],
)
def test_counts_of_wide_resnet_and_resnext(name: str, parameters: int, multiply_adds: str) -> None:
    with torch.device("meta"):
        network = getattr(resnet, name)()
    found = summarize(network, torch.empty(1, 3, 224, 224))
    assert (found.parameters, f"{found.multiply_adds / 1e9:.3f}") == (parameters, multiply_adds)


def test_shortcuts_cost_what_their_projections_cost() -> None:
    """ResNet-34: B projects in three blocks; C in all sixteen; A in none."""

    def projection(inside: int, outside: int, side: int) -> tuple[int, int]:
        return inside * outside + 2 * outside, inside * outside * side**2

    change = [projection(64, 128, 28), projection(128, 256, 14), projection(256, 512, 7)]
    keep = [3 * [projection(64, 64, 56)], 3 * [projection(128, 128, 28)]]
    keep += [5 * [projection(256, 256, 14)], 2 * [projection(512, 512, 7)]]
    a, b, c = (summary(224, depth=34, shortcut=kind) for kind in "ABC")
    for place, part in enumerate(("parameters", "multiply_adds")):
        assert getattr(a, part) == getattr(b, part) - sum(row[place] for row in change)
        assert getattr(c, part) == getattr(b, part) + sum(row[place] for rows in keep for row in rows)


def test_small_form_is_the_usual_one_for_small_pictures() -> None:
    found = summary(32, depth=18, num_classes=10)
    assert (found.parameters, found.multiply_adds) == (11_173_962, 555_422_720)
    sides = [layer.output_shape for layer in found.layers if layer.name.endswith(".1.relu2")]
    assert sides == [(1, 64, 32, 32), (1, 128, 16, 16), (1, 256, 8, 8), (1, 512, 4, 4)]


# Twins ---------------------------------------------------------------------------------------------------------------


def in_v1(twin: nn.Module) -> nn.Module:
    """torchvision's network with the strides of the 3×3 convolutions moved to the first 1×1."""
    for stage in (twin.layer2, twin.layer3, twin.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    return twin


def in_small_form(twin: nn.Module) -> nn.Module:
    twin.conv1, twin.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    return twin


class Selection(nn.Module):
    """Option A as a 1×1 convolution whose weights are those of the identity matrix."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.inside, self.outside, self.stride = inside, outside, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, torch.eye(self.outside, self.inside, dtype=x.dtype)[:, :, None, None], stride=self.stride)


def with_shortcut_a(twin: nn.Module) -> nn.Module:
    for block in twin.modules():
        if getattr(block, "downsample", None) is not None:
            projection = block.downsample[0]
            block.downsample = Selection(projection.in_channels, projection.out_channels, projection.stride[0])
    return twin


def with_shortcut_c(twin: nn.Module) -> nn.Module:
    for block in list(twin.modules()):
        if hasattr(block, "downsample") and block.downsample is None:
            channels = block.conv1.in_channels
            block.downsample = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels))
    return twin


def slow(*values: object) -> object:
    return pytest.param(*values, marks=pytest.mark.slow)


NARROW = {"width_per_group": 8}  # a quick test of what is slow at the published widths


@pytest.mark.parametrize(
    ("name", "options", "change", "said"),
    [
        ("resnet18", {}, None, ""),
        ("resnet18", {"form": "small", "shortcut": "A"}, with_shortcut_a, ", 3×3 stem, no pooling, selection"),
        ("resnet18", {"shortcut": "C"}, with_shortcut_c, ", a projection in every block"),
        ("resnet50", NARROW, None, ""),
        ("resnet50_v1", NARROW, in_v1, ", strides moved"),
        ("resnet50", {"groups": 8, "width_per_group": 2}, None, ""),
        slow("resnet18", {"form": "small"}, None, ", 3×3 stem, no pooling"),
        slow("resnet34", {}, None, ""),
        slow("resnet34", {"shortcut": "A"}, with_shortcut_a, ", shortcuts by selection"),
        slow("resnet50", {"shortcut": "A"}, with_shortcut_a, ", shortcuts by selection"),
        slow("resnet50", {"shortcut": "C"}, with_shortcut_c, ", a projection in every block"),
        *(slow(f"resnet{depth}", {}, None, "") for depth in (50, 101, 152)),
        *(slow(f"resnet{depth}", {"stride_in": "1x1"}, in_v1, ", strides moved") for depth in (50, 101, 152)),
        *(slow(f"wide_resnet{depth}_2", {}, None, "") for depth in (50, 101)),
        *(slow(name, {}, None, "") for name in ("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d")),
    ],
)
def test_twin(
    certify: Callable[..., None], name: str, options: dict[str, str], change: Callable | None, said: str
) -> None:
    torch.manual_seed(0)
    known = name.removesuffix("_v1")
    theirs = {key: value for key, value in options.items() if key in ("groups", "width_per_group")}
    twin = getattr(torchvision.models, known)(**theirs)
    image_size = 64
    if options.get("form") == "small":
        twin, image_size = in_small_form(twin), 32
    certify(
        " ".join([name, *(f"{key}={value}" for key, value in options.items())]),
        getattr(resnet, name)(**{"image_size": image_size, "form": "paper", **options}),
        change(twin) if change else twin,
        source=f"torchvision.models.{known}{said}",
        image_size=image_size,
    )


# Blocks, first weights, forms --------------------------------------------------------------------------------------


class Nothing(nn.Module):
    """Takes the place of `drop_path` and drops the branch."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.ndim == 4
        return torch.zeros_like(x)


def blocks_and_inputs(network: nn.Module) -> Iterator[tuple[nn.Module, Tensor]]:
    for block in network.modules():
        if isinstance(block, BasicBlock | Bottleneck):
            yield block, torch.randn(2, block.conv1.in_channels, 4, 4)


@pytest.mark.parametrize("shortcut", ["A", "B", "C"])
@pytest.mark.parametrize("depth", [18, 50])
def test_without_its_branch_a_block_is_its_shortcut(depth: int, shortcut: str) -> None:
    torch.manual_seed(0)
    arguments = {"depth": depth, "shortcut": shortcut, "image_size": 32, "width": 0.125}
    dropped, zeroed = ResNet(**arguments), ResNet(**arguments, zero_init_residual=True)
    for module in dropped.modules():
        if hasattr(module, "drop_path"):
            assert isinstance(module.drop_path, nn.Identity)
            module.drop_path = Nothing()
    for network in (dropped, zeroed):
        for block, input in blocks_and_inputs(network):
            kept = input if block.downsample is None else block.downsample(input)
            torch.testing.assert_close(block(input), kept.relu(), rtol=0, atol=0)
    zeros = [name for name, p in zeroed.named_parameters() if name.endswith("weight") and not p.any()]
    last = "bn2" if depth == 18 else "bn3"
    assert zeros == [name for name, _ in zeroed.named_parameters() if name.endswith(f".{last}.weight")]
    assert not [name for name, p in dropped.named_parameters() if name.endswith("weight") and not p.any()]


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d"])
def test_first_weights_are_torchvisions(name: str) -> None:
    torch.manual_seed(0)
    network = getattr(resnet, name)()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            weight, fan_out = module.weight.detach(), module.out_channels * math.prod(module.kernel_size)
            error = 5 / math.sqrt(2 * weight.numel())  # five standard deviations of a sample's
            assert weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=error)
            assert weight.abs().max() > 3 * math.sqrt(2 / fan_out)  # a uniform distribution ends at 1.7
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
    bound = 1 / math.sqrt(network.fc.in_features)
    assert 0.99 * bound < network.fc.weight.abs().max() <= bound


@pytest.mark.parametrize(
    ("arguments", "form"),
    [
        ({}, "paper"),
        ({"image_size": 65}, "paper"),
        ({"image_size": 64}, "small"),
        ({"image_size": 96, "form": "small"}, "small"),
        ({"image_size": 32, "form": "paper"}, "paper"),
        ({"image_size": 28, "width": 0.25}, "small ×1/4"),
        ({"width": 0.3}, "paper ×3/10"),
        ({"width": 2}, "paper ×2"),
    ],
)
def test_form(arguments: dict[str, object], form: str) -> None:
    with torch.device("meta"):
        network = ResNet(depth=18, **arguments)
    assert network.form == form
    assert network.conv1.kernel_size == ((7, 7) if form.startswith("paper") else (3, 3))


def test_width_scales_every_layer_and_leaves_eight_channels() -> None:
    with torch.device("meta"):
        quarter, tiny = ResNet(depth=50, width=0.25, groups=32, width_per_group=4), ResNet(depth=18, width=0.05)
    found = {name: m.out_channels for name, m in quarter.named_modules() if isinstance(m, nn.Conv2d)}
    with torch.device("meta"):
        full = ResNet(depth=50, groups=32, width_per_group=4)
    assert found == {name: m.out_channels // 4 for name, m in full.named_modules() if isinstance(m, nn.Conv2d)}
    assert [stage[0].conv2.out_channels for stage in (tiny.layer1, tiny.layer2, tiny.layer3, tiny.layer4)] == [
        *(8, 8, 13, 26)
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"depth": 20}, "depth=20: must be one of 18, 34, 50, 101, 152"),
        ({"form": "big"}, "form=big: must be one of auto, paper, small"),
        ({"form": "paper", "image_size": 31}, "image_size=31: must be at least 32 for form=paper"),
        ({"form": "small", "image_size": 97}, "image_size=97: must be from 28 to 96 for form=small"),
        ({"image_size": 27}, "image_size=27: must be from 28 to 96 for form=small"),
        ({"width": 0}, "width=0: must be more than 0"),
        ({"width": math.inf}, "width=inf: must be more than 0"),
        ({"width": math.nan}, "width=nan: must be more than 0"),
        ({"in_channels": 0}, "in_channels=0: must be 1 or more"),
        ({"num_classes": 0}, "num_classes=0: must be 1 or more"),
        ({"groups": 0}, "groups=0: must be 1 or more"),
        ({"width_per_group": 0}, "width_per_group=0: must be 1 or more"),
        ({"stride_in": "5x5"}, r"stride_in=5x5: must be 3x3 \(v1.5\) or 1x1 \(v1\)"),
        ({"shortcut": "D"}, "shortcut=D: must be one of A, B, C"),
        ({"depth": 18, "groups": 2}, "groups=2, .*: must be 1, 64 and 3x3 for depth=18"),
        ({"depth": 34, "width_per_group": 128}, "width_per_group=128, .*: must be 1, 64 and 3x3 for depth=34"),
        ({"depth": 18, "stride_in": "1x1"}, "stride_in=1x1: must be 1, 64 and 3x3 for depth=18"),
        (
            {"groups": 32, "width_per_group": 4, "width": 0.125},
            "width=0.125: leaves 16 channels, which groups=32 must divide",
        ),
    ],
)
def test_refusals(arguments: dict[str, object], sentence: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=sentence):
        ResNet(**arguments)


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("image_size", [28, 32, 64, 96])
def test_small_form_takes_small_pictures(image_size: int, in_channels: int) -> None:
    for depth in (18, 50):
        network = ResNet(
            depth=depth, image_size=image_size, form="small", in_channels=in_channels, num_classes=7, width=0.125
        )
        logits = network(torch.randn(2, in_channels, image_size, image_size))
        assert logits.shape == (2, 7)
        assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnext50_32x4d"])
def test_small_form_gives_every_parameter_a_gradient_and_overfits_a_batch(name: str) -> None:
    torch.manual_seed(0)
    network = getattr(resnet, name)(image_size=28, num_classes=5, width=0.25)
    images, targets = torch.randn(8, 3, 28, 28), torch.arange(8) % 5
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for step in range(12):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images), targets)
        loss.backward()
        if step == 0:
            assert not [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
        optimizer.step()
    assert loss < 0.1
