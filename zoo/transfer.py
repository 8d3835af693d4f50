"""Starting from weights that something else has learnt: where they come from, what stays frozen, who learns slower.

A network is seen as blocks in the order of its layers, the last being its head: the layer that gives outputs, and
those of auxiliary heads. J. Yosinski et al. 2014, "How transferable are features in deep neural networks?"
(1411.1792); layer-wise decay of the rate: J. Howard, S. Ruder 2018, "Universal language model fine-tuning for text
classification" (1801.06146).
"""

import inspect
import re
import shlex
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError

import torch
from torch import Tensor, nn

from zoo.checkpoint import check_sums, find_checkpoint, read_checkpoint
from zoo.errors import ZooError

NO_TRANSFER = {"freeze": "nothing", "body_lr": 1.0, "layer_decay": 1.0}  # for runs from before `transfer`
# what has parameters but is no layer of its own: norms, and activations that learn
_JOINING = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.PReLU)
# torchvision's two ports from TensorFlow were trained on pixels from −1 to 1, whatever their `transforms()` say
_PLUS_MINUS_ONE = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}


class Weights(NamedTuple):
    """Learnt weights by name; where known, how the inputs were normalised and what the outputs mean."""

    state: dict[str, Tensor]
    preparation: dict[str, list[float]]
    source: str
    class_names: Sequence[str] = ()
    model: Mapping[str, Any] = {}  # the arguments of the network that learnt them


# Where weights come from ----------------------------------------------------------------------------------------------


