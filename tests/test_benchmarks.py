"""Every part of the benchmarks in a tiny form: what it measures has the right shape; its times mean nothing here."""

import importlib
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import growth, harness, memory, page, record, shell
from benchmarks.__main__ import main
from benchmarks.record import Bar, Options, Part
from benchmarks.running import Workload, descend
from zoo.errors import ZooError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What all parts find, by name, as the JSON file has it."""
    out = tmp_path_factory.mktemp("out")
    main(["quick=true", f"out={out}"])
    assert (out / "benchmarks.md").read_text(encoding="utf-8") == page.render(page.read(out))
    assert {file.name for file in (out / "benchmarks").iterdir()} == {"benchmarks.json", "bars.png", "growth.png"}
    return json.loads((out / "benchmarks" / "benchmarks.json").read_text(encoding="utf-8"))


def test_every_part_gives_a_table_bars_and_its_circumstances(parts: dict[str, Any]) -> None:
    assert list(parts) == list(page.PARTS)
    for name, part in parts.items():
        assert part["rows"], name
        assert all(len(row) == len(part["columns"]) for row in part["rows"]), name
        numbers = [cell for row in part["rows"] for cell in row if isinstance(cell, float)]
        assert all(map(math.isfinite, numbers)), name
        assert all(bar["measured"] is not None for bar in part["bars"]), name
        about = part["about"]
        assert about["cores"] >= 1
        assert about["versions"]["torch"]
        assert isinstance(about["load_average"], float)


def test_the_harness_is_measured_on_every_task(parts: dict[str, Any]) -> None:
    rows = parts["harness"]["rows"]
    assert [row[0] for row in rows] == list(harness.CASES)
    for (name, by_hand, ours, _, _), bar in zip(rows, parts["harness"]["bars"], strict=True):
        assert by_hand > 0
        assert ours > 0
        is_heavy = by_hand >= 10
        assert bar["name"] == name + (": by hand / harness" if is_heavy else ": added to a step")
        assert (bar["limit"], bar["at_least"]) == ((0.95, True) if is_heavy else (0.35, False))


def test_memory_is_counted(parts: dict[str, Any]) -> None:
    model, batch, parameters, optimizer, kept, peak = parts["memory"]["rows"][0]
    assert (model, batch) == ("mlp", 64)
    assert parameters == pytest.approx(101_770 * 4 / 1e6)
    assert optimizer == pytest.approx(3 * parameters, rel=1e-3)
    # what a step of 784-128-10 needs: the input and the activations of the hidden layer, before and after ReLU, …
    assert 64 * (784 + 128) * 4 / 1e6 <= kept < 0.5
    assert peak > 3 * parameters


def test_a_workload_notes_the_training_batches_of_each_epoch_alike_in_a_run_and_by_hand() -> None:
    workload = Workload(["model=mlp", "data=synthetic", "data.train_size=96", "logger=csv"])
    workload.harness(max_epochs=2)
    assert [len(workload.times(epoch)) for epoch in (1, 2)] == [3, 0]
    workload.by_hand(descend(harness.classify), epochs=2, steps=3, warm_up=2)
    assert [len(workload.times(epoch)) for epoch in (0, 1, 2)] == [2, 3, 1]  # the last notes the end
    times = [at for _, at in workload.asked]
    assert times == sorted(times)


def test_by_hand_trains() -> None:
    workload = Workload(["model=mlp", "data=digits", "train_examples=96", "data.batch_size=32"])
    losses: list[float] = []

    def loss(network: Any, batch: Any) -> Any:
        value = harness.classify(network, batch)
        losses.append(value.item())
        return value

    workload.by_hand(descend(loss), epochs=9, steps=3, warm_up=3)
    assert losses[-1] < losses[0] / 2


# Numbers -------------------------------------------------------------------------------------------------------------


def test_bars() -> None:
    assert Bar("a", 0.35, 0.35).met
    assert not Bar("a", 0.36, 0.35).met
    assert Bar("a", 4.0, 4, at_least=True).met
    assert not Bar("a", 3.9, 4, at_least=True).met
    assert Bar("a", None, 4).met is None


def test_exponent_and_flatness() -> None:
    assert growth.exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    assert growth.flatness([1, 1, 9, 9, 3, 3]) == 3
    assert growth.flatness([2.0, 4.0]) == 2


def test_alternating_calls_take_turns() -> None:
    order: list[str] = []

    def call(name: str, value: float) -> float:
        order.append(name)
        return value

    columns = record.alternate(lambda: call("a", 6.0), lambda: call("b", 2.0), rounds=2)
    assert (order, columns) == (["a", "b", "a", "b"], [[6.0, 6.0], [2.0, 2.0]])
    assert record.ratio(*columns) == 3


def test_rounds() -> None:
    assert (Options().repeat(5), Options(rounds=2).repeat(5), Options(rounds=2, quick=True).repeat(5)) == (5, 2, 1)


def test_the_peak_of_a_process_is_above_what_it_has() -> None:
    assert memory.status("VmHWM") >= memory.status("VmRSS") > 10


# Peers ---------------------------------------------------------------------------------------------------------------

SCRIPT = """\
import time
data = "datasets.MNIST('../data')"
for correct in (8000, 9100, 9200):
    print(f"Test set: Average loss: 0.1, Accuracy: {correct}/10000 ({correct / 100:.0f}%)", data)
    time.sleep(0.2)
