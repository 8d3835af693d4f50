"""What more work costs.

Everything as a person runs it. Where the work grows, an exponent is fitted through the times (least squares in
logarithms): 1 is linear, and nothing may grow faster than work^1.1. Where it must not grow, the last third of the times
stands over the first third: 1 is flat. Memory is what the process has after the last of 10,000 steps, over what it had
after the first 1,000, checkpoints and validations between them included.
"""

import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.harness import classify
from benchmarks.record import ROOT, Bar, Options, Part, seconds
from benchmarks.running import Workload, descend
from zoo.data.image_folder import ImageFolder
from zoo.evaluation import evaluate_checkpoint
from zoo.run import run

MOST, FLAT, FLAT_MEMORY, MARGINAL = 1.1, 1.1, 1.01, 1.25
PAGE = os.sysconf("SC_PAGE_SIZE") / 1e6
DIGITS = "data=synthetic data.val_size=64 data.test_size=64 data.batch_size=64"


def exponent(work: Sequence[float], cost: Sequence[float]) -> float:
    """The b of cost = a · work^b."""
    return float(np.polyfit(np.log(work), np.log(cost), 1)[0])


def flatness(costs: Sequence[float]) -> float:
    """The median of the last third over that of the first."""
    third = max(1, len(costs) // 3)
    return statistics.median(costs[-third:]) / statistics.median(costs[:third])


def resident() -> float:
    """MB of memory this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def inside(times: Sequence[float]) -> float:
    """Milliseconds of a step, from an epoch's first to its last."""
    return (times[-1] - times[0]) / (len(times) - 1) * 1e3


class Growth(Part):
    def __init__(self) -> None:
        super().__init__(("cost", "of", "least", "most", "exponent or flatness", "at most"))

    def grows(self, cost: str, work: str, x: Sequence[float], y: Sequence[float], unit: str) -> None:
        self.keep(cost, work, x, y, unit, exponent(x, y), MOST, f"{cost} against {work}: exponent")

    def stays(
        self, cost: str, work: str, x: Sequence[float], y: Sequence[float], unit: str, *, limit: float = FLAT
    ) -> None:
        self.keep(cost, work, x, y, unit, flatness(y), limit, f"{cost} over {work}: last third / first")

    def keep(
        self,
        cost: str,
        work: str,
        x: Sequence[float],
        y: Sequence[float],
        unit: str,
        found: float,
        limit: float,
        bar: str,
    ) -> None:
        self.add(f"{cost}, {unit}", f"{work}, {x[0]:,} to {x[-1]:,}", float(min(y)), float(max(y)), found, limit)
        self.hold(Bar(bar, found, limit))
        self.curves[f"{cost}, {unit}"] = {"x": list(x), "y": [float(f"{value:.5g}") for value in y], "of": work}


def steps_by_images(part: Growth, options: Options) -> None:
    """An epoch of LeNet-5 against the number of its images, the run's own costs left out."""
    sizes = [128, 256] if options.quick else [4_000, 8_000, 16_000, 32_000]
    times = []
    for size in sizes:
        workload = Workload(["model=lenet5", *DIGITS.split(), f"data.train_size={size}"])
        steps = len(workload.data.loader("train", training=True))
        found = []
        for _ in range(options.repeat(2)):
            workload.harness(max_epochs=-1, max_steps=2 * steps + 1)
            found.append(workload.times(2)[0] - workload.times(1)[0])
        times.append(min(found))
    part.grows("an epoch of LeNet-5", "images to train on", sizes, times, "s")


def step_by_batch_and_width(part: Growth, options: Options) -> None:
    def a_step(model: str, batch: int) -> float:
        words = [*model.split(), "data=synthetic", f"data.train_size={12 * batch}", f"data.batch_size={batch}"]
        workload = Workload(words)
        workload.by_hand(descend(classify), epochs=2, steps=12, warm_up=4)
        at = workload.times(1)
        return min(b - a for a, b in pairwise(at)) * 1e3

    batches = [8, 16] if options.quick else [32, 64, 128, 256, 512]
    part.grows("a step of LeNet-5", "images in a batch", batches, [a_step("model=lenet5", b) for b in batches], "ms")
    widths = (
        [16, 32] if options.quick else [1024, 1448, 2048, 2896]
    )  # from where weights and averages fit into no cache
    parameters = [784 * w + w * w + 10 * w + 2 * w + 10 for w in widths]
    times = [a_step(f"model=mlp model.hidden=[{w},{w}]", 8 if options.quick else 128) for w in widths]
    part.grows("a step of an MLP", "parameters", parameters, times, "ms")


def flat_over_epochs(part: Growth, options: Options) -> None:
    epochs, steps = (3, 4) if options.quick else (45, 60)
    workload = Workload(["model=lenet5", *DIGITS.split(), f"data.train_size={64 * steps}", "trainer.max_epochs=1"])
    workload.harness(max_epochs=epochs + 1)
    numbers = list(range(1, epochs + 1))  # the first epoch warms up
    part.stays("a step of LeNet-5 in each epoch", "epochs", numbers, [inside(workload.times(e)) for e in numbers], "ms")


def flat_over_runs(part: Growth, options: Options) -> None:
    count, steps = (2, 4) if options.quick else (12, 100)
    workload = Workload(["model=lenet5", *DIGITS.split(), f"data.train_size={64 * steps}"])
    times = []
    for _ in range(count + 1):
        workload.harness(max_epochs=2)
        times.append(inside(workload.times(1)))
    part.stays("a step of LeNet-5 in each run", "runs in one process", list(range(1, count + 1)), times[1:], "ms")


def flat_memory(part: Growth, options: Options) -> None:
    steps, every = (40, 4) if options.quick else (10_000, 100)
    words = ["model=mlp", *DIGITS.split(), f"data.train_size={64 * steps // 10}"]
    workload = Workload(words)
    memory: list[float] = []
    count = 0

    def look() -> None:
        nonlocal count
        count += 1
        if count % every == 0:
            memory.append(resident())

    workload.after_batch = look
    workload.harness(max_epochs=10)
    at = [every * (number + 1) for number in range(len(memory))]
    tenth = len(memory) // 10
    found = statistics.median(memory[-tenth:]) / statistics.median(memory[tenth : 2 * tenth])
    bar = f"memory over {steps:,} steps: last tenth / second"
    part.keep("memory of a run of the MLP", "steps", at, memory, "MB", found, FLAT_MEMORY, bar)


def evaluation_by_images(part: Growth, options: Options) -> None:
    """A test of LeNet-5 from its checkpoint, data in memory."""
    sizes = [64, 128] if options.quick else [8_000, 16_000, 32_000, 64_000]
    words = ["model=lenet5", *DIGITS.split(), "data.train_size=640", "trainer.max_epochs=1"]
    workload = Workload([*words, f"data.test_size={sizes[-1]}"])
    whole = workload.data.splits["test"]
    times = []
    with tempfile.TemporaryDirectory() as name, redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        config = workload.config
        run(config, Path(name), data=workload.data, choices=workload.choices)
        for size in sizes:
            workload.data.splits["test"] = type(whole)(whole.inputs[:size], whole.targets[:size])
            best = Path(name, "checkpoints", "best.ckpt")
            test = partial(evaluate_checkpoint, best, data=workload.data)
            times.append(min(seconds(test) for _ in range(options.repeat(3))))
    part.grows("evaluation of LeNet-5", "images", sizes, times, "s")


def files_to_read(part: Growth, options: Options) -> None:
    """An image folder, until training can start."""
    counts = [20, 40] if options.quick else [500, 1000, 2000, 4000]
    times, draw = [], np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name, redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        written = 0
        for count in counts:
            for number in range(written, count):
                place = Path(name, "ab"[number % 2])
                place.mkdir(exist_ok=True)
                Image.fromarray(draw.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(place / f"{number}.jpg")
            written = count
            found = [seconds(lambda: ImageFolder(root=name, image_size=32).setup()) for _ in range(options.repeat(2))]
            times.append(min(found))
    part.grows("reading an image folder", "files", counts, times, "s")


def runs_in_a_sweep(part: Growth, options: Options) -> None:
    """Whole sweeps from the shell. Their start costs something too, so further runs are compared."""
    if options.quick:
        return
    counts, times = [1, 3, 5], []
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            words = [f"seed={','.join(map(str, range(count)))}", "model=mlp", *DIGITS.split(), "trainer.max_epochs=1"]
            sweep = [sys.executable, "train.py", "-m", *words, f"hydra.sweep.dir={folder}/{count}"]
            start = time.perf_counter()
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            done = subprocess.run(sweep, cwd=ROOT, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"{' '.join(sweep)}: {done.stderr[-1000:]}")
            times.append(time.perf_counter() - start)
    further = [(b - a) / (n - m) for a, b, m, n in zip(times, times[1:], counts, counts[1:], strict=False)]
    found = further[-1] / further[0]
    bar = "a further run of a sweep: the 4th and 5th over the 2nd and 3rd"
    part.keep("a sweep of an MLP", "runs", counts, times, "s", found, MARGINAL, bar)


def measure(options: Options) -> Part:
    part = Growth()
    for cost in (
        *(steps_by_images, step_by_batch_and_width, evaluation_by_images, files_to_read, runs_in_a_sweep),
        *(flat_over_epochs, flat_over_runs, flat_memory),
    ):
        cost(part, options)
    return part
