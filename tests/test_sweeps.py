"""Sweeps: what is run, what is kept when it is interrupted, what is told at the end, and the page about them."""

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hydra.core.global_hydra import GlobalHydra

from zoo import cli, sweep_runs, sweeps
from zoo.checks import check
from zoo.folders import new_folder
from zoo.search import Dimension, dimensions, draw, grid, propose
from zoo.signals import Stopped
from zoo.sweep_tables import picture, rows, write_tables

ROOT = Path(__file__).parents[1]
TINY = ["data=synthetic", "model=mlp", "trainer.accelerator=cpu", "trainer.max_steps=2", "logger=csv"]
LR = "optimizer.lr=tag(log,interval(1e-4,1e-1))"
Train = Callable[[Sequence[str], Path, str], tuple[int, str]]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stand_in(words: Sequence[str], log: Path, name: str) -> tuple[int, str]:
    """In place of a run's process: a score that is a function of its words; `resume=` repeats nothing."""
    values = dict(word.split("=", 1) for word in words)
    if "resume" in values:
        folder = Path(values["resume"])
        values = json.loads((folder / "config.yaml").read_text())
    else:
        folder = Path(values["run_dir"].strip("'"))
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_text(json.dumps(values))
    score = -abs(float(values.get("optimizer.lr", "0.001")) - 0.01) + 0.0001 * float(values.get("seed", 0))
    (folder / "scores.json").write_text(json.dumps({"test/accuracy": 0.5, "val/accuracy": score}))
    return 0, ""


def in_this_process(words: Sequence[str], log: Path, name: str) -> tuple[int, str]:
    """A real run without a process of its own: Hydra, which the launcher has in use, can be in use once in each."""
    state = GlobalHydra.instance()
    in_use, state.hydra = state.hydra, None
    try:
        return cli.main(["train", *words]), ""
    finally:
        state.hydra = in_use


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Runs are stood in for; their words, in order."""
    called: list[list[str]] = []

    def train(words: Sequence[str], log: Path, name: str) -> tuple[int, str]:
        called.append(list(words))
        return stand_in(words, log, name)

    monkeypatch.setattr(sweep_runs, "train", train)
    return called


def replace_train(monkeypatch: pytest.MonkeyPatch, special: dict[int, Any]) -> None:
    """Stand-ins, but run number n ends as `special[n]`: with an exit code and stderr, or with an exception."""

    def train(words: Sequence[str], log: Path, name: str) -> tuple[int, str]:
        end = special.get(int(log.stem))
        if isinstance(end, BaseException):
            place = Path(next(word for word in words if word.startswith("run_dir=")).partition("=")[2])
            place.mkdir()
            (place / "config.yaml").write_text(json.dumps(dict(word.split("=", 1) for word in words)))
            raise end
        return end if end else stand_in(words, log, name)

    monkeypatch.setattr(sweep_runs, "train", train)


def only_sweep() -> Path:
    [folder] = Path("runs/multirun").iterdir()
    return folder


def ends(folder: Path) -> list[str]:
    return [run["end"] for run in json.loads((folder / "sweep.json").read_text())["runs"]]


# What is run ----------------------------------------------------------------------------------------------------------


def test_a_grid_trains_every_combination_and_shows_the_best(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real runs, in this process."""
    monkeypatch.setattr(sweep_runs, "train", in_this_process)
    assert cli.main(["train", "-m", *TINY, "seed=0,1", "optimizer.lr=1e-9,0.01"]) == 0
    folder = only_sweep()
    record = json.loads((folder / "sweep.json").read_text())
    assert [run["words"][5:] for run in record["runs"]] == [
        ["seed=0", "optimizer.lr=1e-09"],
        ["seed=1", "optimizer.lr=1e-09"],
        ["seed=0", "optimizer.lr=0.01"],
        ["seed=1", "optimizer.lr=0.01"],
    ]
    assert ends(folder) == ["done"] * 4
    assert (record["monitor"], record["mode"]) == ("val/accuracy", "max")
    for run in record["runs"]:
        scores = json.loads((folder / str(run["number"]) / "scores.json").read_text())
        assert run["score"] == scores["val/accuracy"]
        about = json.loads((folder / str(run["number"]) / "run.json").read_text())
        assert about["command"][-8:-1] == run["words"]
    assert {path.name for path in folder.iterdir()} == {
        *("0", "1", "2", "3", "logs", "sweep.json", "sweep.csv", "sweep.md", "sweep.png")
    }
    lines = capsys.readouterr().out.splitlines()
    best = lines[lines.index("4 of 4 runs done; val/accuracy, higher is better:") + 1]
    assert best.endswith("(n = 2)  optimizer.lr=0.01")
    assert str(folder) in lines[-1]
    assert "ZOO_RUN_DIR" not in os.environ


