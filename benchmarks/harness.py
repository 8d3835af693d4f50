"""What the harness adds to an optimisation step.

Every task: `python train.py` with everything on (TensorBoard, metrics.csv, checkpoints, validation metrics, progress
lines, gradient norm, schedule) against a loop written by hand that does forward, loss, backward and step and nothing
else, on the same batches with the same optimizer. The two alternate; medians. MLP and LeNet-5 are timed from the start
of an epoch of 1,000 steps to the start of the next, validation and checkpoints included; the others from an epoch's
first step to its last, as their epochs are short here.
"""

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from benchmarks.record import Bar, Options, Part, alternate, ratio
from benchmarks.running import HandStep, OptimizerOf, Workload, descend
from zoo.noise_schedules import linear_betas
from zoo.tasks.base import Batch

MOST_ADDED, HEAVY, LEAST_RATIO = 0.35, 10.0, 0.95  # ms a step; ms from which on the ratio counts


@dataclass(frozen=True)
class Case:
    """`quick` words replace others in tests; `whole`: from an epoch's start to the next one's start."""

    words: str
    quick: str
    start: Callable[[Any, OptimizerOf], HandStep]
    rounds: int = 5
    whole: bool = False


def classify(network: Any, batch: Batch) -> Tensor:
    return F.cross_entropy(network(batch["input"]), batch["target"])


def reconstruct(network: Any, batch: Batch) -> Tensor:
    return F.mse_loss(network(batch["input"]), batch["input"], reduction="sum") / len(batch["input"])


def evidence_bound(network: Any, batch: Batch) -> Tensor:
    images = batch["input"]
    logits, mean, log_variance = network(images, torch.randn(len(images), 20))
    nats = F.binary_cross_entropy_with_logits(logits, images, reduction="sum")
    return (nats + 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum()) / len(images)


class Denoise:
    """The simple loss of Ho et al. 2020 on noise of a random strength, one class in ten untold."""

    def __init__(self) -> None:
        self.kept = (1 - linear_betas(1000)).cumprod(0).float()

    def __call__(self, network: Any, batch: Batch) -> Tensor:
        images = batch["input"]
        time, noise = torch.randint(0, 1000, (len(images),)), torch.randn_like(images)
        kept = self.kept[time].view(-1, 1, 1, 1)
        told = torch.where(torch.rand(len(images)) < 0.1, 10, batch["target"])
        return F.mse_loss(network(kept.sqrt() * images + (1 - kept).sqrt() * noise, time, told), noise)


def carry_state(network: Any, optimizer_of: OptimizerOf) -> HandStep:
    """A language model: the state is detached and handed on."""
    state: Any = None

    def loss(network: Any, batch: Batch) -> Tensor:
        nonlocal state
        logits, state = network(batch["input"], state)
        state = tuple(part.detach() for part in state)
        return F.cross_entropy(logits.flatten(0, 1), batch["target"].flatten())

    return descend(loss)(network, optimizer_of)


def adversaries(network: Any, optimizer_of: OptimizerOf) -> HandStep:
    """A GAN with the hinge loss: one step of each network on every batch."""
    generator, discriminator = network.generator, network.discriminator
    makes, judges = optimizer_of(generator.parameters()), optimizer_of(discriminator.parameters())

    def step(batch: Batch) -> None:
        images = batch["input"]
        with torch.no_grad():
            fakes = generator(torch.randn(len(images), network.latent))
        judges.zero_grad(set_to_none=True)
        (F.relu(1 - discriminator(images)).mean() + F.relu(1 + discriminator(fakes)).mean()).backward()
        judges.step()
        makes.zero_grad(set_to_none=True)
        discriminator.requires_grad_(False)
        (-discriminator(generator(torch.randn(len(images), network.latent))).mean()).backward()
        discriminator.requires_grad_(True)
        makes.step()

    return step


