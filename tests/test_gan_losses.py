"""GAN losses against sums written out by hand, penalties against gradients known in closed form."""

import math

import pytest
import torch
from torch import Tensor, nn

from zoo.gan_losses import (
    LOSSES,
    clip_weights_,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
)

REAL = [2.0, -0.5, 0.3]
FAKE = [-1.5, 0.4, 1.2, -3.0]


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def entropy(smoothing: float) -> float:
    """The cross-entropy of probabilities, with 1 − s and s as the targets of real pictures."""
    real = mean([-(1 - smoothing) * math.log(sigma(r)) - smoothing * math.log(1 - sigma(r)) for r in REAL])
    return real + mean([-math.log(1 - sigma(f)) for f in FAKE])


DISCRIMINATOR = {
    "minimax": entropy(0.0),
    "non_saturating": entropy(0.0),
    "least_squares": mean([(r - 1) ** 2 for r in REAL]) / 2 + mean([f**2 for f in FAKE]) / 2,
    "hinge": mean([max(0.0, 1 - r) for r in REAL]) + mean([max(0.0, 1 + f) for f in FAKE]),
    "wasserstein": mean(FAKE) - mean(REAL),
}
GENERATOR = {
    "minimax": mean([math.log(1 - sigma(f)) for f in FAKE]),
    "non_saturating": mean([-math.log(sigma(f)) for f in FAKE]),
    "least_squares": mean([(f - 1) ** 2 for f in FAKE]) / 2,
    "hinge": -mean(FAKE),
    "wasserstein": -mean(FAKE),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_at_known_scores(name: str) -> None:
    real, fake = torch.tensor(REAL), torch.tensor(FAKE)
    assert discriminator_loss(name, real, fake).item() == pytest.approx(DISCRIMINATOR[name], rel=1e-6)
    assert generator_loss(name, fake).item() == pytest.approx(GENERATOR[name], rel=1e-6)


@pytest.mark.parametrize("name", ["minimax", "non_saturating"])
def test_one_sided_label_smoothing(name: str) -> None:
    found = discriminator_loss(name, torch.tensor(REAL), torch.tensor(FAKE), label_smoothing=0.1)
    assert found.item() == pytest.approx(entropy(0.1), rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_scores_of_half_precision_are_summed_as_float(name: str) -> None:
    real, fake = torch.tensor(REAL).bfloat16(), torch.tensor(FAKE).bfloat16()
    assert discriminator_loss(name, real, fake).dtype == generator_loss(name, fake).dtype == torch.float32


def slope(name: str, score: float) -> float:
    """How fast the generator's loss changes with the score of its picture."""
    fake = torch.tensor([score], requires_grad=True)
    return torch.autograd.grad(generator_loss(name, fake), fake)[0].item()


def test_minimax_saturates_where_the_generator_is_found_out_and_non_saturating_does_not() -> None:
    for score in (-12.0, -3.0, 0.0, 3.0):
        assert slope("minimax", score) == pytest.approx(-sigma(score), rel=1e-4)
        assert slope("non_saturating", score) == pytest.approx(sigma(score) - 1, rel=1e-4)
    assert -1e-5 < slope("minimax", -12.0) < 0
    assert slope("non_saturating", -12.0) < -0.99999


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_gradients_are_finite_at_extreme_scores(name: str) -> None:
    scores = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = discriminator_loss(name, scores, scores) + generator_loss(name, scores)
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, scores)[0]).all()


@pytest.mark.parametrize(
    ("name", "smoothing", "message"),
    [
        ("wgan", 0.0, "loss=wgan: must be one of minimax, non_saturating, least_squares, hinge, wasserstein"),
        ("minimax", 0.5, "label_smoothing=0.5: must be"),
        ("minimax", -0.1, "label_smoothing=-0.1: must be"),
        ("hinge", 0.1, "label_smoothing=0.1: must be 0 with loss=hinge"),
    ],
)
def test_what_is_refused(name: str, smoothing: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        discriminator_loss(name, torch.zeros(2), torch.zeros(2), label_smoothing=smoothing)
    if smoothing == 0:
        with pytest.raises(ValueError, match=message):
            generator_loss(name, torch.zeros(2))


class Linear(nn.Module):
    """w·x, the same slope everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 2, 12))

    def forward(self, input: Tensor, condition: Tensor | None = None) -> Tensor:
        return input.flatten(1) @ self.weight


class Cubic(nn.Module):
    """a_y·Σ x³/3, of which the gradient is a_y·x²."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([0.5, 2.0]))

    def forward(self, input: Tensor, condition: Tensor) -> Tensor:
        return self.scale[condition] * input.pow(3).flatten(1).sum(1) / 3


PICTURES = torch.randn(2, 5, 3, 2, 2, generator=torch.Generator().manual_seed(0))
MIX = torch.tensor([0.0, 0.25, 0.5, 0.9, 1.0])
CLASSES = torch.tensor([0, 1, 0, 1, 1])


def test_gradient_penalty_of_a_linear_critic() -> None:
    critic = Linear()
    penalty = gradient_penalty(critic, *PICTURES, MIX)
    norm = critic.weight.norm()
    assert penalty.item() == pytest.approx((norm.item() - 1) ** 2, rel=1e-5)
    penalty.backward()  # d(‖w‖ − 1)²/dw = 2(‖w‖ − 1)·w/‖w‖
    torch.testing.assert_close(critic.weight.grad, (2 * (norm - 1) * critic.weight / norm).detach())


def test_gradient_penalty_is_each_examples_own_at_its_point_between() -> None:
    critic, (real, fake) = Cubic(), PICTURES
    total = 0.0
    for row in range(5):
        at = MIX[row] * real[row] + (1 - MIX[row]) * fake[row]
        total += (critic.scale[CLASSES[row]].item() * at.square().norm().item() - 1) ** 2
    assert gradient_penalty(critic, real, fake, MIX, CLASSES).item() == pytest.approx(total / 5, rel=1e-5)


def test_the_generator_gets_no_gradient_of_a_penalty() -> None:
    fake = PICTURES[1].clone().requires_grad_()
    gradient_penalty(Linear(), PICTURES[0], fake, MIX).backward()
    assert fake.grad is None


def test_weights_are_clipped_in_place_those_of_norms_too() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    before = [parameter.detach().clone() for parameter in network.parameters()]
    clip_weights_(network, 0.1)
    for old, new in zip(before, network.parameters(), strict=True):
        assert torch.equal(new, old.clamp(-0.1, 0.1))
        assert new.requires_grad
    assert network[1].weight.tolist() == pytest.approx([0.1] * 4)
    with pytest.raises(ValueError, match="clip_weights=0: must be above 0"):
        clip_weights_(network, 0)
