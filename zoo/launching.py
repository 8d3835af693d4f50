"""Starts the processes of a run that wants several, watches them, and ends them together."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import DictConfig, OmegaConf

from zoo.errors import ZooError
from zoo.folders import held
from zoo.processes import place, to_start
from zoo.signals import Stopped, stop_signals

GRACE = 5.0  # seconds that a process has to end when it is told to
Worker = subprocess.Popen[bytes]


def train(cfg: DictConfig, folder: Path, *, choices: dict[str, str], command: list[str]) -> dict[str, float]:
    """`zoo.run.train`, in as many processes as the config asks for."""
    if count := to_start(cfg.trainer):
        with stop_signals(folder), held(folder):
            job = {"config": OmegaConf.to_yaml(cfg), "choices": choices, "command": command}
            return launch(count, "train", {**job, "folder": str(folder)}, folder)
    from zoo.run import train

    return train(cfg, folder, choices=choices, command=command)


# The process that starts the others ----------------------------------------------------------------------------------


def launch(count: int, task: str, job: Mapping[str, Any], folder: Path | None = None) -> dict[str, float]:
    """Do a task of `_do` in `count` processes; returns the scores.

    Only the output of the first is seen. When one ends before its time, the others are ended and it is said why.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(part or os.getcwd() for part in sys.path),
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())},
        # torch warns that it looks for parameters that a step does not reach: it was told to, in zoo/run.py
        "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR"),
        **{"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "GROUP_RANK": "0"},
    }
    workers: list[Worker] = []
    with tempfile.TemporaryDirectory(prefix="zoo-") as results:
        Path(results, "job").write_text(json.dumps({**job, "task": task}), encoding="utf-8")
        try:
            for rank in range(count):
                workers.append(_start(rank, environment, results))  # noqa: PERF401  # those before one that fails
            while set(codes := [worker.poll() for worker in workers]) != {0}:
                if failed := [code for code in codes if code]:  # by a signal, rather than with an echo of that
                    raise _reason(codes.index(min(failed)), workers, results, folder)
                time.sleep(0.05)
        finally:
            _end(workers)
        return json.loads(Path(results, "scores").read_text(encoding="utf-8"))


def _start(rank: int, environment: Mapping[str, str], results: str) -> Worker:
    with Path(results, f"{rank}.err").open("wb") as errors:
        return subprocess.Popen(
            [sys.executable, "-c", "from zoo.launching import work; work()", results],
            stdin=subprocess.PIPE,
            stdout=None if rank == 0 else subprocess.DEVNULL,
            stderr=None if rank == 0 else errors,
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _reason(rank: int, workers: list[Worker], results: str, folder: Path | None) -> BaseException:
    """What to raise when process `rank` has ended with an error."""
    code, told = workers[rank].returncode, Path(results, f"{rank}.told")
    if told.exists():
        return ZooError(told.read_text(encoding="utf-8"))
    sys.stderr.write(Path(results, f"{rank}.err").read_text(encoding="utf-8", errors="replace"))
    if code == 1:  # a bug: there is its traceback
        return SystemExit(1)
    signum = -code if code < 0 else code - 128  # by the signal, or told so by it
    how = f"was ended by {signal.Signals(signum).name}" if signum > 0 else f"ended with code {code}"
    how += " (the system does that where memory runs out)" if signum == signal.SIGKILL else ""
    goes_on = folder is not None and (folder / "config.yaml").exists()
    more = f"\nContinue with: python train.py resume={folder}" if goes_on else ""
    return ZooError(f"Process {rank + 1} of {len(workers)} {how}, and the others were ended with it.{more}")


def _end(workers: list[Worker]) -> None:
    """End the processes that still run: they are told to, so that they end their data workers, and then killed."""
    for worker in workers:
        worker.terminate()
    until = time.monotonic() + GRACE
    for worker in workers:
        with suppress(subprocess.TimeoutExpired):
            worker.wait(max(0.0, until - time.monotonic()))
        worker.kill()
        worker.wait()
        worker.stdin.close()  # type: ignore[union-attr]


# A process that was started ------------------------------------------------------------------------------------------


def work() -> NoReturn:
    """Be one of several; the end of stdin is that of the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of a terminal's; the starter ends this one
    threading.Thread(target=_end_with_starter, daemon=True).start()
    rank, results = place().rank, Path(sys.argv[1])
    job = json.loads((results / "job").read_text(encoding="utf-8"))
    code = 0
    try:
        scores = _do(job)
        if rank == 0:
            (results / "scores").write_text(json.dumps(scores), encoding="utf-8")
    except Stopped as stopped:
        code = 128 + stopped.signum
    except BaseException as error:
        from zoo.cli import _told

        code, sentence = _told(error) or (1, "")
        if code == 1:
            traceback.print_exc()
        if sentence:
            (results / f"{rank}.told").write_text(sentence, encoding="utf-8")
    sys.stdout.flush()
    sys.stderr.flush()
    if code:  # at once, as threads of the process group may still run; data workers would stay for seconds
        for child in multiprocessing.active_children():
            child.terminate()
        os._exit(code)
    sys.exit()


def _do(job: dict[str, Any]) -> dict[str, float]:
    folder = Path(job.get("folder") or ".")
    if job["task"] == "train":
        from zoo.run import train

        return train(OmegaConf.create(job["config"]), folder, choices=job["choices"], command=job["command"])
    if job["task"] == "resume":
        from zoo.run import resume

        return resume(folder, job["overrides"])
    from zoo.evaluation import evaluate

    return evaluate(ckpt_path=Path(job["ckpt_path"]), **job["settings"])


def _end_with_starter() -> None:
    os.read(0, 1)  # nothing is ever written
    os.kill(os.getpid(), signal.SIGKILL)
