"""The optimisation engine every task trains with: accumulate, clip, step, schedule, average.

It lives inside the training step, where a microsecond counts: no logging, no synchronisation with the device, plain
Python attributes. State that must survive a restart is in `state_dict`; everything else is a function of the step.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from zoo.schedules import Plateau, Schedule


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """How a network is optimised; the same for every task.

    `optimizer` makes the optimizer from parameters or parameter groups. `clip` bounds the gradient's norm or each of
    its values. `ema_decay` averages the weights, θ' ← d·θ' + (1 − d)·θ, with d = min(ema_decay, (1 + t)/(10 + t)) so
    that the first steps do not weigh on a short run. `l1`, `l2` add l1·Σ|w| + l2/2·Σw² over the weights (not biases
    and norms). `rates` gives parameters, by name, a factor on the learning rate.
    """

    optimizer: Callable[[Iterable[Any]], Optimizer]
    schedule: Schedule
    accumulate: int = 1
    clip: float | None = None
    clip_algorithm: Literal["norm", "value"] = "norm"
    ema_decay: float | None = None
    weight_decay_on: Literal["all", "weights"] = "all"
    l1: float = 0.0
    l2: float = 0.0
    max_steps: int = -1
    rates: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.accumulate < 1:
            raise ValueError(f"trainer.accumulate_grad_batches={self.accumulate}: must be at least 1")
        if self.clip is not None and self.clip <= 0:
            raise ValueError(f"trainer.gradient_clip_val={self.clip}: must be above 0, or null for none")
        if self.clip_algorithm not in ("norm", "value"):
            raise ValueError(f"trainer.gradient_clip_algorithm={self.clip_algorithm}: must be norm or value")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay={self.ema_decay}: must lie between 0 and 1, or be null for none")
        if self.weight_decay_on not in ("all", "weights"):
            raise ValueError(f"weight_decay_on={self.weight_decay_on}: must be all or weights")
        if self.l1 < 0 or self.l2 < 0:
            raise ValueError(f"penalty.l1={self.l1}, penalty.l2={self.l2}: must be 0 or more")
        if self.max_steps < 1 and self.max_steps != -1:
            raise ValueError(f"trainer.max_steps={self.max_steps}: must be at least 1, or -1 to let max_epochs decide")


def parameter_groups(
    network: nn.Module, weight_decay_on: str, rates: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """All trainable parameters, a group for each `rate`, the factor on its learning rate.

    With `weights`, biases and norms (one axis or none) go to groups of their own without decay.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decays = weight_decay_on == "all" or parameter.ndim > 1
            groups.setdefault(((rates or {}).get(name, 1.0), decays), []).append(parameter)
    return [
        {"params": parameters, "rate": rate, **({} if decays else {"weight_decay": 0.0})}
        for (rate, decays), parameters in sorted(groups.items(), key=lambda item: (-item[0][0], not item[0][1]))
    ]


