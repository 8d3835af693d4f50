"""A training run from its config to its scores: the one place where data, network, task and trainer meet."""

import json
import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from lightning_fabric.plugins.environments import TorchElasticEnvironment
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback, EarlyStopping
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from zoo.build import build, refuse_untrusted
from zoo.checkpoint import (
    BEST,
    LAST,
    PREVIOUS,
    AtomicCheckpointIO,
    Checkpoints,
    find_checkpoint,
    find_whole,
    read_checkpoint,
)
from zoo.conditions import (
    check_continued,
    check_facts,
    check_known,
    check_ranges,
    check_reads,
    check_scored,
    check_sizes,
)
from zoo.devices import (
    Placing,
    check_device,
    fast_precision,
    fused_options,
    lightning_settings,
    make_fast,
    prepare_device,
)
from zoo.errors import ZooError
from zoo.folders import held
from zoo.generative_pictures import DiffusionPictures, Reconstructions, SampleGrid, VaePictures
from zoo.launching import launch
from zoo.launching import train as train_in_processes
from zoo.logs import METRICS, MetricsCSV, TensorBoard, rewind_logs
from zoo.mask_pictures import MaskPictures
from zoo.memory import advice, peak_memory
from zoo.network import construct, initialise, needs_inputs
from zoo.pictures import Pictures, learning_curves
from zoo.processes import is_first_process, joined, options_here, place, to_start
from zoo.progress import Bar, EpochLines
from zoo.report import (
    describe_run,
    hyper_parameters,
    note_memory,
    print_header,
    print_scores,
    quieten_lightning,
    to_plain,
    versions,
    write_whole,
)
from zoo.sequence_pictures import AttentionMaps, Forecasts, TextSamples
from zoo.signals import Stopped, stop_signals
from zoo.tasks.base import Task
from zoo.tasks.classification import balanced_weights
from zoo.tasks.diffusion import Diffusion
from zoo.tasks.engine import Optimization
from zoo.tasks.forecasting import Forecasting
from zoo.tasks.gan import Gan
from zoo.tasks.language_model import LanguageModel
from zoo.tasks.reconstruction import Reconstruction
from zoo.tasks.segmentation import Segmentation, pixel_weights
from zoo.tasks.seq2seq import Seq2Seq
from zoo.tasks.vae import Vae
from zoo.transfer import NO_TRANSFER, Weights, describe, freeze, prepare_inputs, put_weights, rates, read_weights

# trainer.* keys that the engine and the task carry out; the rest goes to Lightning's Trainer
OWN_TRAINER_KEYS = (
    "_target_",
    "max_steps",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "log_every_n_steps",
)
# what shows a task in TensorBoard, where it is not `Pictures`
PICTURES: dict[type[Task], Callable[..., Callback]] = {
    Segmentation: MaskPictures,
    LanguageModel: TextSamples,
    Seq2Seq: AttentionMaps,
    Forecasting: Forecasts,
    Reconstruction: Reconstructions,
    Vae: VaePictures,
    Gan: SampleGrid,
    Diffusion: DiffusionPictures,
}
# hooks called for every batch: those nobody implements are set to None, which Lightning skips
BATCH_HOOKS = (
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
)


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


class StopLate(Callback):
    """Stop at the next validation or epoch's end where the exception of a signal was swallowed."""

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if Stopped.pending is not None:
            raise Stopped.pending

    on_train_epoch_end = on_validation_start


# From config to run -------------------------------------------------------------------------------------------------


def train(cfg: DictConfig, folder: Path, *, choices: dict[str, str], command: list[str]) -> dict[str, float]:
    """Run a composed config in an empty folder; returns the test scores. Raises ZooError for what a person can mend."""
    if to_start(cfg.trainer):
        return train_in_processes(cfg, folder, choices=choices, command=command)
    check_device(to_plain(cfg))
    with stop_signals(folder), held(folder), joined(cfg.trainer, folder) as folder:
        for name, value in options_here(to_plain(cfg.trainer)).items():
            OmegaConf.update(cfg, f"trainer.{name}", value, force_add=True)
        weights = None
        if cfg.model.weights is not None:
            weights = read_weights(cfg.model.weights, choices.get("model", ""))
            prepare_inputs(cfg.data, weights)
        data = build(to_plain(cfg.data), "data")()
        fill_facts(cfg, data)
        check_known(cfg, choices)
        if cfg.fast and cfg.trainer.precision == "32-true":
            cfg.trainer.precision = fast_precision(cfg.trainer)
        config = to_plain(cfg)
        for unused in ("resume", "trust", "run_dir", "experiment", "debug", "expect"):
            config.pop(unused, None)
        about = describe_run(config, choices, command)
        return run(config, folder, data=data, choices=choices, about=about, weights=weights)


