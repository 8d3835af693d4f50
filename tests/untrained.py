"""Checkpoints of networks that were not trained, with everything in them that a run writes. For tests of verbs."""

from pathlib import Path
from typing import Any

import torch
from conftest import compose_config
from torch import nn

from zoo.build import build
from zoo.network import construct
from zoo.report import to_plain
from zoo.run import fill_facts


def untrained_run(folder: Path, *overrides: str, std: float = 0.3, centred: bool = False) -> tuple[Path, Any]:
    """A run folder with a checkpoint of a fresh network of these overrides, and its data.

    `std` is that of its weights: large enough that answers differ, small enough that they are not all of one kind.
    `centred`: of the test split each class gets a logit of 0 in the middle, so that none is the answer to everything.
    """
    cfg = compose_config([*overrides, "trainer.accelerator=cpu", "logger=csv"])
    data = build(to_plain(cfg.data), "data")()
    data.setup("fit")
    fill_facts(cfg, data)
    config = to_plain(cfg)
    network = construct(config)
    torch.manual_seed(1)
    for parameter in network.parameters():  # opinionated, so that answers differ
        nn.init.normal_(parameter, std=std if parameter.ndim > 1 else 0.1)
    if centred:
        everything = torch.arange(data.size("test"))
        with torch.no_grad():
            logits = network.eval()(data.splits["test"].batch(0, everything, everything)["input"])
            list(network.parameters())[-1].sub_(logits.transpose(0, 1).flatten(1).median(1).values)
    choices = dict(word.split("=", 1) for word in overrides if word.startswith(("model=", "data=")))
    described = {"format_version": 1, "config": config, "choices": choices, "logs": {}}
    described |= {"class_names": list(data.facts.get("class_names") or []), "preprocessing": data.preprocessing}
    path = folder / "checkpoints" / "best.ckpt"
    path.parent.mkdir(parents=True)
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save({"zoo": described, "state_dict": state}, path)
    return folder, data
