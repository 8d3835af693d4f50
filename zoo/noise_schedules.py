"""Noise schedules of diffusion models: how much noise there is at each time, and what follows from it alone.

Ho, Jain, Abbeel 2020, "Denoising diffusion probabilistic models", 2006.11239. Times run from 0 to T − 1, so that time t
here is t + 1 of the paper. With ᾱ = ∏(1 − β), noisy pictures are x_t = √ᾱ_t · x₀ + √(1 − ᾱ_t) · ε. A network predicts
ε, x₀ or v = √ᾱ_t · ε − √(1 − ᾱ_t) · x₀ (Salimans & Ho 2022, 2202.00512); each of the three is known from each other.

Shapes: B examples; pictures are (B, …). A time is a number, or (B,) int64 with one for each example.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

Prediction = Literal["epsilon", "x0", "v"]
Factor: TypeAlias = float | Tensor  # a number, or one for each example, to multiply pictures with


def linear_betas(timesteps: int = 1000, *, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """β from `start` to `end` in equal steps (Ho et al. 2020, section 4), float64.

    With other than 1,000 timesteps both ends are multiplied by 1000 / timesteps, so that as little of the picture is
    left at the end (Nichol & Dhariwal 2021, in their code).
    """
    if timesteps <= 1000 * end:
        raise ValueError(
            f"timesteps={timesteps}: must be more than {1000 * end:g} with the linear schedule, or choose cosine"
        )
    return torch.linspace(start, end, timesteps, dtype=torch.float64) * (1000 / timesteps)


def cosine_betas(timesteps: int = 1000, *, offset: float = 0.008, largest: float = 0.999) -> Tensor:
    """β of ᾱ(u) = cos²((u + offset) / (1 + offset) · π/2) / ᾱ(0), at most `largest`, float64.

    Nichol & Dhariwal 2021, "Improved denoising diffusion probabilistic models", 2102.09672, equation 17.
    """
    if timesteps < 1:
        raise ValueError(f"timesteps={timesteps}: must be at least 1")
    share = torch.linspace(0, 1, timesteps + 1, dtype=torch.float64)
    remaining = torch.cos((share + offset) / (1 + offset) * (math.pi / 2)) ** 2
    return (1 - remaining[1:] / remaining[:-1]).clamp(max=largest)


BETAS: dict[str, Callable[[int], Tensor]] = {"linear": linear_betas, "cosine": cosine_betas}


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The T betas, float64 on the CPU, and the tensors (T,) that follow from them.

    alphas_cumprod: ᾱ_t; `signal`: √ᾱ_t and `spread`: √(1 − ᾱ_t), the shares of picture and noise in x_t;
    posterior_variance: β̃_t, the variance of q(x_{t−1} | x_t, x₀), which is 0 at time 0.
    """

    betas: Tensor
    alphas_cumprod: Tensor = field(init=False)
    signal: Tensor = field(init=False)
    spread: Tensor = field(init=False)
    posterior_variance: Tensor = field(init=False)
    tables: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.betas.ndim != 1 or not ((self.betas > 0) & (self.betas < 1)).all():
            raise ValueError(f"betas={self.betas.tolist()}: must be numbers between 0 and 1, one for each time")
        betas = self.betas.detach().cpu().double()
        kept = (1 - betas).cumprod(0)
        before = torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])  # ᾱ_{t−1}
        values = {"betas": betas, "alphas_cumprod": kept, "signal": kept.sqrt(), "spread": (1 - kept).sqrt()}
        for name, value in {**values, "posterior_variance": betas * (1 - before) / (1 - kept)}.items():
            object.__setattr__(self, name, value)

    @property
    def timesteps(self) -> int:
        return len(self.betas)

    def shares(self, time: int | Tensor, like: Tensor) -> tuple[Factor, Factor]:
        """√ᾱ_t and √(1 − ᾱ_t) to multiply `like` (B, …) with; tables are rounded to its precision, on its device."""
        if isinstance(time, int):
            return self.signal[time].item(), self.spread[time].item()
        place = (like.device, like.dtype)
        if place not in self.tables:
            self.tables[place] = (
                self.signal.to(like.dtype).to(like.device),
                self.spread.to(like.dtype).to(like.device),
            )
        shape = (-1, *[1] * (like.ndim - 1))
        signal, spread = (table[time].view(shape) for table in self.tables[place])
        return signal, spread

    def add_noise(self, x0: Tensor, noise: Tensor, time: int | Tensor) -> Tensor:
        """x_t, drawn from q(x_t | x₀) by standard normal `noise`: Ho et al. 2020, equation 4."""
        signal, spread = self.shares(time, x0)
        return signal * x0 + spread * noise

    def advance(self, x: Tensor, noise: Tensor, time: int, later: int) -> Tensor:
        """x at time `later`, drawn from q(x_later | x_time); a `time` of −1 is the picture without noise."""
        kept = (self.alphas_cumprod[later] / (self.alphas_cumprod[time] if time >= 0 else 1)).item()
        return math.sqrt(kept) * x + math.sqrt(1 - kept) * noise

    def posterior(self, x0: Tensor, x_t: Tensor, time: int) -> tuple[Tensor, float]:
        """Mean and variance of q(x_{t−1} | x_t, x₀): Ho et al. 2020, equations 6 and 7. At time 0: x₀ and 0."""
        beta, kept = self.betas[time].item(), self.alphas_cumprod[time].item()
        before = self.alphas_cumprod[time - 1].item() if time else 1.0
        mean = (math.sqrt(before) * beta * x0 + math.sqrt(1 - beta) * (1 - before) * x_t) / (1 - kept)
        return mean, self.posterior_variance[time].item()

    def target(self, prediction: Prediction, x0: Tensor, noise: Tensor, time: int | Tensor) -> Tensor:
        """What a network that predicts `prediction` should say of the x_t that `add_noise` makes."""
        if prediction == "epsilon":
            return noise
        if prediction == "x0":
            return x0
        signal, spread = self.shares(time, x0)
        return signal * noise - spread * x0  # v

    def x0(self, prediction: Prediction, predicted: Tensor, x_t: Tensor, time: int | Tensor) -> Tensor:
        """The picture that a prediction amounts to."""
        if prediction == "x0":
            return predicted
        signal, spread = self.shares(time, x_t)
        if prediction == "epsilon":
            return (x_t - spread * predicted) / signal
        return signal * x_t - spread * predicted  # v

    def epsilon(self, x0: Tensor, x_t: Tensor, time: int | Tensor) -> Tensor:
        """The noise that is in x_t beside the picture x₀."""
        signal, spread = self.shares(time, x_t)
        return (x_t - signal * x0) / spread
