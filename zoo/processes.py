"""Several processes of one run: which one this is, and the group in which they compute.

They are started by zoo/launching.py, or from outside by torchrun or SLURM's srun, and all carry torchrun's environment
variables. Nothing here imports torch but in a process that computes.
"""

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.signals import Stopped

STRATEGIES = ("auto", "ddp", "fsdp")
ECHO, PATIENCE = 2, 8  # seconds; see `let_the_first_tell`


@dataclass(frozen=True, kw_only=True)
class Place:
    """Which of its run's processes this one is; the fields are torchrun's variables."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    group_rank: int = 0  # of the machine

    @property
    def machines(self) -> int:
        return self.world_size // self.local_world_size


def place() -> Place:
    """As the environment says: torchrun's variables, or those of a job step of several tasks that srun started."""
    said = os.environ
    if "RANK" in said and "WORLD_SIZE" in said:
        names = [field.name for field in fields(Place)]
        return Place(**{name: int(said[name.upper()]) for name in names if name.upper() in said})
    tasks, machines = (int(said.get(f"SLURM_STEP_NUM_{what}", 1)) for what in ("TASKS", "NODES"))
    if tasks == 1:
        return Place()
    return Place(
        rank=int(said["SLURM_PROCID"]),
        local_rank=int(said["SLURM_LOCALID"]),
        world_size=tasks,
        local_world_size=tasks // machines,
        group_rank=int(said["SLURM_NODEID"]),
    )


def is_first_process() -> bool:
    """Of the processes of one run the first speaks and writes."""
    return place().rank == 0


def slurm_address() -> tuple[str, int]:
    """Host and port where the processes of a job step meet: on its first node, a port by the job's number."""
    nodes = os.environ.get("SLURM_STEP_NODELIST") or "127.0.0.1"
    first = re.sub(r"\[([^],-]+)[^]]*\]", r"\1", nodes).split(",")[0]  # gpu[07-09,12],cpu1 → gpu07
    return first, 15000 + int(os.environ.get("SLURM_JOB_ID", 0)) % 10000


# What the options of a trainer mean ----------------------------------------------------------------------------------


def devices_of(trainer: Mapping[str, Any]) -> list[int]:
    """The numbers of the devices on one machine that the options ask for, each for a process of its own."""
    asked = trainer.get("devices", 1)
    if asked in ("auto", "-1", -1):
        import torch

        from zoo.devices import on_cuda

        asked = torch.cuda.device_count() if on_cuda(trainer) else 1
    if isinstance(asked, str):
        parts = [part for part in asked.split(",") if part.strip()]
        if not parts or not all(part.strip().isdigit() for part in parts):
            raise ZooError(f"trainer.devices={asked}: must be how many, auto, or numbers as in [0,1].")
        asked = [int(part) for part in parts] if "," in asked else int(asked)
    return list(range(asked)) if isinstance(asked, int) else list(asked)


def to_start(trainer: Mapping[str, Any]) -> int:
    """How many processes this one has to start for these options; 0 where it computes itself, alone or as one of them.

    Raises ZooError for what cannot be started here.
    """
    if trainer.get("strategy", "auto") not in STRATEGIES:
        raise ZooError(f"trainer.strategy={trainer['strategy']}: must be one of {', '.join(STRATEGIES)}.")
    here = place()
    if here.world_size != here.machines * here.local_world_size:
        raise ZooError("srun started unequal numbers of tasks on the nodes: say --ntasks-per-node.")
    if here.world_size > 1:
        return 0
    if (machines := trainer.get("num_nodes") or 1) > 1:
        raise ZooError(
            f"trainer.num_nodes={machines}: torchrun or srun starts processes on several machines: docs/clusters.md."
        )
    count = len(devices_of(trainer))
    return count if count > 1 else 0


def options_here(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The options as they hold in this process: who started it has decided how many there are."""
    here, settings = place(), dict(trainer)
    if len(devices_of(trainer)) != here.local_world_size:
        settings["devices"] = here.local_world_size
    if here.machines > 1 or "num_nodes" in settings:
        settings["num_nodes"] = here.machines
    if settings.get("strategy") != "fsdp":
        settings["strategy"] = "ddp" if here.world_size > 1 else "auto"
    return settings


# The group -----------------------------------------------------------------------------------------------------------


@contextmanager
def joined(trainer: Mapping[str, Any], folder: Path = Path()) -> Iterator[Path]:
    """Be in the process group of a run; gives the `folder` that its first process named.

    The group is ended here: left to Python's exit, a thread of it may still run then, and C++ aborts the process.
    """
    import torch
    import torch.distributed as dist

    from zoo.devices import on_cuda

    here = place()
    if here.world_size == 1:
        try:
            yield folder
        finally:
            if dist.is_available() and dist.is_initialized():  # as trainer=fsdp has one, of one
                dist.destroy_process_group()
        return
    if "MASTER_ADDR" not in os.environ:
        address, port = slurm_address()
        os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(port)}
    os.environ |= {name.upper(): str(value) for name, value in asdict(here).items()}
    device = None
    if on_cuda(trainer):
        number, there = devices_of(options_here(trainer))[here.local_rank], torch.cuda.device_count()
        if number >= there:
            raise ZooError(
                f"trainer.devices={trainer['devices']}: this machine has {there} CUDA device{'s' * (there > 1)}; say "
                "trainer=gpu, or trainer.accelerator=cpu for processes on the CPU."
            )
        device = torch.device("cuda", number)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device else "gloo", device_id=device)
    try:
        told = [str(folder)]
        dist.broadcast_object_list(told)
        yield Path(told[0])
        dist.barrier()  # the first holds what the others are connected to
    except BaseException as error:
        let_the_first_tell(error)
        if device is None:  # NCCL would wait for the others
            with suppress(RuntimeError):
                dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def let_the_first_tell(error: BaseException) -> None:
    """Wait before an error ends this process, if it is one of several.

    What all of them meet is told by the first; while the others wait, they are ended by who watches them. So is, in
    time, who meets no more than the echo of another one's end: a connection lost.
    """
    here = place()
    if here.world_size == 1 or isinstance(error, Stopped | KeyboardInterrupt) or hasattr(error, "has_waited"):
        return
    error.has_waited = True  # type: ignore[attr-defined]
    time.sleep(ECHO * isinstance(error, RuntimeError) + PATIENCE * (here.rank > 0))
