"""Pictures of networks that make pictures: what they make, what they give back, and how they make it.

The functions return grids or matplotlib figures, as those of zoo/pictures.py; the classes are Lightning callbacks that
show them in TensorBoard after epochs 1, 2, 4, 8, … and the last, as `Pictures` draws. What they draw is a function of a
seed of their own: torch's generators and the modules' modes are after as they were before.

Shapes: N pictures, C channels, H×W pixels, Z latent dimensions. Pictures are float tensors in [0, 1].
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from torch import Tensor

from zoo.pictures import COLOURS, GREY, Pictures, class_name, new_figure
from zoo.sequence_pictures import evaluating
from zoo.tasks.generative import pixels

SEED = 0  # of all pictures that are sampled
ACTIVE = 0.01  # variance of a latent's posterior mean above which it is in use: Burda et al. 2016, 1509.00519

# Grids ----------------------------------------------------------------------------------------------------------------


def as_bytes(images: Tensor) -> Tensor:
    """Pictures in [0, 1], (…, C, H, W), as uint8 (…, H, W, C)."""
    return (images.float().clamp(0, 1) * 255).round().to(torch.uint8).movedim(-3, -1).cpu()


def tiled(images: Tensor, columns: int, *, gap: int = 2) -> Tensor:
    """Pictures (N, C, H, W) in a white grid, row by row: uint8 (H', W', 3); small ones are enlarged to about 60 pixels.

    Of other than one or three channels the mean is shown.
    """
    scale = max(1, 64 // images.shape[-1])
    if images.shape[1] != 3:
        images = images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    parts = as_bytes(images).repeat_interleave(scale, 1).repeat_interleave(scale, 2)  # (N, h, w, 3)
    height, width = parts.shape[1] + gap, parts.shape[2] + gap
    rows = -(-len(parts) // columns)
    grid = torch.full((rows * height + gap, columns * width + gap, 3), 255, dtype=torch.uint8)
    for place, part in enumerate(parts):
        down, right = place // columns * height + gap, place % columns * width + gap
        grid[down : down + height - gap, right : right + width - gap] = part
    return grid


def stacked(layers: Sequence[Tensor], columns: int) -> Tensor:
    """Layers of pictures (N, C, H, W), each row of the first over those of the others: a grid of as many columns."""
    n, rows = len(layers[0]), -(-len(layers[0]) // columns)
    filled = [torch.cat([layer, layer.new_ones(rows * columns - n, *layer.shape[1:])]) for layer in layers]
    return torch.stack([layer.unflatten(0, (rows, columns)) for layer in filled], 1).flatten(0, 2)


def even_columns(n: int, among: int) -> int:
    """Columns of a grid about as wide as high in which, with `among` classes in turn, a column is of one class."""
    side = next(side for side in range(1, n + 1) if side * side >= n)
    return side if among > 2 * side else min(n, among * max(1, round(side / among)))


# Figures --------------------------------------------------------------------------------------------------------------


def grids(parts: Sequence[tuple[str, Tensor, int]], *, title: str, names: Sequence[str] = ()) -> Figure:
    """Grids one under another, each with its heading, pictures (N, C, H, W) and columns; `names` are of the rows."""
    shown = [tiled(images, columns) for _, images, columns in parts]
    heights = [grid.shape[0] / 80 + 0.25 * bool(heading) for grid, (heading, _, _) in zip(shown, parts, strict=True)]
    width = max(grid.shape[1] for grid in shown) / 80 + (0.9 if names else 0.1)
    figure = new_figure(max(4.0, width), 0.4 + sum(heights), title)
    panels = figure.subplots(len(parts), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, grid, (heading, images, columns) in zip(panels, shown, parts, strict=True):
        axes.imshow(grid.numpy(), interpolation="nearest")
        axes.set_title(heading, fontsize=9, loc="left", color=GREY, pad=3)
        axes.set_xticks([])
        rows = -(-len(images) // columns)
        places = [(row + 0.5) * grid.shape[0] / rows for row in range(rows)]
        axes.set_yticks(places[: len(names)], names, fontsize=8)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure


def kl_bars(kl: Tensor, variance: Tensor) -> Figure:
    """KL (Z,) of each latent dimension in nats, the largest first; grey where the posterior has collapsed.

    Collapsed is a dimension whose posterior mean has a variance, of `variance` (Z,), of at most .01 over the split: it
    carries nothing. Burda, Grosse, Salakhutdinov 2016, 1509.00519, section 5.2.
    """
    order = kl.argsort(descending=True)
    active = (variance > ACTIVE)[order].tolist()
    title = f"KL on validation {kl.sum():.1f} nats · {sum(active)} of {len(kl)} latent dimensions active"
    figure = new_figure(min(12.0, max(5.6, 1.0 + 0.22 * len(kl))), 2.8, title)
    axes = figure.subplots()
    axes.bar(range(len(kl)), kl[order].numpy(), color=[COLOURS[0] if on else "#B8B8B8" for on in active], width=0.8)
    if len(kl) <= 64:
        axes.set_xticks(range(len(kl)), order.tolist(), fontsize=7, rotation=90 if len(kl) > 30 else 0)
    axes.set_xlabel("latent dimension (grey: collapsed)", fontsize=9)
    axes.set_ylabel("nats", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)
    return figure


def film(noisy: Tensor, predicted: Tensor, times: Sequence[int]) -> Figure:
    """How samples come of noise: x_t (F, N, C, H, W) over the pictures predicted there, at `times`."""
    rows = torch.stack([noisy, predicted]).permute(2, 0, 1, 3, 4, 5).flatten(0, 2)  # (N · 2 · F, C, H, W)
    title = f"From noise to pictures · times {', '.join(map(str, times))}"
    return grids([("", rows, len(times))], title=title, names=["x_t", "x₀"] * noisy.shape[1])


# Callbacks ------------------------------------------------------------------------------------------------------------


class GenerativePictures(Pictures):
    """What the others have in common: `figures`, drawn when `Pictures` draws, in evaluation mode without gradients.

    The input is shown at the start, as `Pictures` does.
    """

    def figures(self, trainer: pl.Trainer, task: Any) -> dict[str, Figure]:
        raise NotImplementedError

    def on_validation_batch_end(
        self, trainer: pl.Trainer, task: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Nothing is kept."""

    def _draw(self, trainer: pl.Trainer, task: Any) -> None:
        step = task.engine.step_count
        if not self._is_on(trainer) or not trainer.is_global_zero or step == self.drawn_at:
            return
        self.drawn_at = step
        with torch.no_grad(), evaluating(task.evaluated_network):
            self._write(trainer, task, self.figures(trainer, task))

    def samples(self, task: Any, *, count: int, each: int) -> Figure:
        """Always the same `count` pictures or, conditional, `each` of every class in a row; at most 12 classes."""
        if not task.conditional:
            images = task.sample(torch.arange(count, device=task.device), seed=SEED)
            return grids([("", images, even_columns(count, 1))], title=f"Samples · {count}, always of one seed")
        classes = min(12, self.facts["num_classes"])
        condition = torch.arange(classes, device=task.device).repeat_interleave(each)
        images = task.sample(torch.arange(len(condition), device=task.device), seed=SEED, condition=condition)
        names = [class_name(label, self.facts.get("class_names")) for label in range(classes)]
        title = f"Samples · {each} of each class" + (", the first 12" if classes < self.facts["num_classes"] else "")
        return grids([("", images, each)], title=title, names=names)


