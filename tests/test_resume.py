"""A run killed with SIGKILL and continued ends with the same bits as one that was never killed."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from zoo.errors import ZooError
from zoo.run import resume
from zoo.sampling import main as sample

REPOSITORY = Path(__file__).parents[1]
EVERYTHING = [
    "trainer.accelerator=cpu",
    "trainer.accumulate_grad_batches=3",
    "trainer.gradient_clip_val=1.0",
    "trainer.log_every_n_steps=4",
    "scheduler=plateau",
    "ema_decay=0.9",
    "checkpoint.every_n_steps=5",
]


def run_until(folder: Path, place: str, count: int, overrides: list[str]) -> int:
    """Start or continue a run in a process of its own; returns the exit code, -9 when it was killed."""
    command = [sys.executable, str(REPOSITORY / "tests" / "killed_run.py"), str(folder), place, str(count), *overrides]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def add(digest: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        digest.update(str((value.dtype, tuple(value.shape))).encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    elif isinstance(value, dict):
        for name in sorted(value, key=str):
            digest.update(str(name).encode())
            add(digest, value[name])
    elif isinstance(value, list | tuple):
        for item in value:
            add(digest, item)
    else:
        digest.update(repr(value).encode())


def fingerprint(folder: Path) -> dict[str, str]:
    """sha256 of all that a run ends with: its checkpoints (weights, averages, optimizers, counts), metrics, scores."""
    prints = {}
    for path in sorted((folder / "checkpoints").glob("*.ckpt")):
        checkpoint = torch.load(path, weights_only=True)
        for part in checkpoint.keys() - {"zoo"}:  # which says where and when
            digest = hashlib.sha256()
            add(digest, checkpoint[part])
            prints[f"{path.stem}.{part}"] = digest.hexdigest()
    for name in ("metrics.csv", "scores.json"):
        prints[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    return prints


def logged(folder: Path) -> list[tuple[str, int, str]]:
    """Every (tag, step, sha256 of the number or picture) in the event files, with repetitions."""
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if "hparams" not in value.tag:
                    content = hashlib.sha256(value.tensor.SerializeToString()).hexdigest()
                    found.append((value.tag, event.step, content))
    return sorted(found)


def assert_each_step_once(folder: Path) -> None:
    rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()[1:]]
    keys = [(step, name) for step, _, name, _ in rows]
    assert len(keys) == len(set(keys))
    assert all(len(row) == 4 for row in rows)


def assert_same_end(killed: Path, whole: Path) -> None:
    assert fingerprint(killed) == fingerprint(whole)
    assert_each_step_once(killed)
    assert logged(killed) == logged(whole)
    places = [place for *place, _ in logged(whole)]
    assert all(before != after for before, after in pairwise(places)), "each tag stands once at each step"


CASES = {
    "mlp": ["model=mlp", "model.dropout=0.3", "model.norm=batch", "augment.rotation=10", "trainer.max_epochs=3"],
    "lenet5, workers": [
        "model=lenet5",
        "data.num_workers=2",
        "augment.noise=0.1",
        "trainer.max_steps=50",
        "logger.pictures=false",
    ],
}


# what travels between batches, or differs in length from batch to batch
SEQUENCES = {
    "text, carried state": ["model=lstm", "model.hidden=16", "data.batch_size=256", "data.sequence_length=64"],
    "pairs, their own lengths": ["model=seq2seq", "model.hidden=16", "model.dropout=0.2", "data.batch_size=1024"],
    "snippets, crops of several lengths": ["model=gru_classifier", "data.min_length=5", "data.batch_size=1024"],
    "windows of a series": ["model=lstm_forecaster", "data.batch_size=16", "trainer.max_epochs=4"],
    "masks, augmented": [
        *(
            "model=unet",
            "model.width=0.0625",
            "model.depth=2",
            "train_examples=96",
            "data.batch_size=8",
            "augment=tiles",
        )
    ],
}


# all that is drawn, averaged or counted in the training of what makes pictures
GENERATORS = {
    "autoencoder, denoising and contractive": [
        *("model=autoencoder", "model.width=0.125", "model.code=6", "model.code_activation=sigmoid"),
        *("task.corruption=salt_pepper", "task.contractive_weight=0.1", "task.sparsity=kl"),
    ],
    "vae, binarised and warmed up": [
        *("model=vae", "model.hidden=[24]", "model.latent_size=5"),
        *("task.binarize=dynamic", "task.kl_warmup_epochs=6", "task.importance_samples=3"),
    ],
    "gan, two steps of the discriminator": [
        *("model=cgan", "model.width=0.125", "model.latent=8", "scheduler=cosine"),
        *("task.n_critic=2", "task.gradient_penalty=1", "task.discriminator_lr=4"),
    ],
    "diffusion, classes forgotten": [
        *("model=diffusion", "model.width=8", "model.multipliers=[1,2]", "model.attention=[8]", "model.dropout=0.1"),
        *("task.condition_dropout=0.3", "task.schedule=cosine", "task.timesteps=10", "task.steps=5"),
        "augment=shift_rotation",
    ],
}
# 10 batches an epoch: 5 steps, 2 or 3 of a GAN's iterations, of which one begins in one epoch and ends in the next
FEW_PICTURES = [
    *("data=synthetic", "data.image_size=16", "data.train_size=160", "data.batch_size=16", "trainer.accelerator=cpu"),
    *("trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=1.0", "trainer.log_every_n_steps=3"),
    *("ema_decay=0.9", "checkpoint.every_n_steps=2"),
]
KILLS = {
    "autoencoder": ("save", 6),  # with the first epoch's pictures already logged, that are drawn again
    "vae": ("step", 18),
    "gan": ("step", 14),  # to go on from the first epoch's end, with half an iteration done
    "diffusion": ("validation", 2),
}


def sampled(folder: Path) -> dict[str, np.ndarray]:
    """What `zoo sample` makes of a run, besides the settings, which name it."""
    assert sample([f"ckpt_path={folder}", "n=12", "seed=5", f"out={folder / 'made'}"]) == 0
    with np.load(folder / "made.npz") as made:
        return {name: made[name] for name in made.files if name != "settings"}


def assert_same_samples(killed: Path, whole: Path) -> None:
    made, wanted = sampled(killed), sampled(whole)
    assert made.keys() == wanted.keys()
    assert all(np.array_equal(made[name], wanted[name]) for name in wanted)
    assert made["images"].std(0).max() > 0, "not all alike"


@pytest.mark.parametrize("case", GENERATORS)
def test_killed_generators_end_with_the_same_bits(case: str, small_run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("zoo.run.learning_curves", lambda path: Figure())  # a second, and no part of what is compared
    overrides = ["trainer.max_epochs=2", "logger=tensorboard", *GENERATORS[case], *FEW_PICTURES]
    whole, _ = small_run(*overrides, name="whole")
    killed = tmp_path / "killed"
    assert run_until(killed, *KILLS[case.split(",")[0]], overrides) == -signal.SIGKILL
    resume(killed, {})
    assert_same_end(killed, whole)
    assert_same_samples(killed, whole)


@pytest.mark.parametrize("case", CASES)
def test_killed_and_resumed_run_ends_with_the_same_bits(case: str, tmp_path: Path) -> None:
    overrides = ["data=digits", "data.batch_size=128", *EVERYTHING, *CASES[case]]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_until(whole, "never", 0, overrides) == 0
    places = [("step", 3), ("step", 33), ("validation", 1), ("save", 4)]
    if "workers" in case:  # start-up dominates: two kills are enough for what workers change
        places = [("step", 40), ("save", 5)]
    for place, count in places:
        assert run_until(killed, place, count, overrides) == -signal.SIGKILL, (place, count)
    assert run_until(killed, "never", 0, overrides) == 0
    assert_same_end(killed, whole)


@pytest.mark.parametrize("case", SEQUENCES)
def test_killed_sequences_and_masks_end_with_the_same_bits(case: str, tmp_path: Path) -> None:
    overrides = ["trainer.max_epochs=2", *EVERYTHING, "logger=csv", *SEQUENCES[case]]
    overrides += ["trainer.accumulate_grad_batches=2", "checkpoint.every_n_steps=2"]  # a checkpoint every 4 batches
    overrides += ["trainer.limit_val_batches=2", "trainer.limit_test_batches=2"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_until(whole, "never", 0, overrides) == 0
    for place, count in (("step", 7), ("step", 9)):  # both in the middle of an epoch, after a checkpoint
        assert run_until(killed, place, count, overrides) == -signal.SIGKILL, (place, count)
    assert run_until(killed, "never", 0, overrides) == 0
    assert_same_end(killed, whole)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("model", ["mlp", "lenet5"])
def test_twenty_random_kills(model: str, workers: int, tmp_path: Path) -> None:
    """Five kills at random moments for each of four configurations."""
    overrides = ["data=digits", *EVERYTHING, f"model={model}", f"data.num_workers={workers}", "trainer.max_epochs=6"]
    overrides += ["augment.rotation=10", *(["model.dropout=0.3"] if model == "mlp" else [])]
    draw = random.Random(f"{model} {workers}")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_until(whole, "never", 0, overrides) == 0
    for _ in range(5):
        place = draw.choice(["step", "step", "validation", "save"])
        run_until(killed, place, draw.randint(1, 120 if place == "step" else 3), overrides)
    assert run_until(killed, "never", 0, overrides) == 0
    assert_same_end(killed, whole)


@pytest.mark.slow
@pytest.mark.parametrize("case", GENERATORS)
def test_five_random_kills_of_generators(case: str, tmp_path: Path) -> None:
    """Five kills at random moments, and one when the training is over."""
    overrides = [*GENERATORS[case], *FEW_PICTURES, "trainer.max_epochs=12"]
    draw = random.Random(case)
    most = {"step": 25, "update": 12, "validation": 2, "save": 5}  # so that five times are no whole run
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_until(whole, "never", 0, overrides) == 0
    kills = [(place, draw.randint(1, most[place])) for place in draw.choices(list(most), k=5)]
    for place, count in [*kills, ("test", 1)]:
        assert run_until(killed, place, count, overrides) == -signal.SIGKILL, (place, count)
    assert run_until(killed, "never", 0, overrides) == 0
    assert_same_end(killed, whole)
    assert_same_samples(killed, whole)
    prints = hashlib.sha256(json.dumps(fingerprint(killed), sort_keys=True).encode()).hexdigest()
    print(f"{case}: killed at {kills} and in the test; {len(logged(killed))} logged; all {prints[:16]}")


def test_damaged_last_checkpoint_is_named_and_its_predecessor_taken(small_run, tmp_path, capsys) -> None:
    whole, _ = small_run("trainer.max_epochs=3", name="whole")
    folder, _ = small_run("trainer.max_epochs=3", name="damaged")
    last = folder / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    (folder / "scores.json").unlink()
    capsys.readouterr()
    resume(folder, {})
    said = capsys.readouterr().out
    assert "last.ckpt is damaged" in said
    assert "previous.ckpt" in said
    assert fingerprint(folder) == fingerprint(whole)


def test_no_whole_checkpoint_left_is_refused(small_run) -> None:
    folder, _ = small_run()
    for name in ("last", "previous"):
        (folder / "checkpoints" / f"{name}.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(ZooError, match=r"start a new run[\s\S]*last\.ckpt is damaged[\s\S]*previous\.ckpt is damaged"):
        resume(folder, {})


def test_finished_run_resumes_to_the_same_scores(small_run) -> None:
    folder, scores = small_run("early_stopping.patience=1", "trainer.max_epochs=30", "optimizer.lr=1e-7")
    before = fingerprint(folder)
    epochs = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["epoch"]
    assert epochs < 20, "early stopping should have ended this run"
    assert resume(folder, {}) == scores
    assert fingerprint(folder) == before
    assert json.loads((folder / "scores.json").read_text()) == scores


def test_resume_may_lengthen_a_run(small_run) -> None:
    folder, _ = small_run("scheduler=constant", "trainer.max_epochs=1")
    longer, _ = small_run("scheduler=constant", "trainer.max_epochs=3", name="longer")
    resume(folder, {"trainer.max_epochs": 3})
    assert fingerprint(folder) == fingerprint(longer)


def test_nothing_is_lost_when_the_checkpoints_to_continue_from_are_gone(small_run) -> None:
    folder, _ = small_run()
    for name in ("last", "previous"):
        (folder / "checkpoints" / f"{name}.ckpt").unlink()
    before = (folder / "metrics.csv").read_bytes()
    with pytest.raises(ZooError, match=r"no last\.ckpt[\s\S]*Nothing was changed"):
        resume(folder, {})
    assert (folder / "metrics.csv").read_bytes() == before


def test_a_refused_resume_changes_nothing(small_run) -> None:
    folder, _ = small_run("logger=tensorboard", "logger.pictures=false")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ZooError, match="trainer: "):
        resume(folder, {"trainer.accelerator": "tpu"})
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("content", [b"", b"- a list", b"seed: [", b"\xff\xfe"], ids=["empty", "list", "cut", "binary"])
def test_a_damaged_config_gets_a_sentence(content: bytes, small_run) -> None:
    folder, _ = small_run()
    (folder / "config.yaml").write_bytes(content)
    with pytest.raises(ZooError, match=r"config\.yaml is damaged"):
        resume(folder, {})


@pytest.mark.parametrize(("limit", "too_low", "reached"), [("max_epochs", 2, 3), ("max_steps", 23, 24)])
def test_a_run_cannot_be_shortened_below_what_it_has_done(limit: str, too_low: int, reached: int, small_run) -> None:
    folder, _ = small_run(f"trainer.{limit}={reached}")
    before = (folder / "config.yaml").read_bytes()
    with pytest.raises(ZooError, match=rf"trainer\.{limit}={too_low}: must be at least {reached}"):
        resume(folder, {f"trainer.{limit}": too_low})
    assert (folder / "config.yaml").read_bytes() == before
    resume(folder, {f"trainer.{limit}": reached})


def test_an_edited_config_is_refused_and_what_may_change_may_be_edited(small_run, capsys) -> None:
    folder, scores = small_run("task.class_weights=balanced")
    file = folder / "config.yaml"
    text = file.read_text(encoding="utf-8")
    for edited, said in (
        (text.replace("lr: 0.005", "lr: 0.05"), r"config\.yaml: optimizer\.lr is 0\.05, .* trained with 0\.005"),
        (text.replace("  lr: 0.005\n", ""), r"optimizer\.lr is None"),
        (text + "ema_decoy: 1\n", r"ema_decoy is 1"),
    ):
        assert edited != text
        file.write_text(edited, encoding="utf-8")
        with pytest.raises(ZooError, match=said):
            resume(folder, {})
    file.write_text(text.replace("accelerator: cpu", "accelerator: auto"), encoding="utf-8")
    assert resume(folder, {"trainer.accelerator": "cpu"}) == scores


def test_scores_come_from_the_last_checkpoint_where_the_best_is_damaged_or_gone(small_run, capsys) -> None:
    folder, scores = small_run("trainer.check_val_every_n_epoch=2")  # the best is the last
    best = folder / "checkpoints" / "best.ckpt"
    best.write_bytes(best.read_bytes()[:20_000])
    assert resume(folder, {}) == scores
    assert "best.ckpt is damaged or not a checkpoint: it cannot be read. Using last.ckpt." in capsys.readouterr().out
    best.unlink()
    assert resume(folder, {}) == scores
    assert "best.ckpt. Using last.ckpt." in capsys.readouterr().out


def test_a_missing_last_checkpoint_is_said(small_run, capsys) -> None:
    folder, scores = small_run()
    (folder / "checkpoints" / "last.ckpt").unlink()
    assert resume(folder, {}) == scores
    assert "There is no checkpoint" in (said := capsys.readouterr().out)
    assert "last.ckpt. Using previous.ckpt." in said


@pytest.mark.parametrize("kept", [0, 60, 90])
def test_metrics_that_lost_lines_are_cut_to_whole_ones(kept: int, small_run, capsys) -> None:
    folder, _ = small_run("trainer.max_epochs=1")
    metrics = folder / "metrics.csv"
    content = metrics.read_bytes()
    metrics.write_bytes(content[:kept])
    assert resume(folder, {"trainer.max_epochs": 2})
    assert capsys.readouterr().out.count("metrics.csv has lost lines") == 1
    assert_each_step_once(folder)
    head = content[:kept][: content[:kept].rfind(b"\n") + 1] or b"step,epoch,name,value\n"
    rest = metrics.read_bytes().removeprefix(head)
    assert rest.startswith(b"16,1,"), "the second epoch's first line"
    resume(folder, {})
    assert "has lost lines" not in capsys.readouterr().out
    metrics.unlink()
    resume(folder, {})
    assert metrics.read_bytes() == b"step,epoch,name,value\n"


def test_a_run_continues_where_its_data_lie_now(small_run, tmp_path) -> None:
    rows = "".join(f"{n % 7},{n % 3},{'ab'[n % 2]}\n" for n in range(60))
    (tmp_path / "table.csv").write_text(f"x,y,class\n{rows}")
    words = [f"data.path={tmp_path / 'table.csv'}", "data.target=class", "model=mlp"]
    folder, scores = small_run("data=csv_table", *words)
    (tmp_path / "table.csv").rename(tmp_path / "moved.csv")
    with pytest.raises(ZooError, match=r"table\.csv"):
        resume(folder, {})
    assert resume(folder, {"data.path": str(tmp_path / "moved.csv")}) == scores
    assert resume(folder, {}) == scores
