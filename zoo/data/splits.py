"""Which examples go where: seeded parts in which each class keeps its share, and small parts with as many of each."""

import torch
from torch import Tensor

from zoo.randomness import key, permutation


def stratified(targets: Tensor, held_out: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """A seeded split in which each class of `targets` (N,) keeps its share: indices (N - held_out,) and (held_out,).

    Both parts are shuffled, so that the first examples of a part show all of its classes.
    """
    order = permutation(key(seed, "split"), len(targets))
    rank = torch.empty(len(targets), dtype=torch.float64)  # the place within its class, as a fraction of the class
    for label in targets.unique():
        members = order[targets[order] == label]
        rank[members] = torch.arange(len(members), dtype=torch.float64) / len(members)
    chosen = torch.zeros(len(targets), dtype=torch.bool)
    chosen[order[torch.argsort(rank[order], stable=True)[:held_out]]] = True
    return order[~chosen[order]], order[chosen[order]]


def balanced(targets: Tensor, count: int) -> Tensor:
    """Indices (count,), ascending, of the first examples of each class: as many of each as can be.

    A class that has too few gives all it has, and the others make up for it. A smaller part is within a larger one.
    """
    by_class = targets.argsort(stable=True)
    sizes = torch.bincount(targets)
    place = torch.empty_like(by_class)  # within its class
    place[by_class] = torch.arange(len(targets)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return place.argsort(stable=True)[:count].sort().values
