"""Pictures of sequences: what stands in them, when they are drawn, and that drawing changes nothing in a run."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from zoo.models.recurrent import RecurrentLanguageModel
from zoo.models.transformer import Transformer
from zoo.pictures import COLOURS, as_image
from zoo.sequence_pictures import (
    AttentionMaps,
    Forecasts,
    TextSamples,
    attention_maps,
    evaluating,
    exact_by_length,
    forecasts,
    quoted,
)

SPECIAL = ["<pad>", "<start>", "<end>", "<unk>"]
LETTERS = ["<unk>", "\n", *"abcd"]


class Writer:
    """Stands in for TensorBoard's."""

    def __init__(self) -> None:
        self.written: list[tuple[str, int]] = []
        self.texts: list[str] = []

    def add_image(self, name: str, image: Tensor, step: int) -> None:
        assert image.dtype == torch.uint8
        assert name.startswith("visual/")  # TensorBoard's section of pictures
        name = name.removeprefix("visual/")
        self.written.append((name, step))

    def add_text(self, name: str, text: str, step: int) -> None:
        self.written.append((name, step))
        self.texts.append(text)


def a_run(callback: Any, network: nn.Module, *validations: list[tuple[Any, Any]], images: bool = True) -> Writer:
    """A trainer that only answers what it is asked, over as many epochs as there are validations."""
    writer = Writer()
    trainer: Any = SimpleNamespace(
        loggers=[SimpleNamespace(), SimpleNamespace(experiment=writer if images else object())],
        sanity_checking=False,
        is_global_zero=True,
        max_epochs=len(validations),
        should_stop=False,
        train_dataloader=None,
    )
    task = SimpleNamespace(evaluated_network=network, engine=SimpleNamespace(step_count=0))
    callback.on_train_start(trainer, task)
    for epoch, batches in enumerate(validations):
        trainer.current_epoch, task.engine.step_count = epoch, 10 * (epoch + 1)
        callback.on_validation_epoch_start(trainer, task)
        for number, (outputs, batch) in enumerate(batches):
            callback.on_validation_batch_end(trainer, task, outputs, batch, number)
        callback.on_validation_epoch_end(trainer, task)
    return writer


def ink(figure: Figure) -> int:
    return int((as_image(figure) < 128).all(0).sum())


# Text -----------------------------------------------------------------------------------------------------------------


def text_batches() -> list[tuple[Any, Any]]:
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randint(1, 6, (2, 3, 12), generator=draw)
    return [({}, {"input": rows, "target": rows.roll(-1, 1)}) for rows in inputs]


def reader(dropout: float = 0.0) -> RecurrentLanguageModel:
    torch.manual_seed(0)
    return RecurrentLanguageModel(num_tokens=6, embedding=4, hidden=8, dropout=dropout)


def test_text_goes_on_from_the_validation_text_after_epochs_1_2_4_and_the_last() -> None:
    batches, network = text_batches(), reader(dropout=0.5).train()
    network.head.eval()  # a frozen part stays as it is
    before = torch.get_rng_state()
    callback = TextSamples(facts={"vocabulary": LETTERS}, prompt=5, length=30)
    writer = a_run(callback, network, *[batches] * 5)
    assert writer.written == [("sample", step) for step in (10, 20, 40, 50)]
    assert len(set(writer.texts)) == 1, "the same network with the same random numbers"
    assert torch.equal(torch.get_rng_state(), before)
    assert network.training
    assert not network.head.training
    _, prompt, _, text = writer.texts[0].split("\n\n")
    assert prompt == "    " + "".join(LETTERS[i] for i in batches[0][1]["input"][0, :5]).replace("\n", "\n    ")
    assert all(line.startswith("    ") for line in text.split("\n")), "Markdown leaves it alone"
    assert len(text.replace("\n    ", "\n").removeprefix("    ").replace("<unk>", "?")) == 30


def test_long_lines_fold_and_lose_nothing() -> None:
    text = "  a\tb " + "word " * 50 + "x" * 250 + "\n\n last"
    lines = quoted(text).split("\n")
    assert all(line.startswith("    ") and len(line) <= 104 for line in lines)
    assert "".join(line[4:] for line in lines) == text.replace("\n", "")
    assert lines[-2:] == ["    ", "     last"]


