"""Looking inside: receptive fields against gradients, statistics and Grad-CAM by hand, and the verb."""

import copy
import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.evaluation import load
from zoo.grad_cam import default_layer, grad_cam
from zoo.inspection import changes, fresh, main, parse, take_statistics
from zoo.inspection_pictures import grad_cam_grid, statistics_curves
from zoo.layer_calls import maps, watch
from zoo.layer_statistics import COLUMNS, layer_statistics
from zoo.models.inception_v1 import InceptionV1
from zoo.models.lenet import LeNet5Original
from zoo.models.recurrent import RecurrentPredictor
from zoo.models.resnet import ResNet
from zoo.models.resnet_cifar import ResNetCIFAR
from zoo.models.xception import Xception
from zoo.receptive_field import Field, Row, receptive_fields

# Receptive fields -----------------------------------------------------------------------------------------------------


def fields(network: nn.Module, *shape: int) -> dict[str, Row]:
    return {row.layer: row for row in receptive_fields(network, torch.empty(1, *shape))}


def seen_by_gradient(network: nn.Module, layer: str, shape: tuple[int, int, int], unit: tuple[int, int]) -> list[Any]:
    """First and last row and column of the pixels that influence a unit of the layer's first call.

    Measured, not computed: all weights are positive, norms and activations are taken out, maxima become means, so that
    the gradient is above 0 exactly where there is a way from the pixel to the unit.
    """
    plain = copy.deepcopy(network).double().eval()
    for name, module in list(plain.named_modules()):
        if isinstance(module, nn.MaxPool2d):
            mean = nn.AvgPool2d(module.kernel_size, module.stride, module.padding, module.ceil_mode)
            plain.set_submodule(name, mean)
        elif isinstance(module, nn.ReLU | nn.BatchNorm2d | nn.LocalResponseNorm):
            plain.set_submodule(name, nn.Identity())
        elif isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            module.bias = None
    outputs: list[Tensor] = []
    plain.get_submodule(layer).register_forward_hook(lambda module, inputs, output: outputs.append(output))
    image = torch.ones(1, *shape, dtype=torch.float64, requires_grad=True)
    plain(image)
    (gradient,) = torch.autograd.grad(outputs[0][0, :, unit[0], unit[1]].sum(), image)
    reached = gradient[0].sum(0) != 0
    return [(int(line.nonzero()[0]), int(line.nonzero()[-1])) for line in (reached.any(1), reached.any(0))]


def claimed(row: Row, shape: tuple[int, int, int], unit: tuple[int, int]) -> list[Any]:
    first = [field.start + i * field.jump for field, i in zip(row.fields, unit, strict=True)]
    last = [start + field.size - 1 for field, start in zip(row.fields, first, strict=True)]
    return [(max(a, 0), min(b, n - 1)) for a, b, n in zip(first, last, shape[1:], strict=True)]


