"""What the tasks that make pictures share: pixels and conditions from a batch, and how they are asked for samples.

Shapes: B examples, C channels, H×W pixels.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zoo.tasks.base import Batch, Task


class Generative(Task):
    """A task whose network makes pictures; `conditional` says whether of a class that is asked for."""

    conditional = False

    def sample(self, numbers: Tensor, *, seed: int, condition: Tensor | None = None) -> Tensor:
        """Pictures (B, C, H, W) from 0 to 1. Picture `numbers[b]` is a function of (seed, number, class) alone.

        `numbers` (B,) int64; `condition` (B,) int64 classes, for a conditional network only. Nothing is drawn from
        torch's global generator. The network is `evaluated_network`, in evaluation mode when this is called.
        """
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the pictures."""
        return self.facts["channels"], self.facts["image_size"], self.facts["image_size"]

    def classes(self, numbers: Tensor) -> Tensor | None:
        """The classes in turn, for samples of which none was asked: 0, 1, …, K − 1, 0, …; None without condition."""
        return numbers % self.facts["num_classes"] if self.conditional else None


def condition_of(batch: Batch, conditional: bool) -> Tensor | None:
    """The classes (B,) of a batch, for a network that is told them."""
    return batch["target"] if conditional else None


def pixels(images: Tensor, facts: Mapping[str, Any]) -> Tensor:
    """What the network sees, normalised, as pixels from 0 to 1: (B, C, H, W)."""
    mean, std = (torch.tensor(facts[name], device=images.device).view(-1, 1, 1) for name in ("mean", "std"))
    return (images.float() * std + mean).clamp(0, 1)


def require_range(facts: Mapping[str, Any], low: float, why: str) -> None:
    """Refuse data whose normalised pixels do not run from `low` (0 or −1) to 1."""
    wanted = {"mean": -low / (1 - low), "std": 1 / (1 - low)}
    for name, value in wanted.items():
        if any(abs(given - value) > 1e-6 for given in facts[name]):
            raise ValueError(f"data.{name}={facts[name]}: must be [{value:g}] here, as {why}")


def is_conditional(network: nn.Module, facts: Mapping[str, Any]) -> bool:
    """Whether the network is told classes. Raises ValueError where the data have none to tell."""
    conditional = getattr(network, "num_classes", None) is not None
    if conditional and not facts.get("num_classes"):
        raise ValueError(
            "model.conditional=true: must be false here, as this data has no classes; a network that was trained so "
            "needs other data, that have classes"
        )
    return conditional
