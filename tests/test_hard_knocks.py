"""What happens to files and clocks under a run: it goes on, or ends in a sentence and can go on. Nothing is lost.

Beside what other tests do: kills (test_resume.py, test_processes.py), no memory (test_devices.py), damaged checkpoints
and configs (test_checkpoint.py, test_resume.py), damaged data and hostile files (test_fuzz.py).
"""

import errno
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

import zoo.checkpoint
import zoo.data.embedded
import zoo.logs
from zoo import cli
from zoo.checkpoint import FORMAT_VERSION, Checkpoints, read_checkpoint
from zoo.errors import ZooError
from zoo.evaluation import evaluate_checkpoint
from zoo.folders import new_folder

ROOT = Path(__file__).parents[1]
SHORT = ["trainer.accelerator=cpu", "trainer.max_epochs=3", "logger=csv", "trainer.log_every_n_steps=2"]
TINY = ["model=mlp", "model.hidden=[4]", "data=synthetic", "data.train_size=64", *SHORT]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def train(*words: str) -> int:
    return cli.main(["train", *words])


def ends(folder: str | Path) -> tuple[str, dict[str, float]]:
    """What a finished run leaves: its metrics to the last digit, and its scores."""
    folder = Path(folder)
    return (folder / "metrics.csv").read_text(), json.loads((folder / "scores.json").read_text())


