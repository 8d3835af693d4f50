"""Several processes: the weights and scores of one, told and written once, ended together, continued exactly."""

import csv
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from shared_runs import do
from test_resume import assert_same_end

from zoo.errors import ZooError
from zoo.processes import Place, devices_of, options_here, place, slurm_address, to_start

TESTS = Path(__file__).parent
COMMON = [
    *("trainer.accelerator=cpu", "trainer.max_epochs=2", "trainer.log_every_n_steps=3", "trainer.gradient_clip_val=1"),
    *("optimizer=momentum", "optimizer.lr=0.01", "logger=csv"),
]
# The last batch of an epoch is smaller than the others, and in it the second process's share than the first's.
PICTURES = ["data=synthetic", "data.image_size=16", "data.batch_size=16", "data.train_size=155", "data.val_size=61"]
FEW = ["trainer.limit_train_batches=10", "trainer.limit_val_batches=2", "trainer.limit_test_batches=2"]
TASKS: dict[str, list[str]] = {
    "classification": [
        *("model=lenet5", *PICTURES, "data.image_size=28", "data.test_size=1", "task.class_weights=balanced"),
        *("augment.noise=0.1", "trainer.accumulate_grad_batches=3", "ema_decay=0.9", "penalty.l1=0.001"),
        *("penalty.l2=0.01", "scheduler=plateau", "early_stopping.patience=1", "init=lsuv", "logger=tensorboard"),
    ],
    "segmentation": [
        *("model=unet", "model.width=0.0625", "model.depth=2", "model.batch_norm=false", "train_examples=75"),
        *("data.batch_size=8", "task.class_weights=balanced", "augment=tiles", *FEW[1:]),
    ],
    "gan": [
        *("model=wgan_gp", "model.width=0.125", "swap.norm=none", *PICTURES, "task.n_critic=2", "ema_decay=0.9"),
        *("trainer.accumulate_grad_batches=2", "trainer.max_epochs=5", "task.loss=non_saturating"),
    ],
}
MORE_TASKS: dict[str, list[str]] = {
    "language_model": [
        *("model=lstm", "model.hidden=32", "data.batch_size=9", "data.sequence_length=32", "data.eval_batch_size=1"),
        *FEW,
    ],
    "seq2seq": ["model=seq2seq", "model.hidden=32", "data=reversal", "data.train_size=309", "data.batch_size=31", *FEW],
    "reconstruction": [
        *("model=autoencoder", "model.width=0.25", "task.corruption=gaussian", "task.contractive_weight=0.1"),
        *("swap.activation=tanh", *PICTURES, "data.test_size=1"),
    ],
    "vae": ["model=vae", "model.hidden=[64]", "task.binarize=dynamic", "task.importance_samples=2", *PICTURES],
    "diffusion": [
        *("model=diffusion", "model.width=16", "model.multipliers=[1,2]", "model.attention=[8]", *PICTURES),
        *("task.condition_dropout=0.3", "data.test_size=1", "ema_decay=0.9"),
    ],
    "forecasting": ["model=lstm_forecaster", "model.hidden=16", "data.batch_size=33"],
    "regression": [
        *("model=mlp", *PICTURES, "data.kind=regression", "data.num_classes=1", "task=regression", "task.loss=huber"),
    ],
    "classification of sequences": ["model=gru_classifier", "model.hidden=16", "data.batch_size=33", *FEW],
}
# What is killed: a GAN counts two engines' steps, and one of its iterations goes on in the next epoch.
KILLED = [
    *("model=gan", "model.width=0.125", "model.latent=8", *PICTURES, "task.n_critic=2", "checkpoint.every_n_steps=2"),
    *("trainer.accumulate_grad_batches=2", "trainer.max_epochs=3", "ema_decay=0.9", "logger=csv"),
    *("trainer.accelerator=cpu", "trainer.log_every_n_steps=3"),
]


