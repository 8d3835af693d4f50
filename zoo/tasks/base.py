"""What all tasks share: the training step, the windowed step logs, the metrics over whole splits, the state to save."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection

from zoo.errors import ZooError
from zoo.randomness import key, seed_layer_noise
from zoo.tasks.engine import Engine, Optimization

Batch = dict[str, Tensor]


def frozen_norms(network: nn.Module) -> list[nn.Module]:
    """The batch norms whose parameters are all frozen."""
    found: list[nn.Module] = []
    for module in network.modules():
        parameters = list(module.parameters())
        if (
            isinstance(module, nn.modules.batchnorm._NormBase)
            and parameters
            and not any(p.requires_grad for p in parameters)
        ):
            found.append(module)
    return found


class Task(pl.LightningModule):
    """A learning problem: a network, its loss and its metrics.

    A subclass implements `loss` and `metrics`, and names its `monitor`. `loss` is the same function in training and
    validation. Metrics are logged as `<split>/<name>`; the x-axis is the number of optimisation steps.

    `facts` are those of the data module (class_names, num_classes, …); `log_every` is in optimisation steps.
    """

    monitor: str = "val/loss"
    mode: Literal["min", "max"] = "min"
    needs: ClassVar[dict[str, str]] = {}  # facts the data must have, each with what to do where it has not
    fewest: ClassVar[int] = 1  # examples of a split that its scores can be computed from

    def __init__(
        self,
        network: nn.Module,
        *,
        optimization: Optimization | None = None,
        facts: dict[str, Any] | None = None,
        seed: int = 0,
        log_every: int = 50,
    ) -> None:
        super().__init__()
        if log_every < 1:
            raise ValueError(f"trainer.log_every_n_steps={log_every}: must be at least 1")
        self.automatic_optimization = False
        self.network = network
        self.facts = facts or {}
        self.seed, self.log_every = seed, log_every
        self.split = "test"  # the one being evaluated outside training,
        self.scores: dict[str, float] = {}  # and what came out
        self.window: list[tuple[Tensor, ...]] = []  # what the step logs are made from, since they were last written
        self.rank, self.world_size = 0, 1  # of the processes that train
        self.sums: tuple[Tensor, Tensor, Any] | None = None  # see `begin_share`
        self.draws = 0  # the key of what a loss draws for each example; by it and `position` the numbers are known
        self.engine: Engine | None = None
        self.ema: nn.Module | None = None
        if optimization is not None:
            self.engine = Engine(network, optimization)
            self.ema = self.engine.average
        self.frozen_norms = frozen_norms(network)
        self.split_loss = MeanMetric(nan_strategy=math.nan)  # a batch that is no number is not left out
        self.split_metrics = self.metrics()

    def __setattr__(self, name: str, value: Any) -> None:
        """Lightning notes the current hook here some fifteen times a step; nn.Module's way takes a microsecond each."""
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    # What a task defines --------------------------------------------------------------------------------------------

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss of a batch (scalar) and the outputs that metrics and pictures need, such as `logits`."""
        raise NotImplementedError

    def metrics(self) -> MetricCollection:
        """The torchmetrics of a whole split, named without the split."""
        raise NotImplementedError

    def update_metrics(self, outputs: dict[str, Tensor], batch: Batch) -> None:
        raise NotImplementedError

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """What of a batch the network is called with."""
        return (batch["input"], batch["length"]) if "length" in batch else (batch["input"],)

    def weight(self, batch: Batch) -> int | Tensor:
        """How many targets of a batch count."""
        return len(batch["input"])

    def divisor(self, batch: Batch) -> int | Tensor:
        """What the sum in the mean loss of a batch is divided by: its weight, or the class weights of its targets.

        By it batches weigh in the mean loss of a split, and the shares of processes in that of a batch.
        """
        return self.weight(batch)

    def start_epoch(self) -> None:
        """Called before an epoch's first training batch; not where a resumed run enters an epoch."""

    def prepare_batch(self, batch: Batch, seed: int) -> Batch:
        """Change a training batch before the loss sees it, with randomness from `seed` only (mixup)."""
        return batch

    def step_values(self, outputs: dict[str, Tensor], batch: Batch) -> tuple[Tensor, ...]:
        """Small tensors kept from every training step for `step_metrics`; no arithmetic here, it runs every step."""
        return ()

    def step_metrics(self, kept: list[tuple[Tensor, ...]]) -> dict[str, float]:
        """Further training metrics over the steps of a window, from what `step_values` kept of each."""
        return {}

    # Training -------------------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> "Task":
        """Frozen batch norms keep their statistics: they stay in evaluation mode."""
        super().train(mode)
        for norm in self.frozen_norms:
            norm.eval()
        return self

    def configure_model(self) -> None:
        """Under a strategy that shares a network out over processes (`trainer=fsdp`), let it."""
        if self.device_mesh is not None:
            self.trainer.strategy.shard(self)  # type: ignore[attr-defined]

    def configure_optimizers(self) -> Any:
        assert self.engine is not None
        return self.engine.optimizer

    def on_train_start(self) -> None:
        trainer = self.trainer
        assert self.engine is not None
        self.train()
        self.rank, self.world_size = trainer.global_rank, trainer.world_size
        self.attach(self.engine, trainer)
        self.engine_epoch, self.epoch_key = -1, 0
        self.logged_at = self.engine.step_count
        if self.engine.done:
            trainer.should_stop = True

    def attach(self, engine: Engine, trainer: pl.Trainer) -> None:
        """Tell the engine what only the run knows."""
        engine.attach(trainer, int(trainer.num_training_batches))

    def training_step(self, dataloader_iter: Iterator[tuple[Batch, int, int]]) -> None:
        """One batch. Lightning hands over its iterator when the argument has this name, and saves itself 90 µs a step.

        The iterator counts batches from where the process started; the loop's progress counts them in the epoch.
        """
        engine = self.engine
        assert engine is not None
        batch = self.transfer_batch_to_device(next(dataloader_iter)[0], self.device, 0)
        batch = engine.trainer.precision_plugin.convert_input(batch)
        batch_idx = engine.trainer.fit_loop.epoch_loop.batch_progress.current.ready - 1
        epoch = engine.trainer.fit_loop.epoch_progress.current.completed
        if epoch != self.engine_epoch:
            self.engine_epoch, self.epoch_key = epoch, key(self.seed, "layers", epoch)
            self.epoch_draws = key(self.seed, "draws", epoch)
        self.draws = self.epoch_draws
        if batch_idx == 0:
            self.start_epoch()
        seed = self.epoch_key ^ batch_idx
        seed_layer_noise(key(seed, "process", self.rank) if self.rank else seed)
        batch = self.prepare_batch(batch, seed)
        if self.world_size > 1:
            self.begin_share(batch)
        logs_now = engine.step_count + 1 - self.logged_at >= self.log_every
        if self.optimize(engine, batch, batch_idx, wants_norm=logs_now):
            if logs_now:
                self.write_window()
            if engine.done:
                engine.trainer.should_stop = True

    def optimize(self, engine: Engine, batch: Batch, batch_idx: int, *, wants_norm: bool) -> bool:
        """Learn from batch `batch_idx` of the epoch; True when this completed an optimisation step."""
        loss, outputs = self.loss(self.network, batch)
        loss = self.shared(loss)
        self.window.append((loss.detach(), *self.step_values(outputs, batch)))
        return engine.step(loss, batch_idx, wants_norm=wants_norm)

    # Several processes ----------------------------------------------------------------------------------------------

    def begin_share(self, batch: Batch) -> None:
        """Begin to add up over the processes what their mean losses are divided by; `shared` waits for the sum."""
        here = torch.as_tensor(self.divisor(batch), dtype=torch.float64, device=self.device)
        total = here.clone()
        self.sums = here, total, dist.all_reduce(total, async_op=True)

    def shared(self, loss: Tensor) -> Tensor:
        """The mean loss of this process's share of a batch, so that the mean over processes is that of the batch."""
        if self.sums is None:
            return loss
        here, total, sent = self.sums
        sent.wait()
        return loss * (self.world_size * here / (total + (total == 0)))

    def gathered(self, window: list[tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
        """The window of all processes, step by step."""
        if self.world_size == 1:
            return window
        parts: list[Any] = [None] * self.world_size
        dist.all_gather_object(parts, [tuple(value.cpu() for value in kept) for kept in window])
        return [kept for step in zip(*parts, strict=True) for kept in step]

    @torch.no_grad()
    def average_statistics(self) -> None:
        """Let all processes have the mean of their batch statistics, before these are used or saved."""
        if self.world_size == 1 or self.engine is None:
            return
        for module in self.network.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
                for statistic in (module.running_mean, module.running_var):
                    assert statistic is not None
                    dist.all_reduce(statistic)
                    statistic.div_(self.world_size)

    def write(self, values: dict[str, float]) -> None:
        """Log values at the current step, on the first process, straight to the loggers."""
        assert self.engine is not None
        if self.trainer.is_global_zero:
            values = {"epoch": float(self.trainer.current_epoch), **values}
            for logger in self.trainer.loggers:
                logger.log_metrics(values, step=self.engine.step_count)

    def write_window(self) -> None:
        """Log loss, rate, gradient norm and the task's step metrics over the steps since this was last called."""
        if not self.window:
            return
        engine = self.engine
        assert engine is not None
        window = self.gathered(self.window)
        losses = torch.stack([kept[0] for kept in window])
        if not (loss := losses.mean().item()) < float("inf"):
            raise ZooError(self.divergence(losses))
        values = {"train/loss": loss, **self.step_metrics([kept[1:] for kept in window]), "lr": engine.lr}
        if engine.grad_norm is not None:
            values["grad_norm"] = engine.grad_norm.item()
            engine.grad_norm = None
        self.window.clear()
        self.logged_at = engine.step_count
        self.write(values)

    def divergence(self, losses: Tensor) -> str:
        """Where a run's loss stopped being a number: `losses` are those of the batches since step `logged_at`."""
        engine = self.engine
        assert engine is not None
        first = int((~losses.isfinite()).nonzero()[0]) if not losses.isfinite().all() else len(losses) - 1
        step = min(self.logged_at + 1 + first * (engine.step_count - self.logged_at) // len(losses), engine.step_count)
        broken = [name for name, tensor in self.network.state_dict().items() if not tensor.isfinite().all()]
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        tensors = f"{broken[0]}{more} hold no numbers any more" if broken else "all weights are still numbers"
        names = ("last.ckpt", "best.ckpt")
        kept = next((n for n in names if Path(self.trainer.default_root_dir, "checkpoints", n).exists()), None)
        saved = f"checkpoints/{kept} is from before" if kept else "no checkpoint was written before"
        return (
            f"The training loss became {losses[first].item()} at step {step}: {tensors}; {saved}.\n"
            "Lower optimizer.lr, clip the gradient (trainer.gradient_clip_val=1) or lengthen the warm-up."
        )

    def on_train_epoch_end(self) -> None:
        self.write_window()

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Lightning's own walks any structure and costs 30 µs; a batch is a flat dict."""
        if device.type == "cpu":
            return batch
        return {name: value.to(device, non_blocking=True) for name, value in batch.items()}

    # Evaluation -----------------------------------------------------------------------------------------------------

    @property
    def evaluated_network(self) -> nn.Module:
        """The network whose scores are reported: the averaged one when weights are averaged."""
        return self.network if self.ema is None else self.ema

    def start_split(self) -> None:
        self.average_statistics()
        if self.engine is not None:
            self.engine.network_for_evaluation().eval()
        self.split_loss.reset()
        self.split_metrics.reset()

    def evaluation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        seed_layer_noise(key(self.seed, "evaluation", batch_idx))  # the same each epoch, as are the loss's own draws:
        self.draws = key(self.seed, "draws", "evaluation")
        loss, outputs = self.loss(self.evaluated_network, batch)
        self.split_loss.update(loss.detach(), weight=self.divisor(batch))
        self.update_metrics(outputs, batch)
        return outputs

    def split_scores(self, split: str) -> dict[str, float]:
        """The scores of the whole split, reduced over all processes."""
        if dist.is_available() and dist.is_initialized():
            loader: Any = self.trainer.test_dataloaders if self.trainer.testing else self.trainer.val_dataloaders
            for metric in (self.split_loss, *self.split_metrics.values()):
                metric.sync_on_compute = loader.sampler.world_size > 1  # of a tiny split each has seen all
        scores = {"loss": self.split_loss.compute(), **self.split_metrics.compute()}
        return {f"{split}/{name}": float(score) for name, score in scores.items()}

    on_validation_epoch_start = start_split
    validation_step = evaluation_step

    def on_validation_epoch_end(self) -> None:
        if self.trainer.sanity_checking:
            return
        assert self.engine is not None
        self.write_window()
        scores = self.split_scores("val")
        self.engine.observe(scores[self.monitor], self.mode)
        self.log_dict(scores, logger=False, prog_bar=False)
        self.write(scores)

    on_test_epoch_start = start_split
    test_step = evaluation_step

    def on_test_epoch_end(self) -> None:
        self.scores = self.split_scores(self.split)

    # State ----------------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        assert self.engine is not None
        self.average_statistics()
        self.engine.network_for_evaluation()  # fills the average's buffers, which `checkpoint` refers to
        checkpoint["engine"] = self.engine.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.engine is not None:
            self.engine.load_state_dict(checkpoint["engine"])