def test_what_fills_a_window_is_no_prompt() -> None:
    batches = text_batches()
    batches[0][1]["target"][0, 3:] = -100
    batches[0][1]["input"][0, 3:] = 0
    writer = a_run(TextSamples(facts={"vocabulary": LETTERS}, prompt=5, length=3), reader(), batches)
    prompt = "".join(LETTERS[i] for i in batches[0][1]["input"][0, :3]).replace("\n", "\n    ")
    assert writer.texts[0].split("\n\n")[1] == f"    {prompt}"


def test_nothing_is_drawn_without_a_logger_for_pictures() -> None:
    callback = TextSamples(facts={"vocabulary": LETTERS})
    assert a_run(callback, reader(), text_batches(), images=False).written == []
    assert callback.kept == []


def test_modes_are_put_back() -> None:
    network = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    with evaluating(network):
        assert not network[0].training
    assert [module.training for module in network.modules()] == [True, True, False]


# Attention ------------------------------------------------------------------------------------------------------------


def test_attention_maps_are_labelled_and_mark_what_is_wrong() -> None:
    weights = [torch.rand(3, 4), torch.rand(2, 5)]
    said = [["x", "$", "<end>"], ["x", "z"]]
    truths = [["x", "y", "<end>"], ["x", "z", "<end>"]]
    figure = attention_maps(weights, [list("ab c"), list("abc\ne")], said, truths)
    panels = figure.axes
    for axes, weight in zip(panels, weights, strict=True):
        np.testing.assert_array_equal(axes.get_images()[0].get_array(), weight)
    assert [label.get_text() for label in panels[0].get_xticklabels()] == ["a", "b", "␣", "c"]
    assert [label.get_text() for label in panels[1].get_xticklabels()] == ["a", "b", "c", "⏎", "e"]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["x", r"\$", "<end>"]
    orange = [[label.get_color() == COLOURS[1] for label in axes.get_yticklabels()] for axes in panels]
    assert orange == [[False, True, False], [False, False]]
    assert ink(figure) > 200


def test_exact_match_by_length() -> None:
    figure = exact_by_length(torch.tensor([3, 3, 5, 5, 5, 5]), torch.tensor([1, 0, 1, 1, 1, 0]).bool())
    axes = figure.axes[0]
    assert [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in axes.patches] == [(3, 0.5), (5, 0.75)]
    assert [text.get_text() for text in axes.texts] == ["2", "4"]
    assert "66.7% of 6" in figure.get_suptitle()


FACTS = {"source_vocabulary": [*SPECIAL, *"abcd"], "target_vocabulary": [*SPECIAL, *"wxyz"]}


def pair_batches() -> list[tuple[Any, Any]]:
    target = torch.tensor([[1, 4, 5, 2, 0], [1, 6, 2, 0, 0], [1, 4, 4, 4, 2]])
    source = torch.tensor([[4, 5, 0], [6, 0, 0], [4, 5, 6]])
    batch = {"input": source, "length": torch.tensor([2, 1, 3]), "target": target}
    return [({"exact": torch.tensor([True, False, True])}, batch), ({"exact": torch.tensor([False] * 3)}, batch)]


def test_attention_of_outputs_and_exact_match_of_all_batches(monkeypatch) -> None:
    torch.manual_seed(0)
    network = Transformer(num_source_tokens=8, num_target_tokens=8, d_model=8, heads=2, layers=1, feed_forward=8)
    drawn: dict[str, Any] = {}
    monkeypatch.setattr("zoo.sequence_pictures.attention_maps", lambda *parts: drawn.update(maps=parts) or Figure())
    monkeypatch.setattr("zoo.sequence_pictures.exact_by_length", lambda *parts: drawn.update(exact=parts) or Figure())
    before = torch.get_rng_state()
    writer = a_run(AttentionMaps(facts=FACTS, count=2), network, pair_batches())
    assert torch.equal(torch.get_rng_state(), before)
    assert set(writer.written) == {("attention", 10), ("exact_by_length", 10)}
    length, exact = drawn["exact"]
    assert length.tolist() == [2, 1, 3, 2, 1, 3]
    assert exact.tolist() == [True, False, True, False, False, False]
    weights, sources, said, truths = drawn["maps"]
    assert sources == [["a", "b"], ["c"]]
    assert truths == [["w", "x", "<end>"], ["y", "<end>"]]
    numbers = [FACTS["target_vocabulary"].index(token) for token in said[0]]
    read = torch.tensor([[1, *numbers[:-1]]])
    expected = network.eval().attention(torch.tensor([[4, 5]]), torch.tensor([2]), read)[0]
    torch.testing.assert_close(weights[0], expected)


