"""The dense GAN: counts, a functional twin, conditions, first weights, what is refused."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from parity import differences
from torch import Tensor, nn

from zoo.models.mlp_gan import MLPGAN

TINY = {"image_size": 4, "latent": 5, "generator_hidden": [6, 7], "discriminator_hidden": [8]}
NOISE = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([2, 0, 9])


def test_counts_of_the_authors_widths() -> None:
    with torch.device("meta"):
        network = MLPGAN()
    # 100·1200 + 1200·1200 + 1200·784 and 784·1200 + 1200·1200 + 1200·1, with biases
    assert sum(p.numel() for p in network.generator.parameters()) == 2_503_984
    assert sum(p.numel() for p in network.discriminator.parameters()) == 2_384_401


@pytest.mark.parametrize("conditional", [False, True])
def test_equals_its_twin_written_out(conditional: bool, certify_row: Callable[..., None]) -> None:
    torch.manual_seed(0)
    network = MLPGAN(image_size=4, in_channels=2, latent=5, conditional=conditional).eval().double()
    assert network.num_classes == (10 if conditional else None)
    condition = CLASSES if conditional else None
    noise, one_hot = NOISE.double(), torch.eye(10).double()[CLASSES] if conditional else torch.zeros(3, 0)
    for parameter in network.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, 0, 0.1)

    def dense(x: Tensor, tensors: list[Tensor], slope: float) -> Tensor:
        for weight, bias in zip(tensors[::2], tensors[1::2], strict=True):
            x = x @ weight.T + bias
            if weight is not tensors[-2]:
                x = torch.where(x > 0, x, slope * x)
        return x

    pictures = torch.tanh(dense(torch.cat([noise, one_hot], 1), list(network.generator.parameters()), 0.0))
    scores = dense(torch.cat([pictures, one_hot], 1), list(network.discriminator.parameters()), 0.2)
    ours = [network.generator(noise, condition), network(noise, condition)]
    twin = [pictures.view(3, 2, 4, 4), scores[:, 0]]
    losses = [F.softplus(found * torch.arange(1, 4)).sum() for found in (ours[1], twin[1])]  # each counts differently
    certify_row(
        f"mlp_gan, {'told the class' if conditional else 'without classes'}",
        **differences(network, [*ours, losses[0]], [*twin, losses[1]]),
        source="products of matrices, tests/models/test_mlp_gan.py: pictures, scores, loss; hidden layers of 1200",
        image_size=4,
    )
    assert network(noise[:1], None if condition is None else condition[:1]).shape == (1,)


def test_dropout_of_the_authors_file_acts_while_training_on_the_discriminator_only() -> None:
    network = MLPGAN(image_size=4)
    rates = [module.p for module in network.modules() if isinstance(module, torch.nn.Dropout)]
    assert rates == [0.2, 0.5, 0.5]
    noise = torch.randn(2, 100)
    assert torch.equal(network.generator(noise), network.generator(noise))
    assert not torch.equal(network(noise), network(noise))
    assert torch.equal(network.eval()(noise), network(noise))


def test_first_weights() -> None:
    network = MLPGAN()
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            assert parameter.abs().max() == 0
        else:
            assert 0.049 < parameter.abs().max() <= 0.05
            assert parameter.std().item() == pytest.approx(0.05 / 3**0.5, rel=0.05)


@pytest.mark.parametrize("conditional", [False, True])
def test_a_gradient_for_every_parameter(conditional: bool) -> None:
    network = MLPGAN(**{**TINY, "generator_hidden": [32]}, conditional=conditional)
    condition = torch.arange(40) % 10 if conditional else None
    F.softplus(network(torch.randn(40, 5), condition)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name  # noqa: PT018


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latent": 0}, "latent=0: must be 1 or more"),
        ({"num_classes": None, "conditional": True}, "conditional=true: must be false for data without classes"),
        ({"generator_hidden": []}, "generator_hidden=.*: must be at least one width"),
        ({"discriminator_hidden": [8, 0]}, "discriminator_hidden=.*8, 0.*: must be"),
        ({"dropout": 1.0}, "dropout=1.0: must be"),
        ({"dropout_input": -0.1}, "dropout_input=-0.1: must be"),
    ],
)
def test_arguments_out_of_range(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MLPGAN(**{**TINY, **arguments})


def test_pictures_without_classes() -> None:
    assert MLPGAN(**TINY, num_classes=None)(NOISE).shape == (3,)


def test_inputs_that_do_not_fit() -> None:
    plain, conditional = MLPGAN(**TINY), MLPGAN(**TINY, conditional=True)
    with pytest.raises(ValueError, match=r"input of shape \(1, 1, 5, 5\): must be \(B, 1, 4, 4\)"):
        plain.discriminator(torch.zeros(1, 1, 5, 5))
    with pytest.raises(ValueError, match="condition: must be None"):
        plain.generator(NOISE, CLASSES)
    with pytest.raises(ValueError, match="condition=None: must be classes"):
        conditional.generator(NOISE)
