"""Checkpoints: written so that a crash at any instant leaves a whole one, read so that nothing in them can run."""

import errno
import math
import os
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from zoo.build import is_config, is_plain
from zoo.errors import ZooError
from zoo.logs import log_sizes
from zoo.signals import Stopped

FORMAT_VERSION = 1
# what a checkpoint must hold to be evaluated
PARTS = {"config": dict, "choices": dict, "class_names": list, "preprocessing": dict, "logs": dict, "state_dict": dict}
BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"


class OtherFormat(ZooError):
    """A checkpoint of another version of the zoo."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes aside in the same folder, syncs, then renames: a reader sees the old file or the new one, never a part.

    Lightning's own writes in the system's temporary folder and moves, which across file systems is a copy.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            with aside.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if target.name == LAST and target.exists():
                keep_previous(target)
            os.replace(aside, target)
        except RuntimeError as error:
            aside.unlink(missing_ok=True)
            if Stopped.pending is not None:  # a signal while torch wrote: torch tells of it as of a full disk
                raise Stopped.pending from None
            if "PytorchStreamWriter" in str(error) or "enforce fail" in str(error):  # how torch tells of a full disk
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from error
            raise
        except BaseException:
            aside.unlink(missing_ok=True)
            raise


def keep_previous(last: Path) -> None:
    """Make `previous.ckpt` a second name of the current `last.ckpt`, without a moment in which it is missing."""
    link = last.with_name(f".{PREVIOUS}.{os.getpid()}.tmp")
    link.unlink(missing_ok=True)
    try:
        os.link(last, link)
    except OSError:  # a file system without hard links
        link.write_bytes(last.read_bytes())
    os.replace(link, last.with_name(PREVIOUS))


class Checkpoints(Checkpoint):
    """Saves `last.ckpt` at every epoch's end (and every `every_n_steps`), `best.ckpt` when the monitor improves.

    With `keep_best` off there is no `best.ckpt`: nothing is selected, and the last checkpoint is the one that is
    tested. That is right where validation is noisy and the schedule ends at a rate near 0. `score` is the validation
    score of the checkpoint that is to be tested.
    Lightning calls `on_train_epoch_end` again when it resumes at an epoch's end: by `saved_epoch` that does nothing.
    """

    def __init__(
        self,
        folder: Path,
        description: dict[str, Any],
        *,
        monitor: str,
        mode: str,
        every_n_steps: int | None,
        keep_best: bool = True,
    ) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise ZooError(f"checkpoint.every_n_steps={every_n_steps}: must be at least 1, or null for once an epoch")
        self.folder, self.description = folder, description
        self.monitor, self.mode, self.every_n_steps, self.keep_best = monitor, mode, every_n_steps, keep_best
        self.score: float | None = None
        self.saved_epoch = -1
        self.saved_step = 0
        if every_n_steps is None:
            self.on_train_batch_end = None  # type: ignore[assignment, method-assign]  # a hook not called costs nothing

    def state_dict(self) -> dict[str, Any]:
        return {"best_score": self.score, "saved_epoch": self.saved_epoch, "saved_step": self.saved_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.score, self.saved_epoch = state_dict["best_score"], state_dict["saved_epoch"]
        self.saved_step = state_dict["saved_step"]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        for logger in trainer.loggers:
            logger.save()
        checkpoint["zoo"] = {"format_version": FORMAT_VERSION, **self.description, "logs": log_sizes(self.folder)}

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save in mid-epoch, but only on a whole optimisation step: gradients being accumulated are not in the file."""
        step = trainer.global_step
        if step == self.saved_step or step % (self.every_n_steps or 1) or trainer.is_last_batch or trainer.should_stop:
            return
        pl_module.write_window()
        self.saved_step = step
        trainer.save_checkpoint(self.folder / "checkpoints" / LAST)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == self.saved_epoch:
            return
        self.saved_epoch, self.saved_step = trainer.current_epoch, trainer.global_step
        every = trainer.check_val_every_n_epoch or 1
        validated = (trainer.current_epoch + 1) % every == 0 or trainer.should_stop  # else the score is an older one's
        score = trainer.callback_metrics.get(self.monitor) if validated else None
        is_best = score is not None and (not self.keep_best or self.improves(float(score)))
        if is_best:
            self.score = float(score)  # type: ignore[arg-type]
            if self.keep_best:
                trainer.save_checkpoint(self.folder / "checkpoints" / BEST)
        trainer.save_checkpoint(self.folder / "checkpoints" / LAST)

    def improves(self, score: float) -> bool:
        """Whether a score is at least as good as the best: of equals the later, longer-trained one is kept."""
        if self.score is None or math.isnan(self.score):
            return True
        return score >= self.score if self.mode == "max" else score <= self.score


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load one of our checkpoints on the CPU: tensors and primitives only, whatever the file would like to be.

    Raises ZooError for a file that is missing, damaged, not ours, of a newer format, or that needs unpickling.
    """
    refused = ZooError(
        f"{path} was refused: it holds more than tensors and plain values, and loading it could run code.\n"
        "Nothing was run. Checkpoints of this zoo never need that; ask where the file comes from."
    )
    damaged = ZooError(f"{path} is damaged or not a checkpoint: it cannot be read.")
    try:
        with path.open("rb") as file:
            start = file.read(2)
        if start != b"PK":  # torch.save writes zip files; a bare pickle is not even looked into
            raise refused if start[:1] == b"\x80" else damaged
        check_sums(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ZooError(f"There is no checkpoint {path}.") from None
    except PermissionError:
        raise  # its own sentence: zoo.cli
    except pickle.UnpicklingError:
        raise refused from None
    except ZooError:
        raise
    except Exception:  # a damaged file raises nearly anything
        raise damaged from None
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("zoo"), dict):
        raise ZooError(f"{path} is not a checkpoint of this zoo: it has no `zoo` entry with config and version.")
    version = checkpoint["zoo"].get("format_version")
    if version != FORMAT_VERSION:
        other = "a newer" if isinstance(version, int) and version > FORMAT_VERSION else "another"
        raise OtherFormat(
            f"{path} has checkpoint format {version}; this version of the zoo reads format {FORMAT_VERSION}.\n"
            f"Read it with {other} version of the zoo, such as the one that wrote it."
        )
    described = {**checkpoint["zoo"], "state_dict": checkpoint.get("state_dict")}
    is_whole = all(isinstance(described.get(part), kind) for part, kind in PARTS.items())
    is_whole = is_whole and all(isinstance(option, str) for option in described["choices"].values())
    is_whole = is_whole and all(isinstance(size, int) for size in described["logs"].values())
    if not is_whole or not is_plain(checkpoint["zoo"]) or not is_config(described["config"]):
        raise ZooError(f"{path} is not a whole checkpoint of this zoo: its config or description is incomplete.")
    return checkpoint


def check_sums(path: Path) -> None:
    """Raise ValueError where a zip file is not what was written: torch.load looks at no checksum of its tensors."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if len(set(names)) < len(names) or archive.testzip() is not None:
            raise ValueError("its checksums are wrong")


