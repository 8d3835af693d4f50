"""Forecasts and their metrics against brute force, beside the naive forecasts of the same examples."""

import math

import pytest
import torch
from torch import nn

from zoo.tasks.forecasting import Forecasting
from zoo.tasks.regression import Regression

MEAN, STD = 40.0, 8.0


class Drift(nn.Module):
    """The last value and a little more with each step: a forecast to compute by hand."""

    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, -1:, 0] + 0.1 * torch.arange(1, self.horizon + 1)


def facts(window: int, horizon: int, season: int | None) -> dict:
    numbers = {"num_classes": horizon, "horizon": horizon, "season": season, "sequence_length": window}
    return {**numbers, "target_mean": MEAN, "target_std": STD}


def scored(window: int, horizon: int, season: int | None, *, sizes: tuple[int, ...] = (5, 3)) -> tuple[dict, list]:
    """Scores of Drift on a random series, in batches of `sizes`, and the windows (standardised) and their futures."""
    generator = torch.Generator().manual_seed(3)
    series = torch.randn(window + horizon + sum(sizes), 2, generator=generator)
    rows = [(series[o : o + window], series[o + window : o + window + horizon, 0]) for o in range(sum(sizes))]
    task = Forecasting(Drift(horizon), facts=facts(window, horizon, season))
    task.start_split()
    start = 0
    for number, size in enumerate(sizes):
        inputs, targets = (torch.stack(part) for part in zip(*rows[start : start + size], strict=True))
        task.evaluation_step({"input": inputs, "target": targets}, number)
        start += size
    return task.split_scores("test"), rows


@pytest.mark.parametrize(("window", "horizon", "season"), [(6, 1, 4), (6, 3, 4), (4, 7, 3), (5, 2, 5)])
def test_metrics_are_those_of_every_step_in_the_targets_unit(window: int, horizon: int, season: int) -> None:
    scores, rows = scored(window, horizon, season)
    errors: dict[str, list[float]] = {"": [], "naive_": [], "seasonal_naive_": []}
    for past, future in rows:
        known = past[:, 0].tolist()
        continued = list(known)  # each value repeats the one a season before it, also among those already forecast
        for step, value in enumerate(future.tolist()):
            continued.append(continued[-season])
            forecasts = {"": known[-1] + 0.1 * (step + 1), "naive_": known[-1], "seasonal_naive_": continued[-1]}
            for name, forecast in forecasts.items():
                errors[name].append((forecast - value) * STD)
    assert set(scores) == {f"test/{name}{score}" for name in errors for score in ("mae", "rmse")} | {"test/loss"}
    for name, of in errors.items():
        assert scores[f"test/{name}mae"] == pytest.approx(sum(map(abs, of)) / len(of)), name
        assert scores[f"test/{name}rmse"] == pytest.approx(math.sqrt(sum(e * e for e in of) / len(of))), name
    assert scores["test/loss"] == pytest.approx(sum((e / STD) ** 2 for e in errors[""]) / len(errors[""]))


@pytest.mark.parametrize(("window", "season"), [(6, None), (6, 7)])
def test_no_seasonal_forecast_without_a_season_in_the_window(window: int, season: int | None) -> None:
    scores, _ = scored(window, 2, season)
    assert set(scores) == {"test/loss", "test/mae", "test/rmse", "test/naive_mae", "test/naive_rmse"}


@pytest.mark.parametrize(("loss", "value"), [("mse", 2.125), ("l1", 1.25), ("huber", 0.8125)])
def test_losses_are_of_standardised_values(loss: str, value: float) -> None:
    task = Forecasting(Drift(2), loss=loss, facts=facts(3, 2, None))  # type: ignore[arg-type]
    batch = {"input": torch.zeros(1, 3, 1), "target": torch.tensor([[0.1 + 2.0, 0.2 - 0.5]])}
    assert task.loss(task.network, batch)[0].item() == pytest.approx(value)


def test_forecasting_asks_for_less_error_and_for_a_series() -> None:
    assert (Forecasting.monitor, Forecasting.mode) == ("val/rmse", "min")
    assert "data=csv_series" in Forecasting.needs["horizon"]
    task = Forecasting(Drift(3), facts=facts(3, 3, None))
    with pytest.raises(ValueError, match=r"prediction \(4, 3\) and target \(4, 2\)"):
        task.loss(task.network, {"input": torch.zeros(4, 3, 1), "target": torch.zeros(4, 2)})


def test_regression_reports_the_squared_error() -> None:
    task = Regression(nn.Identity(), facts={"num_classes": 1})
    task.start_split()
    task.evaluation_step({"input": torch.tensor([[0.0], [1.0]]), "target": torch.tensor([[3.0], [1.0]])}, 0)
    scores = task.split_scores("test")
    assert scores["test/mse"] == pytest.approx(4.5)
    assert scores["test/rmse"] == pytest.approx(math.sqrt(4.5))
