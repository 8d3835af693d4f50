"""Time from the shell to a stated accuracy, against public projects.

Fashion-MNIST, 60,000 images to train on and 10,000 to test, from the same files. A time is the wall clock from the
start of the process: for a peer until it prints a test accuracy that is high enough, after which it is stopped; for us
until the process has ended, with checkpoints, logs and the final test from the best checkpoint. We train on 55,000 of
the images and choose by the other 5,000; pytorch/examples and timm look at the test set after every epoch.

pytorch/examples: `mnist/main.py` as it is. lightning-hydra-template: as it is, to its end, for its own ten epochs and
for two; its test images are drawn from both official parts. Beside it stand the faster of our two commands that is at
least as accurate. The first one's recipe was chosen among twelve by the test accuracy of one seed; the second one
trains the template's network with its optimizer. timm: `train.py` with ResNet-18 at 28 pixels, one epoch, without
augmentation, else as it is. The accuracy of a row is the lowest of its rounds.
"""

import os
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.record import ROOT, Bar, Options, Part, ratio
from zoo.errors import ZooError

TARGET = 0.90
LEAST_EXAMPLES, LEAST_TEMPLATE = 4.0, 1.5
FAST = "experiment=fashion_mnist_fast"
DENSE = (  # the template's network, optimiser and batches, for two epochs
    "model=mlp model.hidden=[64,128,64] model.norm=batch data=fashion_mnist augment=none data.batch_size=128 "
    "optimizer=adam trainer.max_epochs=2 logger=csv"
)


@dataclass(frozen=True)
class Change:
    """A line of a peer's file, and what stands there instead."""

    file: str
    before: str
    after: str


@dataclass(frozen=True)
class Peer:
    """A public project: its folder in `peers`, the script a reader starts, what points it at Fashion-MNIST.

    `accuracy` finds an accuracy in a line of its output; `scale` is what it prints for all right.
    """

    folder: str
    cwd: Path
    script: str
    changes: tuple[Change, ...]
    words: str
    accuracy: str
    scale: float
    environment: tuple[tuple[str, str], ...] = ()


PEERS = {
    "pytorch/examples": Peer(
        folder="examples",
        cwd=Path("mnist"),
        script="main.py",
        changes=(Change("main.py", "datasets.MNIST('../data'", "datasets.FashionMNIST('{data}'"),),
        words="",
        accuracy=r"Test set: .* Accuracy: (\d+)/10000",
        scale=10_000,
    ),
    "lightning-hydra-template": Peer(
        folder="lightning-hydra-template",
        cwd=Path(),
        script="src/train.py",
        changes=(
            Change(
                "src/data/mnist_datamodule.py",
                "from torchvision.datasets import MNIST",
                "from torchvision.datasets import FashionMNIST as MNIST",
            ),
        ),
        words="paths.data_dir={data}/",
        accuracy=r"test/acc\s+\S\s+([\d.]+)",
        scale=1,
        # else its own test fails: torch ≥ 2.6 does not load the checkpoints it writes
        environment=(("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1"),),
    ),
    "timm": Peer(
        folder="pytorch-image-models",
        cwd=Path(),
        script="train.py",
        changes=(),
        words="--dataset torch/fashion_mnist --data-dir {data} --model resnet18 --num-classes 10 --in-chans 1 "
        "--input-size 1 28 28 --mean 0.286 --std 0.353 --no-aug --device cpu --lr 0.1 --warmup-epochs 0 "
        "--epochs 1 -j 2 --output {out}",
        accuracy=r"\*\*\* Best metric: ([\d.]+)|Test: \[\s*(\d+)/\2\].*Acc@1:\s*[\d.]+ \(\s*([\d.]+)\)",
        scale=100,
    ),
}


class Finish(NamedTuple):
    """Seconds until the accuracy was reached, or until the end; and the best accuracy until then."""

    seconds: float
    accuracy: float
    reached: bool


def patched(options: Options, folder: Path) -> dict[str, Peer]:
    """The peers that are at hand, copied into `folder` and changed as `Change` says; what is changed is printed."""
    assert options.peers is not None
    found: dict[str, Peer] = {}
    for name, peer in PEERS.items():
        source = options.peers / peer.folder
        if not source.is_dir():
            print(f"  {name}: not in {options.peers}, left out")
            continue
        place = folder / peer.folder / peer.cwd
        shutil.copytree(source / peer.cwd, place, ignore=shutil.ignore_patterns(".git"))
        for change in peer.changes:
            file, after = place / change.file, change.after.format(data=options.data.absolute())
            text = file.read_text(encoding="utf-8")
            if change.before not in text:
                raise ZooError(
                    f"{source / peer.cwd / change.file} has no {change.before!r}: another version of {name}?"
                )
            print(f"  {name}, {change.file}: {change.before} → {after}")
            file.write_text(text.replace(change.before, after), encoding="utf-8")
        found[name] = Peer(**{**vars(peer), "cwd": place})
    return found


def versions(options: Options) -> list[str]:
    """Which versions of the peers ran, and what was changed in them."""
    lines = []
    for name, peer in PEERS.items():
        source = (options.peers or Path()) / peer.folder
        if source.is_dir():
            done = subprocess.run(
                ["git", "log", "-1", "--format=%h of %cs"], cwd=source, capture_output=True, text=True
            )
            lines.append(f"{name} at {done.stdout.strip() or 'an unknown commit'}.")
            for change in peer.changes:
                after = change.after.format(data="FOLDER")
                lines.append(f"In its {change.file} `{change.before}` became `{after}`.")
            settings = [f"{key}={value}" for key, value in peer.environment]
            words = peer.words.format(data="FOLDER", out="FOLDER")
            lines.append(f"Started as `{' '.join([*settings, 'python', peer.script, words]).strip()}`.")
    return lines


