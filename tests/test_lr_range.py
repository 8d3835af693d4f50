"""The range test: the ramp, what is read from a curve, and that nothing is left of the network."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from zoo import cli
from zoo.errors import ZooError
from zoo.lr_range import Ramp, find

TINY = ["trainer.accelerator=cpu", "steps=30", "min=1e-4", "max=100"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_ramp_is_exponential() -> None:
    factors = [Ramp(first=1e-4, last=10).multiplier(step, 6, 3) for step in range(6)]
    assert factors == pytest.approx([1e-4, 1e-3, 1e-2, 0.1, 1, 10])


def curve(noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A loss that falls fastest at 10^-2, is least at 10^-1 and explodes behind it."""
    places = np.linspace(-7, 1, 161)
    losses = 2 - 1 / (1 + np.exp(-6 * (places + 2))) + 10 ** (4 * (places + 0.2))
    return 10**places, losses + noise * np.random.default_rng(0).standard_normal(161)


@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_what_a_curve_tells(noise: float) -> None:
    rates, losses = curve(noise)
    finding = find(rates, losses)
    assert abs(math.log10(finding.steepest) + 2) < 0.15
    assert 10**-1.4 < finding.least < 10**-0.6
    assert finding.suggested == pytest.approx(finding.least / 10, rel=0.05)
    assert not finding.still_falls
    assert finding.rates[-1] < 3  # where the loss has left the start
    assert np.abs(finding.smoothed - np.minimum(losses, 4)[: len(finding.smoothed)]).max() < 0.5


def test_curves_that_tell_nothing() -> None:
    rates, losses = curve()
    assert find(rates[:110], losses[:110]).still_falls
    with pytest.raises(ZooError, match="falls at none"):
        find(rates, np.linspace(1, 2, 161))
    with pytest.raises(ZooError, match="after 4 steps"):
        find(rates[:4], losses[:4])


def test_a_range_test(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lr", "model=mlp", "data=synthetic", "optimizer=sgd", *TINY]) == 0
    [folder] = Path("runs/lr-mlp-synthetic").iterdir()
    assert {path.name for path in folder.iterdir()} == {"lr.csv", "lr.png"}
    with (folder / "lr.csv").open() as file:
        rows = list(csv.DictReader(file))
    rates = [float(row["lr"]) for row in rows]
    assert rates[:2] == pytest.approx([1e-4, 1e-4 * 10 ** (6 / 29)])
    assert len(rates) <= 29
    assert float(rows[0]["loss"]) == pytest.approx(math.log(10), abs=0.8)
    printed = capsys.readouterr().out
    assert "suggested, a tenth of that: optimizer.lr=" in printed
    assert f"lr.csv, lr.png: {folder}" in printed
    assert "test/" not in printed


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["model=gan"], "a GAN has two losses"),
        (["min=1", "max=0.1"], "max the larger"),
        (["min=0"], "above 0"),
        (["steps=3"], "10 or more"),
        (["stps=3"], "there is no key stps"),
        (["steps=x"], "whole number"),
        (["resume=x"], "takes group=option"),
        (["-m"], "takes group=option"),
        (["model=mlp", "model.hidden=[-1]", "data=synthetic"], "hidden"),
    ],
    ids=" ".join,
)
def test_refused(words: list[str], part: str, capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    assert cli.main(["lr", *words]) == 2
    assert part in capsys.readouterr().err
    assert not list(elsewhere.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("model", ["lstm", "vae", "seq2seq", "lstm_forecaster", "autoencoder"])
def test_other_tasks(model: str) -> None:
    assert cli.main(["lr", f"model={model}", "run_dir=out", "min=1e-5", *TINY[:2], "max=1"]) == 0
    assert (Path("out") / "lr.png").exists()