class Branches(nn.Module):
    """Windows of all kinds, as modules and as functions, and branches that look in different directions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, (3, 5), (2, 1), (1, 0))
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.left = nn.Conv2d(4, 4, 3, padding=(1, 4), dilation=(1, 2))  # no holes
        self.right = nn.Conv2d(4, 4, (1, 4))
        self.norm = nn.GroupNorm(2, 4)
        self.sum = nn.ReLU(inplace=True)
        self.grouped = nn.Conv2d(8, 8, 3, padding="same", groups=4)
        self.every_third = nn.AvgPool2d(1)
        self.grid = nn.AdaptiveAvgPool2d((None, 5))
        self.up = nn.ConvTranspose2d(8, 8, 2, 2)
        self.after = nn.ReLU()
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, input: Tensor) -> Tensor:
        x = F.local_response_norm(self.pool(self.stem(input)), 5)
        x = self.sum(self.norm(self.left(x)[:, :, :, 2:-2]) + self.right(F.pad(x, (3, 0))))
        x = self.every_third(self.grouped(torch.cat([x, x[:, [3, 2, 1, 0]]], 1))[:, :, 1::3, :])
        return self.head(self.after(self.up(self.grid(x)))).mean((2, 3))


def test_fields_by_hand() -> None:
    rows = fields(Branches(), 3, 61, 64)
    assert rows["stem"].fields == (Field(2, -1, 3), Field(1, 0, 5))
    assert rows["pool"].fields == (Field(4, -1, 7), Field(2, 0, 7))
    # The slice moves the left branch by two units of 2 pixels, the border the right one by −3 of them: −4…10 and −6…6.
    assert rows["sum"].fields == (Field(4, -5, 15), Field(2, -6, 17))
    assert rows["grouped"].fields == (Field(4, -9, 23), Field(2, -8, 21))
    assert rows["every_third"].fields[0] == Field(12, -5, 23)
    assert rows["grid"].fields[1] == Field(12, -8, 31)  # 30 columns to 5
    assert not {"up", "after", "head"} & set(rows), "what comes after a transposed convolution has no fixed window"
    assert rows["grid"].cells() == ("grid", "AdaptiveAvgPool2d", "5×5", "12", "23×31", "6×7")


@pytest.mark.parametrize("layer", ["stem", "pool", "sum", "grouped", "every_third", "grid"])
@pytest.mark.parametrize("unit", [(0, 0), (2, 2), (-1, -1)])
def test_fields_of_branches_are_what_the_gradient_reaches(layer: str, unit: tuple[int, int]) -> None:
    shape = (3, 61, 64)
    row = fields(Branches(), *shape)[layer]
    place = (unit[0] % row.map[0], unit[1] % row.map[1])
    network = Branches()
    network.norm = nn.Identity()  # type: ignore[assignment]
    assert claimed(row, shape, place) == seen_by_gradient(network, layer, shape, place)


@pytest.mark.parametrize(
    ("network", "layer", "size"),
    [
        (ResNet(depth=18, width=0.125), "layer4", 435),
        (ResNet(depth=50, width=0.125), "layer4", 427),
        (ResNet(depth=50, width=0.125, stride_in="1x1"), "layer4", 483),
        (ResNetCIFAR(depth=20, width=0.5), "layer3", 81),
        (InceptionV1(width=0.125), "inception5b.branch3", 715),
        (Xception(width=0.125, middle_blocks=1), "exit", 411),
    ],
)
def test_fields_of_networks_are_what_the_gradient_reaches(network: nn.Module, layer: str, size: int) -> None:
    """The middle unit of a tall image that contains all it sees, and the first unit of a narrow one."""
    shape = (3, 768, 33)
    row = [row for row in receptive_fields(network, torch.empty(1, *shape)) if row.layer.startswith(layer)][-1]
    assert row.fields[0].size == row.fields[1].size == size
    for unit in ((row.map[0] // 2, 0), (0, 0)):
        assert claimed(row, shape, unit) == seen_by_gradient(network, layer, shape, unit)


def test_known_networks() -> None:
    with torch.device("meta"):
        vgg, alexnet = torchvision.models.vgg16(), torchvision.models.alexnet()
    rows = fields(vgg, 3, 224, 224)
    assert (rows["features.28"].fields[0].size, rows["features.30"].fields[0]) == (196, Field(32, -90, 212))
    assert rows["features.30"].fields[0].centre == 15.5
    assert fields(alexnet, 3, 224, 224)["features.12"].fields[0].size == 195
    size, jump = 1, 1
    for module in vgg.features:  # the closed formula for chains
        if isinstance(module, nn.Conv2d | nn.MaxPool2d):
            kernel, stride = (v if isinstance(v, int) else v[0] for v in (module.kernel_size, module.stride))
            size, jump = size + (kernel - 1) * jump, jump * stride
    assert rows["features.30"].fields[0].size == size
    original = fields(LeNet5Original(), 1, 28, 28)  # convolutions by slices, pooling by functions
    assert [original[name].fields[0].size for name in ("c1", "s2", "c3.six", "s4")] == [5, 6, 14, 16]
    assert "c5" not in original, "one place is no map"


def test_what_keeps_the_window() -> None:
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.GroupNorm(1, 4), nn.InstanceNorm2d(4), nn.LocalResponseNorm(3)]
    layers += [nn.ReLU(True), nn.PReLU(), nn.GELU(), nn.SELU(), nn.ChannelShuffle(2), nn.AdaptiveAvgPool2d(30)]
    layers += [nn.Sigmoid(), nn.Softplus(), nn.Conv2d(4, 4, 1)]
    rows = receptive_fields(nn.Sequential(*layers), torch.empty(1, 1, 32, 32))
    assert [row.fields for row in rows] == [(Field(1, 0, 3),) * 2] * len(layers)
    (row,) = receptive_fields(nn.MaxPool2d(3, 2, padding=1, dilation=4), torch.empty(1, 1, 32, 32))
    assert row.fields == (Field(2, -1, 9),) * 2


class Applied(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.last = function, nn.ReLU()

    def forward(self, input: Tensor) -> Tensor:
        return self.last(self.function(input))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[:, :, :4, :4] + F.avg_pool2d(x, 2),  # units at different distances
        lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),  # a gate that has seen everything
        lambda x: x + F.adaptive_avg_pool2d(x, 1),
        lambda x: F.adaptive_avg_pool2d(x, 3),  # windows of different sizes
        lambda x: x[:, :, torch.arange(7, -1, -1)],
        lambda x: x.softmax(3),
        lambda x: x.transpose(2, 3) @ x,
        lambda x: F.interpolate(x, scale_factor=2),
    ],
)
def test_what_has_no_window_is_left_out(function: Callable[[Tensor], Tensor]) -> None:
    assert receptive_fields(Applied(function), torch.empty(1, 2, 8, 8)) == []


def test_the_table_names_the_layers_that_change_something() -> None:
    rows = receptive_fields(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 1)), torch.empty(1, 1, 8, 8))
    assert [row.layer for row in rows] == ["0", "1", "2"]
    assert [row.layer for row in changes(rows)] == ["0"]


# Statistics -----------------------------------------------------------------------------------------------------------


class Twice(nn.Module):
    """One activation in two places."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.first, self.norm, self.relu = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(inplace)
        self.second, self.drop, self.last = nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 2)

    def forward(self, input: Tensor) -> Tensor:
        return self.last(self.drop(self.relu(self.second(self.relu(self.norm(self.first(input)))))))


