"""What a generator and a discriminator minimise, and what holds a discriminator back.

Scores are those of a discriminator without a sigmoid at its end: σ(score) is the probability of being real where the
loss is about probabilities. Each loss is a mean over the batch, a scalar.

Shapes: B examples, C channels, H×W pixels.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOSSES = ("minimax", "non_saturating", "least_squares", "hinge", "wasserstein")
WITH_PROBABILITIES = ("minimax", "non_saturating")


def discriminator_loss(name: str, real_scores: Tensor, fake_scores: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """What the discriminator minimises, from its scores (B,) of real pictures and (B',) of generated ones.

    `label_smoothing` s makes 1 − s the target of real pictures, for the losses about probabilities; that of generated
    ones stays 0 (one-sided; Salimans et al. 2016, 1606.03498, section 3.4).

    minimax, non_saturating: −E[log σ(r)] − E[log(1 − σ(f))]; Goodfellow et al. 2014, 1406.2661, equation 1
    least_squares: ½E[(r − 1)²] + ½E[f²]; Mao et al. 2017, 1611.04076, equation 9
    hinge: E[max(0, 1 − r)] + E[max(0, 1 + f)]; Lim & Ye 2017, 1705.02894; Miyato et al. 2018, 1802.05957, equation 16
    wasserstein: E[f] − E[r]; Arjovsky et al. 2017, 1701.07875, equation 2

    Raises ValueError for an unknown name and a smoothing that is out of range or that the loss has no place for.
    """
    _check(name)
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing={label_smoothing}: must be at least 0 and below 0.5")
    if label_smoothing and name not in WITH_PROBABILITIES:
        raise ValueError(f"label_smoothing={label_smoothing}: must be 0 with loss={name}, which has no probabilities")
    real_scores, fake_scores = real_scores.float(), fake_scores.float()
    if name in WITH_PROBABILITIES:
        # −(1−s)·log σ(r) − s·log(1−σ(r)) = softplus(−r) + s·r: finite at any score
        return F.softplus(-real_scores).mean() + label_smoothing * real_scores.mean() + F.softplus(fake_scores).mean()
    if name == "least_squares":
        return 0.5 * (real_scores - 1).square().mean() + 0.5 * fake_scores.square().mean()
    if name == "hinge":
        return F.relu(1 - real_scores).mean() + F.relu(1 + fake_scores).mean()
    return fake_scores.mean() - real_scores.mean()


def generator_loss(name: str, fake_scores: Tensor) -> Tensor:
    """What the generator minimises, from the discriminator's scores (B,) of its pictures.

    minimax: E[log(1 − σ(f))]; Goodfellow et al. 2014, equation 1. Its gradient is −σ(f): none where it is found out
    non_saturating: −E[log σ(f)]; ibid., section 3, end. Its gradient is σ(f) − 1: full where it is found out
    least_squares: ½E[(f − 1)²]; Mao et al. 2017, equation 9
    hinge, wasserstein: −E[f]; Miyato et al. 2018, equation 17; Arjovsky et al. 2017, equation 3

    Raises ValueError for an unknown name.
    """
    _check(name)
    fake_scores = fake_scores.float()
    if name == "minimax":
        return -F.softplus(fake_scores).mean()
    if name == "non_saturating":
        return F.softplus(-fake_scores).mean()
    if name == "least_squares":
        return 0.5 * (fake_scores - 1).square().mean()
    return -fake_scores.mean()


def _check(name: str) -> None:
    if name not in LOSSES:
        raise ValueError(f"loss={name}: must be one of {', '.join(LOSSES)}")


Score = Callable[[Tensor, Tensor | None], Tensor]  # pictures (B, C, H, W) and classes (B,) or None → scores (B,)


def gradient_penalty(
    discriminator: Score, real: Tensor, fake: Tensor, mix: Tensor, condition: Tensor | None = None
) -> Tensor:
    """E[(‖∇D(x̂)‖ − 1)²] at x̂ = mix·real + (1 − mix)·fake; λ is the caller's.

    Gulrajani et al. 2017, 1704.00028, equation 3. `real` and `fake` (B, C, H, W), `mix` (B,) uniform in [0, 1]. The
    generator gets no gradient of it. The norm is one example's own: a discriminator with batch normalisation, whose
    score of one example depends on the others, has none such.
    """
    between = fake + mix.view(-1, 1, 1, 1) * (real - fake)
    return (_gradient(discriminator, between, condition).flatten(1).norm(dim=1) - 1).square().mean()


def _gradient(discriminator: Score, pictures: Tensor, condition: Tensor | None) -> Tensor:
    """The gradient of each example's score with respect to its pixels, itself differentiable: (B, C, H, W) float32."""
    pictures = pictures.detach().float().requires_grad_()
    scores = discriminator(pictures, condition)
    return torch.autograd.grad(scores.float().sum(), pictures, create_graph=True)[0]


@torch.no_grad()
def clip_weights_(discriminator: nn.Module, limit: float) -> None:
    """Bring every parameter, those of norms too, into [−limit, limit]; Arjovsky et al. 2017, algorithm 1, line 7."""
    if limit <= 0:
        raise ValueError(f"clip_weights={limit}: must be above 0, or null for none")
    for parameter in discriminator.parameters():
        parameter.clamp_(-limit, limit)
