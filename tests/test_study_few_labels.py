"""The study of few labels: which runs it starts, which rate stands, what it writes."""

import json
from pathlib import Path

import pytest

from studies import few_labels, running
from zoo.checkpoint import find_checkpoint, read_checkpoint


def test_the_study_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One classifier of each way: an encoder that is frozen is the autoencoder's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(running, "OUT", tmp_path / "docs")
    monkeypatch.setattr(few_labels, "RATES", (0.001,))
    monkeypatch.setattr(few_labels, "SHOWN", {"shifted": ()})
    monkeypatch.setattr(few_labels, "figure", lambda *size: running.figure(*size[:3], 1))
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
    runs = {folder: read_checkpoint(find_checkpoint(folder)) for folder in words}
    bodies = [folder for folder, run in runs.items() if any("decoder" in n for n in run["state_dict"])]
    assert [runs[folder]["zoo"]["config"]["task"]["corruption"] for folder in bodies] == ["none", "masking"]
    assert list(numbers) == [
        "shifted, from scratch",
        "shifted, autoencoder, encoder frozen",
        "shifted, autoencoder, encoder trained on",
        "shifted, denoising autoencoder, encoder frozen",
        "shifted, denoising autoencoder, encoder trained on",
    ]
    encoders = {folder: {n: v for n, v in run["state_dict"].items() if "encoder" in n} for folder, run in runs.items()}
    starts = [None, bodies[0], bodies[0], bodies[1], bodies[1]]
    frozen = []
    classifiers = [folder for folder in words if folder not in bodies]
    for folder, start, found in zip(classifiers, starts, numbers.values(), strict=True):
        config = runs[folder]["zoo"]["config"]
        assert config["train_examples"] == 100
        assert config["optimizer"]["lr"] == 0.001
        accuracy = json.loads((folder / "scores.json").read_text())["test/accuracy"]
        assert found["test accuracy"] == f"{accuracy:.4f}"
        if start is not None:
            frozen.append(all(encoders[folder][name].equal(value) for name, value in encoders[start].items()))
    assert frozen == [True, False, True, False]


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
    assert len(numbers) == 10
    for found in numbers.values():
        assert found == {
            "rate": "0.005",
            "validation accuracy": "0.7100 ± 0.0100",
            "test accuracy": "0.5100 ± 0.0100",
        }
