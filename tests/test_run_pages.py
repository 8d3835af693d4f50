"""`zoo report`: the page's numbers are those of the logs, and no run folder, however broken, stops it."""

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from zoo import run_pages
from zoo.cli import main as zoo
from zoo.run_pages_curves import MOST_POINTS, thinned
from zoo.run_pages_events import Album, Picture, in_turns, read_events
from zoo.run_pages_folders import RUN_FILES, read_run, short

WORDS = ["model=lenet5", "data=synthetic", "trainer.accelerator=cpu", "trainer.max_epochs=2", "optimizer.lr=0.002"]
Page = dict[str, Any]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert zoo(["train", *WORDS, f"run_dir={folder}"]) == 0
    shutil.rmtree(folder / "checkpoints")
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run, to be broken."""
    return Path(shutil.copytree(trained, tmp_path / "runs" / "lenet5-synthetic" / "one"))


def report(*words: str | Path) -> int:
    return zoo(["report", *map(str, words)])


def contents(file: Path) -> Page:
    """What the page knows."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', file.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


@pytest.fixture
def page(run: Path) -> Callable[..., Page]:
    """`page()` makes the report of the folder of runs and returns what it knows."""

    def make(*words: str) -> Page:
        assert report(run.parents[1], *words) == 0
        return contents(run.parents[1] / "report.html")

    return make


# Numbers --------------------------------------------------------------------------------------------------------------


def test_scores_curves_and_counts_are_those_of_the_logs(run: Path, page: Callable[..., Page]) -> None:
    told = page()["runs"][0]
    assert told["scores"] == json.loads((run / "scores.json").read_text())
    assert told["score"] == "test/accuracy"
    assert (told["monitor"], told["mode"]) == ("val/accuracy", "max")
    with (run / "metrics.csv").open() as file:
        logged = {
            (row["name"], int(row["step"]), int(row["epoch"])): float(row["value"]) for row in csv.DictReader(file)
        }
    drawn = {
        (name, step, epoch): value
        for group in told["curves"]
        for name, values in group["values"].items()
        for step, epoch, value in zip(group["step"], group["epoch"], values, strict=True)
    }
    assert drawn.keys() == logged.keys()
    assert [np.float32(value) for value in drawn.values()] == [np.float32(logged[place]) for place in drawn]
    total = re.search(r"total +([\d,]+) +([\d,]+)", (run / "model.txt").read_text())
    assert total is not None
    assert [told["parameters"], told["multiply_adds"]] == [int(n.replace(",", "")) for n in total.groups()]
    assert (told["steps"], told["epochs"], told["seed"]) == (16, 2, 0)


def test_origin_of_a_run(run: Path, page: Callable[..., Page]) -> None:
    told, about = page()["runs"][0], json.loads((run / "run.json").read_text())
    assert told["command"].startswith("zoo train model=lenet5 data=synthetic trainer.accelerator=cpu")
    assert (told["name"], told["folder"]) == ("lenet5-synthetic/one", str(run))
    assert (told["state"], told["notes"]) == ("done", [])
    assert (told["model"], told["data"], told["task"]) == ("lenet5", "synthetic", "classification")
    assert (told["commit"], told["started"]) == (about["commit"], about["started"])
    assert f"torch {torch.__version__.split('+')[0]}" in told["about"]["versions"]


def test_pictures_are_the_last_of_each_name_and_those_of_the_folder(run: Path, page: Callable[..., Page]) -> None:
    (run / "samples").mkdir()
    Image.new("RGB", (3000, 20), "red").save(run / "samples" / "grid.png")
    data = page()
    told = {picture["tag"]: picture for picture in data["runs"][0]["pictures"]}
    assert told.keys() == {"visual/input", "visual/confusion", "visual/mistakes", "visual/filters", "grid"}
    assert told["visual/confusion"]["caption"] == "step 16"
    assert told["grid"]["caption"] == "samples/grid.png"
    assert data["sizes"][told["grid"]["image"]] == [760, 5]
    assert data["images"][told["grid"]["image"]].startswith("data:image/webp;base64,")
    assert page("pictures=0")["images"] == []
    assert page("pictures=0")["left_out"] == 5