@pytest.mark.parametrize("inplace", [False, True])
def test_statistics_by_hand(inplace: bool) -> None:
    torch.manual_seed(0)
    network = Twice(inplace).eval()
    x, target = torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 1, 0])
    with torch.no_grad():
        network.norm.bias.copy_(torch.tensor([0.0, -99.0, 0.3, -99.0]))  # two units that never fire
    rows = layer_statistics(network, lambda: F.cross_entropy(network(x), target))
    assert [row["layer"] for row in rows] == ["first", "norm", "relu", "second", "relu (2)", "last"]
    assert [row["kind"] for row in rows] == [
        "convolution, linear", "norm", "activation", "convolution, linear", "activation", "convolution, linear"
    ]  # fmt: skip
    assert all(parameter.grad is None for parameter in network.parameters())

    a = network.first(x)
    b = network.norm(a)
    c = b.clamp(min=0)
    d = network.second(c)
    e = d.clamp(min=0)
    values = [a, b, c, d, e, network.last(e)]
    weights = [network.first.weight, network.norm.weight, network.second.weight, network.last.weight]
    found = torch.autograd.grad(F.cross_entropy(values[-1], target), values + weights)
    for row, value, gradient in zip(rows, values, found, strict=False):
        assert row["shape"] == str(value.shape[1])
        assert math.isclose(row["mean"], value.mean().item(), rel_tol=1e-5)
        assert math.isclose(row["std"], value.std(correction=0).item(), rel_tol=1e-5)
        assert math.isclose(row["zeros"], (value == 0).sum().item() / value.numel(), rel_tol=1e-5)
        assert math.isclose(row["gradient_norm"], gradient.norm().item(), rel_tol=1e-5)
        assert math.isclose(row["gradient_std"], gradient.std(correction=0).item(), rel_tol=1e-5)
    assert [row["dead"] for row in rows[:4]] == [0, 0, 0.5, 0]
    with_weights = [row for row in rows if row["weight_norm"] is not None]
    for row, weight, gradient in zip(with_weights, weights, found[len(values) :], strict=True):
        assert math.isclose(row["weight_norm"], weight.norm().item(), rel_tol=1e-5)
        assert math.isclose(row["weight_gradient_norm"], gradient.norm().item(), rel_tol=1e-5)
        assert math.isclose(row["weight_gradient_std"], gradient.std(correction=0).item(), rel_tol=1e-5)
        assert math.isclose(row["weight_gradient_ratio"], (gradient.norm() / weight.norm()).item(), rel_tol=1e-5)
    assert set(rows[0]) == {"kind", *COLUMNS}


