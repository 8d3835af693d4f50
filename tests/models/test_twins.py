"""Twins, written as functions, of the networks that no other package has: LeNet-5, AlexNet of 2012, GoogLeNet's paper,
perceptrons, and recurrent networks unrolled by hand.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from parity import Functional, differences
from test_inception_v1 import by_hand
from torch import Tensor, nn

from zoo.models.alexnet import AlexNetOriginal
from zoo.models.autoencoder import EncoderClassifier
from zoo.models.inception_v1 import InceptionV1
from zoo.models.lenet import LeNet5, LeNet5Original
from zoo.models.linear import SoftmaxRegression
from zoo.models.mlp import MLP
from zoo.models.recurrent import RecurrentLanguageModel, RecurrentPredictor

HERE = "written as functions in tests/models/test_twins.py"
# Which maps of S2 each of the 16 maps of C3 sees, in the order of its kernels: the columns of the paper's table I.
C3 = ["012", "123", "234", "345", "450", "501", "0123", "1234", "2345", "3450", "4501", "5012", "0134", "1245"]
C3 += ["0235", "012345"]


def lenet5(tensors: list[Tensor], images: Tensor, training: bool) -> Tensor:
    w1, b1, w2, b2, w3, b3, w4, b4, w5, b5 = tensors
    x = F.pad(images, (2, 2, 2, 2))
    for weight, bias in ((w1, b1), (w2, b2)):
        x = F.conv2d(x, weight, bias).clamp(min=0).unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax((3, 5))
    x = (x.flatten(1) @ w3.T + b3).clamp(min=0)
    return (x @ w4.T + b4).clamp(min=0) @ w5.T + b5


def lenet5_1998(tensors: list[Tensor], images: Tensor, training: bool) -> Tensor:
    """C3 map by map; in the state dict its maps of three, of four and of six inputs are three convolutions."""
    w1, b1, gain2, bias2, *c3, gain4, bias4, w5, b5, w6, b6, centres = tensors

    def squash(x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(2 * x / 3)

    def subsample(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        return squash((x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) * gain + bias)

    padded = torch.cat([images[..., :1], images[..., :1], images, images[..., -1:], images[..., -1:]], 3)
    padded = torch.cat([padded[..., :1, :], padded[..., :1, :], padded, padded[..., -1:, :], padded[..., -1:, :]], 2)
    x = subsample(squash(F.conv2d(padded, w1, b1)), gain2, bias2)
    kernels = [kernel for weight in c3[::2] for kernel in weight]
    biases = [bias for group in c3[1::2] for bias in group]
    maps = []
    for seen, kernel, bias in zip(C3, kernels, biases, strict=True):
        maps.append(F.conv2d(x[:, [int(number) for number in seen]], kernel[None], bias[None]))
    x = subsample(squash(torch.cat(maps, 1)), gain4, bias4)
    x = squash(x.flatten(1) @ w5.flatten(1).T + b5)
    x = squash(x @ w6.T + b6)
    return -torch.stack([((x - centre) ** 2).sum(1) for centre in centres], 1)


def perceptron(tensors: list[Tensor], images: Tensor, training: bool) -> Tensor:
    x = images.flatten(1)
    for place in range(0, len(tensors), 2):
        x = (x.clamp(min=0) if place else x) @ tensors[place].T + tensors[place + 1]
    return x


def alexnet_2012(tensors: list[Tensor], images: Tensor, training: bool) -> Tensor:
    """Tower by tower, the response normalisation map by map (sections 3.3 and 3.5 of the paper)."""
    w1, b1, w2, b2, w3, b3, w4, b4, w5, b5, w6, b6, w7, b7, w8, b8 = tensors

    def in_towers(x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
        halves = zip(x.chunk(2, 1), weight.chunk(2), bias.chunk(2), strict=True)
        return torch.cat([F.conv2d(one, w, b, padding=padding).clamp(min=0) for one, w, b in halves], 1)

    def normalise_and_pool(x: Tensor) -> Tensor:
        squares = [sum((x[:, j] ** 2 for j in range(max(0, i - 2), min(x.shape[1], i + 3))), torch.zeros_like(x[:, 0]))
                   for i in range(x.shape[1])]  # fmt: skip
        return (x / (2 + 1e-4 * torch.stack(squares, 1)) ** 0.75).unfold(2, 3, 2).unfold(3, 3, 2).amax((4, 5))

    x = normalise_and_pool(F.conv2d(images, w1, b1, stride=4, padding=2).clamp(min=0))
    x = normalise_and_pool(in_towers(x, w2, b2, 2))
    x = F.conv2d(x, w3, b3, padding=1).clamp(min=0)
    x = in_towers(in_towers(x, w4, b4, 1), w5, b5, 1).unfold(2, 3, 2).unfold(3, 3, 2).amax((4, 5))
    x = (x.flatten(1) @ w6.T + b6).clamp(min=0)
    return (x @ w7.T + b7).clamp(min=0) @ w8.T + b8


def encoder_classifier(tensors: list[Tensor], images: Tensor, training: bool) -> Tensor:
    w1, b1, w2, b2, w3, b3, w4, b4 = tensors
    x = F.conv2d(images, w1, b1, stride=2, padding=1).clamp(min=0)
    x = F.conv2d(x, w2, b2, stride=2, padding=1).clamp(min=0)
    return (x.flatten(1) @ w3.T + b3) @ w4.T + b4


@pytest.mark.parametrize(
    ("name", "build", "twin", "options"),
    [
        ("lenet5", LeNet5, lenet5, {}),
        ("lenet5_1998", LeNet5Original, lenet5_1998, {}),
        ("mlp", MLP, perceptron, {}),
        ("softmax_regression", SoftmaxRegression, perceptron, {}),
        ("encoder_classifier", EncoderClassifier, encoder_classifier, {}),
        (
            "alexnet_2012 ×1/8",
            lambda: AlexNetOriginal(image_size=67, width=1 / 8, num_classes=10),
            alexnet_2012,
            {"image_size": 67, "channels": 3},
        ),
    ],
)
def test_classifier_equals_its_twin(
    name: str,
    build: Callable[[], nn.Module],
    twin: Callable[..., Tensor],
    options: dict[str, int],
    certify: Callable[..., None],
) -> None:
    torch.manual_seed(0)
    ours = build()
    if name.startswith("alexnet"):  # from its own first weights, N(0, 0.01²), hardly anything arrives at the end
        for parameter in ours.parameters():
            nn.init.normal_(parameter, 0, 0.1)
    sizes = {"image_size": 28, "channels": 1, "num_classes": 10} | options
    certify(name, ours, Functional(ours, twin), source=HERE, rename=Functional.rename, **sizes)


def test_the_first_inception_of_the_paper(certify: Callable[..., None]) -> None:
    torch.manual_seed(0)
    ours = InceptionV1(width=1 / 8, num_classes=10, dropout=0.0, aux_dropout=0.0)
    names = list(ours.state_dict())

    def twin(tensors: list[Tensor], images: Tensor, training: bool) -> Any:
        logits, *heads = by_hand(dict(zip(names, tensors, strict=True)), images)
        return {"logits": logits, "aux": heads} if training else logits

    source = "written as functions in tests/models/test_inception_v1.py"
    sizes = {"image_size": 224, "num_classes": 10}
    certify("inception_v1 ×1/8", ours, Functional(ours, twin), source=source, rename=Functional.rename, **sizes)


# Recurrent networks ---------------------------------------------------------------------------------------------------


def unroll(cell: str, weights: list[Tensor], inputs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The hidden state after each step of one sequence, and the last state: the equations, step by step."""
    w, u, b, c = weights
    size = u.shape[1]
    h = memory = inputs[0].new_zeros(size)
    hidden = []
    for x in inputs:
        given, kept = w @ x + b, u @ h + c
        if cell == "lstm":
            total = given + kept
            i, f, o = (1 / (1 + (-total[gate * size : (gate + 1) * size]).exp()) for gate in (0, 1, 3))
            memory = f * memory + i * total[2 * size : 3 * size].tanh()
            h = o * memory.tanh()
        elif cell == "gru":
            r, z = (1 / (1 + (-(given + kept)[gate * size : (gate + 1) * size]).exp()) for gate in (0, 1))
            h = z * h + (1 - z) * (given[2 * size :] + r * kept[2 * size :]).tanh()
        else:
            h = (given + kept).tanh() if cell == "rnn" else (given + kept).clamp(min=0)
        hidden.append(h)
    return hidden, [h, memory] if cell == "lstm" else [h]