def write_events(file: Path, *events: tuple[float, int, float]) -> None:
    """Events of (wall time, step, loss), as TensorBoard writes them."""
    with file.open("wb") as opened:
        writer = RecordWriter(opened)
        for wall_time, step, loss in events:
            value = Summary.Value(tag="train/loss", simple_value=loss)
            writer.write(Event(wall_time=wall_time, step=step, summary=Summary(value=[value])).SerializeToString())


def test_time_is_the_clock_of_the_events_without_pauses(tmp_path: Path) -> None:
    write_events(tmp_path / "events.out.tfevents.900.a", (900, 0, 3), (910, 1, 2), (930, 2, 1))
    write_events(tmp_path / "events.out.tfevents.5000.a", (5000, 2, 1), (5004, 3, 1))
    notes: list[str] = []
    events = read_events(tmp_path, notes)
    assert events.seconds == 34
    assert events.seconds_at == {0: 0, 1: 10, 2: 30, 3: 34}
    assert notes == []
    whole = (tmp_path / "events.out.tfevents.900.a").read_bytes()
    (tmp_path / "events.out.tfevents.900.a").write_bytes(whole[:-5])  # cut off in the last record
    assert read_events(tmp_path, notes).seconds == 14


def test_each_curve_has_the_clock_of_its_steps(page: Callable[..., Page]) -> None:
    told = page()["runs"][0]
    assert told["seconds"] > 0
    for group in told["curves"]:
        assert group["seconds"] == sorted(group["seconds"])
        assert 0 <= group["seconds"][0] <= group["seconds"][-1] <= told["seconds"]


def test_long_curves_are_thinned_to_points_of_their_own() -> None:
    steps = list(range(0, 5 * MOST_POINTS + 3))
    group = thinned(steps, steps, {"lr": [float(step) for step in steps]}, {})
    assert len(group["step"]) <= MOST_POINTS + 1
    assert (group["step"][0], group["step"][-1], group["every"]) == (0, steps[-1], 6)
    assert group["values"]["lr"] == group["step"] == group["epoch"]
    assert group["seconds"] is None


def test_differences_of_settings(run: Path, page: Callable[..., Page]) -> None:
    other = run.with_name("two")
    shutil.copytree(run, other)
    config = yaml.safe_load((other / "config.yaml").read_text())
    config["optimizer"]["lr"] = 0.5
    config["data"]["class_names"] = ["x" * 500]
    del config["penalty"]
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    data = page()
    order = [told["name"] for told in data["runs"]]
    table = {
        key: {
            name: None if place < 0 else column["values"][place]
            for name, place in zip(order, column["of"], strict=True)
        }
        for key, column in data["settings"].items()
    }
    first, second = "lenet5-synthetic/one", "lenet5-synthetic/two"
    assert table["optimizer.lr"] == {first: "0.002", second: "0.5"}
    assert table["penalty.l1"] == {first: "0.0", second: None}
    assert table["model"] == {first: "lenet5", second: "lenet5"}
    differing = {key for key, values in table.items() if values[first] != values[second]}
    assert differing == {"optimizer.lr", "data.class_names", "penalty.l1", "penalty.l2"}
    assert "data.augment.shift" not in table  # the same as augment.shift, which is there
    assert short("a" * 500) != short("a" * 499 + "b")
    assert len(short("a" * 500)) < 130


# Whatever the state of a run ------------------------------------------------------------------------------------------


def test_a_run_without_scores_is_unfinished(run: Path, page: Callable[..., Page]) -> None:
    (run / "scores.json").unlink()
    told = page()["runs"][0]
    assert (told["state"], told["scores"], told["score"], told["notes"]) == ("unfinished", {}, None, [])
    assert told["steps"] == 16


