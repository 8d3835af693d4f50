"""`trainer=fsdp`: weights, gradients and the optimizer's state shared out over the processes of a run.

PyTorch's `fully_shard` (Zhao et al. 2023, "PyTorch FSDP", 2304.11277, in its second version) under Lightning's
ModelParallelStrategy. Lightning's FSDPStrategy wraps the whole training step, and what it wraps cannot be
back-propagated within it, where manual optimisation does that. The network is one group: each process keeps its share
between steps, and holds all of the weights while a step computes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.strategies import ModelParallelStrategy
from torch.distributed.fsdp import FSDPModule, fully_shard

from zoo.checkpoint import read_checkpoint
from zoo.errors import ZooError

# tasks that call their network as a whole and never a part of it, in evaluation neither
_TASKS = ("Classification", "Regression", "Segmentation", "Forecasting")


class Sharded(ModelParallelStrategy):
    """Shards a task's network over all devices; checkpoints hold the whole network, as those of one device do."""

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Lightning knows an optimizer's state by the network's order of parameters, a plain run's by its groups'."""
        if read_checkpoint(Path(checkpoint_path))["zoo"]["config"]["trainer"].get("strategy") != "fsdp":
            raise ZooError(f"{checkpoint_path} was not trained with trainer=fsdp: continue it as it was.")
        return super().load_checkpoint(checkpoint_path, weights_only)

    def shard(self, task: Any) -> None:
        """Replace the parameters of the task's network by their shares, in its optimizer too."""
        if isinstance(task.network, FSDPModule):
            return
        before = dict(task.network.named_parameters())
        fully_shard(task.network, mesh=self.device_mesh["data_parallel"])
        share = {id(before[name]): parameter for name, parameter in task.network.named_parameters()}
        for group in task.engine.optimizer.param_groups if task.engine is not None else ():
            group["params"] = [share[id(parameter)] for parameter in group["params"]]


def check_sharded(config: Mapping[str, Any]) -> None:
    """Refuse what needs more of a network than a process's share."""
    precision, logger, penalty = str(config["trainer"]["precision"]), config["logger"], config["penalty"]
    task, average = config["task"]["_target_"].rpartition(".")[2], config["ema_decay"]
    if task not in _TASKS:
        known = ", ".join(name.lower() for name in _TASKS)
        raise ZooError(f"trainer=fsdp: is for {known}; {task} calls parts of its network, so say trainer=ddp.")
    if average is not None:
        raise ZooError(f"ema_decay={average}: must be null with trainer=fsdp, as averages are not shared out.")
    if penalty["l1"] or penalty["l2"]:
        raise ZooError("penalty.l1 and penalty.l2: must be 0 with trainer=fsdp; optimizer.weight_decay works there.")
    if logger["tensorboard"] and logger["pictures"]:
        raise ZooError("logger.pictures: must be false with trainer=fsdp, as the process that draws has a share only.")
    if precision in ("16-mixed", "16"):
        raise ZooError(f"trainer.precision={precision}: must be bf16-mixed or 32-true with trainer=fsdp.")
