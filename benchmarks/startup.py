"""How long a command takes to answer.

Whole processes from the shell, medians. Beside them the same of public projects, where they are at hand, and a bare
`import torch, pytorch_lightning`, below which nothing that trains can be. "One step" trains one batch of `digits`
and evaluates one; a first run on a machine is slower, as files come from the disk.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.record import ROOT, Bar, Options, Part, seconds
from benchmarks.shell import patched

INSTANT = 0.5  # seconds
ONE_STEP = ["trainer.max_steps=1", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1"]
OURS = {
    "python train.py --help": (["train.py", "--help"], 0),
    "python train.py --cfg job": (["train.py", "--cfg", "job"], 0),
    "python train.py model=resnet18 data=cifar10 --cfg job": (
        ["train.py", "model=resnet18", "data=cifar10", "--cfg", "job"],
        0,
    ),
    "a refusal: python train.py optimizer.learning_rate=1": (["train.py", "optimizer.learning_rate=1"], 2),
    "zoo list": (["-m", "zoo", "list"], 0),
    "zoo": (["-m", "zoo"], 0),
}


def process(command: list[str], *, cwd: Path, code: int = 0) -> float:
    """Seconds of a process; it must end with `code`."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if cwd == ROOT:
        environment["PYTHONPATH"] = str(ROOT)

    def call() -> None:
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
        if done.returncode != code:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-800:]}")

    return seconds(call)


def measure(options: Options) -> Part:
    part = Part(("command", "seconds", "slowest"))

    def report(name: str, times: list[float]) -> float:
        part.add(name, statistics.median(times), max(times))
        return statistics.median(times)

    python = sys.executable
    for name, (words, code) in list(OURS.items())[: 2 if options.quick else None]:
        times = [process([python, *words], cwd=ROOT, code=code) for _ in range(options.repeat(7))]
        part.hold(Bar(f"{name}: an answer", report(name, times), INSTANT, "s"))
    if options.quick:
        return part
    rounds = range(options.repeat(3))
    with tempfile.TemporaryDirectory() as folder:
        bare = ["-c", "import torch, pytorch_lightning"]
        report("bare import of torch and pytorch_lightning", [process([python, *bare], cwd=ROOT) for _ in rounds])
        steps = [process([python, "train.py", *ONE_STEP, f"run_dir={folder}/{n}"], cwd=ROOT) for n in rounds]
        report("python train.py: one step, evaluated, saved", steps)
    if options.peers is None:
        part.notes.append("Without peers=FOLDER: no public projects beside them.")
        return part
    with tempfile.TemporaryDirectory() as folder:
        for name, peer in patched(options, Path(folder)).items():
            answers = [process([options.python, peer.script, "--help"], cwd=peer.cwd) for _ in rounds]
            report(f"{name}: python {peer.script} --help", answers)
    return part
