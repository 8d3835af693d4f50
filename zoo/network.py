"""A network from a config: built, changed, and for a fresh run given its first weights."""

from typing import Any

import torch
from torch import Tensor, nn

from zoo.build import build
from zoo.data.own import note
from zoo.errors import ZooError
from zoo.randomness import key
from zoo.swaps import swap


def construct(config: dict[str, Any]) -> nn.Module:
    """The network that `model` and `swap` describe, its weights a function of `seed`: all that a checkpoint needs."""
    torch.manual_seed(key(config["seed"], "init"))
    try:
        network = build({name: value for name, value in config["model"].items() if name != "weights"}, "model")()
    except ZooError as error:
        size, said = config["model"].get("image_size"), str(error).removeprefix("model: ")
        if said.startswith(f"image_size={size}:") and config["data"].get("image_size") == size:  # it came from there
            raise ZooError(f"data.{said}; or choose another model") from error
        raise
    try:
        return swap(network, **config.get("swap", {}))
    except ValueError as error:
        raise ZooError(str(error)) from error


def initialise(network: nn.Module, config: dict[str, Any], *inputs: Tensor) -> None:
    """Fill the weights as the `init` option says; `inputs` are the network's arguments, for one that looks at them."""
    init = build(config["init"], "init")()
    try:
        init(network, torch.Generator().manual_seed(key(config["seed"], "initialiser")), *inputs)
    except ValueError as error:
        raise ZooError(f"init: {error}") from error
    if getattr(init, "zero_bias", False) and any(getattr(module, "mode", "") == "LSTM" for module in network.modules()):
        note("this init makes all biases zero, those of the LSTM's forget gates too; init.zero_bias=false leaves them.")


def needs_inputs(config: dict[str, Any]) -> bool:
    """Whether the `init` option looks at training examples."""
    return build(config["init"], "init")().needs_inputs
