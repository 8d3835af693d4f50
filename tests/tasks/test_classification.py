"""The classification and regression tasks: what their options do, metrics against brute force, and what they refuse."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo.tasks.classification import Classification, balanced_weights
from zoo.tasks.regression import Regression


class Given(nn.Module):
    """A network that answers with what it is asked."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def evaluated(task, batches):
    task.start_split()
    for number, batch in enumerate(batches):
        task.evaluation_step(batch, number)
    return task.split_scores("test")


def random_batches(classes: int, sizes=(7, 7, 3)):
    generator = torch.Generator().manual_seed(5)
    for size in sizes:
        logits = torch.randn(size, classes, generator=generator) * 2
        yield {"input": logits, "target": torch.randint(0, classes, (size,), generator=generator)}


def test_metrics_of_a_split_equal_brute_force_over_all_its_examples() -> None:
    batches = list(random_batches(8))
    scores = evaluated(Classification(Given(), facts={"num_classes": 8}), batches)
    logits = torch.cat([b["input"] for b in batches])
    target = torch.cat([b["target"] for b in batches])
    predicted = logits.argmax(1)
    assert scores["test/accuracy"] == pytest.approx((predicted == target).float().mean().item())
    top5 = sum(t in row.topk(5).indices for row, t in zip(logits, target, strict=True)) / len(target)
    assert scores["test/accuracy_top5"] == pytest.approx(top5)
    assert scores["test/loss"] == pytest.approx(F.cross_entropy(logits, target).item())
    precision, recall, f1 = [], [], []
    for label in range(8):
        hit = ((predicted == label) & (target == label)).sum().item()
        called, there = (predicted == label).sum().item(), (target == label).sum().item()
        if called + there == 0:
            continue  # torchmetrics leaves classes that never occur out of a macro average
        precision.append(hit / called if called else 0.0)
        recall.append(hit / there if there else 0.0)
        f1.append(2 * hit / (called + there))
    for name, values in (("precision", precision), ("recall", recall), ("f1", f1)):
        assert scores[f"test/{name}"] == pytest.approx(sum(values) / len(values)), name
    confidence = logits.softmax(1).max(1).values
    error = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            gap = (predicted == target)[inside].float().mean() - confidence[inside].mean()
            error += inside.float().mean().item() * abs(gap.item())
    assert scores["test/calibration_error"] == pytest.approx(error, abs=1e-6)


def test_regression_reports_errors_in_the_targets_own_unit() -> None:
    task = Regression(Given(), facts={"num_classes": 1, "target_mean": 50.0, "target_std": 10.0})
    prediction, target = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0.5], [1.0], [1.0]])
    scores = evaluated(task, [{"input": prediction, "target": target}])
    assert scores["test/mae"] == pytest.approx(5.0)
    assert scores["test/rmse"] == pytest.approx(math.sqrt((25 + 0 + 100) / 3))
    assert scores["test/loss"] == pytest.approx((0.25 + 0 + 1) / 3)
    residual, spread = 0.25 + 1, ((target - target.mean()) ** 2).sum().item()
    assert scores["test/r2"] == pytest.approx(1 - residual / spread, rel=1e-3)


def test_r2_of_targets_far_from_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(200, 1, generator=generator)
    prediction = target + 0.5 * torch.randn(200, 1, generator=generator)
    facts = {"num_classes": 1, "target_mean": 1.7e9, "target_std": 1e3}
    scores = evaluated(Regression(Given(), facts=facts), [{"input": prediction, "target": target}])
    truth = 1 - ((prediction - target) ** 2).sum() / ((target - target.mean()) ** 2).sum()
    assert scores["test/r2"] == pytest.approx(truth.item(), abs=1e-4)


def test_calibration_takes_logits_between_0_and_1_for_logits() -> None:
    logits, target = torch.tensor([[0.9, 0.1, 0.2], [0.1, 0.8, 0.3]]), torch.tensor([0, 2])
    scores = evaluated(Classification(Given(), facts={"num_classes": 3}), [{"input": logits, "target": target}])
    confidence = logits.softmax(1).max(1).values
    bins = (confidence * 15).long()
    gaps = torch.tensor([1.0, 0.0]) - confidence
    expected = gaps.abs().mean() if bins[0] != bins[1] else gaps.mean().abs()
    assert scores["test/calibration_error"] == pytest.approx(expected.item(), abs=1e-6)


def test_balanced_weights_give_every_class_the_same_sum() -> None:
    targets = torch.tensor([0] * 6 + [1] * 3 + [2])
    weights = balanced_weights(targets, 3)
    assert [weights[label] * (targets == label).sum().item() for label in range(3)] == pytest.approx([10 / 3] * 3)
    with pytest.raises(ValueError, match="3 has none"):
        balanced_weights(targets, 4)


def test_balanced_in_a_config_becomes_numbers_in_the_checkpoint(small_run) -> None:
    folder, _ = small_run("task.class_weights=balanced")
    config = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["zoo"]["config"]
    assert len(config["task"]["class_weights"]) == 10


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"class_weights": [1.0, 2.0]}, "class_weights has 2 numbers: must have 3"),
        ({"mixup_alpha": -0.1}, "mixup_alpha=-0.1: must be 0"),
        ({"mixup_alpha": 0.2, "loss": "hinge"}, "loss=hinge takes no soft targets"),
        ({"cutmix_alpha": 1.0}, "no images; use mixup_alpha"),
        ({"mixup_alpha": 0.2, "num_tokens": 5}, "mixup_alpha=0.2: must be 0 for tokens"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0"),
        ({"loss": "square"}, "square"),
    ],
)
def test_what_cannot_apply_is_refused(arguments: dict, said: str) -> None:
    facts = {"num_classes": 3, "num_tokens": arguments.pop("num_tokens", None)}
    with pytest.raises(ValueError, match=said):
        Classification(Given(), facts=facts, **arguments)


@pytest.mark.parametrize(
    "words", [["task.mixup_alpha=0.4"], ["task.cutmix_alpha=1.0"], ["task.loss=focal"], ["task.loss=hinge"]]
)
def test_options_train(words: list[str], small_run) -> None:
    _, scores = small_run(*words, "trainer.max_epochs=6")
    assert scores["test/accuracy"] > 0.5, "synthetic classes are easy; chance is 0.1"


def test_data_without_numbers_or_classes_are_refused(small_run) -> None:
    from zoo.errors import ZooError

    with pytest.raises(ZooError, match="regression needs numbers: use task=classification"):
        small_run("task=regression", name="classes")
    with pytest.raises(ZooError, match=r"class_names is missing[\s\S]*task=regression"):
        small_run("model=mlp", "data.kind=regression", "data.num_classes=1", name="numbers")