def test_a_run_under_way_is_told_from_one_that_was_killed(run: Path, page: Callable[..., Page]) -> None:
    (run / "scores.json").unlink()
    (run / ".lock").touch()
    assert page()["runs"][0]["state"] == "unfinished"
    code = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(run / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    assert page()["runs"][0]["state"] == "running"
    holder.communicate(b"\n")


@pytest.mark.parametrize(
    ("name", "content", "note"),
    [
        ("config.yaml", "model: [", "config.yaml is damaged: it is cut off, or no longer YAML."),
        ("config.yaml", "- 1", "config.yaml is damaged: it holds no names with values."),
        ("config.yaml", "", "config.yaml is damaged: it is empty."),
        ("config.yaml", "model: 3\ndata: [1]\ntask: {_target_: no.such.Task}", ""),
        ("run.json", "[]", "run.json is damaged: it holds no names with values."),
        ("run.json", '{"choices": 3, "command": "x", "hardware": 1, "commit": {}, "started": [1]}', ""),
        ("scores.json", '{"test/accuracy": 0.', "scores.json is damaged: it is cut off, or no longer JSON."),
        ("scores.json", '{"test/accuracy": "high"}', "scores.json is damaged: test/accuracy is no number."),
        (
            "metrics.csv",
            "step,epoch,name,value\n1,0,lr,x\n2,0,lr,0.1\n3,0\n",
            "2 of its lines were left out, the first",
        ),
        ("metrics.csv", "\0\0\0\xff\n" * 9, "metrics.csv is damaged"),
        ("model.txt", "total 1,2 x", ""),
        ("events.out.tfevents.1.x", "12345678" * 99, ""),
        ("broken.png", "no picture", ""),
    ],
)
def test_damage_is_named_and_stops_nothing(
    run: Path, page: Callable[..., Page], name: str, content: str, note: str
) -> None:
    (run / name).write_text(content, encoding="utf-8")
    shutil.copytree(run, run.with_name("sound"))
    told = {entry["name"]: entry for entry in page()["runs"]}["lenet5-synthetic/one"]
    assert note in " ".join(told["notes"])
    assert (told["state"] == "damaged") == bool(note)


def test_numbers_that_are_none_are_shown_as_such(run: Path, page: Callable[..., Page]) -> None:
    (run / "scores.json").write_text('{"test/loss": NaN, "test/accuracy": Infinity, "val/accuracy": 1}')
    (run / "metrics.csv").write_text("step,epoch,name,value\n1,0,train/loss,nan\n2,0,train/loss,1e300\n")
    told = page()["runs"][0]
    assert told["scores"] == {"test/loss": "nan", "test/accuracy": "inf", "val/accuracy": 1}
    assert told["curves"][0]["values"] == {"train/loss": [None, 1e300]}


def test_a_number_half_written_is_none(run: Path, page: Callable[..., Page]) -> None:
    (run / "metrics.csv").write_text("step,epoch,name,value\n1,0,train/loss,0.25\n2,0,train/loss,0.1")
    told = page()["runs"][0]
    assert told["curves"][0]["values"] == {"train/loss": [0.25]}
    assert told["notes"] == []


def test_a_checkpoint_alone_is_a_run_without_config(run: Path, page: Callable[..., Page]) -> None:
    for file in run.iterdir():
        file.unlink()
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.ckpt").touch()
    told = page()["runs"][0]
    assert (told["state"], told["notes"]) == ("damaged", ["config.yaml is missing."])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from([*RUN_FILES, "model.txt", "events.out.tfevents.7"]),
    start=st.integers(0, 4000),
    noise=st.binary(min_size=1, max_size=60),
)
def test_no_bytes_in_a_run_folder_stop_the_reading(run: Path, name: str, start: int, noise: bytes) -> None:
    before = (run / name).read_bytes() if (run / name).exists() else b""
    (run / name).write_bytes(before[:start] + noise + before[start + len(noise) :])
    record = run_pages.contents([read_run(run, "run")], [], room=0)
    assert run_pages.render(record).count("<script") == 2
    (run / name).write_bytes(before)


