"""Checkpoints: what is in them, what is refused, and that a crash while writing leaves the old one whole."""

import errno
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from zoo.build import is_trusted
from zoo.checkpoint import FORMAT_VERSION, AtomicCheckpointIO, find_checkpoint, find_whole, read_checkpoint
from zoo.errors import ZooError
from zoo.evaluation import evaluate, load
from zoo.signals import Stopped


class Touch:
    """Unpickling it creates a file: stands for any code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def leaves(value):
    if isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def test_holds_tensors_and_primitives_and_what_evaluation_needs(small_run) -> None:
    folder, _ = small_run()
    checkpoint = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert {type(leaf) for leaf in leaves(checkpoint)} <= {torch.Tensor, int, float, str, bool, type(None)}
    about = checkpoint["zoo"]
    assert about["format_version"] == FORMAT_VERSION
    assert about["class_names"] == [str(label) for label in range(10)]
    assert about["preprocessing"]["channels"] == 1
    assert about["config"]["optimizer"]["lr"] == 0.005
    assert str(folder) not in str(about), "paths inside a checkpoint must be relative"


@pytest.mark.parametrize("wrap", [lambda bad: bad, lambda bad: {"zoo": bad}], ids=["bare", "nested"])
def test_malicious_pickle_is_refused_and_nothing_runs(wrap, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for name, save in (("zip", torch.save), ("pickle", lambda value, path: path.write_bytes(pickle.dumps(value)))):
        path = tmp_path / f"{name}.ckpt"
        save(wrap(Touch(trace)), path)
        with pytest.raises(ZooError, match="refused"):
            evaluate(ckpt_path=path)
        assert not trace.exists()


@pytest.mark.parametrize(
    "target", ["shutil.copyfile", "pathlib.Path.write_text", "torch.hub.load", "torch.load", "os.system"]
)
def test_config_in_a_checkpoint_may_not_name_a_function(target: str, small_run, tmp_path: Path) -> None:
    folder, _ = small_run()
    checkpoint = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    copied = tmp_path / "copied"
    checkpoint["zoo"]["config"]["model"] = {"_target_": target, "src": __file__, "dst": str(copied)}
    torch.save(checkpoint, tmp_path / "bad.ckpt")
    for refusing in (lambda path: evaluate(ckpt_path=path), load):
        with pytest.raises(ZooError, match=rf"model\._target_={target}[\s\S]*trust=true"):
            refusing(tmp_path / "bad.ckpt")
    assert not copied.exists()


HIDDEN = {
    "in a tuple": lambda call: {"model": {"hidden": ({"deep": [call]},)}},
    "behind a resolver": lambda call: {"model": {"activation": "${oc.env:HOME}"}},
    "below the trainer": lambda call: {"trainer": {"evil": call}, "model": {"x": "${trainer.evil}"}},
    "as the trainer": lambda call: {"trainer": call},
}


@pytest.mark.parametrize("place", HIDDEN)
def test_no_place_in_a_stored_config_hides_a_call(place: str, small_run, tmp_path: Path) -> None:
    folder, _ = small_run()
    checkpoint = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    copied = tmp_path / "copied"
    call = {"_target_": "shutil.copyfile", "src": __file__, "dst": str(copied)}
    for name, values in HIDDEN[place](call).items():
        checkpoint["zoo"]["config"][name].update(values)
    torch.save(checkpoint, tmp_path / "bad.ckpt")
    with pytest.raises(ZooError, match="nothing was run"):
        evaluate(ckpt_path=tmp_path / "bad.ckpt")
    with pytest.raises(ZooError, match="nothing was run"):
        load(tmp_path / "bad.ckpt")
    assert not copied.exists()


def test_trusted_targets_are_classes_that_compute() -> None:
    trusted = [
        "zoo.models.lenet.LeNet5",
        "torch.nn.Linear",
        "torch.optim.SGD",
        "zoo.schedules.Cosine",
        "zoo.init.Default",
    ]
    assert all(is_trusted(target) for target in trusted)
    # a name imported into a trusted package is still somebody else's
    assert not any(
        is_trusted(target) for target in ["zoo.run.Path", "zoo.checkpoint.os.remove", "zoo.run.train", "zoo", ""]
    )


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"some text", b"\x80"], ids=["empty", "zip head", "text", "pickle head"]
)
def test_files_that_are_no_checkpoints_get_a_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.ckpt"
    path.write_bytes(content)
    with pytest.raises(ZooError, match=r"file\.ckpt (is damaged|was refused)"):
        read_checkpoint(path)


def test_truncated_missing_foreign_and_newer_files_get_a_sentence(small_run, tmp_path: Path) -> None:
    folder, _ = small_run()
    best = folder / "checkpoints" / "best.ckpt"
    (tmp_path / "half.ckpt").write_bytes(best.read_bytes()[:20_000])
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    torch.save({"zoo": {"format_version": FORMAT_VERSION}}, tmp_path / "bare.ckpt")
    newer = torch.load(best, weights_only=True)
    newer["zoo"]["format_version"] = FORMAT_VERSION + 1
    torch.save(newer, tmp_path / "newer.ckpt")
    for name, said in (
        ("half", "damaged"),
        ("foreign", "not a checkpoint of this zoo"),
        ("newer", f"format {FORMAT_VERSION + 1}"),
        ("bare", "not a whole checkpoint"),
        ("gone", "There is no checkpoint"),
    ):
        with pytest.raises(ZooError, match=said):
            read_checkpoint(tmp_path / f"{name}.ckpt")


def test_the_folder_above_a_run_names_its_newest(small_run, tmp_path: Path) -> None:
    folder, _ = small_run()
    for number, name in enumerate(("new", "old")):
        shutil.copytree(folder, tmp_path / "runs" / name)
        os.utime(tmp_path / "runs" / name, (10**9 - number,) * 2)
    with pytest.raises(ZooError, match=rf"is no run folder, but holds 2: name one. The newest is {tmp_path}/runs/new"):
        find_checkpoint(tmp_path / "runs")


def test_a_full_disk_leaves_the_old_checkpoint_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"zoo": 1}, path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        AtomicCheckpointIO().save_checkpoint({"zoo": 2}, path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"], "nothing half-written may stay behind"


def test_a_signal_while_torch_writes_is_no_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(OSError, match="No space left"):
        AtomicCheckpointIO().save_checkpoint({"zoo": 1}, tmp_path / "last.ckpt")
    monkeypatch.setattr(Stopped, "pending", Stopped(2, tmp_path))
    with pytest.raises(Stopped):
        AtomicCheckpointIO().save_checkpoint({"zoo": 1}, tmp_path / "last.ckpt")


def test_last_keeps_its_predecessor(tmp_path: Path) -> None:
    for number in range(3):
        AtomicCheckpointIO().save_checkpoint({"number": number}, tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt")["number"] == 2
    assert torch.load(tmp_path / "previous.ckpt")["number"] == 1


def test_best_is_never_an_epoch_that_was_not_validated(small_run) -> None:
    folder, _ = small_run("trainer.check_val_every_n_epoch=3", "trainer.max_epochs=5")
    assert torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["epoch"] == 2
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 4


def test_averaged_batch_statistics_are_saved_even_when_nothing_is_validated(small_run) -> None:
    folder, _ = small_run("model=mlp", "model.norm=batch", "ema_decay=0.5", "trainer.limit_val_batches=0")
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    names = [name for name in state if name.startswith("network.") and "running" in name]
    assert names
    for name in names:
        assert torch.equal(state[name], state["ema." + name.removeprefix("network.")])


def test_best_is_the_best_validation_epoch_and_what_a_folder_means(small_run) -> None:
    folder, scores = small_run("trainer.max_epochs=4", "optimizer.lr=0.01", "scheduler=constant")
    rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()[1:]]
    accuracies = [float(value) for _, _, name, value in rows if name == "val/accuracy"]
    assert len(accuracies) == 4
    assert scores["val/accuracy"] == max(accuracies)
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    last_of_equals = max(epoch for epoch, accuracy in enumerate(accuracies) if accuracy == max(accuracies))
    assert best["epoch"] == last_of_equals
    assert find_checkpoint(folder) == folder / "checkpoints" / "best.ckpt"


def test_without_selection_the_last_epoch_is_tested_and_its_score_is_reported(small_run) -> None:
    """At a rate so high that the network only wanders, the last epoch is not the best."""
    spoilt = ["trainer.max_epochs=5", "optimizer.lr=0.1", "scheduler=constant"]
    folder, scores = small_run(*spoilt, "checkpoint.keep_best=false")
    assert not (folder / "checkpoints" / "best.ckpt").exists()
    assert find_checkpoint(folder).name == "last.ckpt"
    validated = [row.split(",") for row in (folder / "metrics.csv").read_text().splitlines() if ",val/accuracy," in row]
    values = [float(row[3]) for row in validated]
    assert values[-1] < max(values)
    assert scores["val/accuracy"] == pytest.approx(values[-1])
    assert evaluate(ckpt_path=folder).items() <= scores.items()


def test_an_empty_folder_has_nothing_to_evaluate_and_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="no checkpoint yet"):
        find_checkpoint(tmp_path)
    assert find_whole(tmp_path, ["last.ckpt"]) is None
