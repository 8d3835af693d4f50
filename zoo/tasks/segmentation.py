"""Segmentation: one class of K for every pixel."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix

from zoo import losses
from zoo.errors import ZooError
from zoo.tasks.base import Batch, Task
from zoo.tasks.engine import Optimization
from zoo.tiling import centre_crop

Balancing = Literal["balanced", "median_frequency"]


def pixel_weights(
    masks: Iterable[Tensor], num_classes: int, *, balancing: Balancing = "balanced", ignore_index: int = 255
) -> list[float]:
    """A weight for each class from masks (H, W), or from one tensor of masks (N, H, W); ignored pixels do not count.

    balanced: n / (K · n_class), where n are all valid pixels, so that every class weighs the same in sum.
    median_frequency: median(f) / f_class, where f_class is the share of the class among the valid pixels of the masks
    it occurs in. Eigen & Fergus 2015, 1411.4734; the recipe of SegNet, 1511.00561, section 4.
    """
    pixels = torch.zeros(num_classes, dtype=torch.int64)  # of each class,
    around = torch.zeros(num_classes, dtype=torch.int64)  # and of the masks in which it occurs
    for mask in masks:
        counts = torch.bincount(mask[mask != ignore_index].flatten(), minlength=num_classes)
        pixels += counts
        around += (counts > 0) * counts.sum()
    if (pixels == 0).any():
        empty = ", ".join(str(label) for label in torch.nonzero(pixels == 0)[:, 0].tolist())
        raise ValueError(f"class_weights={balancing}: must have training pixels of every class, and {empty} has none")
    if balancing == "balanced":
        return (pixels.sum() / (num_classes * pixels)).tolist()
    frequency = pixels / around
    return (frequency.quantile(0.5) / frequency).tolist()  # not .median(): of an even number it takes the lower one


def metric_names(class_names: Sequence[str]) -> list[str]:
    """`iou_<name>` for each class, in letters that TensorBoard and files take; with its number where two are alike."""
    names = [re.sub(r"[^\w.-]+", "_", name).strip("_") for name in class_names]
    return [f"iou_{name}" if name and names.count(name) == 1 else f"iou_{name}_{i}" for i, name in enumerate(names)]


def predicted_classes(logits: Tensor) -> Tensor:
    """Logits (B, K, H, W) to class numbers (B, H, W). Not by argmax: along channels that takes ten times as long."""
    return logits.max(1).indices


def overlaps(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and Dice of each class, (…, K) float64, from confusion matrices (…, K, K), rows true, columns predicted.

    TP / (TP + FP + FN) and 2·TP / (2·TP + FP + FN); NaN for a class that occurs in neither target nor prediction.
    """
    matrix = matrix.double()  # counts of pixels outgrow float32
    hit, both = matrix.diagonal(dim1=-2, dim2=-1), matrix.sum(-1) + matrix.sum(-2)
    return hit / (both - hit), 2 * hit / both


class PixelScores(MulticlassConfusionMatrix):
    """mean_iou, dice, accuracy and an IoU for each class, from the confusion matrix of all valid pixels of a split."""

    def __init__(self, class_names: Sequence[str], *, ignore_index: int) -> None:
        # validate_args=False: its checks would copy every batch from the device
        super().__init__(len(class_names), ignore_index=ignore_index, validate_args=False)
        self.names = metric_names(class_names)

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]
        """A class that occurs in neither target nor prediction has no IoU: it is left out, and out of the means."""
        if not self.confmat.any():
            raise ZooError(f"No pixel of this split counts: its masks hold nothing but {self.ignore_index}.")
        matrix = self.confmat.cpu().double()  # Apple GPUs have no float64
        iou, dice = overlaps(matrix)
        scores = {"mean_iou": iou.nanmean(), "dice": dice.nanmean(), "accuracy": matrix.trace() / matrix.sum()}
        occurs = (~iou.isnan()).tolist()
        return scores | {name: iou[k] for k, name in enumerate(self.names) if occurs[k]}


