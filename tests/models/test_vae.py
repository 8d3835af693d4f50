"""Variational autoencoders: published counts, the sample that is decoded, conditions, likelihoods, first weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from parity import differences
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal, kl_divergence

from zoo.likelihoods import bernoulli_log_likelihood, kl_to_standard_normal
from zoo.models.vae import VAE, ConvVAE
from zoo.summary import summarize

KINDS = (VAE, ConvVAE)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def pictures(batch: int = 2, channels: int = 1, side: int = 28) -> Tensor:
    return torch.rand(batch, channels, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 652_824),  # PyTorch's example
        ({"latent_size": 2}, 631_188),
        ({"hidden": [500], "latent_size": 2}, 788_788),  # Kingma & Welling
        ({"hidden": [500], "latent_size": 3}, 790_290),
        ({"hidden": [500], "latent_size": 5}, 793_294),
        ({"hidden": [500], "latent_size": 10}, 800_804),
        ({"hidden": [500], "latent_size": 20}, 815_824),
        ({"hidden": [500], "latent_size": 200}, 1_086_184),
        ({"hidden": [200, 200], "latent_size": 50}, 425_284),  # Burda et al., one stochastic layer
    ],
)
def test_the_counts_are_those_published(settings: dict[str, Any], count: int) -> None:
    assert parameters(VAE(**settings)) == count
    assert parameters(VAE(**settings, likelihood="gaussian")) == count + 1  # one σ


def test_the_mirror_of_unequal_widths() -> None:
    network = VAE(image_size=2, hidden=[7, 5], latent_size=3)
    shapes = [tuple(m.weight.shape) for m in network.decoder.modules() if isinstance(m, nn.Linear)]
    assert shapes == [(5, 3), (7, 5), (4, 7)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("conditional", [False, True])
def test_forward_decodes_mean_plus_deviation_times_noise(kind: Any, likelihood: Any, conditional: bool) -> None:
    network = kind(latent_size=3, likelihood=likelihood, num_classes=10, conditional=conditional)
    told = (torch.tensor([3, 7]),) if conditional else ()
    noise = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]])
    reconstruction, mean, log_variance = network(pictures(), noise, *told)
    torch.testing.assert_close(torch.stack(network.encode(pictures(), *told)), torch.stack((mean, log_variance)))
    latent = mean + log_variance.exp().sqrt() * noise
    torch.testing.assert_close(network.decode(latent, *told), reconstruction)
    assert reconstruction.shape == (2, 1, 28, 28)
    assert mean.shape == log_variance.shape == (2, 3)
    inside = bool(((reconstruction > 0) & (reconstruction < 1)).all())
    assert inside == (likelihood == "gaussian")  # means; the others are logits


def dense_twin(state: dict[str, Tensor], images: Tensor, noise: Tensor, one_hot: Tensor) -> tuple[Tensor, ...]:
    """784-400-20 and back, as products of matrices."""

    def layer(name: str, x: Tensor) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    hidden = layer("encoder.0", torch.cat([images.flatten(1), one_hot], 1)).clamp(min=0)
    mean, log_variance = layer("mean", hidden), layer("log_variance", hidden)
    latent = mean + log_variance.exp().sqrt() * noise
    hidden = layer("decoder.0", torch.cat([latent, one_hot], 1)).clamp(min=0)
    return layer("decoder.2", hidden).view_as(images), mean, log_variance


def conv_twin(state: dict[str, Tensor], images: Tensor, noise: Tensor, one_hot: Tensor) -> tuple[Tensor, ...]:
    """28×28 to 14×14 to 7×7 and back, as functions."""
    x = torch.cat([images, one_hot[:, :, None, None] * torch.ones_like(images)], 1)
    for name in ("encoder.0", "encoder.2"):
        x = F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride=2, padding=1).clamp(min=0)
    mean, log_variance = (
        x.flatten(1) @ state[f"{name}.weight"].T + state[f"{name}.bias"] for name in ("mean", "log_variance")
    )
    latent = torch.cat([mean + log_variance.exp().sqrt() * noise, one_hot], 1)
    x = (latent @ state["decoder.0.weight"].T + state["decoder.0.bias"]).view_as(x)
    for name in ("decoder.3", "decoder.5"):
        x = F.conv_transpose2d(x.clamp(min=0), state[f"{name}.weight"], state[f"{name}.bias"], stride=2, padding=1)
    return x, mean, log_variance


@pytest.mark.parametrize(
    ("name", "kind", "twin", "conditional"),
    [
        ("vae 784-400-20", VAE, dense_twin, False),
        ("cvae 784-400-20", VAE, dense_twin, True),
        ("conv_vae", ConvVAE, conv_twin, False),
        ("conv_vae, told the class", ConvVAE, conv_twin, True),
    ],
)
def test_equals_its_twin_written_out(
    name: str, kind: Any, twin: Callable[..., tuple[Tensor, ...]], conditional: bool, certify_row: Callable[..., None]
) -> None:
    torch.manual_seed(0)
    network = kind(num_classes=10, conditional=conditional).double()
    images, noise = pictures(3).double(), torch.randn(3, 20, dtype=torch.float64)
    classes = torch.tensor([3, 0, 9])
    one_hot = torch.eye(10).double()[classes] if conditional else torch.zeros(3, 0)
    ours = network(images, noise, *([classes] if conditional else []))
    loss = (kl_to_standard_normal(*ours[1:]).sum(1) - bernoulli_log_likelihood(ours[0], images)).mean()
    theirs = twin(dict(network.named_parameters()), images, noise, one_hot)
    likelihood = Bernoulli(logits=theirs[0], validate_args=False).log_prob(images)  # of grey levels
    posterior = Normal(theirs[1], (theirs[2] / 2).exp())
    their_loss = (kl_divergence(posterior, Normal(0.0, 1.0)).sum() - likelihood.sum()) / 3
    certify_row(
        name,
        **differences(network, [*ours, loss], [*theirs, their_loss]),
        source="functions in tests/models/test_vae.py, torch.distributions: reconstruction, mean, log-variance, loss",
        image_size=28,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_learns_but_sigma_which_belongs_to_the_loss(kind: Any) -> None:
    network = kind(latent_size=3, likelihood="gaussian", num_classes=4, conditional=True)
    outputs = network(pictures(), torch.ones(2, 3), torch.tensor([0, 3]))
    sum(output.square().sum() for output in outputs).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == ["log_scale"]


@pytest.mark.parametrize(("side", "features"), [(28, 64 * 49), (32, 128 * 16), (64, 256 * 16)])
def test_conv_takes_three_sizes_and_colour(side: int, features: int) -> None:
    network = ConvVAE(in_channels=3, image_size=side, latent_size=4)
    assert network.mean.in_features == features
    assert network(pictures(1, 3, side), torch.zeros(1, 4))[0].shape == (1, 3, side, side)
    halved = ConvVAE(in_channels=3, image_size=side, latent_size=4, width=0.5)
    assert halved.mean.in_features == features // 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_class_reaches_encoder_and_decoder(kind: Any) -> None:
    network = kind(latent_size=3, num_classes=5, conditional=True)
    one, other = torch.tensor([1, 1]), torch.tensor([1, 4])
    means = [network.encode(pictures(), c)[0] for c in (one, other)]
    decoded = [network.decode(torch.zeros(2, 3), c) for c in (one, other)]
    for first, second in (means, decoded):
        torch.testing.assert_close(first[0], second[0])
        assert not torch.allclose(first[1], second[1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_without_condition_has_no_classes(kind: Any) -> None:
    assert kind(num_classes=10).num_classes is None
    assert kind(num_classes=10, conditional=True).num_classes == 10
    assert parameters(kind(num_classes=10)) == parameters(kind())


def test_all_parameters_start_from_the_papers_normal() -> None:
    torch.manual_seed(0)
    network = VAE(hidden=[500], activation="tanh", init_std=0.1)
    for parameter in network.parameters():
        assert parameter.std().item() == pytest.approx(0.1, rel=0.4 if parameter.numel() < 100 else 0.1)
        assert abs(parameter.mean().item()) < 0.06


@pytest.mark.parametrize("kind", KINDS)
def test_the_summary_can_be_made_of_a_conditional_network(kind: Any) -> None:
    network = kind(latent_size=3, num_classes=5, conditional=True, likelihood="gaussian")
    summary = summarize(network, pictures(1), torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64))
    assert summary.parameters == parameters(network)


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        (VAE, {"latent_size": 0}, "latent_size=0"),
        (VAE, {"hidden": []}, r"hidden=\[\]"),
        (VAE, {"hidden": [3, 0]}, r"hidden=\[3, 0\]"),
        (VAE, {"activation": "step"}, "activation=step"),
        (VAE, {"likelihood": "poisson"}, "likelihood=poisson"),
        (VAE, {"init_std": 0.0}, "init_std=0.0"),
        (VAE, {"conditional": True}, "conditional=true"),
        (ConvVAE, {"conditional": True, "num_classes": 1}, "conditional=true"),
        (ConvVAE, {"image_size": 30}, "image_size=30"),
        (ConvVAE, {"width": 0.0}, "width=0.0"),
        (ConvVAE, {"width": float("inf")}, "width=inf"),
    ],
)
def test_wrong_arguments_are_refused(kind: Any, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}.*: must be"):
        kind(**settings)


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_calls_are_refused(kind: Any) -> None:
    plain, told = kind(), kind(num_classes=4, conditional=True)
    with pytest.raises(ValueError, match=r"input of shape \(2, 1, 32, 32\): must be \(batch, 1, 28, 28\)"):
        plain.encode(pictures(side=32))
    with pytest.raises(ValueError, match="must be left out"):
        plain.decode(torch.zeros(1, 20), torch.tensor([0]))
    with pytest.raises(ValueError, match="must be given, classes from 0 to 3"):
        told.encode(pictures())
