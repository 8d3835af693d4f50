"""Evaluation from a checkpoint alone: the same code gives a run its final scores and a person theirs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import OmegaConf
from torch import nn

from zoo.build import build, refuse_untrusted
from zoo.checkpoint import find_checkpoint, read_checkpoint
from zoo.conditions import check_limit, check_precision, check_reads, check_scored
from zoo.devices import choose_arithmetic, make_fast
from zoo.errors import ZooError
from zoo.fitting import check_task
from zoo.launching import launch
from zoo.network import construct
from zoo.processes import is_first_process, joined, to_start
from zoo.report import quieten_lightning
from zoo.run import make_task, make_trainer
from zoo.signals import stop_signals
from zoo.transfer import evaluated_weights

# facts of the data that belong to the trained network rather than to what it is evaluated on
PREPARATION = (
    *("mean", "std", "columns", "feature_names", "target_mean", "target_std"),
    *("level", "lower", "vocabulary", "num_tokens", "sequence_length", "window", "horizon", "season"),
    *("source_vocabulary", "num_source_tokens", "target_vocabulary", "num_target_tokens"),
)


def evaluate(
    *, ckpt_path: Path, split: str = "test", trust: bool = False, overrides: Sequence[str] = ()
) -> dict[str, float]:
    """Score a run folder or checkpoint file on a split and print the scores.

    `overrides` are further `group=option` and `key=value` words for data, task and trainer.
    """
    quieten_lightning()
    path = find_checkpoint(ckpt_path)
    words = [word for word in overrides if word.startswith("trainer")]
    config = read_checkpoint(path)["zoo"]["config"]
    if not trust:
        refuse_untrusted(config, str(path))
    trainer = override(config, words)["trainer"]
    with stop_signals():
        if count := to_start(trainer):
            settings = {"split": split, "trust": trust, "overrides": list(overrides)}
            return launch(count, "evaluate", {"ckpt_path": str(ckpt_path), "settings": settings})
        with joined(trainer):
            scores = evaluate_checkpoint(path, split=split, trust=trust, overrides=overrides)
    if not is_first_process():
        return scores
    print(f"checkpoint: {path}")
    for name, value in scores.items():
        print(f"{name} {value:.6g}")
    return scores


def evaluate_checkpoint(
    path: Path, *, split: str = "test", trust: bool = False, overrides: Sequence[str] = (), data: Any = None
) -> dict[str, float]:
    """The scores of a checkpoint on a split, `{"test/accuracy": …}`; `data` spares reading it again."""
    checkpoint = read_checkpoint(path)
    config = checkpoint["zoo"]["config"]
    if not trust and data is None:
        refuse_untrusted(config, str(path))
    if overrides:
        config, choices = with_other_data(checkpoint["zoo"], overrides)
        check_precision(config)
    network = construct(config)
    if data is None:
        data = build(config["data"], "data")()
        data.setup("test")
    refuse_other_shapes(checkpoint["zoo"]["config"]["data"], data.facts)
    if split not in data.splits:
        raise ZooError(f"split={split}: this data has {', '.join(data.splits)}")
    task = make_task(config, network, data)
    if overrides:
        check_reads(task, data, choices, split)
    check_scored(task, data, split)
    load_weights(task.network, checkpoint["state_dict"], path)
    task.split = split
    choose_arithmetic(config)
    if config["fast"]:
        make_fast(network, config)
    trainer = make_trainer({**config["trainer"], "profiler": None}, logger=False)
    data.trainer = trainer
    data.train_examples = config["train_examples"]
    loader = data.loader(split)
    check_limit(config["trainer"], "test", loader)
    trainer.test(task, dataloaders=loader, verbose=False)
    return task.scores


def load_weights(network: nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Put the evaluated weights (the averaged ones, where there are) into a network."""
    weights = evaluated_weights(state)
    for name, tensor in weights.items():
        if tensor.isnan().any():
            raise ZooError(f"{path} holds no trained network: {name} is not a number (NaN), at least in part.")
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ZooError(
            f"{path} does not fit the network its config describes: {str(error).splitlines()[-1].strip()}"
        ) from None


def with_other_data(described: dict[str, Any], words: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """A checkpoint's config with further overrides, and its options' names; refuses what its network is not for."""
    config = override(described["config"], words)
    choices = described["choices"] | dict(word.split("=", 1) for word in words if word.startswith("data="))
    check_task(choices, config["data"])
    refuse_other_shapes(described["config"]["data"], config["data"])  # those that are asked for
    return config, choices


def refuse_other_shapes(trained_on: dict[str, Any], facts: dict[str, Any]) -> None:
    """Other data is welcome where the network can take it."""
    for name in ("channels", "image_size", "num_features", "horizon", "num_classes", "num_tokens", "num_source_tokens"):
        before, now = trained_on.get(name), facts.get(name)
        if before is not None and now is not None and before != now:
            mend = "choose other data" + (f", or data.{name}={before}" if name in ("image_size", "horizon") else "")
            raise ZooError(f"This network was trained with {name}={before} and this data has {name}={now}: {mend}.")


def override(config: dict[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """The stored config with further overrides; `data=fashion` takes the node from configs/."""
    cfg = OmegaConf.create(config)
    for word in sorted(words, key=lambda word: "." in word.split("=")[0]):  # options first, then values in them
        name, _, value = word.partition("=")
        if "." not in name:
            from hydra import compose, initialize_config_dir

            from zoo.checks import CONFIGS

            with initialize_config_dir(str(CONFIGS), version_base="1.3"):
                chosen = compose("train", overrides=[word])
            cfg[name] = OmegaConf.create(OmegaConf.to_container(chosen[name], resolve=True))
            if name == "data":  # inputs are prepared as in training, whatever data they come from
                for fact in PREPARATION:
                    if fact in cfg.data.keys() and config["data"].get(fact) is not None:  # noqa: SIM118
                        cfg.data[fact] = config["data"][fact]
            continue
        node, _, key = name.rpartition(".")
        if key not in (OmegaConf.select(cfg, node) or {}).keys():  # noqa: SIM118  # `in` overlooks a value still missing
            raise ZooError(f"{word}: the checkpoint's config has no key {name}.")
        try:
            OmegaConf.update(cfg, name, yaml.safe_load(value))
        except yaml.YAMLError:
            OmegaConf.update(cfg, name, value)
        if key in ("length", "delay", "window") and "sequence_length" in cfg[node].keys():  # noqa: SIM118
            cfg[node].sequence_length = None  # which follows from it
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def load(path: str | Path, *, trust: bool = False) -> tuple[nn.Module, dict[str, Any], list[str]]:
    """The trained network in eval mode, its preprocessing and its class names, from a run folder or a checkpoint."""
    found = find_checkpoint(Path(path))
    checkpoint = read_checkpoint(found)
    described = checkpoint["zoo"]
    if not trust:
        refuse_untrusted(described["config"], str(found))
    network = construct(described["config"])
    load_weights(network, checkpoint["state_dict"], found)
    return network.eval(), described["preprocessing"], described["class_names"]
