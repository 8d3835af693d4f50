"""FCN: published counts, a functional twin that works its crops out, the bilinear kernels, and the small form."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from parity import Functional
from torch import Tensor, nn

from zoo.models.fcn import FCN, Upsampling, fcn8s, fcn16s, fcn32s
from zoo.summary import summarize

TINY = {"width": 1 / 16, "num_classes": 3}  # 8, 8, 16, 32, 32 and 256 channels


@pytest.mark.parametrize(
    ("make", "parameters", "frozen", "multiply_adds"),
    [
        (fcn32s, 136_152_917, 1_806_336, 181_365_854_976),
        (fcn16s, 134_815_994, 458_640, 181_448_086_272),
        (fcn8s, 134_489_759, 127_008, 181_529_034_048),
    ],
)
def test_published_counts(make: Callable[..., FCN], parameters: int, frozen: int, multiply_adds: int) -> None:
    with torch.device("meta"):
        network = make()
    found = summarize(network, torch.empty(1, 3, 500, 500))
    assert (found.parameters, found.frozen, found.multiply_adds) == (parameters, frozen, multiply_adds)
    assert network(torch.empty(1, 3, 500, 333, device="meta")).shape == (1, 21, 500, 333)


def test_body_has_the_keys_and_shapes_of_torchvisions_vgg16() -> None:
    with torch.device("meta"):
        ours, theirs = FCN(), torchvision.models.vgg16()
    ours.features.load_state_dict(theirs.features.state_dict())
    for name, tensor in ours.classifier.state_dict().items():  # its linear layers, as convolutions
        assert tensor.numel() == theirs.classifier.state_dict()[name].numel(), name


def functional(stride: int, *, small: bool, scales: tuple[float, float] = (1.0, 1.0), learn: bool = False) -> Callable:
    """FCN once more. Crops follow from where the first entry of each map lies in the image: `origin`, in pixels."""

    def compute(tensors: list[Tensor], images: Tensor, training: bool) -> Tensor:
        rest = iter(tensors)
        maps, origin, step, pools = images if small else F.pad(images, (99,) * 4), 0.0 if small else -99.0, 1, {}
        for convolutions in (2, 2, 3, 3, 3):
            for _ in range(convolutions):
                maps = F.conv2d(maps, next(rest), next(rest), padding=1).clamp(min=0)
            even = F.pad(maps, (0, maps.shape[3] % 2, 0, maps.shape[2] % 2), value=-math.inf)
            maps = F.max_pool2d(even, 2)
            origin, step = origin + step / 2, 2 * step
            pools[step] = maps, origin
        maps = F.conv2d(maps, next(rest), next(rest), padding=3 if small else 0).clamp(min=0)
        origin += 0 if small else 3 * step
        maps = F.conv2d(maps, next(rest), next(rest)).clamp(min=0)
        scores = F.conv2d(maps, next(rest), next(rest))
        for factor in {32: (32,), 16: (2, 16), 8: (2, 2, 8)}[stride]:
            kernel = next(rest)
            # a weight of 0 goes on outside the paper's scores; the outermost score outside the small form's
            scores = F.pad(scores, (1,) * 4, mode="replicate" if small else "constant")
            if learn:
                scores = F.conv_transpose2d(scores, kernel, stride=factor, padding=factor // 2)
            else:
                scores = F.interpolate(scores, scale_factor=factor, mode="bilinear")
            step //= factor
            origin += step / 2 - 1.5 * factor * step  # the half and the border of what was larger
            if small:
                scores, origin = F.pad(scores, (-factor,) * 4), origin + factor * step
            else:
                scores, origin = F.pad(scores, (-factor // 2,) * 4), origin + factor // 2 * step
            if step > 1:
                pool, start = pools[step]
                skip = F.conv2d(pool * scales[step == 8], next(rest), next(rest))
                first = int((origin - start) / step)
                assert first == (origin - start) / step
                skip = F.pad(skip, (-first, 0, -first, 0))
                height, width = (min(a, b) for a, b in zip(skip.shape[2:], scores.shape[2:], strict=True))
                scores = skip[..., :height, :width] + scores[..., :height, :width]
        assert origin == int(origin) <= 0
        return F.pad(scores, (int(origin),) * 4)[:, :, : images.shape[2], : images.shape[3]]

    return compute


@pytest.mark.parametrize(
    ("stride", "form", "size", "options"),
    [
        *((stride, "paper", 15, {}) for stride in (32, 16, 8)),
        (8, "paper", 40, {"at_once": True}),
        *((stride, "small", 64, {}) for stride in (32, 16, 8)),
        *((stride, "small", 45, {"learn_upsampling": True}) for stride in (32, 16, 8)),
    ],
)
def test_equals_a_functional_twin(stride: int, form: str, size: int, options: dict, certify: Callable) -> None:
    torch.manual_seed(0)
    ours = FCN(stride=stride, image_size=size, form=form, **TINY, **options)
    for name, layer in ours.named_modules():
        if name.startswith("score"):  # 0 in the paper form: with it all classes would be alike
            nn.init.normal_(layer.weight, 0, 0.1 * (100 if "at_once" in options else 1))
    scales = (0.01, 0.0001) if "at_once" in options else (1.0, 1.0)
    twin = functional(stride, small=form == "small", scales=scales, learn="learn_upsampling" in options)
    name = f"fcn{stride}s ×1/16, {form} form at {size} pixels" + "".join(f", {option}" for option in options)
    source = "torch.nn.functional, tests/models/test_fcn.py"
    certify(name, ours, Functional(ours, twin), source=source, image_size=size, num_classes=3, rename=Functional.rename)


def test_a_zero_padded_up_sampling_is_bilinear_between_the_scores() -> None:
    """The authors' kernel at stride 2, written out."""
    kernel = Upsampling(3, 2, aligned=False, learn=False).weight
    row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
    for first in range(3):
        for second in range(3):
            expected = row.outer(row) if first == second else torch.zeros(4, 4)
            assert torch.equal(kernel[first, second], expected)


