"""How far two sets of pictures are apart: distances of features, of pixels, and what a classifier sees in them.

Pure functions of tensors, in float64. Each names its paper.

Shapes: N, M examples of the two sets, D features or pixels, K classes.
"""

import torch
from torch import Tensor

from zoo.randomness import key, normal, permutation


def frechet_distance(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> Tensor:
    """The squared Fréchet distance of two Gaussians, |μ₁ − μ₂|² + tr(C₁ + C₂ − 2 (C₁C₂)^½): a scalar.

    Means (D,), covariances (D, D), which may be singular. M. Heusel et al. 2017, "GANs trained by a two time-scale
    update rule converge to a local Nash equilibrium" (1706.08500), eq. 6; D. Dowson, B. Landau 1982. With C = AAᵀ the
    trace of the root is the sum of the singular values of A₁ᵀA₂, the roots of the eigenvalues of a symmetric product:
    no root of a matrix that is not symmetric is taken, and nothing complex comes up.
    """
    mean1, cov1, mean2, cov2 = (tensor.double() for tensor in (mean1, cov1, mean2, cov2))
    cross = torch.linalg.svdvals(_root(cov1).T @ _root(cov2)).sum()
    distance = (mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * cross
    return distance.clamp(min=0)  # below it by rounding only


def _root(cov: Tensor) -> Tensor:
    """A with AAᵀ = cov: eigenvectors times the roots of the eigenvalues."""
    values, vectors = torch.linalg.eigh(cov)
    return vectors * values.clamp(min=0).sqrt()


def frechet_of_features(a: Tensor, b: Tensor) -> Tensor:
    """`frechet_distance` of the Gaussians that have the means and covariances of a (N, D) and b (M, D).

    With no more examples than features the covariances are singular, and the distance comes out too large.
    """
    _check(a=a, b=b)
    a, b = a.double(), b.double()
    return frechet_distance(a.mean(0), _covariance(a), b.mean(0), _covariance(b))


def _covariance(features: Tensor) -> Tensor:
    centred = features - features.mean(0)
    return centred.T @ centred / (len(features) - 1)


def kernel_distance(
    a: Tensor, b: Tensor, *, subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over random subsets of the unbiased MMD² of a (N, D) and b (M, D); it may be below 0.

    The kernel is (x·y / D + 1)³. M. Bińkowski et al. 2018, "Demystifying MMD GANs" (1801.01401). Each subset has `size`
    examples of either set, or all where there are fewer.
    """
    _check(a=a, b=b)
    if subsets < 1:
        raise ValueError(f"subsets={subsets}: must be at least 1")
    if size < 2:
        raise ValueError(f"size={size}: must be at least 2")
    values = []
    for number in range(subsets if max(len(a), len(b)) > size else 1):  # else each subset is the whole
        x, y = (
            part[permutation(key(seed, "subset", name, number), len(part))[:size].to(part.device)].double()
            for name, part in (("a", a), ("b", b))
        )
        within = sum(
            (kernel.sum() - kernel.trace()) / (len(kernel) * (len(kernel) - 1))  # no example beside itself: unbiased
            for kernel in (_cubic(x, x), _cubic(y, y))
        )
        values.append(within - 2 * _cubic(x, y).mean())
    found = torch.stack(values)
    return found.mean(), found.std(correction=0)


def _cubic(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def inception_style_score(probabilities: Tensor, *, splits: int = 1) -> tuple[Tensor, Tensor]:
    """exp of the mean of KL(p(y|x) ‖ p(y)), from 1 to K: its mean and standard deviation over `splits` equal parts.

    `probabilities` (N, K) are a classifier's for N pictures. High where each picture is of one class for sure, and the
    classes are even. T. Salimans et al. 2016, "Improved techniques for training GANs" (1606.03498), section 4.
    """
    if not 1 <= splits <= len(probabilities):
        raise ValueError(f"splits={splits}: must be from 1 to {len(probabilities)}, the number of pictures")
    scores = []
    for part in probabilities.double().tensor_split(splits):
        divergence = torch.xlogy(part, part) - torch.xlogy(part, part.mean(0))  # 0 log 0 = 0
        scores.append(divergence.sum(1).mean().exp())
    found = torch.stack(scores)
    return found.mean(), found.std(correction=0)


def sliced_wasserstein(a: Tensor, b: Tensor, *, projections: int = 256, seed: int = 0) -> Tensor:
    """The sliced Wasserstein-2 distance of a (N, D) and b (M, D), over random directions: a scalar.

    J. Rabin et al. 2011, "Wasserstein barycenter and its application to texture mixing". On each direction the optimal
    transport joins equal quantiles; this is exact for N ≠ M too. The same seed takes the same directions.
    """
    _check(a=a, b=b)
    if projections < 1:
        raise ValueError(f"projections={projections}: must be at least 1")
    n, m = len(a), len(b)
    lines = normal(key(seed, "directions"), torch.arange(projections, device=a.device), a.shape[1]).double()
    lines = (lines / lines.norm(dim=1, keepdim=True)).T  # (D, projections)
    along_a, along_b = ((part.double() @ lines).sort(0).values for part in (a, b))
    # both quantile functions are steps; between two of these ends, in units of 1/(N·M), neither has one
    ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique().to(a.device)
    share = ends.diff(prepend=ends.new_zeros(1)).double() / (n * m)
    gaps = along_a[(ends - 1) // m] - along_b[(ends - 1) // n]
    return (share @ gaps.square()).mean().sqrt()


def nearest_neighbours(samples: Tensor, training: Tensor, *, chunk: int = 2048) -> tuple[Tensor, Tensor]:
    """The Euclidean distance of each of N samples to its nearest training example, (N,), and which one that is, (N,).

    Any shapes that agree behind the first dimension. `chunk` training examples are compared at a time.
    """
    samples, training = samples.flatten(1), training.flatten(1)
    _check(least=1, samples=samples, training=training)
    doubled = samples.double()
    best = doubled.new_full((len(samples),), torch.inf)
    where = torch.zeros(len(samples), dtype=torch.int64, device=samples.device)
    for start in range(0, len(training), chunk):
        part = training[start : start + chunk].double()
        # |x|² is the same for all of them, and is left out
        found, index = (part.square().sum(1) - 2 * doubled @ part.T).min(1)
        where = torch.where(found < best, index + start, where)
        best = torch.minimum(best, found)
    # from the difference itself, so that a copy is at 0
    parts = zip(doubled.split(chunk), where.split(chunk), strict=True)
    return torch.cat([(x - training[i].double()).norm(dim=1) for x, i in parts]), where


def class_balance(predictions: Tensor, num_classes: int) -> Tensor:
    """How often each class is among `predictions` (N,), in even shares N/K: (K,); a missing one is 0."""
    counts = torch.bincount(predictions, minlength=num_classes)
    if len(counts) > num_classes:
        raise ValueError(f"num_classes={num_classes}: must be above every prediction, and {len(counts) - 1} is there")
    return counts.double() * num_classes / len(predictions)


def _check(*, least: int = 2, **sets: Tensor) -> None:
    width = list(sets.values())[-1].shape[-1]
    for name, part in sets.items():
        if part.ndim != 2 or part.shape[1] != width or len(part) < least:
            raise ValueError(
                f"{name}={tuple(part.shape)}: must be of shape (N, {width}), with N at least {least}, as the other set"
            )
