"""From a resolved config to objects, with the two guards that a config needs.

A config may come out of a file somebody sent, and `_target_` can name any function: targets are therefore checked
before anything is called. And a person's wrong value comes back as one sentence that names its key.
"""

import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from torch import nn

from zoo.errors import ZooError
from zoo.layout import one_line

TRUSTED_PACKAGES = ("zoo", "torch", "torchvision")
TRUSTED_BASES = (nn.Module, torch.optim.Optimizer, pl.LightningModule, pl.LightningDataModule)
# what the nodes of a config become: an object of this class, or one with this attribute
KINDS = {"model": nn.Module, "task": pl.LightningModule, "data": pl.LightningDataModule}
KINDS |= {"optimizer": torch.optim.Optimizer}
MARKS = {"init": "needs_inputs", "scheduler": "multiplier"}
# what the keys of the harness hold in a stored config
HARNESS: dict[str, Any] = dict.fromkeys(("model", "task", "data", "trainer", "optimizer", "scheduler", "init"), dict)
HARNESS |= dict.fromkeys(("logger", "checkpoint", "early_stopping", "penalty", "swap", "transfer", "augment"), dict)
HARNESS |= {"seed": int, "fast": bool, "weight_decay_on": str, "ema_decay": float | None}
HARNESS |= {"train_examples": int | float | None}
TRUSTED_MODULES = ("zoo.schedules", "zoo.init")  # plain classes that hold numbers


def is_plain(value: Any) -> bool:
    """Whether a value is made of numbers, text, lists and mappings by name only, as a config is."""
    if isinstance(value, dict):
        return all(isinstance(name, str) and is_plain(item) for name, item in value.items())
    return all(map(is_plain, value)) if isinstance(value, list | tuple) else isinstance(value, str | int | float | None)


def is_config(config: Any) -> bool:
    """Whether a stored config has what every run's has; what older runs did not say may be absent."""
    if not isinstance(config, dict) or not {"seed", "model", "task", "data", "trainer"} <= config.keys():
        return False
    kinds = all(isinstance(value, HARNESS.get(name, object)) for name, value in config.items())
    return kinds and all(isinstance(config[node].get("_target_"), str) for node in ("model", "task"))


def targets(config: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every (key, target) in a plain config, at any depth; a reference counts as one, since it can call resolvers."""
    if isinstance(config, str) and "${" in config:
        yield key, config  # a resolved config has none
    elif isinstance(config, dict):
        if "_target_" in config:
            yield f"{key}._target_", str(config["_target_"])
        for name, value in config.items():
            yield from targets(value, f"{key}.{name}" if key else str(name))
    elif isinstance(config, list | tuple):
        for number, value in enumerate(config):
            yield from targets(value, f"{key}[{number}]")


def is_trusted(target: str) -> bool:
    """Whether a target is one of our, torch's or torchvision's classes of a kind that only computes."""
    if target.split(".")[0] not in TRUSTED_PACKAGES:
        return False
    module_name, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError):
        return False
    if not inspect.isclass(found) or found.__module__.split(".")[0] not in TRUSTED_PACKAGES:
        return False
    return issubclass(found, TRUSTED_BASES) or found.__module__ in TRUSTED_MODULES


def refuse_untrusted(config: dict[str, Any], source: str) -> None:
    """Refuse a stored config that names a target other than a trusted class; nothing has been called by then."""
    for key, target in targets(config):
        if (key, target) != ("trainer._target_", "pytorch_lightning.Trainer") and not is_trusted(target):
            raise ZooError(
                f"{source} names {key}={target}, which is not a model, optimizer, task or data class of zoo, "
                "torch or torchvision; nothing was run.\nIf you know where the file comes from, add trust=true."
            )


def task_class(config: dict[str, Any], source: str, *, trust: bool) -> type:
    """The class of a stored config's task, after `refuse_untrusted` unless `trust`."""
    if not trust:
        refuse_untrusted(config, source)
    try:
        return get_class(config["task"]["_target_"])
    except ImportError as error:  # one that trust=true lets through
        raise ZooError(f"task: {error}") from None


def build(config: dict[str, Any], key: str) -> Callable[..., Any]:
    """The constructor a config node describes, its values bound: call it with the objects that no config can hold.

    ValueError and TypeError of the constructor become a ZooError that names the node.
    """

    def construct(*args: Any, **objects: Any) -> Any:
        try:
            made = instantiate(config, _convert_="all", _partial_=True)(*args, **objects)
        except InstantiationException as error:
            cause = error.__cause__ or error
            raise ZooError(f"{key}: {one_line(cause)}") from error
        except (ValueError, TypeError) as error:
            raise ZooError(f"{key}: {error}") from error
        except RuntimeError as error:
            if "overflow" not in str(error):  # how torch tells of a tensor beyond all memory
                raise
            raise ZooError(f"{key}: must be smaller: {one_line(error)}") from error
        if not (isinstance(made, KINDS[key]) if key in KINDS else hasattr(made, MARKS.get(key, "__class__"))):
            raise ZooError(f"{key}._target_={config['_target_']}: gives a {type(made).__name__}, which is no {key}")
        return made

    return construct
