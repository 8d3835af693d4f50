"""The segmentation task: its scores against brute force, what ignored pixels and smaller outputs do."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.tasks.segmentation import Segmentation, metric_names, overlaps, pixel_weights
from zoo.tiling import centre_crop

NAMES = ["sea", "bare soil", "forest", "ice"]
FACTS = {"num_classes": 4, "class_names": NAMES, "ignore_index": 255}


class Given(nn.Module):
    """A network that answers with what it is asked; of the border `margin` it says nothing."""

    def __init__(self, margin: int = 0) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, x: Tensor) -> Tensor:
        return x if not self.margin else x[..., self.margin : -self.margin, self.margin : -self.margin]


def evaluated(task: Segmentation, batches: list[dict[str, Tensor]]) -> dict[str, float]:
    task.start_split()
    for number, batch in enumerate(batches):
        task.evaluation_step(batch, number)
    return task.split_scores("test")


def random_batches(seed: int, *, classes: int = 4, present: int = 4, size: int = 6) -> list[dict[str, Tensor]]:
    """Three batches in which only the first `present` classes occur, a third of the pixels ignored."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for count in (3, 3, 1):
        logits = torch.randn(count, classes, size, size, generator=generator)
        logits[:, present:] -= 100
        target = torch.randint(0, present, (count, size, size), generator=generator)
        target[torch.rand(count, size, size, generator=generator) < 0.3] = 255
        batches.append({"input": logits, "target": target})
    return batches


def by_brute_force(predicted: np.ndarray, target: np.ndarray, classes: int) -> dict[str, float]:
    predicted, target = predicted[target != 255], target[target != 255]
    iou, dice = {}, []
    for k in range(classes):
        there, said = target == k, predicted == k
        if (there | said).any():
            iou[k] = (there & said).sum() / (there | said).sum()
            dice.append(2 * (there & said).sum() / (there.sum() + said.sum()))
    scores = {"mean_iou": sum(iou.values()) / len(iou), "dice": sum(dice) / len(dice)}
    return scores | {"accuracy": (predicted == target).mean()} | {f"iou_{NAMES[k]}": v for k, v in iou.items()}


@given(seed=st.integers(0, 10**6), present=st.integers(1, 4), size=st.integers(2, 6))
@settings(max_examples=40, deadline=None)
def test_scores_of_a_split_equal_brute_force_over_all_its_pixels(seed: int, present: int, size: int) -> None:
    batches = random_batches(seed, present=present, size=size)
    batches[0]["target"][0, 0, 0] = 0  # one valid pixel at least
    scores = evaluated(Segmentation(Given(), facts=FACTS), batches)
    predicted = torch.cat([b["input"].argmax(1) for b in batches]).numpy()
    target = torch.cat([b["target"] for b in batches]).numpy()
    expected = by_brute_force(predicted, target, 4)
    del scores["test/loss"]
    named = {f"test/{name.replace(' ', '_')}": value for name, value in expected.items()}
    assert scores == pytest.approx(named, rel=1e-12)


def test_the_loss_of_a_split_is_the_mean_over_its_valid_pixels() -> None:
    batches = random_batches(7)
    batches[1]["target"][:] = 255  # a batch without any
    batches[2]["target"][0, :3] = 255
    scores = evaluated(Segmentation(Given(), facts=FACTS), batches)
    logits, target = (torch.cat([b[name] for b in batches]) for name in ("input", "target"))
    assert scores["test/loss"] == pytest.approx(F.cross_entropy(logits, target, ignore_index=255).item(), rel=1e-5)


@pytest.mark.parametrize("size", [(6, 6), (7, 5)])
def test_of_logits_larger_than_the_target_the_middle_counts(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 4, size[0] + 4, size[1] + 4, generator=generator)
    target = torch.randint(0, 4, (2, *size), generator=generator)
    target[:, 0], target[:, 2, 2] = 255, 255
    weight = torch.rand(2, *size, generator=generator)
    batch = {"input": logits, "target": target, "weight": weight}
    inside, exact = logits[..., 2:-2, 2:-2], Segmentation(Given(2), facts=FACTS)
    loss, outputs = exact.loss(exact.network, batch)
    costs = F.cross_entropy(inside, target, reduction="none", ignore_index=255)
    assert loss.item() == pytest.approx((weight * costs).sum().item() / (target != 255).sum().item(), rel=1e-6)
    assert torch.equal(outputs["logits"], inside)
    assert outputs["target"] is target
    expected = evaluated(exact, [batch])
    for margin in (0, 1):
        assert evaluated(Segmentation(Given(margin), facts=FACTS), [batch]) == expected


def test_logits_smaller_than_the_target_are_refused_with_the_context_they_need() -> None:
    task = Segmentation(Given(3), facts=FACTS)
    batch = {"input": torch.zeros(1, 4, 12, 12), "target": torch.zeros(1, 8, 8).long()}
    with pytest.raises(ZooError, match=r"predicts 6 in the middle, but 8 .*data\.context=3 data\.image_size=14"):
        task.loss(task.network, batch)


def test_a_split_in_which_no_pixel_counts_is_refused() -> None:
    batch = {"input": torch.zeros(1, 4, 2, 2), "target": torch.full((1, 2, 2), 255)}
    with pytest.raises(ZooError, match="nothing but 255"):
        evaluated(Segmentation(Given(), facts=FACTS), [batch])


