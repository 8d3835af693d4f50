"""Pictures of a segmentation: what they show, in which order, and that a run draws them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from zoo import mask_pictures
from zoo.data.module import DataModule
from zoo.data.tiles import MaskSplit
from zoo.logs import TensorBoard
from zoo.mask_pictures import MaskPictures
from zoo.pictures import as_image
from zoo.run import make_trainer
from zoo.schedules import Constant
from zoo.tasks.engine import Optimization
from zoo.tasks.segmentation import Segmentation

NAMES = ["sea", "sand", "forest"]
FACTS = {"num_classes": 3, "class_names": NAMES, "ignore_index": 255, "mean": [0.5] * 3, "std": [0.25] * 3}


def tiles(count: int = 9, side: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)
    masks = torch.randint(0, 3, (count, side, side), generator=generator).to(torch.uint8)
    masks[:, 0] = 255
    return images, masks


def shown(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(axes.get_images()[0].get_array()) for axes in figure.axes if axes.get_images()]


def colours_in(painted: np.ndarray) -> set[tuple[float, ...]]:
    return {tuple(colour) for colour in painted.reshape(-1, 3).round(4).tolist()}


def test_colours_are_one_for_each_class_and_none_is_that_of_ignored_pixels() -> None:
    colours = mask_pictures.class_colours(30).round(4).tolist()
    assert len(set(map(tuple, colours[:24]))) == 24
    assert colours[24:] == colours[:6]
    ignored = colours_in(mask_pictures.paint(torch.full((8, 8), 255), 24))
    assert len(ignored) == 2, "stripes"
    assert not ignored & set(map(tuple, colours))


def test_paint_gives_each_pixel_the_colour_of_its_class() -> None:
    mask = torch.tensor([[0, 2], [1, 0]])
    colours = mask_pictures.class_colours(3)
    np.testing.assert_array_equal(mask_pictures.paint(mask, 3), colours[mask.numpy()])
    striped = mask_pictures.paint(torch.tensor([[0, 255], [-100, 3]]), 3)
    np.testing.assert_array_equal(striped[0, 0], colours[0])
    assert all(striped[y, x].std() < 1e-9 for y, x in ((0, 1), (1, 0), (1, 1))), "grey"


def test_grid_shows_images_beside_their_masks() -> None:
    images, masks = tiles(5)
    predicted = masks.roll(1, 2)
    figure = mask_pictures.mask_grid(
        (images.float() / 255 - 0.5) / 0.25,
        [("mask", masks), ("prediction", predicted)],
        *FACTS_IN_ORDER,
        title="Five",
        captions=[f"IoU {i}" for i in range(5)],
    )
    drawn = shown(figure)
    assert len(drawn) == 15
    for i in range(5):
        np.testing.assert_allclose(drawn[3 * i], images[i].permute(1, 2, 0) / 255, atol=1e-6)
        np.testing.assert_array_equal(drawn[3 * i + 1], mask_pictures.paint(masks[i], 3))
        np.testing.assert_array_equal(drawn[3 * i + 2], mask_pictures.paint(predicted[i], 3))
    assert [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()] == [f"IoU {i}" for i in range(5)]
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["image", "mask", "prediction"] * 2
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == [*NAMES, "ignored"]
    faces = [patch.get_facecolor()[:3] for patch in legend.get_patches()[:3]]
    np.testing.assert_allclose(faces, mask_pictures.class_colours(3))
    assert as_image(figure).shape[0] == 3


FACTS_IN_ORDER = (3, NAMES, FACTS["mean"], FACTS["std"])


@pytest.mark.parametrize(("count", "channels", "classes"), [(1, 1, 2), (4, 3, 30), (7, 5, 3)])
def test_grid_takes_any_number(count: int, channels: int, classes: int) -> None:
    masks = torch.randint(0, classes, (count, 6, 9), generator=torch.Generator().manual_seed(0))
    figure = mask_pictures.mask_grid(torch.rand(count, channels, 6, 9), [("mask", masks)], classes, title="Any")
    assert len(shown(figure)) == 2 * count
    legend = figure.legends[0]
    assert len(legend.get_texts()) == min(classes, 24) + 1
    box = legend.get_window_extent(figure.canvas.get_renderer())
    as_image(figure)
    assert box.width <= figure.bbox.width, "the legend fits"


def test_class_table() -> None:
    matrix = torch.tensor([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    figure = mask_pictures.class_table(matrix, NAMES)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == [
        *("IoU", "0.667", "0.500", "–"),
        *("Dice", "0.800", "0.667", "–"),
        *("of pixels", "66.7%", "33.3%", "0.0%"),
        *("predicted", "58.3%", "41.7%", "0.0%"),
    ]
    assert [patch.get_width() for patch in figure.axes[0].patches] == pytest.approx([6 / 9, 0.5, 0])
    assert "mean IoU 0.583" in figure.get_suptitle()
    as_image(figure)
    as_image(mask_pictures.class_table(torch.zeros(3, 3)))


@pytest.mark.parametrize(
    ("largest", "title", "written"),
    [
        (99_999, "Pixels ·", "99999"),
        (100_000, "Pixels in thousands", "100"),
        (99_999_999, "Pixels in thousands", "99999"),
        (10**8, "Pixels in millions", "100"),
    ],
)
def test_confusion_of_many_pixels_stays_legible(largest: int, title: str, written: str) -> None:
    figure = mask_pictures.pixel_confusion(torch.tensor([[largest, 0], [0, 5]]), ["a", "b"])
    assert figure.get_suptitle().startswith(title)
    assert figure.axes[0].texts[0].get_text() == written


# The callback in a real run


class Masks(DataModule):
    context = 0

    def read(self) -> None:
        options = {"mean": FACTS["mean"], "std": FACTS["std"], "context": self.context}
        self.splits = {name: MaskSplit(*tiles(), **options) for name in ("train", "val")}
        self.splits["val"].masks[4] = 255  # an image without a score


class Recorded(MaskPictures):
    """Keeps the figures that it draws first."""

    def _write(self, trainer: Any, task: Any, figures: Any) -> None:
        self.figures = {**figures, **getattr(self, "figures", {})}
        super()._write(trainer, task, figures)


def a_run(folder: Path, *, margin: int, count: int) -> tuple[Recorded, Segmentation, EventAccumulator]:
    data = Masks(batch_size=4, eval_batch_size=4)
    data.context = margin
    torch.manual_seed(0)
    network = nn.Conv2d(3, 3, 2 * margin + 1)
    optimizer: Any = lambda parameters: torch.optim.SGD(parameters, lr=0.1)  # noqa: E731
    task = Segmentation(network, optimization=Optimization(optimizer=optimizer, schedule=Constant()), facts=FACTS)
    pictures = Recorded(facts=FACTS, count=count)
    options = {"accelerator": "cpu", "max_epochs": 3, "max_steps": -1}
    trainer = make_trainer(options, folder=folder, logger=False, callbacks=[pictures])
    trainer.loggers = [TensorBoard(folder)]
    trainer.fit(task, datamodule=data)
    trainer.loggers[0].close()
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    return pictures, task, events


pytestmark = pytest.mark.filterwarnings("ignore:You have overridden .transfer_batch_to_device.:UserWarning")


@pytest.mark.parametrize(("margin", "count"), [(0, 5), (1, 20)])
def test_a_run_shows_its_input_and_its_worst_predictions(margin: int, count: int, tmp_path: Path) -> None:
    pictures, task, events = a_run(tmp_path, margin=margin, count=count)
    steps = {name: [event.step for event in events.Images(name)] for name in events.Tags()["images"]}
    drawn_at = {"input": [0], "worst": [2, 4, 6], "classes": [2, 4, 6], "confusion": [2, 4, 6]}
    assert steps == {f"visual/{name}": at for name, at in drawn_at.items()}
    assert torch.equal(pictures.matrix, task.split_metrics["pixels"].confmat)
    drawn = shown(pictures.figures["input"])
    assert {image.shape for image in drawn} == {(8 - 2 * margin, 8 - 2 * margin, 3)}, "of the image what has a mask"

    data = Masks(eval_batch_size=9)
    data.context = margin
    data.setup()
    batch = next(iter(data.val_dataloader()))
    _, outputs = task.eval().loss(task.network, batch)
    predicted, target = outputs["logits"].argmax(1), outputs["target"]
    scores = []
    for said, there in zip(predicted, target, strict=True):
        said, there = said[there != 255], there[there != 255]
        iou = [((said == k) & (there == k)).sum() / ((said == k) | (there == k)).sum() for k in range(3)]
        scores.append(torch.stack(iou).nanmean())
    order = torch.stack(scores).nan_to_num(nan=9).argsort()[: min(count, 8)]
    assert 4 not in order, "without a valid pixel there is no score"
    assert pictures.worst[3].tolist() == pytest.approx([scores[i].item() for i in order])
    inner = slice(margin, 8 - margin)
    assert torch.equal(pictures.worst[0], batch["input"][order][..., inner, inner])
    assert torch.equal(pictures.worst[1], target[order])
    assert torch.equal(pictures.worst[2], predicted[order])
