"""Swaps on built networks: what is replaced, by what, what stays, and what is refused."""

import copy
from collections.abc import Callable
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import DropBlock2d, StochasticDepth

from zoo.models.alexnet import AlexNet, AlexNetOriginal
from zoo.models.inception_v1 import InceptionV1
from zoo.models.lenet import LeNet5, LeNet5Original, Squash
from zoo.models.mlp import MLP, ScaledTanh
from zoo.models.recurrent import RecurrentLanguageModel
from zoo.models.resnet import ResNet
from zoo.models.resnet_cifar import ResNetCIFAR
from zoo.models.wide_resnet import WideResNet
from zoo.models.xception import Xception
from zoo.swaps import ACTIVATIONS, Activation, DropBlock, Norm, swap


def resnet(**options) -> ResNet:
    return ResNet(depth=18, image_size=32, width=0.125, num_classes=5, **options)


def count(network: nn.Module, kind: type) -> int:
    return sum(type(module) is kind for module in network.modules())


def images(size: int = 32) -> Tensor:
    return torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))


def runs(network: nn.Module, inputs: Tensor) -> None:
    """The network trains: an output and a gradient for every parameter; it copies and loads its own state."""
    output = network.train()(inputs)
    outputs = [output["logits"], *output["aux"]] if isinstance(output, dict) else [output]
    sum(logits.square().sum() for logits in outputs).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
    copy.deepcopy(network).load_state_dict(network.state_dict())


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet": (resnet, 32),
    "resnet_cifar": (lambda: ResNetCIFAR(depth=20), 32),
    "wide_resnet": (lambda: WideResNet(depth=10, widen_factor=1), 32),
    "xception": (lambda: Xception(image_size=32, width=0.0625, middle_blocks=1), 32),
    "inception_v1": (lambda: InceptionV1(image_size=128, width=0.125, num_classes=5), 128),
    "alexnet": (lambda: AlexNetOriginal(image_size=67, width=0.0625, num_classes=5), 67),
}
EVERY = pytest.mark.parametrize("name", NETWORKS)


def test_nothing_asked_changes_nothing() -> None:
    network = resnet()
    modules = list(network.modules())
    assert swap(network) is network
    assert all(new is old for new, old in zip(network.modules(), modules, strict=True))


# Activation ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", get_args(Activation))
def test_every_activation(activation: Activation) -> None:
    network = resnet()
    keys = list(network.state_dict())
    relus = count(network, nn.ReLU)
    swap(network, activation=activation)
    assert count(network, ACTIVATIONS[activation]) == relus == 17
    new = [key for key in network.state_dict() if key not in keys]
    assert len(new) == (17 if activation == "prelu" else 0)
    assert [key for key in network.state_dict() if key in keys] == keys
    runs(network, images())


def test_activations_are_those_that_the_swap_offers() -> None:
    assert set(get_args(Activation)) == set(ACTIVATIONS)
    x = torch.linspace(-3, 3, 50)
    for activation, expected in {
        "tanh": torch.tanh(x),
        "scaled_tanh": 1.7159 * torch.tanh(2 * x / 3),
        "softplus": torch.log1p(x.exp()),
        "prelu": torch.where(x > 0, x, 0.25 * x),
        "silu": x * torch.sigmoid(x),
    }.items():
        torch.testing.assert_close(swap(nn.Sequential(nn.ReLU()), activation=activation)(x), expected)


@pytest.mark.parametrize("old", [*ACTIVATIONS.values(), Squash, nn.ReLU6, nn.CELU, nn.Mish, nn.Hardswish, nn.Softsign])
def test_every_activation_is_found(old: type[nn.Module]) -> None:
    assert type(swap(nn.Sequential(old()), activation="leaky_relu")[0]) is nn.LeakyReLU


def test_a_shared_activation_is_replaced_by_one_object_everywhere() -> None:
    relu = nn.ReLU(inplace=True)
    network = nn.Sequential(nn.Linear(3, 4), relu, nn.Sequential(nn.Linear(4, 4), relu), relu)
    swap(network, activation="prelu")
    assert isinstance(network[1], nn.PReLU)
    assert network[1] is network[2][1] is network[3]
    assert sum(parameter.numel() for parameter in network.parameters()) == 16 + 20 + 1


def test_beside_rectifiers_sigmoid_and_tanh_are_gates_and_stay() -> None:
    network = swap(nn.Sequential(nn.ReLU(), nn.Sigmoid(), nn.Tanh()), activation="gelu")
    assert [type(module) for module in network] == [nn.GELU, nn.Sigmoid, nn.Tanh]
    assert count(swap(LeNet5(activation="tanh"), activation="relu"), nn.ReLU) == 4
    original = swap(LeNet5Original(), activation="relu")
    assert isinstance(original.squash, nn.ReLU)
    assert count(original, Squash) == 0
    assert count(swap(MLP(activation="scaled_tanh"), activation="selu"), ScaledTanh) == 0


