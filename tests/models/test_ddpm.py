"""DDPM's U-Net: the paper's counts, equality with diffusers, what it starts as, times and classes, sizes it takes."""

import math
import warnings
from collections.abc import Callable

import pytest
import torch
from parity import RATE, described, relative
from torch import Tensor, nn

from zoo.models.ddpm import DDPMUNet, sinusoids
from zoo.summary import summarize

TINY = {"in_channels": 1, "image_size": 8, "width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,)}
TINY |= {"groups": 2, "dropout": 0.0}
TIMES = torch.tensor([0, 7, 999])
ENDS = (".attention.output", ".conv2")  # names of what ends a branch


def tiny(**arguments) -> DDPMUNet:
    torch.manual_seed(0)
    return DDPMUNet(**{**TINY, **arguments}).eval()


def scatter(network: nn.Module) -> nn.Module:
    """Random weights everywhere, for the network starts as almost zero."""
    torch.manual_seed(1)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.5)
    return network


@pytest.mark.parametrize(
    ("arguments", "classes", "parameters", "multiply_adds"),
    [
        ({}, False, 35_746_307, 6_053_953_536),
        # 11 rows of 512 more: ten classes and none
        ({"conditional": True, "num_classes": 10}, True, 35_746_307 + 11 * 512, 6_053_953_536),
    ],
)
def test_published_counts(arguments: dict, classes: bool, parameters: int, multiply_adds: int) -> None:
    """Without the products of two activations: 2·T²·C of each attention, together 167,903,232 more."""
    with torch.device("meta"):
        network = DDPMUNet(**arguments)
    one = torch.zeros(1, dtype=torch.int64)  # on the CPU, as what a batch gives
    found = summarize(network, torch.empty(1, 3, 32, 32), one, one if classes else None)
    assert (found.parameters, found.multiply_adds) == (parameters, multiply_adds)
    attending = [layer.output_shape for layer in found.layers if layer.name.endswith("attention.output")]
    assert attending == [(1, 256, 256)] * 2 + [(1, 16, 256)] + [(1, 256, 256)] * 3
    assert sum(2 * places**2 * channels for _, places, channels in attending) == 167_903_232


KEYS = {  # ours and diffusers' names, of layers and within the two kinds of blocks
    "time.0": "time_embedding.linear_1",
    "time.2": "time_embedding.linear_2",
    "condition": "class_embedding",
    "stem": "conv_in",
    "head.0": "conv_norm_out",
    "head.2": "conv_out",
    "block.embedding": "time_emb_proj",
    "block.shortcut": "conv_shortcut",
    **{f"block.{name}": name for name in ("norm1", "conv1", "norm2", "conv2")},
    "attention.norm": "group_norm",
    "attention.query": "to_q",
    "attention.key": "to_k",
    "attention.value": "to_v",
    "attention.output": "to_out.0",
}


def renamed(name: str, blocks: int) -> str:
    """Ours: the layers of a path in a row, as contracting.4.block.conv1.weight; diffusers': of each level apart."""
    layer, _, kind = name.rpartition(".")
    path, _, inner = layer.partition(".")
    if path not in ("contracting", "middle", "expanding"):
        return f"{KEYS[layer]}.{kind}"
    row, _, inner = inner.partition(".")
    stages = {"contracting": blocks, "expanding": blocks + 1}.get(path, 2)
    level, place = divmod(int(row), stages + 1)
    start = {"contracting": f"down_blocks.{level}", "expanding": f"up_blocks.{level}"}.get(path, "mid_block")
    if place == stages:
        return f"{start}.{'downsamplers' if path == 'contracting' else 'upsamplers'}.0.conv.{kind}"
    return f"{start}.{'resnets' if inner.startswith('block') else 'attentions'}.{place}.{KEYS[inner]}.{kind}"


