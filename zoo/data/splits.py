"""Which examples go where: seeded parts in which each class keeps its share, and small parts with as many of each."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.randomness import key, permutation


def stratified(targets: Tensor, held_out: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """A seeded split in which each class of `targets` (N,) keeps its share: indices (N - held_out,) and (held_out,).

    Both parts are shuffled, so that the first examples of a part show all of its classes.
    """
    order, rank = _ranked(targets, key(seed, "split"))
    chosen = torch.zeros(len(targets), dtype=torch.bool)
    chosen[order[torch.argsort(rank[order], stable=True)[:held_out]]] = True
    return order[~chosen[order]], order[chosen[order]]


def _ranked(targets: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """A random order of the examples, and each one's place in its class by that order, as a fraction of the class."""
    order = permutation(seed, len(targets))
    rank = torch.empty(len(targets), dtype=torch.float64)
    for label in targets.unique():
        members = order[targets[order] == label]
        rank[members] = torch.arange(len(members), dtype=torch.float64) / len(members)
    return order, rank


def folded(targets: Tensor, folds: int, fold: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """The indices of all but one of `folds` parts, and of part `fold`: of every class each part has its share.

    Each example is in one part; the sizes of parts differ by one at most. Targets that are no classes (N, K) do not
    weigh: the parts are random. Both results are shuffled.
    """
    classes = targets if targets.dtype == torch.int64 and targets.ndim == 1 else torch.zeros(len(targets))
    order, rank = _ranked(classes, key(seed, "folds"))
    dealt = order[torch.argsort(rank[order], stable=True)]  # the first of every class, then the second of every class …
    part = torch.empty(len(targets), dtype=torch.int64)
    part[dealt] = torch.arange(len(targets)) * folds // len(targets)
    return order[part[order] != fold], order[part[order] == fold]


@dataclass(kw_only=True, eq=False)
class Folds:
    """Cross-validation, for data sets whose examples are independent: two arguments, and what they do to a split.

    With `folds`, training and validation are one pool, by `split_seed` cut into as many parts, of which part number
    `fold` is for validation. The test split stays as it is.
    """

    folds: int | None = None
    fold: int | None = None

    def chosen_fold(self, examples: int) -> tuple[int, int] | None:
        """`folds` and `fold`, if given; ValueError where they do not fit each other and a pool of so many examples."""
        if self.folds is None and self.fold is not None:
            raise ValueError(f"data.fold={self.fold}: must be null, as there are no data.folds; add data.folds=5")
        if self.folds is None:
            return None
        if not 2 <= self.folds <= examples:
            raise ValueError(f"data.folds={self.folds}: must be from 2 to {examples}, the number of examples")
        if self.fold is None or not 0 <= self.fold < self.folds:
            numbers = ",".join(map(str, range(self.folds)))
            raise ValueError(
                f"data.fold={self.fold}: must be one of {numbers}; all of them are the sweep -m data.fold={numbers}"
            )
        return self.folds, self.fold

    def refold(self, indices: Mapping[str, Tensor], targets: Tensor, *, seed: int) -> dict[str, Tensor]:
        """The splits' examples, as indices of `targets`, with the fold for validation; as they are without `folds`."""
        if "train" not in indices or "val" not in indices:
            return dict(indices)
        pool = torch.cat([indices["train"], indices["val"]])
        if (chosen := self.chosen_fold(len(pool))) is None:
            return dict(indices)
        train, val = folded(targets[pool], *chosen, seed=seed)
        return {**indices, "train": pool[train], "val": pool[val]}


def balanced(targets: Tensor, count: int) -> Tensor:
    """Indices (count,), ascending, of the first examples of each class: as many of each as can be.

    A class that has too few gives all it has, and the others make up for it. A smaller part is within a larger one.
    """
    by_class = targets.argsort(stable=True)
    sizes = torch.bincount(targets)
    place = torch.empty_like(by_class)  # within its class
    place[by_class] = torch.arange(len(targets)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return place.argsort(stable=True)[:count].sort().values