def find_checkpoint(path: Path) -> Path:
    """The checkpoint a person means by a file or a run folder: its best or, where none is kept, its last."""
    if not path.is_dir():
        return path
    found = find_whole(path, (BEST, LAST, PREVIOUS))
    if found is None:
        runs = [folder.parent for folder in path.glob("*/checkpoints")]
        if runs and not (path / "checkpoints").is_dir():
            newest = max(runs, key=lambda run: (run.stat().st_mtime, run.name))
            raise ZooError(f"{path} is no run folder, but holds {len(runs)}: name one. The newest is {newest}")
        raise ZooError(f"{path} holds no checkpoint yet: expected {path / 'checkpoints' / BEST}.")
    return found


def folder_of(checkpoint: Path) -> Path:
    """The run folder of a checkpoint file, or the folder where a file lies alone."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def find_whole(folder: Path, names: Sequence[str]) -> Path | None:
    """The first whole one of a run's checkpoints of these names, None where there is none of them.

    It is said why those before it are not taken.
    """
    paths = [folder / "checkpoints" / name for name in names]
    if not any(path.exists() for path in paths):
        return None
    problems: list[str] = []
    for path in paths:
        try:
            keeps_best = read_checkpoint(path)["zoo"]["config"].get("checkpoint", {}).get("keep_best", True)
        except OtherFormat:
            raise  # it is whole: an older checkpoint must not take its place
        except ZooError as error:
            problems.append(str(error).splitlines()[0])
            continue
        if not keeps_best and paths[0].name == BEST and not paths[0].exists():  # the run was told to keep none
            problems.pop(0)
        if problems:
            print(*problems, f"Using {path.name}.")
        return path
    raise ZooError(f"No whole checkpoint is left in {folder / 'checkpoints'}: start a new run.\n" + " ".join(problems))
