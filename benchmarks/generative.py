"""What the harness adds to a step of the networks that make pictures, against loops written by hand.

    python benchmarks/generative.py              # all four, about four minutes on two cores
    python benchmarks/generative.py gan rounds=5

`model=autoencoder`, `vae`, `gan` and `diffusion` as their configs have them, on the digits, float32. With everything on
against a hand-written loop on the same loader; the two alternate, epoch by epoch; medians are reported. Run it on an
otherwise idle machine.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from tasks import hand_epoch, harness_epoch, optimizer_of
from torch import Tensor, nn

from zoo.build import build
from zoo.checks import check
from zoo.data.module import DataModule
from zoo.network import construct
from zoo.noise_schedules import linear_betas
from zoo.report import quieten_lightning, to_plain
from zoo.run import make_task
from zoo.tasks.base import Batch

STEPS = {"autoencoder": 56, "vae": 56, "gan": 28, "diffusion": 14}


def autoencoder_step(network: nn.Module, batch: Batch) -> Tensor:
    return F.mse_loss(network(batch["input"]), batch["input"], reduction="sum") / len(batch["input"])


def vae_step(network: nn.Module, batch: Batch) -> Tensor:
    images = batch["input"]
    logits, mean, log_variance = network(images, torch.randn(len(images), 20))
    nats = F.binary_cross_entropy_with_logits(logits, images, reduction="sum")
    return (nats + 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum()) / len(images)


class DiffusionStep:
    def __init__(self) -> None:
        self.kept = (1 - linear_betas(1000)).cumprod(0).float()

    def __call__(self, network: nn.Module, batch: Batch) -> Tensor:
        images = batch["input"]
        time, noise = torch.randint(0, 1000, (len(images),)), torch.randn_like(images)
        kept = self.kept[time].view(-1, 1, 1, 1)
        told = torch.where(torch.rand(len(images)) < 0.1, 10, batch["target"])
        return F.mse_loss(network(kept.sqrt() * images + (1 - kept).sqrt() * noise, time, told), noise)


def gan_epoch(network: Any, data: DataModule, steps: int) -> float:
    """As `hand_epoch`, for two networks: non-saturating losses, one step of each on every batch."""
    generator, discriminator = network.generator, network.discriminator
    first, second = optimizer_of(generator.parameters()), optimizer_of(discriminator.parameters())
    network.train()
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        for _, batch in zip(range(steps), data.loader("train", training=True), strict=False):
            images = batch["input"]
            fakes = generator(torch.randn(len(images), network.latent))
            second.zero_grad(set_to_none=True)
            loss = F.softplus(-discriminator(images)).mean() + F.softplus(discriminator(fakes.detach())).mean()
            loss.backward()
            second.step()
            first.zero_grad(set_to_none=True)
            discriminator.requires_grad_(False)
            F.softplus(-discriminator(generator(torch.randn(len(images), network.latent)))).mean().backward()
            discriminator.requires_grad_(True)
            first.step()
        seconds = time.perf_counter() - start
    return seconds


def main(words: list[str]) -> None:
    rounds = int(dict(word.split("=") for word in words if "=" in word).get("rounds", 5))
    chosen = [word for word in words if "=" not in word] or list(STEPS)
    quieten_lightning()
    print(f"ms a step, medians of {rounds} rounds; ratio: by hand / harness")
    print(f"{'network':<26}{'by hand':>12}{'harness':>12}{'added':>12}{'ratio':>8}")
    by_hand: dict[str, Callable[[], Any]] = {
        "autoencoder": lambda: autoencoder_step,
        "vae": lambda: vae_step,
        "diffusion": DiffusionStep,
    }
    for name in chosen:
        config = to_plain(check([f"model={name}"]).config)
        data: Any = build(config["data"], "data")()
        data.setup()
        steps, pairs = STEPS[name], []
        for _ in range(rounds):
            if name == "gan":
                hand = gan_epoch(construct(config), data, steps)
            else:
                hand = hand_epoch(by_hand[name](), construct(config), data, steps)
            ours = harness_epoch(
                lambda network, optimization, config=config, data=data: make_task(config, network, data, optimization),
                construct(config),
                data,
                steps,
            )
            pairs.append((hand, ours))
        hand, ours = (statistics.median(column) / steps * 1e3 for column in zip(*pairs, strict=True))
        added = statistics.median(b - a for a, b in pairs) / steps * 1e3
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"{name:<26}{hand:>12.3f}{ours:>12.3f}{added:>12.3f}{ratio:>8.3f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
