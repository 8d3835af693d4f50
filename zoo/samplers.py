"""Samplers: from noise to pictures by a network that predicts. Each function names the algorithm it implements.

A sampler is a generator over decreasing times: it yields (t, x_t, x₀ as predicted there). Its last x₀ is the picture,
since the last step adds no noise and leaves x₀. Films take all of what it yields, `last_picture` the last.

A sampler asks `denoise(x_t, t)` for x₀: `denoiser` makes that of a network's prediction, which `guided` steers.
Noise comes through `noise(step)` → a tensor like x_t, so that who calls decides what is drawn; `step` counts from 0.

Shapes: B examples; pictures (B, C, H, W), or (B, …).
"""

import math
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor

from zoo.noise_schedules import NoiseSchedule, Prediction

Predict = Callable[[Tensor, Tensor], Tensor]  # x_t and times (B,) → what the network predicts
Denoise = Callable[[Tensor, int], Tensor]  # x_t and its time → x₀
Noise = Callable[[int], Tensor]
Step = tuple[int, Tensor, Tensor]
Spacing = Literal["linear", "quadratic"]
Variance = Literal["fixed_small", "fixed_large"]


def denoiser(predict: Predict, schedule: NoiseSchedule, *, prediction: Prediction, clip_denoised: bool) -> Denoise:
    """x₀ from what a network predicts, within [−1, 1] with `clip_denoised`, as pixels are (Ho et al. 2020's code)."""

    def denoise(x_t: Tensor, time: int) -> Tensor:
        predicted = predict(x_t, torch.full((len(x_t),), time, device=x_t.device))
        x0 = schedule.x0(prediction, predicted, x_t, time)
        return x0.clamp(-1, 1) if clip_denoised else x0

    return denoise


def guided(
    network: Callable[[Tensor, Tensor, Tensor], Tensor], condition: Tensor, *, guidance: float, no_class: int
) -> Predict:
    """Classifier-free guidance, Ho & Salimans 2022, 2207.12598: without + guidance · (with − without).

    `condition` (B,) are the classes, `no_class` is the number that stands for none. `guidance` is 1 + w of the paper:
    1 is the network as it is told the class, 0 the network without, above 1 exaggerates what the class makes different.
    """
    nothing = torch.full_like(condition, no_class)

    def predict(x_t: Tensor, time: Tensor) -> Tensor:
        if guidance == 1:
            return network(x_t, time, condition)
        both = network(torch.cat([x_t, x_t]), torch.cat([time, time]), torch.cat([condition, nothing]))
        told, untold = both.chunk(2)
        return untold + guidance * (told - untold)

    return predict


def check_variance(variance: str) -> None:
    if variance not in ("fixed_small", "fixed_large"):
        raise ValueError(f"variance={variance}: must be fixed_small or fixed_large")


def check_eta(eta: float) -> None:
    if not 0 <= eta <= 1:
        raise ValueError(f"eta={eta}: must be 0 (deterministic) to 1 (as random as DDPM)")


def ddpm_ancestral(
    denoise: Denoise, start: Tensor, schedule: NoiseSchedule, *, noise: Noise, variance: Variance = "fixed_small"
) -> Iterator[Step]:
    """Ho et al. 2020, algorithm 2: from x_T = `start` through every time.

    `variance` of each step: fixed_small is β̃_t, right if the data were one point, fixed_large is β_t, right if they
    were normal (section 3.2).
    """
    check_variance(variance)
    x = start
    for step, time in enumerate(reversed(range(schedule.timesteps))):
        x0 = denoise(x, time)
        yield time, x, x0
        if time:
            mean, small = schedule.posterior(x0, x, time)
            drawn = small if variance == "fixed_small" else schedule.betas[time].item()
            x = mean + math.sqrt(drawn) * noise(step)


def sub_sequence(timesteps: int, steps: int, spacing: Spacing = "linear") -> list[int]:
    """`steps` increasing times of 0 … timesteps − 1. Song et al. 2021, appendix D.2: linear ⌊c·i⌋, quadratic ⌊c·i²⌋.

    linear counts from 0, as the authors' code: the last time is about T − T/steps. Of the ways to round c·i this one
    came nearest to a mixture of normals whose best denoiser is known. quadratic counts from 1 and ends at T − 1 (their
    code: at 0.8 · T, where a cosine schedule has a third of the picture left); no time comes twice.
    """
    if not 2 <= steps <= timesteps:
        raise ValueError(f"steps={steps}: must be 2 to {timesteps}, the timesteps of the schedule")
    if spacing == "linear":
        return [i * timesteps // steps for i in range(steps)]
    if spacing == "quadratic":
        return [max(i * i * timesteps // steps**2, i) - 1 for i in range(1, steps + 1)]
    raise ValueError(f"spacing={spacing}: must be linear or quadratic")


def ddim(
    denoise: Denoise,
    start: Tensor,
    schedule: NoiseSchedule,
    *,
    noise: Noise | None = None,
    steps: int = 50,
    eta: float = 0.0,
    spacing: Spacing = "linear",
) -> Iterator[Step]:
    """Song, Meng, Ermon 2021, "Denoising diffusion implicit models", 2010.02502, equations 12 and 16.

    `eta` 0 is deterministic and asks for no noise; 1 with all timesteps is `ddpm_ancestral` with fixed_small. The noise
    in x_t is what stands beside the predicted x₀ after it was clipped.
    """
    check_eta(eta)
    if eta and noise is None:
        raise ValueError(f"eta={eta}: must be 0 without `noise` to draw from")
    times = sub_sequence(schedule.timesteps, steps, spacing)
    x = start
    for step, i in enumerate(reversed(range(steps))):
        time = times[i]
        x0 = denoise(x, time)
        yield time, x, x0
        if i:
            kept, before = schedule.alphas_cumprod[time].item(), schedule.alphas_cumprod[times[i - 1]].item()
            sigma = eta * math.sqrt((1 - before) / (1 - kept) * (1 - kept / before))
            x = math.sqrt(before) * x0 + math.sqrt(1 - before - sigma**2) * schedule.epsilon(x0, x, time)
            if eta and noise is not None:
                x = x + sigma * noise(step)


def last_picture(steps: Iterator[Step]) -> Tensor:
    """What a sampler arrives at."""
    for _, _, x0 in steps:
        picture = x0
    return picture


def slerp(first: Tensor, second: Tensor, weight: float) -> Tensor:
    """Spherical interpolation, example by example, of noises (B, …): first at weight 0, second at 1.

    Song et al. 2021, equation 67 (Shoemake 1985). Of two noises it is about as long as they are, as a straight mixture
    is not; the network has seen no shorter ones.
    """
    a, b = first.flatten(1), second.flatten(1)
    cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-12)
    angle = cosine.clamp(-1 + 1e-6, 1 - 1e-6).acos()[:, None]  # of parallel ones the straight mixture, near enough
    mixed = (((1 - weight) * angle).sin() * a + (weight * angle).sin() * b) / angle.sin()
    return mixed.view_as(first)
