"""What a picture costs in nats: log-likelihoods of pixels, the divergence of a code, bounds on the likelihood.

Shapes: B examples, C channels, H×W pixels, Z latent dimensions, k samples of a latent. All is computed in float32 at
least, whatever precision the network runs in.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def _exact(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def bernoulli_log_likelihood(logits: Tensor, images: Tensor) -> Tensor:
    """log p of each picture, summed over its pixels: (B, …), (B, …) → (B,).

    A normalised likelihood where pixels are 0 or 1. Of grey levels between them, x·log p + (1 − x)·log(1 − p) is the
    expectation over pixels that are 1 with probability x, the customary loss, but no probability of the picture.
    """
    loss = F.binary_cross_entropy_with_logits(_exact(logits), _exact(images), reduction="none")
    return -loss.flatten(1).sum(1)


def discretised_gaussian_log_likelihood(
    mean: Tensor, log_scale: Tensor, images: Tensor, *, levels: int = 256
) -> Tensor:
    """log p of each picture, summed over its pixels: (B, …), a scalar or (B, …), (B, …) → (B,).

    Pixels are `levels` grey levels evenly from 0 to 1. Each has the Gaussian's mass from half a level below to half a
    level above; the first and the last have all that lies beyond, so that the levels' masses sum to 1. Ho et al. 2020,
    "Denoising diffusion probabilistic models", 2006.11239, eq. 13, there for pixels from −1 to 1.
    """
    mean, images = _exact(mean), _exact(images)
    half = 0.5 / (levels - 1)
    precision = torch.exp(-_exact(log_scale))
    below, above = (images - half - mean) * precision, (images + half - mean) * precision
    # The normal distribution is symmetric: of a bin right of the mean take its mirror image, where log Φ is exact. Of
    # the two ends take the tail that is open, and nothing off.
    lowest, highest = images < half, images > 1 - half
    mirrored = highest | ((images > mean) & ~lowest)
    near, far = torch.where(mirrored, -below, above), torch.where(mirrored, -above, below)
    log_near = torch.special.log_ndtr(near)
    # log(Φ(near) − Φ(far)) without leaving logarithms; the clamp keeps bins narrower than float32 tells from −∞
    ratio = (torch.special.log_ndtr(far) - log_near).clamp_max(-1e-30)
    off = torch.log(-torch.expm1(ratio)).masked_fill(lowest | highest, 0)
    return (log_near + off).flatten(1).sum(1)


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) ‖ N(0, 1)) of each dimension, in nats: shapes as given.

    Kingma & Welling 2014, "Auto-encoding variational Bayes", 1312.6114, appendix B.
    """
    mean, log_variance = _exact(mean), _exact(log_variance)
    return 0.5 * (mean.square() + torch.expm1(log_variance) - log_variance)


def log_importance_weight(log_likelihood: Tensor, latent: Tensor, noise: Tensor, log_variance: Tensor) -> Tensor:
    """log w = log p(x|z) + log p(z) − log q(z|x), for z = mean + exp(log_variance/2)·noise.

    `log_likelihood` (…) is log p(x|z); the others are (…, Z). The normal densities share their constants.
    """
    return log_likelihood + 0.5 * _exact(noise.square() - latent.square() + log_variance).sum(-1)


def importance_weighted_bound(log_weights: Tensor) -> Tensor:
    """log 1/k·Σ w of each example, from (k, B) to (B,): at k = 1 the ELBO, at k → ∞ log p(x), never above in the mean.

    Burda, Grosse, Salakhutdinov 2016, "Importance weighted autoencoders", 1509.00519, eq. 8.
    """
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights))