def test_selu_brings_alpha_dropout_and_takes_it_away() -> None:
    network = swap(AlexNet(image_size=32, width=0.125, dropout=0.3), activation="selu")
    assert (count(network, nn.Dropout), count(network, nn.AlphaDropout)) == (0, 2)
    assert {module.p for module in network.modules() if isinstance(module, nn.AlphaDropout)} == {0.3}
    runs(network, images())
    swap(network, activation="relu")
    assert (count(network, nn.Dropout), count(network, nn.AlphaDropout)) == (2, 0)
    plain = swap(AlexNet(image_size=32, width=0.125), activation="selu", dropout_kind="plain")
    assert (count(plain, nn.Dropout), count(plain, nn.AlphaDropout)) == (2, 0)


# Normalisation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", get_args(Norm))
@EVERY
def test_every_norm_on_every_network(name: str, norm: Norm) -> None:
    make, size = NETWORKS[name]
    network = swap(make(), norm=norm)
    classes = {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d, "none": nn.Identity}
    assert count(network, classes.get(norm, nn.GroupNorm)) >= 2
    assert count(network, nn.LocalResponseNorm) == 0
    assert norm == "batch" or count(network, nn.BatchNorm2d) == 0
    runs(network, images(size))


def test_affine_values_eps_and_keys_are_those_of_the_old_norm() -> None:
    network = resnet(zero_init_residual=True)
    network.bn1.eps = 0.01
    with torch.no_grad():
        network.bn1.weight.fill_(3.0)
        network.bn1.bias.fill_(-1.0)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    for norm in ("group", "instance", "layer", "batch"):
        swap(network, norm=norm)
        state = network.state_dict()
        assert network.bn1.eps == 0.01
        assert (network.layer1[0].bn2.weight == 0).all()
        for key, value in before.items():
            if "running" not in key and "tracked" not in key:
                assert torch.equal(state[key], value), (norm, key)
    assert state.keys() == before.keys()


def test_a_norm_without_gamma_gets_one() -> None:
    for norm in ("batch", "instance", "group"):
        network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.InstanceNorm2d(4), nn.LocalResponseNorm(5))
        swap(network, norm=norm)
        for place in (1, 2):
            assert torch.equal(network[place].weight, torch.ones(4))
            assert torch.equal(network[place].bias, torch.zeros(4))


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(64, 32), (512, 32), (96, 32), (48, 24), (32, 16), (16, 8), (12, 6), (7, 1), (80, 20), (1, 1)],
)
def test_groups(channels: int, groups: int) -> None:
    assert swap(nn.Sequential(nn.BatchNorm2d(channels)), norm="group")[0].num_groups == groups


def test_layer_norm_of_maps_is_over_channels_and_pixels() -> None:
    inputs = torch.randn(2, 6, 4, 5)
    network = swap(nn.Sequential(nn.BatchNorm2d(6)), norm="layer")
    torch.testing.assert_close(network(inputs), F.layer_norm(inputs, (6, 4, 5)))
    vectors = torch.randn(3, 10)
    torch.testing.assert_close(
        swap(nn.Sequential(nn.BatchNorm1d(10)), norm="layer")(vectors), F.layer_norm(vectors, (10,))
    )


def test_instance_norm_of_maps() -> None:
    inputs = torch.randn(2, 6, 4, 5)
    network = swap(nn.Sequential(nn.BatchNorm2d(6)), norm="instance").eval()
    mean, var = inputs.mean((2, 3), keepdim=True), inputs.var((2, 3), keepdim=True, correction=0)
    torch.testing.assert_close(network(inputs), (inputs - mean) / (var + 1e-5).sqrt())


def test_batch_norms_stay_under_batch() -> None:
    network = resnet()
    old = network.bn1
    assert swap(network, norm="batch").bn1 is old


def test_without_norms_convolutions_have_biases_and_nothing_is_in_place() -> None:
    network = swap(resnet(), norm="none")
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            assert torch.equal(module.bias, torch.zeros(module.out_channels))
        assert not getattr(module, "inplace", False)
    conv = network.conv1
    kept = swap(nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)), norm="group")
    assert conv.bias.requires_grad
    assert kept[0].bias is None


