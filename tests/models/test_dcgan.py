"""DCGAN: published counts, layer table, a functional twin, its small form, conditions and spectral norm."""

import copy
import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from parity import differences
from torch import Tensor, nn

from zoo.gan_losses import gradient_penalty
from zoo.models.dcgan import DCGAN
from zoo.summary import summarize

TINY = {"in_channels": 1, "image_size": 28, "width": 0.125, "latent": 6}
SPECTRAL = {"spectral_norm": True, "norm_discriminator": "none"}
NOISE = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([2, 0, 9, 2])


@pytest.mark.parametrize(
    ("arguments", "generator", "discriminator"),
    [
        ({}, (12_658_432, 410_583_040), (11_036_160, 408_961_024)),
        ({"width": 0.5}, (3_576_704, 104_628_224), (2_765_568, 103_817_216)),
        ({"in_channels": 1, "image_size": 28}, (759_680, 7_250_432), (138_624, 6_629_504)),
    ],
)
def test_counts(arguments: dict, generator: tuple[int, int], discriminator: tuple[int, int]) -> None:
    with torch.device("meta"):
        network = DCGAN(**arguments)
        found = summarize(network.generator, torch.empty(1, 100))
        assert (found.parameters, found.multiply_adds) == generator
        picture = torch.empty(1, *network.discriminator.shape)
        found = summarize(network.discriminator, picture)
    assert (found.parameters, found.multiply_adds) == discriminator


@pytest.mark.parametrize(
    ("arguments", "form", "maps"),
    [
        ({}, "paper", [(1024, 4), (512, 8), (256, 16), (128, 32), (3, 64)]),
        ({"width": 0.5}, "paper ×1/2", [(512, 4), (256, 8), (128, 16), (64, 32), (3, 64)]),
        ({"image_size": 32, "form": "paper"}, "paper", [(512, 4), (256, 8), (128, 16), (3, 32)]),
        ({"image_size": 128}, "paper", [(1024, 4), (1024, 8), (512, 16), (256, 32), (128, 64), (3, 128)]),
        ({"image_size": 28}, "small", [(128, 7), (64, 14), (3, 28)]),
        ({"image_size": 32, "width": 0.25}, "small ×1/4", [(32, 8), (16, 16), (3, 32)]),
    ],
)
def test_layer_table(arguments: dict, form: str, maps: list[tuple[int, int]]) -> None:
    """The generator's maps, and the discriminator's, which are the same the other way round."""
    with torch.device("meta"):
        network = DCGAN(**arguments)
        found = summarize(network, torch.empty(1, 100))
    assert network.form == form
    shapes = [layer.output_shape[1:] for layer in found.layers if layer.type in ("Conv2d", "ConvTranspose2d")]
    up = [(channels, side, side) for channels, side in maps]
    assert shapes == [*up, *up[-2::-1], (1, 1, 1)]
    sequence = [layer.type for layer in found.layers]
    hidden = len(maps) - 1
    assert sequence == [
        *["ConvTranspose2d", "BatchNorm2d", "ReLU"] * hidden,
        "ConvTranspose2d",
        *["Conv2d", "LeakyReLU"],
        *["Conv2d", "BatchNorm2d", "LeakyReLU"] * (hidden - 1),
        "Conv2d",
    ]
    assert all(layer.negative_slope == 0.2 for layer in network.modules() if isinstance(layer, nn.LeakyReLU))


def up(maps: Tensor, weight: Tensor) -> Tensor:
    """A transposed convolution of stride 2 and padding 1: zeros put between the pixels, then a convolution."""
    batch, channels, height, width = maps.shape
    spread = maps.new_zeros(batch, channels, 2 * height - 1, 2 * width - 1)
    spread[:, :, ::2, ::2] = maps
    return F.conv2d(spread, weight.transpose(0, 1).flip(2, 3), padding=2)


def normalised(maps: Tensor, scale: Tensor, shift: Tensor, dims: tuple[int, ...]) -> Tensor:
    variance, mean = torch.var_mean(maps, dims, keepdim=True, correction=0)
    return (maps - mean) / torch.sqrt(variance + 1e-5) * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)


