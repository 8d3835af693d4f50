"""Forecasting: the next values of a series, beside the forecasts that need no learning."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection

from zoo.tasks.base import Batch
from zoo.tasks.regression import Regression


class Forecasting(Regression):
    """The next `horizon` values of a series. Monitor: validation RMSE.

    Batches: `input` (B, window, F), the target's own past in its first column, and `target` (B, horizon), standardised
    like it (facts `target_mean`, `target_std`). The network is called with the input and gives (B, horizon).

    Metrics over all steps of all examples of a split, in the target's own unit: mae and rmse; on the same examples
    naive_mae and naive_rmse of the last observed value; and, where the data have a `season` and the window holds one,
    seasonal_naive_mae and seasonal_naive_rmse of the value a whole number of seasons before (Hyndman & Athanasopoulos,
    "Forecasting: principles and practice", section "Some simple forecasting methods").
    """

    monitor = "val/rmse"
    mode: Literal["min", "max"] = "min"
    needs: ClassVar[dict[str, str]] = {
        "horizon": "these data are no series of numbers; choose data=sunspots or data=csv_series"
    }

    def metrics(self) -> MetricCollection:
        names = ["", "naive_"]
        if (season := self.facts.get("season")) and season <= self.facts["sequence_length"]:
            names.append("seasonal_naive_")
        metrics: dict[str, Any] = {}
        for name in names:
            metrics |= {f"{name}mae": MeanAbsoluteError(), f"{name}rmse": MeanSquaredError(squared=False)}
        # compute_groups=False: the metrics share no state, as each forecast has its own
        return MetricCollection(metrics, compute_groups=False).set_dtype(torch.float64)

    def update_metrics(self, outputs: dict[str, Tensor], batch: Batch) -> None:
        past, target = batch["input"][:, :, 0].double(), batch["target"].double()  # (B, window), (B, horizon)
        forecasts = {"": outputs["prediction"].double(), "naive_": past[:, -1:].expand_as(target)}
        if "seasonal_naive_mae" in self.split_metrics:
            season, steps = self.facts["season"], torch.arange(target.shape[1], device=past.device)
            forecasts["seasonal_naive_"] = past[:, past.shape[1] - season + steps % season]
        for name, forecast in forecasts.items():
            for score in ("mae", "rmse"):
                # the mean is left out: it changes neither
                self.split_metrics[f"{name}{score}"].update(forecast.flatten() * self.std, target.flatten() * self.std)
