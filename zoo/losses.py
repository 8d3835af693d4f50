"""Losses by name: `loss(logits, target) → scalar`, the mean over the batch.

Shapes: B batch, K classes, H×W pixels. Targets of a classification are class numbers (B,) int64, or, after mixup and
cutmix, soft targets (B, K), rows of which sum to 1. Those of a segmentation are class numbers (B, H, W) int64.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]

CLASSIFICATION = ("cross_entropy", "focal", "hinge")
REGRESSION = ("mse", "l1", "huber")
SEGMENTATION = ("cross_entropy", "dice", "focal", "cross_entropy_dice", "focal_dice")


def classification(
    name: str = "cross_entropy",
    *,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
    focal_gamma: float = 2.0,
    hinge_margin: float = 1.0,
) -> Loss:
    """Make the loss `name`: logits (B, K) and target (B,) or (B, K) to a scalar.

    With class weights the mean is weighted: divided by the weights of the targets, not by B. What is returned may be a
    module: the weights move with the task that holds it, and are not part of its state.
    """
    if name not in CLASSIFICATION:
        raise ValueError(f"loss={name}: must be one of {', '.join(CLASSIFICATION)}")
    _check(label_smoothing, class_weights, focal_gamma if name == "focal" else 0)
    if name == "cross_entropy" and class_weights is None:
        # The common path is the plain function: nothing between the task and ATen.
        return partial(F.cross_entropy, label_smoothing=label_smoothing) if label_smoothing else F.cross_entropy
    if name == "cross_entropy":
        return CrossEntropy(label_smoothing, class_weights)
    if name == "focal":
        return Focal(focal_gamma, label_smoothing, class_weights)
    if label_smoothing:
        raise ValueError(f"label_smoothing={label_smoothing}: must be 0 with the hinge loss, which has no soft targets")
    if hinge_margin <= 0:
        raise ValueError(f"hinge_margin={hinge_margin}: must be above 0")
    return Hinge(hinge_margin, class_weights)


def _check(label_smoothing: float, class_weights: Sequence[float] | None, focal_gamma: float) -> None:
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing={label_smoothing}: must be at least 0 and below 1")
    if class_weights is not None and not all(0 < weight < math.inf for weight in class_weights):
        raise ValueError(f"class_weights={list(class_weights)}: must be finite numbers above 0, one for each class")
    if focal_gamma < 0:
        raise ValueError(f"focal_gamma={focal_gamma}: must be 0 (cross-entropy) or more")


def segmentation(
    name: str = "cross_entropy",
    *,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
    focal_gamma: float = 2.0,
    dice_weight: float = 1.0,
    ignore_index: int = 255,
) -> "PixelLoss":
    """Make the loss `name`: logits (B, K, H, W), target (B, H, W) and perhaps `weight` (B, H, W) to a scalar.

    In the sums, label smoothing, class weights and pixel weights belong to the first part, `dice_weight` to the Dice
    loss, which knows none of them: alone it refuses them. Pixels of the class `ignore_index` count nowhere.
    """
    if name not in SEGMENTATION:
        raise ValueError(f"loss={name}: must be one of {', '.join(SEGMENTATION)}")
    has_focal, has_dice = name.startswith("focal"), name.endswith("dice")
    _check(label_smoothing, class_weights, focal_gamma if has_focal else 0)
    if name == "dice" and (label_smoothing or class_weights is not None):
        wrong = f"label_smoothing={label_smoothing}: must be 0" if label_smoothing else "class_weights: must be null"
        raise ValueError(f"{wrong} with loss=dice, which weighs whole classes; loss=cross_entropy_dice takes it")
    if has_dice and not 0 < dice_weight < math.inf:
        raise ValueError(f"dice_weight={dice_weight}: must be above 0")
    gamma = None if name == "dice" else focal_gamma if has_focal else 0.0
    return PixelLoss(gamma, label_smoothing, class_weights, dice_weight if has_dice else 0.0, ignore_index)


def regression(name: str = "mse", *, huber_delta: float = 1.0) -> Loss:
    """Make the loss `name`: prediction and target of one shape (B, K) to a scalar, the mean over B and K.

    mse: e²; l1: |e|; huber: e²/2 where |e| ≤ δ, else δ·(|e| − δ/2) (Huber 1964, "Robust estimation of a location
    parameter").
    """
    if name not in REGRESSION:
        raise ValueError(f"loss={name}: must be one of {', '.join(REGRESSION)}")
    if huber_delta <= 0:
        raise ValueError(f"huber_delta={huber_delta}: must be above 0")
    losses: dict[str, Loss] = {"mse": F.mse_loss, "l1": F.l1_loss, "huber": partial(F.huber_loss, delta=huber_delta)}
    return partial(_same_shape, losses[name])


def _same_shape(loss: Loss, prediction: Tensor, target: Tensor) -> Tensor:
    # (B, 1) against (B,) would broadcast to (B, B) and train to the mean.
    if prediction.shape != target.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)}: must have one shape")
    return loss(prediction, target)


class _Weighted(nn.Module):
    """Holds the class weights (K,), or None. Not persistent: they come from the config, not from training."""

    weights: Tensor | None

    def __init__(self, class_weights: Sequence[float] | None) -> None:
        super().__init__()
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("weights", weights, persistent=False)


class CrossEntropy(_Weighted):
    """−Σ_k w_k·t_k·log p_k over Σ_k w_k·t_k: torch's weighted mean, kept for soft targets, where torch divides by B."""

    def __init__(self, label_smoothing: float, class_weights: Sequence[float] | None) -> None:
        super().__init__(class_weights)
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        if target.ndim == 1 or self.weights is None:
            return F.cross_entropy(logits, target, self.weights, label_smoothing=self.label_smoothing)
        total = F.cross_entropy(logits, target, self.weights, reduction="sum", label_smoothing=self.label_smoothing)
        return total / (target * self.weights).sum()


class Focal(_Weighted):
    """−Σ_k w_k·t_k·(1 − p_k)^γ·log p_k. Lin et al. 2017, 1708.02002, eq. 4 and 5, for K classes.

    The paper has hard targets; smoothed and mixed ones enter as the weights t_k of the sum, as in cross-entropy, which
    is the case γ = 0.
    """

    def __init__(self, gamma: float, label_smoothing: float, class_weights: Sequence[float] | None) -> None:
        super().__init__(class_weights)
        self.gamma, self.label_smoothing = gamma, label_smoothing

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        classes = logits.shape[1]
        log_p = F.log_softmax(logits, dim=1)
        soft = F.one_hot(target, classes).to(log_p) if target.ndim == 1 else target
        smooth = soft * (1 - self.label_smoothing) + self.label_smoothing / classes
        # Never exactly 0: the slope of x^γ there is infinite for γ < 1, and infinity times log p = 0 is not a number.
        missing = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
        loss = -smooth * missing**self.gamma * log_p
        if self.weights is None:
            return loss.sum() / len(logits)
        return (loss * self.weights).sum() / (soft * self.weights).sum()


class Hinge(_Weighted):
    """Σ_{j≠y} max(0, margin − x_y + x_j) / K, as `nn.MultiMarginLoss`.

    Weston & Watkins 1999, "Support vector machines for multi-class pattern recognition", ESANN: every wrong class that
    comes within the margin costs. (Crammer & Singer 2001 count the worst one only.)
    """

    def __init__(self, margin: float, class_weights: Sequence[float] | None) -> None:
        super().__init__(class_weights)
        self.margin = margin

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.weights is None:
            return F.multi_margin_loss(logits, target, margin=self.margin)
        total = F.multi_margin_loss(logits, target, margin=self.margin, weight=self.weights, reduction="sum")
        return total / self.weights[target].sum()


class PixelLoss(_Weighted):
    """The mean of a loss of single pixels, plus `dice_weight` times the Dice loss; either may be left out.

    A pixel of class y costs −m·w_y·(1 − p_y)^γ·log p_y: cross-entropy (γ = 0) or focal, with its class's weight w and
    its own weight m from a map, as in eq. 1 and 2 of Ronneberger et al. 2015, "U-Net", 1505.04597. Their sum is divided
    by Σ w_y, not by the map: its weights multiply the cost. Where no pixel counts, loss and gradient are 0.
    `gamma=None` leaves the pixels' part out.
    """

    def __init__(
        self,
        gamma: float | None,
        label_smoothing: float,
        class_weights: Sequence[float] | None,
        dice_weight: float,
        ignore_index: int,
    ) -> None:
        super().__init__(class_weights)
        self.gamma, self.label_smoothing = gamma, label_smoothing
        self.dice_weight, self.ignore_index = dice_weight, ignore_index

    def forward(self, logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        if logits.dtype in (torch.float16, torch.bfloat16):  # sums over pixels outgrow 16 bits
            logits = logits.float()
        log_p = F.log_softmax(logits, dim=1)
        loss = log_p.new_zeros(())
        if self.gamma is not None:
            loss = self._mean_of_pixels(log_p, target, weight)
        elif weight is not None:
            raise ValueError("loss=dice takes no weights of pixels: must be cross_entropy, focal or a sum with dice")
        if self.dice_weight:
            loss = loss + self.dice_weight * soft_dice(log_p.exp(), target, ignore_index=self.ignore_index)
        return loss

    def _mean_of_pixels(self, log_p: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        terms, valid = log_p, target != self.ignore_index
        if self.gamma:
            terms = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny) ** self.gamma * log_p  # as in Focal
        # reduction="none": torch's own sum over pixels is not deterministic on CUDA
        cost = F.nll_loss(terms, target, self.weights, ignore_index=self.ignore_index, reduction="none")  # (B, H, W)
        if self.label_smoothing:
            spread = terms if self.weights is None else terms * self.weights.view(-1, 1, 1)
            cost = (1 - self.label_smoothing) * cost - self.label_smoothing * spread.mean(1) * valid
        if weight is not None:
            cost = cost * weight
        norm = self.divisor(target)
        return cost.sum() / (norm + (norm == 0))

    def divisor(self, target: Tensor) -> Tensor:
        """What the sum over pixels is divided by: how many count, or the sum of their class weights."""
        valid = target != self.ignore_index
        return valid.sum() if self.weights is None else (self.weights[target * valid] * valid).sum()


def soft_dice(probabilities: Tensor, target: Tensor, *, ignore_index: int = 255) -> Tensor:
    """1 − the mean over classes k of 2·Σ p_k·g_k / (Σ p_k² + Σ g_k²), the sums over the valid pixels of the batch.

    Milletari et al. 2016, "V-Net", 1606.04797, section 3, for K classes; p are `probabilities` (B, K, H, W), g is 1
    where `target` (B, H, W) is k, else 0. A class without a pixel in the batch's target is left out of the mean: its
    ratio would be 0 whatever is predicted. What is wrongly taken for it counts against the others. Without any valid
    pixel the loss is 0.
    """
    valid = (target != ignore_index)[:, None]
    classes = torch.arange(probabilities.shape[1], device=target.device).view(-1, 1, 1)
    truth = (target[:, None] == classes) & valid  # (B, K, H, W)
    over = (0, 2, 3)
    size = truth.sum(over)  # (K,)
    ratio = 2 * (probabilities * truth).sum(over) / ((probabilities.square() * valid).sum(over) + size.clamp_min(1))
    occurs = size > 0
    return ((1 - ratio) * occurs).sum() / occurs.sum().clamp_min(1)
