"""He's networks for small pictures and their plain twins: counts, table, and a twin written as functions."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.models import resnet_cifar
from zoo.models.resnet_cifar import PlainBlock, ResidualBlock, ResNetCIFAR
from zoo.summary import summarize


@pytest.mark.parametrize(
    ("depth", "shortcut", "parameters", "multiply_adds"),
    [
        (20, "A", 269_722, 40_551_040),
        (20, "B", 272_474, 40_813_184),
        (32, "A", 464_154, 68_862_592),
        (32, "B", 466_906, 69_124_736),
        (44, "A", 658_586, 97_174_144),
        (44, "B", 661_338, 97_436_288),
        (56, "A", 853_018, 125_485_696),
        (56, "B", 855_770, 125_747_840),
        (110, "A", 1_727_962, 252_887_680),
        (110, "B", 1_730_714, 253_149_824),
        pytest.param(1202, "A", 19_421_274, 2_829_238_912, marks=pytest.mark.slow),
    ],
)
def test_counts_and_layer_table_of_the_paper(depth: int, shortcut: str, parameters: int, multiply_adds: int) -> None:
    """Section 4.2: 2n + 1, 2n and 2n convolutions with outputs of 32, 16 and 8 pixels and 16, 32 and 64 channels."""
    with torch.device("meta"):
        network = ResNetCIFAR(depth=depth, shortcut=shortcut)
        plain = ResNetCIFAR(depth=depth, residual=False)
    found = summarize(network, torch.empty(1, 3, 32, 32))
    assert (found.parameters, found.multiply_adds) == (parameters, multiply_adds)
    shapes = [n.output_shape for n in found.layers if n.type == "Conv2d" and "downsample" not in n.name]
    half = (depth - 2) // 3  # 2n
    assert shapes == [(1, 16, 32, 32)] * (half + 1) + [(1, 32, 16, 16)] * half + [(1, 64, 8, 8)] * half
    if shortcut == "A":
        assert {n: p.shape for n, p in plain.named_parameters()} == {n: p.shape for n, p in network.named_parameters()}
        assert summarize(plain, torch.empty(1, 3, 32, 32)).multiply_adds == multiply_adds


def test_names() -> None:
    with torch.device("meta"):
        depths = {
            name: sum(isinstance(m, nn.Conv2d) for m in getattr(resnet_cifar, name)().modules()) + 1
            for name in ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110", "plain20", "plain56")
        }
        assert depths == {name: int(name[-3:] if name == "resnet110" else name[-2:]) for name in depths}
        for name, kind in (("plain20", PlainBlock), ("plain56", PlainBlock), ("resnet20", ResidualBlock)):
            assert type(getattr(resnet_cifar, name)().layer1[0]) is kind


class Twin(nn.Module):
    """The same networks as functions of a state dict, whose keys have _ for the dots."""

    def __init__(self, state: dict[str, Tensor], shortcut: str) -> None:
        super().__init__()
        self.shortcut = shortcut
        for key, tensor in state.items():
            if "running" in key or "tracked" in key:
                self.register_buffer(key.replace(".", "_"), torch.zeros_like(tensor))
            else:
                self.register_parameter(key.replace(".", "_"), nn.Parameter(torch.zeros_like(tensor)))

    def normalise(self, name: str, x: Tensor) -> Tensor:
        mean, variance, gamma, beta = (
            getattr(self, f"{name}_{part}") for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, gamma, beta, training=self.training)

    def forward(self, x: Tensor) -> Tensor:
        x = self.normalise("bn1", F.conv2d(x, self.conv1_weight, padding=1)).clamp(min=0)
        for stage in (1, 2, 3):
            place = 0
            while hasattr(self, f"layer{stage}_{place}_conv1_weight"):
                name, stride = f"layer{stage}_{place}", 2 if (stage, place) in ((2, 0), (3, 0)) else 1
                first, second = getattr(self, f"{name}_conv1_weight"), getattr(self, f"{name}_conv2_weight")
                y = self.normalise(f"{name}_bn1", F.conv2d(x, first, stride=stride, padding=1)).clamp(min=0)
                y = self.normalise(f"{name}_bn2", F.conv2d(y, second, padding=1))
                if self.shortcut == "B" and stride == 2:
                    x = F.conv2d(x, getattr(self, f"{name}_downsample_0_weight"), stride=2)
                    y = y + self.normalise(f"{name}_downsample_1", x)
                elif self.shortcut in ("A", "B"):  # a selection matrix as a 1×1 convolution
                    selection = torch.eye(len(first), x.shape[1], dtype=x.dtype)[:, :, None, None]
                    y = y + F.conv2d(x, selection, stride=stride)
                x, place = y.clamp(min=0), place + 1
        return x.mean((2, 3)) @ self.fc_weight.T + self.fc_bias


@pytest.mark.parametrize(
    ("name", "shortcut"),
    [("resnet20", "A"), ("resnet20", "B"), ("plain20", "none"), ("resnet56", "A"), ("plain56", "none")],
)
def test_twin(certify: Callable[..., None], name: str, shortcut: str) -> None:
    torch.manual_seed(0)
    network = getattr(resnet_cifar, name)(**({} if shortcut == "none" else {"shortcut": shortcut}))
    certify(
        name if shortcut == "none" else f"{name} shortcut={shortcut}",
        network,
        Twin(network.state_dict(), shortcut),
        source="written as functions in tests/models/test_resnet_cifar.py",
        image_size=32,
        num_classes=10,
        rename=lambda key: key.replace(".", "_"),
    )


class Nothing(nn.Module):
    """Takes the place of `drop_path` and drops the branch."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.ndim == 4
        return torch.zeros_like(x)