@pytest.fixture
def after_an_epoch(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """`after_an_epoch(knock)` lets something happen once, when the first epoch has been saved."""
    original = Checkpoints.on_train_epoch_end

    def arrange(knock: Callable[[], Any]) -> None:
        due = [knock]

        def hook(self: Checkpoints, trainer: Any, module: Any) -> None:
            original(self, trainer, module)
            if due:
                due.pop()()

        monkeypatch.setattr(Checkpoints, "on_train_epoch_end", hook)

    return arrange


# Data that goes away --------------------------------------------------------------------------------------------------


def data_of(kind: str) -> tuple[list[str], Path]:
    """The words for a run on files of its own, and the file or folder that they lie in."""
    draws = np.random.default_rng(0)
    if kind == "csv":
        rows = "".join(f"{i % 9},{i % 7},{'pq'[i % 2]}\n" for i in range(60))
        Path("data").write_text(f"a,b,y\n{rows}")
        return ["model=mlp", "model.hidden=[4]", "data=csv_table", "data.path=data", "data.target=y"], Path("data")
    if kind == "text":
        Path("data").write_text("a quick brown fox " * 300)
        line = "model=lstm model.hidden=4 model.embedding=4 data=text_file data.path=data data.batch_size=4"
        return [*line.split(), "data.sequence_length=32", "data.eval_batch_size=4"], Path("data")
    for name in ("images", "masks") if kind == "masks" else ("a", "b"):
        Path("data", name).mkdir(parents=True)
        for number in range(12):
            levels, size = (2, 32) if name == "masks" else (255, 32 if kind == "masks" else 28)
            pixels = draws.integers(0, levels, (size, size), dtype=np.uint8)
            Image.fromarray(pixels).save(Path("data", name, f"{number}.png"))
    if kind == "masks":
        line = "model=unet model.width=0.03125 model.depth=1 data=mask_folder data.root=data data.image_size=32"
        return [*line.split(), "data.batch_size=4"], Path("data")
    line = "model=lenet5 data=image_folder data.root=data data.image_size=28 data.batch_size=4"
    return [*line.split(), f"data.memory_limit_mb={0 if kind == 'streamed' else 100}"], Path("data")


@pytest.mark.parametrize("kind", ["csv", "text", "masks", "folder"])
def test_data_in_memory_may_go_away(kind: str, after_an_epoch: Any) -> None:
    words, place = data_of(kind)
    assert train(*words, *SHORT, "run_dir=whole") == 0
    after_an_epoch(lambda: place.rename("gone"))
    assert train(*words, *SHORT, "run_dir=run") == 0
    assert ends("run") == ends("whole")


@pytest.mark.parametrize(("how", "workers"), [("gone", 0), ("cut", 0), pytest.param("cut", 1, marks=pytest.mark.slow)])
def test_a_picture_that_goes_away_ends_the_run_which_goes_on_when_it_is_back(
    how: str, workers: int, after_an_epoch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words, place = data_of("streamed")
    words += [f"data.num_workers={workers}"]
    assert train(*words, *SHORT, "run_dir=whole") == 0
    shutil.copytree(place, "kept")

    def knock() -> None:
        for path in place.rglob("*.png"):
            if how == "gone":
                path.unlink()
            else:
                path.write_bytes(path.read_bytes()[:40])

    after_an_epoch(knock)
    capsys.readouterr()
    assert train(*words, *SHORT, "run_dir=run") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("cannot read data/")
    assert "mend or remove it" in said
    shutil.rmtree(place)
    shutil.move("kept", place)
    assert train("resume=run") == 0
    assert ends("run") == ends("whole")


DAMAGED = [
    *(("digits", "mnist_5k.npz", "cut"), ("fashion", "fashion_mnist_5k_1k.npz", "flipped")),
    *(
        ("earth", "earth_climate.png", "cut"),
        ("earth", "earth.jpg", "flipped"),
        ("sunspots", "sunspots.csv", "flipped"),
    ),
    *(("earth_segmentation", "earth.jpg", "gone"), ("moby_dick", "moby_dick.txt.gz", "cut")),
    *(("languages", "udhr_28_languages.tsv.gz", "flipped"), ("languages", "udhr_28_languages.tsv.gz", "gone")),
]


@pytest.mark.parametrize(("data", "name", "how"), DAMAGED)
def test_a_damaged_file_of_the_package_is_named(
    data: str, name: str, how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models = {"earth_segmentation": "unet", "moby_dick": "lstm", "languages": "lstm_classifier"}
    models |= {"sunspots": "gru_forecaster"}
    shutil.copytree(zoo.data.embedded.FILES, "files")
    content = Path("files", name).read_bytes()
    Path("files", name).unlink()
    if how != "gone":
        middle = len(content) // 2
        bent = bytes([content[middle] ^ 1]) + content[middle + 1 :]
        Path("files", name).write_bytes(content[:middle] + (bent if how == "flipped" else b""))
    monkeypatch.setattr(zoo.data.embedded, "FILES", Path("files"))
    assert train(f"data={data}", f"model={models.get(data, 'lenet5')}", *SHORT) == 2
    what = "gone" if how == "gone" else "damaged"
    assert capsys.readouterr().err == f"files/{name} is {what}: install the zoo again, or restore this file.\n"
    assert not Path("runs").exists()


def test_a_damaged_file_of_torchvisions_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [Path("nowhere").absolute().as_uri()])
    raw = Path("downloads/FashionMNIST/raw")
    raw.mkdir(parents=True)
    for part, count in (("train", 60), ("t10k", 20)):
        for name, header, each in (("images-idx3", [2051, count, 28, 28], 784), ("labels-idx1", [2049, count], 1)):
            body = np.array(header, ">i4").tobytes() + bytes(range(10)) * (count * each // 10)
            (raw / f"{part}-{name}-ubyte").write_bytes(body)
    words = ["model=mlp", "model.hidden=[4]", "data=fashion_mnist", "data.val_size=20", *SHORT]
    assert train(*words) == 0
    labels = raw / "train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + bytes([200]))  # there is no class of this number
    assert train(*words) == 2
    assert "FashionMNIST in downloads is damaged: it has classes beyond the 10." in capsys.readouterr().err
    labels.unlink()
    with gzip.open(f"{labels}.gz", "wb") as file:
        file.write(bytes(100))
    Path(f"{labels}.gz").write_bytes(Path(f"{labels}.gz").read_bytes()[:20])
    assert train(*words) == 2
    assert "FashionMNIST is not in downloads, or is damaged" in capsys.readouterr().err


# Folders and their files ----------------------------------------------------------------------------------------------


def test_runs_started_at_once_have_folders_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    now, clock = time.localtime(), time.strftime
    monkeypatch.setattr(time, "strftime", lambda form: clock(form, now))
    children = []
    for _ in range(4):
        if not (child := os.fork()):
            try:
                for _ in range(20):
                    (new_folder(Path("runs/mlp-synthetic")) / "run.json").touch(exist_ok=False)
            except BaseException:
                os._exit(1)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert len(list(Path("runs/mlp-synthetic").glob("*/run.json"))) == 80


@pytest.mark.slow
def test_two_commands_in_one_second_are_two_runs() -> None:
    command = [sys.executable, str(ROOT / "train.py"), *TINY]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[1] for process in both] == ["", ""]
    assert len(list(Path("runs/mlp-synthetic").glob("*/scores.json"))) == 2


@pytest.mark.slow
def test_of_two_commands_for_one_folder_one_trains() -> None:
    command = [sys.executable, str(ROOT / "train.py"), *TINY, "run_dir=run"]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate()[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2]
    assert any("is being trained by another process" in text or "is not empty" in text for text in told)
    assert ends("run")[1]


NAMES = ["it's mine/Läufe été 日本 😀", "50% (new), [x] {y}: a=b", "-x", "$HOME ${seed} #1; tab\there"]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_any_kind(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    quoted = "'" + name.replace("'", "\\'").replace("${", "\\${") + "'"  # as Hydra reads it
    assert train(*TINY[:-2], "logger=csv", "trainer.max_epochs=1", f"run_dir={quoted}") == 0
    assert capsys.readouterr().err == ""
    assert [path.parent for path in Path().rglob("scores.json")] == [Path(name)]
    scores = ends(name)[1]
    assert cli.main(["evaluate", f"ckpt_path={name}"]) == 0
    assert f"test/accuracy {scores['test/accuracy']:.6g}\n" in capsys.readouterr().out
    assert train(f"resume={name}") == 0
    assert cli.main(["inspect", f"ckpt_path={name}/checkpoints/best.ckpt", "n=2"]) == 0
    assert (Path(name) / "inspect" / "statistics.csv").exists()


def test_data_and_weights_with_names_of_any_kind(capsys: pytest.CaptureFixture[str]) -> None:
    words, place = data_of("folder")
    place.rename("Bilder & mehr é😀")
    words = [word if word != "data.root=data" else "data.root='Bilder & mehr é😀'" for word in words]
    assert train(*words, *SHORT, "run_dir=first") == 0
    Path("first").rename("der erste – é")
    assert train(*words, *SHORT, "run_dir=second", "model.weights='der erste – é'") == 0
    assert "weights: 10 of 10 tensors from der erste – é" in capsys.readouterr().out


def test_text_of_any_kind(capsys: pytest.CaptureFixture[str]) -> None:
    Path("Brief é.txt").write_text("Grüße 😀 aus\u2028日本\r\nund zurück… " * 60, encoding="utf-8")
    words = "model=lstm model.hidden=4 model.embedding=4 data=text_file data.batch_size=2 data.sequence_length=16"
    assert train(*words.split(), *SHORT, "data.path='Brief é.txt'", "run_dir=run") == 0
    assert cli.main(["evaluate", "ckpt_path=run"]) == 0
    assert cli.main(["sample", "ckpt_path=run", "prompt=Grüße 😀", "length=5", "out=Antwort 😀.txt"]) == 0
    assert Path("Antwort 😀.txt").read_text(encoding="utf-8").startswith("Grüße 😀")


def test_a_moved_run_is_continued_evaluated_inspected_and_sampled(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["model=vae", "model.hidden=[8]", "model.latent_size=2", "train_examples=64", "data.batch_size=32"]
    words += ["trainer.limit_test_batches=1", "trainer.limit_val_batches=1"]
    assert train(*words, *SHORT, "trainer.max_epochs=1", "run_dir=here/run") == 0
    Path("else where").mkdir()
    Path("here/run").rename("else where/moved")
    assert train("resume=else where/moved", "trainer.max_epochs=2") == 0
    assert list(Path("here").iterdir()) == []
    assert cli.main(["evaluate", "ckpt_path=else where/moved"]) == 0
    assert cli.main(["inspect", "ckpt_path=else where/moved", "n=2"]) == 0
    assert cli.main(["sample", "ckpt_path=else where/moved", "n=2"]) == 0
    made = {path.parent.name for path in Path("else where/moved").rglob("*") if path.suffix in (".npz", ".csv")}
    assert made == {"moved", "inspect", "samples"}
    assert capsys.readouterr().err == ""


def test_a_folder_that_is_moved_under_its_run_can_be_continued(
    after_an_epoch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*TINY, "run_dir=whole") == 0
    after_an_epoch(lambda: Path("run").rename("moved"))
    assert train(*TINY, "run_dir=run") == 2
    told = capsys.readouterr().err
    assert told.startswith("run is gone: it was moved or removed while the run trained in it.\n")
    assert not Path("run").exists()
    assert train("resume=moved") == 0
    assert ends("moved") == ends("whole")


def test_metrics_that_are_removed_under_the_run_begin_anew(
    after_an_epoch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*TINY, "run_dir=whole") == 0
    after_an_epoch(lambda: Path("run/metrics.csv").unlink())
    capsys.readouterr()
    assert train(*TINY, "run_dir=run") == 0
    assert "run/metrics.csv is gone, and the steps in it: a new one begins." in capsys.readouterr().out
    (head, *lines), (first, *rest) = (ends(name)[0].splitlines() for name in ("whole", "run"))
    assert first == head
    assert rest == lines[-len(rest) :] != []
    assert ends("run")[1] == ends("whole")[1]
    assert train("resume=run", "trainer.max_epochs=4") == 0


def test_a_run_without_its_config_is_continued_by_its_checkpoint(
    after_an_epoch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*TINY, "run_dir=whole") == 0
    after_an_epoch(lambda: os.kill(os.getpid(), signal.SIGINT))
    assert train(*TINY, "run_dir=run") == 130
    Path("run/config.yaml").unlink()
    capsys.readouterr()
    assert train("resume=run") == 0
    assert capsys.readouterr().out.startswith("run/config.yaml was gone: written again from last.ckpt.\n")
    assert ends("run") == ends("whole")
    assert Path("run/config.yaml").read_text() == Path("whole/config.yaml").read_text()
    shutil.rmtree("run/checkpoints")
    Path("run/config.yaml").unlink()
    assert train("resume=run") == 2
    assert "is no run folder: it has no config.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "what"), [(errno.ENOSPC, "checkpoint"), (errno.EROFS, "checkpoint"), (errno.ENOSPC, "metrics")]
)
def test_a_folder_that_can_no_longer_be_written(
    number: int, what: str, after_an_epoch: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the error itself: a test that runs as root may write everywhere, and must fill no disk."""

    def refuse(*args: Any, **more: Any) -> None:
        raise OSError(number, os.strerror(number), "run")

    assert train(*TINY, "run_dir=whole") == 0
    with monkeypatch.context() as knocked:
        place: Any = (zoo.checkpoint.os, "fsync") if what == "checkpoint" else (zoo.logs.MetricsCSV, "log_metrics")
        after_an_epoch(lambda: knocked.setattr(*place, refuse))
        capsys.readouterr()
        assert train(*TINY, "run_dir=run") == 2
    assert capsys.readouterr().err.startswith(f"run: {os.strerror(number).lower()}; ")
    assert not list(Path("run").rglob("*.tmp"))
    assert read_checkpoint(Path("run/checkpoints/last.ckpt"))["epoch"] == 0
    assert train("resume=run") == 0
    assert ends("run") == ends("whole")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_made_read_only_under_the_run(after_an_epoch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(*TINY, "run_dir=whole") == 0
    after_an_epoch(lambda: Path("run/checkpoints").chmod(0o500))
    assert train(*TINY, "run_dir=run") == 2
    assert "permission denied; change its permissions" in capsys.readouterr().err
    Path("run/checkpoints").chmod(0o700)
    assert train("resume=run") == 0
    assert ends("run") == ends("whole")


def test_a_file_in_the_way_of_the_checkpoints(after_an_epoch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def knock() -> None:
        Path("run/checkpoints").rename("run/kept")
        Path("run/checkpoints").touch()

    assert train(*TINY, "run_dir=whole") == 0
    after_an_epoch(knock)
    assert train(*TINY, "run_dir=run") == 2
    assert capsys.readouterr().err == "run/checkpoints: file exists; move what is in the way, or choose another name.\n"
    Path("run/checkpoints").unlink()
    Path("run/kept").rename("run/checkpoints")
    assert train("resume=run") == 0
    assert ends("run") == ends("whole")


# Clocks and versions --------------------------------------------------------------------------------------------------


def test_a_clock_that_goes_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*TINY, "logger=tensorboard", "logger.pictures=false"]
    words.remove("logger=csv")
    assert train(*words, "run_dir=whole") == 0
    now = [time.time()]

    def earlier() -> float:
        now[0] -= 3600
        return now[0]

    monkeypatch.setattr(time, "time", earlier)
    assert train(*words, "trainer.max_epochs=2", "run_dir=short") == 0
    assert train("resume=short", "trainer.max_epochs=3") == 0
    lines = [[line.split(",")[0] for line in ends(name)[0].splitlines()] for name in ("short", "whole")]
    assert lines[0] == lines[1]  # the same steps; a schedule over fewer epochs has other rates
    assert len(list(Path("short").glob("events.out.tfevents.*"))) == 2  # nothing was cut away


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, FORMAT_VERSION - 1, None])
def test_a_checkpoint_of_another_format_is_not_passed_over(version: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(*TINY, "run_dir=run") == 0
    last = Path("run/checkpoints/last.ckpt")
    content = torch.load(last, weights_only=True)
    content["zoo"]["format_version"] = version
    torch.save(content, last)
    Path("run/checkpoints/best.ckpt").write_bytes(last.read_bytes())
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    other = "a newer" if version == FORMAT_VERSION + 1 else "another"
    told = f"checkpoint format {version}; this version of the zoo reads format {FORMAT_VERSION}.\nRead it with {other}"
    for command in (["train", "resume=run"], ["evaluate", "ckpt_path=run"], ["inspect", "ckpt_path=run"]):
        capsys.readouterr()
        assert cli.main(command) == 2
        assert told in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before
    with pytest.raises(ZooError, match="checkpoint format"):
        evaluate_checkpoint(last)


def test_a_checkpoint_without_state_is_not_continued(capsys: pytest.CaptureFixture[str]) -> None:
    assert train(*TINY, "run_dir=run") == 0
    for path in Path("run/checkpoints").glob("*.ckpt"):
        content = torch.load(path, weights_only=True)
        torch.save({name: content[name] for name in ("zoo", "state_dict")}, path)  # as somebody may share it
    assert cli.main(["evaluate", "ckpt_path=run"]) == 0
    capsys.readouterr()
    assert train("resume=run", "trainer.max_epochs=4") == 2
    assert "holds a network, but no state of training to continue from" in capsys.readouterr().err
