"""The pictures of `zoo inspect`: statistics by layer, and where an image speaks for its class."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from zoo.pictures import COLOURS, GREY, class_name, new_figure, unnormalise

_PANELS = {  # column: title, whether on a logarithmic scale
    "mean": ("mean of the output", False),
    "std": ("standard deviation of the output", True),
    "zeros": ("share of zeros (line) and of dead units (×) in the output", False),
    "gradient_std": ("standard deviation of the loss's gradient by the output", True),
    "weight_gradient_ratio": ("|gradient| / |weight|", True),
}
_MARKS = {"convolution, linear": "o-", "activation": "s-", "norm": "^-", "other": "."}


def statistics_curves(rows: Sequence[Mapping[str, Any]], *, examples: int) -> Figure:
    """Rows of `zoo.layer_statistics`, in the order of the calls, a curve for each kind of layer."""
    width = min(16.0, max(8.0, 2 + 0.17 * len(rows)))
    figure = new_figure(width, 10.5, f"Layers from input to output · {examples} examples")
    panels = list(figure.subplots(len(_PANELS), 1, sharex=True))
    for axes, (column, (title, is_log)) in zip(panels, _PANELS.items(), strict=True):
        for (kind, mark), colour in zip(_MARKS.items(), COLOURS, strict=False):
            points = [(x, row) for x, row in enumerate(rows) if row["kind"] == kind and row[column] is not None]
            if points and (column != "zeros" or kind == "activation"):
                places = [x for x, _ in points]
                axes.plot(places, [row[column] for _, row in points], mark, color=colour, ms=3, lw=1, label=kind)
                if column == "zeros":
                    axes.plot(places, [row["dead"] for _, row in points], "x", color=COLOURS[3], ms=5)
        if is_log and any((row[column] or 0) > 0 for row in rows):
            axes.set_yscale("log")
        elif column == "zeros":
            axes.set_ylim(-0.03, 1.03)
        axes.set_title(title, fontsize=9, loc="left")
        axes.tick_params(which="both", labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#E6E6E6", linewidth=0.6)
    panels[0].legend(fontsize=8, frameon=False, ncols=4, loc="lower right", bbox_to_anchor=(1, 1))
    step = math.ceil(len(rows) / 80)
    panels[-1].set_xticks(range(0, len(rows), step), [row["layer"] for row in rows[::step]], rotation=90, fontsize=7)
    panels[-1].set_xlim(-0.5, len(rows) - 0.5)
    return figure


def grad_cam_grid(
    maps: Tensor, logits: Tensor, batch: Mapping[str, Tensor], facts: Mapping[str, Any], *, layer: str
) -> Figure:
    """Each image beside itself lit by its map (B, h, w), named as predicted from `logits` (B, K), with the truth below.

    A map is stretched to the image and divided by its own largest value.
    """
    images = unnormalise(batch["input"], facts.get("mean"), facts.get("std"))
    images = images if images.shape[1] == 3 else images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    heat = F.interpolate(maps[:, None].cpu(), images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    heat = heat / heat.amax((1, 2), keepdim=True).clamp_min(1e-12)
    names, colours = facts.get("class_names"), matplotlib.colormaps["inferno"]
    count, columns = len(images), min(4, len(images))
    lines = math.ceil(count / columns)
    title = f"Grad-CAM for the predicted class · layer {layer}, {maps.shape[1]}×{maps.shape[2]} · orange: wrong"
    figure = new_figure(max(5.0, 2.7 * columns), 0.5 + 1.55 * lines, title)
    places = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes in places:
        axes.set_axis_off()
    for axes, image, light, score, target, map in zip(
        places, images, heat, logits.softmax(1).cpu(), batch["target"].tolist(), maps, strict=False
    ):
        plain = image.permute(1, 2, 0).numpy()
        lit = 0.4 * plain.mean(2, keepdims=True) + 0.6 * colours(light.numpy())[..., :3]
        gap = np.ones((plain.shape[0], max(1, plain.shape[1] // 16), 3))
        axes.imshow(np.concatenate([plain, gap, lit], axis=1), interpolation="nearest")
        said = int(score.argmax())
        is_right = said == target
        text = f"{class_name(said, names)} · {score[said]:.0%}" + (
            "" if is_right else f", is {class_name(target, names)}"
        )
        text += "" if map.any() else " (no evidence)"
        axes.set_title(text, fontsize=8, pad=3, color=GREY if is_right else COLOURS[1])
    return figure