SMALL = "data=synthetic data.train_size=64000 data.val_size=500 data.test_size=500 data.batch_size=64"
DIGITS = "trainer.limit_val_batches=1 trainer.limit_test_batches=1"
FEW = "train_examples=48 data.batch_size=16 data.eval_batch_size=16"
CASES = {
    "MLP 784-128-10, batch 64": Case(f"model=mlp {SMALL}", "data.train_size=320", descend(classify), whole=True),
    "LeNet-5, batch 64": Case(f"model=lenet5 {SMALL}", "data.train_size=192", descend(classify), rounds=3, whole=True),
    "ResNet-18, 32×32, batch 64": Case(
        "model=resnet18 data=synthetic data.channels=3 data.image_size=32 data.train_size=256 data.batch_size=64",
        "model.width=0.125 data.train_size=24 data.batch_size=8",
        descend(classify),
        rounds=3,
    ),
    "U-Net base 32, 256×256, batch 4": Case(
        "model=unet model.width=0.5 data=mask_folder data.image_size=256 data.batch_size=4 data.eval_batch_size=4",
        "model.width=0.0625 data.image_size=32",
        descend(classify),
        rounds=3,
    ),
    "character LSTM 256, 32×128 letters": Case(
        "model=lstm data.sequence_length=128 trainer.limit_train_batches=60 "
        "trainer.limit_val_batches=1 trainer.limit_test_batches=1",
        "data.sequence_length=16 model.hidden=16 trainer.limit_train_batches=4",
        carry_state,
        rounds=3,
    ),
    # the rate of the loop by hand: at one-cycle's small first ones black pixels' gradients stay denormal numbers for
    # longer, which a CPU multiplies at half the speed
    "autoencoder": Case(f"model=autoencoder scheduler=constant {DIGITS}", FEW, descend(reconstruct)),
    "VAE 784-400-20": Case(f"model=vae task.importance_samples=1 {DIGITS}", FEW, descend(evidence_bound)),
    "GAN": Case(f"model=gan {DIGITS}", f"model.width=0.25 {FEW}", adversaries),
    "diffusion": Case(
        f"model=diffusion {DIGITS} trainer.limit_train_batches=14",
        f"model.width=8 model.multipliers=[1,1,1] {FEW} trainer.limit_train_batches=3",
        descend(Denoise()),
        rounds=3,
    ),
}


def write_masks(root: Path, side: int) -> None:
    """24 pictures with masks of two classes to train on, 4 to validate, 4 to test."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 4), ("test", 4)):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for number in range(count):
            pixels = draw.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / "images" / f"{number}.png")
            Image.fromarray(pixels[..., 0] // 128).save(root / split / "masks" / f"{number}.png")


def a_step(case: Case, workload: Workload, *, by_hand: bool) -> float:
    """Milliseconds of a step in the second epoch."""
    steps = int(workload.config["trainer"]["limit_train_batches"])
    steps = steps if steps > 1 else len(workload.data.loader("train", training=True))
    if by_hand:
        workload.by_hand(case.start, epochs=2, steps=steps, warm_up=100)
    elif case.whole:
        workload.harness(max_epochs=-1, max_steps=2 * steps + 1)
    else:
        workload.harness(max_epochs=2)
    times = workload.times(1)
    if case.whole:
        return (workload.times(2)[0] - times[0]) / steps * 1e3
    return (times[-1] - times[0]) / (len(times) - 1) * 1e3


def measure(options: Options) -> Part:
    part = Part(("network", "by hand, ms a step", "harness, ms", "added, ms", "by hand / harness"))
    for name, case in CASES.items():
        words = dict(word.split("=", 1) for word in f"{case.words} {case.quick if options.quick else ''}".split())
        with tempfile.TemporaryDirectory() as folder:
            if words.get("data") == "mask_folder":
                write_masks(Path(folder), int(words["data.image_size"]))
                words["data.root"] = folder
            workload = Workload([f"{key}={value}" for key, value in words.items()])
            hand, ours = alternate(
                partial(a_step, case, workload, by_hand=True),
                partial(a_step, case, workload, by_hand=False),
                rounds=options.repeat(case.rounds),
            )
        added = statistics.median(b - a for a, b in zip(hand, ours, strict=True))
        part.add(name, statistics.median(hand), statistics.median(ours), added, ratio(hand, ours))
        if statistics.median(hand) >= HEAVY:
            part.hold(Bar(f"{name}: by hand / harness", ratio(hand, ours), LEAST_RATIO, at_least=True))
        else:
            part.hold(Bar(f"{name}: added to a step", added, MOST_ADDED, "ms"))
    return part