class Engine:
    """Optimises one network with one optimizer."""

    def __init__(self, network: nn.Module, optimization: Optimization) -> None:
        self.network, self.settings = network, optimization
        self.average: nn.Module | None = None
        if optimization.ema_decay is not None:
            self.average = copy.deepcopy(network).requires_grad_(False)
        groups = parameter_groups(network, optimization.weight_decay_on, optimization.rates)
        self.optimizer = optimization.optimizer(groups)
        for group in self.optimizer.param_groups:
            group["initial_lr"] = group["lr"] * group["rate"]
        self.step_count = 0
        self.multiplier = 1.0
        self.grad_norm: Tensor | None = None  # of the last step for which it was asked

    def attach(self, trainer: pl.Trainer, batches_per_epoch: int, *, every: int = 1, counts: bool = True) -> None:
        """Learn from the trainer what only the run knows: its length, its precision, its strategy.

        Where two networks are trained, `every` says how many steps of the other one come before a step of this one,
        and `counts` whose steps are those of the run.
        """
        settings = self.settings
        self.batches_per_epoch = batches_per_epoch
        windows = -(-batches_per_epoch // settings.accumulate)
        self.steps_per_epoch = max(1, windows // every)
        by_epochs = max(1, (trainer.max_epochs or 1) * windows // every)
        self.total_steps = settings.max_steps if settings.max_steps > 0 else by_epochs
        self.trainer = trainer
        self.progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress.total if counts else None
        self.scaler = getattr(trainer.precision_plugin, "scaler", None)
        self.is_plain = isinstance(trainer.strategy, SingleDeviceStrategy) and self.scaler is None
        self.wrapper = None if self.is_plain else trainer.strategy.model
        self.parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.penalised = [p for p in self.parameters if p.ndim > 1] if settings.l1 or settings.l2 else []
        self.averaged = (
            ([p.data for p in self.average.parameters()], [p.data for p in self.network.parameters()])
            if self.average
            else None
        )

    @property
    def done(self) -> bool:
        """Whether the run has taken its `max_steps`. (`Trainer(max_steps=…)` does not resume exactly: never used.)"""
        return self.step_count >= self.settings.max_steps > 0

    def penalty(self) -> Tensor:
        weights = self.penalised
        absolute = torch.stack([w.abs().sum() for w in weights]).sum()
        squared = torch.stack([w.square().sum() for w in weights]).sum()
        return self.settings.l1 * absolute + 0.5 * self.settings.l2 * squared

    def step(self, loss: Tensor, batch_index: int, *, wants_norm: bool = False) -> bool:
        """Back-propagate the loss of batch `batch_index` of the epoch; True when this completed an optimisation step.

        Gradients are averaged over `accumulate` batches, or over those that are left at the end of an epoch.
        """
        accumulate = self.settings.accumulate
        in_window = batch_index % accumulate
        if in_window == 0:
            self.optimizer.zero_grad(set_to_none=True)
        completes = in_window + 1 == accumulate or batch_index + 1 >= self.batches_per_epoch
        self.backward(loss, min(accumulate, self.batches_per_epoch - (batch_index - in_window)), last=completes)
        if not completes:
            return False
        self.update(wants_norm)
        return True

    def backward(self, loss: Tensor, batches: int = 1, *, last: bool = True) -> None:
        """Add the gradient of the loss of one of `batches` batches. Processes average what they have at the last."""
        if self.penalised:
            loss = loss + self.penalty()
        if batches > 1:
            loss = loss / batches
        if self.is_plain:
            loss.backward()
        elif not last and isinstance(self.wrapper, DistributedDataParallel):
            with self.wrapper.no_sync():
                self.trainer.lightning_module.manual_backward(loss)
        else:
            self.trainer.lightning_module.manual_backward(loss)

    def update(self, wants_norm: bool = False) -> None:
        """One optimisation step with the gradients that are there."""
        settings, optimizer = self.settings, self.optimizer
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)
        if settings.clip is not None and settings.clip_algorithm == "norm":
            self.grad_norm = nn.utils.clip_grad_norm_(self.parameters, settings.clip)
        else:
            if wants_norm:
                self.grad_norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
            if settings.clip is not None:
                nn.utils.clip_grad_value_(self.parameters, settings.clip)
        multiplier = settings.schedule.multiplier(self.step_count, self.total_steps, self.steps_per_epoch)
        if multiplier != self.multiplier or self.step_count == 0:
            self.multiplier = multiplier
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * multiplier
        skipped = False
        if self.scaler is not None:
            scale = self.scaler.get_scale()
            self.scaler.step(optimizer)
            self.scaler.update()
            skipped = self.scaler.get_scale() < scale  # a gradient overflowed: the step counts, and changes nothing
        else:
            optimizer.step()
        self.step_count += 1
        if self.progress is not None:
            self.progress.ready = self.progress.completed = self.step_count
        if self.averaged is not None and not skipped:
            decay = min(settings.ema_decay or 0.0, (1 + self.step_count) / (10 + self.step_count))
            torch._foreach_lerp_(self.averaged[0], self.averaged[1], 1 - decay)

    @property
    def lr(self) -> float:
        """The rate of the last step."""
        return self.optimizer.param_groups[0]["lr"]

    @torch.no_grad()
    def network_for_evaluation(self) -> nn.Module:
        """The averaged weights with the current buffers (batch-norm statistics) when averaging, else the network."""
        if self.average is None:
            return self.network
        for kept, current in zip(self.average.buffers(), self.network.buffers(), strict=True):
            kept.copy_(current)
        return self.average

    def observe(self, score: float, mode: str) -> None:
        """Tell a schedule that waits for a plateau how validation went."""
        if isinstance(self.settings.schedule, Plateau):
            self.settings.schedule.observe(score, mode)

    def state_dict(self) -> dict[str, Any]:
        """What must survive a restart besides weights and the optimizer's own state (both are Lightning's to save)."""
        schedule = self.settings.schedule
        plateau = schedule.state_dict() if isinstance(schedule, Plateau) else {}
        return {"step_count": self.step_count, "multiplier": self.multiplier, "plateau": plateau}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step_count, self.multiplier = state["step_count"], state["multiplier"]
        if isinstance(self.settings.schedule, Plateau):
            self.settings.schedule.load_state_dict(state["plateau"])
