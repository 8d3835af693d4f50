"""How a network of each task is called, by the contracts of docs/design.md: what is exported and what it is tried with.

Shapes: B batch, T steps, L layers, H hidden units.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from zoo.tasks.diffusion import Diffusion
from zoo.tasks.gan import Gan
from zoo.tasks.language_model import LanguageModel
from zoo.tasks.reconstruction import Reconstruction
from zoo.tasks.seq2seq import Seq2Seq
from zoo.tasks.vae import Vae

Config = dict[str, Any]


@dataclass(frozen=True)
class Argument:
    """A tensor that goes in: its axes, by name where they may be of any size; `below` is None of real numbers, else
    they are whole ones from 0 to below − 1."""

    name: str
    shape: tuple[int | str, ...]
    below: int | None = None


@dataclass(frozen=True)
class Signature:
    """What is exported of a network: a module that takes `arguments` and gives tensors called `outputs`.

    The last `states` arguments are the state of a language model, which of an LSTM is a tuple of two. `steps` is the
    usual size of the axis of that name; `targets` is another.
    """

    module: nn.Module
    arguments: tuple[Argument, ...]
    outputs: tuple[str, ...]
    steps: int = 1
    states: int = 0

    def arranged(self, flat: Sequence[Any]) -> tuple[Any, ...]:
        """One thing for each argument, as the module takes them."""
        return (*flat[: -self.states], tuple(flat[-self.states :])) if self.states > 1 else tuple(flat)

    def example(self, batch: int, steps: int) -> tuple[Any, ...]:
        """Arguments for a call: standard normal numbers, or whole ones; lengths are whole."""
        generator, sizes = torch.Generator().manual_seed(batch), {"batch": batch, "steps": steps, "targets": steps + 1}
        flat = []
        for argument in self.arguments:
            shape = [sizes[axis] if isinstance(axis, str) else axis for axis in argument.shape]
            if argument.below is None:
                flat.append(torch.randn(shape, generator=generator))
            elif argument.name == "source_length":
                flat.append(steps - torch.arange(batch) % steps)  # full, then shorter and shorter
            else:
                flat.append(torch.randint(argument.below, shape, generator=generator))
        return self.arranged(flat)

    def fixed(self) -> "Signature":
        """The same for sequences of the usual length only."""
        sizes = {"steps": self.steps, "targets": self.steps + 1}
        shapes = [tuple(sizes.get(axis, axis) for axis in argument.shape) for argument in self.arguments]  # type: ignore[arg-type]
        arguments = [replace(argument, shape=shape) for argument, shape in zip(self.arguments, shapes, strict=True)]
        return replace(self, arguments=tuple(arguments))

    @property
    def lengths(self) -> tuple[int, ...]:
        """Numbers of steps to try a file with."""
        free = any("steps" in argument.shape for argument in self.arguments)
        return (self.steps, max(1, self.steps // 2)) if free else (self.steps,)


def signature(network: Any, kind: type, facts: Config) -> Signature:
    """How a network of a task is called, by the contracts of docs/design.md; `facts` are those of its data."""
    steps, classes = facts.get("sequence_length") or 8, getattr(network, "num_classes", None)
    if issubclass(kind, Seq2Seq):
        steps = max(1, min(steps, getattr(network, "max_length", steps + 1) - 1))  # a target has a token more
    told = (Argument("condition", ("batch",), classes),) if issubclass(kind, Vae | Gan | Diffusion) and classes else ()
    if issubclass(kind, Gan):
        return Signature(network.generator, (Argument("noise", ("batch", network.latent)), *told), ("images",))
    if issubclass(kind, Seq2Seq):
        source = Argument("source", ("batch", "steps"), facts["num_source_tokens"])
        target = Argument("target", ("batch", "targets"), facts["num_target_tokens"])
        return Signature(network, (source, Argument("source_length", ("batch",), 1), target), ("logits",), steps)
    if issubclass(kind, LanguageModel):
        tokens = Argument("tokens", ("batch", "steps"), facts["num_tokens"])
        with torch.no_grad():
            parts = tensors(network(torch.zeros(1, 1, dtype=torch.int64))[1])
        shapes = [(part.shape[0], "batch", *part.shape[2:]) for part in parts]  # (L, B, H)
        states = tuple(Argument(f"state_{number}", shape) for number, shape in enumerate(shapes))
        outputs = ("logits", *(f"new_{state.name}" for state in states))
        return Signature(network, (tokens, *states), outputs, steps, len(states))
    if facts.get("channels") and facts.get("image_size"):
        read = Argument("input", ("batch", facts["channels"], facts["image_size"], facts["image_size"]))
    elif facts.get("num_tokens"):
        read = Argument("input", ("batch", "steps"), facts["num_tokens"])
    elif facts.get("sequence_length"):
        read = Argument("input", ("batch", "steps", facts["num_features"]))
    else:
        read = Argument("input", ("batch", facts["num_features"]))
    if issubclass(kind, Vae):
        noise = Argument("noise", ("batch", network.latent_size))
        return Signature(network, (read, noise, *told), ("reconstruction", "mean", "log_variance"))
    if issubclass(kind, Diffusion):
        noisy, time = replace(read, name="noisy"), Argument("time", ("batch",), 1000)
        return Signature(network, (noisy, time, *told), ("prediction",))
    if issubclass(kind, Reconstruction):
        return Signature(network, (read,), ("reconstruction",))
    return Signature(network, (read,), ("logits" if facts.get("class_names") else "output",), steps)


def tensors(values: Any) -> list[Tensor]:
    """The tensors in what a module takes or gives, in order."""
    return [leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, Tensor)]