def test_a_failed_and_a_killed_run_do_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replace_train(monkeypatch, {0: (2, "note: of the data\nmodel: a sentence\nDid you mean x?"), 2: (-9, "")})
    assert cli.main(["train", "-m", *TINY, "seed=range(0,4)"]) == 2
    folder = only_sweep()
    assert ends(folder) == ["failed", "done", "failed", "done"]
    output = capsys.readouterr()
    first, second, last = output.err.splitlines()
    assert first.startswith("run 0 (")
    assert first.endswith("failed: model: a sentence Did you mean x?")
    assert second.endswith("failed: killed by SIGKILL, perhaps for want of memory")
    assert last == f"2 of 4 runs are not done. To run them again: python train.py resume={folder}"
    assert "(n = 2, 2 not done)" in output.out
    assert not (folder / "0").exists()
    replace_train(monkeypatch, {})
    assert cli.main(["train", f"resume={folder}"]) == 0
    assert ends(folder) == ["done"] * 4


def test_an_interrupted_sweep_repeats_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], runs: list[list[str]]
) -> None:
    counted = sweep_runs.train
    replace_train(monkeypatch, {1: Stopped(signal.SIGTERM, Path("runs/multirun/x"))})
    words = ["train", "-m", *TINY, "seed=0,1,2", "hydra.sweep.dir=runs/multirun/x"]
    assert cli.main(words) == 143
    assert capsys.readouterr().err == "Stopped. Continue with: python train.py resume=runs/multirun/x\n"
    folder = only_sweep()
    assert ends(folder) == ["done", "stopped", "waiting"]
    monkeypatch.setattr(sweep_runs, "train", counted)
    assert cli.main(["train", f"resume={folder}"]) == 0
    assert [run[-1] for run in runs] == [f"resume={folder / '1'}", f"run_dir={folder / '2'}"]
    assert ends(folder) == ["done"] * 3
    assert cli.main(["train", f"resume={folder}"]) == 0
    assert len(runs) == 2
    assert cli.main(words) == 2
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.parametrize("by", ["random", "optuna"])
def test_an_interrupted_search_goes_on_as_if_it_had_not_been(
    by: str, monkeypatch: pytest.MonkeyPatch, runs: list[list[str]]
) -> None:
    if by == "optuna":
        pytest.importorskip("optuna")
    trials, seeds = (13, 1) if by == "optuna" else (3, 2)  # Optuna begins with ten random points
    words = ["train", "-m", *TINY, f"sweep={by}", f"sweep.trials={trials}", LR, f"seed=range(0,{seeds})"]
    assert cli.main([*words, "hydra.sweep.dir=whole"]) == 0
    whole = [run[-3:-1] for run in runs]
    assert len(whole) == trials * seeds
    counted = sweep_runs.train
    replace_train(monkeypatch, {len(whole) - 2: KeyboardInterrupt()})
    assert cli.main([*words, "hydra.sweep.dir=parted"]) == 130
    monkeypatch.setattr(sweep_runs, "train", counted)
    assert cli.main(["train", "resume=parted"]) == 0
    again = [run["words"][-2:] for run in json.loads(Path("parted/sweep.json").read_text())["runs"]]
    assert again == whole
    assert len({lr for lr, _ in whole}) == trials
    assert cli.main(["train", "resume=parted", f"sweep.trials={trials + 1}"]) == 0  # longer
    assert len(ends(Path("parted"))) == len(whole) + seeds


