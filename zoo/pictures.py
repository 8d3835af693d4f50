"""Pictures of a run: what goes in, what is confused, what is believed wrongly, what the first layer looks for.

The functions take tensors and return matplotlib figures, drawn without pyplot and its global state; `Pictures` is the
Lightning callback that shows them in TensorBoard. Nothing here draws a random number.

Shapes: B examples, C channels (1 or 3), H×W pixels, K classes.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor, nn

DPI = 100
# Okabe & Ito 2008, "Color universal design": told apart by colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#595959"


def new_figure(width: float, height: float, title: str) -> Figure:
    """An empty figure of so many inches, without a window, its title at the left."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, x=0.02, ha="left", fontweight="bold")
    return figure


def as_image(figure: Figure) -> Tensor:
    """The figure's pixels, (3, H, W) uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., :3].copy()).permute(2, 0, 1)


def unnormalise(images: Tensor, mean: Sequence[float] | None, std: Sequence[float] | None) -> Tensor:
    """Images (B, C, H, W) in [0, 1]: normalisation undone, or each stretched where there are no statistics."""
    images = images.detach().float().cpu()
    if mean is not None and std is not None:
        images = images * torch.tensor(std).view(-1, 1, 1) + torch.tensor(mean).view(-1, 1, 1)
        return images.clamp(0, 1)
    return _stretch(images)


def _stretch(images: Tensor) -> Tensor:
    """Each image (C, H, W) of a batch linearly to [0, 1]."""
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    return (images - low) / (high - low).clamp_min(1e-12)


def show(axes: Axes, image: Tensor, **options: Any) -> None:
    """One image (C, H, W) in [0, 1]; of more than three channels the mean is shown."""
    if image.shape[0] == 3:
        axes.imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest", **options)
    else:
        axes.imshow(image.mean(0).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest", **options)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def class_name(index: int, class_names: Sequence[str] | None) -> str:
    """A class's name, shortened so that a caption under a small image stays one line."""
    name = class_names[index] if class_names else str(index)
    return name if len(name) <= 14 else name[:13] + "…"


def _tiles(count: int, columns: int, title: str, *, captions: int, side: float = 1.0) -> tuple[Figure, list[Axes]]:
    """A figure with `count` places of `side` inches, each with room for `captions` lines of text."""
    rows = math.ceil(count / columns)
    figure = new_figure(max(4.0, (side + 0.05) * columns), 0.4 + rows * (side + 0.05 + 0.17 * captions), title)
    places = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in places[count:]:
        unused.set_axis_off()
    return figure, places[:count]


def input_grid(
    images: Tensor,
    targets: Tensor | None = None,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    *,
    count: int = 32,
) -> Figure:
    """The first `count` images (B, C, H, W) as the network sees them, normalisation undone, over their classes (B,)."""
    count = min(count, len(images))
    shown = unnormalise(images[:count], mean, std)
    size = "×".join(str(n) for n in images.shape[1:])
    figure, places = _tiles(count, 8, f"Training input · {size}", captions=targets is not None)
    for i, axes in enumerate(places):
        show(axes, shown[i])
        if targets is not None and targets.ndim == 1:
            axes.set_xlabel(_label(targets[i], class_names), fontsize=8, labelpad=2)
    return figure


def _label(target: Tensor, class_names: Sequence[str] | None) -> str:
    return f"{target.item():.3g}" if target.is_floating_point() else class_name(int(target), class_names)


def confusion_matrix(matrix: Tensor, class_names: Sequence[str] | None = None, *, title: str = "Confusion") -> Figure:
    """Counts (K, K), rows true and columns predicted; shade is the share of the row, so rare classes show as well."""
    counts = matrix.detach().cpu().double()
    classes = len(counts)
    share = counts / counts.sum(1, keepdim=True).clamp_min(1)
    names = [class_name(i, class_names) for i in range(classes)]
    written = classes <= 20
    side = 2.2 + (0.42 * classes if written else 6.5)
    accuracy = counts.trace() / counts.sum().clamp_min(1)
    figure = new_figure(
        max(4.6, side + 0.6), max(3.8, side), f"{title} · {accuracy:.2%} of {int(counts.sum()):,} correct"
    )
    axes = figure.subplots()
    image = axes.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.02, ticks=[0, 0.5, 1], format=lambda x, _: f"{x:.0%}")
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, length=0)
    bar.set_label("share of the true class", fontsize=8)
    axes.set_xlabel("predicted", fontsize=9)
    axes.set_ylabel("true", fontsize=9)
    axes.tick_params(length=0, labelsize=8)
    axes.spines[:].set_visible(False)
    step = math.ceil(classes / 40)
    upright = max(map(len, names)) <= 2 and written
    axes.set_xticks(range(0, classes, step), names[::step], rotation=0 if upright else 90)
    axes.set_yticks(range(0, classes, step), names[::step])
    if written:
        axes.set_xticks(np.arange(0.5, classes - 1), minor=True)
        axes.set_yticks(np.arange(0.5, classes - 1), minor=True)
        axes.grid(which="minor", color="#E6E6E6", linewidth=0.6)
        axes.tick_params(which="minor", length=0)
        for i in range(classes):
            for j in range(classes):
                if counts[i, j]:
                    colour = "white" if share[i, j] > 0.5 else "#1A1A1A" if i == j else COLOURS[1]
                    bold = "bold" if i != j else "normal"
                    text = f"{int(counts[i, j])}"
                    size = 8 if len(text) < 5 else 6
                    axes.text(j, i, text, ha="center", va="center", fontsize=size, color=colour, fontweight=bold)
    return figure


