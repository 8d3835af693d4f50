"""What must hold before a run starts, where it is nobody's argument and therefore nobody else's to check."""

import ast
import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from zoo.data.loaders import Loader
from zoo.data.own import note
from zoo.errors import ZooError
from zoo.fitting import is_foreign, readers
from zoo.folders import MAY_CHANGE
from zoo.report import first_example, flatten
from zoo.signatures import Parameter, fits, signature
from zoo.summary import Summary, summarize
from zoo.tasks.base import Task
from zoo.transfer import NO_TRANSFER

_DRAWS_FLOAT32 = ("zoo.tasks.gan.Gan", "zoo.tasks.vae.Vae")
# arguments of a task that only losses with this word in their name read
_OF_LOSS = {"focal_gamma": "focal", "hinge_margin": "hinge", "dice_weight": "dice"}


def check_ranges(config: dict[str, Any]) -> None:
    """Refuse what is nobody's argument and therefore nobody's to check."""
    _check_class("task", config)
    _check_class("optimizer", config)
    wanted = config["train_examples"]
    if wanted is not None and (wanted <= 0 or (isinstance(wanted, float) and wanted > 1)):
        raise ZooError(f"train_examples={wanted}: must be a number of examples, at least 1, or a share between 0 and 1")
    patience = config["early_stopping"]["patience"]
    if patience is not None and patience < 1:
        raise ZooError(f"early_stopping.patience={patience}: must be at least 1, or null for none")
    waits = patience is not None or "Plateau" in config["scheduler"]["_target_"]
    if config["trainer"]["limit_val_batches"] == 0 and waits:
        raise ZooError("trainer.limit_val_batches=0: must be more than 0, as this run waits for a validation score")
    if config["model"].get("weights") is not None and "LSUV" in config["init"]["_target_"]:
        raise ZooError("init=lsuv would overwrite model.weights: choose one of them")
    if config.get("transfer", {}).get("freeze", "nothing") != "nothing" and "LSUV" in config["init"]["_target_"]:
        raise ZooError("init=lsuv does not reach what transfer.freeze has frozen: choose one of them")
    if str(config["model"].get("weights")).startswith("torchvision") and config["model"].get("stride_in") == "1x1":
        raise ZooError("model.stride_in=1x1: must be 3x3 with torchvision's weights, which are those of v1.5")
    check_precision(config)
    note_without_effect(config)
    task = config["task"]
    if task["_target_"] == "zoo.tasks.diffusion.Diffusion" and task["sampler"] == "ddpm" and task["eta"] != 1:
        raise ZooError(f"task.eta={task['eta']}: must be 1 with task.sampler=ddpm, which always draws on the way")
    if config["task"]["_target_"] == "zoo.tasks.gan.Gan":
        for name, value in config.get("transfer", {}).items():
            if value != NO_TRANSFER[name]:
                raise ZooError(f"transfer.{name}={value}: must be {NO_TRANSFER[name]} for a GAN, which has no one head")
    if (config["trainer"]["max_epochs"] or -1) < 1 and config["trainer"]["max_steps"] < 1:
        raise ZooError("trainer.max_epochs and trainer.max_steps: one of them must be at least 1")


def _check_class(node: str, config: dict[str, Any]) -> None:
    target = config[node]["_target_"]
    try:
        get_class(target)
    except (ImportError, ValueError):
        raise ZooError(f"{node}._target_={target}: must be a class that can be imported") from None


def note_without_effect(config: dict[str, Any]) -> None:
    """Say which values nothing will read, where they are not the default ones."""
    task, model, swap = config["task"], config["model"], config.get("swap", {})
    loss = str(task.get("loss"))
    unread = {name: f"task.loss={loss}" for name, word in _OF_LOSS.items() if word not in loss}
    has_heads = "aux_heads" in _parameters(model["_target_"]) and model.get("aux_heads", True)
    unread |= {} if has_heads else {"aux_weight": "a network without auxiliary heads"}
    takes = _parameters(task["_target_"])
    for name, why in unread.items():
        if name in task and name in takes and task[name] != ast.literal_eval(takes[name].default or ast.Constant(None)):
            note(f"task.{name}={task[name]} has no effect with {why}.")
    if swap.get("drop_block_size", 7) != 7 and not swap.get("drop_block"):
        note(f"swap.drop_block_size={swap['drop_block_size']} has no effect without swap.drop_block.")


