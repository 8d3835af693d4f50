"""What a variational autoencoder scores on a split: the evidence lower bound, its parts, and what its latents carry.

Shapes: B examples, Z latent dimensions.
"""

import math

import torch
from torch import Tensor
from torchmetrics import Metric

ACTIVE = 0.01  # a latent whose posterior mean varies more than this over the data carries something: Burda et al. 2016


class VaeScores(Metric):
    """nelbo, reconstruction, kl, bits_per_dimension, active_units of a split; nll, once `add_nll` was called.

    `kl_per_dimension` (Z,) is there after `compute`, for pictures.
    """

    full_state_update = False
    count: Tensor
    nats: Tensor
    kl: Tensor
    mean: Tensor
    square: Tensor
    nll: Tensor
    nll_count: Tensor

    def __init__(self, latent_size: int, dimensions: int) -> None:
        super().__init__()
        self.dimensions = dimensions  # C·H·W
        self.kl_per_dimension: Tensor | None = None
        for name in ("count", "nats", "nll", "nll_count"):
            self.add_state(name, torch.zeros(()), dist_reduce_fx="sum")
        for name in ("kl", "mean", "square"):
            self.add_state(name, torch.zeros(latent_size), dist_reduce_fx="sum")

    def update(self, nats: Tensor, kl: Tensor, mean: Tensor) -> None:
        """Negative ELBO (B,), KL (B, Z) and posterior mean (B, Z) of a batch."""
        self.count += len(nats)
        self.nats += nats.sum()
        self.kl += kl.sum(0)
        self.mean += mean.sum(0)
        self.square += mean.square().sum(0)

    def add_nll(self, nll: Tensor) -> None:
        self.nll += nll.sum()
        self.nll_count += len(nll)

    def compute(self) -> dict[str, Tensor]:
        nelbo, kl = self.nats / self.count, self.kl / self.count
        variance = self.square / self.count - (self.mean / self.count).square()
        self.kl_per_dimension = kl
        scores = {
            "nelbo": nelbo,
            "reconstruction": nelbo - kl.sum(),
            "kl": kl.sum(),
            "bits_per_dimension": nelbo / (self.dimensions * math.log(2)),
            "active_units": (variance > ACTIVE).sum(),
        }
        return scores | ({"nll": self.nll / self.nll_count} if self.nll_count else {})