class Mute(nn.Module):
    """Ends at once, or says padding for ever, and has no attention."""

    def __init__(self, said: int) -> None:
        super().__init__()
        self.said = said

    def start(self, source: Tensor, length: Tensor) -> tuple[Tensor, ...]:
        return (source,)

    def step(self, token: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        return nn.functional.one_hot(torch.full_like(token, self.said), 8).float(), state


@pytest.mark.parametrize("said", [2, 0])
def test_networks_without_attention_and_without_words(said: int) -> None:
    network = Mute(said)
    assert a_run(AttentionMaps(facts=FACTS), network, pair_batches()).written == [("exact_by_length", 10)]
    network.attention = lambda source, length, target: torch.zeros(*target.shape, source.shape[1])
    written = a_run(AttentionMaps(facts=FACTS), network, pair_batches()).written
    assert set(written) == {("exact_by_length", 10), ("attention", 10)}


# Forecasts ------------------------------------------------------------------------------------------------------------


def test_forecasts_show_the_last_examples_and_measure_all() -> None:
    draw = torch.Generator().manual_seed(0)
    truth, forecast = torch.randn(2, 50, 3, generator=draw)
    naive = torch.randn(50, generator=draw)
    figure = forecasts(truth, forecast, naive, name="spots", most=20)
    above, below = figure.axes
    lines = {line.get_label().split(":")[0]: line.get_xydata() for line in above.lines}
    np.testing.assert_array_equal(lines["truth"], np.stack([np.arange(30, 50), truth[30:, 0]], 1))
    np.testing.assert_array_equal(lines["forecast"][:, 1], forecast[30:, 0])
    np.testing.assert_array_equal(lines["naive"][:, 1], naive[30:])
    for line, said in zip(below.lines, (forecast, naive[:, None]), strict=True):
        expected = [(1 + step, ((said - truth)[:, step] ** 2).mean() ** 0.5) for step in range(3)]
        np.testing.assert_allclose(line.get_xydata(), expected, rtol=1e-6)
    rmse = ((forecast - truth) ** 2).mean() ** 0.5, ((naive[:, None] - truth) ** 2).mean() ** 0.5
    assert "RMSE {:.4g}, naive {:.4g}".format(*(value.item() for value in rmse)) in figure.get_suptitle()
    assert "the last 20 of 50" in above.get_title(loc="left")
    assert len(forecasts(truth[:, :1], forecast[:, :1], naive).axes) == 1


def test_forecasts_are_in_the_unit_of_the_target(monkeypatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(
        "zoo.sequence_pictures.forecasts", lambda *parts, name: drawn.extend([*parts, name]) or Figure()
    )
    batches = [
        (
            {"prediction": torch.full((2, 1), 0.5)},
            {"input": torch.tensor([[[9.0, 8.0], [float(i), 8.0]]] * 2), "target": torch.ones(2, 1) * i},
        )
        for i in range(2)
    ]
    facts = {"target_mean": 50.0, "target_std": 10.0, "feature_names": ["spots", "other"]}
    assert a_run(Forecasts(facts=facts), nn.Identity(), batches).written == [("forecast", 10)]
    truth, forecast, naive, name = drawn
    assert truth.flatten().tolist() == [50, 50, 60, 60]
    assert forecast.flatten().tolist() == [55] * 4
    assert naive.tolist() == [50, 50, 60, 60]
    assert name == "spots"
