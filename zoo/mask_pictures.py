"""Pictures of a segmentation: images beside their masks and what was predicted, and how well each class is found.

The functions take tensors and return matplotlib figures, as those of zoo/pictures.py; `MaskPictures` is the Lightning
callback that shows them in TensorBoard.

Shapes: B examples, C channels (1 or 3), H×W pixels, K classes. A class number outside 0 … K−1 is an ignored pixel.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from zoo.pictures import COLOURS, GREY, Pictures, class_name, confusion_matrix, new_figure, show, unnormalise
from zoo.tasks.segmentation import overlaps, predicted_classes
from zoo.tiling import centre_crop

_PALETTE = (*COLOURS, "#F0E442", "#000000")  # the eight of Okabe & Ito
_STRIPES = ("#F2F2F2", "#A6A6A6")  # of ignored pixels


def class_colours(classes: int) -> np.ndarray:
    """A colour for each class, (K, 3) in [0, 1].

    The eight that colour-blind readers tell apart, the same paler, then darker; from 24 on they come again.
    """
    base = np.array([to_rgb(colour) for colour in _PALETTE])
    shades = np.concatenate([base, 0.45 * base + 0.55, 0.55 * base + 0.12])
    return shades[np.arange(classes) % len(shades)]


def paint(mask: Tensor, classes: int) -> np.ndarray:
    """A mask (H, W) in colour, (H, W, 3) in [0, 1]; ignored pixels are striped grey."""
    labels = mask.cpu().numpy()
    height, width = labels.shape
    period = max(4, height // 16)
    across = (np.arange(height)[:, None] + np.arange(width)) % period < period / 2
    stripes = np.array([to_rgb(colour) for colour in _STRIPES])
    valid = (labels >= 0) & (labels < classes)
    coloured = class_colours(classes)[np.where(valid, labels, 0)]
    return np.where(valid[..., None], coloured, stripes[across.astype(int)])


def mask_grid(
    images: Tensor,
    columns: Sequence[tuple[str, Tensor]],
    classes: int,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    *,
    title: str,
    captions: Sequence[str] | None = None,
) -> Figure:
    """Each image (B, C, H, W) beside its masks: `columns` are their headings and masks (B, H, W). A legend below.

    Examples stand in as many columns as fit; `captions` are one for each, under its last mask.
    """
    count, parts, side = len(images), 1 + len(columns), 1.25
    across = min(count, 6 // parts if parts < 6 else 1)
    down = math.ceil(count / across)
    names = [*(class_name(k, class_names) for k in range(min(classes, 24))), "ignored"]
    width = max(5.2, across * (parts * side + 0.15))
    legend_rows = math.ceil(len(names) / int(width / 1.3))
    room = side * images.shape[2] / images.shape[3] + (0.2 if captions else 0.03)
    figure = new_figure(width, 0.6 + down * room + 0.2 * legend_rows, title)
    # a narrow empty column parts the examples of a row
    ratios = ([1.0] * parts + [0.08]) * across
    places = figure.subplots(down, len(ratios), squeeze=False, width_ratios=ratios)
    for axes in places.flat:
        axes.set_axis_off()
    pictures = unnormalise(images, mean, std)
    for i in range(count):
        row = places[i // across, (i % across) * (parts + 1) :]
        show(row[0], pictures[i])
        for axes, (_, masks) in zip(row[1:], columns, strict=False):
            axes.imshow(paint(masks[i], classes), interpolation="nearest")
        if i < across:
            for axes, heading in zip(row, ["image", *(heading for heading, _ in columns)], strict=False):
                axes.set_title(heading, fontsize=8, color=GREY, pad=3)
        for axes in row[:parts]:
            axes.set_axis_on()
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
        if captions:
            row[parts - 1].set_xlabel(captions[i], fontsize=8, labelpad=2)
    patches = [Patch(facecolor=colour) for colour in class_colours(len(names) - 1)]
    patches.append(Patch(facecolor=_STRIPES[0], edgecolor=_STRIPES[1], hatch="////", linewidth=0))
    columns_of_names = math.ceil(len(names) / legend_rows)
    figure.legend(patches, names, loc="outside lower left", ncols=columns_of_names, fontsize=8, frameon=False)
    return figure


def class_table(matrix: Tensor, class_names: Sequence[str] | None = None, *, title: str = "Classes") -> Figure:
    """IoU as bars, and in numbers IoU, Dice and the shares of true and predicted pixels, from counts (K, K).

    Rows of the matrix are true, columns predicted. A class that occurs in neither has no score.
    """
    matrix = matrix.detach().cpu().double()
    classes = len(matrix)
    iou, dice = (scores.tolist() for scores in overlaps(matrix))
    total = matrix.sum().clamp_min(1)
    true, said = ((matrix.sum(axis) / total).tolist() for axis in (1, 0))
    mean = float(np.nanmean(iou)) if not all(map(math.isnan, iou)) else math.nan
    figure = new_figure(6.6, 0.95 + 0.27 * classes, f"{title} · mean IoU {mean:.3f}")
    axes = figure.subplots()
    rows = range(classes)
    axes.barh(rows, np.nan_to_num(iou), color=class_colours(classes), height=0.62)
    axes.axvline(mean, color=GREY, linewidth=1, linestyle=":")
    table = {"IoU": iou, "Dice": dice, "of pixels": true, "predicted": said}
    for column, (heading, values) in enumerate(table.items()):
        form = "{:.3f}" if column < 2 else "{:.1%}"
        cells = ["–" if math.isnan(value) else form.format(value) for value in values]
        for row, text in zip([-0.85, *rows], [heading, *cells], strict=True):
            colour = GREY if row < 0 else "#1A1A1A"
            axes.text(1.13 + 0.19 * column, row, text, ha="right", va="center", fontsize=8, color=colour)
    axes.set_yticks(rows, [class_name(k, class_names) for k in rows])
    axes.set_ylim(classes - 0.4, -1.2)
    axes.set_xlim(0, 1.13 + 0.19 * 3 + 0.01)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", ".5", "", "1"])
    axes.tick_params(labelsize=8, length=0)
    axes.spines[:].set_visible(False)
    for tick in (0, 0.25, 0.5, 0.75, 1):
        axes.axvline(tick, color="#E6E6E6", linewidth=0.6, zorder=0)
    return figure


def pixel_confusion(matrix: Tensor, class_names: Sequence[str] | None = None) -> Figure:
    """`zoo.pictures.confusion_matrix` of pixels, in thousands or millions where the numbers would not fit."""
    largest = int(matrix.max())
    unit, title = 1, "Pixels"
    if largest >= 10**5:
        unit, title = (10**3, "Pixels in thousands") if largest < 10**8 else (10**6, "Pixels in millions")
    return confusion_matrix(matrix // unit, class_names, title=title)


class MaskPictures(Pictures):
    """Shows a segmentation run in TensorBoard: its input at the start, then the worst predictions and the classes.

    Drawn when `Pictures` draws. The worst are the `count` validation images of the lowest mean IoU over the classes
    that occur in them or are predicted there.
    """

    def __init__(self, *, facts: Any, count: int = 12) -> None:
        super().__init__(facts=facts, count=count)

    def on_train_start(self, trainer: pl.Trainer, task: Any) -> None:
        loader = trainer.train_dataloader
        if not self._is_on(trainer) or task.engine.step_count or loader is None or not trainer.is_global_zero:
            return
        # The first batch again, made beside the loader: its iterator and its place in the epoch are left alone.
        epoch, positions, indices = next(iter(loader.sampler))
        batch = loader.split.batch(epoch, positions[:18], indices[:18])
        size = "×".join(str(n) for n in batch["input"].shape[1:])
        images = centre_crop(batch["input"], batch["target"].shape[-2:])
        columns, title = [("mask", batch["target"])], f"Training input · {size}"
        self._write(trainer, task, {"input": mask_grid(images, columns, *self._described(), title=title)})

    def _described(self) -> tuple[Any, ...]:
        return tuple(map(self.facts.get, ("num_classes", "class_names", "mean", "std")))

    def on_validation_batch_end(
        self, trainer: pl.Trainer, task: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if not self._is_on(trainer):
            return
        logits, target = outputs["logits"], outputs["target"]
        images, classes = centre_crop(batch["input"], target.shape[-2:]), logits.shape[1]
        predicted = predicted_classes(logits)
        valid = (target >= 0) & (target < classes)
        # one count for all images: each has its own K² bins, and a last bin takes the ignored pixels
        first = torch.arange(len(target), device=target.device).view(-1, 1, 1) * classes**2
        bins = torch.where(valid, first + target * classes + predicted, len(target) * classes**2)
        counts = torch.bincount(bins.flatten(), minlength=len(target) * classes**2 + 1)[:-1]
        matrices = counts.view(-1, classes, classes)
        self.matrix = matrices.sum(0) if self.matrix is None else self.matrix + matrices.sum(0)
        score = overlaps(matrices.cpu())[0].nanmean(1)
        some = (~score.isnan()).nonzero().flatten().to(target.device)  # an image of ignored pixels has no score
        worst = [values[some] for values in (images, target, predicted, score.to(target.device, torch.float32))]
        worst = [torch.cat(pair) for pair in zip(self.worst, worst, strict=True)] if self.worst else worst
        order = worst[3].argsort(stable=True)[: self.count]
        self.worst = [values[order] for values in worst]

    def _draw(self, trainer: pl.Trainer, task: Any) -> None:
        step = task.engine.step_count
        if not self._is_on(trainer) or not trainer.is_global_zero or step == self.drawn_at or self.matrix is None:
            return
        self.drawn_at = step
        names = self.facts.get("class_names")
        figures = {
            "classes": class_table(self.matrix, names, title="Classes on validation"),
            "confusion": pixel_confusion(self.matrix, names),
        }
        images, target, predicted, score = self.worst
        if len(images):
            figures["worst"] = mask_grid(
                images,
                [("mask", target), ("prediction", predicted)],
                *self._described(),
                title=f"Worst predictions on validation · {len(images)} shown, by mean IoU",
                captions=[f"IoU {value:.2f}" for value in score.tolist()],
            )
        self._write(trainer, task, figures)