def mistakes(
    images: Tensor,
    targets: Tensor,
    predictions: Tensor,
    confidences: Tensor,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    *,
    count: int = 24,
) -> Figure:
    """Wrongly classified images (B, C, H, W), the most confident first: prediction, its probability, and the truth.

    `targets`, `predictions` (B,) are class numbers, `confidences` (B,) the probability given to the prediction. Right
    predictions among them are left out.
    """
    wrong = (targets != predictions).nonzero().flatten().cpu()
    order = wrong[confidences.detach().cpu()[wrong].argsort(descending=True, stable=True)][:count]
    if not len(order):
        figure = new_figure(4.0, 1.2, "Mistakes · none")
        figure.text(0.02, 0.4, "Every example was classified correctly.", fontsize=9, color=GREY)
        return figure
    shown = unnormalise(images[order.to(images.device)], mean, std)
    title = f"Most confident mistakes · {len(order)} shown, named as predicted"
    figure, places = _tiles(len(order), 8, title, captions=2)
    for axes, image, i in zip(places, shown, order.tolist(), strict=True):
        show(axes, image)
        said = f"{class_name(int(predictions[i]), class_names)} · {float(confidences[i]):.0%}"
        axes.set_title(said, fontsize=8, color=COLOURS[1], fontweight="bold", pad=2)
        axes.set_xlabel(f"is {class_name(int(targets[i]), class_names)}", fontsize=8, labelpad=2)
    return figure


