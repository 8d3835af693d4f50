"""Language models: metrics of whole splits against brute force, and the state that goes from batch to batch."""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import SMALL, compose_config
from torch import Tensor, nn

from zoo.data.loaders import Loader, PositionSampler
from zoo.data.module import DataModule
from zoo.evaluation import evaluate_checkpoint
from zoo.run import resume, train
from zoo.schedules import Constant
from zoo.tasks.engine import Engine, Optimization
from zoo.tasks.language_model import LanguageModel

SYMBOLS = 5
FACTS = {"num_tokens": SYMBOLS, "level": "characters"}


class Reader(nn.Module):
    """A small recurrent language model; its state is a tuple, as that of an LSTM."""

    def __init__(self, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(SYMBOLS, 4), nn.Linear(8, SYMBOLS)
        self.rnn, self.dropout = nn.LSTM(4, 8, batch_first=True), nn.Dropout(dropout)

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        output, state = self.rnn(self.embedding(tokens), state)
        return self.head(self.dropout(output)), state


class Given(nn.Module):
    """Looks its logits up by token, and has no state."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, tokens: Tensor, state: None = None) -> tuple[Tensor, None]:
        return self.logits[tokens], None


@dataclass(kw_only=True, eq=False)
class Streams(DataModule):
    """A text as `batch_size` streams that go on from batch to batch, the last window filled with -100."""

    num_tokens: int = SYMBOLS
    level: str = "characters"
    window: int = 6

    def read(self) -> None:
        text = torch.randint(0, SYMBOLS, (400,), generator=torch.Generator().manual_seed(3)).cumsum(0) % SYMBOLS
        self.splits = {name: Windows(text[part], self.batch_size, self.window) for name, part in PARTS.items()}

    def loader(self, split: str, *, training: bool = False) -> Loader:
        return Loader(self.splits[split], PositionSampler(self.indices(split), self.batch_size))


PARTS = {"train": slice(0, 241), "val": slice(240, 321), "test": slice(320, 400)}


class Windows:
    augment = None

    def __init__(self, text: Tensor, rows: int, window: int) -> None:
        length = -(-(len(text) - 1) // rows)
        self.pieces: list[tuple[Tensor, Tensor]] = []
        for start in range(0, length, window):
            for row in range(rows):
                end = min(start + window, length, len(text) - 1 - row * length)
                places = torch.arange(row * length + start, row * length + max(start, end))
                self.pieces.append((filled(text[places], window, 0), filled(text[places + 1], window, -100)))

    def __len__(self) -> int:
        return len(self.pieces)

    def batch(self, epoch: int, positions: Tensor, indices: Tensor) -> dict[str, Tensor]:
        inputs, targets = zip(*(self.pieces[i] for i in indices.tolist()), strict=True)
        return {"input": torch.stack(inputs), "target": torch.stack(targets), "position": positions}


def filled(tokens: Tensor, length: int, value: int) -> Tensor:
    return F.pad(tokens, (0, length - len(tokens)), value=value)


def evaluated(task: LanguageModel, batches: list[dict[str, Tensor]]) -> dict[str, float]:
    task.start_split()
    with torch.no_grad():
        for number, batch in enumerate(batches):
            task.evaluation_step(batch, number)
    return task.split_scores("test")


def random_batches(*sizes: tuple[int, int], masked: float = 0.3) -> list[dict[str, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    batches = []
    for size in sizes:
        target = torch.randint(0, SYMBOLS, size, generator=draw)
        target[torch.rand(size, generator=draw) < masked] = -100
        batches.append({"input": torch.randint(0, SYMBOLS, size, generator=draw), "target": target})
    return batches


# Metrics --------------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_all_tokens_of_a_split() -> None:
    table = torch.randn(SYMBOLS, SYMBOLS, generator=torch.Generator().manual_seed(0)) * 2
    batches = random_batches((7, 4), (2, 9), (1, 1), masked=0.5)
    batches.append({"input": torch.zeros(2, 3).long(), "target": torch.full((2, 3), -100)})  # nothing but padding
    task = LanguageModel(Given(table), facts=FACTS)
    assert task.loss(task.network, batches[-1])[0] == 0
    scores = evaluated(task, batches)
    nats, hits = [], []
    for batch in batches:
        for token, target in zip(batch["input"].flatten().tolist(), batch["target"].flatten().tolist(), strict=True):
            if target != -100:
                row = [math.exp(value) for value in table[token].tolist()]
                nats.append(-math.log(row[target] / sum(row)))
                hits.append(row[target] == max(row))
    mean = sum(nats) / len(nats)
    assert scores == pytest.approx(
        {
            "test/loss": mean,
            "test/perplexity": math.exp(mean),
            "test/accuracy": sum(hits) / len(hits),
            "test/bits_per_character": mean / math.log(2),
        },
        rel=1e-6,
    )


def test_smoothing_changes_the_loss_and_not_the_perplexity() -> None:
    batches = random_batches((4, 6))
    table = torch.randn(SYMBOLS, SYMBOLS, generator=torch.Generator().manual_seed(0))
    plain = evaluated(LanguageModel(Given(table), facts=FACTS), batches)
    smooth = evaluated(LanguageModel(Given(table), facts=FACTS, label_smoothing=0.2), batches)
    expected = F.cross_entropy(
        table[batches[0]["input"]].flatten(0, 1), batches[0]["target"].flatten(), label_smoothing=0.2
    )
    assert smooth["test/loss"] == pytest.approx(expected.item())
    assert smooth["test/loss"] != pytest.approx(plain["test/loss"])
    assert {**smooth, "test/loss": plain["test/loss"]} == pytest.approx(plain)


def test_a_batch_that_is_no_number_is_not_left_out() -> None:
    table = torch.zeros(SYMBOLS, SYMBOLS)
    table[4] = math.nan  # as where a carried state overflows
    batches = [{"input": torch.full((2, 3), token), "target": torch.ones(2, 3).long()} for token in (0, 4)]
    scores = evaluated(LanguageModel(Given(table), facts=FACTS), batches)
    assert math.isnan(scores["test/perplexity"])
    assert math.isnan(scores["test/bits_per_character"])


def test_what_is_measured_depends_on_the_data() -> None:
    table, batches = torch.eye(SYMBOLS) * 9, random_batches((8, 6), masked=0.0)
    batches[0]["target"][:6, -2:] = batches[0]["input"][:6, -2:]
    batches[0]["target"][6:, -2:] = (batches[0]["input"][6:, -2:] + 1) % SYMBOLS
    copying = evaluated(LanguageModel(Given(table), facts={"num_tokens": SYMBOLS, "recall": 2}), batches)
    assert copying["test/recall_accuracy"] == pytest.approx(6 / 8)
    assert copying["test/accuracy"] != pytest.approx(6 / 8)
    words = evaluated(LanguageModel(Given(table), facts={**FACTS, "level": "words"}), batches)
    assert set(words) == {"test/loss", "test/perplexity", "test/accuracy"}
    assert "test/bits_per_character" not in copying


def test_step_metrics_weigh_the_tokens_of_a_window_of_steps_alike() -> None:
    table = torch.randn(SYMBOLS, SYMBOLS, generator=torch.Generator().manual_seed(0))
    task, batches = LanguageModel(Given(table), facts=FACTS), random_batches((3, 4), (9, 2))
    kept = [task.step_values(task.loss(task.network, batch)[1], batch) for batch in batches]
    told = {name.replace("train", "test"): value for name, value in task.step_metrics(kept).items()}
    whole = evaluated(task, batches)
    assert told == pytest.approx({name: whole[name] for name in ("test/perplexity", "test/accuracy")})


def test_data_of_classes_and_wrong_values_are_refused() -> None:
    with pytest.raises(ValueError, match=r"lstm_classifier"):
        LanguageModel(Reader(), facts={**FACTS, "class_names": ["a", "b"]})
    for value in (-0.1, 1.0):
        with pytest.raises(ValueError, match=rf"label_smoothing={value}: must be at least 0 and below 1"):
            LanguageModel(Reader(), facts=FACTS, label_smoothing=value)
    assert "data=moby_dick" in LanguageModel.needs["num_tokens"]


# The carried state ----------------------------------------------------------------------------------------------------


def test_windows_read_one_after_another_equal_the_text_read_at_once() -> None:
    torch.manual_seed(0)
    network, batch = Reader(), random_batches((3, 12))[0]
    parts = [{name: value[:, start : start + 4] for name, value in batch.items()} for start in (0, 4, 8)]
    carrying, forgetting = LanguageModel(network, facts=FACTS), LanguageModel(network, facts=FACTS, carry_state=False)
    whole = evaluated(forgetting, [batch])
    assert evaluated(carrying, parts) == pytest.approx(whole, rel=1e-6)
    assert evaluated(carrying, parts) == pytest.approx(whole, rel=1e-6), "a split begins without a state"
    assert evaluated(forgetting, parts)["test/loss"] != pytest.approx(whole["test/loss"], rel=1e-6)
    copying = LanguageModel(network, facts={**FACTS, "recall": 1})
    assert evaluated(copying, parts)["test/loss"] == evaluated(forgetting, parts)["test/loss"], "sequences of their own"


def test_no_gradient_flows_into_the_batch_before() -> None:
    torch.manual_seed(0)
    task, batches = LanguageModel(Reader(), facts=FACTS), random_batches((3, 4), (3, 4))
    task.loss(task.network, batches[0])[0].backward()
    task.network.zero_grad()
    task.loss(task.network, batches[1])[0].backward()  # through the first again it would raise
    _, (hidden, cell) = task.carried["training"]
    assert not hidden.requires_grad
    assert not cell.requires_grad


def test_training_and_evaluation_keep_states_of_their_own() -> None:
    torch.manual_seed(0)
    task, batches = LanguageModel(Reader(), facts=FACTS), random_batches((3, 4))
    task.train()
    first = task.loss(task.network, batches[0])[0]
    kept = task.carried["training"]
    evaluated(task, batches)
    assert task.carried["training"] is kept
    assert task.carried["evaluation"] is not kept
    task.train()
    assert task.loss(task.network, batches[0])[0] != first
    task.start_epoch()
    assert task.loss(task.network, batches[0])[0] == first, "an epoch begins without a state"


def test_a_batch_of_another_size_begins_anew() -> None:
    torch.manual_seed(0)
    task, batches = LanguageModel(Reader(), facts=FACTS), random_batches((3, 4), (2, 4))
    alone = evaluated(task, batches[1:])
    task.start_split()
    task.evaluation_step(batches[0], 0)
    task.split_loss.reset()
    task.evaluation_step(batches[1], 1)
    assert task.split_loss.compute().item() == alone["test/loss"]


def a_run(folder: Path, *overrides: str) -> dict[str, float]:
    folder.mkdir()
    config = compose_config([*SMALL, "task=language_model", "trainer.log_every_n_steps=3", *overrides])
    config.data = {"_target_": "test_language_model.Streams", "batch_size": 4, "augment": None}
    config.model = {"_target_": "test_language_model.Reader", "dropout": 0.2, "weights": None}
    return train(config, folder, choices={"model": "test", "data": "test"}, command=[])


class Killed(Exception):
    pass


@pytest.mark.parametrize("dies_at", [8, 14, 11], ids=["first epoch", "second epoch", "at an epoch's start"])
def test_a_run_that_died_within_an_epoch_ends_with_the_same_bits(dies_at: int, tmp_path, monkeypatch) -> None:
    words = ["checkpoint.every_n_steps=3"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = a_run(whole, *words)  # two epochs of ten steps
    step = Engine.step
    calls = iter(range(1, 1000))

    def dying(engine: Engine, *args: Any, **options: Any) -> bool:
        if next(calls) == dies_at:
            raise Killed
        return step(engine, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "step", dying)
        with pytest.raises(Killed):
            a_run(killed, *words)
    saved = torch.load(killed / "checkpoints" / "last.ckpt", weights_only=True)
    rows, (hidden, cell) = saved["carried"]
    assert (rows, hidden.shape, cell.shape) == (4, (1, 4, 8), (1, 4, 8))
    assert resume(killed, {"trust": True}) == expected
    files = [torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (whole, killed)]
    assert all(torch.equal(files[0]["state_dict"][name], value) for name, value in files[1]["state_dict"].items())
    assert (whole / "metrics.csv").read_bytes() == (killed / "metrics.csv").read_bytes()


def carry(rank: int, folder: Path) -> None:
    """One of two processes: it reads a batch, saves, forgets, and loads what the first one wrote."""
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(rank)
    settings = Optimization(optimizer=partial(torch.optim.SGD, lr=0.1), schedule=Constant())
    task = LanguageModel(Reader(), facts=FACTS, optimization=settings)
    task._trainer = SimpleNamespace(world_size=2, global_rank=rank)  # type: ignore[assignment]
    checkpoint: dict[str, Any] = {}
    task.on_save_checkpoint(checkpoint)
    assert checkpoint["carried"] == [None, None]
    task.on_load_checkpoint(checkpoint)
    assert task.carried == {}
    task.loss(task.network, random_batches((3, 4))[0])
    (_, (hidden, _)) = task.carried["training"]
    task.on_save_checkpoint(checkpoint)
    if rank == 0:
        torch.save(checkpoint, folder / "last.ckpt")
    torch.distributed.barrier()
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    task.on_load_checkpoint(checkpoint)
    assert torch.equal(task.carried["training"][1][0], hidden)
    assert not torch.equal(checkpoint["carried"][1 - rank][1][0], hidden)
    task._trainer = SimpleNamespace(world_size=1, global_rank=0)  # type: ignore[assignment]
    task.on_load_checkpoint(checkpoint)
    assert task.carried == {}, "the streams of two processes are not those of one"
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_each_process_goes_on_from_its_own_state(tmp_path) -> None:
    torch.multiprocessing.spawn(carry, (tmp_path,), nprocs=2)


def test_evaluation_repeats_the_scores_of_training(tmp_path) -> None:
    scores = a_run(tmp_path / "run", "ema_decay=0.5")
    again = evaluate_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt", trust=True)
    assert again == {name: scores[name] for name in again}
    assert {"test/loss", "test/perplexity", "test/accuracy", "test/bits_per_character"} == set(again)
