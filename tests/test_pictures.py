"""The pictures: what they show, in which order, and that drawing them changes nothing in a run."""

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from zoo import pictures
from zoo.pictures import Pictures

MNIST = np.load(Path(pictures.__file__).parent / "data" / "files" / "mnist_5k.npz")
IMAGES = (torch.from_numpy(MNIST["x"][::100, None]).float() / 255 - 0.1307) / 0.3081  # (50, 1, 28, 28)
TARGETS = torch.from_numpy(MNIST["y"][::100]).long()
NAMES = [f"digit {i}" for i in range(10)]


def shown(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(axes.get_images()[0].get_array()) for axes in figure.axes if axes.get_images()]


def captions(figure: Figure) -> list[tuple[str, str]]:
    return [(axes.get_title(), axes.get_xlabel()) for axes in figure.axes if axes.get_images()]


def pixels_of_ink(figure: Figure) -> int:
    image = pictures.as_image(figure)
    assert image.dtype == torch.uint8
    assert image.shape[0] == 3
    return int((image < 128).all(0).sum())


def test_input_grid_undoes_the_normalisation() -> None:
    figure = pictures.input_grid(IMAGES, TARGETS, NAMES, [0.1307], [0.3081], count=5)
    assert [label for _, label in captions(figure)] == [NAMES[t] for t in TARGETS[:5]]
    assert len(shown(figure)) == 5
    np.testing.assert_allclose(shown(figure)[3], MNIST["x"][300] / 255, atol=1e-6)
    assert pixels_of_ink(figure) > 1000


def test_input_grid_without_statistics_stretches_each_image() -> None:
    dim = torch.cat([IMAGES[:1] * 0.01, IMAGES[1:2] * 9])
    assert [(a.min(), a.max()) for a in shown(pictures.input_grid(dim))] == [(0, 1), (0, 1)]


def test_colour_and_many_channels() -> None:
    colour, many = torch.rand(2, 3, 8, 8), torch.rand(2, 5, 8, 8)
    assert shown(pictures.input_grid(colour))[0].shape == (8, 8, 3)
    statistics = [0.5, 0.4, 0.3], [0.1, 0.2, 0.3]
    normalised = (colour - torch.tensor(statistics[0]).view(3, 1, 1)) / torch.tensor(statistics[1]).view(3, 1, 1)
    grid = pictures.input_grid(normalised, None, None, *statistics)
    np.testing.assert_allclose(shown(grid)[1], colour[1].permute(1, 2, 0), atol=1e-5)
    assert shown(pictures.input_grid(many))[0].shape == (8, 8)


def test_confusion_matrix_writes_the_counts() -> None:
    matrix = torch.tensor([[8, 2, 0], [0, 1, 0], [0, 30, 70]])
    figure = pictures.confusion_matrix(matrix, ["a", "b", "c"])
    axes = figure.axes[0]
    written = {(int(t.get_position()[1]), int(t.get_position()[0])): t.get_text() for t in axes.texts}
    assert written == {(0, 0): "8", (0, 1): "2", (1, 1): "1", (2, 1): "30", (2, 2): "70"}  # (true, predicted)
    np.testing.assert_allclose(shown(figure)[0], [[0.8, 0.2, 0], [0, 1, 0], [0, 0.3, 0.7]])
    assert "71.17% of 111 correct" in figure.get_suptitle()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]


def test_confusion_matrix_of_many_classes_stays_legible() -> None:
    matrix = torch.eye(100, dtype=torch.long)
    matrix[7] = 0  # a class without examples divides by nothing
    figure = pictures.confusion_matrix(matrix, [f"a class with a long name {i}" for i in range(100)])
    assert not figure.axes[0].texts
    assert len(figure.axes[0].get_yticklabels()) <= 40
    assert all(len(label.get_text()) <= 14 for label in figure.axes[0].get_yticklabels())
    assert np.isfinite(shown(figure)[0]).all()
    assert pixels_of_ink(figure) > 100


