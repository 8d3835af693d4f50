"""Autoencoders: counts, shapes, first weights, ties, and that a linear one learns the subspace of PCA."""

import copy
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from parity import differences
from torch import Tensor, nn

from zoo.models.autoencoder import ConvAutoencoder, DenseAutoencoder, EncoderClassifier


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_network_of_2006_has_its_layers_and_number_of_parameters() -> None:
    network = DenseAutoencoder()
    widths = [784, 1000, 500, 250, 30]
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    assert [layer.in_features for layer in linear] == widths[:-1] + widths[:0:-1]
    assert [type(layer) for layer in network.encoder][1:] == [nn.Linear, nn.Sigmoid] * 3 + [nn.Linear]
    assert [type(layer) for layer in network.decoder][:-1] == [nn.Linear, nn.Sigmoid] * 3 + [nn.Linear]
    assert count(network) == 2_837_314


def dense_twin(state: dict[str, Tensor], images: Tensor, tied: bool) -> tuple[Tensor, Tensor]:
    """Code and values: sigmoids between products of matrices."""
    numbers = sorted(int(name.split(".")[1]) for name in state if name.startswith("encoder") and "weight" in name)
    x = images.flatten(1)
    for number in numbers:
        x = x @ state[f"encoder.{number}.weight"].T + state[f"encoder.{number}.bias"]
        x = x if number == numbers[-1] and not tied else 1 / (1 + (-x).exp())
    code = x
    for place, number in enumerate(reversed(numbers)):
        weight = state[f"encoder.{number}.weight"].T if tied else state[f"decoder.{2 * place}.weight"]
        x = (1 / (1 + (-x).exp()) if place else x) @ weight.T + state[f"decoder.{2 * place}.bias"]
    return code, x.view_as(images)


def conv_twin(state: dict[str, Tensor], images: Tensor, tied: bool) -> tuple[Tensor, Tensor]:
    """Code and values: 28×28 to 14×14 to 7×7 and back, as functions."""

    def of(name: str) -> tuple[Tensor, Tensor]:
        return state[f"{name}.weight"], state[f"{name}.bias"]

    x = F.conv2d(images, *of("encoder.0"), stride=2, padding=1).clamp(min=0)
    x = F.conv2d(x, *of("encoder.2"), stride=2, padding=1).clamp(min=0)
    code = F.linear(x.flatten(1), *of("encoder.5"))
    x = F.linear(code, *of("decoder.0")).clamp(min=0).view_as(x)
    x = F.conv_transpose2d(x, *of("decoder.3"), stride=2, padding=1).clamp(min=0)
    return code, F.conv_transpose2d(x, *of("decoder.5"), stride=2, padding=1)


ONE_LAYER = {"widths": [], "code": 500, "code_activation": "sigmoid", "tied": True}


@pytest.mark.parametrize(
    ("name", "kind", "twin"),
    [
        ("autoencoder", ConvAutoencoder, conv_twin),
        ("autoencoder_2006", DenseAutoencoder, dense_twin),
        ("denoising_autoencoder, tied weights", partial(DenseAutoencoder, **ONE_LAYER), dense_twin),
    ],
)
def test_equals_its_twin_written_out(
    name: str,
    kind: Callable[[], nn.Module],
    twin: Callable[..., tuple[Tensor, Tensor]],
    certify_row: Callable[..., None],
) -> None:
    torch.manual_seed(0)
    network = kind().double()
    for parameter in network.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, 0, 0.1)
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    code, values = twin(dict(network.named_parameters()), images, "tied" in name)
    made = 1 / (1 + (-values).exp())
    their_loss = -(images * made.log() + (1 - images) * (1 - made).log()).sum()
    ours = network.decode(network.encode(images))
    loss = F.binary_cross_entropy_with_logits(ours, images, reduction="sum")
    certify_row(
        name,
        **differences(network, [network.encode(images), network(images), loss], [code, made, their_loss]),
        source="functions in tests/models/test_autoencoder.py: code, reconstruction, cross-entropy",
        image_size=28,
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [28, 32, 64])
def test_shapes_and_a_gradient_for_every_parameter(size: int, channels: int) -> None:
    images = torch.rand(2, channels, size, size)
    dense = DenseAutoencoder(in_channels=channels, image_size=size, widths=[20], code=5, activation="tanh")
    tied = DenseAutoencoder(in_channels=channels, image_size=size, widths=[20], code=5, activation="tanh", tied=True)
    conv = ConvAutoencoder(in_channels=channels, image_size=size, width=0.25, code=5, code_activation="sigmoid")
    for network in (dense, tied, conv):
        code = network.encode(images)
        assert code.shape == (2, 5)
        made = network(images)
        assert made.shape == images.shape
        assert torch.equal(made, torch.sigmoid(network.decode(code)))
        (made - images).square().sum().backward()
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())
        assert torch.allclose(network.eval()(images[:1]), made[:1], atol=1e-6)  # no example sees another
    assert ((conv.encode(images) > 0) & (conv.encode(images) < 1)).all()