def test_optuna_learns_from_scores() -> None:
    pytest.importorskip("optuna")
    space = [Dimension("x", (), -4.0, 4.0), Dimension("kind", ("good", "bad"))]
    told: list[Any] = []
    for _ in range(40):
        [point] = propose(space, told, count=1, seed=0, mode="min")
        score = (float(point["x"]) - 1) ** 2 + 3 * (point["kind"] == "bad")
        told.append((point, None if len(told) == 3 else score))
    late = told[-15:]
    assert sum(point["kind"] == "good" for point, _ in late) > 10
    assert sum(abs(float(point["x"]) - 1) < 1 for point, _ in late) > 6  # of 15, of which a quarter would be by chance
    worse = [(point, None if score is None else -score) for point, score in told]
    assert propose(space, told, count=2, seed=0, mode="min") == propose(space, worse, count=2, seed=0, mode="max")


def test_draws_fill_their_ranges() -> None:
    words = [LR, "a=interval(-1,1)", "b=int(interval(2,4))", "c=tag(log,int(interval(1,100)))", "d=x,y", "e=5"]
    shared, space = dimensions(words)
    assert shared == ["e=5"]
    points = [draw(space, number, seed=3) for number in range(600)]
    lrs = [float(point["optimizer.lr"]) for point in points]
    assert 1e-4 <= min(lrs) < 1.2e-4
    assert 0.08 < max(lrs) <= 0.1
    assert 0.45 < sum(lr < 10**-2.5 for lr in lrs) / 600 < 0.55
    assert 0.45 < sum(float(point["a"]) < 0 for point in points) / 600 < 0.55
    for value in "234":
        assert 160 < sum(point["b"] == value for point in points) < 240
    cs = [int(point["c"]) for point in points]
    assert (min(cs), max(cs)) == (1, 100) or max(cs) > 90
    assert 0.4 < sum(c <= 9 for c in cs) / 600 < 0.62
    assert 250 < sum(point["d"] == "x" for point in points) < 350
    assert points[:5] == [draw(space, number, seed=3) for number in range(5)] != [draw(space, 0, seed=4)]


def test_a_grid_is_in_the_order_of_its_words() -> None:
    assert grid(dimensions(["a=1,2", "b=x,y"])[1]) == [{"a": a, "b": b} for a in "12" for b in "xy"]
    assert grid([]) == [{}]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([LR], "add sweep=random or sweep=optuna"),
        (["sweep=random", "seed=0,1"], "nothing to search over"),
        (["sweep=random", "optimizer.lr=interval(0.1,0.1)"], "to a larger one"),
        (["sweep=random", "data.batch_size=tag(log,int(interval(-3,8)))"], "data.batch_size=-3: must be 1 or more"),
        (["sweep=random", "trainer.max_epochs=interval(1,8)"], "whole number"),
        (["sweep=random", "task.label_smoothing=tag(log,interval(0,0.5))"], "begins above 0"),
        (["sweep=random", "optimizer.lr=interval(-1,0.5)"], "must be more than 0"),
        (["sweep=randm", "seed=0,1"], "Did you mean"),
        (["sweep.trial=3", "seed=0,1"], "Did you mean sweep.trials?"),
        (["sweep.trials=3", "seed=0,1"], "add sweep=random"),
        (["sweep=random", "sweep.at_once=3", LR], "only Optuna waits"),
        (["sweep=random", "sweep.trials=0", LR], "1 or more"),
        (["hydra/launcher=jobli", "seed=0,1"], "jobli"),
        (["hydra/sweeper=optuna", "seed=0,1"], "sweep=optuna"),
        (["hydra.sweep.subdir=x", "seed=0,1"], "hydra.sweep.dir"),
        (["--cfg", "job", "seed=0,1"], "--cfg job shows the config of one run"),
        (["data=sunspots", "model=lstm_forecaster", "data.folds=5", "data.fold=0,1"], "no key data.fold"),
    ],
    ids=" ".join,
)
def test_refused(words: list[str], part: str, capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    assert cli.main(["train", "-m", *words]) == 2
    assert part in capsys.readouterr().err
    assert not list(elsewhere.iterdir())


def test_what_needs_a_sweep_is_told(capsys: pytest.CaptureFixture[str], runs: list[list[str]]) -> None:
    assert cli.main(["train", "sweep=random"]) == 2
    assert "asked for with -m" in capsys.readouterr().err
    assert cli.main(["train", "-m", *TINY, "seed=0"]) == 0
    capsys.readouterr()
    for word in ("seed=3", "sweep=random", "hydra.sweep.dir=x", "trainer=cpu"):
        assert cli.main(["train", f"resume={only_sweep()}", word]) == 2
        assert "a continued sweep keeps its runs" in capsys.readouterr().err
    (only_sweep() / "sweep.json").write_text("{")
    assert cli.main(["train", f"resume={only_sweep()}"]) == 2
    assert "damaged" in capsys.readouterr().err


def test_without_optuna(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], elsewhere: Path) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert cli.main(["train", "-m", "sweep=optuna", LR]) == 2
    assert "pip install optuna" in capsys.readouterr().err
    assert not list(elsewhere.iterdir())


