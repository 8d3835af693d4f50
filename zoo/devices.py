"""What a run takes from its device: the one place that asks for CUDA.

Which device a trainer's options mean, which precision `fast=true` is there, TF32, cuDNN's search for algorithms, fused
optimizers, compilation, and where batches are made. Memory is zoo/memory.py's, sharded networks are zoo/sharding.py's.
On a CPU nothing here changes what a run computes, but for `fast=true`. The page for readers is docs/devices.md.
"""

import copy
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from hydra.utils import get_class
from torch import Tensor, nn

from zoo.data.arrays import ArraySplit
from zoo.data.languages import SnippetSplit
from zoo.data.loaders import Batch, Split
from zoo.data.series import SeriesSplit
from zoo.data.text import TextSplit
from zoo.data.tiles import MaskSplit
from zoo.errors import ZooError
from zoo.processes import place
from zoo.sharding import Sharded, check_sharded

Options = Mapping[str, Any]  # the node `trainer` of a config
_CUDA = ("auto", "gpu", "cuda")  # accelerators that mean CUDA, where there is one
# splits that are tensors and nothing else, whose batches ask for no number back from the device
_RESIDENT = (ArraySplit, MaskSplit, SeriesSplit, SnippetSplit, TextSplit)
# Storages that are on the device, by where they begin, each beside the original, whose place nothing else may take:
# splits and their copies share them.
Moved = dict[int, tuple[Tensor, Tensor]]
_SHARE = 0.25  # of the device's free memory, that data may take

# Which device -------------------------------------------------------------------------------------------------------


def on_cuda(trainer: Options) -> bool:
    """Whether these options mean CUDA: it is there, and another device was not asked for."""
    return str(trainer.get("accelerator", "auto")) in _CUDA and torch.cuda.is_available()


def check_device(config: Mapping[str, Any]) -> None:
    """Refuse, before anything is read, a device that is not there and what a run cannot do on it."""
    trainer = config["trainer"]
    accelerator, is_sharded = str(trainer.get("accelerator", "auto")), trainer.get("strategy") == "fsdp"
    if (accelerator in ("gpu", "cuda") or is_sharded) and not on_cuda(trainer):
        asked = "trainer=fsdp" if is_sharded else f"trainer.accelerator={accelerator}"
        reason = "" if torch.version.cuda else f" (PyTorch {torch.__version__} is built without CUDA)"
        instead = "trainer=ddp" if is_sharded else "trainer=cpu, or trainer=auto, which takes what there is"
        raise ZooError(f"{asked}: needs a CUDA device, and there is none{reason}; say {instead}.")
    if str(trainer.get("precision")) in ("16-mixed", "16") and not on_cuda(trainer):
        raise ZooError(
            f"trainer.precision={trainer['precision']}: needs a CUDA device; on a CPU say bf16-mixed, or 32-true."
        )
    if is_sharded:
        if place().world_size == 1:
            raise ZooError("trainer=fsdp: needs several CUDA devices to share a network out over; say trainer=gpu.")
        check_sharded(config)


def lightning_settings(trainer: Options, *, training: bool) -> dict[str, Any]:
    """The options as Lightning's Trainer takes them. `auto` is CUDA or the CPU: Apple's GPUs are for who names them.

    A network trained in float16 is evaluated on a CPU in float32, as CPUs are slow in float16 or cannot do it.
    """
    settings = dict(trainer)
    settings.pop("data_on_device", None)
    if settings["accelerator"] == "auto":
        settings["accelerator"] = "cuda" if on_cuda(trainer) else "cpu"
    if not training and not on_cuda(trainer) and str(settings.get("precision")) in ("16-mixed", "16"):
        settings["precision"] = "32-true"
    if settings.get("strategy") == "fsdp":
        settings["strategy"] = Sharded()
    return settings


def prepare_device(config: Mapping[str, Any]) -> None:
    """Set what holds for the process that trains by a config, and begin to count its memory."""
    choose_arithmetic(config)
    if torch.cuda.is_initialized():  # by a run before, as in a sweep
        for number in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(number)


def choose_arithmetic(config: Mapping[str, Any]) -> None:
    """Float32 exactly, or with `fast=true` TF32 and cuDNN's search. PyTorch by itself convolves in TF32."""
    torch.set_float32_matmul_precision("high" if config["fast"] else "highest")
    if on_cuda(config["trainer"]):
        torch.backends.cudnn.allow_tf32 = bool(config["fast"])
        torch.backends.cudnn.benchmark = bool(config["fast"]) and not config["trainer"].get("deterministic")


# What fast=true means -----------------------------------------------------------------------------------------------


def fast_precision(trainer: Options) -> str:
    """bfloat16, or float16 with scaled gradients on a GPU that has no bfloat16 (before Ampere)."""
    has_bf16 = not on_cuda(trainer) or torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if has_bf16 else "16-mixed"