class SampleGrid(GenerativePictures):
    """How the same noise becomes better pictures: 64, or 8 of each class."""

    def figures(self, trainer: pl.Trainer, task: Any) -> dict[str, Figure]:
        return {"samples": self.samples(task, count=64, each=8)}


class DiffusionPictures(GenerativePictures):
    """Samples by DDIM of `steps` steps without added noise, and in the end how some of them come of noise.

    A sample is `steps` calls of the network, twice as many with guidance: 36 pictures (of a conditional network 3 of
    each class) of 20 steps are 720 forward passes each time, at epochs 1, 2, 4, 8, … and the last.
    """

    def __init__(self, *, facts: Mapping[str, Any], steps: int = 20) -> None:
        super().__init__(facts=facts)
        self.steps = steps

    def figures(self, trainer: pl.Trainer, task: Any) -> dict[str, Figure]:
        with quick(task, min(self.steps, task.timesteps)):
            figures = {"samples": self.samples(task, count=36, each=3)}
            is_last = trainer.current_epoch + 1 == trainer.max_epochs or trainer.should_stop
            if is_last:
                numbers = torch.arange(4, device=task.device)
                made = task.film(numbers, seed=SEED, condition=task.classes(numbers), frames=min(10, task.steps))
                figures["film"] = film(made.noisy, made.predicted, made.times)
        return figures


