"""What the image networks cost: the harness on ResNet-18, `fast=true`, a step against torchvision's, construction.

    python benchmarks/networks.py            # everything, about six minutes on two cores
    python benchmarks/networks.py harness    # one of harness, fast, torchvision, construction

Runs alternate, medians are reported. Run it on an otherwise idle machine.
"""

import contextlib
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn

from zoo.checkpoint import Checkpoints
from zoo.data.arrays import ArraySplit
from zoo.data.module import DataModule
from zoo.logs import MetricsCSV, TensorBoard
from zoo.models.alexnet import AlexNet
from zoo.models.inception_v1 import googlenet
from zoo.models.inception_v3 import InceptionV3
from zoo.models.resnet import resnet18, resnet50
from zoo.models.vgg import vgg11_bn
from zoo.progress import EpochLines
from zoo.report import quieten_lightning
from zoo.run import NoProfiler, make_trainer, skip_unused_hooks
from zoo.schedules import Cosine
from zoo.tasks.classification import Classification
from zoo.tasks.engine import Optimization

BATCH, STEPS = 64, 25


class ColourImages(DataModule):
    """Random colour pictures of 32×32 in memory."""

    def read(self) -> None:
        generator = torch.Generator().manual_seed(0)
        for name, size in (("train", STEPS * BATCH), ("val", BATCH)):
            inputs = torch.randint(0, 256, (size, 3, 32, 32), dtype=torch.uint8, generator=generator)
            self.splits[name] = ArraySplit(inputs, torch.randint(0, 10, (size,), generator=generator))


class StepTimes(Callback):
    """Seconds from the start of an epoch's training to its end, validation and checkpoints left out."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.start = time.perf_counter()

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self.seconds.append(time.perf_counter() - self.start)


def harness_epoch(network: nn.Module, data: DataModule, precision: str = "32-true") -> float:
    """Seconds of the second epoch with everything on."""
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(name)
        optimization = Optimization(optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3), schedule=Cosine())
        task = Classification(network, optimization=optimization, facts={"num_classes": 10})
        times = StepTimes()
        checkpoints = Checkpoints(folder, {}, monitor=task.monitor, mode=task.mode, every_n_steps=None)
        options = {"accelerator": "cpu", "max_epochs": 2, "max_steps": -1, "precision": precision}
        options["profiler"] = NoProfiler()
        loggers = [MetricsCSV(folder), TensorBoard(folder)]
        trainer = make_trainer(options, folder=folder, logger=loggers, callbacks=[checkpoints, EpochLines(), times])
        skip_unused_hooks(trainer, task)
        trainer.fit(task, datamodule=data)
        loggers[1].close()
        return times.seconds[1]


def hand_epoch(network: nn.Module, data: DataModule) -> float:
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    network.train()
    loader = data.loader("train", training=True)
    for _ in range(2):
        start = time.perf_counter()
        for batch in loader:
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(network(batch["input"]), batch["target"]).backward()
            optimizer.step()
    return time.perf_counter() - start


def small_resnet18() -> nn.Module:
    return resnet18(num_classes=10, image_size=32)


def alternate(first: Callable[[], float], second: Callable[[], float], rounds: int) -> tuple[float, float, float]:
    """The medians of both, and of the ratio first / second, of alternating calls."""
    pairs = [(first(), second()) for _ in range(rounds)]
    one, two = (statistics.median(column) for column in zip(*pairs, strict=True))
    return one, two, statistics.median(a / b for a, b in pairs)


def harness() -> None:
    data = ColourImages(batch_size=BATCH)
    data.setup()
    hand, ours, ratio = alternate(
        lambda: hand_epoch(small_resnet18(), data), lambda: harness_epoch(small_resnet18(), data), 3
    )
    print(f"ResNet-18 at 32×32, batch {BATCH}, seconds a step, ratio by hand / harness")
    print(f"by hand {hand / STEPS:.3f}, harness {ours / STEPS:.3f}, ratio {ratio:.3f}")


def fast() -> None:
    data = ColourImages(batch_size=BATCH)
    data.setup()

    def in_bf16() -> float:
        return harness_epoch(small_resnet18().to(memory_format=torch.channels_last), data, "bf16-mixed")

    plain, quick, ratio = alternate(lambda: harness_epoch(small_resnet18(), data), in_bf16, 3)
    print(f"fast=true on the same: {plain / STEPS:.3f} s a step, fast {quick / STEPS:.3f}, {ratio:.2f} times as fast")


def step_seconds(network: nn.Module, images: Tensor, targets: Tensor) -> float:
    """One forward and backward pass."""
    start = time.perf_counter()
    output = network(images)
    if isinstance(output, dict):
        loss = sum(
            (F.cross_entropy(logits, targets) for logits in output["aux"]), F.cross_entropy(output["logits"], targets)
        )
    elif isinstance(output, Tensor):
        loss = F.cross_entropy(output, targets)
    else:
        loss = sum((F.cross_entropy(logits, targets) for logits in output if logits is not None), torch.zeros(()))
    loss.backward()
    return time.perf_counter() - start


TWINS: dict[str, tuple[Callable[..., nn.Module], Callable[..., nn.Module], int]] = {
    "alexnet": (AlexNet, torchvision.models.alexnet, 128),
    "vgg11_bn": (vgg11_bn, torchvision.models.vgg11_bn, 64),
    "resnet18": (resnet18, torchvision.models.resnet18, 128),
    "resnet50": (resnet50, torchvision.models.resnet50, 96),
    "googlenet": (googlenet, lambda: torchvision.models.googlenet(init_weights=False), 128),
    "inception_v3": (InceptionV3, lambda: torchvision.models.inception_v3(init_weights=False), 299),
}


def against_torchvision(rounds: int = 7) -> None:
    """Seconds of a training step, batch 8: ours over torchvision's."""
    for name, (make_ours, make_theirs, size) in TWINS.items():
        ours, theirs = make_ours(image_size=max(size, 75)), make_theirs()
        images, targets = torch.randn(8, 3, size, size), torch.arange(8)
        for network in (ours, theirs):
            step_seconds(network, images, targets)
        pairs = [(step_seconds(ours, images, targets), step_seconds(theirs, images, targets)) for _ in range(rounds)]
        one, two = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in pairs)
        print(
            f"{name:<14} {size} px: {one * 1e3:7.1f} ms, torchvision {two * 1e3:7.1f} ms, ratio {ratio:.3f}", flush=True
        )


def construction() -> None:
    def seconds(make: Callable[[], object]) -> float:
        start = time.perf_counter()
        make()
        return time.perf_counter() - start

    def median(make: Callable[[], object]) -> float:
        return statistics.median(seconds(make) for _ in range(5))

    print(f"inception_v3 built in {median(InceptionV3):.2f} s; torchvision's with its initialiser in", end=" ")
    print(f"{median(lambda: torchvision.models.inception_v3(init_weights=True)):.2f} s, without in", end=" ")
    print(f"{median(lambda: torchvision.models.inception_v3(init_weights=False)):.2f} s")


PARTS = {"harness": harness, "fast": fast, "torchvision": against_torchvision, "construction": construction}

if __name__ == "__main__":
    quieten_lightning()
    for chosen in sys.argv[1:] or PARTS:
        PARTS[chosen]()
