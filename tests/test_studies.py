"""The studies' own arithmetic, and that a finished run is not repeated."""

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from studies import running, transfer, variance, xor


def test_theory_of_rectifiers_is_he_s_closed_form() -> None:
    """q' = n·v·q/2 (1502.01852, equation 9)."""
    for init, factor in (("He", 1.0), ("Glorot", 0.5), ("N(0, 0.01²)", variance.WIDTH * 1e-4 / 2)):
        q = variance.theory(init, "ReLU")
        assert q[0] == pytest.approx(2 * factor)
        assert [b / a for a, b in pairwise(q)] == pytest.approx([factor] * (variance.DEPTH - 1), rel=1e-3)


def test_theory_of_tanh_is_the_expectation_drawn() -> None:
    z = torch.randn(2_000_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q = variance.theory("He", "tanh")
    assert q[1] == pytest.approx(2 * float(torch.tanh(math.sqrt(q[0]) * z).square().mean()), rel=3e-3)


def test_measured_variance_is_near_theory() -> None:
    for init in ("Glorot", "LSUV"):
        found = variance.measure(init, "ReLU", networks=3)
        assert len(found) == variance.DEPTH
        assert found[0] == pytest.approx(variance.theory(init, "ReLU")[0], rel=0.05)
        assert found[2] == pytest.approx(variance.theory(init, "ReLU")[2], rel=0.2)


def test_xor_starts_and_gradient_descent() -> None:
    uniform = xor.draw("uniform", 50, torch.Generator().manual_seed(0))
    assert [tuple(p.shape) for p in uniform] == [(50, 2, 4), (50, 1, 4), (50, 4, 1), (50, 1, 1)]
    assert all(9 < float(p.abs().max()) <= 10 for p in uniform)
    normal = xor.draw("normal", 2000, torch.Generator().manual_seed(0))
    assert float(normal[0].std()) == pytest.approx(math.sqrt(1 / 2), rel=0.05)
    assert float(normal[2].std()) == pytest.approx(0.5, rel=0.05)
    assert not normal[1].any()
    assert not normal[3].any()
    losses, output = xor.train("normal", starts=5, steps=3000, rate=2.0)
    assert losses.shape == (3000, 5)
    assert ((output > 0.5) == (xor.TARGET > 0.5)).all()
    assert (losses[-1] < 0.01).all()


def test_a_finished_run_is_read_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = (
        "model=mlp",
        "data=synthetic",
        "trainer.max_epochs=2",
        "trainer.accelerator=cpu",
        "trainer.log_every_n_steps=1",
    )
    first = running.train(*words)
    scores = first.folder / "scores.json"
    scores.write_text(json.dumps({"test/accuracy": 0.123}))
    assert running.train(*words).scores == {"test/accuracy": 0.123}
    assert running.train(*words, "seed=1").folder != first.folder
    epochs, means = running.by_epoch(first.curves["train/loss"])
    assert epochs == [1, 2]
    logged = [value for epoch, value in first.curves["train/loss"] if epoch == 1]
    assert len(logged) > 1
    assert means[0] == pytest.approx(sum(logged) / len(logged))


def test_a_run_that_diverges_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = running.train(
        *("model=mlp", "data=synthetic", "optimizer=sgd", "optimizer.lr=1e30", "scheduler=constant"),
        *("trainer.max_epochs=2", "trainer.accelerator=cpu", "trainer.log_every_n_steps=1"),
    )
    assert run.scores == {}


def test_distance_from_scratch_is_in_the_larger_deviation() -> None:
    assert transfer.above_scratch([0.9, 0.9, 0.9], [0.7, 0.8, 0.6]) == pytest.approx(2.0)
    assert transfer.above_scratch([0.5, 0.7], [0.6, 0.6]) == pytest.approx(0.0)