@contextmanager
def quick(task: Any, steps: int) -> Iterator[None]:
    """The task samples by deterministic DDIM of so many steps; afterwards as it did before."""
    kept = {name: getattr(task, name) for name in ("sampler", "steps", "eta")}
    task.sampler, task.steps, task.eta = "ddim", steps, 0.0
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(task, name, value)


class Reconstructions(GenerativePictures):
    """Validation pictures over what the network gives back: the `count` worst, then as many from the beginning.

    The worst are those of the largest squared error. Of a denoising autoencoder the corrupted ones stand between.
    """

    def __init__(self, *, facts: Mapping[str, Any], count: int = 16) -> None:
        super().__init__(facts=facts, count=count)
        self.first: list[Tensor] = []
        self.worst: list[Tensor] = []  # squared error, original, perhaps corrupted, restored; the worst first

    def on_validation_epoch_start(self, trainer: pl.Trainer, task: Any) -> None:
        self.first, self.worst = [], []

    def on_validation_batch_end(
        self, trainer: pl.Trainer, task: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if not self._is_on(trainer):
            return
        original = task.images(batch) if hasattr(task, "images") else pixels(batch["input"], task.facts)
        restored = outputs.get("denoised", outputs["reconstruction"])
        error = (restored - original).square().flatten(1).mean(1)
        layers = [original, restored]
        if "corrupted" in outputs:
            layers.insert(1, pixels(outputs["corrupted"], task.facts))
        new = [error, *layers]
        self.first = self.first or [values[: self.count] for values in new]
        joined = [torch.cat(pair) for pair in zip(self.worst, new, strict=True)] if self.worst else new
        order = joined[0].argsort(descending=True, stable=True)[: self.count]
        self.worst = [values[order] for values in joined]

    def figures(self, trainer: pl.Trainer, task: Any) -> dict[str, Figure]:
        return {"reconstructions": self.reconstructions()} if self.worst else {}

    def reconstructions(self) -> Figure:
        error, *worst = self.worst
        columns = min(16, self.count)
        parts = [(f"the worst, from {error[0]:.3g} per value", stacked(worst, columns), columns)]
        parts.append(("the first", stacked(self.first[1:], columns), columns))
        over = "original, corrupted, restored" if len(worst) > 2 else "original, reconstruction"
        return grids(parts, title=f"Reconstructions on validation, downwards: {over}")


class VaePictures(Reconstructions):
    """Reconstructions, samples (64, or 8 of each class) and the KL of each latent dimension."""

    def __init__(self, *, facts: Mapping[str, Any], count: int = 16) -> None:
        super().__init__(facts=facts, count=count)
        self.sums: list[Tensor] = []  # over the validation split: examples, KL, posterior mean and its square

    def on_validation_epoch_start(self, trainer: pl.Trainer, task: Any) -> None:
        super().on_validation_epoch_start(trainer, task)
        self.sums = []

    def on_validation_batch_end(
        self, trainer: pl.Trainer, task: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        super().on_validation_batch_end(trainer, task, outputs, batch, batch_idx)
        if self._is_on(trainer):
            mean = outputs["mean"].double()
            parts = [torch.ones_like(mean), outputs["kl"].double(), mean, mean.square()]
            sums = [part.sum(0) for part in parts]  # (Z,) each
            self.sums = [a + b for a, b in zip(self.sums, sums, strict=True)] if self.sums else sums

    def figures(self, trainer: pl.Trainer, task: Any) -> dict[str, Figure]:
        figures = {**super().figures(trainer, task), "samples": self.samples(task, count=64, each=8)}
        if self.sums:
            count, kl, mean, square = (part.cpu() for part in self.sums)
            figures["kl"] = kl_bars(kl / count, square / count - (mean / count).square())
        return figures