@pytest.mark.parametrize("form", ["paper", "small"])
@pytest.mark.parametrize("learn", [False, True])
def test_up_sampling_is_frozen_unless_it_is_to_be_learnt(form: str, learn: bool) -> None:
    with torch.device("meta"):
        network = FCN(form=form, image_size=64, learn_upsampling=learn)
    kernels = [name for name, parameter in network.named_parameters() if "upscore" in name]
    assert kernels == ["upscore2.weight", "upscore_pool4.weight", "upscore.weight"]
    assert {name for name, p in network.named_parameters() if not p.requires_grad} == (set() if learn else set(kernels))


@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("size", [(28, 28), (33, 96), (64, 50)])
def test_small_form_takes_28_to_96_pixels_and_learns_everywhere_at_once(size: tuple[int, int], stride: int) -> None:
    torch.manual_seed(0)
    network = FCN(stride=stride, in_channels=1, image_size=size[0], **TINY)
    logits = network(torch.randn(2, 1, *size))
    assert logits.shape == (2, 3, *size)
    F.cross_entropy(logits, torch.randint(3, (2, *size))).backward()
    for name, parameter in network.named_parameters():
        assert "upscore" in name or parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("size", [(1, 1), (31, 66), (97, 40)])
def test_paper_form_takes_any_size_and_starts_from_scores_of_0(size: tuple[int, int], stride: int) -> None:
    logits = FCN(stride=stride, form="paper", **TINY).eval()(torch.randn(1, 3, *size))
    assert logits.shape == (1, 3, *size)
    assert not logits.any()


def test_dropout_follows_both_convolutions_that_were_linear_layers() -> None:
    network = FCN(dropout=0.3, **TINY)
    rates = {name: layer.p for name, layer in network.named_modules() if isinstance(layer, nn.Dropout)}
    assert rates == {"classifier.2": 0.3, "classifier.5": 0.3}


@pytest.mark.parametrize(
    ("arguments", "form"),
    [
        ({}, "paper"),
        ({"image_size": 65}, "paper"),
        ({"image_size": 64}, "small"),
        ({"image_size": 96, "form": "small", "width": 0.25}, "small ×1/4"),
        ({"image_size": 32, "form": "paper"}, "paper"),
    ],
)
def test_form_says_what_was_built(arguments: dict, form: str) -> None:
    with torch.device("meta"):
        network = FCN(**arguments)
    assert network.form == form
    assert network.features[0].padding == ((100, 100) if form.startswith("paper") else (1, 1))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"stride": 4}, "stride=4: must be one of 32, 16, 8"),
        ({"in_channels": 0}, "in_channels=0: must be 1 or more"),
        ({"num_classes": 0}, "num_classes=0: must be 1 or more"),
        ({"image_size": 0}, "image_size=0: must be 1 or more"),
        ({"form": "tiny"}, "form=tiny: must be one of auto, paper, small"),
        ({"image_size": 27}, "image_size=27: must be from 28 to 96 for form=small"),
        ({"image_size": 97, "form": "small"}, "image_size=97: must be from 28 to 96 for form=small"),
        ({"width": -1.0}, "width=-1.0: must be more than 0"),
        ({"stride": 32, "at_once": True}, "at_once=True: must be False for stride=32"),
        ({"dropout": 1.0}, "dropout=1.0: must be at least 0 and below 1"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict, sentence: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=sentence):
        FCN(**arguments)
