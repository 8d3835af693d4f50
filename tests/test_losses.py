"""Losses against sums written out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo import losses

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-3.0, 4.0, 1.0], [0.0, 1.0, 5.0]], dtype=torch.float64)
TARGET = torch.tensor([0, 2, 1, 1])
HARD = F.one_hot(TARGET, 3).double()
SOFT = torch.tensor([[0.7, 0.0, 0.3], [0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.2, 0.2, 0.6]], dtype=torch.float64)
WEIGHTS = [1.0, 2.0, 0.5]


def by_hand(target: Tensor, *, smoothing: float = 0.0, weights: list[float] | None = None, gamma: float = 0.0) -> float:
    weights = weights or [1.0, 1.0, 1.0]
    total = norm = 0.0
    for row, wanted in zip(LOGITS.tolist(), target.tolist(), strict=True):
        z = sum(math.exp(x) for x in row)
        for k in range(3):
            p, t = math.exp(row[k]) / z, (1 - smoothing) * wanted[k] + smoothing / 3
            total -= weights[k] * t * (1 - p) ** gamma * math.log(p)
            norm += weights[k] * wanted[k]
    return total / norm


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("target", [TARGET, SOFT], ids=["hard", "soft"])
@pytest.mark.parametrize(("name", "gamma"), [("cross_entropy", 0.0), ("focal", 0.0), ("focal", 2.0), ("focal", 0.5)])
def test_classification_by_hand(
    name: str, gamma: float, target: Tensor, smoothing: float, weights: list[float] | None
) -> None:
    loss = losses.classification(name, label_smoothing=smoothing, class_weights=weights, focal_gamma=gamma)
    if isinstance(loss, torch.nn.Module):
        loss.double()
    expected = by_hand(HARD if target is TARGET else SOFT, smoothing=smoothing, weights=weights, gamma=gamma)
    assert loss(LOGITS, target).item() == pytest.approx(expected, rel=1e-6)


def test_the_common_path_is_torchs_own_function() -> None:
    assert losses.classification() is F.cross_entropy


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("margin", [1.0, 0.3])
def test_hinge_by_hand(margin: float, weights: list[float] | None) -> None:
    total = norm = 0.0
    for row, label in zip(LOGITS.tolist(), TARGET.tolist(), strict=True):
        w = weights[label] if weights else 1.0
        total += w * sum(max(0.0, margin - row[label] + row[j]) for j in range(3) if j != label) / 3
        norm += w
    loss = losses.classification("hinge", hinge_margin=margin, class_weights=weights)
    assert loss(LOGITS.float(), TARGET).item() == pytest.approx(total / norm, rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_has_a_finite_gradient_where_it_is_certain(gamma: float) -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)  # right, then wrong
    losses.classification("focal", focal_gamma=gamma)(logits, torch.tensor([0, 0])).backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[1].abs().max() > 0.1


def test_class_weights_move_with_the_module_but_are_not_saved() -> None:
    loss = losses.classification("focal", class_weights=WEIGHTS)
    assert isinstance(loss, torch.nn.Module)
    assert loss.state_dict() == {}
    assert loss.to("meta").weights.device.type == "meta"


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("mse", lambda e: e * e),
        ("l1", abs),
        ("huber", lambda e: e * e / 2 if abs(e) <= 0.7 else 0.7 * (abs(e) - 0.35)),
    ],
)
def test_regression_by_hand(name: str, formula) -> None:
    prediction, target = LOGITS, SOFT
    expected = [formula(e) for e in (prediction - target).flatten().tolist()]
    loss = losses.regression(name, huber_delta=0.7)
    assert loss(prediction, target).item() == pytest.approx(sum(expected) / len(expected))


def test_regression_never_broadcasts() -> None:
    with pytest.raises(ValueError, match=r"prediction \(4, 1\) and target \(4,\): must have one shape"):
        losses.regression("mse")(torch.zeros(4, 1), torch.zeros(4))


@pytest.mark.parametrize(
    "arguments",
    [
        {"loss": "nll"},
        {"label_smoothing": 1.0},
        {"label_smoothing": -0.1},
        {"class_weights": [1.0, 0.0]},
        {"class_weights": [1.0, math.inf]},
        {"focal_gamma": -1.0, "loss": "focal"},
        {"label_smoothing": 0.1, "loss": "hinge"},
        {"hinge_margin": 0.0, "loss": "hinge"},
    ],
)
def test_wrong_values_are_refused(arguments: dict) -> None:
    argument = next(iter(arguments))
    name = arguments.pop("loss", "cross_entropy")
    with pytest.raises(ValueError, match=f"^{argument}=.*must be"):
        losses.classification(name, **arguments)


def test_wrong_regression_values_are_refused() -> None:
    with pytest.raises(ValueError, match="loss=mae: must be one of mse, l1, huber"):
        losses.regression("mae")
    with pytest.raises(ValueError, match=r"huber_delta=0: must be above 0"):
        losses.regression("huber", huber_delta=0)
