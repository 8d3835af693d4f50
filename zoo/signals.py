"""Ctrl-C and SIGTERM as one exception, raised at once: the last checkpoint is whole whenever that happens."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Stopped(BaseException):
    """The process was told to stop by a signal, while it trained in `folder`."""

    pending: "Stopped | None" = None  # in case it is raised where Python swallows it (a finaliser)

    def __init__(self, signum: int, folder: Path | None) -> None:
        self.signum, self.folder = signum, folder


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
