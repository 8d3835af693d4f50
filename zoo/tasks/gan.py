"""Generative adversarial networks: a generator learns from a discriminator that learns to tell its pictures apart.

I. Goodfellow et al. 2014, "Generative adversarial nets" (1406.2661), algorithm 1. Several steps of the discriminator
for one of the generator, weight clipping: M. Arjovsky et al. 2017, "Wasserstein GAN" (1701.07875), algorithm 1;
gradient penalty: I. Gulrajani et al. 2017 (1704.00028); learning rates of their own: M. Heusel et al. 2017, "GANs
trained by a two time-scale update rule" (1706.08500); averaged generator: Y. Yazıcı et al. 2018 (1806.04498).

Shapes: B examples, Z latents, C channels, H×W pixels.
"""

import copy
import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torchmetrics import MetricCollection

from zoo.errors import ZooError
from zoo.gan_losses import clip_weights_, discriminator_loss, generator_loss, gradient_penalty
from zoo.gan_scores import GanScores
from zoo.randomness import key, normal, uniform
from zoo.schedules import Schedule
from zoo.tasks.base import Batch
from zoo.tasks.engine import Engine, Optimization
from zoo.tasks.generative import Generative, condition_of, is_conditional, pixels, require_range

# the score between real and fake where the losses place them on two sides; a Wasserstein critic's has no zero
BOUNDARY = {"minimax": 0.0, "non_saturating": 0.0, "least_squares": 0.5, "hinge": 0.0}


