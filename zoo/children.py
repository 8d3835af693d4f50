"""Processes that work side by side: started from threads, shown on one line while they run, ended together."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from zoo.errors import ZooError

T = TypeVar("T")
CLEAR = "\r\033[K"  # the line that the cursor is in
PATIENCE = 10  # seconds that a process told to end may take


class Terminated(BaseException):
    """SIGTERM came."""

    signum = signal.SIGTERM


class Children:
    """The processes of one command. Each of `jobs` at a time computes with its share of the cores' threads."""

    def __init__(self, jobs: int) -> None:
        self.jobs, self.cores = jobs, cores()
        self.environment = dict(os.environ)
        if jobs > 1:
            self.environment["OMP_NUM_THREADS"] = str(max(1, self.cores // jobs))
        self._running: dict[subprocess.Popen[str], tuple[str, float, Path | None]] = {}
        self._ended = False
        self._lock = threading.Lock()

    def say(self, line: str) -> None:
        """Print a line; on a terminal above the one that `show` keeps."""
        with self._lock:
            print(f"{CLEAR}{line}" if sys.stdout.isatty() else line, flush=True)

    def show(self, line: str) -> None:
        """Keep a line at the bottom of a terminal."""
        if sys.stdout.isatty():
            with self._lock:
                print(CLEAR + line[: shutil.get_terminal_size().columns - 1], end="", flush=True)

    def log_of(self, command: Sequence[str], log: Path, name: str) -> int:
        """Run a command whose output goes to a file; its exit code."""
        with log.open("w", encoding="utf-8") as file, self._started(command, name, log, stdout=file) as process:
            return process.wait()

    def answer_of(self, command: Sequence[str], name: str) -> Any:
        """The JSON that a command prints last; ZooError with the last line that it prints if it fails."""
        with self._started(command, name, None, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            output, errors = process.communicate()
        if process.returncode:
            raise ZooError(f"{name} failed: {last_line(errors or output)}")
        return json.loads(output.splitlines()[-1])

    @contextmanager
    def _started(
        self, command: Sequence[str], name: str, log: Path | None, *, stdout: Any, stderr: Any = subprocess.STDOUT
    ) -> Iterator["subprocess.Popen[str]"]:
        with self._lock:
            if self._ended:
                raise ZooError(f"{name}: not started, as the command was stopped.")
            process = subprocess.Popen(command, stdout=stdout, stderr=stderr, text=True, env=self.environment)
            self._running[process] = name, time.monotonic(), log
        try:
            yield process
        finally:
            with self._lock:
                del self._running[process]

    def end(self) -> None:
        """End what runs, by SIGTERM and if need be by SIGKILL, and start nothing more."""
        with self._lock:
            self._ended = True
            running = list(self._running)
        for process in running:
            process.terminate()
        until = time.monotonic() + PATIENCE
        while any(process.poll() is None for process in running) and time.monotonic() < until:
            time.sleep(0.05)
        for process in running:
            process.kill()  # nothing happens to one that has ended

    def status(self) -> str:
        """What runs, for how long, and the last line of its log."""
        with self._lock:
            running = list(self._running.values())
        now = time.monotonic()
        parts = []
        for name, started, log in running:
            last = f": {last_line(log.read_text('utf-8', errors='replace'))}" if log is not None else ""
            parts.append(f"{name} {now - started:.0f} s{last}")
        return " · ".join(parts)


def side_by_side(
    works: Sequence[Callable[[], T]], children: Children, *, done: Callable[[int, "Future[T]"], None]
) -> None:
    """Do all works in threads, `children.jobs` at a time, in their order; `done(place, future)` is called for each.

    Ctrl-C and SIGTERM, and what `done` raises, end the children before it leaves here.
    """

    def terminate(signum: int, frame: Any) -> None:
        raise Terminated

    former = signal.signal(signal.SIGTERM, terminate) if threading.current_thread() is threading.main_thread() else None
    pool = ThreadPoolExecutor(children.jobs)
    try:
        places = {pool.submit(work): place for place, work in enumerate(works)}
        waiting = set(places)
        while waiting:
            finished, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in sorted(finished, key=places.__getitem__):
                done(places[future], future)
            children.show(f"{len(places) - len(waiting)}/{len(places)} · {children.status()}")
    finally:
        children.end()
        pool.shutdown(cancel_futures=True)
        if former is not None:
            signal.signal(signal.SIGTERM, former)
        children.show("")


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no output")
