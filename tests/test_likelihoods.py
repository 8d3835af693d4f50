"""Likelihoods of pixels and bounds on them, against torch.distributions, exact masses and a model that is solvable."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import log_ndtr
from torch import Tensor
from torch.distributions import Bernoulli, Normal, kl_divergence

from zoo.likelihoods import (
    bernoulli_log_likelihood,
    discretised_gaussian_log_likelihood,
    importance_weighted_bound,
    kl_to_standard_normal,
    log_importance_weight,
)


def normals(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_bernoulli_is_the_sum_over_pixels_of_torchs_distribution() -> None:
    logits, images = 4 * normals(0, 3, 2, 4, 4), (normals(1, 3, 2, 4, 4) > 0).double()
    expected = Bernoulli(logits=logits).log_prob(images).sum((1, 2, 3))
    torch.testing.assert_close(bernoulli_log_likelihood(logits, images), expected, rtol=1e-12, atol=0)


def test_bernoulli_of_a_grey_level_is_the_expectation_over_binary_pixels() -> None:
    logits, grey = normals(2, 1, 1), torch.tensor([[0.3]], dtype=torch.float64)
    one, zero = (bernoulli_log_likelihood(logits, torch.full_like(grey, x)) for x in (1.0, 0.0))
    torch.testing.assert_close(bernoulli_log_likelihood(logits, grey), 0.3 * one + 0.7 * zero)


@pytest.mark.parametrize("mean", [-0.4, 0.0, 0.318, 0.5, 1.0])
@pytest.mark.parametrize("log_scale", [-9.0, -5.0, -1.4, 0.0, 2.0])
def test_the_masses_of_all_grey_levels_sum_to_one(mean: float, log_scale: float) -> None:
    levels = torch.arange(256)[:, None] / 255  # each a picture of one pixel, float32 as in training
    mass = discretised_gaussian_log_likelihood(torch.full_like(levels, mean), torch.tensor(log_scale), levels).exp()
    assert mass.sum().item() == pytest.approx(1, abs=2e-4)
    assert (mass >= 0).all()


@pytest.mark.parametrize("log_scale", [-6.0, -4.0, -1.0])
def test_grey_levels_far_from_the_mean_cost_what_the_exact_tail_says(log_scale: float) -> None:
    levels, half, mean = np.arange(256)[:, None] / 255, 0.5 / 255, 0.45
    below, above = (levels - half - mean) * math.exp(-log_scale), (levels + half - mean) * math.exp(-log_scale)
    far, near = np.where(levels > mean, -above, below), np.where(levels > mean, -below, above)
    exact = log_ndtr(near) + np.log1p(-np.exp(log_ndtr(far) - log_ndtr(near)))
    exact[0], exact[-1] = log_ndtr(above[0]), log_ndtr(-below[-1])
    assert exact.min() < -3 * math.exp(-2 * log_scale) * 0.04  # there are tails in which the difference of two Φ is 0
    mean_tensor = torch.full((256, 1), mean, requires_grad=True)
    log_scale_tensor = torch.tensor(log_scale, requires_grad=True)
    found = discretised_gaussian_log_likelihood(mean_tensor, log_scale_tensor, torch.from_numpy(levels).float())
    torch.testing.assert_close(found.double(), torch.from_numpy(exact[:, 0]), rtol=1e-4, atol=1e-4)
    found.sum().backward()
    assert mean_tensor.grad is not None
    assert mean_tensor.grad.isfinite().all()
    assert log_scale_tensor.grad is not None
    assert log_scale_tensor.grad.isfinite()


def test_the_discretised_gaussian_sums_over_pixels_and_nears_the_density_times_the_bin() -> None:
    images = (torch.arange(12) * 20 + 10).view(2, 1, 2, 3) / 255
    mean, log_scale = images + 0.1, torch.tensor(-1.0)
    density = Normal(mean, log_scale.exp()).log_prob(images) - math.log(255)
    found = discretised_gaussian_log_likelihood(mean, log_scale, images)
    torch.testing.assert_close(found, density.sum((1, 2, 3)), rtol=1e-4, atol=0)


def test_half_precision_is_computed_in_float32() -> None:
    logits, images = normals(3, 2, 784).bfloat16(), torch.rand(2, 784, generator=torch.Generator().manual_seed(4))
    found = bernoulli_log_likelihood(logits, images)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, bernoulli_log_likelihood(logits.float(), images))


def test_kl_is_torchs_and_that_of_many_samples(certify_row: Callable[..., None]) -> None:
    mean, log_variance = normals(5, 4, 3).requires_grad_(), normals(6, 4, 3).requires_grad_()
    found = kl_to_standard_normal(mean, log_variance)
    posterior, prior = Normal(mean, (0.5 * log_variance).exp()), Normal(torch.zeros(()).double(), 1.0)
    theirs = kl_divergence(posterior, prior)
    gradients = [torch.cat(torch.autograd.grad(kl.sum(), (mean, log_variance))) for kl in (found, theirs)]
    certify_row(
        "kl to the standard normal",
        outputs=(found - theirs).abs().max().item(),
        gradients=((gradients[0] - gradients[1]).abs().max() / gradients[1].abs().max()).item(),
        source="torch.distributions.kl_divergence",
    )
    z = mean + posterior.scale * normals(7, 40_000, 4, 3)
    sampled = (posterior.log_prob(z) - prior.log_prob(z)).mean(0)
    torch.testing.assert_close(sampled, found, rtol=0, atol=0.1)


def test_kl_near_the_prior_is_exact_in_float32() -> None:
    found = kl_to_standard_normal(torch.zeros(1), torch.tensor([1e-4]))
    assert found.item() == pytest.approx(2.5e-9, rel=1e-2)  # v²/4; the naive sum of four terms gives 0 or 6e-8


# A linear Gaussian model: z ~ N(0, I) of 2, x|z ~ N(A·z, s²·I) of 3. Then p(x) and p(z|x) are Gaussians that are known.
A, S = torch.tensor([[1.0, 0.2], [-0.5, 0.8], [0.3, 0.3]], dtype=torch.float64), 0.7
X = torch.tensor([[0.5, -1.0, 0.2], [2.0, 0.3, -0.4]], dtype=torch.float64)
EXACT = torch.distributions.MultivariateNormal(
    torch.zeros(3).double(), A @ A.T + S**2 * torch.eye(3).double()
).log_prob(X)


def log_weights(mean: Tensor, log_variance: Tensor, noise: Tensor) -> Tensor:
    latent = mean + (0.5 * log_variance).exp() * noise  # (k, B, 2)
    log_likelihood = Normal(latent @ A.T, S).log_prob(X).sum(-1)
    return log_importance_weight(log_likelihood, latent, noise, log_variance)


def test_the_weights_are_p_of_x_whatever_the_sample_where_the_posterior_is_exact() -> None:
    column = A[:, :1]  # of one latent alone, whose posterior is diagonal as it has one dimension
    variance = 1 / (1 + (column**2).sum() / S**2)
    mean, log_variance = variance * X @ column / S**2, variance.log().expand(2, 1)
    noise = normals(8, 5, 2, 1)
    latent = mean + variance.sqrt() * noise
    weights = log_importance_weight(
        Normal(latent @ column.T, S).log_prob(X).sum(-1), latent, noise, log_variance.expand_as(noise)
    )
    covariance = column @ column.T + S**2 * torch.eye(3).double()
    exact = torch.distributions.MultivariateNormal(torch.zeros(3).double(), covariance).log_prob(X)
    torch.testing.assert_close(weights, exact.expand(5, 2), rtol=1e-12, atol=0)
    torch.testing.assert_close(importance_weighted_bound(weights), exact, rtol=1e-12, atol=0)


def test_the_bound_rises_from_the_elbo_to_the_marginal_likelihood() -> None:
    mean, log_variance = torch.zeros(2, 2).double(), torch.full((2, 2), -0.2).double()  # a poor posterior
    weights = log_weights(mean, log_variance, normals(9, 200_000, 2, 2))
    bounds = torch.stack([importance_weighted_bound(part).mean() for part in weights.view(2000, 100, 2)])  # L_100
    elbo = weights.mean(0)
    assert (elbo < EXACT - 0.1).all()
    assert elbo.mean() < bounds.mean() < EXACT.mean()
    torch.testing.assert_close(importance_weighted_bound(weights), EXACT, rtol=0, atol=0.02)
    torch.testing.assert_close(importance_weighted_bound(weights[:1]), weights[0])
