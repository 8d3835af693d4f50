"""What the harness adds to a step of U-Net and of a character LSTM, and what the text loader costs.

    python benchmarks/tasks.py              # both, about five minutes on two cores
    python benchmarks/tasks.py lstm rounds=5

U-Net: padded, base width 32, pictures of 256×256, batch 4. LSTM: 256 units, Moby-Dick, batch 32 of 128 characters,
state carried. With everything on (TensorBoard, metrics.csv, checkpoints, validation metrics, gradient norm, schedule)
against a loop written by hand on the same loader. The two alternate, epoch by epoch; medians are reported. Run it on an
otherwise idle machine.
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
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn

from zoo.checkpoint import Checkpoints
from zoo.data.module import DataModule
from zoo.data.text import MobyDick
from zoo.data.tiles import MaskSplit
from zoo.logs import MetricsCSV, TensorBoard
from zoo.models.recurrent import RecurrentLanguageModel
from zoo.models.unet import UNet
from zoo.progress import EpochLines
from zoo.report import quieten_lightning
from zoo.run import NoProfiler, make_trainer, skip_unused_hooks
from zoo.schedules import Cosine
from zoo.tasks.base import Batch, Task
from zoo.tasks.engine import Optimization
from zoo.tasks.language_model import LanguageModel
from zoo.tasks.segmentation import Segmentation

STEPS = {"unet": 12, "lstm": 60}
Step = Callable[[nn.Module, Batch], Tensor]


class RandomMasks(DataModule):
    """Random colour pictures of 256×256 with masks of two classes, in memory."""

    def read(self) -> None:
        generator = torch.Generator().manual_seed(0)
        for name, size in (("train", 4 * STEPS["unet"]), ("val", 4)):
            images = torch.randint(0, 256, (size, 3, 256, 256), dtype=torch.uint8, generator=generator)
            masks = torch.randint(0, 2, (size, 256, 256), dtype=torch.uint8, generator=generator)
            self.splits[name] = MaskSplit(images, masks, mean=[0.5], std=[0.3])


class StepTimes(Callback):
    """Seconds of each epoch's training, from its start to the start of its validation."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.start = time.perf_counter()

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.seconds.append(time.perf_counter() - self.start)


def optimizer_of(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-3)


def harness_epoch(make_task: Callable[..., Task], network: nn.Module, data: DataModule, steps: int) -> float:
    """Seconds of the second of two epochs' training, everything on."""
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        folder = Path(name)
        task = make_task(network, optimization=Optimization(optimizer=optimizer_of, schedule=Cosine()))
        times = StepTimes()
        checkpoints = Checkpoints(folder, {}, monitor=task.monitor, mode=task.mode, every_n_steps=None)
        options = {"accelerator": "cpu", "max_epochs": 2, "max_steps": -1, "profiler": NoProfiler()}
        options |= {"limit_train_batches": steps, "limit_val_batches": 1}
        loggers = [MetricsCSV(folder), TensorBoard(folder)]
        trainer = make_trainer(options, folder=folder, logger=loggers, callbacks=[checkpoints, EpochLines(), times])
        skip_unused_hooks(trainer, task)
        trainer.fit(task, datamodule=data)
        loggers[1].close()
        return times.seconds[1]


def hand_epoch(step: Step, network: nn.Module, data: DataModule, steps: int) -> float:
    optimizer = optimizer_of(network.parameters())
    network.train()
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        for _, batch in zip(range(steps), data.loader("train", training=True), strict=False):
            optimizer.zero_grad(set_to_none=True)
            step(network, batch).backward()
            optimizer.step()
        seconds = time.perf_counter() - start
    return seconds


def unet_step(network: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(network(batch["input"]), batch["target"])


class LSTMStep:
    """By hand: the state is detached and handed on; an epoch's first batch begins without one."""

    def __init__(self) -> None:
        self.state: Any = None

    def __call__(self, network: nn.Module, batch: Batch) -> Tensor:
        logits, state = network(batch["input"], self.state)
        self.state = tuple(part.detach() for part in state)
        return F.cross_entropy(logits.flatten(0, 1), batch["target"].flatten())


def text_loader(data: DataModule) -> float:
    """Microseconds that a training batch of text costs, by itself."""
    times = []
    for _ in range(5):
        start, count = time.perf_counter(), 0
        for _ in data.loader("train", training=True):
            count += 1
        times.append((time.perf_counter() - start) / count)
    return statistics.median(times) * 1e6


def main(words: list[str]) -> None:
    rounds = int(dict(word.split("=") for word in words if "=" in word).get("rounds", 5))
    chosen = [word for word in words if "=" not in word] or list(STEPS)
    quieten_lightning()
    print(f"ms a step, medians of {rounds} rounds; ratio: by hand / harness")
    print(f"{'network':<26}{'by hand':>12}{'harness':>12}{'added':>12}{'ratio':>8}")
    masks, text = RandomMasks(batch_size=4), MobyDick(batch_size=32, sequence_length=128)
    facts = {"num_classes": 2, "class_names": ["sea", "land"], "ignore_index": 255}
    if "unet" in chosen:
        masks.setup()
    text.setup()
    cases: dict[str, tuple[str, Any, Any, Any, DataModule]] = {
        "unet": (
            "U-Net, base 32, 256×256",
            lambda: UNet(in_channels=3, num_classes=2, image_size=256, width=0.5),
            lambda network, **more: Segmentation(network, facts=facts, **more),
            lambda: unet_step,
            masks,
        ),
        "lstm": (
            "LSTM 256, 32×128 letters",
            lambda: RecurrentLanguageModel(cell="lstm", num_tokens=text.facts["num_tokens"], embedding=64, hidden=256),
            lambda network, **more: LanguageModel(network, facts=text.facts, **more),
            LSTMStep,
            text,
        ),
    }
    for key in chosen:
        name, make, make_task, make_step, data = cases[key]
        steps = STEPS[key]
        pairs = [
            (hand_epoch(make_step(), make(), data, steps), harness_epoch(make_task, make(), data, steps))
            for _ in range(rounds)
        ]
        hand, ours = (statistics.median(column) / steps * 1e3 for column in zip(*pairs, strict=True))
        added = statistics.median(b - a for a, b in pairs) / steps * 1e3
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"{name:<26}{hand:>12.3f}{ours:>12.3f}{added:>12.3f}{ratio:>8.3f}", flush=True)
    print(f"text loader: {text_loader(text):.0f} µs a batch of 32×128")


if __name__ == "__main__":
    main(sys.argv[1:])