def test_without_norms_a_shortcut_is_not_overwritten_by_the_branch() -> None:
    network = swap(WideResNet(depth=10, widen_factor=1), norm="none").eval()
    block = network.layer1[0]  # as wide as its input: the shortcut is the input itself
    seen = torch.randn(2, 16, 8, 8)
    expected = seen + block.conv2(block.conv1(seen.relu()).relu())
    torch.testing.assert_close(block(seen.clone()), expected)


def test_layer_norms_and_response_norms() -> None:
    mlp = MLP(norm="layer")
    assert count(swap(mlp, norm="layer"), nn.LayerNorm) == 1
    with pytest.raises(ValueError, match=r"^swap.norm=batch: must be layer or none for nn.LayerNorm"):
        swap(mlp, norm="batch")
    assert count(swap(mlp, norm="none"), nn.LayerNorm) == 0
    with pytest.raises(ValueError, match=r"^swap.norm=batch: must be none for a response normalisation before"):
        swap(nn.Sequential(nn.LocalResponseNorm(5), nn.Conv2d(3, 4, 1)), norm="batch")


@pytest.mark.parametrize("norm", ["group", "instance"])
def test_vectors_have_no_maps(norm: Norm) -> None:
    with pytest.raises(ValueError, match=rf"^swap.norm={norm}: must be batch, layer or none for vectors"):
        swap(MLP(norm="batch"), norm=norm)


# Dropout and noise --------------------------------------------------------------------------------------------------


def test_rate_of_every_dropout() -> None:
    network = swap(AlexNet(image_size=32, width=0.125), dropout=0.1)
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout)] == [0.1, 0.1]


def test_spatial_dropout_before_convolutions_only() -> None:
    network = WideResNet(depth=10, widen_factor=1, dropout=0.4)
    swap(network, dropout_kind="spatial")
    assert (count(network, nn.Dropout), count(network, nn.Dropout2d)) == (0, 3)
    assert network.layer1[0].dropout.p == 0.4
    runs(network, images())
    swap(network, dropout_kind="plain")
    assert (count(network, nn.Dropout), count(network, nn.Dropout2d)) == (3, 0)
    assert network.layer1[0].dropout.p == 0.4
    assert swap(network, dropout_kind="spatial", dropout=0.2).layer1[0].dropout.p == 0.2
    mixed = swap(
        nn.Sequential(nn.Dropout(), nn.ReLU(), nn.Conv2d(3, 4, 1), nn.Dropout(), nn.Linear(4, 4), nn.Dropout()),
        dropout_kind="spatial",
    )
    assert [type(mixed[place]) for place in (0, 3, 5)] == [nn.Dropout2d, nn.Dropout, nn.Dropout]


def test_stochastic_depth_rises_linearly() -> None:
    network = resnet()
    keys = list(network.state_dict())
    swap(network, stochastic_depth=0.4)
    places = [module for module in network.modules() if isinstance(module, StochasticDepth)]
    assert [place.p for place in places] == pytest.approx([0.05 * block for block in range(1, 9)])
    assert list(network.state_dict()) == keys
    runs(network, images())


def test_stochastic_depth_drops_examples_in_training_only() -> None:
    place = swap(resnet(), stochastic_depth=0.5).layer4[1].drop_path
    torch.manual_seed(0)
    out = place.train()(torch.ones(4000, 2, 1, 1)).flatten(1)
    assert torch.equal(out[:, 0], out[:, 1])
    assert set(out.unique().tolist()) == {0.0, 2.0}
    assert out.mean().item() == pytest.approx(1, abs=0.1)
    assert torch.equal(place.eval()(torch.ones(4, 2)), torch.ones(4, 2))


@EVERY
def test_drop_block_in_the_last_two_stages(name: str) -> None:
    make, size = NETWORKS[name]
    if name in ("inception_v1", "alexnet"):
        with pytest.raises(ValueError, match=r"^swap.drop_block=0.1: the network has no residual branches"):
            swap(make(), drop_block=0.1)
        return
    network = swap(make(), drop_block=0.1, drop_block_size=5, stochastic_depth=0.2)
    places = [module for module, part in network.named_modules() if isinstance(part, DropBlock)]
    stages = {place.split(".")[0] for place in places}
    last = {"resnet": {"layer3", "layer4"}, "xception": {"middle", "exit"}}
    assert stages == last.get(name, {"layer2", "layer3"})
    assert sum(isinstance(module, StochasticDepth) for module in network.modules()) > len(places)
    runs(network, images(size))


@pytest.mark.parametrize(("size", "block"), [((9, 9), 3), ((8, 12), 5), ((5, 5), 7), ((12, 5), 7), ((7, 7), 1)])
def test_drop_block_is_torchvisions_for_odd_sizes(size: tuple[int, int], block: int) -> None:
    inputs = torch.randn(3, 4, *size)
    torch.manual_seed(1)
    ours = DropBlock(p=0.3, block_size=block)(inputs)
    torch.manual_seed(1)
    torch.testing.assert_close(ours, DropBlock2d(0.3, block)(inputs))


