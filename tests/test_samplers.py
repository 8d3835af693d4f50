"""Samplers: whole chains against diffusers' schedulers, and the right distribution where the best denoiser is known."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from zoo.noise_schedules import BETAS, NoiseSchedule, Prediction, cosine_betas, linear_betas
from zoo.samplers import (
    ddim,
    ddpm_ancestral,
    denoiser,
    guided,
    last_picture,
    slerp,
    sub_sequence,
)

KINDS: dict[str, str] = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}
THEIRS = {"linear": "linear", "cosine": "squaredcos_cap_v2"}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(x: Tensor, time: Tensor) -> Tensor:
    """Some smooth function that mixes pixels and knows the time."""
    weight = random(x[0].numel(), x[0].numel(), seed=7) / math.sqrt(x[0].numel())
    return torch.tanh(x.flatten(1) @ weight).view_as(x) + torch.cos(time / 300).view(-1, 1, 1)


def in_double(theirs: DDPMScheduler | DDIMScheduler, schedule: NoiseSchedule) -> None:
    """Their code, which computes its tables in single precision, with tables in double."""
    theirs.alphas_cumprod = schedule.alphas_cumprod
    theirs.one = theirs.final_alpha_cumprod = torch.ones((), dtype=torch.float64)


def relative(ours: Tensor, twin: Tensor) -> float:
    """The largest difference; of tensors that reach beyond 1, as unclipped ones of a network that is none, relative."""
    return ((ours - twin).abs().max() / twin.abs().max().clamp(min=1)).item()


def drawn(seed: int, shape: torch.Size) -> Callable[[int], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda step: torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", list(BETAS))
@pytest.mark.parametrize("sampler", ["ddpm fixed_small", "ddpm fixed_large", "ddim eta 0", "ddim eta 0.6"])
def test_chains_equal_diffusers(name: str, sampler: str, certify_row: Callable[..., None]) -> None:
    kind, _, option = sampler.partition(" ")
    schedule = NoiseSchedule(BETAS[name](60 if kind == "ddpm" else 1000))
    outputs, gradients = 0.0, 0.0
    for prediction, clips in itertools.product(KINDS, (True, False)):
        options = {
            "beta_schedule": THEIRS[name],
            "prediction_type": KINDS[prediction],
            "clip_sample": clips,
            "num_train_timesteps": schedule.timesteps,
        }
        denoise = denoiser(network, schedule, prediction=prediction, clip_denoised=clips)
        ours, twin = (random(3, 2, 4).requires_grad_() for _ in range(2))
        noise = drawn(5, ours.shape)
        arguments = {"generator": torch.Generator().manual_seed(5)}
        theirs: DDPMScheduler | DDIMScheduler
        if kind == "ddpm":
            theirs = DDPMScheduler(variance_type=option, **options)
            steps = ddpm_ancestral(denoise, ours, schedule, noise=noise, variance=option)
        else:
            theirs, eta = DDIMScheduler(**options), float(option.split()[1])
            theirs.set_timesteps(20)
            arguments |= {"eta": eta, "use_clipped_model_output": True}
            steps = ddim(denoise, ours, schedule, noise=noise, steps=20, eta=eta)
        in_double(theirs, schedule)
        x = twin
        for t, (time, x_t, x0) in zip(theirs.timesteps.tolist(), steps, strict=True):
            assert time == t
            outputs = max(outputs, relative(x_t, x))
            x, their_x0 = theirs.step(network(x, torch.full((3,), t)), t, x, return_dict=False, **arguments)
            outputs = max(outputs, relative(x0, their_x0))
        assert x0.std() > 0.1
        outputs = max(outputs, relative(x0, x))  # the last x₀ is the picture
        ends = [torch.autograd.grad(y.square().mean(), start)[0] for y, start in ((x0, ours), (x, twin))]
        assert ends[1].abs().max() > 1e-6
        assert ends[1].isfinite().all()
        gradients = max(gradients, ((ends[0] - ends[1]).abs().max() / ends[1].abs().max()).item())
    certify_row(
        f"sampler {sampler}, {name} schedule",
        outputs=outputs,
        gradients=gradients,
        source=f"diffusers.{type(theirs).__name__} with float64 tables: whole chains, all predictions, clipped and not",
    )


MEANS, DEVIATIONS, SHARES = (
    torch.tensor(values, dtype=torch.float64) for values in ([-0.7, 0.9], [0.2, 0.1], [0.65, 0.35])
)


def best_denoiser(schedule: NoiseSchedule, prediction: Prediction, part: int | None = None) -> Callable[..., Tensor]:
    """E[x₀ | x_t] of a mixture of two normals (or one of them), as the prediction that a network makes."""
    chosen = slice(None) if part is None else slice(part, part + 1)
    means, variances, shares = MEANS[chosen], DEVIATIONS[chosen] ** 2, SHARES[chosen]

    def predict(x: Tensor, time: Tensor) -> Tensor:
        kept = (1 - schedule.betas[: int(time[0]) + 1]).prod()
        spread = kept * variances + 1 - kept  # of x_t, for each part
        beside = x[:, None] - kept.sqrt() * means
        weight = (shares.log() - 0.5 * spread.log() - 0.5 * beside**2 / spread).softmax(1)
        x0 = (weight * (means + kept.sqrt() * variances / spread * beside)).sum(1)
        epsilon = (x - kept.sqrt() * x0) / (1 - kept).sqrt()
        velocity = kept.sqrt() * epsilon - (1 - kept).sqrt() * x0
        return {"epsilon": epsilon, "x0": x0, "v": velocity}[prediction]

    return predict


@pytest.mark.parametrize("name", list(BETAS))
@pytest.mark.parametrize(
    ("sampler", "prediction"),
    [("fixed_small", "x0"), ("fixed_large", "epsilon"), ("linear", "epsilon"), ("quadratic", "v"), ("eta 1", "v")],
)
def test_the_best_denoiser_makes_the_data(name: str, sampler: str, prediction: Prediction) -> None:
    n, schedule = 6_000, NoiseSchedule(BETAS[name](200))
    denoise = denoiser(best_denoiser(schedule, prediction), schedule, prediction=prediction, clip_denoised=False)
    start, noise = random(n, seed=3), drawn(4, torch.Size([n]))
    if sampler.startswith("fixed"):
        made = last_picture(ddpm_ancestral(denoise, start, schedule, noise=noise, variance=sampler))
    elif sampler == "eta 1":
        made = last_picture(ddim(denoise, start, schedule, noise=noise, steps=200, eta=1))
    else:
        made = last_picture(ddim(denoise, start, schedule, steps=100, spacing=sampler))
    parts = [made[made < 0.15], made[made >= 0.15]]
    for part, mean, deviation, share in zip(parts, MEANS, DEVIATIONS, SHARES, strict=True):
        assert len(part) / n == pytest.approx(share.item(), abs=0.025)  # three standard errors are 0.019
        assert part.mean().item() == pytest.approx(mean.item(), abs=0.02)
        assert part.std().item() == pytest.approx(deviation.item(), abs=0.02)


def test_eta_1_with_all_steps_is_ddpm_with_the_small_variance() -> None:
    schedule, start = NoiseSchedule(cosine_betas(60)), random(3, 2, 4)
    denoise = denoiser(network, schedule, prediction="epsilon", clip_denoised=True)
    one = list(ddpm_ancestral(denoise, start, schedule, noise=drawn(1, start.shape)))
    two = list(ddim(denoise, start, schedule, noise=drawn(1, start.shape), steps=60, eta=1))
    for a, b in zip(one, two, strict=True):
        assert a[0] == b[0]
        torch.testing.assert_close(a[1:], b[1:], rtol=1e-9, atol=1e-9)
    assert one[0][1] is start
    assert [t for t, _, _ in one] == list(range(59, -1, -1))
    assert torch.equal(last_picture(iter(one)), one[-1][2])


def test_noise_is_asked_for_by_step_and_only_where_it_is_used() -> None:
    schedule, asked = NoiseSchedule(linear_betas(30)), []

    def noise(step: int) -> Tensor:
        asked.append(step)
        return torch.zeros(2)

    denoise = denoiser(lambda x, time: x, schedule, prediction="x0", clip_denoised=True)
    last_picture(ddpm_ancestral(denoise, torch.zeros(2), schedule, noise=noise))
    assert asked == list(range(29))  # the step from time 0 to the picture draws nothing
    asked.clear()
    last_picture(ddim(denoise, torch.zeros(2), schedule, noise=noise, steps=10, eta=0.5))
    assert asked == list(range(9))
    asked.clear()
    last_picture(ddim(denoise, torch.zeros(2), schedule, noise=noise, steps=10))
    assert asked == []


def test_denoised_pictures_are_clipped_only_when_told() -> None:
    schedule, x = NoiseSchedule(linear_betas()), torch.tensor([-3.0, 0.5, 3.0])
    for clips, expected in ((True, [-1.0, 0.5, 1.0]), (False, [-3.0, 0.5, 3.0])):
        denoise = denoiser(lambda x, time: x, schedule, prediction="x0", clip_denoised=clips)
        assert denoise(x, 5).tolist() == expected


@pytest.mark.parametrize("spacing", ["linear", "quadratic"])
def test_sub_sequences(spacing: str) -> None:
    for timesteps in (2, 7, 100, 1000):
        for steps in {2, 3, 5, timesteps // 2, timesteps - 1, timesteps} & set(range(2, timesteps + 1)):
            times = sub_sequence(timesteps, steps, spacing)
            assert len(times) == steps
            assert all(a < b for a, b in itertools.pairwise(times))
            assert times[0] >= 0
            assert times[-1] < timesteps
        assert sub_sequence(timesteps, timesteps, spacing) == list(range(timesteps))
    assert sub_sequence(1000, 50) == list(range(0, 1000, 20))
    assert sub_sequence(1000, 10, "quadratic") == [9, 39, 89, 159, 249, 359, 489, 639, 809, 999]


def test_guidance_between_and_beyond_told_and_untold() -> None:
    def told(x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        return x * (1 + condition) + time

    x, time, condition = random(4), torch.tensor([7, 7, 7, 7]), torch.tensor([0, 1, 2, 1])
    with_class, without = told(x, time, condition), told(x, time, torch.full((4,), 3))
    for guidance, expected in ((1, with_class), (0, without), (3, 3 * with_class - 2 * without)):
        predict = guided(told, condition, guidance=guidance, no_class=3)
        torch.testing.assert_close(predict(x, time), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("prediction", list(KINDS))
def test_guidance_steers_the_score_whatever_is_predicted(prediction: Prediction) -> None:
    """Guidance 2 on a class of a mixture: ε̃ = 2·ε(x, class) − ε(x), Ho & Salimans 2022, equation 6 with w = 1."""
    schedule = NoiseSchedule(linear_betas(100))
    whole, part = (best_denoiser(schedule, prediction, part) for part in (None, 1))
    exact_whole, exact_part = (best_denoiser(schedule, "epsilon", part) for part in (None, 1))

    def told(x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        return torch.where(condition == 1, part(x, time), whole(x, time))

    x, time = random(50), torch.full((50,), 40)
    predict = guided(told, torch.ones(50, dtype=torch.int64), guidance=2, no_class=2)
    x0 = schedule.x0(prediction, predict(x, time), x, 40)
    expected = 2 * exact_part(x, time) - exact_whole(x, time)
    torch.testing.assert_close(schedule.epsilon(x0, x, 40), expected, rtol=1e-9, atol=1e-9)


def test_slerp_keeps_the_length_and_meets_both_ends() -> None:
    a, b = random(5, 3, 4), random(5, 3, 4, seed=1)
    b *= a.flatten(1).norm(dim=1)[:, None, None] / b.flatten(1).norm(dim=1)[:, None, None]
    torch.testing.assert_close(slerp(a, b, 0.0), a, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(slerp(a, b, 1.0), b, rtol=1e-9, atol=1e-9)
    middle = slerp(a, b, 0.5)
    torch.testing.assert_close(middle.flatten(1).norm(dim=1), a.flatten(1).norm(dim=1), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(slerp(a, a, 0.3), a, rtol=1e-5, atol=1e-5)
    quarter = slerp(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 0.25)
    assert quarter[0].tolist() == pytest.approx([math.cos(math.pi / 8), math.sin(math.pi / 8)], abs=1e-6)


def test_wrong_values_are_refused() -> None:
    schedule, start = NoiseSchedule(linear_betas(30)), torch.zeros(2)
    denoise = denoiser(lambda x, time: x, schedule, prediction="x0", clip_denoised=True)
    for options, message in (
        ({"steps": 31}, r"steps=31: must be 2 to 30"),
        ({"steps": 1}, r"steps=1: must be 2 to 30"),
        ({"steps": 5, "eta": 1.5, "noise": lambda step: start}, r"eta=1.5: must be 0"),
        ({"steps": 5, "eta": -0.1, "noise": lambda step: start}, r"eta=-0.1: must be 0"),
        ({"steps": 5, "eta": 0.5}, r"eta=0.5: must be 0 without `noise`"),
        ({"steps": 5, "spacing": "cubic"}, r"spacing=cubic: must be linear or quadratic"),
    ):
        with pytest.raises(ValueError, match=message):
            last_picture(ddim(denoise, start, schedule, **options))
    with pytest.raises(ValueError, match=r"variance=learned: must be fixed_small or fixed_large"):
        last_picture(ddpm_ancestral(denoise, start, schedule, noise=lambda step: start, variance="learned"))
