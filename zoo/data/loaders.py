"""Loaders whose order and randomness are a function of (seed, epoch, position), in memory or through workers.

A `Split` makes a batch from indices; a `PositionSampler` says which indices come when; a `Loader` joins the two, in
this process (data in memory) or in worker processes (data on disk). Both give the same batches, and both can start in
the middle of an epoch, which is all that exact resuming needs.
"""

import signal
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from zoo.errors import ZooError
from zoo.randomness import key, permutation

Batch = dict[str, Tensor]
Plan = tuple[int, Tensor, Tensor]  # epoch, positions (B,), indices (B,)


class Split(Protocol):
    """One of train, val, test: a number of examples and a way to make a batch of them."""

    augment: Any  # None, or what changes training examples; evaluation sets it to None

    def __len__(self) -> int: ...

    def batch(self, epoch: int, positions: Tensor, indices: Tensor) -> Batch:
        """Make the batch of the examples `indices` (B,); augmentation may depend on `epoch` and `positions` only."""
        ...


class PositionSampler:
    """The batches of one epoch of the examples `indices` (N,) as (epoch, positions, indices), shuffled or in order.

    With several processes each takes every world_size-th position of the global batch, so that together they see what
    one process would. A training batch that would hold a single example, or none for a process, is left out: batch
    statistics need two. In evaluation the batch before takes such a rest; where there is none before, or a batch has no
    example for each, all processes see the whole split, and `world_size` is 1.
    """

    def __init__(
        self,
        indices: Tensor,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: must be at least 1")
        if shuffle and batch_size < world_size:
            raise ValueError(f"batch_size={batch_size}: must be at least the number of processes, {world_size}")
        self.indices, self.batch_size, self.seed, self.shuffle = indices, batch_size, seed, shuffle
        is_shared = shuffle or min(batch_size, len(indices)) >= world_size
        self.rank, self.world_size = (rank, world_size) if is_shared else (0, 1)
        self.epoch = 0
        self.resume_at = (0, 0)  # (epoch, batch): where a resumed run begins

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        full, rest = divmod(len(self.indices), self.batch_size)
        if self.shuffle:
            return full + (rest >= max(2, self.world_size))
        return max(full + (rest >= self.world_size), min(rest, 1))

    def __iter__(self) -> Iterator[Plan]:
        epoch, size = self.epoch, len(self.indices)
        order = self.indices[permutation(key(self.seed, "order", epoch), size)] if self.shuffle else self.indices
        positions = torch.arange(size)
        first = self.resume_at[1] if self.resume_at[0] == epoch else 0
        for batch in range(first, len(self)):
            is_last = not self.shuffle and batch == len(self) - 1
            end = size if is_last else (batch + 1) * self.batch_size
            part = slice(batch * self.batch_size + self.rank, end, self.world_size)
            yield epoch, positions[part], order[part]


class _Fetch(Dataset):
    """Lets a DataLoader worker make a whole batch from one planned item."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __getitem__(self, plan: Plan) -> Batch | str:
        try:
            return self.split.batch(*plan)
        except ZooError as error:  # a DataLoader would wrap it in the worker's traceback
            return str(error)


def _start_worker(worker: int) -> None:
    """One thread each; Ctrl-C and SIGTERM are for the main process, which ends its workers."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Loader:
    """Iterable over the batches of a split; Lightning finds `sampler.set_epoch`, `state_dict` and `load_state_dict`."""

    def __init__(
        self, split: Split, sampler: PositionSampler, *, num_workers: int = 0, pin_memory: bool = False
    ) -> None:
        if num_workers < 0:
            raise ValueError(f"num_workers={num_workers}: must be 0 (this process) or more")
        self.split, self.sampler = split, sampler
        self.batch_sampler = None  # Lightning asks every loader that has a sampler for it
        self._workers: DataLoader | None = None
        if num_workers:
            self._workers = DataLoader(
                _Fetch(split),
                sampler=sampler,  # yields plans, not indices
                batch_size=None,
                num_workers=num_workers,
                persistent_workers=True,
                pin_memory=pin_memory,
                worker_init_fn=_start_worker,
                generator=torch.Generator().manual_seed(0),  # so that iterating never draws from the global generator
            )
        self._next = (0, 0)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        # A generator: its first line runs at the first `next`, after Lightning has called `set_epoch`.
        epoch = self.sampler.epoch
        first = self.sampler.resume_at[1] if self.sampler.resume_at[0] == epoch else 0
        batches = iter(self._workers) if self._workers else (self.split.batch(*plan) for plan in self.sampler)
        for number, batch in enumerate(batches, start=first):
            if isinstance(batch, str):
                raise ZooError(batch)
            self._next = (epoch, number + 1)
            yield batch
        self.sampler.resume_at = (0, 0)

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self._next[0], "batch": self._next[1]}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.sampler.resume_at = self._next = (state["epoch"], state["batch"])
