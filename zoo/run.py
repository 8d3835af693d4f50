"""A training run from its config to its scores: the one place where data, network, task and trainer meet."""

import inspect
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback, EarlyStopping
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn

from zoo.build import build, refuse_untrusted
from zoo.checkpoint import AtomicCheckpointIO, Checkpoints, find_checkpoint, find_resumable, read_checkpoint
from zoo.errors import ZooError
from zoo.logs import METRICS, MetricsCSV, TensorBoard, rewind_logs
from zoo.pictures import Pictures, learning_curves
from zoo.progress import Bar, EpochLines
from zoo.randomness import key
from zoo.summary import summarize
from zoo.tasks.base import Task
from zoo.tasks.classification import balanced_weights
from zoo.tasks.engine import Optimization

# trainer.* keys that the engine and the task carry out; the rest goes to Lightning's Trainer
OWN_TRAINER_KEYS = (
    "_target_",
    "max_steps",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "log_every_n_steps",
)
# hooks called for every batch: those nobody implements are set to None, which Lightning skips
BATCH_HOOKS = (
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
)


class Stopped(BaseException):
    """The process was told to stop by a signal."""

    pending: int | None = None  # the signal, in case the exception is raised where Python swallows it (a finaliser)

    def __init__(self, signum: int) -> None:
        self.signum = signum


class StopLate(Callback):
    """Stop at the next validation or epoch's end where the exception of a signal was swallowed."""

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if Stopped.pending is not None:
            raise Stopped(Stopped.pending)

    on_train_epoch_end = on_validation_start


@contextmanager
def stop_signals() -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into `Stopped`, at once: the last checkpoint is whole whenever that happens."""

    def stop(signum: int, frame: Any) -> None:
        Stopped.pending = signum
        raise Stopped(signum)

    Stopped.pending = None
    former = {signum: signal.signal(signum, stop) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in former.items():
            signal.signal(signum, handler)


class NoProfiler(PassThroughProfiler):
    """Lightning enters its profiler some ten times a step; this one costs nothing there."""

    nothing = nullcontext()

    def profile(self, action_name: str) -> Any:
        return self.nothing


class Patience(EarlyStopping):
    """Early stopping that remembers across a restart that it had already decided to stop."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.stopping_reason.value != 0:
            trainer.should_stop = True


# From config to run -------------------------------------------------------------------------------------------------


