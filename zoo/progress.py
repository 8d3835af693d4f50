"""What a person sees while a run trains or samples: a bar or a line on a terminal, a line an epoch elsewhere."""

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, RichProgressBar
from torch import Tensor, nn

from zoo.tasks.base import Task


class Bar(RichProgressBar):
    """Lightning's rich bar with the last validation scores, redrawn every 50 batches."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=50, leave=False)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        shown = ("val/loss", getattr(pl_module, "monitor", "val/loss"))
        return {name: f"{float(value):.4f}" for name, value in trainer.callback_metrics.items() if name in shown}


class EpochLines(Callback):
    """One line for every epoch."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or not isinstance(pl_module, Task):
            return
        scores = trainer.callback_metrics
        shown = "  ".join(
            f"{name} {float(scores[name]):.4f}" for name in dict.fromkeys(["val/loss", pl_module.monitor])
        )
        total = "?" if pl_module.engine is None else pl_module.engine.total_steps
        seconds = time.monotonic() - self.started
        print(
            f"epoch {trainer.current_epoch + 1}  step {trainer.global_step}/{total}  {shown}  {seconds:.0f} s",
            flush=True,
        )


def told(parts: Sequence[Tensor], network: nn.Module) -> Iterator[Tensor]:
    """The parts one by one; where stderr is a terminal, a line says how far the network is."""
    count, begun, calls, last = sum(map(len, parts)), time.monotonic(), 0, time.monotonic()

    def tell(*_: Any) -> None:
        nonlocal calls, last
        calls, now = calls + 1, time.monotonic()
        if now - last > 0.5:
            last = now
            words = f"\r{first:,} of {count:,}, call {calls:,} of the network, {now - begun:.0f} s"
            print(words, end="", file=sys.stderr, flush=True)

    first = 1
    handle = network.register_forward_hook(tell) if sys.stderr.isatty() else None
    try:
        for part in parts:
            yield part
            first += len(part)
    finally:
        if handle is not None:
            handle.remove()
            print("\r\033[K", end="", file=sys.stderr, flush=True)
