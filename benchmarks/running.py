"""Training steps timed from the loader's side: in `zoo.run.run` with everything on, and in a loop written by hand.

Both ask the same loader for batches, and it notes when. A step is the time from one request to the next, so that
whatever a loop does between two batches counts, and nothing has to be built into it.
"""

import copy
import io
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.build import build
from zoo.checks import check
from zoo.network import construct
from zoo.report import to_plain
from zoo.run import fill_facts, run
from zoo.tasks.base import Batch

HandStep = Callable[[Batch], None]
OptimizerOf = Callable[[Any], torch.optim.Optimizer]
# everything is on but pictures, which come at an epoch's end
COMMON = ("logger.pictures=false", "trainer.gradient_clip_val=null", "ema_decay=null", "seed=0")


class Workload:
    """A run's config and its data, read once, for runs whose training steps are timed."""

    def __init__(self, words: Sequence[str]) -> None:
        job = check([*words, *COMMON])
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            self.data: Any = build(to_plain(job.config.data), "data")()
            fill_facts(job.config, self.data)
            self.data.setup("fit")
            self.data.train_examples = job.config.train_examples
        if job.choices["data"] == "synthetic":  # learnt by heart in an epoch; then gradients are denormal, steps slow
            split = self.data.splits["train"]
            split.targets = split.targets[torch.randperm(len(split), generator=torch.Generator().manual_seed(0))]
        self.config, self.choices = to_plain(job.config), job.choices
        if self.config["fast"]:
            self.config["trainer"]["precision"] = "bf16-mixed"
        self.asked: list[tuple[int, float]] = []  # epoch and time of each request for a training batch
        self.after_batch: Callable[[], None] | None = None
        self._loader, self.data.loader = self.data.loader, self._noting_loader

    def _noting_loader(self, split: str, *, training: bool = False) -> Any:
        loader = self._loader(split, training=training)
        if training:
            make = loader.split.batch

            def batch(epoch: int, positions: Tensor, indices: Tensor) -> Batch:
                self.asked.append((epoch, time.perf_counter()))
                if self.after_batch is not None:
                    self.after_batch()
                return make(epoch, positions, indices)

            loader.split = copy.copy(loader.split)
            loader.split.batch = batch
        return loader

    def times(self, epoch: int) -> list[float]:
        return [at for number, at in self.asked if number == epoch]

    def harness(self, **trainer: Any) -> dict[str, float]:
        """Train with everything on, in a folder that is deleted; returns the scores. `trainer` replaces its values."""
        self.asked.clear()
        config = copy.deepcopy(self.config)
        config["trainer"] |= trainer
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            return run(config, Path(folder), data=self.data, choices=self.choices)

    def by_hand(self, start: Callable[[Any, OptimizerOf], HandStep], *, epochs: int, steps: int, warm_up: int) -> None:
        """Train by hand: `start` makes the step from the network and what makes its optimizer."""
        self.asked.clear()
        network: nn.Module = construct(self.config)
        step = start(network, lambda parameters: build(self.config["optimizer"], "optimizer")(parameters))
        network.train()
        loader = self.data.loader("train", training=True)
        for epoch in range(epochs):
            loader.sampler.set_epoch(epoch)
            for batch in islice(loader, steps if epoch else min(warm_up, steps)):
                step(batch)
        self.asked.append((epochs, time.perf_counter()))


def descend(loss: Callable[[Any, Batch], Tensor]) -> Callable[[Any, OptimizerOf], HandStep]:
    """The step everybody writes: gradients of a loss, one optimizer."""

    def start(network: Any, optimizer_of: OptimizerOf) -> HandStep:
        optimizer = optimizer_of(network.parameters())

        def step(batch: Batch) -> None:
            optimizer.zero_grad(set_to_none=True)
            loss(network, batch).backward()
            optimizer.step()

        return step

    return start