def test_drop_block_share_mean_and_even_blocks() -> None:
    torch.manual_seed(0)
    layer = DropBlock(p=0.1, block_size=4)
    out = layer(torch.ones(64, 64, 16, 16))
    assert (out == 0).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert out.mean().item() == pytest.approx(1, abs=1e-4)
    one = layer(torch.ones(2000, 1, 4, 4)).flatten(1)  # the block covers the map: all or nothing
    assert torch.equal(one.amax(1), one.amin(1))
    assert (one[:, 0] == 0).float().mean().item() == pytest.approx(0.1, abs=0.03)
    half = layer(torch.ones(64, 64, 16, 16, dtype=torch.bfloat16))
    assert half.dtype == torch.bfloat16
    assert half.float().mean().item() == pytest.approx(1, abs=0.01)
    assert torch.equal(DropBlock(p=0.999, block_size=2)(torch.ones(1, 1, 2, 2)).isnan(), torch.zeros(1, 1, 2, 2) > 0)
    assert layer.eval()(out) is out


# What every swap keeps, and refusals --------------------------------------------------------------------------------

ALL = {"activation": "prelu", "norm": "instance", "dropout": 0.3, "dropout_kind": "spatial", "stochastic_depth": 0.1}


def test_device_type_and_mode_are_kept() -> None:
    for device, dtype in (("meta", torch.float32), ("cpu", torch.float64), ("cpu", torch.bfloat16)):
        for norm in ("group", "instance", "none", "batch"):
            network = swap(WideResNet(depth=10, widen_factor=1), norm="layer").to(device, dtype).eval()
            network.layer1.train()
            swap(network, **{**ALL, "norm": norm}, drop_block=0.1)
            for part in (*network.parameters(), *network.buffers()):
                assert part.device.type == device
                assert part.dtype in (dtype, torch.int64)
            for name, module in network.named_modules():
                assert module.training == name.startswith("layer1"), name
            assert network(torch.randn(2, 3, 32, 32, device=device, dtype=dtype)).dtype == dtype


def test_a_norm_keeps_its_own_type_in_a_network_of_another() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1, dtype=torch.bfloat16), nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    swap(network, norm="group")
    assert network[1].weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("network", "arguments", "message"),
    [
        (MLP, {"norm": "group"}, "swap.norm=group: the network has no normalisation layer"),
        (MLP, {"dropout": 0.5}, "swap.dropout=0.5: the network has no dropout layer"),
        (MLP, {"dropout_kind": "plain"}, "swap.dropout_kind=plain: the network has no dropout layer"),
        (AlexNet, {"dropout_kind": "spatial"}, "swap.dropout_kind=spatial: the network has no dropout before a conv"),
        (AlexNet, {"stochastic_depth": 0.5}, "swap.stochastic_depth=0.5: the network has no residual branches"),
        (lambda: MLP(hidden=[]), {"activation": "relu"}, "swap.activation=relu: the network has no activation"),
        (lambda: ResNetCIFAR(residual=False), {"drop_block": 0.1}, "swap.drop_block=0.1: the network has no residual"),
        (MLP, {"activation": "swish"}, "swap.activation=swish: must be one of relu, leaky_relu"),
        (MLP, {"norm": "weight"}, "swap.norm=weight: must be one of batch, layer, instance, group, none"),
        (MLP, {"dropout_kind": "alpha"}, "swap.dropout_kind=alpha: must be one of plain, spatial"),
        (MLP, {"dropout": 1.0}, "swap.dropout=1.0: must be at least 0 and below 1"),
        (MLP, {"stochastic_depth": -0.1}, "swap.stochastic_depth=-0.1: must be at least 0 and below 1"),
        (MLP, {"drop_block": 1.5}, "swap.drop_block=1.5: must be at least 0 and below 1"),
        (MLP, {"drop_block_size": 0}, "swap.drop_block_size=0: must be at least 1"),
    ],
)
def test_refusals(network: Callable[[], nn.Module], arguments: dict, message: str) -> None:
    with torch.device("meta"):
        built = network()
    with pytest.raises(ValueError, match=f"^{message}"):
        swap(built, **arguments)


def test_dropout_reaches_between_the_layers_of_a_recurrent_network() -> None:
    network = RecurrentLanguageModel(cell="lstm", num_tokens=5, hidden=4, layers=2)
    swap(network, dropout=0.3)
    assert network.recurrent.dropout == 0.3
    assert network.dropout.p == 0.3
