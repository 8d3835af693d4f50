"""Ctrl-C and SIGTERM as one exception, raised at once: the last checkpoint is whole whenever that happens."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback


class Stopped(BaseException):
    """The process was told to stop by a signal, while it trained in `folder`."""

    pending: "Stopped | None" = None  # in case it is raised where Python swallows it (a finaliser)

    def __init__(self, signum: int, folder: Path | None) -> None:
        self.signum, self.folder = signum, folder


class StopLate(Callback):
    """Stop at the next validation or epoch's end where the exception of a signal was swallowed."""

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if Stopped.pending is not None:
            raise Stopped.pending

    on_train_epoch_end = on_validation_start


@contextmanager
def stop_signals(folder: Path | None = None) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into `Stopped`, at once: the last checkpoint is whole whenever that happens."""

    def stop(signum: int, frame: Any) -> None:
        Stopped.pending = Stopped(signum, folder)
        raise Stopped.pending

    Stopped.pending = None
    former = {signum: signal.signal(signum, stop) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in former.items():
            signal.signal(signum, handler)