def test_a_linear_output_is_left_as_it_is() -> None:
    network = ConvAutoencoder(image_size=8, depth=1, width=0.1, output="linear")
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(network(images), network.decode(network.encode(images)))


def test_width_is_a_factor_on_the_channels_and_depth_their_number() -> None:
    network = ConvAutoencoder(image_size=32, width=0.5, depth=3)
    assert [c.out_channels for c in network.encoder if isinstance(c, nn.Conv2d)] == [16, 32, 64]
    assert [c.out_channels for c in network.decoder if isinstance(c, nn.ConvTranspose2d)] == [32, 16, 1]
    assert network.encoder[-1].in_features == 64 * 4 * 4


def test_tied_weights_are_the_encoder_s_and_stay_so_in_copies() -> None:
    network = DenseAutoencoder(widths=[40, 20], code=5, tied=True)
    encoder_weights = 784 * 40 + 40 * 20 + 20 * 5
    assert count(network) == encoder_weights + (40 + 20 + 5) + (20 + 40 + 784)
    assert sorted(name for name in network.state_dict() if "decoder" in name) == [
        f"decoder.{i}.bias" for i in (0, 2, 4)
    ]
    code = torch.rand(3, 5)
    for one in (network, copy.deepcopy(network)):
        with torch.no_grad():
            one.encoder[1].weight.mul_(0.5)
        up = torch.sigmoid(code @ one.encoder[5].weight + one.decoder[0].bias)
        up = torch.sigmoid(up @ one.encoder[3].weight + one.decoder[2].bias)
        expected = up @ one.encoder[1].weight + one.decoder[4].bias
        torch.testing.assert_close(one.decode(code).flatten(1), expected)