# Side by side ---------------------------------------------------------------------------------------------------------


def test_folders_made_in_the_same_second_are_not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda form: "2026-01-31_12-00-00")
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: new_folder(Path("runs/multirun")), range(40)))
    assert len(set(folders)) == 40


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_launchers_run_side_by_side(launcher: str, capsys: pytest.CaptureFixture[str], runs: list[list[str]]) -> None:
    """With runs that are refused before they import torch; their words are from no command, so nobody saw them."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher" if launcher == "joblib" else "submitit")
    assert cli.main(["train", "-m", *TINY, "seed=0,1", "hydra.sweep.dir='a sweep, ä'"]) == 0
    file = Path("a sweep, ä/sweep.json")
    record = json.loads(file.read_text())
    for run in record["runs"]:
        run["words"] = [f"sed={run['number']}"]
        for name in ("config.yaml", "scores.json"):
            (file.parent / str(run["number"]) / name).unlink()
    file.write_text(json.dumps(record))
    words = [f"hydra/launcher={launcher}"] + ["hydra.launcher.n_jobs=2"] * (launcher == "joblib")
    assert cli.main(["train", "resume=a sweep, ä", *words]) == 2
    assert ends(file.parent) == ["failed", "failed"]
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("run ")] == [
        f"run {n} (sed={n}) failed: sed={n}: there is no key sed. Did you mean seed?" for n in (0, 1)
    ]
    assert lines[-1].endswith("python train.py resume='a sweep, ä'")


def test_kill_9_of_a_sweep(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Its run stops too; the sweep goes on with one command, and ends as one that was left alone, bit for bit."""
    words = [word for word in TINY if "max_steps" not in word]
    words += ["trainer.max_epochs=60", "trainer.limit_train_batches=4", "seed=0,1"]
    command = [sys.executable, ROOT / "train.py", "-m", *words, "hydra.sweep.dir=sweep"]
    started = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})  # as many as here
    checkpoint, until = Path("sweep/0/checkpoints/last.ckpt"), time.monotonic() + 300
    while not checkpoint.exists() and started.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    started.kill()
    started.wait()
    assert not Path("sweep/0/scores.json").exists(), "the run was too short"
    monkeypatch.setattr(sweep_runs, "train", in_this_process)
    assert cli.main(["train", "resume=sweep"]) == 0  # waits for the run to stop
    assert cli.main(["train", "-m", *words, "hydra.sweep.dir=whole"]) == 0
    for number in ("0", "1"):
        for name in ("scores.json", "metrics.csv"):
            assert (Path("sweep") / number / name).read_text() == (Path("whole") / number / name).read_text()


# Tables ---------------------------------------------------------------------------------------------------------------


