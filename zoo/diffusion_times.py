"""The times of a diffusion model in training: how they are drawn, and what is lost at which of them.

Shapes: B examples.
"""

import torch
from torch import Tensor
from torchmetrics import Metric

from zoo.randomness import uniform

PARTS = 4
GOLDEN = 0x9E3779B9  # 2^32 divided by the golden ratio


def spread_times(seed: int, positions: Tensor, timesteps: int) -> Tensor:
    """Times (B,) int64, uniform over 0 … timesteps − 1, from `seed` = `key(…)` and positions (B,).

    A point of [0, 1) that the seed chooses, plus position × golden ratio, modulo 1: each time is as likely as any, and
    positions that follow each other lie evenly over all times, so that the loss of a batch varies less (as with
    Kingma et al. 2021, 2107.00630, appendix I.1, but whatever the batches). In integers: the same on all devices.
    """
    begin = (uniform(seed, torch.zeros_like(positions[:1]), 1)[:, 0] * 2**32).long()
    return (((positions * GOLDEN + begin) & 0xFFFFFFFF) * timesteps) >> 32


class LossByTime(Metric):
    """The mean loss of each quarter of the times, `loss_t0` (hardly any noise) to `loss_t3` (hardly any picture)."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, timesteps: int) -> None:
        super().__init__()
        self.timesteps = timesteps
        for name in ("total", "count"):
            self.add_state(name, torch.zeros(PARTS), dist_reduce_fx="sum")

    def update(self, losses: Tensor, time: Tensor) -> None:
        """Losses and times (B,) of a batch."""
        part = time * PARTS // self.timesteps
        belongs = (part[:, None] == torch.arange(PARTS, device=part.device)).float()  # (B, PARTS)
        self.total += (losses.float()[:, None] * belongs).sum(0)  # not a product of matrices, which would be in bf16
        self.count += belongs.sum(0)

    def compute(self) -> dict[str, Tensor]:
        """A quarter in which no example fell has no loss: it is left out."""
        means, occurs = self.total / self.count, (self.count > 0).tolist()
        return {f"loss_t{i}": means[i] for i in range(PARTS) if occurs[i]}
