"""Diffusion: a network learns to say what noise is in a noisy picture, and makes pictures from noise alone.

Shapes: B examples, C channels, H×W pixels, F frames.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from zoo import samplers
from zoo.diffusion_times import LossByTime, spread_times
from zoo.noise_schedules import BETAS, NoiseSchedule, Prediction
from zoo.randomness import key, normal, uniform
from zoo.tasks.base import Batch
from zoo.tasks.engine import Optimization
from zoo.tasks.generative import Generative, condition_of, is_conditional, pixels, require_range

CONDITION_DROPOUT = 0.1


class Film(NamedTuple):
    """Some moments of sampling, from noise to picture: F times, and pictures (F, B, C, H, W) from 0 to 1."""

    times: list[int]
    noisy: Tensor
    predicted: Tensor  # x₀ as the network predicts it then; the last is the picture that is made


class Diffusion(Generative):
    """Learns to take noise from pictures, and makes pictures of noise. Monitor: validation loss.

    The loss is the mean squared error of what the network predicts at a random time, Ho et al. 2020's L_simple
    (2006.11239, equation 14) for `prediction` epsilon. In errors of x₀ it weighs ᾱ/(1 − ᾱ) for epsilon, 1 for x0 and
    1/(1 − ᾱ) for v (Salimans & Ho 2022, 2202.00512, section 4). Noise and times are functions of position, and always
    the same in evaluation. Metrics: the loss by quarter of the times, `loss_t0` to `loss_t3`.

    A network with `num_classes` is told the class; in training it is told none, class `num_classes`, with probability
    `condition_dropout`, which is what `guidance` other than 1 needs.

    Sampling (zoo/samplers.py): ddim takes `steps`, `spacing` and `eta`; ddpm takes all timesteps, and `variance`. They,
    `sampler`, `guidance` and `clip_denoised` are attributes, and may be set anew before `sample`.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        schedule: Literal["linear", "cosine"] = "linear",
        timesteps: int = 1000,
        prediction: Prediction = "epsilon",
        condition_dropout: float = CONDITION_DROPOUT,
        sampler: Literal["ddim", "ddpm"] = "ddim",
        steps: int = 50,
        spacing: samplers.Spacing = "linear",
        eta: float = 1.0,
        variance: samplers.Variance = "fixed_large",
        guidance: float = 1.0,
        clip_denoised: bool = True,
        optimization: Optimization | None = None,
        facts: dict[str, Any] | None = None,
        seed: int = 0,
        log_every: int = 50,
    ) -> None:
        for name, value, known in (
            ("schedule", schedule, tuple(BETAS)),
            ("prediction", prediction, ("epsilon", "x0", "v")),
            ("sampler", sampler, ("ddim", "ddpm")),
        ):
            if value not in known:
                raise ValueError(f"{name}={value}: must be {', '.join(known[:-1])} or {known[-1]}")
        if not 0 <= condition_dropout < 1:
            raise ValueError(f"condition_dropout={condition_dropout}: must be at least 0 and below 1")
        self.timesteps = timesteps
        super().__init__(network, optimization=optimization, facts=facts, seed=seed, log_every=log_every)
        require_range(self.facts, -1, "noise is added to pixels from −1 to 1")
        self.conditional = is_conditional(network, self.facts)
        if not self.conditional and condition_dropout not in (0, CONDITION_DROPOUT):
            raise ValueError(
                f"condition_dropout={condition_dropout}: must be left out, as this network is not told classes"
            )
        self.schedule = NoiseSchedule(BETAS[schedule](timesteps))
        self.prediction: Prediction = prediction
        self.condition_dropout = condition_dropout
        self.sampler, self.steps, self.spacing, self.eta = sampler, steps, spacing, eta
        self.variance, self.guidance, self.clip_denoised = variance, guidance, clip_denoised
        self.check_sampling()

    # Learning -------------------------------------------------------------------------------------------------------

    def arguments(self, batch: Batch, noise: Tensor, time: Tensor, *, drops: bool) -> tuple[Tensor, ...]:
        """(noisy, time), and of a conditional network the classes; with `drops` some of them are none."""
        noisy = self.schedule.add_noise(batch["input"], noise, time)
        condition = condition_of(batch, self.conditional)
        if condition is None:
            return noisy, time
        if drops:
            forgets = uniform(key(self.draws, "condition"), batch["position"], 1)[:, 0] < self.condition_dropout
            condition = condition.masked_fill(forgets, self.facts["num_classes"])
        return noisy, time, condition

    def draw(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The noise and the times (B,) of a batch."""
        images = batch["input"]
        noise = normal(key(self.draws, "noise"), batch["position"], images[0].numel()).view_as(images).to(images.dtype)
        return noise, spread_times(key(self.draws, "time"), batch["position"], self.timesteps)

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        return self.arguments(batch, *self.draw(batch), drops=False)

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        noise, time = self.draw(batch)
        predicted = network(*self.arguments(batch, noise, time, drops=network.training))
        wanted = self.schedule.target(self.prediction, batch["input"], noise, time)
        losses = (predicted.float() - wanted.float()).square().flatten(1).mean(1)  # (B,)
        return losses.mean(), {"losses": losses.detach(), "time": time}

    def step_values(self, outputs: dict[str, Tensor], batch: Batch) -> tuple[Tensor, ...]:
        return outputs["losses"], outputs["time"]

    def step_metrics(self, kept: list[tuple[Tensor, ...]]) -> dict[str, float]:
        losses, time = (torch.cat(part) for part in zip(*kept, strict=True))
        by_time = LossByTime(self.timesteps).to(losses.device)
        by_time.update(losses, time)
        return {f"train/{name}": float(loss) for name, loss in by_time.compute().items()}

    def metrics(self) -> MetricCollection:
        return MetricCollection({"by_time": LossByTime(self.timesteps)})

    def update_metrics(self, outputs: dict[str, Tensor], batch: Batch) -> None:
        self.split_metrics.update(outputs["losses"], outputs["time"])

    # Making ---------------------------------------------------------------------------------------------------------

    def check_sampling(self) -> None:
        """Refuse options of sampling that are wrong, or not for this network."""
        if self.sampler == "ddim":
            samplers.sub_sequence(self.timesteps, self.steps, self.spacing)
            samplers.check_eta(self.eta)
        elif self.sampler == "ddpm":
            samplers.check_variance(self.variance)
        else:
            raise ValueError(f"sampler={self.sampler}: must be ddim or ddpm")
        if self.guidance == 1:
            return
        if not 0 <= self.guidance < math.inf:
            raise ValueError(f"guidance={self.guidance}: must be 0 or more; 1 is the network as it is")
        if not self.conditional:
            raise ValueError(f"guidance={self.guidance}: must be 1, as this network is not told classes")
        if not self.condition_dropout:
            raise ValueError(
                f"guidance={self.guidance}: must be 1, as with condition_dropout=0 no class is never learnt"
            )

    def start(self, numbers: Tensor, *, seed: int) -> Tensor:
        """The noises (B, C, H, W) that pictures `numbers` (B,) begin as, on their device."""
        return normal(key(seed, "start"), numbers, math.prod(self.shape)).view(-1, *self.shape)

    def reverse(
        self, start: Tensor, numbers: Tensor, *, seed: int, condition: Tensor | None = None
    ) -> Iterator[samplers.Step]:
        """The sampler's steps from noise `start` in [−1, 1]; what is drawn on the way is that of `numbers` (B,).

        `condition` (B,) are classes, `num_classes` is none; left out, a conditional network is told each in turn.
        """
        self.check_sampling()
        network = self.evaluated_network
        dtype = next(network.parameters()).dtype
        condition = self.classes(numbers) if condition is None else condition

        def predict(x_t: Tensor, time: Tensor, *classes: Tensor) -> Tensor:
            return network(x_t.to(dtype), time, *classes).to(x_t.dtype)

        def noise(step: int) -> Tensor:
            return normal(key(seed, "step", step), numbers, start[0].numel()).view_as(start)

        steered: samplers.Predict = predict
        if condition is not None:
            if not self.conditional:
                raise ValueError("condition: must be left out, as this network is not told classes")
            none = self.facts["num_classes"]
            if not ((condition >= 0) & (condition <= none)).all():
                raise ValueError(f"condition: must be classes from 0 to {none - 1}, or {none} for none")
            steered = samplers.guided(predict, condition, guidance=self.guidance, no_class=none)
        denoise = samplers.denoiser(
            steered, self.schedule, prediction=self.prediction, clip_denoised=self.clip_denoised
        )
        if self.sampler == "ddpm":
            return samplers.ddpm_ancestral(denoise, start, self.schedule, noise=noise, variance=self.variance)
        return samplers.ddim(
            denoise, start, self.schedule, noise=noise, steps=self.steps, eta=self.eta, spacing=self.spacing
        )

    @torch.no_grad()
    def sample(self, numbers: Tensor, *, seed: int, condition: Tensor | None = None) -> Tensor:
        steps = self.reverse(self.start(numbers, seed=seed), numbers, seed=seed, condition=condition)
        return pixels(samplers.last_picture(steps), self.facts)

    @torch.no_grad()
    def film(self, numbers: Tensor, *, seed: int, condition: Tensor | None = None, frames: int = 8) -> Film:
        """How `sample` makes the same pictures: `frames` of its steps, evenly spread, with the first and the last."""
        total = self.steps if self.sampler == "ddim" else self.timesteps
        if not 2 <= frames <= total:
            raise ValueError(f"frames={frames}: must be 2 to {total}, the steps of the sampler")
        wanted = {i * (total - 1) // (frames - 1) for i in range(frames)}
        steps = self.reverse(self.start(numbers, seed=seed), numbers, seed=seed, condition=condition)
        times, noisy, predicted = zip(*(step for i, step in enumerate(steps) if i in wanted), strict=True)
        return Film(list(times), pixels(torch.stack(noisy), self.facts), pixels(torch.stack(predicted), self.facts))

    @torch.no_grad()
    def interpolate(
        self,
        first: Tensor,
        second: Tensor,
        *,
        weights: Sequence[float],
        seed: int,
        condition: Tensor | None = None,
    ) -> Tensor:
        """Pictures (F, B, C, H, W) from 0 to 1 between pictures of numbers `first` and `second` (B,), at F `weights`.

        Spherical between the noises they begin as. What is drawn later, and classes left out, are those of `first`.
        """
        begin, end = self.start(first, seed=seed), self.start(second, seed=seed)
        start = torch.cat([samplers.slerp(begin, end, weight) for weight in weights])
        condition = self.classes(first) if condition is None else condition
        repeated = None if condition is None else condition.repeat(len(weights))
        steps = self.reverse(start, first.repeat(len(weights)), seed=seed, condition=repeated)
        return pixels(samplers.last_picture(steps), self.facts).unflatten(0, (len(weights), len(first)))

    def forward_film(self, images: Tensor, times: Sequence[int], *, seed: int) -> Tensor:
        """Pictures (B, C, H, W), as the network sees them, as they drown in noise: (F, B, C, H, W) from 0 to 1.

        One way of the chain from each picture, at increasing `times`; −1 is the picture itself.
        """
        if list(times) != sorted(set(times)) or not -1 <= min(times, default=-2) <= max(times) < self.timesteps:
            raise ValueError(f"times={list(times)}: must increase, from −1 (the picture) to {self.timesteps - 1}")
        numbers = torch.arange(len(images), device=images.device)
        x, time, frames = images, -1, []
        for later in times:
            noise = normal(key(seed, "forward", later), numbers, images[0].numel()).view_as(images)
            x, time = self.schedule.advance(x, noise, time, later) if later > time else x, later
            frames.append(pixels(x, self.facts))
        return torch.stack(frames)