def test_mistakes_come_most_confident_first_and_only_mistakes() -> None:
    predictions = TARGETS.clone()
    predictions[[3, 20, 41]] = torch.tensor([9, 8, 7])
    confidences = torch.full((50,), 0.999)
    confidences[[3, 20, 41]] = torch.tensor([0.5, 0.9, 0.7])
    figure = pictures.mistakes(IMAGES, TARGETS, predictions, confidences, NAMES, [0.1307], [0.3081], count=2)
    assert captions(figure) == [("digit 8 · 90%", "is digit 4"), ("digit 7 · 70%", "is digit 8")]
    np.testing.assert_allclose(shown(figure)[0], MNIST["x"][2000] / 255, atol=1e-6)


def test_no_mistakes_says_so() -> None:
    figure = pictures.mistakes(IMAGES, TARGETS, TARGETS, torch.ones(50))
    assert "none" in figure.get_suptitle()
    assert not shown(figure)


@pytest.mark.parametrize(
    ("shape", "tiles"), [((6, 1, 5, 5), 6), ((6, 3, 5, 5), 6), ((4, 6, 3, 3), 24), ((90, 1, 3, 3), 64)]
)
def test_filters_are_normalised_one_by_one(shape: tuple[int, ...], tiles: int) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 10 ** torch.arange(shape[0]).view(
        -1, 1, 1, 1
    )
    drawn = shown(pictures.filters(weight))
    assert len(drawn) == tiles
    if shape[1] == 1:
        np.testing.assert_allclose([np.abs(tile).max() for tile in drawn], 1, rtol=1e-6)
        np.testing.assert_array_equal(np.sign(drawn[2]), np.sign(weight[2, 0].numpy()))
    elif shape[1] == 3:
        assert all((tile.min(), tile.max()) == (0, 1) for tile in drawn)


def test_filters_of_zeros_are_drawn() -> None:
    assert all(np.isfinite(tile).all() for c in (1, 3) for tile in shown(pictures.filters(torch.zeros(2, c, 3, 3))))


def test_first_filters() -> None:
    facts = {"channels": 1, "image_size": 28}
    conv = nn.Conv2d(1, 6, 5)
    assert pictures.first_filters(nn.Sequential(conv, nn.Linear(3, 4)), facts) is conv.weight
    linear = nn.Linear(784, 10)
    templates = pictures.first_filters(nn.Sequential(nn.Flatten(), linear), facts)
    assert templates is not None
    assert torch.equal(templates[3, 0].flatten(), linear.weight[3])
    assert pictures.first_filters(nn.Linear(13, 4), {"num_features": 13}) is None
    assert pictures.first_filters(nn.Conv2d(3, 8, 1), facts) is None
    assert pictures.first_filters(nn.ReLU(), facts) is None


def test_learning_curves(tmp_path: Path) -> None:
    rows = [(s, 0, "train/loss", 2.0 / s) for s in range(1, 5)] + [(4, 0, "lr", 0.1), (4, 0, "val/loss", 0.7)]
    rows += [(4, 0, "val/accuracy", 0.9), (4, 0, "test/accuracy", 0.8)]
    with (tmp_path / "metrics.csv").open("w") as file:
        csv.writer(file).writerows([("step", "epoch", "name", "value"), *rows])
    figure = pictures.learning_curves(tmp_path / "metrics.csv")
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert list(panels) == ["loss", "accuracy", "lr"]
    train = panels["loss"].lines[0]
    assert train.get_label() == "train"
    np.testing.assert_allclose(train.get_xydata(), [(s, 2.0 / s) for s in range(1, 5)])
    assert [line.get_label() for line in panels["accuracy"].lines] == ["val", "test"]
    assert pixels_of_ink(figure) > 100


# The callback, with a real network and a trainer that only answers what it is asked


class Writer:
    def __init__(self) -> None:
        self.images: list[tuple[str, int]] = []

    def add_image(self, name: str, image: Tensor, step: int) -> None:
        assert image.dtype == torch.uint8
        assert name.startswith("visual/")  # TensorBoard's section of pictures
        name = name.removeprefix("visual/")
        self.images.append((name, step))


class Split:
    def batch(self, epoch: int, positions: Tensor, indices: Tensor) -> dict[str, Tensor]:
        return {"input": IMAGES[indices], "target": TARGETS[indices], "position": positions}