def scatter(network: nn.Module) -> dict[str, Tensor]:
    """The parameters, of which none is 0 any more."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return dict(network.named_parameters())


def layer(state: dict[str, Tensor], end: str = "") -> list[Tensor]:
    return [state[f"recurrent.{kind}_l0{end}"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]


UNROLLED = "equations step by step in tests/models/test_twins.py"


@pytest.mark.parametrize(("name", "cell"), [("rnn", "rnn"), ("irnn", "rnn_relu"), ("gru", "gru"), ("lstm", "lstm")])
def test_language_model_equals_its_twin(name: str, cell: str, certify_row: Callable[..., None]) -> None:
    network = RecurrentLanguageModel(cell=cell, num_tokens=11, embedding=5, hidden=6).double()
    state = scatter(network)
    tokens = torch.randint(11, (3, 7), generator=torch.Generator().manual_seed(0))
    logits, ends = [], []
    for sentence in tokens:
        hidden, last = unroll(cell, layer(state), [state["embedding.weight"][token] for token in sentence])
        logits.append(torch.stack([state["head.weight"] @ h + state["head.bias"] for h in hidden]))
        ends.append(last)
    theirs = [torch.stack(logits), *(torch.stack(part)[None] for part in zip(*ends, strict=True))]
    found, carried = network(tokens)
    ours = [found, *(carried if isinstance(carried, tuple) else (carried,))]
    losses = [
        F.cross_entropy(each[0].flatten(0, 1), tokens.roll(-1, 1).flatten()) + sum((part**2).sum() for part in each[1:])
        for each in (ours, theirs)
    ]
    certify_row(name, **differences(network, [*ours, losses[0]], [*theirs, losses[1]]), source=UNROLLED)


@pytest.mark.parametrize(
    ("name", "cell", "options"),
    [
        ("rnn_classifier", "rnn", {"num_tokens": 11}),
        ("irnn_classifier", "rnn_relu", {"num_tokens": 11}),
        ("gru_classifier", "gru", {"num_tokens": 11}),
        ("lstm_classifier", "lstm", {"num_tokens": 11}),
        ("bilstm_classifier", "lstm", {"num_tokens": 11, "bidirectional": True}),
        ("bilstm_classifier pooling=mean", "lstm", {"num_tokens": 11, "bidirectional": True, "pooling": "mean"}),
        ("rnn_forecaster", "rnn", {"num_features": 2}),
        ("gru_forecaster", "gru", {"num_features": 2}),
        ("lstm_forecaster", "lstm", {"num_features": 2}),
    ],
)
def test_predictor_equals_its_twin(
    name: str, cell: str, options: dict[str, Any], certify_row: Callable[..., None]
) -> None:
    network = RecurrentPredictor(cell=cell, num_classes=4, embedding=5, hidden=6, **options).double()
    state = scatter(network)
    generator = torch.Generator().manual_seed(0)
    length = torch.tensor([4, 7, 2])
    tokens = torch.randint(11, (3, 7), generator=generator)
    numbers = torch.randn(3, 7, 2, generator=generator, dtype=torch.float64)
    logits = []
    for place, steps in enumerate(length.tolist()):
        x = list(numbers[place, :steps]) if "num_features" in options else []
        x = x or [state["embedding.weight"][token] for token in tokens[place, :steps]]
        hidden, last = unroll(cell, layer(state), x)
        if options.get("bidirectional"):
            back, first = unroll(cell, layer(state, "_reverse"), x[::-1])
            hidden = [torch.cat(pair) for pair in zip(hidden, back[::-1], strict=True)]
            last = [torch.cat([last[0], first[0]])]
        read = sum(hidden) / steps if options.get("pooling") == "mean" else last[0]
        logits.append(state["head.weight"] @ read + state["head.bias"])
    ours, theirs = network(numbers if "num_features" in options else tokens, length), torch.stack(logits)
    losses = [F.cross_entropy(each, torch.arange(3)) for each in (ours, theirs)]
    certify_row(name, **differences(network, [ours, losses[0]], [theirs, losses[1]]), source=UNROLLED)