def race(command: list[str], *, accuracy: str, scale: float, target: float | None, **process: object) -> Finish:
    """Run a command until a line of its output shows an accuracy of `target`; without one, to its end."""
    start, best = time.perf_counter(), 0.0
    tail: list[str] = []
    running = subprocess.Popen(  # type: ignore[call-overload]
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, **process
    )
    with running:
        try:
            for line in running.stdout:
                tail = [*tail[-20:], line]
                if found := re.search(accuracy, line):
                    best = max(best, float([group for group in found.groups() if group][-1]) / scale)
                    if target is not None and best >= target:
                        return Finish(time.perf_counter() - start, best, True)
            running.wait()
        finally:
            if running.returncode is None:  # good enough, or Ctrl-C: its loader workers end with it
                os.killpg(running.pid, signal.SIGKILL)
    if running.returncode or not best:
        raise RuntimeError(f"{shlex.join(command)} ended with {running.returncode}:\n{''.join(tail)}")
    return Finish(time.perf_counter() - start, best, target is None)


def our_run(words: str, options: Options) -> Finish:
    """A run of ours from the shell to its end."""
    with tempfile.TemporaryDirectory() as folder:
        more = ["trainer.limit_train_batches=5", "trainer.limit_test_batches=2"] if options.quick else []
        data = [] if options.quick else [f"data.root={options.data.absolute()}"]
        command = [sys.executable, "train.py", *words.split(), *data, f"run_dir={folder}/run", *more]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return race(command, accuracy=r"^test/accuracy ([\d.]+)", scale=1, target=None, cwd=str(ROOT), env=environment)


def peer_run(peer: Peer, options: Options, folder: Path, target: float | None, more: str = "") -> Finish:
    words = peer.words.format(data=options.data.absolute(), out=folder / "out")
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **dict(peer.environment)}
    environment.pop("PYTHONPATH", None)
    command = [options.python, peer.script, *words.split(), *more.split()]
    return race(command, accuracy=peer.accuracy, scale=peer.scale, target=target, cwd=str(peer.cwd), env=environment)


def measure(options: Options) -> Part:
    part = Part(("command", "seconds", "accuracy", "ours is faster by"))
    rounds = options.repeat(2)
    if options.quick:
        finish = our_run(DENSE.replace("fashion_mnist", "fashion"), options)
        part.add("ours, quick", finish.seconds, finish.accuracy, None)
        return part
    if not (options.data / "FashionMNIST" / "raw").is_dir():
        raise ZooError(
            f"data={options.data}: must hold FashionMNIST/raw with the four IDX files, unpacked: docs/benchmarks.md "
            "says where they come from."
        )

    def show(name: str, finishes: list[Finish], by: float | None = None) -> list[float]:
        times = [finish.seconds for finish in finishes]
        reached = all(finish.reached for finish in finishes)
        seconds = statistics.median(times)
        part.add(name if reached else f"{name}: not reached", seconds, min(f.accuracy for f in finishes), by)
        return times

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peers = patched(options, folder) if options.peers is not None else {}
        examples, template, timm = (peers.get(known) for known in PEERS)
        ours: list[Finish] = []
        theirs: list[Finish] = []
        for _ in range(rounds):
            ours.append(our_run(FAST, options))
            if examples is not None:
                theirs.append(peer_run(examples, options, folder, TARGET))
        fast = show(f"python train.py {FAST}", ours)
        lowest = min(finish.accuracy for finish in ours)
        part.hold(Bar(f"{FAST}: test accuracy", lowest, TARGET, at_least=True))
        if theirs:
            by = ratio([finish.seconds for finish in theirs], fast)
            show(f"pytorch/examples main.py, to {TARGET:.0%}", theirs, by)
            told = f"to {TARGET:.0%} on Fashion-MNIST: times as fast as pytorch/examples (goal 5)"
            part.hold(Bar(told, by if lowest >= TARGET else None, LEAST_EXAMPLES, at_least=True))
        dense, two_epochs = [], []
        for _ in range(rounds):
            dense.append(our_run(DENSE, options))
            if template is not None:
                two_epochs.append(peer_run(template, options, folder, None, "trainer.max_epochs=2"))
        show(f"python train.py {DENSE}", dense)
        if template is not None:
            whole = [peer_run(template, options, folder, None)]
            for what, finishes in (("2 epochs", two_epochs), ("its default, 10 epochs", whole)):
                accuracy = max(finish.accuracy for finish in finishes)
                able = [runs for runs in (dense, ours) if min(run.accuracy for run in runs) >= accuracy]
                best = min((statistics.median(run.seconds for run in runs) for runs in able), default=None)
                gain = statistics.median(finish.seconds for finish in finishes) / best if best else None
                show(f"lightning-hydra-template, {what}", finishes, gain)
                told = f"to lightning-hydra-template's accuracy after {what}: times as fast"
                part.hold(Bar(told, gain, LEAST_TEMPLATE, at_least=True))
        if timm is not None:
            finish = peer_run(timm, options, folder, TARGET)
            show(f"timm train.py, to {TARGET:.0%}", [finish], finish.seconds / statistics.median(fast))
    part.notes += versions(options) or ["Without peers=FOLDER: no public projects beside it."]
    return part