def _parameters(target: str) -> Mapping[str, Parameter]:
    try:
        takes = signature(target)
    except LookupError:
        takes = None
    return takes.parameters if takes else {}


def check_precision(config: dict[str, Any]) -> None:
    """Refuse a precision of all weights that is not that of the latents which go into them."""
    precision = config["trainer"].get("precision")
    if str(precision) in ("64", "64-true", "16-true", "bf16-true") and config["task"]["_target_"] in _DRAWS_FLOAT32:
        raise ZooError(
            f"trainer.precision={precision}: must be 32-true, bf16-mixed or 16-mixed for a network whose latents are "
            "drawn in 32 bits"
        )


def check_known(cfg: DictConfig, choices: Mapping[str, str]) -> None:
    """Refuse data that lack a fact that the model needs, once their files have told all they can."""
    parameters = _parameters(cfg.model._target_)
    asked: Any = OmegaConf.to_container(cfg.model)  # references unresolved
    for name, value in asked.items():
        is_fact = str(value).startswith("${data.") and cfg.model[name] is None and name in parameters
        if is_fact and not fits(None, parameters[name].kinds):
            data = choices.get("data", "")
            raise ZooError(
                f"model={choices.get('model', '')}: needs {value[2:-1]}, which data={data} does not have."
                f"{readers(cfg.data, data)}"
            )


def check_facts(config: dict[str, Any], data: Any) -> None:
    """Refuse data that lack what the task needs."""
    for fact, advice in getattr(get_class(config["task"]["_target_"]), "needs", {}).items():
        if not data.facts.get(fact):
            raise ZooError(f"data.{fact} is missing: {advice}.")
    for name, fact in (("in_channels", "channels"), ("image_size", "image_size"), ("in_features", "num_features")):
        given, there = config["model"].get(name), data.facts.get(fact)
        if None not in (given, there) and given != there:
            raise ZooError(f"model.{name}={given}: must be {there}, which is data.{fact}")
    for name in ("num_classes", "num_tokens", "num_source_tokens", "num_target_tokens"):
        given, there = config["model"].get(name), data.facts.get(name)
        if given is not None and there is not None and given < there:
            what = name.removeprefix("num_").replace("_", " ")
            raise ZooError(f"model.{name}={given}: must be at least {there}, the number of {what} in the data")


def check_sizes(network: nn.Module, data: Any, trainer: dict[str, Any]) -> None:
    """Refuse splits and batches too small to compute with."""
    for split in ("train", "val"):
        least = 1 if split == "val" and data.facts.get("ignore_index") is not None else 2  # a mask has many targets
        if split in data.splits and data.size(split) < least:
            mend = ", or raise data.val_fraction" if split == "val" and hasattr(data, "val_fraction") else ""
            mend = ", or raise train_examples" if split == "train" and getattr(data, "train_examples", None) else mend
            raise ZooError(
                f"The {split} split has {data.size(split)} example: must have at least {least}; give more data{mend}."
            )
    batch_norm = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
    if batch_norm and data.batch_size < 2:
        raise ZooError(f"data.batch_size={data.batch_size}: must be at least 2 for a network with batch normalisation")
    for split in data.splits:
        if split != "val" or trainer["limit_val_batches"] != 0:
            check_limit(trainer, split, data.loader(split, training=split == "train"))


