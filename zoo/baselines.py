"""What a generator's numbers stand beside: real pictures, and pictures of what no network has learnt.

Shapes: N pictures, C channels, H×W pixels. Pictures are uint8, of 256 levels, as a file has them.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from zoo.generators import levels
from zoo.randomness import key, normal, permutation, uniform

FITTED = 5000  # training pictures that the Gaussians are fitted to, at most


def make_baselines(training: Tensor, n: int, seed: int) -> Iterator[tuple[str, Tensor]]:
    """`n` training pictures, and `n` of noise, of a Gaussian for each pixel and of one for all pixels together."""
    numbers, shape = torch.arange(n), (n, *training.shape[1:])
    fitted = training[permutation(key(seed, "fitted"), len(training))[:FITTED]].flatten(1) / 255
    mean, width = fitted.mean(0), fitted.shape[1]
    yield "training", training[permutation(key(seed, "bound"), len(training))[:n]]
    yield "uniform_noise", levels(uniform(key(seed, "uniform noise"), numbers, width).view(shape))
    draws = normal(key(seed, "pixel Gaussian"), numbers, width)
    yield "pixel_gaussian", levels((mean + fitted.std(0) * draws).view(shape))
    # a Gaussian with all principal components of the pictures: a sum of them with random weights has their covariance
    draws = normal(key(seed, "PCA Gaussian"), numbers, len(fitted))
    yield "pca_gaussian", levels((mean + draws @ (fitted - mean) / (len(fitted) - 1) ** 0.5).view(shape))