def test_a_dead_unit_of_a_map_is_a_channel() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), nn.ReLU())
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([1.0, -1.0, 0.0]).view(3, 1, 1, 1))
    x = torch.zeros(2, 1, 2, 2)
    x[0, 0, 0, 1] = 5.0  # one place of one example: enough to be alive
    row = layer_statistics(network, lambda: network(x).sum())[1]
    assert (row["dead"], row["zeros"]) == (pytest.approx(2 / 3), pytest.approx(23 / 24))


def test_data_that_a_network_cannot_read_leave_no_folder(tmp_path: Path, small_run: Any) -> None:
    out = f"out={tmp_path / 'seen'}"
    for words, sentence in {
        "model=mlp data=sunspots task=forecasting": "model=mlp cannot read data=sunspots: ",
        "model=mlp data=languages": "model=mlp: needs data.num_features, ",
        f"ckpt_path={small_run()[0]} data=earth_segmentation": "data=earth_segmentation is for task=segmentation",
    }.items():
        with pytest.raises(ZooError, match=sentence):
            main([*words.split(), out])
    assert not (tmp_path / "seen").exists()


def test_recurrent_layers_are_seen_and_a_unit_of_a_sequence_is_a_feature() -> None:
    network = RecurrentPredictor(cell="rnn_relu", num_features=2, num_classes=3, hidden=4)
    with torch.no_grad():
        for bias in (network.recurrent.bias_ih_l0, network.recurrent.bias_hh_l0):
            bias.copy_(torch.tensor([9.0, 9.0, 9.0, -99.0]))
    x, outputs = torch.rand(5, 6, 2), []
    for lengths in (None, torch.tensor([6, 3, 6, 6, 1])):
        rows = layer_statistics(network, lambda lengths=lengths: network(x, lengths).sum())
        assert [row["layer"] for row in rows] == ["recurrent", "head"]
        assert rows[0]["dead"] == 0.25
        assert rows[0]["weight_gradient_norm"] > 0
        outputs.append(rows[0]["mean"])
    assert outputs[0] == pytest.approx(network.recurrent(x)[0].mean().item())
    statistics_curves(rows, examples=5)


def test_watching_ends_with_the_block_also_after_an_error() -> None:
    network, seen = nn.Sequential(nn.Linear(2, 2), nn.Identity()), list[str]()

    def see(name: str, module: nn.Module, output: Tensor) -> None:
        seen.append(name)

    def run(width: int) -> None:
        with watch(network, see):
            network(torch.ones(1, width))

    with pytest.raises(RuntimeError):
        run(3)
    run(2)
    network(torch.ones(1, 2))
    assert seen == ["0"]