"""


@pytest.fixture
def peers(tmp_path: Path) -> Path:
    folder = tmp_path / "peers" / "examples" / "mnist"
    folder.mkdir(parents=True)
    (folder / "main.py").write_text(SCRIPT)
    return tmp_path / "peers"


def test_a_peer_is_changed_in_a_copy_and_stopped_when_it_is_good_enough(peers: Path, tmp_path: Path) -> None:
    options = Options(peers=peers, data=tmp_path / "fashion", python=sys.executable)
    found = shell.patched(options, tmp_path / "copies")
    assert list(found) == ["pytorch/examples"]
    changed = (tmp_path / "copies" / "examples" / "mnist" / "main.py").read_text()
    assert f"datasets.FashionMNIST('{tmp_path / 'fashion'}'" in changed
    assert (peers / "examples" / "mnist" / "main.py").read_text() == SCRIPT
    start = time.perf_counter()
    finish = shell.peer_run(found["pytorch/examples"], options, tmp_path, 0.9)
    assert finish.reached
    assert finish.accuracy == 0.91  # not the last
    assert finish.seconds <= time.perf_counter() - start
    whole = shell.peer_run(found["pytorch/examples"], options, tmp_path, None)
    assert (whole.accuracy, whole.reached) == (0.92, True)
    assert not shell.peer_run(found["pytorch/examples"], options, tmp_path, 0.95).reached


def test_another_version_of_a_peer_is_told(peers: Path, tmp_path: Path) -> None:
    (peers / "examples" / "mnist" / "main.py").write_text("load('../data')")
    with pytest.raises(ZooError, match="another version"):
        shell.patched(Options(peers=peers), tmp_path / "copies")


def test_a_peer_that_fails_is_no_time(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('Accuracy 0.8'); raise SystemExit(3)"]
    with pytest.raises(RuntimeError, match="ended with 3"):
        shell.race(command, accuracy=r"Accuracy ([\d.]+)", scale=1, target=0.9)


@pytest.mark.parametrize(
    ("peer", "line", "accuracy"),
    [
        ("pytorch/examples", "Test set: Average loss: 0.2503, Accuracy: 9091/10000 (91%)", 0.9091),
        ("lightning-hydra-template", "│         test/acc          │    0.8704000115394592     │", 0.8704),
        (
            "timm",
            "Test: [  78/78]  Time: 0.1 (0.2)  Loss: 0.5 (0.6)  Acc@1:  87.500 ( 85.120)  Acc@5: 99 ( 98)",
            0.8512,
        ),
    ],
)
def test_what_peers_print_is_understood(peer: str, line: str, accuracy: float) -> None:
    known = shell.PEERS[peer]
    finish = shell.race(
        [sys.executable, "-c", f"print({line!r})"], accuracy=known.accuracy, scale=known.scale, target=None
    )
    assert finish.accuracy == pytest.approx(accuracy, abs=1e-4)


def test_times_to_an_accuracy_are_compared_with_a_run_of_ours_that_is_as_accurate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fashion" / "FashionMNIST" / "raw").mkdir(parents=True)
    for peer in shell.PEERS.values():
        folder = tmp_path / "peers" / peer.folder / peer.cwd
        for change in peer.changes:
            (folder / change.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / change.file).write_text(change.before)
        folder.mkdir(parents=True, exist_ok=True)
    ours = {shell.FAST: shell.Finish(10, 0.905, True), shell.DENSE: shell.Finish(5, 0.87, True)}
    theirs = {"examples": shell.Finish(80, 0.91, True), "pytorch-image-models": shell.Finish(60, 0.85, False)}

    def peer_run(peer: shell.Peer, options: Options, folder: Path, target: float | None, more: str = "") -> Any:
        return theirs.get(peer.folder, shell.Finish(15, 0.86, True) if more else shell.Finish(70, 0.88, True))

    monkeypatch.setattr(shell, "our_run", lambda words, options: ours[words])
    monkeypatch.setattr(shell, "peer_run", peer_run)
    part = shell.measure(Options(peers=tmp_path / "peers", data=tmp_path / "fashion", python=sys.executable))
    assert [row[1:] for row in part.rows] == [
        [10, 0.905, None],
        [80, 0.91, 8],
        [5, 0.87, None],
        [15, 0.86, 3],  # against the network of its kind
        [70, 0.88, 7],  # which is not as accurate as that: against the convolutions
        [60, 0.85, 6],
    ]
    assert str(part.rows[-1][0]).endswith("not reached")
    assert [bar.measured for bar in part.bars] == [0.905, 8, 3, 7]
    assert all(bar.met for bar in part.bars)
    theirs["examples"] = shell.Finish(30, 0.9, True)
    ours[shell.FAST] = shell.Finish(10, 0.899, True)
    failed = shell.measure(Options(peers=tmp_path / "peers", data=tmp_path / "fashion", python=sys.executable))
    assert [bar.met for bar in failed.bars] == [False, None, True, True]  # no time to 90 % without 90 %


# Command line and page -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["harnes"], "Did you mean harness"),
        (["round=3"], "Did you mean rounds"),
        (["rounds=0"], "at least 1"),
        (["quick=true"], "out=FOLDER"),
        (["quick=yes"], "true or false"),
        (["shell", "peers=nowhere"], "no such folder"),
        (["shell", "data=nowhere"], "FashionMNIST/raw"),
    ],
)
def test_mistakes_are_told(words: list[str], told: str) -> None:
    with pytest.raises(ZooError, match=told):
        main(words)


def test_a_part_replaces_itself_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("loaders", 1.0), ("growth", 2.0), ("loaders", 3.0)):
        found = Part(("what", "s"), rows=[["a", seconds]], bars=[Bar(f"{name} is quick", seconds, 2.5, "s")])
        monkeypatch.setattr(importlib.import_module(f"benchmarks.{name}"), "measure", lambda _, found=found: found)
        main([name, f"out={tmp_path}"])
    stored = page.read(tmp_path)
    assert {name: part["rows"] for name, part in stored.items()} == {"loaders": [["a", 3.0]], "growth": [["a", 2.0]]}
    text = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    assert "1 of 2 met" in text
    assert "| loaders is quick ≤ 2.5 s | 3 s | **no** |" in text
    assert "| growth is quick ≤ 2.5 s | 2 s | yes |" in text


def test_the_page_is_that_of_its_numbers() -> None:
    assert (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8") == page.render(page.read(ROOT / "docs")), (
        "docs/benchmarks.md is not what its numbers give: python -m benchmarks page"
    )
