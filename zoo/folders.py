"""The folder of a run: made, held by one process at a time, and taken away again where nothing was written to it."""

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zoo.errors import ZooError
from zoo.processes import is_first_process

try:
    import fcntl
except ImportError:  # Windows: nobody is kept out
    fcntl = None  # type: ignore[assignment]

RUN_DIR = "ZOO_RUN_DIR"  # set while a process holds a run's folder: the processes it starts need no lock
# What may change when a run is continued: how long it trains, on what, what it logs, and where its data lie.
MAY_CHANGE = (
    *("trainer.max_epochs", "trainer.max_steps", "trainer.accelerator", "trainer.devices", "trainer.strategy"),
    *("trainer.num_nodes", "trainer.data_on_device", "logger", "data.root", "data.path"),
)
_LOCK = ".lock"


@contextmanager
def run_folder(run_dir: str | None, choices: dict[str, str]) -> Iterator[Path]:
    """Make the folder of a new run. If it is left empty, it goes again, with the parents that were made for it.

    Of several processes the first makes it, and tells the others: `zoo.processes.joined`.
    """
    if not is_first_process():
        yield Path()
        return
    place = (
        Path("runs") / f"{choices['model']}-{choices['data']}".replace("/", "-") if run_dir is None else Path(run_dir)
    )
    made = [folder for folder in (place, *place.parents) if not os.path.exists(folder)]
    if run_dir is None:
        folder = new_folder(place)
        made.insert(0, folder)
    else:
        folder = _own_folder(place)
    try:
        yield folder
    finally:
        remove_empty(made)


def remove_empty(folders: list[Path]) -> None:
    with suppress(OSError):  # the first that holds something, and those above it, stay
        for folder in folders:
            folder.rmdir()


def new_folder(parent: Path) -> Path:
    """Make `parent/<date>_<time>`; a second one in the same second gets -2."""
    name = time.strftime("%Y-%m-%d_%H-%M-%S")
    for number in itertools.count(1):
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            if not parent.is_dir():
                raise ZooError(f"{parent}: is a file, where a folder for runs is to be made.") from None
    return folder


def _own_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ZooError(f"run_dir={folder}: is a file or below one; name a new folder.") from None
    except OSError as error:
        reason = (error.strerror or "cannot be made").lower()
        raise ZooError(f"run_dir={str(folder)[:80]}: {reason}; name another.") from None
    if any(file.name != _LOCK for file in folder.iterdir()):
        raise ZooError(f"run_dir={folder}: is not empty; name a new folder, or continue that run with resume={folder}")
    return folder


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep all other processes from training in a folder, but for the further ones of this run.

    The kernel drops the lock with the process, also at kill -9. It is a record lock, not flock's, which data workers
    would inherit and keep for the seconds they outlive a killed run.
    """
    if RUN_DIR in os.environ or not is_first_process():
        yield
        return
    lock = folder / _LOCK
    with lock.open("w") as file:
        try:
            if fcntl is not None:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise ZooError(
                f"{folder} is being trained by another process. Wait for its end, or stop it first."
            ) from None
        except OSError:  # a file system without locks
            pass
        os.environ[RUN_DIR] = str(folder)
        try:
            yield
        finally:
            del os.environ[RUN_DIR]
            with suppress(OSError):  # Windows removes no open file
                lock.unlink()