def test_first_weights() -> None:
    torch.manual_seed(0)
    layer = DenseAutoencoder().encoder[1]
    assert layer.weight.abs().max().item() == pytest.approx(4 * math.sqrt(6 / 1784), rel=1e-3)
    assert DenseAutoencoder(activation="tanh").encoder[1].weight.abs().max().item() == pytest.approx(
        math.sqrt(6 / 1784), rel=1e-3
    )
    network = ConvAutoencoder(width=2.0)
    assert network.encoder[2].weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.02)
    # of 16 places of a transposed kernel, 4 meet in a pixel
    assert network.decoder[3].weight.std().item() == pytest.approx(math.sqrt(2 / (128 * 4)), rel=0.02)
    assert not any(p.any() for name, p in network.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_the_classifier_has_the_autoencoder_s_encoder_and_a_linear_head(kind: str) -> None:
    images = torch.rand(2, 3, 32, 32)
    size = {"in_channels": 3, "image_size": 32, "code": 7, "code_activation": "relu"}
    if kind == "dense":
        network: nn.Module = DenseAutoencoder(**size, widths=[30], activation="relu")
        classifier = EncoderClassifier(kind="dense", **size, widths=[30], num_classes=4)
    else:
        network = ConvAutoencoder(**size, width=0.25, depth=3)
        classifier = EncoderClassifier(kind="conv", **size, width=0.25, depth=3, num_classes=4)
    encoder = {name: p for name, p in network.state_dict().items() if name.startswith("encoder.")}
    left = classifier.load_state_dict(encoder, strict=False)
    assert left.unexpected_keys == []
    assert left.missing_keys == ["head.weight", "head.bias"]
    expected = network.encode(images) @ classifier.head.weight.T + classifier.head.bias
    torch.testing.assert_close(classifier(images), expected)
    assert classifier.head.weight.std().item() == pytest.approx(0.01, rel=0.5)  # of 28 weights


def largest_angle(first: np.ndarray, second: np.ndarray) -> float:
    """Between the column spaces, degrees: by the sine, the norm of what is left of one beside the other."""
    q, r = (np.linalg.qr(matrix)[0] for matrix in (first, second))
    return math.degrees(math.asin(min(1.0, np.linalg.norm(r - q @ (q.T @ r), 2))))


def test_a_linear_autoencoder_spans_the_subspace_of_pca() -> None:
    """A Gaussian with deviations 3, 2.5, 2 and from there 1, away from 0; L-BFGS on all of it."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(16, 16, generator=generator, dtype=torch.float64))[0]
    deviations = torch.tensor([3.0, 2.5, 2.0, *[1.0] * 13], dtype=torch.float64)
    data: Tensor = torch.randn(500, 16, generator=generator, dtype=torch.float64) * deviations @ basis.T + 2
    images = data.view(500, 1, 4, 4)
    torch.manual_seed(1)
    network = DenseAutoencoder(image_size=4, widths=[], code=3, activation="tanh", output="linear").double()
    optimizer = torch.optim.LBFGS(network.parameters(), max_iter=300, tolerance_change=0, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (network(images) - images).square().flatten(1).sum(1).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    loss = closure()
    centred = (data - data.mean(0)).numpy()
    values, vectors = np.linalg.eigh(centred.T @ centred / 500)
    encoder, decoder = network.encoder[1].weight, network.decoder[0].weight
    assert largest_angle(decoder.detach().numpy(), vectors[:, -3:]) < 0.1
    assert largest_angle(encoder.detach().numpy().T, vectors[:, -3:]) < 0.1
    assert loss.item() == pytest.approx(values[:-3].sum(), rel=1e-5)  # the mean is learnt too


@pytest.mark.parametrize(
    ("network", "options", "match"),
    [
        (ConvAutoencoder, {"image_size": 30}, r"image_size=30: must be a multiple of 4 for depth=2"),
        (ConvAutoencoder, {"image_size": 28, "depth": 3}, r"image_size=28: must be a multiple of 8 for depth=3"),
        (ConvAutoencoder, {"depth": 0}, "depth=0: must be"),
        (ConvAutoencoder, {"width": 0.0}, r"width=0\.0: must be"),
        (ConvAutoencoder, {"in_channels": 0}, "in_channels=0: must be"),
        (ConvAutoencoder, {"output": "tanh"}, "output=tanh: must be sigmoid or linear"),
        (DenseAutoencoder, {"widths": [10, 0]}, r"widths=\[10, 0\]: must be"),
        (DenseAutoencoder, {"code": 0}, "code=0: must be"),
        (DenseAutoencoder, {"image_size": 0}, "image_size=0: must be"),
        (DenseAutoencoder, {"activation": "step"}, "activation=step: must be one of relu"),
        (DenseAutoencoder, {"code_activation": "step"}, "code_activation=step: must be one of linear, relu"),
        (EncoderClassifier, {"widths": [100]}, r"widths=\[100\]: must be \[1000, 500, 250\] with kind=conv"),
        (EncoderClassifier, {"kind": "dense", "depth": 3}, r"width=1\.0, depth=3: must be 1\.0 and 2 with kind=dense"),
        (EncoderClassifier, {"kind": "deep"}, "kind=deep: must be dense or conv"),
        (EncoderClassifier, {"num_classes": 0}, "num_classes=0: must be"),
    ],
)
def test_what_is_refused(network: type[nn.Module], options: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        network(**options)


@pytest.mark.parametrize("network", [DenseAutoencoder(widths=[8], code=2), ConvAutoencoder(width=0.1, code=2)])
def test_images_of_another_size_are_refused(network: nn.Module) -> None:
    for shape in ((2, 1, 32, 32), (2, 3, 28, 28), (2, 784)):
        with pytest.raises(ValueError, match=r"must be \(B, 1, 28, 28\)"):
            network(torch.rand(shape))
