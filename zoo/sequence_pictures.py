"""Pictures of networks that read sequences: what they write, where they look, what they foretell.

The functions take tensors and return matplotlib figures, as those of zoo/pictures.py; `TextSamples`, `AttentionMaps`
and `Forecasts` are the Lightning callbacks that show them in TensorBoard, when `Pictures` draws. Drawing is without
effect on a run: generated text has a random generator of its own.

Shapes: B examples, S source steps, T target steps, N examples of a split.
"""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

from zoo.decoding import END, PAD, START, generate, greedy
from zoo.pictures import COLOURS, GREY, Pictures, new_figure, writers
from zoo.randomness import key
from zoo.tasks.language_model import IGNORED

TEMPERATURE = 0.8


# Figures --------------------------------------------------------------------------------------------------------------


def attention_maps(
    weights: Sequence[Tensor], sources: Sequence[Sequence[str]], said: Sequence[Sequence[str]], truths: Sequence[Any]
) -> Figure:
    """How much of each source token (across) every output token (down) read: weights (T, S), one map an example.

    `said` are the tokens of the output, `truths` those of the right one; where they differ a token is orange.
    """
    columns = min(2, len(weights))
    rows = math.ceil(len(weights) / columns)
    width = columns * min(6.0, max(2.4, 0.9 + 0.2 * max(map(len, sources))))
    height = rows * min(6.0, max(1.6, 0.8 + 0.2 * max(map(len, said))))
    title = "Attention on validation · output down, source across · orange: wrong"
    figure = new_figure(max(5.6, width), height + 0.4, title)
    places = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in places[len(weights) :]:
        unused.set_axis_off()
    for axes, weight, source, output, truth in zip(places, weights, sources, said, truths, strict=False):
        axes.imshow(weight.detach().float().cpu().numpy(), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
        size = 8 if max(len(source), len(output)) <= 24 else 6
        upright = max(map(len, source)) <= 2
        axes.set_xticks(range(len(source)), map(_visible, source), fontsize=size, rotation=0 if upright else 90)
        axes.set_yticks(range(len(output)), map(_visible, output), fontsize=size)
        for place, label in enumerate(axes.get_yticklabels()):
            if place >= len(truth) or truth[place] != output[place]:
                label.set(color=COLOURS[1], fontweight="bold")
        axes.tick_params(length=0, labeltop=True, labelbottom=False)
        axes.spines[:].set_color("#CCCCCC")
    return figure


def _visible(token: str) -> str:
    return "␣" if token == " " else token.replace("\n", "⏎").replace("$", r"\$")


def exact_by_length(length: Tensor, exact: Tensor) -> Figure:
    """The share of right outputs (N,) among the sources of each length (N,), with the number of these."""
    counts, hits = torch.bincount(length), torch.bincount(length, exact.double())
    there = counts.nonzero().flatten()
    shares = (hits[there] / counts[there]).numpy()
    title = f"Exact match by length of the source · {exact.double().mean():.1%} of {len(exact):,}"
    figure = new_figure(min(12.0, max(5.2, 1.2 + 0.4 * len(there))), 2.8, title)
    axes = figure.subplots()
    axes.bar(there.numpy(), shares, color=COLOURS[0], width=0.7)
    if len(there) <= 30:
        for place, share, count in zip(there.tolist(), shares, counts[there].tolist(), strict=True):
            axes.text(place, share + 0.02, f"{count}", ha="center", fontsize=7, color=GREY)
    axes.set_ylim(0, 1.12)
    axes.set_yticks([0, 0.5, 1], ["0%", "50%", "100%"])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("tokens of the source (above the bars: how many examples)", fontsize=9)
    _plain(axes)
    return figure


def forecasts(truth: Tensor, forecast: Tensor, naive: Tensor, *, name: str = "the series", most: int = 300) -> Figure:
    """Forecasts (N, horizon) against the truth (N, horizon) and the value last seen (N,), all in the series' unit.

    Above the first step of each forecast, of the last `most` examples; below, for more than one step, the root of the
    mean squared error of every step over all examples.
    """
    horizon = truth.shape[1]
    errors = (forecast - truth).square().mean(0).sqrt(), (naive[:, None] - truth).square().mean(0).sqrt()
    rmse = [error.square().mean().sqrt().item() for error in errors]
    title = f"Forecasts on validation · RMSE {rmse[0]:.4g}, naive {rmse[1]:.4g}"
    figure = new_figure(8.0, 3.0 if horizon == 1 else 5.0, title)
    panels = list(figure.subplots(min(2, horizon), 1, squeeze=False).flat)
    shown = slice(max(0, len(truth) - most), len(truth))
    steps = np.arange(len(truth))[shown]
    axes = panels[0]
    axes.plot(steps, naive[shown], color="#B8B8B8", lw=1, label="naive: the value before")
    axes.plot(steps, truth[shown, 0], color="#1A1A1A", lw=1.2, label="truth")
    axes.plot(steps, forecast[shown, 0], color=COLOURS[1], lw=1.2, label="forecast")
    part = f", the last {most:,} of {len(truth):,}" if len(truth) > most else ""
    axes.set_title(f"{name}, one step ahead{part}", fontsize=9, loc="left")
    axes.set_xlabel("example of the validation split, in order of time", fontsize=9)
    if horizon > 1:
        for error, colour, label in zip(errors, (COLOURS[1], "#B8B8B8"), ("forecast", "naive"), strict=True):
            panels[1].plot(range(1, horizon + 1), error, "o-", color=colour, ms=3, lw=1.2, label=label)
        panels[1].set_title("RMSE by steps ahead", fontsize=9, loc="left")
        panels[1].set_ylim(bottom=0)
        panels[1].xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[1].set_xlabel("steps ahead", fontsize=9)
    for axes in panels:
        _plain(axes)
        axes.legend(fontsize=8, frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.1)
    return figure


def _plain(axes: Any) -> None:
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)


