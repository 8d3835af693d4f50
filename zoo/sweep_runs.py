"""One run of a sweep: a process of its own, whose end ends nothing else. Imports no torch."""

import ctypes
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from zoo.errors import ZooError
from zoo.folders import RUN_DIR, held, remove_empty
from zoo.signals import Stopped
from zoo.sweep_tables import shown

RECORD = "sweep.json"
SWEEP = "ZOO_SWEEP"  # the sweep's process, in the environment of launchers
PATIENCE = 10.0  # seconds for a run to end after it was told to
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
Json = dict[str, Any]


def job(config: Any) -> None:
    """What a launcher calls for each run: train in a process of its own, whose end ends nothing else."""
    place = Path(os.path.relpath(HydraConfig.get().runtime.output_dir))
    folder, number = place.parent, int(place.name)
    record = read_record(folder)
    run = record["runs"][number]
    if (place / "scores.json").exists():
        return
    wait_until_free(place)
    if (place / "config.yaml").exists():
        words = [f"resume={place}"]
    else:
        shutil.rmtree(place, ignore_errors=True)  # stopped before it began: nothing to continue
        words = [*run["words"], f"run_dir={quote(place)}"]
    log, told = folder / "logs" / f"{number}.txt", folder / "logs" / f"{number}.json"
    name = f"run {number}: {shown(run['values']) or ' '.join(run['words'])}"
    print(f"{name} → {log}", flush=True)
    before, started = read_json(told).get("seconds", 0.0), time.monotonic()
    code, error = train(words, log, name)
    seconds = round(before + time.monotonic() - started, 1)
    write_json(told, {"exit": code, "seconds": seconds, "says": "" if code == 0 else says(code, error)})
    if code == 0:
        score = read_json(place / "scores.json").get(record["monitor"])
        outcome = f"{record['monitor']} {score:.6g}" if score is not None else f"no {record['monitor']}"
    else:
        outcome = "stopped" if code in STOPPED else "failed"
        remove_empty([place])
    print(f"run {number}: {outcome} ({seconds:.0f} s)", flush=True)


def train(words: Sequence[str], log: Path, name: str) -> tuple[int, str]:
    """Run `zoo train` to its end: its exit code, and what it wrote to stderr."""
    environment = {key: value for key, value in os.environ.items() if key != RUN_DIR}
    environment["PYTHONPATH"] = python_path()
    command = [sys.executable, "-m", "zoo", "train", *words]
    with (
        log.open("a", encoding="utf-8") as out,
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as err,
    ):
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment, preexec_fn=end_with_parent)
        try:
            while process.poll() is None:
                if is_orphan():
                    raise Stopped(signal.SIGTERM, log.parents[1])
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.5)
                if sys.stdout.isatty():
                    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
                    live = next((line for line in reversed(lines) if line.strip()), "")
                    print(
                        f"\r\033[K{name} · {live}"[:100],
                        end="\r\033[K" if process.poll() is not None else "",
                        flush=True,
                    )
        except BaseException as error:
            try:
                if getattr(error, "signum", signal.SIGINT) == signal.SIGINT:  # Ctrl-C reached the run as well
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(PATIENCE)
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(PATIENCE)
            finally:
                process.kill()
                process.wait()
            if is_orphan():
                os._exit(128 + signal.SIGTERM)
            raise
        finally:
            err.seek(0)
            text = err.read()
            out.write(text)
    return process.returncode, text


def python_path() -> str:
    """Where another Python finds this package, and a person's own modules in the folder that they work in."""
    paths = [str(Path(__file__).parents[1]), os.getcwd(), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return os.pathsep.join(dict.fromkeys(filter(None, paths)))


def is_orphan() -> bool:
    """Whether this is a worker of a launcher (joblib's) whose sweep was killed: it would go on to the next run."""
    is_worker = multiprocessing.current_process().name != "MainProcess"
    return is_worker and os.environ.get(SWEEP, "") != str(os.getppid())


def end_with_parent() -> None:
    """On Linux a run is told to stop when the process that started it is gone, be it by kill -9."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def says(code: int, error: str) -> str:
    """Why a run failed: its sentence, or the end of its traceback."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}" + (
            ", perhaps for want of memory" if code == -signal.SIGKILL else ""
        )
    lines = [line.strip() for line in error.splitlines() if line.strip() and not line.startswith("note: ")]
    return " ".join(lines[-3:] if code == 2 else lines[-1:])[:500] or f"exit code {code}"


def wait_until_free(folder: Path, patience: float = 60.0) -> None:
    """Wait for a process of a killed sweep that is about to stop; after `patience` seconds the run says it is held."""
    until = time.monotonic() + patience
    while (folder / ".lock").exists() and time.monotonic() < until:
        with suppress(ZooError), alone(folder):
            return
        time.sleep(0.5)


# Files ---------------------------------------------------------------------------------------------------------------


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder, without making the processes started meanwhile further ones of its run."""
    inherited = os.environ.pop(RUN_DIR, None)
    with held(folder):
        own = os.environ.pop(RUN_DIR)
        try:
            yield
        finally:
            os.environ[RUN_DIR] = own
    if inherited is not None:
        os.environ[RUN_DIR] = inherited


def quote(path: Path) -> str:
    text = str(path)
    return text if re.fullmatch(r"[\w./-]+", text, re.ASCII) else "'" + text.replace("'", "\\'") + "'"


def read_record(folder: Path) -> Json:
    record = read_json(folder / RECORD)
    if not {"words", "settings", "launcher", "monitor", "mode", "runs"} <= record.keys():
        raise ZooError(f"{folder / RECORD} is damaged: it no longer holds a sweep. Start a new one.")
    return record


def read_json(file: Path) -> Json:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(file: Path, content: Json) -> None:
    aside = file.with_name(f".{file.name}.tmp")
    aside.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(aside, file)
