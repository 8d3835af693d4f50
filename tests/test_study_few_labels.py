"""The study of few labels: which runs it starts, which rate stands, what it writes."""

import json
from pathlib import Path

import pytest

from studies import few_labels, running
from zoo.checkpoint import find_checkpoint, read_checkpoint


def test_the_study_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One autoencoder and one classifier of each way: an encoder that is frozen is the autoencoder's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(running, "OUT", tmp_path / "docs")
    monkeypatch.setattr(few_labels, "BODIES", ("autoencoder",))
    monkeypatch.setattr(few_labels, "RATES", (0.001,))
    short = ("trainer.accelerator=cpu", "trainer.check_val_every_n_epoch=1", "data.eval_batch_size=1000")
    monkeypatch.setattr(few_labels, "FEW", (*few_labels.FEW, *short))
    words: dict[Path, tuple[str, ...]] = {}

    def train(*given: str) -> running.Run:
        run = running.train(*given)
        words[run.folder] = given
        return run

    monkeypatch.setattr(few_labels, "train", train)
    numbers = few_labels.main(
        1, 1, ("trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.limit_train_batches=4")
    )
    assert json.loads((tmp_path / "docs" / "few_labels.json").read_text()) == numbers
    assert (tmp_path / "docs" / "few_labels.png").exists()
    assert list(numbers) == ["from scratch", "autoencoder, encoder frozen", "autoencoder, encoder trained on"]
    classifiers = list(words)[1:]
    for folder, numbers_of_way in zip(classifiers, numbers.values(), strict=True):
        checkpoint = read_checkpoint(find_checkpoint(folder))
        assert checkpoint["zoo"]["config"]["train_examples"] == 100
        assert checkpoint["zoo"]["config"]["optimizer"]["lr"] == 0.001
        accuracy = json.loads((folder / "scores.json").read_text())["test/accuracy"]
        assert numbers_of_way["test accuracy"] == f"{accuracy:.4f}"
    states = [read_checkpoint(find_checkpoint(folder))["state_dict"] for folder in words]
    encoders = [
        {n: v for n, v in s.items() if n.startswith("network.encoder") and n.endswith("weight")} for s in states
    ]
    same = [all(encoder[name].equal(value) for name, value in encoders[0].items()) for encoder in encoders]
    assert same == [True, False, True, False]
    assert encoders[0]


def test_the_rate_is_chosen_on_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the other one is better on test."""
    monkeypatch.setattr(running, "OUT", tmp_path)

    def train(*words: str) -> running.Run:
        is_high, seed = "optimizer.lr=0.005" in words, int(words[-1].removeprefix("seed=")) if len(words) > 4 else 0
        val, test = (0.7, 0.5) if is_high else (0.6, 0.9)
        curves = {"val/accuracy": [(5, val + seed / 100), (10, 0.1)]}  # the best counts, not the last
        return running.Run({"test/accuracy": test + seed / 100}, curves, tmp_path / words[0])

    monkeypatch.setattr(few_labels, "train", train)
    numbers = few_labels.main(3, 10)
    assert len(numbers) == 5
    for found in numbers.values():
        assert found == {
            "rate": "0.005",
            "validation accuracy": "0.7100 ± 0.0100",
            "test accuracy": "0.5100 ± 0.0100",
        }