def test_an_untrained_batch_norm_gets_the_statistics_of_the_batch() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.ReLU(), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)
    ).eval()
    x = 5 + 3 * torch.randn(40, 1, 4, 4)
    take_statistics(network, [x])
    output = network(x)
    assert not any(module.training for module in network.modules())
    torch.testing.assert_close(output.mean((0, 2, 3)), torch.zeros(2), atol=2e-3, rtol=0)
    torch.testing.assert_close(output.std((0, 2, 3)), torch.ones(2), atol=2e-3, rtol=0)


# Grad-CAM -------------------------------------------------------------------------------------------------------------


class UpperLeft(nn.Module):
    """Class 1 is how bright the upper left quarter is, class 0 the negative; the rest of the image changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(1, 2, 3, padding=1, bias=False), nn.ReLU(inplace=True)

    def forward(self, input: Tensor) -> Tensor:
        maps = self.relu(self.conv(input))  # (B, 2, 8, 8)
        score = maps[:, 0, :4, :4].square().sum((1, 2)) + 2 * maps[:, 1, :4, :4].sum((1, 2))
        return torch.stack([-score, score], 1)


def test_grad_cam_by_hand() -> None:
    torch.manual_seed(0)
    network, x = UpperLeft(), torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        network.conv.weight.copy_(torch.rand(2, 1, 3, 3))
    found, logits = grad_cam(network, x, layer="conv", classes=torch.tensor([1, 1, 0]))
    a = F.conv2d(x, network.conv.weight.detach(), padding=1)  # positive: ReLU changes nothing
    quarter = torch.zeros(8, 8)
    quarter[:4, :4] = 1
    alpha = torch.stack([(2 * a[:, 0] * quarter).sum((1, 2)), (2 * quarter).sum().expand(3)], 1) / 64  # eq. 1
    expected = (alpha[:, :, None, None] * a).sum(1)  # eq. 2; for class 0 negative everywhere, so 0
    torch.testing.assert_close(found[:2], expected[:2])
    assert not found[2].any()
    torch.testing.assert_close(logits, network(x).detach())
    torch.testing.assert_close(grad_cam(network, x, layer="conv")[0], expected)  # by default the class predicted: 1


def test_grad_cam_lies_where_the_answer_comes_from() -> None:
    """Maps that are bright in one quarter each; the answer looks at the map of the upper left one."""
    network = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.ReLU(inplace=True), nn.AvgPool2d(8), nn.Flatten())
    head = nn.Linear(4, 2, bias=False)
    network.append(head).requires_grad_(False)  # frozen: the gradient must come all the same
    masks = torch.zeros(4, 1, 8, 8)
    for place in range(4):
        masks[place, 0, 4 * (place // 2) :, 4 * (place % 2) :][:4, :4] = 1
    head.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]]))
    network[0].weight.fill_(1.0)
    network[0].register_forward_hook(lambda module, inputs, output: output * masks.transpose(0, 1))
    found, _ = grad_cam(network, torch.rand(2, 1, 8, 8) + 0.1, layer="1")
    assert (found[:, :4, :4] > 0).all()
    assert found[:, :4, :4].sum() == found.sum()


def test_the_default_layer_is_the_last_with_a_map() -> None:
    small, x = ResNet(depth=18, width=0.125, image_size=32).eval(), torch.zeros(1, 3, 32, 32)
    assert default_layer(maps(small, x)) == "layer4"
    vgg = nn.Sequential(
        nn.Conv2d(3, 2, 3), nn.Sequential(nn.MaxPool2d(30), nn.AdaptiveAvgPool2d(7)), nn.Conv2d(2, 2, 7)
    )
    assert maps(vgg, x)["0"] == (30, 30)
    assert default_layer({name: size for name, size in maps(vgg, x).items() if name != "1"}) == "0"
    again = Applied(lambda x: x)
    again.function = nn.Sequential(again.last, nn.Conv2d(3, 3, 1))
    assert list(maps(again, x)) == ["function.1", "function", "last"], "in the order of the last calls"
    assert default_layer({"a": (1, 1), "b": (1, 1)}) == "b"
    assert default_layer({}) is None


def test_pictures() -> None:
    logits, batch = (
        torch.tensor([[2.0, 0.0], [2.0, 0.0]]),
        {"input": torch.rand(2, 1, 8, 8), "target": torch.tensor([0, 1])},
    )
    light = torch.zeros(2, 2, 2)
    light[0, 0, 0] = 3.0
    figure = grad_cam_grid(light, logits, batch, {"class_names": ["cat", "dog"]}, layer="conv")
    titles = [axes.get_title() for axes in figure.axes if axes.get_images()]
    assert titles == ["cat · 88%", "cat · 88%, is dog (no evidence)"]
    shown = figure.axes[0].get_images()[0].get_array()
    assert shown[:4, 9:13].mean() > 2 * shown[4:, 13:].mean(), "the upper left of the second picture is lit"
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    rows = layer_statistics(network, lambda: network(torch.rand(5, 3)).sum())
    figure = statistics_curves(rows, examples=5)
    lines = {line.get_label(): list(line.get_ydata()) for line in figure.axes[1].get_lines()}
    assert lines == {"convolution, linear": [rows[0]["std"], rows[2]["std"]], "activation": [rows[1]["std"]]}
    assert [text.get_text() for text in figure.axes[-1].get_xticklabels()] == ["0", "1", "2"]


# The verb -------------------------------------------------------------------------------------------------------------


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text))


def test_a_trained_run(small_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = small_run("trainer.max_epochs=1", "task.class_weights=balanced")
    assert main([f"ckpt_path={folder}", "n=3", "split=val"]) == 0
    said = capsys.readouterr().out
    assert "features.5  MaxPool2d    5×5     4     16  5.5" in said
    assert "layer features, 5×5" in said
    found = {file.name for file in (folder / "inspect").iterdir()}
    assert found == {"filters.png", "statistics.csv", "statistics.png", "receptive_field.csv", "grad_cam.png"}
    statistics = table(folder / "inspect" / "statistics.csv")
    network, _, _ = load(folder)
    norm = {row["layer"]: row["weight_norm"] for row in statistics}["features.0"]
    assert float(norm) == pytest.approx(network.features[0].weight.norm().item(), rel=1e-5)
    assert table(folder / "inspect" / "receptive_field.csv")[3]["field"] == "14"
    main([f"ckpt_path={folder / 'checkpoints' / 'last.ckpt'}", f"out={folder / 'again'}", "split=val", "seed=1"])
    again = table(folder / "again" / "statistics.csv")  # all 64 examples, in another order
    assert float(again[0]["mean"]) == pytest.approx(float(statistics[0]["mean"]), rel=1e-4)
    shown = ("again", "inspect")
    assert len({(folder / place / "grad_cam.png").read_bytes() for place in shown}) == 2, "other examples"
    main([f"ckpt_path={folder}", "data.test_size=7", "layer=features.0", f"out={folder / 'other'}"])
    said = capsys.readouterr().out
    assert "7 examples of test" in said
    assert "layer features.0, 28×28" in said
    with pytest.raises(ZooError, match=r"layer=feature\.3: .*Did you mean features\.3\?"):
        main([f"ckpt_path={folder}", "layer=feature.3"])
    with pytest.raises(ZooError, match="split=tset: this data has train, val, test"):
        main([f"ckpt_path={folder}", "split=tset"])
    with pytest.raises(ZooError, match="was trained with channels=1 and this data has channels=3"):
        main([f"ckpt_path={folder}", "data=earth"])
    checkpoint = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["zoo"]["config"]["model"]["_target_"] = "os.system"
    torch.save(checkpoint, folder / "other.ckpt")
    with pytest.raises(ZooError, match=r"names model\._target_=os\.system.*nothing was run"):
        main([f"ckpt_path={folder / 'other.ckpt'}"])
    with pytest.raises(ZooError, match="is a file"):
        main([f"ckpt_path={folder}", f"out={folder / 'config.yaml'}"])


def test_a_fresh_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["model=resnet20", "model.width=0.5", "data=synthetic", "data.channels=3", f"out={tmp_path / 'r'}", "n=2"]
    main(words)
    assert "layer3.2.relu2" in {row["layer"] for row in table(tmp_path / "r" / "receptive_field.csv")}
    statistics = {row["layer"]: row for row in table(tmp_path / "r" / "statistics.csv")}
    assert float(statistics["layer3.2.bn2"]["std"]) == pytest.approx(1, abs=0.01), "on the batch's own statistics"
    one, two = (fresh([*words[:-2], *more]).network.conv1.weight for more in ([], ["seed=1"]))
    assert not torch.equal(one, two)
    capsys.readouterr()
    main(["model=mlp", "data=synthetic", "data.kind=vectors", f"out={tmp_path / 'm'}"])
    said = capsys.readouterr().out
    assert {file.name for file in (tmp_path / "m").iterdir()} == {"statistics.csv", "statistics.png"}
    for file in ("filters.png", "receptive_field.csv", "grad_cam.png"):
        assert f"{file} is left out: " in said


@pytest.mark.parametrize(
    ("words", "left_out"),
    [
        (["model=autoencoder", "model.width=0.1"], ["grad_cam.png"]),
        (["model=vae", "model.hidden=[9]"], ["receptive_field.csv", "grad_cam.png"]),
        (["model=gan", "model.width=0.1"], ["receptive_field.csv", "grad_cam.png"]),
        (["model=diffusion", "model.width=4"], ["filters.png", "receptive_field.csv", "grad_cam.png"]),
    ],
)
def test_networks_that_make_pictures(words: list[str], left_out: list[str], tmp_path: Path, capsys: Any) -> None:
    assert main([*words, "data=synthetic", f"out={tmp_path}"]) == 0
    said = capsys.readouterr().out
    assert [name for name in ("filters.png", "receptive_field.csv", "grad_cam.png") if f"{name} is" in said] == left_out
    assert {"filters.png", "statistics.csv"} - set(left_out) <= {file.name for file in tmp_path.iterdir()}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "Which network?"),
        (["seed=1"], "Which network?"),
        (["ckpt_path=nowhere"], "There is no checkpoint nowhere."),
        (["ckpt_path=x", "splitt=val"], "beside ckpt_path may stand out, .* Did you mean split?"),
        (["ckpt_path=x", "model=lenet5"], "model=lenet5: beside ckpt_path"),
        (["model=lenet5", "layr=conv"], "there is no key layr. Did you mean layer?"),
        (["model=lenet6"], "Did you mean model=lenet5"),
        (["model=lenet5", "run_dir=x"], "out=… names the folder"),
        (["model=lenet5", "n=0"], "n=0: must be a whole number, at least 1."),
        (["model=lenet5", "n="], "n=: give n a value"),
        (["model=lenet5", "seed=-1"], "seed=-1: must be a whole number"),
        (["model=lenet5", "n=²"], "n=²: must be a whole number"),
        (["ckpt_path=x", "trust=yes"], "trust=yes: must be true or false"),
        ([str(Path(__file__).parent)], "Did you mean ckpt_path="),
        (["model=mlp", "data=synthetic", "data.kind=regression"], "class_names is missing"),
    ],
)
def test_mistakes(words: list[str], sentence: str) -> None:
    with pytest.raises(ZooError, match=sentence.replace("?", r"\?")):
        main(words)


def test_the_seed_of_an_experiment_stays_unless_one_is_given() -> None:
    assert parse(["model=lenet5"])[1] == ["model=lenet5"]
    assert parse(["seed=3", "model=lenet5"])[1] == ["model=lenet5", "seed=3"]