def fill_facts(cfg: DictConfig, data: Any) -> None:
    """Where the data config leaves facts to the files, read them: the model is built from these."""
    if any(value is None and name in data.facts for name, value in to_plain(cfg.data).items()):
        data.setup("fit")
        for name, value in data.facts.items():
            if name in cfg.data and cfg.data[name] is None:
                OmegaConf.update(cfg, f"data.{name}", value)


def resume(folder: Path, overrides: dict[str, Any]) -> dict[str, float]:
    """Continue the run in `folder` from its last whole checkpoint; from the start when it was stopped before any."""
    with stop_signals(folder), held(folder):
        config = read_config(folder / "config.yaml")
        if not overrides.get("trust"):
            refuse_untrusted(config, str(folder / "config.yaml"))
        for name, value in overrides.items():
            if name == "trust":
                continue
            node = config
            *path, last = name.split(".")
            for part in path:
                node = node[part]
            node[last] = value
        if count := to_start(config["trainer"]):
            return launch(count, "resume", {"folder": str(folder), "overrides": overrides}, folder)
        check_device(config)
        with joined(config["trainer"]):
            return continue_run(folder, config)


def continue_run(folder: Path, config: dict[str, Any]) -> dict[str, float]:
    """Continue from the last whole checkpoint of a folder, with the config as it is to be now."""
    config["trainer"] = options_here(config["trainer"])
    for leftover in (folder / "checkpoints").glob(".*.tmp"):  # of a process killed while it saved
        leftover.unlink(missing_ok=True)
    checkpoint, weights = find_whole(folder, (LAST, PREVIOUS)), None
    if checkpoint is not None:
        choices = check_continued(config, read_checkpoint(checkpoint), folder)["choices"]
    elif (folder / "scores.json").exists() or (folder / "checkpoints" / "best.ckpt").exists():
        raise ZooError(
            f"{folder / 'checkpoints'} holds no last.ckpt to continue from, though this run has results.\n"
            "Nothing was changed. Put last.ckpt back, or start a new run."
        )
    else:
        print(f"{folder} has no checkpoint yet: starting over.")
        choices = read_choices(folder / "run.json")
        if config["model"].get("weights") is not None:
            weights = read_weights(config["model"]["weights"], choices.get("model", ""))
    data = build(config["data"], "data")()
    return run(config, folder, data=data, choices=choices, checkpoint=checkpoint, weights=weights)


