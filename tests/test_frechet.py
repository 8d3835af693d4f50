"""The distances against closed forms, against scipy, and against the definitions written out in loops."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from zoo.frechet import (
    class_balance,
    frechet_distance,
    frechet_of_features,
    inception_style_score,
    kernel_distance,
    nearest_neighbours,
    sliced_wasserstein,
)
from zoo.randomness import key, normal, uniform


def gaussian(name: str, n: int, d: int) -> Tensor:
    return normal(key(name), torch.arange(n), d).double()


def covariance(name: str, d: int, rank: int) -> Tensor:
    factor = gaussian(name, d, rank)
    return factor @ factor.T


# Fréchet distance -----------------------------------------------------------------------------------------------------


def test_frechet_distance_of_diagonal_gaussians_is_the_closed_form() -> None:
    mean1, mean2 = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 0.0, 3.5])
    deviation1, deviation2 = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([3.0, 2.0, 0.5])
    expected = 2.0**2 + 0.5**2 + 2.0**2 + 0.5**2  # means, then deviations
    found = frechet_distance(mean1, deviation1.square().diag(), mean2, deviation2.square().diag())
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("ranks", [(12, 15), (30, 20)])
def test_frechet_distance_is_that_of_scipys_matrix_root(ranks: tuple[int, int]) -> None:
    cov1, cov2 = covariance("one", 12, ranks[0]), covariance("two", 12, ranks[1])
    mean1, mean2 = gaussian("mean", 2, 12)
    root = sqrtm((cov1 @ cov2).numpy()).real
    expected = (mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * np.trace(root)
    assert frechet_distance(mean1, cov1, mean2, cov2).item() == pytest.approx(expected.item(), rel=1e-9)


def test_frechet_distance_of_singular_covariances() -> None:
    """In a rotated basis the two Gaussians are diagonal, with directions in which one or both are flat."""
    basis = torch.linalg.qr(gaussian("basis", 6, 6)).Q
    deviation1 = torch.tensor([3.0, 2.0, 0.0, 0.0, 1.0, 0.0]).double()
    deviation2 = torch.tensor([1.0, 0.0, 2.0, 0.0, 1.0, 0.0]).double()
    cov1, cov2 = ((basis * deviation.square()) @ basis.T for deviation in (deviation1, deviation2))
    zero = torch.zeros(6)
    found = frechet_distance(zero, cov1, zero, cov2).item()
    assert found == pytest.approx((deviation1 - deviation2).square().sum().item(), rel=1e-6)


@pytest.mark.parametrize("rank", [3, 20])
def test_frechet_distance_of_a_gaussian_from_itself_is_zero(rank: int) -> None:
    cov, mean = covariance("one", 20, rank), gaussian("mean", 1, 20)[0]
    assert 0 <= frechet_distance(mean, cov, mean, cov).item() < 1e-6 * cov.trace()


def test_frechet_of_features_takes_means_and_unbiased_covariances() -> None:
    a, b = gaussian("a", 40, 5), 2 * gaussian("b", 30, 5) + 1
    covs = [torch.from_numpy(np.cov(part.numpy(), rowvar=False)) for part in (a, b)]
    expected = frechet_distance(a.mean(0), covs[0], b.mean(0), covs[1])
    torch.testing.assert_close(frechet_of_features(a.float(), b.float()), expected, rtol=1e-5, atol=0)


def test_features_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a=\(4, 3\): must be of shape \(N, 5\), with N at least 2"):
        frechet_of_features(torch.zeros(4, 3), torch.zeros(4, 5))
    with pytest.raises(ValueError, match=r"b=\(1, 5\): must be"):
        kernel_distance(torch.zeros(4, 5), torch.zeros(1, 5))
    with pytest.raises(ValueError, match=r"samples=\(4, 3\): must be of shape \(N, 5\), with N at least 1"):
        nearest_neighbours(torch.zeros(4, 3), torch.zeros(4, 5))


# Kernel distance ------------------------------------------------------------------------------------------------------


def test_kernel_distance_is_the_sum_over_pairs() -> None:
    a, b = gaussian("a", 7, 3), gaussian("b", 5, 3) + 1

    def mean(x: Tensor, y: Tensor, same: bool) -> float:
        pairs = [(i, j) for i in range(len(x)) for j in range(len(y)) if not (same and i == j)]
        return sum((float(x[i] @ y[j]) / 3 + 1) ** 3 for i, j in pairs) / len(pairs)

    expected = mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, False)
    found, deviation = kernel_distance(a, b, subsets=3)
    assert found.item() == pytest.approx(expected, rel=1e-12)
    assert deviation.item() == pytest.approx(0, abs=1e-12)  # each subset is the whole


def test_kernel_distance_over_subsets_is_unbiased_and_varies() -> None:
    a, b = gaussian("a", 60, 2), gaussian("b", 50, 2) + 0.5
    whole, _ = kernel_distance(a, b, subsets=1)
    found, deviation = kernel_distance(a, b, subsets=400, size=10)
    assert abs(found - whole) < 4 * deviation / 400**0.5
    assert deviation > 0
    assert kernel_distance(a, b, subsets=4, size=10) == kernel_distance(a, b, subsets=4, size=10)
    assert kernel_distance(a, b, subsets=4, size=10) != kernel_distance(a, b, subsets=4, size=10, seed=1)


@pytest.mark.parametrize(("wrong", "message"), [({"subsets": 0}, "subsets=0"), ({"size": 1}, "size=1")])
def test_kernel_distance_refuses_subsets_without_pairs(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=f"{message}: must be at least"):
        kernel_distance(torch.zeros(4, 2), torch.zeros(4, 2), **wrong)


# Score and balance ----------------------------------------------------------------------------------------------------


def test_score_is_the_exponential_of_the_mean_divergence() -> None:
    probabilities = uniform(key("p"), torch.arange(9), 4).double()
    probabilities = probabilities / probabilities.sum(1, keepdim=True)

    def score(part: Tensor) -> float:
        marginal = part.mean(0)
        rows = [sum(p * math.log(p / q) for p, q in zip(row, marginal.tolist(), strict=True)) for row in part.tolist()]
        return math.exp(sum(rows) / len(rows))

    parts = [score(probabilities[i : i + 3]) for i in (0, 3, 6)]
    assert inception_style_score(probabilities)[0].item() == pytest.approx(score(probabilities), rel=1e-12)
    mean, deviation = inception_style_score(probabilities, splits=3)
    assert mean.item() == pytest.approx(np.mean(parts), rel=1e-12)
    assert deviation.item() == pytest.approx(np.std(parts), rel=1e-9)


def test_score_is_k_for_sure_and_even_classes_and_1_where_all_look_alike() -> None:
    assert inception_style_score(torch.eye(5).repeat(3, 1))[0].item() == pytest.approx(5)
    assert inception_style_score(torch.eye(5)[:1].repeat(6, 1))[0].item() == pytest.approx(1)
    with pytest.raises(ValueError, match="splits=6: must be from 1 to 5"):
        inception_style_score(torch.eye(5), splits=6)


def test_class_balance_counts_in_even_shares() -> None:
    assert class_balance(torch.tensor([0, 0, 0, 2]), 4).tolist() == [3, 0, 1, 0]
    with pytest.raises(ValueError, match="num_classes=2: must be above every prediction, and 3 is there"):
        class_balance(torch.tensor([0, 3]), 2)


# Sliced Wasserstein ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m"), [(6, 6), (4, 6), (5, 3)])
def test_sliced_wasserstein_joins_equal_quantiles(n: int, m: int) -> None:
    """Repeated to equal counts, the sorted examples are joined one to one."""
    a, b = gaussian("a", n, 3), 2 * gaussian("b", m, 3) + 1
    lines = normal(key(7, "directions"), torch.arange(20), 3).double()
    squares = []
    for line in lines / lines.norm(dim=1, keepdim=True):
        x, y = (a @ line).repeat_interleave(m).sort().values, (b @ line).repeat_interleave(n).sort().values
        squares.append((x - y).square().mean())
    found = sliced_wasserstein(a, b, projections=20, seed=7)
    torch.testing.assert_close(found, torch.stack(squares).mean().sqrt(), rtol=1e-12, atol=0)


def test_sliced_wasserstein_of_a_shift_is_its_length_over_the_root_of_the_dimension() -> None:
    a, shift = gaussian("a", 50, 4), torch.tensor([3.0, 0, 0, 4.0]).double()
    assert sliced_wasserstein(a, a + shift, projections=4000).item() == pytest.approx(5 / 2, rel=0.03)
    assert sliced_wasserstein(a, a.flip(0)).item() < 1e-12
    assert sliced_wasserstein(a, a[:20]) == sliced_wasserstein(a, a[:20])
    assert sliced_wasserstein(a, a[:20], seed=1) != sliced_wasserstein(a, a[:20])
    with pytest.raises(ValueError, match="projections=0: must be at least 1"):
        sliced_wasserstein(a, a, projections=0)


# Nearest neighbours ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_nearest_neighbours_are_those_of_all_pairs(chunk: int) -> None:
    samples, training = gaussian("s", 6, 12).view(6, 3, 2, 2), gaussian("t", 11, 12).view(11, 3, 2, 2)
    pairs = [[(x - y).norm().item() for y in training] for x in samples]
    distances, where = nearest_neighbours(samples, training, chunk=chunk)
    assert where.tolist() == [row.index(min(row)) for row in pairs]
    assert distances.tolist() == pytest.approx([min(row) for row in pairs], rel=1e-12)


def test_a_copy_is_at_distance_zero() -> None:
    training = (uniform(key("t"), torch.arange(30), 784) * 255).to(torch.uint8)
    distances, where = nearest_neighbours(training[[4, 17]], training)
    assert distances.tolist() == [0, 0]
    assert where.tolist() == [4, 17]