@dataclass(frozen=True, kw_only=True)
class ByIteration(Schedule):
    """A schedule for a network that takes `steps` steps in each iteration: the same factor for all of them."""

    schedule: Schedule
    steps: int

    def multiplier(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        total = max(1, total_steps // self.steps)
        iteration = min(step // self.steps, total - 1)  # steps may be left over when the last iteration is done
        return self.schedule.multiplier(iteration, total, max(1, steps_per_epoch // self.steps))


class Gan(Generative):
    """A generator against a discriminator. Monitor: sliced Wasserstein distance of samples to validation pictures.

    An iteration is `n_critic` steps of the discriminator, each on a batch of its own (or on `accumulate` of them), and
    one of the generator. Steps of the run are iterations; one that an epoch's end interrupts goes on in the next epoch.
    Accumulation, clipping, penalties and weight decay hold for both networks, averaging for the generator.

    The discriminator sees fakes of the classes of its batch, the generator's step draws classes evenly.

    `loss`: minimax, non_saturating, least_squares, hinge or wasserstein (zoo/gan_losses.py). `gradient_penalty` is its
    weight λ; `clip_weights` bounds every parameter of the discriminator after each of its steps; `discriminator_lr` is
    a factor on its learning rate; `label_smoothing` is taken from the real pictures' label only. Losses are logged
    without the gradient penalty. Refused are a penalty with batch normalisation in the discriminator, and clipping with
    a penalty or with spectral norm.

    Training logs, of each iteration its last batch: loss (the sum of both), discriminator_loss, generator_loss,
    real_score, fake_score, discriminator_accuracy (not for wasserstein, whose scores have no zero), gradient_penalty.
    Split scores: `GanScores`, with latents and classes that are the same each time.
    """

    network: Any  # whose two parts are called one by one
    monitor = "val/sliced_wasserstein"
    fewest: ClassVar[int] = 2  # spread divides by the variance of the pictures
    needs: ClassVar[dict[str, str]] = {
        "image_size": "a GAN makes pictures, and these data are none: choose data=digits, or another task"
    }

    def __init__(
        self,
        network: nn.Module,
        *,
        loss: Literal["minimax", "non_saturating", "least_squares", "hinge", "wasserstein"] = "non_saturating",
        n_critic: int = 1,
        gradient_penalty: float = 0.0,
        clip_weights: float | None = None,
        discriminator_lr: float = 1.0,
        label_smoothing: float = 0.0,
        optimization: Optimization | None = None,
        facts: dict[str, Any] | None = None,
        seed: int = 0,
        log_every: int = 50,
    ) -> None:
        if n_critic < 1:
            raise ValueError(f"n_critic={n_critic}: must be at least 1")
        if not 0 <= gradient_penalty < math.inf:
            raise ValueError(f"gradient_penalty={gradient_penalty}: must be 0 (none) or more")
        if clip_weights is not None and not 0 < clip_weights < math.inf:
            raise ValueError(f"clip_weights={clip_weights}: must be above 0, or null for none")
        if clip_weights is not None and gradient_penalty:
            raise ValueError(f"clip_weights={clip_weights}: must be null with a gradient_penalty, which replaces it")
        if not 0 < discriminator_lr < math.inf:
            raise ValueError(f"discriminator_lr={discriminator_lr}: must be above 0")
        layers = list(network.get_submodule("discriminator").modules())
        if gradient_penalty and any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in layers):
            raise ValueError(
                f"gradient_penalty={gradient_penalty}: must be 0 with batch normalisation in the discriminator, where "
                "no example has a gradient of its own; or say model.norm_discriminator=layer"
            )
        if clip_weights is not None and any(parametrize.is_parametrized(layer) for layer in layers):
            raise ValueError(
                f"clip_weights={clip_weights}: must be null with spectral norm, which rescales what is clipped"
            )
        # refuses a wrong loss or label_smoothing before there are pictures
        discriminator_loss(loss, torch.zeros(1), torch.zeros(1), label_smoothing=label_smoothing)
        super().__init__(network, facts=facts, seed=seed, log_every=log_every)
        require_range(self.facts, -1, "a GAN's generator makes pixels from -1 to 1")
        self.conditional = is_conditional(network, self.facts)
        self.loss_name, self.n_critic, self.label_smoothing = loss, n_critic, label_smoothing
        self.penalty_weight, self.clip_weights = gradient_penalty, clip_weights
        self.discriminator_engine: Engine | None = None
        if optimization is not None:
            self.engine = Engine(
                self.network.generator,
                dataclasses.replace(optimization, rates=rates_of(optimization, network, "generator")),
            )
            critic = dataclasses.replace(
                optimization,
                schedule=ByIteration(schedule=optimization.schedule, steps=n_critic),
                ema_decay=None,
                max_steps=max(-1, optimization.max_steps * n_critic),
                rates=rates_of(optimization, network, "discriminator", discriminator_lr),
            )
            self.discriminator_engine = Engine(self.network.discriminator, critic)
            if self.engine.average is not None:
                self.ema = nn.ModuleDict({"generator": self.engine.average})

    # Losses ---------------------------------------------------------------------------------------------------------

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """Latents (B, Z) for the batch's positions and, of a conditional network, its classes."""
        return self.drawn(batch["position"], "latents", condition_of(batch, self.conditional))

    def drawn(self, position: Tensor, stream: str, condition: Tensor | None) -> tuple[Tensor, ...]:
        noise = normal(key(self.draws, stream), position, self.network.latent)
        return (noise,) if condition is None else (noise, condition)

    def discriminate(self, network: Any, batch: Batch, fake: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The discriminator's loss, and its scores (B,) of the batch's pictures and of fakes of their classes."""
        condition = condition_of(batch, self.conditional)
        real_scores = network.discriminator(batch["input"], condition).float()
        fake_scores = network.discriminator(fake, condition).float()
        loss = discriminator_loss(self.loss_name, real_scores, fake_scores, label_smoothing=self.label_smoothing)
        return loss, real_scores, fake_scores

    def loss(self, network: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of both losses on a batch and as many fakes of its classes."""
        fake = network.generator(*self.inputs(batch))  # (B, C, H, W)
        discriminator, _, fake_scores = self.discriminate(network, batch, fake)
        generator = generator_loss(self.loss_name, fake_scores)
        losses = torch.stack((discriminator, generator))
        return losses.sum(), {"losses": losses.detach(), "fake": fake.detach()}

    def metrics(self) -> MetricCollection:
        return MetricCollection({"gan": GanScores()})

    def update_metrics(self, outputs: dict[str, Tensor], batch: Batch) -> None:
        real, fake = (pixels(images, self.facts) for images in (batch["input"], outputs["fake"]))
        self.split_metrics.update(outputs["losses"], real, fake, batch["position"])

    # Training -------------------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        assert self.engine is not None
        assert self.discriminator_engine is not None
        return [self.engine.optimizer, self.discriminator_engine.optimizer]

    def attach(self, engine: Engine, trainer: pl.Trainer) -> None:
        assert self.discriminator_engine is not None
        batches = int(trainer.num_training_batches)
        engine.attach(trainer, batches, every=self.n_critic)
        self.discriminator_engine.attach(trainer, batches, counts=False)
        steps = self.discriminator_engine.total_steps
        if steps < self.n_critic:
            raise ZooError(
                f"task.n_critic={self.n_critic}: must be at most {steps}, the discriminator's steps in this run, as "
                "the generator would never learn; or train for more epochs, or with a smaller data.batch_size."
            )

    def optimize(self, engine: Engine, batch: Batch, batch_idx: int, *, wants_norm: bool) -> bool:
        """The discriminator learns from the batch; after `n_critic` steps of it the generator takes one."""
        critic, discriminator = self.discriminator_engine, self.network.discriminator
        assert critic is not None
        with torch.no_grad():
            fake = self.network.generator(*self.inputs(batch))
        loss, real_scores, fake_scores = self.discriminate(self.network, batch, fake)
        objective, penalties = loss, []
        if self.penalty_weight:
            mix = uniform(key(self.draws, "mix"), batch["position"], 1)[:, 0]
            condition = condition_of(batch, self.conditional)
            penalty = gradient_penalty(discriminator, batch["input"], fake, mix, condition)
            objective, penalties = loss + self.penalty_weight * penalty, [penalty.detach()]
        if not critic.step(self.shared(objective), batch_idx):
            return False
        if self.clip_weights is not None:
            clip_weights_(discriminator, self.clip_weights)
        if critic.step_count % self.n_critic:
            return False
        made = self.generator_step(engine, batch, wants_norm=wants_norm)
        with torch.no_grad():
            values = [loss + made, loss, made, real_scores.mean(), fake_scores.mean()]
            if (boundary := BOUNDARY.get(self.loss_name)) is not None:
                right = (real_scores > boundary).float().mean() + (fake_scores < boundary).float().mean()
                values.append(right / 2)
        self.window.append(tuple(self.shared(value.detach()) for value in [*values, *penalties]))
        return True

    def generator_step(self, engine: Engine, batch: Batch, *, wants_norm: bool) -> Tensor:
        """A step of the generator against the discriminator as it is now; its loss, the mean over `accumulate` draws.

        Latents and classes are functions of the batch's positions, on streams of their own.
        """
        critic, position, batches = self.discriminator_engine, batch["position"], engine.settings.accumulate
        assert critic is not None
        # before torch 2.10 autocast keeps the generator's weights as they were cast without gradient
        torch.clear_autocast_cache()
        engine.optimizer.zero_grad(set_to_none=True)
        for parameter in critic.parameters:
            parameter.requires_grad_(False)
        losses = []
        for number in range(batches):
            condition = None
            if self.conditional:
                shares = uniform(key(self.draws, "generator's classes", number), position, 1)[:, 0]
                condition = (shares * self.facts["num_classes"]).long()
            fake = self.network.generator(*self.drawn(position, f"generator's latents {number}", condition))
            loss = generator_loss(self.loss_name, self.network.discriminator(fake, condition))
            engine.backward(self.shared(loss), batches, last=number + 1 == batches)
            losses.append(loss.detach())
        for parameter in critic.parameters:
            parameter.requires_grad_(True)
        engine.update(wants_norm)
        return torch.stack(losses).mean()

    def step_metrics(self, kept: list[tuple[Tensor, ...]]) -> dict[str, float]:
        names = ["discriminator_loss", "generator_loss", "real_score", "fake_score"]
        names += ["discriminator_accuracy"] * (self.loss_name in BOUNDARY)
        names += ["gradient_penalty"] * bool(self.penalty_weight)
        means = torch.stack([torch.stack(step) for step in kept]).mean(0).tolist()
        return {f"train/{name}": mean for name, mean in zip(names, means, strict=True)}

    # Evaluation and samples -----------------------------------------------------------------------------------------

    @property
    def evaluated_network(self) -> Any:
        """The network with its averaged generator, when weights are averaged."""
        if self.ema is None:
            return self.network
        network = copy.copy(self.network)
        network._modules = {**self.network._modules, "generator": self.ema.generator}
        return network

    def latents(self, numbers: Tensor, *, seed: int) -> Tensor:
        """The latents (B, Z) of pictures number `numbers` (B,)."""
        return normal(key(seed, "latent"), numbers, self.network.latent)

    @torch.no_grad()
    def decode(self, latents: Tensor, condition: Tensor | None = None) -> Tensor:
        """Pictures (B, C, H, W) from 0 to 1 of latents (B, Z) and, for a conditional network, classes (B,)."""
        return pixels(self.evaluated_network.generator(latents, condition), self.facts)

    def sample(self, numbers: Tensor, *, seed: int, condition: Tensor | None = None) -> Tensor:
        return self.decode(self.latents(numbers, seed=seed), condition)

    # State ----------------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        assert self.discriminator_engine is not None
        checkpoint["discriminator_engine"] = self.discriminator_engine.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if self.discriminator_engine is not None:
            self.discriminator_engine.load_state_dict(checkpoint["discriminator_engine"])


def rates_of(optimization: Optimization, network: nn.Module, part: str, factor: float = 1.0) -> dict[str, float]:
    """The factors on the learning rates of a part of the network, by the names its parameters have in that part."""
    names = (name for name, _ in network.get_submodule(part).named_parameters())
    return {name: factor * optimization.rates.get(f"{part}.{name}", 1.0) for name in names}