def train(cfg: DictConfig, folder: Path, *, choices: dict[str, str], command: list[str]) -> dict[str, float]:
    """Run a composed config in an empty folder; returns the test scores. Raises ZooError for what a person can mend."""
    with stop_signals():
        data = build(to_plain(cfg.data), "data")()
        if any(value is None and name in data.facts for name, value in to_plain(cfg.data).items()):
            data.setup("fit")  # facts that only the files know; the model needs them
            for name, value in data.facts.items():
                if name in cfg.data and cfg.data[name] is None:
                    OmegaConf.update(cfg, f"data.{name}", value)
        if cfg.fast and cfg.trainer.precision == "32-true":
            cfg.trainer.precision = "bf16-mixed"
        config = to_plain(cfg)
        for unused in ("resume", "trust", "run_dir", "experiment", "debug", "expect"):
            config.pop(unused, None)
        write_whole(folder / "run.json", json.dumps(describe_run(config, choices, command), indent=2) + "\n")
        write_whole(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        return run(config, folder, data=data, choices=choices)


def resume(folder: Path, overrides: dict[str, Any]) -> dict[str, float]:
    """Continue the run in `folder` from its last whole checkpoint; from the start when it was stopped before any."""
    with stop_signals():
        config = read_config(folder / "config.yaml")
        if not overrides.pop("trust", False):
            refuse_untrusted(config, str(folder / "config.yaml"))
        for name, value in overrides.items():
            node = config
            *path, last = name.split(".")
            for part in path:
                node = node[part]
            node[last] = value
        write_whole(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        for leftover in (folder / "checkpoints").glob(".*.tmp"):  # of a process killed while it saved
            leftover.unlink()
        checkpoint = find_resumable(folder)
        if checkpoint is not None:
            choices = read_checkpoint(checkpoint)["zoo"]["choices"]
        elif (folder / "scores.json").exists() or (folder / "checkpoints" / "best.ckpt").exists():
            raise ZooError(
                f"{folder / 'checkpoints'} holds no last.ckpt to continue from, though this run has results.\n"
                "Nothing was changed. Put last.ckpt back, or start a new run."
            )
        else:
            print(f"{folder} has no checkpoint yet: starting over.")
            choices = read_choices(folder / "run.json")
        return run(config, folder, data=build(config["data"], "data")(), choices=choices, checkpoint=checkpoint)


def run(
    config: dict[str, Any], folder: Path, *, data: Any, choices: dict[str, str], checkpoint: Path | None = None
) -> dict[str, float]:
    """Train by a resolved plain config, test the best checkpoint, write and print the scores."""
    from zoo.evaluation import evaluate_checkpoint

    quieten_lightning()
    description = {"config": config, "choices": choices, "class_names": list(data.facts.get("class_names") or [])}
    check_ranges(config)
    check_facts(config, data)
    network = make_network(config)
    # what can be refused without reading data is refused before
    trainer_options = {**config["trainer"], "profiler": config["trainer"].get("profiler") or NoProfiler()}
    optimization = make_optimization(config)
    data.setup("fit")
    data.train_examples = config["train_examples"]
    check_sizes(network, data)
    if config["task"].get("class_weights") == "balanced":
        weights = balanced_weights(data.splits["train"].targets, data.facts["num_classes"])
        config["task"]["class_weights"] = weights
    description["class_names"] = list(data.facts.get("class_names") or [])
    description["preprocessing"] = data.preprocessing
    description["versions"] = versions()
    task = make_task(config, network, data, optimization)
    checkpoints = Checkpoints(
        folder, description, monitor=task.monitor, mode=task.mode, every_n_steps=config["checkpoint"]["every_n_steps"]
    )
    callbacks: list[Callback] = [checkpoints, StopLate(), Bar() if sys.stdout.isatty() else EpochLines()]
    if config["logger"]["tensorboard"]:
        callbacks += picture_callbacks(config, data)
    if config["early_stopping"]["patience"] is not None:
        options = config["early_stopping"]
        # strict=False: at a resumed epoch's end Lightning calls it again, and by then the scores are not there
        callbacks.append(
            Patience(task.monitor, options["min_delta"], options["patience"], mode=task.mode, strict=False)
        )
    trainer = make_trainer(trainer_options, logger=False, callbacks=callbacks, folder=folder)
    # everything a person can get wrong is behind us: only now are the logs touched
    rewind_logs(folder, read_checkpoint(checkpoint)["zoo"]["logs"] if checkpoint else {})
    loggers: list[Any] = [MetricsCSV(folder)]
    if config["logger"]["tensorboard"]:
        loggers.append(TensorBoard(folder))
    trainer.loggers = loggers
    data.trainer = trainer
    skip_unused_hooks(trainer, task)
    print_header(choices, network, data, folder)
    try:
        trainer.fit(task, datamodule=data, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
        split = "test" if "test" in data.splits else "val"
        scores = evaluate_checkpoint(find_checkpoint(folder), split=split, data=data)
        if trainer.is_global_zero:
            for logger in loggers:
                logger.log_hyperparams(hyper_parameters(config, choices), scores, trainer.global_step)
            if config["logger"]["pictures"]:
                learning_curves(folder / METRICS).savefig(folder / "curves.png", dpi=100)
            if checkpoints.best_score is not None:
                scores[task.monitor] = checkpoints.best_score
            write_whole(folder / "scores.json", json.dumps(scores, indent=2) + "\n")
            print_scores(scores, folder)
    except MisconfigurationException as error:
        raise ZooError(f"trainer: {str(error).splitlines()[0]}") from error
    finally:
        for logger in loggers:
            logger.close()
    return scores


def read_config(path: Path) -> dict[str, Any]:
    """The stored config of a run, or a ZooError where it is no longer one."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        config = None
    parts = {"seed", "data", "task", "model", "init", "optimizer", "scheduler", "trainer", "logger", "checkpoint"}
    if not isinstance(config, dict) or not parts <= config.keys():
        raise ZooError(f"{path} is damaged: it no longer holds the config of a run. Start a new run.")
    return config


def read_choices(path: Path) -> dict[str, str]:
    """The names of the chosen options, for the header; without run.json the header goes without them."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["choices"]
    except (OSError, ValueError, KeyError):
        return {}


def make_network(config: dict[str, Any]) -> nn.Module:
    """Build the network with weights that are a function of `seed`, in the memory format of `fast`."""
    torch.set_float32_matmul_precision("high" if config["fast"] else "highest")  # TF32 on CUDA
    torch.manual_seed(key(config["seed"], "init"))
    network = build(config["model"], "model")()
    initialise = build(config["init"], "init")()
    try:
        initialise(network, torch.Generator().manual_seed(key(config["seed"], "initialiser")))
    except ValueError as error:
        raise ZooError(f"init: {error}") from error
    return make_fast(network) if config["fast"] else network


def make_fast(network: nn.Module) -> nn.Module:
    """Channels last; on CUDA also compilation in place, which keeps the keys of the state dict."""
    network = network.to(memory_format=torch.channels_last)
    if torch.cuda.is_available():
        network.compile()
    return network


def check_ranges(config: dict[str, Any]) -> None:
    """Refuse what is nobody's argument and therefore nobody's to check."""
    wanted = config["train_examples"]
    if wanted is not None and (wanted <= 0 or (isinstance(wanted, float) and wanted > 1)):
        raise ZooError(f"train_examples={wanted}: must be a number of examples, at least 1, or a share between 0 and 1")
    patience = config["early_stopping"]["patience"]
    if patience is not None and patience < 1:
        raise ZooError(f"early_stopping.patience={patience}: must be at least 1, or null for none")
    waits = patience is not None or "Plateau" in config["scheduler"]["_target_"]
    for limit in ("limit_train_batches", "limit_val_batches"):
        if config["trainer"][limit] == 0 and (limit == "limit_train_batches" or waits):
            raise ZooError(f"trainer.{limit}=0: must be more than 0, as this run needs those batches")
    if (config["trainer"]["max_epochs"] or -1) < 1 and config["trainer"]["max_steps"] < 1:
        raise ZooError("trainer.max_epochs and trainer.max_steps: one of them must be at least 1")


def check_facts(config: dict[str, Any], data: Any) -> None:
    """Refuse data that lack what the task needs."""
    for fact, advice in getattr(get_class(config["task"]["_target_"]), "needs", {}).items():
        if not data.facts.get(fact):
            raise ZooError(f"data.{fact} is missing: {advice}.")
    given, there = config["model"].get("num_classes"), data.facts.get("num_classes")
    if given is not None and there is not None and given < there:
        raise ZooError(f"model.num_classes={given}: must be at least {there}, the number of classes in the data")


def check_sizes(network: nn.Module, data: Any) -> None:
    """Refuse splits and batches too small to compute with."""
    for split in ("train", "val"):
        if split in data.splits and data.size(split) < 2:
            raise ZooError(f"The {split} split has {data.size(split)} example: must have at least 2; give more data.")
    batch_norm = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
    if batch_norm and data.batch_size < 2:
        raise ZooError(f"data.batch_size={data.batch_size}: must be at least 2 for a network with batch normalisation")


def make_optimization(config: dict[str, Any]) -> Optimization:
    trainer = config["trainer"]
    optimizer = dict(config["optimizer"])
    can_fuse = "fused" in inspect.signature(get_class(optimizer["_target_"])).parameters
    if config["fast"] and torch.cuda.is_available() and can_fuse:
        optimizer["fused"] = True
    # a dry run on one number: a wrong rate or momentum is refused here, before data is read
    build(optimizer, "optimizer")([nn.Parameter(torch.zeros(1))])
    try:
        return Optimization(
            optimizer=build(optimizer, "optimizer"),
            schedule=build(config["scheduler"], "scheduler")(),
            accumulate=trainer["accumulate_grad_batches"],
            clip=trainer["gradient_clip_val"],
            clip_algorithm=trainer["gradient_clip_algorithm"],
            ema_decay=config["ema_decay"],
            weight_decay_on=config["weight_decay_on"],
            l1=config["penalty"]["l1"],
            l2=config["penalty"]["l2"],
            max_steps=trainer["max_steps"],
        )
    except ValueError as error:
        raise ZooError(str(error)) from error


def make_task(config: dict[str, Any], network: nn.Module, data: Any, optimization: Optimization | None = None) -> Task:
    return build(config["task"], "task")(
        network,
        optimization=optimization,
        facts=data.facts,
        seed=config["seed"],
        log_every=config["trainer"]["log_every_n_steps"],
    )


def make_trainer(options: dict[str, Any], *, folder: Path | None = None, **more: Any) -> pl.Trainer:
    """Lightning's Trainer for a run (with `folder`) or an evaluation (without)."""
    settings = {name: value for name, value in options.items() if name not in OWN_TRAINER_KEYS}
    if options["max_steps"] > 0:
        settings["max_epochs"] = -1  # the engine stops the run
    try:
        return pl.Trainer(
            **settings,
            **more,
            default_root_dir=folder,
            plugins=[AtomicCheckpointIO()],
            enable_checkpointing=folder is not None,
            enable_progress_bar=folder is not None and sys.stdout.isatty(),
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ImportError, ValueError, TypeError, RuntimeError) as error:
        raise ZooError(f"trainer: {str(error).splitlines()[0]}") from error


def picture_callbacks(config: dict[str, Any], data: Any) -> list[Callback]:
    return [Pictures(facts=data.facts)] if config["logger"]["pictures"] else []


def skip_unused_hooks(trainer: pl.Trainer, task: Task) -> None:
    for owner, base in [*((callback, Callback) for callback in trainer.callbacks), (task, pl.LightningModule)]:  # type: ignore[attr-defined]
        for hook in BATCH_HOOKS:
            if getattr(type(owner), hook, None) is getattr(base, hook, None):
                setattr(owner, hook, None)


# What a run says about itself ---------------------------------------------------------------------------------------


def to_plain(cfg: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def versions() -> dict[str, str]:
    packages = ("torch", "torchvision", "pytorch-lightning", "torchmetrics", "hydra-core", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def describe_run(config: dict[str, Any], choices: dict[str, str], command: list[str]) -> dict[str, Any]:
    """Command, commit, versions, hardware: what somebody needs to repeat the run."""
    try:
        here = Path(__file__).parent
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, timeout=10
        )
        commit_name = commit.stdout.strip() or None
    except (OSError, subprocess.TimeoutExpired):
        commit_name = None
    hardware = {"machine": platform.machine(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        hardware["gpu"] = torch.cuda.get_device_name()
    return {
        "command": command,
        "choices": choices,
        "seed": config["seed"],
        "commit": commit_name,
        "versions": versions(),
        "hardware": hardware,
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def quieten_lightning() -> None:
    """Lightning's tips and device lines are not for the reader of a run; its errors still are."""
    import logging

    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("pytorch_lightning.profilers").setLevel(logging.INFO)  # profiler=simple prints its table there
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", module="lightning_fabric")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*`dataloader_iter` step flavor.*")  # zoo/tasks/base.py says why


def print_header(choices: dict[str, str], network: nn.Module, data: Any, folder: Path) -> None:
    """Say what runs on what; the network layer by layer goes to model.txt."""
    one = torch.zeros(1, dtype=torch.int64)
    summary = summarize(network, data.splits["train"].batch(0, one, one)["input"])
    write_whole(folder / "model.txt", summary.table() + "\n")
    form = getattr(network, "form", None)
    sizes = ", ".join(f"{data.size(split):,} {split}" for split in data.splits)
    size = f"{summary.trainable:,} trainable parameters, {summary.multiply_adds:,} multiply-adds"
    print(f"{choices.get('model', 'model')}{f' ({form})' if form else ''}: {size}")
    print(f"{choices.get('data', 'data')}: {sizes}")
    print(f"run folder: {folder}", flush=True)


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots, for TensorBoard's table of hyper-parameters: numbers, switches and names only."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{name}."))
        elif isinstance(value, bool | int | float | str):
            flat[prefix + name] = value
    return flat


def hyper_parameters(config: dict[str, Any], choices: dict[str, str]) -> dict[str, Any]:
    """What a person compares runs by, for TensorBoard's table: options by name, and numbers; no facts, no paths."""
    kept = ("seed", "ema_decay", "fast", "penalty", "augment", "init", "model", "optimizer", "scheduler", "task")
    numbers: dict[str, Any] = {name: config[name] for name in kept}
    numbers["data"] = {"batch_size": config["data"]["batch_size"]}
    numbers["trainer"] = {name: config["trainer"][name] for name in ("max_epochs", "max_steps", "precision")}
    flat = flatten(numbers)
    return choices | {name: value for name, value in flat.items() if "_target_" not in name}


def write_whole(path: Path, text: str) -> None:
    """Write a file aside and rename it, so that it is never there in part."""
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def print_scores(scores: dict[str, float], folder: Path) -> None:
    for name, value in scores.items():
        print(f"{name} {value:.6g}")
    print(f"run folder: {folder}")
    print(f"next: python evaluate.py ckpt_path={shlex.quote(str(folder))}")
    print("      tensorboard --logdir runs", flush=True)