# Sweeps ---------------------------------------------------------------------------------------------------------------


def sweep_of(run: Path) -> Path:
    """A sweep of three runs: one done, one that failed before it had a folder, one that waits."""
    folder = run.parents[1] / "multirun" / "2026-01-31_12-00-00"
    shutil.copytree(run, folder / "0")
    entries = [
        {"number": n, "point": n, "values": {"optimizer.lr": lr}, "words": [], "end": end, "says": says, "score": None}
        for n, lr, end, says in (
            (0, "0.002", "done", ""),
            (1, "9", "failed", "The loss became nan."),
            (2, "1", "waiting", ""),
        )
    ]
    record = {"command": ["zoo", "train", "-m"], "monitor": "val/accuracy", "mode": "max"}
    record |= {"runs": [entry | {"seconds": 7.5} for entry in entries]}
    (folder / "sweep.json").write_text(json.dumps(record))
    return folder


def test_sweeps_are_there_with_the_scores_of_their_runs(run: Path, page: Callable[..., Page]) -> None:
    folder = sweep_of(run)
    (folder / "0" / "scores.json").write_text('{"val/accuracy": 0.75}')
    for file in (folder / "0").glob("events*"):
        file.unlink()  # without a clock the time is the one that the sweep took
    data = page()
    (sweep,) = data["sweeps"]
    assert (sweep["name"], sweep["done"], sweep["total"]) == ("multirun/2026-01-31_12-00-00", 1, 3)
    assert (sweep["command"], sweep["monitor"]) == ("zoo train -m", "val/accuracy")
    assert sweep["rows"][0] == {"values": {"optimizer.lr": "0.002"}, "outcome": "0.75", "numbers": [0]}
    told = {entry["name"].removeprefix(sweep["name"]): entry for entry in data["runs"] if entry["sweep"] == 0}
    assert {name: entry["state"] for name, entry in told.items()} == {"/0": "done", "/1": "failed", "/2": "waiting"}
    assert told["/1"]["notes"] == ["The loss became nan."]
    assert told["/0"]["seconds"] == 7.5
    assert len(data["runs"]) == 4


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"runs": 3, "command": []}', '{"command": [], "monitor": "", "runs": [3]}']
)
def test_a_damaged_sweep_is_named(run: Path, page: Callable[..., Page], content: str) -> None:
    (sweep_of(run) / "sweep.json").write_text(content)
    data = page()
    assert "sweep.json is damaged" in data["sweeps"][0]["notes"][0]
    assert [entry["state"] for entry in data["runs"]] == ["done", "done"]


# The page -------------------------------------------------------------------------------------------------------------


def test_nothing_of_a_run_becomes_html(run: Path, page: Callable[..., Page]) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"]["class_names"] = [evil]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    about = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(about | {"command": [evil], "commit": evil}))
    run.rename(run.with_name("<img src=x onerror=alert(1)>"))
    data = page()
    text = (run.parents[1] / "report.html").read_text("utf-8")
    assert text.count("<script") == 2
    assert "<img" not in text
    assert data["runs"][0]["commit"] == evil
    scripts = (Path(run_pages.__file__).parent / part for part in run_pages.PARTS[1:])
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", "".join(map(Path.read_text, scripts))
    )


def test_the_page_needs_nothing_but_itself(run: Path, page: Callable[..., Page]) -> None:
    page()
    text = (run.parents[1] / "report.html").read_text("utf-8")
    assert set(re.findall(r"https?://[\w./-]+", text)) == {"http://www.w3.org/2000/svg"}  # a name, nothing to load
    assert not re.search(r"<link|@import|url\(|src=\"(?!data:)|fetch\(|XMLHttpRequest", text)
    assert "default-src 'none'" in text