def record_of(scores: Sequence[float | None], mode: str = "max") -> dict[str, Any]:
    """Two learning rates with two seeds each."""
    runs = []
    for number, score in enumerate(scores):
        values = {"optimizer.lr": ("0.1", "0.001")[number // 2], "seed": str(number % 2)}
        run = {"number": number, "point": number // 2, "values": values, "words": [], "seconds": 1.5}
        runs.append(run | {"score": score, "end": "failed" if score is None else "done", "says": ""})
    return {"command": ["python", "train.py"], "monitor": "val/x", "mode": mode, "runs": runs}


@pytest.mark.parametrize(("mode", "first"), [("max", "0.001"), ("min", "0.1")])
def test_the_best_comes_first(mode: str, first: str) -> None:
    assert rows(record_of([1.0, 3.0, 4.0, 6.0], mode))[0].values == {"optimizer.lr": first}
    row = rows(record_of([1.0, 3.0, None, None], mode))
    assert [r.numbers for r in row] == [[0, 1], [2, 3]]
    assert [r.outcome() for r in row] == ["2 ± 1.4 (n = 2)", "— (n = 0, 2 not done)"]


def test_files(elsewhere: Path) -> None:
    record = record_of([0.5, 0.7, None, 0.9])
    for number in (0, 1, 3):
        Path(str(number)).mkdir()
        Path(str(number), "scores.json").write_text(
            json.dumps({"val/x": record["runs"][number]["score"], "test/x": 2.0})
        )
    printed = write_tables(elsewhere, record)
    assert printed[0] == "3 of 4 runs done; val/x, higher is better:"
    with Path("sweep.csv").open() as file:
        lines = list(csv.reader(file))
    assert lines[0] == ["run", "optimizer.lr", "seed", "end", "seconds", "val/x", "test/x"]
    assert lines[2] == ["1", "0.1", "1", "done", "1.5", "0.7", "2.0"]
    assert lines[3] == ["2", "0.001", "0", "failed", "1.5", "", ""]
    table = [line for line in Path("sweep.md").read_text().splitlines() if line.startswith("|")]
    assert table[2:] == ["| 0.001 | 0.9 (n = 1, 1 not done) | 2, 3 |", "| 0.1 | 0.6 ± 0.14 (n = 2) | 0, 1 |"]
    axes = picture(record).get_axes()
    assert [a.get_xlabel() for a in axes] == ["optimizer.lr", "seed"]
    assert [a.get_xscale() for a in axes] == ["log", "linear"]
    assert axes[0].collections[0].get_offsets().tolist() == [[0.1, 0.5], [0.1, 0.7], [0.001, 0.9]]
    assert axes[0].collections[1].get_offsets().tolist() == [[0.001, 0.9], [0.1, 0.6]]


def test_nothing_done_is_no_picture(elsewhere: Path) -> None:
    assert write_tables(elsewhere, record_of([None] * 4))[0] == "0 of 4 runs done."
    assert not Path("sweep.png").exists()


# The page -------------------------------------------------------------------------------------------------------------

BLOCKS = re.findall(r"```bash\n(.*?)```", (ROOT / "docs/sweeps.md").read_text(encoding="utf-8"), re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_of_the_page_run(line: str, monkeypatch: pytest.MonkeyPatch, runs: list[list[str]]) -> None:
    """Runs are stood in for, their words are checked; searches are of three points; launchers are made and not used."""
    words = shlex.split(line)
    if "lr" in words:
        tiny = ["steps=12", "max=0.3", "min=0.001", "trainer.accelerator=cpu"]
        given = [word for word in words[4:] if not word.startswith(("steps=", "min=", "max="))]
        assert cli.main(["lr", *given, *tiny]) == 0
        return
    launch = sweeps.launch
    monkeypatch.setattr(sweeps, "launch", lambda folder, launcher, numbers: launch(folder, [], numbers))
    if "joblib" in line or "slurm" in line:
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher" if "joblib" in line else "submitit")
    if "optuna" in line:
        pytest.importorskip("optuna")
    if "resume" in line:
        name = line.partition("resume=")[2]
        assert cli.main(["train", "-m", *TINY, "seed=0", f"hydra.sweep.dir={name}"]) == 0
    elif "sweep.trials" in line:
        words = [re.sub(r"(sweep.trials=)\d+", r"\g<1>3", word) for word in words]
    assert words[:2] == ["python", "train.py"]
    assert cli.main(["train", *words[2:]]) == 0
    assert runs
    check(runs[-1])