def half_precision(trainer: Options) -> torch.dtype | None:
    """What to compute in where no Trainer sees to it; float16 on CUDA only."""
    halves = {"bf16-mixed": torch.bfloat16} | ({"16-mixed": torch.float16} if on_cuda(trainer) else {})
    return halves.get(str(trainer.get("precision")))


def make_fast(network: nn.Module, config: Mapping[str, Any]) -> None:
    """Channels last; on CUDA also compilation in place, which keeps the keys of the state dict."""
    network.to(memory_format=torch.channels_last)
    if on_cuda(config["trainer"]) and torch.cuda.get_device_capability() >= (7, 0) and find_spec("triton"):
        for part in compiled_parts(network, config):
            part.compile()


def compiled_parts(network: nn.Module, config: Mapping[str, Any]) -> list[nn.Module]:
    """The parts of a network that compilation is for.

    None of a recurrent network, whose loops over time it would unroll; not a discriminator with a gradient penalty,
    which differentiates it twice, as compiled code cannot be; none of what is sharded.
    """
    if config["trainer"].get("strategy") == "fsdp":
        return []
    if any(isinstance(module, nn.RNNBase | nn.RNNCellBase) for module in network.modules()):
        return []
    if not isinstance(getattr(network, "discriminator", None), nn.Module):
        return [network]
    penalised = bool(config["task"].get("gradient_penalty"))
    return [network.get_submodule(name) for name in ("generator", "discriminator")[: 1 if penalised else 2]]


def fused_options(optimizer: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The optimizer's node, with `fused` where that is faster and every PyTorch has it for CUDA."""
    can_fuse = get_class(optimizer["_target_"]) in (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
    is_sharded = config["trainer"].get("strategy") == "fsdp"
    wanted = config["fast"] and on_cuda(config["trainer"]) and can_fuse and not is_sharded
    return {**optimizer, "fused": True} if wanted else dict(optimizer)


# Where batches are made ---------------------------------------------------------------------------------------------


class Resident:
    """A split whose tensors lie on a device, where its batches are made: indexed, augmented and normalised there."""

    augment = None  # of a copy for evaluation it was taken away before

    def __init__(self, split: Split, device: torch.device, moved: Moved) -> None:
        self.split, self.device = copy.copy(split), device
        for name, value in vars(split).items():
            if isinstance(value, Tensor):
                setattr(self.split, name, on_device(value, device, moved))
            elif isinstance(value, tuple):
                parts = (on_device(part, device, moved) if isinstance(part, Tensor) else part for part in value)
                setattr(self.split, name, tuple(parts))

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, epoch: int, positions: Tensor, indices: Tensor) -> Batch:
        with self.device:  # what is made for a batch, such as torch.arange, is made there
            return self.split.batch(epoch, positions.to(self.device), indices.to(self.device))


class Pinned:
    """A split whose batches lie in memory from which a GPU copies them while the CPU goes on."""

    augment = None

    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, epoch: int, positions: Tensor, indices: Tensor) -> Batch:
        return {name: value.pin_memory() for name, value in self.split.batch(epoch, positions, indices).items()}


class Placing:
    """Decides, for the splits of a run, where their batches are made: `place(split)` is what to take batches from.

    `wanted`: true, false or auto, which is true where all splits fit into a quarter of the memory that is free.
    """

    def __init__(self, splits: Mapping[str, Split], device: torch.device, wanted: bool | str, num_workers: int) -> None:
        self.device = device
        self.moved: Moved = {}
        resident = num_workers == 0 and all(isinstance(split, _RESIDENT) for split in splits.values())
        if wanted is True and not resident:
            raise ZooError(
                "trainer.data_on_device=true: these data are read or drawn a batch at a time, on the CPU; say auto."
            )
        self.pins = device.type == "cuda" and num_workers == 0  # a DataLoader pins for its workers
        self.keeps = resident and wanted is not False and device.type != "cpu"
        if self.keeps and wanted == "auto" and device.type == "cuda":
            self.keeps = size_in_memory(splits) <= _SHARE * torch.cuda.mem_get_info(device)[0]

    def __call__(self, split: Split) -> Split:
        if self.keeps:
            return Resident(split, self.device, self.moved)
        return Pinned(split) if self.pins else split


def on_device(tensor: Tensor, device: torch.device, moved: Moved) -> Tensor:
    """A tensor on a device, as the same view of a copy of its whole storage: windows that overlap stay so."""
    storage = tensor.untyped_storage()
    if storage.data_ptr() not in moved:
        flat = torch.empty(0, dtype=torch.uint8).set_(storage)
        moved[storage.data_ptr()] = flat, flat.to(device, copy=True)
    whole = moved[storage.data_ptr()][1].untyped_storage()
    empty = torch.empty(0, dtype=tensor.dtype, device=device)
    return empty.set_(whole, tensor.storage_offset(), tensor.shape, tensor.stride())


def size_in_memory(splits: Mapping[str, Split]) -> int:
    """The bytes of the splits' tensors, of those that share memory once."""
    tensors = [value for split in splits.values() for value in vars(split).values() if isinstance(value, Tensor)]
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
