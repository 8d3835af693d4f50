"""Classification of images, tables and sequences into K classes."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

from zoo import losses
from zoo.mixing import mix
from zoo.tasks.base import Batch, Task
from zoo.tasks.engine import Optimization


def balanced_weights(targets: Tensor, num_classes: int) -> list[float]:
    """n / (K · n_class) for each class of `targets` (N,), so that every class weighs the same in sum."""
    counts = torch.bincount(targets, minlength=num_classes)
    if (counts == 0).any():
        empty = ", ".join(str(label) for label in torch.nonzero(counts == 0)[:, 0].tolist())
        raise ValueError(f"class_weights=balanced: must have training examples of every class, and {empty} has none")
    return (len(targets) / (num_classes * counts)).tolist()


class CalibrationError(MulticlassCalibrationError):
    """torchmetrics takes logits that happen to lie between 0 and 1 for probabilities; here it always gets those."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(preds.softmax(1), target)


class Classification(Task):
    """One class of K for every example. Monitor: validation accuracy.

    Metrics over a whole split: accuracy, accuracy_top5 (K > 5), macro-averaged precision, recall and F1, and the
    expected calibration error over 15 bins (Guo et al. 2017, 1706.04599).

    `loss`: cross_entropy, focal (Lin et al. 2017, 1708.02002) or hinge (Weston & Watkins 1999). `class_weights` is a
    list of K numbers or `balanced`, which weighs every class by n / (K · n_class) of the training split. `mixup_alpha`
    and `cutmix_alpha` mix training examples (zoo/mixing.py) and need a loss that takes soft targets. `aux_weight` is
    that of each auxiliary head's loss, where a network gives `{"logits", "aux"}` in training.
    """

    monitor = "val/accuracy"
    mode: Literal["min", "max"] = "max"
    needs: ClassVar[dict[str, str]] = {
        "class_names": "these data have no classes: choose task=regression for numbers, task=forecasting for a series"
    }

    def __init__(
        self,
        network: nn.Module,
        *,
        loss: Literal["cross_entropy", "focal", "hinge"] = "cross_entropy",
        label_smoothing: float = 0.0,
        class_weights: list[float] | Literal["balanced"] | None = None,
        focal_gamma: float = 2.0,
        hinge_margin: float = 1.0,
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
        aux_weight: float = 0.3,
        optimization: Optimization | None = None,
        facts: dict[str, Any] | None = None,
        seed: int = 0,
        log_every: int = 50,
    ) -> None:
        facts = facts or {}
        self.num_classes = facts["num_classes"]
        super().__init__(network, optimization=optimization, facts=facts, seed=seed, log_every=log_every)
        if isinstance(class_weights, str):
            raise ValueError(f"class_weights={class_weights}: must be numbers here; `balanced_weights` computes them")
        if class_weights is not None and len(class_weights) != self.num_classes:
            raise ValueError(
                f"class_weights has {len(class_weights)} numbers: must have {self.num_classes}, one for each class, "
                "or be balanced"
            )
        for name, alpha in (("mixup_alpha", mixup_alpha), ("cutmix_alpha", cutmix_alpha)):
            if alpha < 0:
                raise ValueError(f"{name}={alpha}: must be 0 (off) or more")
        if mixup_alpha and facts.get("num_tokens"):
            raise ValueError(f"mixup_alpha={mixup_alpha}: must be 0 for tokens, which are names and have no mean")
        if (mixup_alpha or cutmix_alpha) and loss == "hinge":
            raise ValueError(
                "loss=hinge takes no soft targets: set mixup_alpha=0 and cutmix_alpha=0, or loss=cross_entropy"
            )
        if cutmix_alpha and not facts.get("image_size"):
            raise ValueError(
                f"cutmix_alpha={cutmix_alpha}: cutmix pastes image patches and this data has no images; use mixup_alpha"
            )
        if aux_weight < 0:
            raise ValueError(f"aux_weight={aux_weight}: must be 0 or more")
        self.mixup_alpha, self.cutmix_alpha, self.aux_weight = mixup_alpha, cutmix_alpha, aux_weight
        self.criterion = losses.classification(
            loss,
            label_smoothing=label_smoothing,
            class_weights=class_weights,
            focal_gamma=focal_gamma,
            hinge_margin=hinge_margin,
        )

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        output, target = network(*self.inputs(batch)), batch["target"]
        if isinstance(output, Tensor):  # (B, K)
            return self.criterion(output, target), {"logits": output.detach()}
        loss = self.criterion(output["logits"], target)
        for logits in output["aux"]:
            loss = loss + self.aux_weight * self.criterion(logits, target)
        return loss, {"logits": output["logits"].detach()}

    def prepare_batch(self, batch: Batch, seed: int) -> Batch:
        if not (self.mixup_alpha or self.cutmix_alpha):
            return batch
        mixed, soft = mix(
            batch["input"],
            batch["target"],
            num_classes=self.num_classes,
            mixup_alpha=self.mixup_alpha,
            cutmix_alpha=self.cutmix_alpha,
            seed=seed,
        )
        return {**batch, "input": mixed, "target": soft}

    def divisor(self, batch: Batch) -> int | Tensor:
        weights, target = getattr(self.criterion, "weights", None), batch["target"]
        if weights is None:
            return len(target)
        return (weights[target] if target.ndim == 1 else target * weights).sum()

    def step_values(self, outputs: dict[str, Tensor], batch: Batch) -> tuple[Tensor, ...]:
        return outputs["logits"], batch["target"]

    def step_metrics(self, kept: list[tuple[Tensor, ...]]) -> dict[str, float]:
        logits, target = (torch.cat(part) for part in zip(*kept, strict=True))
        if target.ndim == 2:  # mixed: a prediction counts when it names the larger share
            target = target.argmax(1)
        return {"train/accuracy": (logits.argmax(1) == target).float().mean().item()}

    def metrics(self) -> MetricCollection:
        k = self.num_classes
        # validate_args=False: its checks would copy every batch from the device
        macro: dict[str, Any] = {"num_classes": k, "average": "macro", "validate_args": False}
        collection: dict[str, Any] = {
            "accuracy": MulticlassAccuracy(k, average="micro", validate_args=False),
            "precision": MulticlassPrecision(**macro),
            "recall": MulticlassRecall(**macro),
            "f1": MulticlassF1Score(**macro),
            "calibration_error": CalibrationError(k, n_bins=15, validate_args=False),
        }
        if k > 5:
            collection["accuracy_top5"] = MulticlassAccuracy(k, top_k=5, average="micro", validate_args=False)
        return MetricCollection(collection, compute_groups=True)

    def update_metrics(self, outputs: dict[str, Tensor], batch: Batch) -> None:
        self.split_metrics.update(outputs["logits"].float(), batch["target"])
