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


# Pixels ---------------------------------------------------------------------------------------------------------------


def pixels(seed: int = 0, *, ignored: float = 0.3) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (2, 3, 4, 5) float64, targets of which class 1 never occurs, and weights of pixels."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64) * 2
    target = torch.randint(0, 2, (2, 4, 5), generator=generator) * 2
    target[torch.rand(2, 4, 5, generator=generator) < ignored] = 255
    return logits, target, torch.rand(2, 4, 5, generator=generator, dtype=torch.float64) * 3


def pixels_by_hand(
    *, gamma: float = 0.0, smoothing: float = 0.0, weights: list[float] | None = None, mapped: bool = False
) -> float:
    logits, target, pixel_weight = pixels()
    total = norm = 0.0
    for b in range(2):
        for y in range(4):
            for x in range(5):
                label = int(target[b, y, x])
                if label == 255:
                    continue
                row = logits[b, :, y, x].tolist()
                z = sum(math.exp(v) for v in row)
                for k in range(3):
                    p, w = math.exp(row[k]) / z, weights[k] if weights else 1.0
                    t = (1 - smoothing) * (k == label) + smoothing / 3
                    cost = -w * t * (1 - p) ** gamma * math.log(p)
                    total += cost * (float(pixel_weight[b, y, x]) if mapped else 1.0)
                norm += weights[label] if weights else 1.0
    return total / norm


def dice_by_hand(logits: Tensor, target: Tensor) -> float:
    p = logits.softmax(1).movedim(1, 3).reshape(-1, logits.shape[1])
    t = target.flatten()
    losses = []
    for k in range(logits.shape[1]):
        overlap = squares = count = 0.0
        for row, label in zip(p.tolist(), t.tolist(), strict=True):
            if label != 255:
                overlap += row[k] * (label == k)
                squares += row[k] ** 2
                count += label == k
        if count:
            losses.append(1 - 2 * overlap / (squares + count))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("name", "gamma"), [("cross_entropy", 0.0), ("focal", 0.0), ("focal", 2.0), ("focal", 0.5)])
def test_pixels_by_hand(name: str, gamma: float, smoothing: float, weights: list[float] | None, mapped: bool) -> None:
    loss = losses.segmentation(name, label_smoothing=smoothing, class_weights=weights, focal_gamma=gamma).double()
    logits, target, pixel_weight = pixels()
    expected = pixels_by_hand(gamma=gamma, smoothing=smoothing, weights=weights, mapped=mapped)
    assert loss(logits, target, pixel_weight if mapped else None).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_pixels_as_torch_has_it_with_its_gradient(smoothing: float, weights: list[float] | None) -> None:
    logits, target, _ = pixels(3)
    logits.requires_grad_()
    loss = losses.segmentation(label_smoothing=smoothing, class_weights=weights).double()(logits, target)
    tensor = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    twin = F.cross_entropy(logits, target, tensor, ignore_index=255, label_smoothing=smoothing)
    torch.testing.assert_close(loss, twin, rtol=1e-10, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(each, logits)[0] for each in (loss, twin)), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("seed", range(4))
def test_dice_by_hand(seed: int) -> None:
    logits, target, _ = pixels(seed)
    assert losses.segmentation("dice")(logits, target).item() == pytest.approx(dice_by_hand(logits, target), rel=1e-9)


def test_dice_of_a_perfect_and_of_a_wrong_prediction() -> None:
    target = torch.tensor([[[0, 1], [255, 2]]])
    certain = 50 * F.one_hot(target % 255, 4).movedim(3, 1).double()  # class 3 is in neither
    assert losses.segmentation("dice")(certain, target).item() == pytest.approx(0, abs=1e-12)
    turned = torch.tensor([[[1, 2], [255, 0]]])
    assert losses.segmentation("dice")(certain, turned).item() == pytest.approx(1, abs=1e-12)


def test_sums_of_pixel_losses() -> None:
    logits, target, weight = pixels()
    options = {"label_smoothing": 0.1, "class_weights": WEIGHTS}
    dice = losses.segmentation("dice")(logits, target)
    for name in ("cross_entropy", "focal"):
        first = losses.segmentation(name, **options).double()(logits, target, weight)
        both = losses.segmentation(f"{name}_dice", dice_weight=0.3, **options).double()
        torch.testing.assert_close(both(logits, target, weight), first + 0.3 * dice)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("name", losses.SEGMENTATION)
def test_ignored_pixels_count_nowhere(name: str, weights: list[float] | None) -> None:
    options = {} if name == "dice" else {"class_weights": weights, "label_smoothing": 0.1}
    loss = losses.segmentation(name, **options).double()
    logits, target, _ = pixels()
    hidden = (target == 255)[:, None].expand_as(logits)
    other = logits.masked_fill(hidden, 30.0).requires_grad_()
    torch.testing.assert_close(loss(other, target), loss(logits, target), rtol=1e-12, atol=0)
    loss(other, target).backward()
    assert not other.grad[hidden].any()
    assert other.grad[~hidden].all()


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("name", losses.SEGMENTATION)
def test_without_a_pixel_that_counts_loss_and_gradient_are_zero(name: str, weights: list[float] | None) -> None:
    options = {} if name == "dice" else {"class_weights": weights, "label_smoothing": 0.1}
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = losses.segmentation(name, **options)(logits, torch.full((2, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()  # nor is any of them NaN, which counts as true


@pytest.mark.parametrize("name", losses.SEGMENTATION)
def test_pixel_losses_have_a_finite_gradient_where_they_are_certain(name: str) -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]]).view(2, 2, 1, 1).requires_grad_()
    losses.segmentation(name, focal_gamma=0.5)(logits, torch.tensor([0, 0]).view(2, 1, 1)).backward()
    assert torch.isfinite(logits.grad).all()


def test_pixel_losses_of_16_bits_are_summed_in_32() -> None:
    logits = torch.zeros(1, 2, 320, 320, dtype=torch.float16)
    loss = losses.segmentation()(logits, torch.zeros(1, 320, 320, dtype=torch.long))
    assert loss.item() == pytest.approx(math.log(2), rel=1e-5)  # their sum, 70,978, is above the largest float16
    assert losses.segmentation("dice")(logits, torch.zeros(1, 320, 320).long()).item() == pytest.approx(0.2, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "jaccard"}, "loss=jaccard: must be one of cross_entropy, dice"),
        ({"name": "dice", "class_weights": WEIGHTS}, "class_weights: must be null with loss=dice"),
        ({"name": "dice", "label_smoothing": 0.1}, "label_smoothing=0.1: must be 0 with loss=dice"),
        ({"name": "focal_dice", "focal_gamma": -1.0}, "focal_gamma=-1.0: must be 0"),
        ({"name": "cross_entropy_dice", "dice_weight": 0.0}, "dice_weight=0.0: must be above 0"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0: must be at least 0"),
        ({"class_weights": [1.0, 0.0]}, "class_weights=.*must be finite"),
    ],
)
def test_wrong_pixel_losses_are_refused(arguments: dict, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        losses.segmentation(**arguments)


def test_dice_refuses_weights_of_pixels() -> None:
    with pytest.raises(ValueError, match="loss=dice takes no weights of pixels"):
        losses.segmentation("dice")(*pixels())


def test_wrong_regression_values_are_refused() -> None:
    with pytest.raises(ValueError, match="loss=mae: must be one of mse, l1, huber"):
        losses.regression("mae")
    with pytest.raises(ValueError, match=r"huber_delta=0: must be above 0"):
        losses.regression("huber", huber_delta=0)