def diffusers_twin(ours: DDPMUNet, arguments: dict) -> nn.Module:
    """UNet2DModel with the settings of google/ddpm-cifar10-32, stated in full, at the sizes of `ours`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the import: others' deprecations
        unet = pytest.importorskip("diffusers").UNet2DModel
    sizes = [arguments["image_size"] // 2**level for level in range(len(arguments["multipliers"]))]
    attends = [size in arguments["attention"] for size in sizes]
    widest = arguments["width"] * arguments["multipliers"][-1]
    heads = arguments.get("heads", 1)
    return unet(
        sample_size=arguments["image_size"],
        in_channels=arguments["in_channels"],
        out_channels=arguments["in_channels"],
        center_input_sample=False,
        time_embedding_type="positional",
        freq_shift=1,  # denominators of half − 1
        flip_sin_to_cos=False,  # sines first
        down_block_types=tuple("AttnDownBlock2D" if attended else "DownBlock2D" for attended in attends),
        up_block_types=tuple("AttnUpBlock2D" if attended else "UpBlock2D" for attended in reversed(attends)),
        block_out_channels=tuple(arguments["width"] * multiplier for multiplier in arguments["multipliers"]),
        layers_per_block=arguments["blocks"],
        mid_block_scale_factor=1,
        downsample_padding=0,  # that is (0, 1, 0, 1)
        act_fn="silu",
        attention_head_dim=None if heads == 1 else widest // heads,
        norm_num_groups=arguments["groups"],
        norm_eps=1e-6,
        num_class_embeds=None if ours.num_classes is None else ours.num_classes + 1,
    )


PAPER = {"in_channels": 3, "image_size": 32, "width": 128, "multipliers": (1, 2, 2, 2), "blocks": 2}
PAPER |= {"attention": (16,), "groups": 32}
NARROW = {**PAPER, "width": 8, "groups": 4}
PARITY = "diffusers.UNet2DModel, settings of google/ddpm-cifar10-32"


@pytest.mark.parametrize(
    ("name", "arguments", "source"),
    [
        pytest.param("ddpm", PAPER, PARITY, marks=pytest.mark.slow),
        ("ddpm ×1/16", NARROW, f"{PARITY}, 8 channels in 4 groups"),
        (
            "ddpm ×1/16, of a class, two heads, three levels",
            {
                **NARROW,
                "multipliers": (1, 2, 2),
                "blocks": 1,
                "heads": 2,
                "attention": (16, 8),
                "conditional": True,
                "num_classes": 10,
            },
            "diffusers.UNet2DModel, settings in tests/models/test_ddpm.py",
        ),
    ],
)
def test_equals_diffusers(name: str, arguments: dict, source: str, certify_row: Callable[..., None]) -> None:
    ours = scatter(DDPMUNet(**arguments)).eval().double()
    twin = diffusers_twin(ours, arguments).eval().double()
    twin.load_state_dict({renamed(key, arguments["blocks"]): tensor for key, tensor in ours.state_dict().items()})
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    classes = torch.tensor([0, 4, 10]) if ours.num_classes else None
    mine, others = ours(images, TIMES, classes), twin(images, TIMES, classes).sample
    assert mine.std() > 0.1
    weights = torch.randn(mine.shape, dtype=torch.float64)  # a loss in which every output counts differently
    (mine * weights).sum().backward()
    (others * weights).sum().backward()
    names = {key: renamed(key, arguments["blocks"]) for key, _ in ours.named_parameters()}
    pairs = [dict(network.named_parameters()) for network in (ours, twin)]
    gradients = [{key: p.grad for key, p in parameters.items()} for parameters in pairs]
    with torch.no_grad():
        stepped = [{key: p - RATE * p.grad for key, p in parameters.items()} for parameters in pairs]
    certify_row(
        name,
        outputs=(mine - others).abs().max().item(),
        gradients=relative(*gradients, names),
        source=source,
        image_size=32,
        **{**described(ours), "weights after a step": relative(*stepped, names)},
    )


def test_sinusoids_are_sines_then_cosines_with_denominators_of_half_minus_one() -> None:
    times, width = [0.0, 1.0, 2.5, 40.0], 10
    found = sinusoids(torch.tensor(times), width)
    for time, row in zip(times, found.tolist(), strict=True):
        angles = [time / 10_000 ** (place / 4) for place in range(5)]
        assert row == pytest.approx([*map(math.sin, angles), *map(math.cos, angles)], abs=1e-5)
    assert found.dtype == torch.float32


def test_starts_as_glorot_with_branches_that_are_almost_zero() -> None:
    network = tiny(width=32, multipliers=(1, 2, 4), image_size=16)
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            kernel = layer.weight[0, 0].numel()
            limit = math.sqrt(6 / (sum(layer.weight.shape[:2]) * kernel))
            limit *= 1e-5 if name.endswith(ENDS) or name == "head.2" else 1
            assert 0.95 * limit < layer.weight.abs().max() <= limit * 1.00001, name
            assert not layer.bias.any()
    images = torch.randn(3, 1, 16, 16)
    assert 0 < network(images, TIMES).abs().max() < 1e-3
    block = network.contracting[0].block
    x, embedded = torch.randn(2, 32, 16, 16), torch.randn(2, 128)
    torch.testing.assert_close(block(x, embedded), x, rtol=0, atol=1e-4)


@pytest.mark.parametrize("conditional", [False, True])
def test_a_gradient_for_every_parameter(conditional: bool) -> None:
    network = tiny(conditional=conditional, num_classes=2).train().double()
    images = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    loss = (network(images, TIMES, torch.tensor([0, 1, 2]) if conditional else None) - images).square().mean()
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        largest = parameter.grad.abs().max() / loss.item()
        assert (largest < 1e-15) == name.endswith("key.bias"), name  # a softmax does not see what is added to all
    if conditional:
        assert network.condition.weight.grad.abs().amax(1).min() > 0


@pytest.mark.parametrize("fast", [False, True])
def test_a_batch_of_one_is_a_row_of_the_batch(fast: bool) -> None:
    network = scatter(tiny(conditional=True, num_classes=10))
    if fast:
        network = network.to(memory_format=torch.channels_last)
    images, classes = torch.randn(3, 1, 8, 8), torch.tensor([3, 10, 0])
    with torch.no_grad():
        exact = network(images, TIMES, classes)
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            together = network(images, TIMES, classes)
            rows = [network(images[i : i + 1], TIMES[i : i + 1], classes[i : i + 1]) for i in range(3)]
    assert together.shape == images.shape
    spread = exact.std().item()
    torch.testing.assert_close(together.float(), exact, rtol=0, atol=0.1 * spread)
    tolerance = 0.1 * spread if fast else 1e-5
    torch.testing.assert_close(torch.cat(rows).float(), exact, rtol=0, atol=tolerance)


def test_times_are_whole_numbers_or_not() -> None:
    network, images = scatter(tiny()), torch.randn(1, 1, 8, 8).expand(3, -1, -1, -1)

    def at(*times: float) -> Tensor:
        with torch.no_grad():
            return network(images[: len(times)], torch.tensor(times))

    assert torch.equal(at(0, 7, 999), at(0.0, 7.0, 999.0))
    one, between, two = at(1.0, 1.5, 2.0)
    for other in (one, two):
        assert (between - other).abs().max() > 1e-3
    assert (at(7) - at(8)).abs().max() > 1e-3


def test_classes_add_a_row_to_the_embedding_and_the_last_row_is_no_class() -> None:
    network, images = scatter(tiny(conditional=True, num_classes=4)), torch.randn(1, 1, 8, 8).expand(5, -1, -1, -1)
    assert network.num_classes == 4
    assert network.condition.weight.shape == (5, 32)
    time = torch.full((5,), 10)
    with torch.no_grad():
        told = network(images, time, torch.arange(5))
        assert min((told[a] - told[b]).abs().max() for a in range(5) for b in range(a)) > 1e-3
        network.condition.weight[2].zero_()
        plain = tiny(num_classes=4)
        assert plain.num_classes is None
        plain.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("condition")})
        torch.testing.assert_close(network(images, time, torch.arange(5))[2:3], plain(images[:1], time[:1]))
    with pytest.raises(ValueError, match="condition=None: must be a class for each image; 4 for none"):
        network(images, time)
    with pytest.raises(ValueError, match="condition of 5 images: must be None without conditional=True"):
        plain(images, time, torch.arange(5))


@pytest.mark.parametrize(("image_size", "levels"), [(28, 3), (28, 2), (7, 1), (12, 3), (4, 3)])
def test_sizes_that_halve(image_size: int, levels: int) -> None:
    smallest = image_size // 2 ** (levels - 1)
    network = scatter(tiny(image_size=image_size, multipliers=(1,) * levels, attention=(smallest,)))
    at: list[int] = []
    for layer in network.contracting.modules():
        if type(layer).__name__ == "Attention":
            layer.register_forward_hook(lambda module, inputs, output: at.append(output.shape[2]))
    images = torch.randn(2, 1, image_size, 2 * image_size)
    assert network(images, TIMES[:2]).shape == images.shape
    assert at == [smallest]


def test_dropout_stands_before_the_last_convolution_of_every_block() -> None:
    network = tiny(dropout=0.25)
    rates = [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)]
    assert rates == [0.25] * (2 + 2 + 4)
    block = scatter(network.contracting[0].block)
    with torch.no_grad():
        seen: list[Tensor] = []
        block.conv2.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
        block.train()(torch.randn(4, 8, 8, 8), torch.randn(4, 32))
    assert 0.2 < (seen[0] == 0).float().mean() < 0.3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"in_channels": 0}, "in_channels=0: must be 1 or more"),
        ({"image_size": 0}, "image_size=0: must be 1 or more"),
        ({"blocks": 0}, "blocks=0: must be 1 or more"),
        ({"heads": 0}, "heads=0: must be 1 or more"),
        ({"groups": 0}, "groups=0: must be 1 or more"),
        ({"num_classes": 0, "conditional": True}, "conditional=true: must be false for data without classes"),
        ({"conditional": True}, "conditional=true: must be false for data without classes"),
        ({"multipliers": ()}, r"multipliers=\[\]: must be a number for each level, 1 or more"),
        ({"multipliers": (1, 0)}, r"multipliers=\[1, 0\]: must be a number for each level, 1 or more"),
        ({"dropout": 1.0}, "dropout=1.0: must be at least 0 and below 1"),
        ({"width": 2, "groups": 1}, "width=2: must be even, 4 or more, and twice groups=1 or another multiple"),
        ({"width": 9, "groups": 3}, "width=9: must be even"),
        ({"width": 8, "groups": 8}, "width=8: must be even, 4 or more, and twice groups=8 or another multiple"),
        ({"width": 8, "groups": 3}, "width=8: must be even, 4 or more, and twice groups=3 or another multiple"),
        ({"heads": 3}, r"heads=3: must divide the widths of the levels, \[8, 16\]"),
        ({"attention": (16,)}, r"attention=\[16\]: must be among the sizes of the levels, \[8, 4\]"),
        ({"image_size": 9}, "image_size=9: must be a multiple of 2, as 8 or 10, to be halved 1 times"),
        ({"image_size": 3, "multipliers": (1, 1, 1)}, "image_size=3: must be a multiple of 4, as 4, to be halved"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict, sentence: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=sentence):
        DDPMUNet(**{**TINY, **arguments})


def test_images_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ValueError, match="image_size=11: must be a multiple of 2, as 10 or 12"):
        tiny()(torch.randn(1, 1, 8, 11), TIMES[:1])
