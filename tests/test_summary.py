"""Counting parameters and multiply-adds, against numbers worked out by hand and torchvision's own."""

import pytest
import torch
import torchvision
from torch import nn

from zoo.summary import summarize


def hand_made() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),  # 6·2·9 + 6 weights; 8·8 → 4·4
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 2, 2, stride=2, bias=False),  # 6·2·4 weights; 4·4 → 8·8
        nn.Flatten(),
        nn.Linear(128, 5),
    )


def test_hand_made_network() -> None:
    summary = summarize(hand_made(), torch.zeros(1, 4, 8, 8))
    conv, norm, relu, up, flat, linear = summary.layers
    assert [layer.output_shape for layer in summary.layers] == [(1, 6, 4, 4)] * 3 + [(1, 2, 8, 8), (1, 128), (1, 5)]
    assert [layer.trainable for layer in summary.layers] == [6 * 2 * 9 + 6, 12, 0, 6 * 2 * 4, 0, 128 * 5 + 5]
    assert conv.multiply_adds == 16 * 6 * 2 * 9
    assert up.multiply_adds == 16 * 6 * 2 * 4  # every input meets every weight once
    assert linear.multiply_adds == 128 * 5
    assert norm.multiply_adds == relu.multiply_adds == flat.multiply_adds == 0
    assert (conv.name, conv.type) == ("0", "Conv2d")
    assert summary.parameters == 114 + 12 + 48 + 645
    assert summary.multiply_adds == 1728 + 768 + 640


def test_transposed_convolution_counts_as_the_convolution_it_transposes() -> None:
    """A transposed convolution does the arithmetic of the convolution it transposes."""
    up = summarize(nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1, groups=2), torch.zeros(1, 8, 5, 5))
    down = summarize(nn.Conv2d(4, 8, 4, stride=2, padding=1, groups=2), torch.zeros(1, 4, 10, 10))
    assert up.layers[0].output_shape == (1, 4, 10, 10)
    assert up.multiply_adds == down.multiply_adds


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "googlenet"])
def test_agrees_with_what_torchvision_states(name: str) -> None:
    meta = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].meta
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    with torch.device("meta"):
        network = torchvision.models.get_model(name, **options)
    summary = summarize(network, torch.zeros(1, 3, 224, 224))
    assert summary.parameters == meta["num_params"]
    assert round(summary.multiply_adds / 1e9, 3) == meta["_ops"]


def test_resnet18_to_the_last_digit() -> None:
    with torch.device("meta"):
        network = torchvision.models.resnet18()
    summary = summarize(network, torch.zeros(1, 3, 224, 224))
    assert (summary.parameters, summary.multiply_adds) == (11_689_512, 1_814_073_344)


def test_the_network_is_left_as_it_was() -> None:
    network = hand_made().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    summarize(network, torch.ones(1, 4, 8, 8))
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(p.device.type == "cpu" for p in network.parameters())
    assert network.training
    assert not any(module._forward_hooks for module in network.modules())


def test_shared_and_frozen_parameters() -> None:
    first, second = nn.Linear(7, 7, bias=False), nn.Linear(7, 7, bias=False)
    second.weight = first.weight
    last = nn.Linear(7, 2).requires_grad_(False)
    summary = summarize(nn.Sequential(first, second, first, last), torch.zeros(1, 7))
    assert (summary.trainable, summary.frozen) == (49, 16)
    assert summary.parameters == 65
    assert summary.multiply_adds == 3 * 49 + 14  # the layer called twice counts twice
    assert "16 frozen" in summary.table()


@pytest.mark.parametrize(("recurrent", "gates"), [(nn.RNN, 1), (nn.GRU, 3), (nn.LSTM, 4)])
def test_recurrent_layers_do_a_step_s_work_at_every_step(recurrent: type[nn.RNNBase], gates: int) -> None:
    """Two layers, both directions, as linear layers would do it: inputs and states to gates, in each of 5 steps."""
    network = recurrent(3, 4, 2, bidirectional=True, batch_first=True)
    summary = summarize(network, torch.zeros(1, 5, 3))
    step = 2 * gates * 4 * ((3 + 4) + (2 * 4 + 4))
    assert summary.multiply_adds == 5 * step
    assert summary.parameters == step + 2 * 2 * 2 * gates * 4  # two bias vectors for each layer and direction


def test_recurrent_layers_count_the_steps_of_packed_sequences() -> None:
    class Packs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.GRU(3, 4)

        def forward(self, x: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
            return self.body(nn.utils.rnn.pack_padded_sequence(x, length))[1]

    assert summarize(Packs(), torch.zeros(5, 1, 3), torch.tensor([2])).multiply_adds == 2 * 3 * 4 * (3 + 4)
    assert summarize(nn.LSTMCell(3, 4), torch.zeros(1, 3)).multiply_adds == 4 * 4 * (3 + 4)


def test_spectral_norm_does_not_hide_a_layer() -> None:
    summary = summarize(nn.utils.parametrizations.spectral_norm(nn.Linear(6, 5)), torch.zeros(1, 6))
    assert (summary.parameters, summary.multiply_adds) == (35, 30)


class OddOutputs(nn.Module):
    """A parameter of its own beside a child, a head used in training only, an optional argument, outputs in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))
        self.body = nn.LSTM(3, 4, batch_first=True)
        self.aux = nn.Linear(4, 9)

    def forward(self, x: torch.Tensor, state: None) -> dict[str, torch.Tensor]:
        y, _ = self.body(x * self.scale, state)
        return {"logits": y, "aux": self.aux(y)} if self.training else {"logits": y}


def test_odd_outputs() -> None:
    summary = summarize(OddOutputs(), torch.zeros(1, 5, 3), None)
    network, body, aux = summary.layers
    assert (network.name, network.trainable, network.output_shape) == ("", 3, (1, 5, 4))
    assert body.output_shape == (1, 5, 4)
    assert (aux.output_shape, aux.trainable, aux.multiply_adds) == (None, 45, 0)
    assert "not called" in summary.table()


def test_table() -> None:
    lines = summarize(hand_made(), torch.zeros(1, 4, 8, 8)).table().splitlines()
    assert lines[0].split() == ["layer", "type", "output", "parameters", "multiply-adds"]
    assert lines[2].split() == ["0", "Conv2d", "6×4×4", "114", "1,728"]
    assert lines[-1].split() == ["total", "819", "3,136"]
    assert len(lines) == 6 + 4
    assert len({len(line) for line in lines}) == 1


def test_lenet5() -> None:
    lenet = pytest.importorskip("zoo.models.lenet")
    summary = summarize(lenet.LeNet5(), torch.zeros(1, 1, 28, 28))
    assert (summary.parameters, summary.multiply_adds) == (61_706, 416_520)
