"""A run that kills itself with SIGKILL at a stated place, and goes on when started again. Used by test_resume.py.

    python killed_run.py FOLDER PLACE COUNT OVERRIDE…

With RANK and WORLD_SIZE set it is one process of several; then a run that is to go on is told no overrides.

PLACE is step, update, validation, save, test or never; the process dies the COUNT-th time it gets there. A step is of
one batch, an update of the weights: of a GAN there is one of the discriminator, then one of the generator.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

import zoo.checkpoint
from zoo.checks import CONFIGS
from zoo.processes import place as place_of_process
from zoo.run import resume, train
from zoo.tasks.base import Task
from zoo.tasks.engine import Engine


def die_at(owner: Any, name: str, count: int) -> None:
    """Let the process be killed at the `count`-th call of `owner.name`, before it does anything."""
    original, calls = getattr(owner, name), 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, counted)


def main(folder: Path, place: str, count: int, overrides: list[str]) -> None:
    torch.set_num_threads(1)
    if place == "step":
        die_at(Engine, "step", count)
    elif place == "update":
        die_at(Engine, "update", count)
    elif place == "validation":
        die_at(Task, "validation_step", count)
    elif place == "save":  # the new file is written aside, the old one still has its name
        die_at(zoo.checkpoint.os, "replace", count)
    elif place == "test":  # the training is over, its scores are not there yet
        die_at(Task, "on_test_epoch_start", count)
    if not overrides or (place_of_process().world_size == 1 and (folder / "config.yaml").exists()):
        resume(folder, {})
        return
    folder.mkdir(parents=True, exist_ok=True)  # killed before its config was written, it starts over
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", overrides=overrides)
    train(cfg, folder, choices={"model": "test", "data": "test"}, command=[])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:])
