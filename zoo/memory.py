"""How much memory a run took, and what to do where there was not enough."""

import errno
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zoo.devices import on_cuda

_FULL = ("allocate memory", "out of memory", "not enough memory", "bad_alloc", "ALLOC_FAILED")  # how libraries say it


def peak_memory(trainer: Mapping[str, Any]) -> tuple[float, str] | None:
    """The most memory so far, in MiB, and what of: this GPU's tensors, else the process. None where nobody counts."""
    if on_cuda(trainer):
        return torch.cuda.max_memory_allocated() / 2**20, f"tensors on {torch.cuda.get_device_name()}"
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, others KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, "the process"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says, in whichever library's words, that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _FULL)


def advice(error: BaseException, config: Mapping[str, Any], folder: Path) -> str | None:
    """What to say where memory ran out, or an operation has no deterministic form; None of any other error."""
    trainer, data = config["trainer"], config["data"]
    if "does not have a deterministic implementation" in str(error):
        operation = str(error).split()[0]
        return (
            f"trainer.deterministic={trainer['deterministic']}: {operation} has no deterministic form on this device; "
            "say trainer.deterministic=warn, which leaves such operations as they are."
        )
    if not is_out_of_memory(error):
        return None
    size, parts = data["batch_size"], trainer["accumulate_grad_batches"]
    place = torch.cuda.get_device_name() if on_cuda(trainer) else "this machine"
    mends = []
    if size >= 2:
        mends.append(f"data.batch_size={size // 2} with trainer.accumulate_grad_batches={2 * parts} (as large a step)")
    mends.append(f"data.eval_batch_size={max(1, data['eval_batch_size'] // 2)} if it was in evaluation")
    if not config["fast"]:
        mends.append("fast=true")
    if on_cuda(trainer) and trainer.get("data_on_device", "auto") is not False:
        mends.append("trainer.data_on_device=false")
    kept = next((name for name in ("last.ckpt", "best.ckpt") if (folder / "checkpoints" / name).exists()), None)
    saved = (
        f"resume={folder} goes on from {kept} where there is more memory." if kept else "There is no checkpoint yet."
    )
    return f"There is not enough memory on {place} for data.batch_size={size}.\nTry {', '.join(mends)}.\n{saved}"