def a_run(*, images: bool = True) -> tuple[Pictures, Writer, Any, Any]:
    writer = Writer()
    sampler = [(0, torch.arange(40), torch.arange(40))]
    trainer = SimpleNamespace(
        loggers=[SimpleNamespace(), SimpleNamespace(experiment=writer if images else object())],
        train_dataloader=SimpleNamespace(sampler=sampler, split=Split()),
        sanity_checking=False,
        is_global_zero=True,
        current_epoch=0,
        max_epochs=5,
        should_stop=False,
        strategy=SimpleNamespace(reduce=lambda tensor, reduce_op: tensor),
    )
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    task = SimpleNamespace(evaluated_network=network, engine=SimpleNamespace(step_count=0))
    facts = {"channels": 1, "image_size": 28, "mean": [0.1307], "std": [0.3081], "class_names": NAMES}
    return Pictures(facts=facts, count=3), writer, trainer, task


def validate(callback: Pictures, trainer: Any, task: Any) -> None:
    callback.on_validation_epoch_start(trainer, task)
    for part in (slice(0, 30), slice(30, 50)):
        batch = {"input": IMAGES[part], "target": TARGETS[part]}
        callback.on_validation_batch_end(trainer, task, {"logits": task.evaluated_network(batch["input"])}, batch, 0)
    callback.on_validation_epoch_end(trainer, task)


def test_callback_draws_at_the_start_after_epochs_1_2_4_and_at_the_end() -> None:
    callback, writer, trainer, task = a_run()
    before = torch.get_rng_state()
    callback.on_train_start(trainer, task)
    assert writer.images == [("input", 0)]
    for epoch in range(5):
        trainer.current_epoch, task.engine.step_count = epoch, 10 * (epoch + 1)
        validate(callback, trainer, task)
    steps = [step for name, step in writer.images if name == "confusion"]
    assert steps == [10, 20, 40, 50]
    assert {name for name, _ in writer.images} == {"input", "confusion", "mistakes", "filters"}
    assert torch.equal(before, torch.get_rng_state())


def test_callback_counts_and_keeps_the_worst_over_all_batches() -> None:
    callback, _, trainer, task = a_run()
    validate(callback, trainer, task)
    probabilities = task.evaluated_network(IMAGES).softmax(1)
    confidence, predicted = probabilities.max(1)
    assert callback.matrix is not None
    for true in range(10):
        for said in range(10):
            assert callback.matrix[true, said] == (TARGETS.eq(true) & predicted.eq(said)).sum()
    wrong = confidence.where(predicted != TARGETS, torch.tensor(0.0))
    torch.testing.assert_close(callback.worst[3], wrong.sort(descending=True).values[:3])
    best_first = wrong.argsort(descending=True)[:3]
    assert torch.equal(callback.worst[0], IMAGES[best_first])


def test_callback_is_silent_without_a_logger_for_images_and_on_resume() -> None:
    callback, writer, trainer, task = a_run(images=False)
    callback.on_train_start(trainer, task)
    validate(callback, trainer, task)
    assert callback.matrix is None
    callback, writer, trainer, task = a_run()
    task.engine.step_count = 7  # a resumed run has its input grid already
    callback.on_train_start(trainer, task)
    assert writer.images == []


def test_callback_leaves_out_what_a_task_does_not_have() -> None:
    callback, writer, trainer, task = a_run()
    task.engine.step_count = 5
    callback.on_validation_batch_end(trainer, task, {"prediction": torch.zeros(2, 1)}, {"target": torch.zeros(2, 1)}, 0)
    callback.on_validation_batch_end(
        trainer, task, {"logits": torch.zeros(2, 3)}, {"input": torch.zeros(2, 4), "target": torch.zeros(2).long()}, 0
    )
    task.evaluated_network = nn.Linear(4, 3)
    callback.on_validation_epoch_end(trainer, task)
    assert writer.images == [("confusion", 5)]


def test_pictures_without_classes_are_shown_without() -> None:
    callback, writer, trainer, task = a_run()
    trainer.train_dataloader.split.batch = lambda *_: {"input": IMAGES[:2], "position": torch.arange(2)}
    callback.on_train_start(trainer, task)
    callback.on_validation_batch_end(trainer, task, {"logits": torch.zeros(2, 3)}, {"input": IMAGES[:2]}, 0)
    assert writer.images == [("input", 0)]
