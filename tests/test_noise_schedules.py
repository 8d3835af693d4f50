"""Noise schedules against diffusers, against Bayes by brute force, and at their ends."""

import math
from collections.abc import Callable

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from zoo.noise_schedules import BETAS, NoiseSchedule, cosine_betas, linear_betas

THEIRS = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
KINDS = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", list(BETAS))
def test_schedule_equals_diffusers(name: str, certify_row: Callable[..., None]) -> None:
    schedule, theirs = NoiseSchedule(BETAS[name](1000)), DDPMScheduler(beta_schedule=THEIRS[name])
    assert (schedule.betas - theirs.betas.double()).abs().max() <= 3e-8  # theirs are float32, here 2^-25 at most off
    theirs.alphas_cumprod, theirs.one = (
        schedule.alphas_cumprod,
        torch.ones((), dtype=torch.float64),
    )  # their code in double

    x0, noise, time = random(9, 2, 3).requires_grad_(), random(9, 2, 3, seed=1), torch.arange(9) * 124
    pairs = [
        (schedule.add_noise(x0, noise, time), theirs.add_noise(x0, noise, time)),
        (schedule.target("v", x0, noise, time), theirs.get_velocity(x0, noise, time)),
    ]
    gradients = [[torch.autograd.grad(y.square().sum(), x0)[0] for y in pair] for pair in pairs]
    variances = [theirs._get_variance(t) for t in range(1000)]  # theirs of time 0 is 1e-20, for its logarithm
    pairs.append((schedule.posterior_variance, torch.stack(variances)))
    pairs.append(
        (schedule.betas, torch.stack([theirs._get_variance(t, variance_type="fixed_large") for t in range(1000)]))
    )
    certify_row(
        f"noise schedule {name}",
        outputs=max((ours - twin).abs().max().item() for ours, twin in pairs),
        gradients=max((ours - twin).abs().max().item() for ours, twin in gradients),
        source="diffusers.DDPMScheduler with float64 tables: add_noise, get_velocity, variances; largest differences",
    )


def test_ends_of_the_linear_schedule() -> None:
    schedule = NoiseSchedule(linear_betas())
    assert schedule.betas[[0, -1]].tolist() == pytest.approx([1e-4, 0.02], rel=1e-12)
    assert schedule.alphas_cumprod[0].item() == pytest.approx(0.9999, rel=1e-12)
    assert schedule.alphas_cumprod[-1].item() == pytest.approx(4.0358e-5, rel=1e-4)  # KL to N(0, 1): about 1e-5 bits
    kept = 1.0
    for t in range(1000):
        kept *= 1 - (1e-4 + t * (0.02 - 1e-4) / 999)
    assert schedule.alphas_cumprod[-1].item() == pytest.approx(kept, rel=1e-9)


@pytest.mark.parametrize("timesteps", [50, 200, 4000])
def test_as_little_is_left_of_the_picture_whatever_the_timesteps(timesteps: int) -> None:
    for betas in BETAS.values():
        assert 0 <= NoiseSchedule(betas(timesteps)).alphas_cumprod[-1] < 1e-4


def test_cosine_schedule_by_its_formula() -> None:
    schedule = NoiseSchedule(cosine_betas(100))
    for t in range(99):  # the last beta is cut to 0.999
        ratio = math.cos(((t + 1) / 100 + 0.008) / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)
        assert schedule.alphas_cumprod[t].item() == pytest.approx(ratio**2, rel=1e-9)
    assert schedule.betas[-1] == 0.999


@pytest.mark.parametrize("time", [1, 7, 19])
def test_posterior_is_bayes_by_brute_force(time: int) -> None:
    """q(x_{t−1} | x_t, x₀) ∝ q(x_t | x_{t−1}) · q(x_{t−1} | x₀), on a fine grid of x_{t−1}."""
    betas = torch.linspace(0.05, 0.4, 20, dtype=torch.float64)
    schedule = NoiseSchedule(betas)
    x0, x_t = torch.tensor(0.7, dtype=torch.float64), torch.tensor(-0.4, dtype=torch.float64)
    grid = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    kept = math.prod((1 - betas[:time]).tolist())
    beta = betas[time].item()
    log = -((x_t - math.sqrt(1 - beta) * grid) ** 2) / (2 * beta) - (grid - math.sqrt(kept) * x0) ** 2 / (
        2 * (1 - kept)
    )
    weight = log.softmax(0)
    mean = (weight * grid).sum()
    ours, variance = schedule.posterior(x0, x_t, time)
    assert ours.item() == pytest.approx(mean.item(), abs=1e-9)
    assert variance == pytest.approx((weight * (grid - mean) ** 2).sum().item(), rel=1e-9)


def test_posterior_at_time_0_is_the_picture() -> None:
    schedule, x0 = NoiseSchedule(linear_betas()), random(3)
    mean, variance = schedule.posterior(x0, random(3, seed=1), 0)
    torch.testing.assert_close(mean, x0, rtol=1e-12, atol=1e-12)
    assert variance == 0


@pytest.mark.parametrize("name", list(BETAS))
@pytest.mark.parametrize("prediction", list(KINDS))
def test_a_right_prediction_gives_picture_and_noise_back(name: str, prediction: str) -> None:
    schedule = NoiseSchedule(BETAS[name](1000))
    x0, noise, time = random(6, 2), random(6, 2, seed=1), torch.tensor([0, 10, 300, 600, 900, 990])
    x_t = schedule.add_noise(x0, noise, time)
    target = schedule.target(prediction, x0, noise, time)
    torch.testing.assert_close(schedule.x0(prediction, target, x_t, time), x0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(schedule.epsilon(x0, x_t, time), noise, rtol=1e-9, atol=1e-9)
    for i, t in enumerate(time.tolist()):  # a time as a number is the same for all
        torch.testing.assert_close(schedule.add_noise(x0, noise, t)[i], x_t[i], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(schedule.target(prediction, x0, noise, t)[i], target[i], rtol=1e-12, atol=1e-12)


def test_advancing_step_by_step_is_the_chain_of_the_betas() -> None:
    schedule = NoiseSchedule(linear_betas(30))
    x, noise = random(4), random(4, seed=1)
    one = schedule.advance(x, noise, 11, 12)
    beta = schedule.betas[12]
    torch.testing.assert_close(one, (1 - beta).sqrt() * x + beta.sqrt() * noise, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        schedule.advance(x, noise, -1, 20), schedule.add_noise(x, noise, 20), rtol=1e-12, atol=1e-12
    )


def test_single_precision_is_rounded_from_double() -> None:
    schedule = NoiseSchedule(cosine_betas())
    x0, noise, time = random(1000, 1), random(1000, 1, seed=1), torch.arange(1000)
    exact, rounded = schedule.add_noise(x0, noise, time), schedule.add_noise(x0.float(), noise.float(), time)
    assert rounded.dtype == torch.float32
    assert (rounded.double() - exact).abs().max() < 1e-6


def test_wrong_values_are_refused() -> None:
    with pytest.raises(ValueError, match=r"timesteps=20: must be more than 20 with the linear schedule"):
        linear_betas(20)
    with pytest.raises(ValueError, match=r"timesteps=0: must be at least 1"):
        cosine_betas(0)
    with pytest.raises(ValueError, match=r"betas=\[0.1, 1.0\]: must be numbers between 0 and 1"):
        NoiseSchedule(torch.tensor([0.1, 1.0], dtype=torch.float64))