def test_hundreds_of_runs_stay_small(run: Path, tmp_path: Path) -> None:
    for number in range(200):
        shutil.copytree(run, tmp_path / "many" / str(number))
    assert report(tmp_path / "many") == 0
    file = tmp_path / "many" / "report.html"
    assert len(contents(file)["runs"]) == 200
    assert len(contents(file)["images"]) == 4  # those of all runs are the same
    assert file.stat().st_size < 200 * 5000 + 200_000


def test_pictures_are_kept_once_while_there_is_room(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = [tmp_path / f"{name}.png" for name in ("input", "samples", "again", "third")]
    for file in files:
        Image.fromarray(rng.integers(0, 255, (200, 200, 3), np.uint8)).save(file)
    shutil.copy(files[1], files[2])
    album = Album(10**6)
    assert [album.put(Picture(file.stem, "", file)) for file in files] == [0, 1, 1, 2]
    small = Album(10)  # the first that goes beyond is the last
    assert [small.put(Picture(file.stem, "", file)) for file in files] == [0, None, None, None]
    assert small.left_out == 3
    assert Picture("val/samples", "", b"").rank() < Picture("other", "", b"").rank() < Picture("input", "", b"").rank()
    one = Picture("a", "", b"")
    assert in_turns([[one, one], [one]]) == [(0, 0), (1, 0), (0, 1)]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["none"], "none: is no folder"),
        (["runs"], "There is no run in runs"),
        (["runs", "out=runs"], "out=runs: is a folder"),
        (["some", "out=some/config.yaml/x.html"], "move what is in the way, or choose another name"),
        (["runs", "picture=3"], "Did you mean pictures?"),
        (["runs", "pictures=many"], "pictures=many: must be a whole number"),
    ],
)
def test_mistakes_are_sentences(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "config.yaml").touch()
    monkeypatch.chdir(tmp_path)
    assert report(*words) == 2
    assert sentence in capsys.readouterr().err


def test_what_is_printed_and_where(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run.parents[2])
    assert report() == 0
    assert re.fullmatch(r"wrote runs/report\.html \(\d\.\d MB\): 1 done\n", capsys.readouterr().out)
    assert report("runs", run, "out=here.html") == 0  # a folder that was asked for twice is there once
    assert len(contents(Path("here.html"))["runs"]) == 1
    assert report(run, "out=new/one.html") == 0
    assert contents(Path("new/one.html"))["runs"][0]["name"] == "lenet5-synthetic/one"
    assert not list(Path().glob(".*.tmp"))


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs the browser chromium")
def test_a_browser_draws_the_page(run: Path, tmp_path: Path) -> None:
    sweep_of(run)
    shutil.copytree(run, run.with_name("<b>two"))
    assert report(run.parents[1]) == 0
    page = run.parents[1] / "report.html"
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'browser'}"]
    done = subprocess.run(
        ["chromium", *options, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=60
    )
    told = done.stdout
    assert told.count('aria-label="compare ') == 5
    assert told.count('class="curve ') > 4
    assert told.count('class="run') >= 6  # three finished runs in plots against parameters and multiply-adds
    accuracy = json.loads((run / "scores.json").read_text())["test/accuracy"]
    assert f'title="test/accuracy {accuracy}' in told
    assert "&lt;b&gt;two" in told
    assert "<b>two" not in told
    assert "61,706" in told


# Files of something else ----------------------------------------------------------------------------------------------


def test_only_a_page_is_written_over(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notes = run.parent / "notes.txt"
    notes.write_text("mine")
    assert report(run.parents[1], f"out={notes}") == 2
    assert "must end in .html" in capsys.readouterr().err
    assert notes.read_text() == "mine"


def test_what_neither_json_nor_a_float_can_say_is_shown(run: Path, page: Callable[..., Page]) -> None:
    (run / "config.yaml").write_text("a: [{2001-01-01: 1}]\nb: &b [*b]\n")
    (run / "scores.json").write_text('{"test/loss": 1' + "0" * 400 + "}")
    told = page()["runs"][0]
    assert "scores.json is damaged: test/loss is no number." in told["notes"]
    assert told["scores"] == {}