def twin_of(network: DCGAN, noise: Tensor, condition: Tensor | None, norm: str) -> tuple[Tensor, Tensor]:
    """Pictures and scores in training mode, with the batch's own statistics; the first layer as a matrix."""
    batch_norm = (0, 2, 3)
    tensors = iter([p for name, p in network.generator.named_parameters() if "embedding" not in name])
    joined = noise
    if condition is not None:
        joined = torch.cat([noise, network.generator.embedding.weight[condition]], 1)
    maps = torch.einsum("bz,zcij->bcij", joined, next(tensors))
    for scale in tensors:
        maps = up(normalised(maps, scale, next(tensors), batch_norm).clamp(min=0), next(tensors))
    pictures = torch.tanh(maps)

    body = iter(network.discriminator.body.parameters())
    maps = F.conv2d(pictures, next(body), stride=2, padding=1)
    maps = torch.where(maps > 0, maps, 0.2 * maps)
    for weight in body:
        maps = F.conv2d(maps, weight, next(body) if norm == "none" else None, stride=2, padding=1)
        if norm != "none":
            maps = normalised(maps, next(body), next(body), batch_norm if norm == "batch" else (1, 2, 3))
        maps = torch.where(maps > 0, maps, 0.2 * maps)
    scores = torch.einsum("bchw,chw->b", maps, network.discriminator.head.weight[0])
    if condition is not None:
        scores = scores + (maps.flatten(1) * network.discriminator.projection.weight[condition]).sum(1)
    return pictures, scores


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("small form at 28 pixels", {}), ("paper form at 32 pixels", {"image_size": 32, "form": "paper"})],
)
def test_equals_its_twin_written_out(name: str, arguments: dict, certify_row: Callable[..., None]) -> None:
    torch.manual_seed(0)
    found = []
    for norm, conditional in itertools.product(("batch", "layer", "none"), (False, True)):
        network = DCGAN(**{**TINY, **arguments}, norm_discriminator=norm, conditional=conditional).double()
        assert network.num_classes == (10 if conditional else None)
        for parameter in network.parameters():
            nn.init.normal_(parameter, 0.0, 0.3)
        noise, condition = NOISE.double(), CLASSES if conditional else None
        pictures, scores = network.generator(noise, condition), network(noise, condition)
        twin = twin_of(network, noise, condition, norm)
        assert scores.std() > 0.1
        # each score counts differently
        losses = [F.softplus(each * torch.arange(1, 5)).sum() for each in (scores, twin[1])]
        found.append(differences(network, [pictures, scores, losses[0]], [*twin, losses[1]]))
    certify_row(
        f"dcgan ×1/8, {name}",
        **{part: max(one[part] for one in found) for part in found[0]},  # of the largest network, too
        source="torch.nn.functional, tests/models/test_dcgan.py: pictures, scores, loss; largest differences",
        cases="6: batch normalisation, layer normalisation and none in the discriminator; with classes and without",
    )


def test_first_weights() -> None:
    network = DCGAN(width=0.5, conditional=True)
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.weight.mean().item() == pytest.approx(1, abs=0.01)
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.3)
            assert module.bias.abs().max() == 0
    assert network.discriminator.projection.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert network.generator.embedding.weight.std().item() == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("options", [{}, {"norm_discriminator": "layer"}, SPECTRAL], ids=["batch", "layer", "spectral"])
@pytest.mark.parametrize("conditional", [False, True])
def test_a_gradient_for_every_parameter_and_a_batch_of_one(options: dict, conditional: bool) -> None:
    network = DCGAN(**TINY, **options, conditional=conditional)
    condition = torch.arange(20) % 10 if conditional else None
    F.softplus(network(torch.randn(20, 6), condition)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name  # noqa: PT018
    assert network.eval()(NOISE[:1], CLASSES[:1] if conditional else None).shape == (1,)


@pytest.mark.parametrize("norm", ["layer", "none"])
def test_without_batch_norm_a_score_is_its_examples_own_and_the_penalty_reaches_every_weight(norm: str) -> None:
    critic = DCGAN(**TINY, norm_discriminator=norm).discriminator
    real, fake = torch.randn(2, 4, 1, 28, 28)
    torch.testing.assert_close(critic(real)[:1], critic(real[:1]))
    gradient_penalty(critic, real, fake, torch.rand(4)).backward()
    for name, parameter in critic.named_parameters():
        if not name.endswith("bias"):
            assert parameter.grad.abs().sum() > 0, name


def spectral_layers(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if hasattr(module, "parametrizations")]


def test_spectral_norm_bounds_every_layer_of_the_discriminator_and_none_of_the_generator() -> None:
    network = DCGAN(**TINY, **SPECTRAL, conditional=True)
    assert not spectral_layers(network.generator)
    layers = spectral_layers(network.discriminator)
    assert [type(layer).__name__ for layer in layers] == ["ParametrizedConv2d"] * 3 + ["ParametrizedEmbedding"]
    for _ in range(50):
        network(NOISE, CLASSES)
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, rel=1e-3)