def test_shortcut_a_by_hand() -> None:
    """Every second pixel, then channels of zeros, for sides that are odd too."""
    network = ResNetCIFAR()
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            assert isinstance(module.drop_path, nn.Identity)
            module.drop_path = Nothing()
    input = torch.randn(2, 16, 7, 7)
    expected = torch.zeros(2, 32, 4, 4)
    for b in range(2):
        for c in range(16):
            for i in range(4):
                for j in range(4):
                    expected[b, c, i, j] = max(0.0, input[b, c, 2 * i, 2 * j].item())
    assert torch.equal(network.layer2[0](input), expected)
    assert torch.equal(network.layer1[0](input), input.relu())


def test_plain_blocks_have_no_place_on_a_branch() -> None:
    assert not any(hasattr(module, "drop_path") for module in ResNetCIFAR(residual=False).modules())


def test_first_weights_are_those_of_he() -> None:
    torch.manual_seed(0)
    for name, parameter in ResNetCIFAR(depth=20, num_classes=100).named_parameters():
        if parameter.ndim > 1:
            error = 5 / math.sqrt(2 * parameter.numel())  # five standard deviations of a sample's
            assert parameter.std().item() == pytest.approx(math.sqrt(2 / parameter[0].numel()), rel=error), name
        else:
            assert (parameter == (1 if "bn" in name and name.endswith("weight") else 0)).all(), name


@pytest.mark.parametrize(
    ("width", "form", "channels"),
    [
        (1, "paper", [16, 32, 64]),
        (0.25, "paper ×1/4", [8, 8, 16]),
        (0.7, "paper ×7/10", [11, 22, 45]),
        (2.0, "paper ×2", [32, 64, 128]),
    ],
)
def test_width(width: float, form: str, channels: list[int]) -> None:
    network = ResNetCIFAR(width=width)
    assert network.form == form
    assert [stage[0].conv2.out_channels for stage in (network.layer1, network.layer2, network.layer3)] == channels
    assert network.conv1.out_channels == channels[0]
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"depth": 21}, r"depth=21: must be 6n \+ 2"),
        ({"depth": 2}, r"depth=2: must be 6n \+ 2"),
        ({"image_size": 27}, "image_size=27: must be from 28 to 96"),
        ({"image_size": 97}, "image_size=97: must be from 28 to 96"),
        ({"in_channels": 0}, "in_channels=0: must be 1 or more"),
        ({"num_classes": 0}, "num_classes=0: must be 1 or more"),
        ({"width": -1}, "width=-1: must be more than 0"),
        ({"width": math.inf}, "width=inf: must be more than 0"),
        ({"shortcut": "C"}, "shortcut=C: must be A or B"),
        ({"shortcut": "B", "residual": False}, "shortcut=B: must be A for residual=false"),
    ],
)
def test_refusals(arguments: dict[str, object], sentence: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=sentence):
        ResNetCIFAR(**arguments)


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("image_size", [28, 32, 64, 96])
def test_takes_small_pictures(image_size: int, in_channels: int) -> None:
    network = ResNetCIFAR(depth=8, image_size=image_size, in_channels=in_channels, num_classes=7)
    logits = network(torch.randn(2, in_channels, image_size, image_size))
    assert logits.shape == (2, 7)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("arguments", [{}, {"shortcut": "B"}, {"residual": False}])
def test_every_parameter_gets_a_gradient_and_a_batch_is_overfitted(arguments: dict[str, object]) -> None:
    torch.manual_seed(0)
    network = ResNetCIFAR(image_size=28, num_classes=5, width=0.25, **arguments)
    images, targets = torch.randn(8, 3, 28, 28), torch.arange(8) % 5
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for step in range(25):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images), targets)
        loss.backward()
        if step == 0:
            assert not [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
        optimizer.step()
    assert loss < 0.1
