"""What a run says about itself: its description, its header, its scores, and the files these are written to."""

import json
import logging
import os
import platform
import shlex
import subprocess
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from zoo.devices import on_cuda
from zoo.summary import Summary, summarize
from zoo.tasks.base import Task


def to_plain(cfg: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def write_whole(path: Path, text: str) -> None:
    """Write a file aside and rename it, so that it is never there in part."""
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def versions() -> dict[str, str]:
    packages = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def commit_of(checkout: Path) -> str | None:
    """The commit of the zoo that lies there; it ends in -dirty where the commit alone does not give the code.

    That is, where a file was changed, or where there is a module or a config that git does not know: a new model. None
    for an installed package, which may lie in somebody else's repository.
    """

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=checkout, capture_output=True, text=True, timeout=10)
        return done.stdout.strip()

    try:
        if not git("ls-files", "zoo"):
            return None
        commit = git("describe", "--always", "--dirty")
        unknown = git("ls-files", "--others", "--exclude-standard", "*.py", "configs/*.yaml")
    except (OSError, subprocess.TimeoutExpired):
        return None
    return f"{commit}-dirty" if unknown and not commit.endswith("-dirty") else commit or None


def describe_run(config: dict[str, Any], choices: dict[str, str], command: list[str]) -> dict[str, Any]:
    """Command, commit, versions, hardware: what somebody needs to repeat the run."""
    hardware = {"machine": platform.machine(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    if on_cuda(config["trainer"]):
        hardware["gpu"] = torch.cuda.get_device_name()
    return {
        "command": command,
        "choices": choices,
        "seed": config["seed"],
        "commit": commit_of(Path(__file__).parents[1]),
        "versions": versions(),
        "hardware": hardware,
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def quieten_lightning() -> None:
    """Lightning's tips and device lines are not for the reader of a run; its errors still are."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("pytorch_lightning.profilers").setLevel(logging.INFO)  # profiler=simple prints its table there
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", module="lightning_fabric")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*`dataloader_iter` step flavor.*")  # zoo/tasks/base.py says why


def first_example(task: Task, data: Any, split: str = "train") -> tuple[Tensor, ...]:
    """The network's arguments for the first example of a split."""
    one = torch.zeros(1, dtype=torch.int64)
    return task.inputs(data.splits[split].batch(0, one, one))


def summarize_example(task: Task, data: Any, split: str = "train") -> Summary:
    """The task's network on the first example of a split."""
    return summarize(task.network, *first_example(task, data, split))


def print_header(choices: dict[str, str], task: Task, data: Any, folder: Path, summary: Summary) -> None:
    """Say what runs on what; the network layer by layer goes to model.txt."""
    write_whole(folder / "model.txt", summary.table() + "\n")
    form = getattr(task.network, "form", None)
    sizes = ", ".join(f"{data.size(split):,} {split}" for split in data.splits)
    size = f"{summary.trainable:,} trainable parameters, {summary.multiply_adds:,} multiply-adds"
    print(f"{choices.get('model', 'model')}{f' ({form})' if form else ''}: {size}")
    print(f"{choices.get('data', 'data')}: {sizes}")
    print(f"run folder: {folder}", flush=True)


def note_memory(folder: Path, peak: tuple[float, str] | None) -> None:
    """Add the most memory a run took, as `peak_memory` measures it, to run.json."""
    path = folder / "run.json"
    if peak is not None and path.exists():  # not where a run that was moved left it behind
        about = json.loads(path.read_text(encoding="utf-8"))
        about["peak_memory"] = {"mib": round(peak[0]), "of": peak[1]}
        write_whole(path, json.dumps(about, indent=2) + "\n")


def print_scores(scores: dict[str, float], folder: Path, peak: tuple[float, str] | None = None) -> None:
    for name, value in scores.items():
        print(f"{name} {value:.6g}")
    if peak is not None:
        print(f"peak memory {peak[0]:.0f} MiB ({peak[1]})")
    print(f"run folder: {folder}")
    print(f"next: python evaluate.py ckpt_path={shlex.quote(str(folder))}")
    print("      tensorboard --logdir runs", flush=True)


def hyper_parameters(
    config: dict[str, Any], choices: dict[str, str], peak: tuple[float, str] | None = None
) -> dict[str, Any]:
    """What a person compares runs by, for TensorBoard's table: options by name, and numbers; no facts, no paths."""
    kept = ["seed", "ema_decay", "fast", "penalty", "augment", "init", "model", "optimizer", "scheduler", "task"]
    kept += [name for name in ("swap", "transfer") if name in config]  # older runs have none
    numbers: dict[str, Any] = {name: config[name] for name in kept}
    numbers["model"] = {name: value for name, value in config["model"].items() if name != "weights"}
    numbers["data"] = {"batch_size": config["data"]["batch_size"]}
    numbers["trainer"] = {name: config["trainer"][name] for name in ("max_epochs", "max_steps", "precision")}
    if peak is not None:
        numbers["peak_memory_mib"] = round(peak[0])
    flat = {name: value for name, value in flatten(numbers).items() if isinstance(value, bool | int | float | str)}
    return choices | {name: value for name, value in flat.items() if "_target_" not in name}


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