def check_scored(task: Task, data: Any, split: str) -> None:
    """Refuse a split of fewer examples than its scores can be computed from."""
    if data.size(split) < task.fewest:
        raise ZooError(
            f"The {split} split has {data.size(split)} example: must have at least {task.fewest}, as "
            f"{type(task).__name__} compares examples; give more data."
        )


def check_reads(task: Task, data: Any, choices: Mapping[str, str], split: str = "train") -> Summary:
    """What the task's network is made of; refuses data of which it cannot read an example."""
    inputs = first_example(task, data, split)
    try:
        summary = summarize(task.network, *inputs)
    except (ValueError, TypeError, IndexError, RuntimeError) as error:
        model, name = choices.get("model", ""), choices.get("data", "")
        facts = {fact: value for fact, value in data.facts.items() if value is not None}
        foreign = is_foreign(model, facts)
        if not foreign and not isinstance(error, ValueError):
            raise  # a bug, in a network that was made for such data
        advice = readers(facts, name) if foreign else ""
        raise ZooError(f"model={model} cannot read data={name}: {str(error).splitlines()[0]}.{advice}") from error
    if data.facts.get("ignore_index") is not None:
        one = torch.zeros(1, dtype=torch.int64)
        logits = torch.zeros(_on_meta(task.network, inputs, training=False).shape)
        batch = data.splits[split].batch(0, one, one)
        task.loss(lambda *_: logits, batch)  # type: ignore[arg-type]  # refuses fewer logits than targets
    if any(isinstance(module, nn.modules.instancenorm._InstanceNorm) for module in task.network.modules()):
        try:
            _on_meta(task.network, [input.expand(2, *input.shape[1:]) for input in inputs], training=True)
        except ValueError:
            raise ZooError(
                "swap.norm=instance: must be another for this network and these sizes, as it has maps of a single "
                "pixel, which has no variance."
            ) from None
    batches = len(data.loader(split, training=True)) if split == "train" else math.inf
    if (steps := getattr(task, "n_critic", 1)) > batches:
        note(f"task.n_critic={steps}: the generator steps once in {steps} batches, and an epoch has {batches}.")
    return summary


def _on_meta(network: nn.Module, inputs: Sequence[Tensor], *, training: bool) -> Any:
    """What a copy of the network gives, on the `meta` device: shapes only."""
    with torch.no_grad():
        return copy.deepcopy(network).to("meta").train(training)(*(input.to("meta") for input in inputs))


def check_limit(trainer: dict[str, Any], stage: str, loader: Loader) -> None:
    """Refuse a limit that leaves no batch."""
    limit = trainer[f"limit_{stage}_batches"]
    if 0 <= (limit * len(loader) if isinstance(limit, float) else limit) < 1:
        raise ZooError(f"trainer.limit_{stage}_batches={limit}: must leave at least one of the {len(loader)} batches")


def check_continued(config: dict[str, Any], checkpoint: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Refuse to continue with another config, or to a nearer end; returns what the checkpoint says of itself."""
    if not {"epoch", "global_step", "engine", "loops", "callbacks", "optimizer_states"} <= checkpoint.keys():
        raise ZooError(f"{folder}: its last checkpoint holds a network, but no state of training to continue from.")
    now, then = flatten(config), flatten(checkpoint["zoo"]["config"])
    for name in dict.fromkeys([*then, *now]):
        if not name.startswith(MAY_CHANGE) and now.get(name) != then.get(name):
            raise ZooError(
                f"{folder / 'config.yaml'}: {name} is {now.get(name)}, and this run was trained with "
                f"{then.get(name)}.\nPut that back, or start a new run."
            )
    limit = "max_steps" if config["trainer"]["max_steps"] > 0 else "max_epochs"
    reached = checkpoint["engine"]["step_count"] if limit == "max_steps" else checkpoint["epoch"] + 1
    if 0 < (config["trainer"][limit] or 0) < reached:
        raise ZooError(f"trainer.{limit}={config['trainer'][limit]}: must be at least {reached}, where this run is")
    return checkpoint["zoo"]
