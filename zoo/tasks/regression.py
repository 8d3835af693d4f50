"""Regression: one or more real numbers for every example."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection, R2Score

from zoo import losses
from zoo.tasks.base import Batch, Task
from zoo.tasks.engine import Optimization


class Regression(Task):
    """Real targets (B, K). Monitor: validation R².

    Metrics over a whole split: r2, mae, mse and rmse. Where the data standardises its targets (facts `target_mean`,
    `target_std`), the loss is of standardised values and mae, mse and rmse are in the target's own unit.
    """

    monitor = "val/r2"
    mode: Literal["min", "max"] = "max"
    fewest: ClassVar[int] = 2  # r2 divides by the variance of the targets

    def __init__(
        self,
        network: nn.Module,
        *,
        loss: Literal["mse", "l1", "huber"] = "mse",
        huber_delta: float = 1.0,
        optimization: Optimization | None = None,
        facts: dict[str, Any] | None = None,
        seed: int = 0,
        log_every: int = 50,
    ) -> None:
        super().__init__(network, optimization=optimization, facts=facts, seed=seed, log_every=log_every)
        if self.facts.get("class_names"):
            raise ValueError(
                "the targets of this data are classes, and regression needs numbers: use task=classification"
            )
        self.criterion = losses.regression(loss, huber_delta=huber_delta)
        self.std = self.facts.get("target_std") or 1.0

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        prediction = network(*self.inputs(batch))  # (B, K)
        return self.criterion(prediction, batch["target"]), {"prediction": prediction.detach()}

    def metrics(self) -> MetricCollection:
        metrics: dict[str, Any] = {"r2": R2Score(), "mae": MeanAbsoluteError(), "mse": MeanSquaredError()}
        metrics["rmse"] = MeanSquaredError(squared=False)
        return MetricCollection(metrics).set_dtype(torch.float64)  # sums of squares of targets far from 0

    def update_metrics(self, outputs: dict[str, Tensor], batch: Batch) -> None:
        # the target's mean is left out: it changes none of them, and would cost R² its digits
        self.split_metrics.update(
            outputs["prediction"].double().flatten() * self.std, batch["target"].double().flatten() * self.std
        )