class Segmentation(Task):
    """One class of K for every pixel. Monitor: validation mean IoU.

    Targets (B, H, W); pixels of the class `ignore_index` (a fact) count nowhere. A target may be smaller than the input
    and belong to its middle (`data.context`): of larger logits the middle counts. Smaller ones, as of a network with
    valid convolutions on tiles without context, are refused, as some pixels would never count. A batch may have a
    `weight` (B, H, W), which multiplies the loss of each pixel.

    Metrics from one confusion matrix of the whole split: mean_iou and dice (means over the classes that occur in target
    or prediction), accuracy (of pixels), iou_<class>.

    `loss`: cross_entropy, dice (Milletari et al. 2016), focal (Lin et al. 2017), or cross_entropy_dice and focal_dice,
    to which the Dice loss is added with `dice_weight` (zoo/losses.py). `class_weights` are a list of K numbers, or
    balanced or median_frequency, which `pixel_weights` computes from the training split.
    """

    monitor = "val/mean_iou"
    mode: Literal["min", "max"] = "max"
    needs: ClassVar[dict[str, str]] = {
        "ignore_index": "this data has no masks: choose data=earth_segmentation or data=mask_folder, or another task"
    }

    def __init__(
        self,
        network: nn.Module,
        *,
        loss: Literal["cross_entropy", "dice", "focal", "cross_entropy_dice", "focal_dice"] = "cross_entropy",
        label_smoothing: float = 0.0,
        class_weights: list[float] | Balancing | None = None,
        focal_gamma: float = 2.0,
        dice_weight: float = 1.0,
        optimization: Optimization | None = None,
        facts: dict[str, Any] | None = None,
        seed: int = 0,
        log_every: int = 50,
    ) -> None:
        facts = facts or {}
        classes, ignored = facts["num_classes"], facts.get("ignore_index")
        self.ignore_index = 255 if ignored is None else ignored
        self.class_names = facts.get("class_names") or [str(k) for k in range(classes)]
        super().__init__(network, optimization=optimization, facts=facts, seed=seed, log_every=log_every)
        if classes < 2:
            raise ValueError(f"num_classes={classes}: must be at least 2; what belongs to nothing is a class as well")
        if 0 <= self.ignore_index < classes:
            raise ValueError(f"ignore_index={self.ignore_index}: must be none of the classes, 0 to {classes - 1}")
        if isinstance(class_weights, str):
            raise ValueError(f"class_weights={class_weights}: must be numbers here; `pixel_weights` computes them")
        if class_weights is not None and len(class_weights) != classes:
            raise ValueError(
                f"class_weights has {len(class_weights)} numbers: must have {classes}, one for each class, "
                "or be balanced or median_frequency"
            )
        self.criterion = losses.segmentation(
            loss,
            label_smoothing=label_smoothing,
            class_weights=class_weights,
            focal_gamma=focal_gamma,
            dice_weight=dice_weight,
            ignore_index=self.ignore_index,
        )

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logits, target = network(*self.inputs(batch)), batch["target"]
        if any(have < wanted for have, wanted in zip(logits.shape[-2:], target.shape[-2:], strict=True)):
            side, seen = batch["input"].shape[-1], logits.shape[-1]
            wanted, context = target.shape[-1], -(-(side - seen) // 2)
            raise ZooError(
                f"Of {side} pixels each way the network predicts {seen} in the middle, but {wanted} have a target; "
                f"say data.context={context} data.image_size={wanted + 2 * context}, so that each tile lies in the "
                "context that the network needs."
            )
        logits = centre_crop(logits, target.shape[-2:])  # (B, K, H, W)
        return self.criterion(logits, target, batch.get("weight")), {"logits": logits.detach(), "target": target}

    def weight(self, batch: Batch) -> int | Tensor:
        """The number of valid pixels."""
        return (batch["target"] != self.ignore_index).sum()

    def divisor(self, batch: Batch) -> int | Tensor:
        return self.criterion.divisor(batch["target"])

    def step_values(self, outputs: dict[str, Tensor], batch: Batch) -> tuple[Tensor, ...]:
        # two counts at once: the logits of a window's steps would fill the memory
        target = outputs["target"]
        return (predicted_classes(outputs["logits"]) == target).sum(), (target != self.ignore_index).sum()

    def step_metrics(self, kept: list[tuple[Tensor, ...]]) -> dict[str, float]:
        right, valid = (int(torch.stack(part).sum()) for part in zip(*kept, strict=True))
        return {"train/accuracy": right / valid} if valid else {}

    def metrics(self) -> MetricCollection:
        return MetricCollection({"pixels": PixelScores(self.class_names, ignore_index=self.ignore_index)})

    def update_metrics(self, outputs: dict[str, Tensor], batch: Batch) -> None:
        self.split_metrics.update(predicted_classes(outputs["logits"]), outputs["target"])
