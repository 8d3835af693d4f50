"""What a generative adversarial network scores on a split, in which neither loss tells how good the pictures are.

Shapes: B examples, C channels, H×W pixels.
"""

import torch
from torch import Tensor
from torchmetrics import Metric

from zoo.frechet import sliced_wasserstein
from zoo.randomness import key, uniform

PICTURES = 2000  # of a split that are compared with as many samples


class GanScores(Metric):
    """Both losses over a split, and how far samples are from its pictures, as pixels from 0 to 1.

    sliced_wasserstein: between at most 2,000 pictures, chosen by their index, and as many samples (J. Rabin et al.
    2011). spread: the standard deviation of the samples around their mean picture, in that of the pictures around
    theirs; 1 is right, near 0 all samples are alike.
    """

    losses: Tensor
    count: Tensor
    order: list[Tensor]
    real: list[Tensor]
    fake: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("losses", torch.zeros(2), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(()), dist_reduce_fx="sum")
        for name in ("order", "real", "fake"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, losses: Tensor, real: Tensor, fake: Tensor, position: Tensor) -> None:
        """`losses` (2,) of the batch's discriminator and generator; pictures (B, C, H, W); `position` (B,)."""
        self.losses += len(position) * losses
        self.count += len(position)
        order = uniform(key("compared pictures"), position, 1)[:, 0]  # the same pictures whatever the batch size
        self.order, self.real, self.fake = self.first([*self.order, order], [*self.real, real], [*self.fake, fake])

    def first(self, order: list[Tensor], *parts: list[Tensor]) -> tuple[list[Tensor], ...]:
        """The first `PICTURES` by `order`, of each."""
        chosen = torch.cat(order).argsort(stable=True)[:PICTURES]
        return tuple([torch.cat(part)[chosen]] for part in (order, *parts))

    def compute(self) -> dict[str, Tensor]:
        states = ([part] if isinstance(part, Tensor) else part for part in (self.order, self.real, self.fake))
        _, (real,), (fake,) = self.first(*states)
        discriminator, generator = self.losses / self.count
        return {
            "discriminator_loss": discriminator,
            "generator_loss": generator,
            # on the CPU, as Apple GPUs have no float64
            "sliced_wasserstein": sliced_wasserstein(real.flatten(1).cpu(), fake.flatten(1).cpu()),
            "spread": (fake.var(0, correction=0).mean() / real.var(0, correction=0).mean()).sqrt(),
        }