def read_weights(source: str, model: str) -> Weights:
    """The weights of `torchvision`, of a .pth, .pt or .safetensors file, or of a run of ours.

    Raises ZooError where there are none, with what to do. `model` is the name of the model option, which for
    torchvision's weights must be torchvision's name.
    """
    if source.partition(":")[0] == "torchvision":
        return _from_torchvision(source, model)
    path = Path(source).expanduser()
    if path.is_dir() or path.suffix == ".ckpt":
        checkpoint = read_checkpoint(find_checkpoint(path))
        state = evaluated_weights(checkpoint["state_dict"])
        preprocessing = checkpoint["zoo"]["preprocessing"]
        preparation = {name: preprocessing[name] for name in ("mean", "std") if name in preprocessing}
        channels = preprocessing.get("channels") or 1
        preparation = {name: v * channels if len(v) == 1 else v for name, v in preparation.items()}  # one for all
        described = checkpoint["zoo"]
        return Weights(state, preparation, source, described["class_names"], described["config"]["model"])
    if not path.is_file():
        raise ZooError(
            f"model.weights={source}: there is no such file; give torchvision, a .pth, .pt or .safetensors file, "
            "or a run folder or checkpoint of ours."
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return Weights(load_file(path), {}, source)
        if zipfile.is_zipfile(path):
            check_sums(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise ZooError(
            f"model.weights={source}: this file cannot be read as weights ({reason}).\n"
            "It must hold tensors by name only, as torch.save(network.state_dict(), file) writes them."
        ) from None
    for wrapper in ("state_dict", "model", "model_state_dict"):  # as training scripts wrap them
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ZooError(f"model.weights={source}: this file holds no weights: it must hold tensors by name.")
    return Weights({name.removeprefix("module."): tensor for name, tensor in content.items()}, {}, source)


def evaluated_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The network's part of a checkpoint's state: the averaged weights, where there are, else the current ones."""
    found: dict[str, Tensor] = {}
    for prefix in ("network.", "ema."):  # the average may be of a part: of a GAN's generator
        found |= {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return found


def _from_torchvision(source: str, model: str) -> Weights:
    """torchvision's weights for the model of the same name: its default ones, or `torchvision:IMAGENET1K_V1`."""
    from torchvision.models import get_model_weights

    try:
        entries = get_model_weights(model)
    except ValueError:
        raise ZooError(
            f"model.weights={source}: torchvision has no weights for model={model}; give a file or a run."
        ) from None
    wanted = source.partition(":")[2] or "DEFAULT"
    if wanted not in entries.__members__:
        raise ZooError(f"model.weights={source}: must be torchvision:{' or torchvision:'.join(entries.__members__)}")
    entry = entries[wanted]
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    try:
        state = entry.get_state_dict(progress=True, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        raise ZooError(
            f"model.weights={source}: the download failed ({str(error).splitlines()[0]}).\n"
            f"Fetch {entry.url} elsewhere and put it into {shlex.quote(str(folder))}."
        ) from None
    # DenseNet's files are older than its names in torchvision: norm.1 of a layer is norm1 today
    state = {re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", name): part for name, part in state.items()}
    if model in ("googlenet", "inception_v3"):
        return Weights(state, _PLUS_MINUS_ONE, source)
    transforms = entry.transforms()
    return Weights(state, {"mean": list(transforms.mean), "std": list(transforms.std)}, source)


def prepare_inputs(data: Any, weights: Weights) -> None:
    """Let a config of data normalise its inputs as the weights have seen theirs; what it says itself gives way."""
    for name, values in weights.preparation.items():
        if name in data and "channels" in data and data["channels"] in (None, len(values)):
            data["channels"], data[name] = len(values), values
            print(f"data.{name}: {values}, as {weights.source} was trained with")


def put_weights(network: nn.Module, weights: Weights, *, class_names: Sequence[str] = ()) -> list[str]:
    """Put weights into a network; the names of the parameters that stay fresh: a head's of another size or meaning.

    Of an autoencoder only the encoder is taken, where the network has no decoder.

    The meaning is other where both class names are known and differ. Auxiliary heads that only one of the two has are
    left out. Raises ZooError where anything else does not fit.
    """
    own, there = network.state_dict(), weights.state
    if any(name.startswith("decoder.") for name in there) and not hasattr(network, "decoder"):
        there = {name: tensor for name, tensor in there.items() if name.startswith("encoder.")}
    fresh = {
        f"{module}.{name}" for module in heads(network) for name, _ in network.get_submodule(module).named_parameters()
    }
    auxiliary = {name for name, _ in network.named_children() if _is_auxiliary(name)}
    means_other = bool(weights.class_names and class_names) and list(weights.class_names) != list(class_names)
    kept, problems = {}, []
    for name, tensor in own.items():
        given = there.get(name)
        if given is not None and given.shape == tensor.shape and not (means_other and name in fresh):
            kept[name] = given
        elif name in fresh or name.partition(".")[0] in auxiliary or name.endswith("num_batches_tracked"):
            continue
        elif given is None:
            problems.append(f"{name} is not in it")
        else:
            problems.append(f"{name} is {_size(given)} in it and {_size(tensor)} in the network")
    problems += [f"the network has no {n}" for n in there if n not in own and not _is_auxiliary(n.partition(".")[0])]
    if problems:
        more = f", and {len(problems) - 1} more like this" if len(problems) > 1 else ""
        small = str(getattr(network, "form", "")).startswith("small")
        form = " The weights of a network for large images need model.form=paper." if small else ""
        sizes = [
            f"model.{name}={weights.model[name]}"
            for name in inspect.signature(type(network)).parameters
            if name in weights.model and name not in ("in_channels", "in_features", "image_size", "num_classes")
        ]
        own_sizes = f"\nThat run has {', '.join(sizes)}: give the same." if sizes else ""
        raise ZooError(
            f"model.weights={weights.source} does not fit the network: {problems[0]}{more}.{form}{own_sizes}"
        )
    network.load_state_dict(kept, strict=False)
    return [name for name, _ in network.named_parameters() if name not in kept]


def _size(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a scalar"


# The network as blocks ------------------------------------------------------------------------------------------------


def _is_auxiliary(name: str) -> bool:
    return name.lower().startswith("aux")


def heads(network: nn.Module) -> list[str]:
    """The layers that give outputs, by name: the last linear layer (else convolution), and that of auxiliary heads."""
    names: list[str] = []
    parts = [("", network), *((name, child) for name, child in network.named_children() if _is_auxiliary(name))]
    for part, module in parts:
        inside = [
            (f"{part}.{name}" if part else name, layer)
            for name, layer in module.named_modules()
            if part or not _is_auxiliary(name)
        ]
        layers = [name for name, layer in inside if isinstance(layer, nn.Linear)]
        layers = layers or [name for name, layer in inside if isinstance(layer, nn.Conv2d)]
        names += layers[-1:]
    return names


def blocks(network: nn.Module) -> list[list[str]]:
    """The parameters' names block by block, in the order of the layers; the last block is the head.

    Containers (nn.Sequential, nn.ModuleList) are opened, anything else is a block; norms and activations that learn
    join the layer before them.
    """
    head = set(heads(network))
    found: list[list[str]] = []
    last: list[str] = []

    def walk(prefix: str, module: nn.Module) -> None:
        own = [f"{prefix}{name}" for name, _ in module.named_parameters(recurse=False)]
        if own:
            found.append(own)
        for name, child in module.named_children():
            path = f"{prefix}{name}"
            names = [f"{path}.{parameter}" for parameter, _ in child.named_parameters()]
            if path in head or (not prefix and _is_auxiliary(name)):
                last.extend(names)
            elif isinstance(child, nn.Sequential | nn.ModuleList) or any(
                other.startswith(f"{path}.") for other in head
            ):
                walk(f"{path}.", child)
            elif names and isinstance(child, _JOINING) and found:
                found[-1].extend(names)
            elif names:
                found.append(names)

    walk("", network)
    return [*found, last]


# Freezing and rates ---------------------------------------------------------------------------------------------------


def freeze(network: nn.Module, what: str | int) -> None:
    """Stop training `nothing`, the `body` (all but the head), or, given a number n, all but the head and n blocks.

    A batch norm whose parameters are frozen keeps its statistics too: zoo/tasks/base.py sees to it.
    """
    order = blocks(network)
    if isinstance(what, str):
        if what not in ("nothing", "body"):
            raise ZooError(
                f"transfer.freeze={what}: must be nothing, body, or how many blocks below the head are trained"
            )
        frozen = order[:-1] if what == "body" else []
        if what == "body" and not frozen:
            raise ZooError("transfer.freeze=body: must be nothing, as this network has no layer below its head")
    elif 0 <= what < len(order):
        frozen = order[: len(order) - 1 - what]
    else:
        raise ZooError(f"transfer.freeze={what}: must be from 0 to {len(order) - 1}, the blocks of this network's body")
    names = {name for block in frozen for name in block}
    for name, parameter in network.named_parameters():
        if name in names:
            parameter.requires_grad_(False)


def rates(network: nn.Module, *, body_lr: float, layer_decay: float) -> dict[str, float]:
    """A factor on the learning rate of every parameter: 1 in the head, body_lr · layer_decayⁿ n blocks below."""
    factors: dict[str, float] = {}
    for below, block in enumerate(reversed(blocks(network))):
        factors |= dict.fromkeys(block, body_lr * layer_decay**below if below else 1.0)
    return factors


def describe(network: nn.Module, weights: Weights, fresh: list[str]) -> str:
    """One line on what was taken from where."""
    total = len(list(network.parameters()))
    line = f"weights: {total - len(fresh)} of {total} tensors from {weights.source}"
    return line + (f"; fresh: {', '.join(fresh[:4])}{' …' if len(fresh) > 4 else ''}" if fresh else "")
