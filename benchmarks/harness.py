"""What the harness adds to an optimisation step, over a loop written by hand on the same batches.

    python benchmarks/harness.py            # MLP 784-128-10 and LeNet-5, batch 64, epochs of 1,000 steps
    python benchmarks/harness.py rounds=9

Everything is on: TensorBoard, metrics.csv, checkpoints, validation, progress lines, gradient norm, schedule, seeding of
layer noise. The hand-written loop does forward, loss, backward and step, and nothing else. The two alternate, epoch by
epoch; medians are reported. Run it on an otherwise idle machine.
"""

import contextlib
import io
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import Callback
from torch import nn

from zoo.checkpoint import Checkpoints
from zoo.data.arrays import ArraySplit
from zoo.data.module import DataModule
from zoo.logs import MetricsCSV, TensorBoard
from zoo.models.lenet import LeNet5
from zoo.models.mlp import MLP
from zoo.progress import EpochLines
from zoo.report import quieten_lightning
from zoo.run import NoProfiler, make_trainer, skip_unused_hooks
from zoo.schedules import Cosine
from zoo.tasks.classification import Classification
from zoo.tasks.engine import Optimization

STEPS, BATCH = 1000, 64


class RandomImages(DataModule):
    """64,000 random images in memory, 500 for validation."""

    def read(self) -> None:
        generator = torch.Generator().manual_seed(0)
        for name, size in (("train", STEPS * BATCH), ("val", 500)):
            inputs = torch.randint(0, 256, (size, 1, 28, 28), dtype=torch.uint8, generator=generator)
            self.splits[name] = ArraySplit(inputs, torch.randint(0, 10, (size,), generator=generator))


class EpochTimes(Callback):
    """Seconds from each epoch's start to the next one's: training, validation, logs and checkpoints."""

    def __init__(self) -> None:
        self.starts: list[float] = []

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.starts.append(time.perf_counter())


def harness_epoch(network: nn.Module, data: DataModule) -> float:
    """Seconds of the second of three epochs with everything on."""
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(name)
        optimization = Optimization(optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3), schedule=Cosine())
        task = Classification(network, optimization=optimization, facts={"num_classes": 10})
        times = EpochTimes()
        checkpoints = Checkpoints(folder, {}, monitor=task.monitor, mode=task.mode, every_n_steps=None)
        options = {"accelerator": "cpu", "max_epochs": 3, "max_steps": -1, "profiler": NoProfiler()}
        loggers = [MetricsCSV(folder), TensorBoard(folder)]
        trainer = make_trainer(options, folder=folder, logger=loggers, callbacks=[checkpoints, EpochLines(), times])
        skip_unused_hooks(trainer, task)
        trainer.fit(task, datamodule=data)
        loggers[1].close()
        return times.starts[2] - times.starts[1]


def hand_epoch(network: nn.Module, data: DataModule) -> float:
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    network.train()
    loader = data.loader("train", training=True)
    for warm_up in (True, False):
        start = time.perf_counter()
        for number, batch in enumerate(loader):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(network(batch["input"]), batch["target"]).backward()
            optimizer.step()
            if warm_up and number == 100:
                break
    return time.perf_counter() - start


def main(words: list[str]) -> None:
    rounds = int(dict(word.split("=") for word in words).get("rounds", 5))
    quieten_lightning()
    data = RandomImages(batch_size=BATCH)
    data.setup()
    print(f"ms a step, medians of {rounds} rounds of {STEPS} steps; ratio: by hand / harness")
    print(f"{'network':<20}{'by hand':>12}{'harness':>12}{'added':>12}{'ratio':>8}")
    networks = {
        "MLP 784-128-10": lambda: MLP(in_features=784, num_classes=10, hidden=[128]),
        "LeNet-5": lambda: LeNet5(in_channels=1, num_classes=10, image_size=28),
    }
    for name, make in networks.items():
        pairs = [(hand_epoch(make(), data), harness_epoch(make(), data)) for _ in range(rounds)]
        hand, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
        added = statistics.median(b - a for a, b in pairs)
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"{name:<20}{hand:>12.3f}{ours:>12.3f}{added:>12.3f}{ratio:>8.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
