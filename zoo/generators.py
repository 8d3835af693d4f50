"""A trained generator, and the pictures it makes beside those it has learnt from.

Shapes: N pictures, C channels, H×W pixels. Pictures are uint8, of 256 levels, as a file has them.
"""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from zoo.build import build
from zoo.devices import choose_arithmetic, half_precision, make_fast, on_cuda
from zoo.errors import ZooError
from zoo.evaluation import load_weights
from zoo.network import construct
from zoo.run import make_task
from zoo.tasks.generative import Generative, pixels

SAMPLING = ("steps", "eta", "guidance", "sampler")  # values of a task that make other pictures of the same network
BATCH = 250  # pictures at a time


def trained(
    checkpoint: dict[str, Any], path: Path, settings: Mapping[str, Any], *, reads_data: bool = True
) -> tuple[Any, Any]:
    """The task of a checkpoint in evaluation mode, on the device to work on, and its data.

    `settings` stand in place of the task's own. Without `reads_data` the data are no more than the facts that the
    checkpoint holds, which are enough for samples.
    """
    config = checkpoint["zoo"]["config"]
    config = {**config, "task": {**config["task"], **settings}}
    network = construct(config)
    data: Any = SimpleNamespace(facts=config["data"])
    if reads_data:
        data = build(config["data"], "data")()
        data.setup("test")
        data.train_examples = config.get("train_examples")
    task: Any = make_task(config, network, data)
    load_weights(network, checkpoint["state_dict"], path)
    choose_arithmetic(config)
    device = "cuda" if on_cuda(config["trainer"]) else "cpu"
    if (half := half_precision(config["trainer"])) is not None:  # as it was trained, and twice as fast or more
        make_fast(network, config)
        network.forward = torch.autocast(device, half)(network.forward)
    if getattr(task, "sampler", None) == "ddpm" and (lost := settings.keys() & {"steps", "eta"}):
        name = min(lost)
        raise ZooError(
            f"{name}={settings[name]}: sampler=ddpm goes through all {task.timesteps} steps; add sampler=ddim."
        )
    return task.to(device).eval(), data


def levels(images: Tensor) -> Tensor:
    """Pictures from 0 to 1 as uint8."""
    return (images * 255).round().clamp(0, 255).to(torch.uint8)


def samples(task: Generative, numbers: Tensor, seed: int) -> Tensor:
    """The pictures of these numbers, of the classes in turn where the network is told one."""
    made = []
    for part in numbers.to(task.device).split(BATCH):
        with torch.no_grad():
            images = task.sample(part, seed=seed, condition=task.classes(part))
        if not images.isfinite().all():
            raise ZooError("The samples are no numbers (NaN): this generator has diverged.")
        made.append(levels(images).cpu())
    return torch.cat(made)


def real_pictures(data: Any, split: str) -> Tensor:
    """A split's pictures, not augmented; of the training split those that are learnt from."""
    return torch.cat([levels(pixels(batch["input"], data.facts)) for batch in data.loader(split)])