def filters(weight: Tensor, *, count: int = 64, title: str = "First-layer filters") -> Figure:
    """Filters (K, C, h, w). Colour filters (C = 3) are stretched to [0, 1] each; else every channel is shown by sign.

    Signed filters are divided by their own largest weight: blue is negative, white zero, red positive.
    """
    weight = weight.detach().float().cpu()
    total, channels = weight.shape[:2]
    colour = channels == 3
    size = "×".join(str(n) for n in weight.shape[1:])
    if colour:
        tiles, labels = _stretch(weight), [str(i) for i in range(total)]
    else:
        tiles = (weight / weight.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)).flatten(0, 1)[:, None]
        labels = [str(i) if channels == 1 else f"{i}·{j}" for i in range(total) for j in range(channels)]
    shown = f", {count} of {len(tiles)} shown" if count < len(tiles) else ""
    count = min(count, len(tiles))
    columns = channels if 3 < channels <= 16 else 10
    figure, places = _tiles(count, columns, f"{title} · {total} of {size}{shown}", captions=1, side=0.8)
    for axes, tile, label in zip(places, tiles, labels, strict=False):
        if colour:
            show(axes, tile)
        else:
            axes.imshow(tile[0].numpy(), cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_color("#CCCCCC")
        axes.set_xlabel(label, fontsize=7, labelpad=1, color=GREY)
    return figure


def learning_curves(metrics_csv: str | Path) -> Figure:
    """Every metric of a run's `metrics.csv` (step,epoch,name,value) against optimisation steps, splits together."""
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    with open(metrics_csv, newline="") as file:
        for row in csv.DictReader(file):
            split, _, name = row["name"].rpartition("/")
            curves.setdefault(name, {}).setdefault(split, []).append((int(row["step"]), float(row["value"])))
    curves.pop("epoch", None)
    # What validation measures first, then the rest; test values are points and end nothing.
    names = sorted(curves, key=lambda name: ("val" not in curves[name], name != "loss", name))
    columns = min(3, max(1, len(names)))
    rows = max(1, math.ceil(len(names) / columns))
    figure = new_figure(3.6 * columns + 0.4, 2.6 * rows + 0.4, "Learning curves")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in panels[len(names) :]:
        unused.set_axis_off()
    splits = {"train": (COLOURS[0], "-"), "val": (COLOURS[1], "-"), "test": (COLOURS[2], "")}
    for axes, name in zip(panels, names, strict=False):
        for split, points in curves[name].items():
            steps, values = zip(*points, strict=True)
            colour, style = splits.get(split, (GREY, "-"))
            marker = "o" if len(points) < 2 or not style else ""
            axes.plot(steps, values, color=colour, linestyle=style, marker=marker, linewidth=1.4, label=split or None)
        axes.set_title(name, fontsize=10, loc="left")
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#E6E6E6", linewidth=0.6)
        axes.set_axisbelow(True)
        positive = all(value > 0 for points in curves[name].values() for _, value in points)
        if name == "loss" and positive:
            axes.set_yscale("log")
        if any(curves[name]):
            axes.legend(fontsize=8, frameon=False)
    for axes in panels[max(0, len(names) - columns) : len(names)]:
        axes.set_xlabel("step", fontsize=9)
    return figure


class Pictures(pl.Callback):
    """Shows a classification run in TensorBoard: its input at the start, then confusion, mistakes and filters.

    Drawn after epochs 1, 2, 4, 8, … and the last, since drawing takes longer than a small network's epoch. Does nothing
    without a logger that takes images. Whatever a task's batches and outputs do not have is left out.

    `facts` are the data module's (class_names, channels, image_size, mean, std); `count` mistakes are shown.
    """

    def __init__(self, *, facts: Mapping[str, Any], count: int = 24) -> None:
        self.facts, self.count = facts, count
        self.matrix: Tensor | None = None
        self.worst: list[Tensor] = []  # images, targets, predictions, confidences of the last validation
        self.drawn_at = -1

    def _is_on(self, trainer: pl.Trainer) -> bool:
        return bool(writers(trainer)) and not trainer.sanity_checking

    def _write(self, trainer: pl.Trainer, task: Any, figures: Mapping[str, Figure]) -> None:
        for writer in writers(trainer):
            for name, figure in figures.items():
                writer.add_image(f"visual/{name}", as_image(figure), task.engine.step_count)

    def on_train_start(self, trainer: pl.Trainer, task: Any) -> None:
        loader = trainer.train_dataloader
        if not self._is_on(trainer) or task.engine.step_count or loader is None:
            return
        # The first batch again, made beside the loader: its iterator and its place in the epoch are left alone.
        epoch, positions, indices = next(iter(loader.sampler))
        batch = loader.split.batch(epoch, positions[:32], indices[:32])
        if batch["input"].ndim == 4 and trainer.is_global_zero:
            grid = input_grid(batch["input"], batch.get("target"), *map(self.facts.get, ("class_names", "mean", "std")))
            self._write(trainer, task, {"input": grid})

    def on_validation_epoch_start(self, trainer: pl.Trainer, task: Any) -> None:
        self.matrix, self.worst = None, []

    def on_validation_batch_end(
        self, trainer: pl.Trainer, task: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        logits, target = outputs.get("logits"), batch.get("target")
        if not self._is_on(trainer) or logits is None or logits.ndim != 2 or target is None or target.ndim != 1:
            return
        classes = logits.shape[1]
        confidence, predicted = logits.detach().float().softmax(1).max(1)
        matrix = torch.bincount(target * classes + predicted, minlength=classes**2).view(classes, classes)
        self.matrix = matrix if self.matrix is None else self.matrix + matrix
        if batch["input"].ndim == 4:
            wrong = (predicted != target).nonzero().flatten()
            worst = [values[wrong] for values in (batch["input"], target, predicted, confidence)]
            worst = [torch.cat(pair) for pair in zip(self.worst, worst, strict=True)] if self.worst else worst
            order = worst[3].argsort(descending=True, stable=True)[: self.count]
            self.worst = [values[order] for values in worst]

    def on_validation_epoch_end(self, trainer: pl.Trainer, task: Any) -> None:
        if self.matrix is not None:
            self.matrix = trainer.strategy.reduce(self.matrix, reduce_op="sum")
        epoch = trainer.current_epoch + 1
        is_last = epoch == trainer.max_epochs or trainer.should_stop
        if epoch & (epoch - 1) == 0 or is_last:
            self._draw(trainer, task)

    def _draw(self, trainer: pl.Trainer, task: Any) -> None:
        step = task.engine.step_count
        if not self._is_on(trainer) or not trainer.is_global_zero or step == self.drawn_at:
            return
        self.drawn_at = step
        names, mean, std = map(self.facts.get, ("class_names", "mean", "std"))
        figures: dict[str, Figure] = {}
        if self.matrix is not None:
            figures["confusion"] = confusion_matrix(self.matrix, names, title="Confusion on validation")
        if self.worst:
            images, targets, predictions, confidences = self.worst
            figures["mistakes"] = mistakes(
                images, targets, predictions, confidences, names, mean, std, count=self.count
            )
        weight = first_filters(task.evaluated_network, self.facts)
        if weight is not None:
            figures["filters"] = filters(weight)
        self._write(trainer, task, figures)


def writers(trainer: pl.Trainer) -> list[Any]:
    """The TensorBoard writers of this process."""
    experiments = [getattr(logger, "experiment", None) for logger in trainer.loggers]
    return [experiment for experiment in experiments if hasattr(experiment, "add_image")]


def first_filters(network: nn.Module, facts: Mapping[str, Any]) -> Tensor | None:
    """What the first layer with weights looks for in an image, (K, C, h, w); None where that is no picture."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            return module.weight if max(module.kernel_size) > 1 else None
        if isinstance(module, nn.Linear):
            channels, size = facts.get("channels"), facts.get("image_size")
            if not channels or not size or module.in_features != channels * size * size:
                return None
            return module.weight.view(-1, channels, size, size)
    return None