def test_power_iteration_goes_on_only_while_training() -> None:
    network = DCGAN(**TINY, **SPECTRAL)
    before = copy.deepcopy(dict(network.named_buffers()))
    network.eval()(NOISE)
    assert all(torch.equal(before[name], buffer) for name, buffer in network.named_buffers())
    network.train()(NOISE)
    moved = [name for name, buffer in network.named_buffers() if "parametrizations" in name]
    assert len(moved) == 6
    assert any(not torch.equal(before[name], network.get_buffer(name)) for name in moved)


def test_spectral_norm_is_saved_copied_and_computes_the_same_under_bfloat16() -> None:
    network, other = DCGAN(**TINY, **SPECTRAL), DCGAN(**TINY, **SPECTRAL)
    network(NOISE)  # the state of the power iteration is no longer the first
    other.load_state_dict(network.state_dict())
    averaged = copy.deepcopy(network).eval()
    scores = network.eval()(NOISE)
    assert torch.equal(other.eval()(NOISE), scores)
    assert torch.equal(averaged(NOISE), scores)
    with torch.no_grad():
        network.discriminator.head.parametrizations.weight.original.add_(1)
    assert torch.equal(averaged(NOISE), scores), "a copy shares no weights"
    layer = spectral_layers(other)[1]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer.weight, spectral_layers(averaged)[1].weight)


def test_channels_last_computes_the_same() -> None:
    network = DCGAN(**TINY, conditional=True).eval()
    scores = network(NOISE, CLASSES)
    torch.testing.assert_close(network.to(memory_format=torch.channels_last)(NOISE, CLASSES), scores)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 28, "form": "paper"}, "image_size=28: must be a power of two from 32"),
        ({"image_size": 16, "form": "paper"}, "image_size=16: must be a power of two from 32"),
        ({"image_size": 96}, "image_size=96: must be a power of two"),
        ({"image_size": 30}, "image_size=30: must be a multiple of 4 from 16 to 48"),
        ({"image_size": 64, "form": "small"}, "image_size=64: must be a multiple of 4"),
        ({"form": "tiny"}, "form=tiny: must be auto, paper or small"),
        ({"width": 0.0}, "width=0.0: must be more than 0"),
        ({"latent": 0}, "latent=0: must be 1 or more"),
        ({"num_classes": None, "conditional": True}, "conditional=true: must be false for data without classes"),
        ({"norm_discriminator": "group"}, "norm_discriminator=group: must be batch, layer or none"),
        ({"spectral_norm": True}, "norm_discriminator=batch: must be none where spectral_norm is true"),
    ],
)
def test_arguments_out_of_range(arguments: dict, message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        DCGAN(**{**TINY, **arguments})


def test_pictures_without_classes() -> None:
    assert DCGAN(**TINY, num_classes=None)(NOISE).shape == (4,)


def test_inputs_that_do_not_fit() -> None:
    plain, conditional = DCGAN(**TINY), DCGAN(**TINY, conditional=True)
    with pytest.raises(ValueError, match=r"input of shape \(2, 1, 56, 56\): must be \(B, 1, 28, 28\)"):
        plain.discriminator(torch.zeros(2, 1, 56, 56))
    for network in (plain.generator, plain):
        with pytest.raises(ValueError, match="condition: must be None"):
            network(NOISE, CLASSES)
    for network in (conditional.generator, conditional):
        with pytest.raises(ValueError, match="condition=None: must be classes"):
            network(NOISE)