def test_training_accuracy_is_over_the_valid_pixels_of_a_window() -> None:
    task, batches = Segmentation(Given(), facts=FACTS), random_batches(5)
    kept = []
    for batch in batches:
        _, outputs = task.loss(task.network, batch)
        kept.append(task.step_values(outputs, batch))
    predicted, target = (
        torch.cat([b["input"].argmax(1).flatten() for b in batches]),
        torch.cat([b["target"].flatten() for b in batches]),
    )
    valid = target != 255
    expected = (predicted == target)[valid].float().mean().item()
    assert task.step_metrics(kept)["train/accuracy"] == pytest.approx(expected)
    assert task.step_metrics([(torch.tensor(0), torch.tensor(0))]) == {}
    assert all(value.numel() == 1 for step in kept for value in step), "logits of a whole window fill the memory"


def test_options_reach_the_loss() -> None:
    batch = random_batches(1)[0] | {"weight": torch.rand(3, 6, 6)}
    seen = set()
    for options in (
        {},
        {"loss": "focal"},
        {"loss": "focal", "focal_gamma": 1.0},
        {"loss": "cross_entropy_dice"},
        {"loss": "cross_entropy_dice", "dice_weight": 2.0},
        {"loss": "focal_dice"},
        {"label_smoothing": 0.2},
        {"class_weights": [1.0, 2.0, 3.0, 4.0]},
    ):
        task = Segmentation(Given(), facts=FACTS, **options)
        seen.add(round(task.loss(task.network, batch)[0].item(), 5))
    assert len(seen) == 8
    other = Segmentation(Given(), facts={**FACTS, "ignore_index": -100})
    batch["target"] = batch["target"].where(batch["target"] != 255, -100)
    assert round(other.loss(other.network, batch)[0].item(), 5) in seen


def test_metric_names_take_any_class_name() -> None:
    assert metric_names(["sea", "bare soil", "a/b", "größer", "", "n.a."]) == [
        *("iou_sea", "iou_bare_soil", "iou_a_b", "iou_größer", "iou__4", "iou_n.a.")
    ]
    assert metric_names(["a b", "a/b", "c"]) == ["iou_a_b_0", "iou_a_b_1", "iou_c"]


def test_overlaps_of_a_class_that_never_occurs_are_not_numbers() -> None:
    matrix = torch.tensor([[[3, 1, 0], [2, 4, 0], [0, 0, 0]]])
    iou, dice = overlaps(matrix)
    assert iou[0, :2].tolist() == pytest.approx([3 / 6, 4 / 7])
    assert dice[0, :2].tolist() == pytest.approx([6 / 9, 8 / 11])
    assert math.isnan(iou[0, 2])
    assert math.isnan(dice[0, 2])


# Class weights ------------------------------------------------------------------------------------------------------


def masks() -> Tensor:
    """Three masks; class 2 occurs in one of them only, and the last has ignored pixels."""
    return torch.tensor([[[0, 0], [0, 1]], [[0, 1], [2, 2]], [[0, 0], [0, 255]]], dtype=torch.uint8)


def test_balanced_pixel_weights_give_every_class_the_same_sum() -> None:
    weights = pixel_weights(masks(), 3)
    counts = [(masks() == k).sum().item() for k in range(3)]
    assert counts == [7, 2, 2]
    assert [w * n for w, n in zip(weights, counts, strict=True)] == pytest.approx([11 / 3] * 3)
    assert pixel_weights(list(masks()), 3) == weights


def test_median_frequency_counts_the_masks_a_class_occurs_in() -> None:
    frequency = [7 / 11, 2 / 8, 2 / 4]  # the last mask has three valid pixels; class 2 is in the second mask alone
    expected = [0.5 / f for f in frequency]
    assert pixel_weights(masks(), 3, balancing="median_frequency") == pytest.approx(expected)
    two = pixel_weights(masks()[:1], 2, balancing="median_frequency")
    assert two == pytest.approx([0.5 / 0.75, 0.5 / 0.25]), "of an even number the mean of the middle two"


@pytest.mark.parametrize("balancing", ["balanced", "median_frequency"])
def test_pixel_weights_need_every_class(balancing: str) -> None:
    with pytest.raises(ValueError, match=f"class_weights={balancing}: .* 1, 3 has none"):
        pixel_weights(torch.tensor([[[0, 255], [2, 0]]]), 4, balancing=balancing)


@pytest.mark.parametrize(
    ("arguments", "facts", "said"),
    [
        ({"class_weights": [1.0, 2.0]}, {}, "class_weights has 2 numbers: must have 4"),
        ({"class_weights": "balanced"}, {}, "class_weights=balanced: must be numbers here"),
        ({"loss": "hinge"}, {}, "loss=hinge: must be one of"),
        ({}, {"num_classes": 1, "class_names": ["one"]}, "num_classes=1: must be at least 2"),
        ({}, {"ignore_index": 3}, "ignore_index=3: must be none of the classes, 0 to 3"),
    ],
)
def test_what_cannot_apply_is_refused(arguments: dict, facts: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Segmentation(Given(), facts=FACTS | facts, **arguments)


def test_centre_crop_is_where_valid_convolutions_leave_their_output() -> None:
    image = torch.randn(1, 1, 9, 9)
    shrink = nn.Conv2d(1, 1, 5, bias=False)
    nn.init.dirac_(shrink.weight)
    torch.testing.assert_close(shrink(image), centre_crop(image, (5, 5)))