def run(
    config: dict[str, Any],
    folder: Path,
    *,
    data: Any,
    choices: dict[str, str],
    about: dict[str, Any] | None = None,
    checkpoint: Path | None = None,
    weights: Weights | None = None,
) -> dict[str, float]:
    """Train by a resolved plain config, test the best checkpoint, write and print the scores.

    Starts from `weights`, or continues from `checkpoint`. `about` becomes run.json.
    """
    from zoo.evaluation import evaluate_checkpoint

    quieten_lightning()
    description: dict[str, Any] = {"config": config, "choices": choices}
    check_ranges(config)
    check_facts(config, data)
    prepare_device(config)
    network = construct(config)
    looks = needs_inputs(config)
    if not looks:
        initialise(network, config)
    if weights is not None:
        fresh = put_weights(network, weights, class_names=data.facts.get("class_names") or ())
        print(describe(network, weights, fresh))
    transfer = NO_TRANSFER | config.get("transfer", {})
    freeze(network, transfer["freeze"])
    # what can be refused without reading data is refused before
    trainer_options = {**config["trainer"], "profiler": config["trainer"].get("profiler") or NoProfiler()}
    optimization = make_optimization(
        config, rates(network, body_lr=transfer["body_lr"], layer_decay=transfer["layer_decay"])
    )
    data.setup("fit")
    data.train_examples = config["train_examples"]
    check_sizes(network, data, config["trainer"])
    check_shares(network, data)
    if looks and checkpoint is None:
        initialise(network, config, *first_inputs(config, network, data))
    if config["fast"]:
        make_fast(network, config)
    if isinstance(config["task"].get("class_weights"), str):
        config["task"]["class_weights"] = class_weights(config["task"]["class_weights"], data)
    description["class_names"] = list(data.facts.get("class_names") or [])
    description["preprocessing"] = data.preprocessing
    description["form"] = getattr(network, "form", None)
    description["versions"] = versions()
    task = make_task(config, network, data, optimization)
    summary = check_reads(task, data, choices)
    for split in data.splits:
        check_scored(task, data, split)
    checkpoints = Checkpoints(
        folder,
        description,
        monitor=task.monitor,
        mode=task.mode,
        **{"keep_best": True} | config["checkpoint"],  # older runs do not say
    )
    callbacks: list[Callback] = [checkpoints, StopLate(), Bar() if sys.stdout.isatty() else EpochLines()]
    if config["logger"]["tensorboard"]:
        callbacks += picture_callbacks(config, task)
    if config["early_stopping"]["patience"] is not None:
        options = config["early_stopping"]
        # strict=False: at a resumed epoch's end Lightning calls it again, and by then the scores are not there
        callbacks.append(
            Patience(task.monitor, options["min_delta"], options["patience"], mode=task.mode, strict=False)
        )
    trainer = make_trainer(trainer_options, logger=False, callbacks=callbacks, folder=folder)
    if is_first_process():  # everything a person can get wrong is behind us: only now is the folder touched
        if about is not None:
            write_whole(folder / "run.json", json.dumps(about, indent=2) + "\n")
        write_whole(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        rewind_logs(folder, read_checkpoint(checkpoint)["zoo"]["logs"] if checkpoint else {})
        if checkpoint is not None and checkpoint.name == PREVIOUS:
            checkpoint.with_name(LAST).unlink(missing_ok=True)  # else the next save would put the damaged one here
        print_header(choices, task, data, folder, summary)
    loggers: list[Any] = [MetricsCSV(folder)]
    if config["logger"]["tensorboard"]:
        loggers.append(TensorBoard(folder))
    trainer.loggers = loggers
    data.trainer = trainer
    on_device = config["trainer"].get("data_on_device", "auto")  # older runs do not say
    data.placing = Placing(data.splits, trainer.strategy.root_device, on_device, data.num_workers)
    skip_unused_hooks(trainer, task)
    try:
        trainer.fit(task, datamodule=data, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
        split = "test" if "test" in data.splits else "val"
        tested = find_checkpoint(folder)
        scores = evaluate_checkpoint(tested, split=split, data=data)
        learnt = {}
        if config["train_examples"] is not None:  # a few examples: were they learnt?
            learnt = evaluate_checkpoint(tested, split="train", data=data)
        if trainer.is_global_zero:
            peak = peak_memory(config["trainer"])
            note_memory(folder, peak)
            for logger in loggers:
                logger.log_hyperparams(hyper_parameters(config, choices, peak), scores, trainer.global_step)
            if config["logger"]["pictures"]:
                learning_curves(folder / METRICS).savefig(folder / "curves.png", dpi=100)
            if checkpoints.score is not None:
                scores[task.monitor] = checkpoints.score
            kept = ("train/loss", task.monitor.replace("val", "train"))
            scores |= {name: score for name, score in learnt.items() if name in kept}
            write_whole(folder / "scores.json", json.dumps(scores, indent=2) + "\n")
            epoch = read_checkpoint(tested)["epoch"] + 1
            print(f"tested {tested.name}, of epoch {epoch}, on {data.size(split):,} examples")
            print_scores(scores, folder, peak)
    except MisconfigurationException as error:
        raise ZooError(f"trainer: {str(error).splitlines()[0]}") from error
    except (RuntimeError, MemoryError, OSError) as error:
        if (told := advice(error, config, folder)) is None:
            raise
        raise ZooError(told) from error
    finally:
        for logger in loggers:
            logger.close()
    return scores


def check_shares(network: nn.Module, data: Any) -> None:
    """Refuse batches too small to be shared out over the processes of the run."""
    processes, size = place().world_size, data.batch_size
    if processes == 1:
        return
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    least = processes * (2 if norms else 1)
    if size < least:
        raise ZooError(
            f"data.batch_size={size}: must be at least {least}, as it is the batch of {processes} processes together."
        )
    rest = data.size("train") % size  # a vector of one example has no statistics
    if processes <= rest < 2 * processes and any(isinstance(norm, nn.BatchNorm1d) for norm in norms):
        raise ZooError(
            f"data.batch_size={size}: leaves {rest} examples for the last batch of {processes} processes, too few for "
            "batch normalisation; choose another."
        )


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


def restore_config(folder: Path) -> None:
    """Write the config.yaml that a run has lost: its checkpoints hold it."""
    checkpoint = find_whole(folder, (LAST, PREVIOUS, BEST))
    assert checkpoint is not None
    config = read_checkpoint(checkpoint)["zoo"]["config"]
    write_whole(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    print(f"{folder / 'config.yaml'} was gone: written again from {checkpoint.name}.")


def read_choices(path: Path) -> dict[str, str]:
    """The names of the chosen options, for the header; without run.json the header goes without them."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["choices"]
    except (OSError, ValueError, KeyError):
        return {}


def class_weights(balancing: str, data: Any) -> list[float]:
    """The numbers that `task.class_weights` asks for by name, from the training examples that are used."""
    split, used, classes = data.splits["train"], data.indices("train"), data.facts["num_classes"]
    if data.facts.get("ignore_index") is not None:
        return pixel_weights(
            split.masks[used],
            classes,
            balancing=balancing,  # type: ignore[arg-type]
            ignore_index=data.facts["ignore_index"],
        )
    return balanced_weights(split.targets[used], classes)


def first_inputs(config: dict[str, Any], network: nn.Module, data: Any) -> tuple[Tensor, ...]:
    """The network's arguments for up to 256 of the training examples that are used, as in the first epoch."""
    indices = data.indices("train")
    indices = indices[:: -(-len(indices) // 256)]
    batch = data.splits["train"].batch(0, torch.arange(len(indices)), indices)
    settings = {name: value for name, value in config["task"].items() if name != "class_weights"}  # perhaps not numbers
    return make_task({**config, "task": settings}, network, data).inputs(batch)


def make_optimization(config: dict[str, Any], rates: dict[str, float]) -> Optimization:
    trainer, optimizer = config["trainer"], fused_options(config["optimizer"], config)
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
            rates=rates,
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
    settings = lightning_settings(options_here(options), training=folder is not None)
    settings = {name: value for name, value in settings.items() if name not in OWN_TRAINER_KEYS}
    if options["max_steps"] > 0:
        settings["max_epochs"] = -1  # the engine stops the run
    plugins: list[Any] = [AtomicCheckpointIO()]
    if place().world_size > 1:
        plugins.append(TorchElasticEnvironment())  # reads torchrun's variables, whoever set them
    if settings["strategy"] == "ddp":
        # A step need not reach all parameters: a GAN's is of one network. (And torch then never arranges gradients
        # anew after the first step, as a resumed run would at another one.) Statistics are averaged by the task.
        settings["strategy"] = DDPStrategy(find_unused_parameters=True, broadcast_buffers=False)
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view")  # channels last, or one
    try:
        trainer = pl.Trainer(
            **settings,
            **more,
            default_root_dir=folder,
            plugins=plugins,
            enable_checkpointing=folder is not None,
            enable_progress_bar=folder is not None and sys.stdout.isatty(),
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ImportError, ValueError, TypeError, RuntimeError) as error:
        raise ZooError(f"trainer: {str(error).splitlines()[0]}") from error
    if place().world_size > 1:
        # Lightning's processes tell each other of SIGTERM when it comes, and ask each other at every batch. Here who
        # started them ends them all, and one that waits for a dead one could not be ended.
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
    return trainer


def picture_callbacks(config: dict[str, Any], task: Task) -> list[Callback]:
    """What shows the run's task in TensorBoard."""
    if not config["logger"]["pictures"] or task.facts.get("recall"):  # made-up symbols are nothing to look at
        return []
    for kind, pictures in PICTURES.items():
        if isinstance(task, kind):
            return [pictures(facts=task.facts)]
    return [Pictures(facts=task.facts)]


def skip_unused_hooks(trainer: pl.Trainer, task: Task) -> None:
    for owner, base in [*((callback, Callback) for callback in trainer.callbacks), (task, pl.LightningModule)]:  # type: ignore[attr-defined]
        for hook in BATCH_HOOKS:
            if getattr(type(owner), hook, None) is getattr(base, hook, None):
                setattr(owner, hook, None)