def environment(rank: int, port: int = 0) -> dict[str, str]:
    """Of one of two processes that are started by hand, as torchrun would."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    fixed = {"PYTHONPATH": str(TESTS.parent), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    return {
        **os.environ,
        **fixed,
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        **{name: str(value) for name, value in names.items()},
    }


def pair(*command: str) -> list[int]:
    """Run a script in two processes; when one is killed, so is the other. Their exit codes."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    started = [
        subprocess.Popen([sys.executable, *command], env=environment(rank, port), stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    while set(codes := [process.poll() for process in started]) != {0} and -signal.SIGKILL not in codes:
        assert not any(code and code > 0 for code in codes), [process.communicate()[1] for process in started]
        time.sleep(0.05)
    for process in started:
        process.kill()
        process.communicate()
    return [process.returncode for process in started]


def train_in_two(jobs: Sequence[dict[str, Any]], folder: Path) -> None:
    (folder / "jobs.json").write_text(json.dumps(jobs))
    assert pair(str(TESTS / "shared_runs.py"), str(folder / "jobs.json")) == [0, 0]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def logged(folder: Path) -> dict[tuple[str, str], float]:
    with (folder / "metrics.csv").open() as file:
        rows = [((row["step"], row["name"]), float(row["value"])) for row in csv.DictReader(file)]
    assert len(rows) == len(dict(rows)), "written once"
    return dict(rows)


def scores(folder: Path) -> dict[str, float]:
    return json.loads((folder / "scores.json").read_text())


def largest_difference(two: Path, one: Path) -> float:
    """Of weights and averages; besides, all that was logged and scored is equal to rounding."""
    assert len(list(two.iterdir())) == len(list(one.iterdir())), "and nothing by the second process"
    ours, wanted = weights(two), weights(one)
    assert ours.keys() == wanted.keys()
    assert logged(two) == pytest.approx(logged(one), rel=1e-2, abs=1e-5)  # gradients that cancel have no exact norm
    assert scores(two) == pytest.approx(scores(one), rel=1e-3, abs=1e-5)
    return max(float((ours[name].double() - wanted[name].double()).abs().max()) for name in wanted)


def jobs_of(cases: dict[str, list[str]], folder: Path) -> list[dict[str, Any]]:
    return [{"folder": str(folder / name), "overrides": [*COMMON, *words]} for name, words in cases.items()]


def compare(cases: dict[str, list[str]], two: Path, one: Path) -> None:
    for job in jobs_of(cases, one):
        do(job)
    differences = {name: largest_difference(two / name, one / name) for name in cases}
    print(*(f"{name}: {difference:.1e}" for name, difference in differences.items()), sep="\n")
    assert max(differences.values()) < 1e-5


@pytest.fixture(scope="module")
def in_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of two processes that two tests need, from one start."""
    folder = tmp_path_factory.mktemp("in_two")
    train_in_two([*jobs_of(TASKS, folder), {"folder": str(folder / "whole"), "overrides": KILLED}], folder)
    return folder


def test_two_processes_train_and_score_as_one(in_two: Path, tmp_path: Path) -> None:
    compare(TASKS, in_two, tmp_path)


@pytest.mark.slow
def test_so_they_do_in_all_tasks(tmp_path: Path) -> None:
    train_in_two(jobs_of(MORE_TASKS, tmp_path / "two"), tmp_path)
    compare(MORE_TASKS, tmp_path / "two", tmp_path / "one")


# Killed and continued ------------------------------------------------------------------------------------------------


def pair_until(folder: Path, where: str, count: int, overrides: Sequence[str] = ()) -> list[int]:
    """Start a run in two processes, or continue it where there are no overrides; both are killed there."""
    return pair(str(TESTS / "killed_run.py"), str(folder), where, str(count), *overrides)


def test_killed_and_continued_they_end_with_the_same_bits(in_two: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    assert -signal.SIGKILL in pair_until(killed, "step", 21, KILLED)
    assert pair_until(killed, "never", 0) == [0, 0]
    assert_same_end(killed, in_two / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("case", ["gan", *(name for name in MORE_TASKS if name in ("language_model", "diffusion"))])
def test_five_random_kills(case: str, tmp_path: Path) -> None:
    overrides = KILLED if case == "gan" else [*COMMON, *MORE_TASKS[case], "checkpoint.every_n_steps=2"]
    overrides = [*overrides, "trainer.max_epochs=6"]
    draw = random.Random(case)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert pair_until(whole, "never", 0, overrides) == [0, 0]
    most = {"step": 25, "validation": 2, "save": 5}
    kills = [(where, draw.randint(1, most[where])) for where in draw.choices(list(most), k=5)]
    for number, (where, count) in enumerate(kills):
        assert -signal.SIGKILL in pair_until(killed, where, count, () if number else overrides), (where, count)
    assert pair_until(killed, "never", 0) == [0, 0]
    assert_same_end(killed, whole)
    print(case, kills)


# Started, told and ended together ------------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    """The processes that a process started, in the order of their numbers."""
    return sorted(int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def ended(folder: Path, how: str) -> tuple[int, str]:
    """Exit code and stderr of a run of two processes to which something happens; nothing of it is left."""
    words = ["data=synthetic", "model=mlp", "trainer=ddp", "trainer.accelerator=cpu", "trainer.max_epochs=100000"]
    command = [sys.executable, str(TESTS.parent / "train.py"), *words, "logger=csv", "run_dir=run"]
    main = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 120
    while not (folder / "run" / "checkpoints" / "last.ckpt").exists() and time.monotonic() < until:
        time.sleep(0.1)
    workers = children(main.pid)
    assert len(workers) == 2
    target, signum = {
        "a process killed": (workers[1], signal.SIGKILL),
        "the first killed": (workers[0], signal.SIGKILL),
        "the starter killed": (main.pid, signal.SIGKILL),
        "ctrl-c": (main.pid, signal.SIGINT),
        "sigterm": (main.pid, signal.SIGTERM),
    }[how]
    os.kill(target, signum)
    _, error = main.communicate(timeout=30)
    until = time.monotonic() + 5
    while any(map(is_running, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(is_running, workers))
    torch.load(folder / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    return main.returncode, error


ENDS = {
    "a process killed": (2, "Process 2 of 2 was ended by SIGKILL (the system does that where memory runs out)"),
    "the first killed": (2, "Process 1 of 2 was ended by SIGKILL"),
    "the starter killed": (-9, ""),
    "ctrl-c": (130, "Stopped. "),
    "sigterm": (143, "Stopped. "),
}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux")
@pytest.mark.parametrize(
    "how", [name if name == "a process killed" else pytest.param(name, marks=pytest.mark.slow) for name in ENDS]
)
def test_they_end_together_with_a_sentence(how: str, tmp_path: Path) -> None:
    code, error = ended(tmp_path, how)
    assert code == ENDS[how][0], error
    assert error.startswith(ENDS[how][1])
    assert len(error.splitlines()) <= 2
    assert code < 0 or error.endswith("Continue with: python train.py resume=run\n")


@pytest.mark.slow
def test_torchrun_and_srun_start_one_run(tmp_path: Path) -> None:
    script = str(TESTS.parent / "train.py")
    words = ["data=synthetic", "model=mlp", "trainer.accelerator=cpu", "trainer.max_epochs=1", "logger=csv"]
    by_torch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*by_torch, script, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test/accuracy ") == 1
    [first] = (tmp_path / "runs" / "mlp-synthetic").iterdir()
    evaluated = [script.replace("train", "evaluate"), f"ckpt_path={first}"]
    done = subprocess.run([*by_torch, *evaluated], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert f"test/loss {scores(first)['test/loss']:.6g}\n" in done.stdout
    for wrong in ("optimizer.lrr=1", "model.hidden=[-1]"):
        command = [*by_torch, script, *words, wrong]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode
        assert done.stderr.count(f"{wrong.rpartition('.')[2].partition('=')[0]}=") == 1, done.stderr
    step = {"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "2", "SLURM_LOCALID": "0"}
    started = [
        subprocess.Popen(
            [sys.executable, script, *words],
            cwd=tmp_path,
            env={**environment, **step, "SLURM_PROCID": rank, "SLURM_NODEID": rank},
        )
        for rank in "01"
    ]
    assert [process.wait() for process in started] == [0, 0]
    first, second = sorted((tmp_path / "runs" / "mlp-synthetic").iterdir())
    assert scores(first) == scores(second)


def test_a_bug_keeps_one_traceback_and_a_mistake_one_sentence(tmp_path: Path) -> None:
    words = ["data=synthetic", "model=lenet5", "trainer=ddp", "trainer.accelerator=cpu", "data.image_size=30"]
    command = [sys.executable, str(TESTS.parent / "train.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("data.image_size=30")
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


# Who they are --------------------------------------------------------------------------------------------------------


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in list(os.environ):
        if name.startswith(("SLURM_", "RANK", "LOCAL_", "WORLD_SIZE", "GROUP_RANK")):
            monkeypatch.delenv(name)
    return monkeypatch


def test_a_process_knows_its_place(alone: pytest.MonkeyPatch) -> None:
    assert place() == Place()
    step = {"NUM_TASKS": 6, "NUM_NODES": 3, "NODELIST": "gpu[07-09,12],cpu1"}
    for name, value in step.items():
        alone.setenv(f"SLURM_STEP_{name}", str(value))
    for name, value in {"PROCID": 5, "LOCALID": 1, "NODEID": 2, "JOB_ID": 123456}.items():
        alone.setenv(f"SLURM_{name}", str(value))
    assert place() == Place(rank=5, local_rank=1, world_size=6, local_world_size=2, group_rank=2)
    assert slurm_address() == ("gpu07", 18456)
    for names, first in (("host3", "host3"), ("n1,n2", "n1"), ("rack[1-2]n[3,5]", "rack1n3")):
        alone.setenv("SLURM_STEP_NODELIST", names)
        assert slurm_address()[0] == first
    alone.setenv("SLURM_STEP_NUM_TASKS", "7")
    with pytest.raises(ZooError, match="unequal"):
        to_start({"devices": 2})
    for name, value in environment(1).items():
        alone.setenv(name, value)
    assert place() == Place(rank=1, local_rank=1, world_size=2, local_world_size=2)
    assert to_start({"devices": 1}) == 0
    assert options_here({"devices": 1, "strategy": "auto"}) == {"devices": 2, "strategy": "ddp"}


@pytest.mark.parametrize(
    ("devices", "count"), [(1, 1), (3, 3), ("2", 2), ("0,1", 2), ([1, 3], 2), ("auto", 1), (-1, 1), ("-1", 1)]
)
def test_devices_are_processes(devices: Any, count: int, alone: pytest.MonkeyPatch) -> None:
    trainer = {"accelerator": "cpu", "devices": devices, "strategy": "ddp"}
    assert len(devices_of(trainer)) == count
    assert to_start(trainer) == (count if count > 1 else 0)
    assert options_here(trainer)["strategy"] == "auto"


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("strategy", "ddp_spawn", "auto, ddp, fsdp"), ("num_nodes", 2, "torchrun or srun"), ("devices", "x", "how many")],
)
def test_what_cannot_be_started_is_refused(option: str, value: Any, said: str, alone: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZooError, match=rf"trainer\.{option}={value}: .*{said}"):
        to_start({"devices": 2, option: value})