# Callbacks ------------------------------------------------------------------------------------------------------------


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Without dropout; every module's mode is put back after."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


class SequencePictures(Pictures):
    """What the three have in common: tensors kept of a validation, and drawing when `Pictures` draws.

    A subclass implements `keep`, what of a batch is kept, and `show`, which draws from `kept`.
    """

    def __init__(self, *, facts: Mapping[str, Any], count: int = 4) -> None:
        super().__init__(facts=facts, count=count)
        self.kept: list[tuple[Tensor, ...]] = []

    def keep(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        raise NotImplementedError

    def show(self, trainer: pl.Trainer, task: Any) -> None:
        raise NotImplementedError

    def on_train_start(self, trainer: pl.Trainer, task: Any) -> None:
        """Nothing: input that is no picture is not shown."""

    def on_validation_epoch_start(self, trainer: pl.Trainer, task: Any) -> None:
        self.kept = []

    def on_validation_batch_end(
        self, trainer: pl.Trainer, task: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._is_on(trainer):
            self.kept.append(self.keep(outputs, batch))

    def _draw(self, trainer: pl.Trainer, task: Any) -> None:
        step = task.engine.step_count
        if self._is_on(trainer) and trainer.is_global_zero and step != self.drawn_at and self.kept:
            self.drawn_at = step
            with torch.no_grad(), evaluating(task.evaluated_network):
                self.show(trainer, task)


def quoted(text: str, width: int = 100) -> str:
    """Text to be left as it is by TensorBoard, which reads Markdown: four blanks before each line; long ones fold."""
    options: Any = {"drop_whitespace": False, "replace_whitespace": False, "expand_tabs": False}
    lines = [part for line in text.split("\n") for part in textwrap.wrap(line, width, **options) or [""]]
    return "\n".join(f"    {line}" for line in lines)


class TextSamples(SequencePictures):
    """A language model goes on with the beginning of the validation text, always with the same random numbers."""

    def __init__(self, *, facts: Mapping[str, Any], prompt: int = 64, length: int = 400) -> None:
        super().__init__(facts=facts)
        self.prompt, self.length = prompt, length

    def keep(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        if self.kept:
            return ()
        there = batch["target"][0] != IGNORED  # (T,): in a short text a window is filled behind its end
        return (batch["input"][:1, there][:, : self.prompt],)

    def show(self, trainer: pl.Trainer, task: Any) -> None:
        prompt, vocabulary = self.kept[0][0], self.facts["vocabulary"]
        generator = torch.Generator(prompt.device).manual_seed(key("samples"))
        never = [place for place, token in enumerate(vocabulary) if token == "<unk>"]
        network = task.evaluated_network
        tokens = generate(network, prompt, self.length, generator=generator, temperature=TEMPERATURE, never=never)
        begun, gone_on = ("".join(vocabulary[token] for token in part[0].tolist()) for part in (prompt, tokens))
        text = (
            f"The validation text begins\n\n{quoted(begun)}\n\nand goes on, at temperature {TEMPERATURE},\n\n"
            f"{quoted(gone_on)}"
        )
        for writer in writers(trainer):
            writer.add_text("sample", text, task.engine.step_count)


class AttentionMaps(SequencePictures):
    """Where `count` validation examples' outputs look in their sources, and exact match by length of the source.

    The outputs are those of greedy decoding. A network without attention has the second picture only.
    """

    def keep(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        kept = batch["length"].cpu(), outputs["exact"].cpu()
        return kept if self.kept else (*kept, *(batch[name][: self.count] for name in ("input", "length", "target")))

    def show(self, trainer: pl.Trainer, task: Any) -> None:
        length, exact = (torch.cat(part) for part in zip(*(kept[:2] for kept in self.kept), strict=True))
        figures = {"exact_by_length": exact_by_length(length, exact)}
        source, lengths, target = self.kept[0][2:]
        network = task.evaluated_network
        said = greedy(network, source, lengths, max_length=target.shape[1] - 1)
        read = torch.cat([torch.full_like(said[:, :1], START), said[:, :-1]], 1)  # what each output token was told by
        attention = getattr(network, "attention", lambda *inputs: None)
        weights = attention(source, lengths, read)  # (B, T, S)
        if weights is not None:
            ends = (said == END).cumsum(1).cumsum(1) < 2  # up to the first, which is shown
            steps = ends.sum(1).tolist()
            sources = self._names(source, "source_vocabulary", lengths.tolist())
            outputs = self._names(said, "target_vocabulary", steps)
            truths = self._names(target[:, 1:], "target_vocabulary", (target[:, 1:] != PAD).sum(1).tolist())
            maps = [weight[:t, :s] for weight, t, s in zip(weights, steps, lengths.tolist(), strict=True)]
            figures["attention"] = attention_maps(maps, sources, outputs, truths)
        self._write(trainer, task, figures)

    def _names(self, tokens: Tensor, vocabulary: str, lengths: Sequence[int]) -> list[list[str]]:
        names = self.facts.get(vocabulary)
        return [
            [names[token] if names else str(token) for token in row[:length]]
            for row, length in zip(tokens.tolist(), lengths, strict=True)
        ]


class Forecasts(SequencePictures):
    """The forecasts of the validation split against the truth and the value last seen, in the target's own unit."""

    def keep(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        return batch["target"], outputs["prediction"], batch["input"][:, -1, 0]

    def show(self, trainer: pl.Trainer, task: Any) -> None:
        mean, std = self.facts.get("target_mean") or 0.0, self.facts.get("target_std") or 1.0
        parts = [torch.cat(part).float().cpu() * std + mean for part in zip(*self.kept, strict=True)]
        names = self.facts.get("feature_names") or ["the series"]
        self._write(trainer, task, {"forecast": forecasts(*parts, name=names[0])})
