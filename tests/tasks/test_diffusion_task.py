"""The diffusion task: its loss by hand, its draws by position, what it makes from a network that is known."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zoo.diffusion_times import LossByTime, spread_times
from zoo.errors import ZooError
from zoo.randomness import key, normal
from zoo.schedules import Constant
from zoo.tasks.diffusion import Diffusion
from zoo.tasks.engine import Optimization

FACTS = {"channels": 1, "image_size": 4, "num_classes": 3, "mean": [0.5], "std": [0.5]}
UNLABELLED = {**FACTS, "num_classes": None}


class Tiny(nn.Module):
    """A convolution, shifted by time and class; it notes what it was asked."""

    def __init__(self, num_classes: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.num_classes = num_classes
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.classes = nn.Embedding((num_classes or 0) + 1, 1)
        self.asked: list[tuple[Tensor, ...]] = []

    def forward(self, noisy: Tensor, time: Tensor, condition: Tensor | None = None) -> Tensor:
        self.asked.append((noisy, time) if condition is None else (noisy, time, condition))
        shift = torch.cos(time.to(noisy.dtype) / 100)[:, None] + (0 if condition is None else self.classes(condition))
        return self.conv(noisy) + shift[:, :, None, None]


def make(network: nn.Module | None = None, **options: Any) -> Diffusion:
    return Diffusion(network or Tiny(), **{"facts": FACTS, "timesteps": 100, "steps": 10, **options}).eval()


def a_batch(size: int = 6, begin: int = 0) -> dict[str, Tensor]:
    images = torch.rand(32, 1, 4, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
    position = torch.arange(begin, begin + size)
    return {"input": images[position], "target": position % 3, "position": position}


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
def test_loss_is_the_mean_squared_error_of_the_prediction(prediction: str) -> None:
    task, batch = make(prediction=prediction), a_batch()
    task.draws = 17
    loss, outputs = task.loss(task.network, batch)
    noise = normal(key(17, "noise"), batch["position"], 16).view(6, 1, 4, 4)
    noisy, time = task.network.asked[-1]
    kept = torch.cumprod(1 - torch.linspace(1e-3, 0.2, 100, dtype=torch.float64), 0)[time].view(-1, 1, 1, 1).float()
    x0 = batch["input"]
    torch.testing.assert_close(noisy, kept.sqrt() * x0 + (1 - kept).sqrt() * noise)
    wanted = {"epsilon": noise, "x0": x0, "v": kept.sqrt() * noise - (1 - kept).sqrt() * x0}[prediction]
    expected = (task.network(noisy, time) - wanted).square()
    torch.testing.assert_close(loss, expected.mean())
    torch.testing.assert_close(outputs["losses"], expected.mean((1, 2, 3)))
    assert torch.equal(outputs["time"], time)
    assert not outputs["losses"].requires_grad
    assert all(torch.equal(a, b) for a, b in zip(task.inputs(batch), (noisy, time), strict=True))


def test_draws_are_by_key_and_position_whatever_the_batch() -> None:
    task = make()
    whole = task.inputs(a_batch(8))
    halves = [task.inputs(a_batch(4)), task.inputs(a_batch(4, begin=4))]
    for i, part in enumerate(whole):
        torch.testing.assert_close(part, torch.cat([half[i] for half in halves]))
    task.draws = 1
    other = task.inputs(a_batch(8))
    assert not torch.equal(whole[1], other[1])
    assert not torch.allclose(whole[0], other[0])


def test_times_are_uniform_and_spread_evenly_over_any_batch() -> None:
    positions = torch.arange(20_000)
    for seed in range(3):
        counts = torch.bincount(spread_times(seed, positions, 1000), minlength=1000)
        assert len(counts) == 1000
        assert counts.min() >= 18  # 20 each
        assert counts.max() <= 22
        for begin in (0, 777, 12_345):
            quarters = spread_times(seed, positions[begin : begin + 64], 1000) // 250
            assert torch.bincount(quarters, minlength=4).tolist() == pytest.approx([16] * 4, abs=2)
    first = torch.stack([spread_times(seed, positions[:1], 4)[0] for seed in range(400)])
    assert torch.bincount(first, minlength=4).tolist() == pytest.approx([100] * 4, abs=35)  # four deviations
    last = spread_times(0, torch.tensor([2**40]), 1000)
    assert 0 <= last < 1000


def test_classes_are_forgotten_in_training_only_and_by_position() -> None:
    network = Tiny(3)
    task = make(network, condition_dropout=0.3)
    batch = {**a_batch(1), "position": torch.arange(3000)}
    batch = {**batch, "input": batch["input"].expand(3000, 1, 4, 4), "target": torch.arange(3000) % 3}
    task.loss(network, batch)
    assert torch.equal(network.asked[-1][2], batch["target"])
    assert torch.equal(task.inputs(batch)[2], batch["target"])
    task.train()
    task.loss(network, batch)
    told = network.asked[-1][2]
    assert (told == 3).float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert torch.equal(told[told != 3], batch["target"][told != 3])
    task.loss(network, {name: value[1000:2000] for name, value in batch.items()})
    assert torch.equal(network.asked[-1][2], told[1000:2000])
    task.condition_dropout = 0.0
    task.loss(network, batch)
    assert torch.equal(network.asked[-1][2], batch["target"])


def test_losses_of_a_split_by_quarter_of_the_times() -> None:
    task = make()
    task.start_split()
    kept = []
    for i in range(4):
        outputs = task.evaluation_step(a_batch(8, begin=8 * i), i)
        kept.append((outputs["losses"], outputs["time"]))
    scores = task.split_scores("val")
    losses, time = (torch.cat(part) for part in zip(*kept, strict=True))
    assert scores["val/loss"] == pytest.approx(losses.mean().item(), rel=1e-5)
    for i in range(4):
        part = losses[(time >= 25 * i) & (time < 25 * i + 25)]
        assert scores[f"val/loss_t{i}"] == pytest.approx(part.mean().item(), rel=1e-5)
    again = [task.step_values(dict(zip(("losses", "time"), one, strict=True)), {}) for one in kept]
    window = task.step_metrics(again)
    assert window == {f"train/loss_t{i}": pytest.approx(scores[f"val/loss_t{i}"], rel=1e-5) for i in range(4)}


def test_a_quarter_without_examples_is_left_out() -> None:
    by_time = LossByTime(1000)
    by_time.update(torch.tensor([2.0, 4.0, 6.0]), torch.tensor([0, 249, 999]))
    assert {name: value.item() for name, value in by_time.compute().items()} == {"loss_t0": 3, "loss_t3": 6}


SAMPLERS = [{"eta": 0.0}, {"sampler": "ddim", "eta": 0.7, "spacing": "quadratic"}, {"sampler": "ddpm"}]


@pytest.mark.parametrize("options", SAMPLERS)
def test_a_picture_is_a_function_of_seed_and_number(options: dict[str, Any]) -> None:
    task = make(Tiny(3), guidance=2.0, **options)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    whole = task.sample(torch.arange(7), seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    assert whole.shape == (7, 1, 4, 4)
    assert whole.min() >= 0
    assert whole.max() <= 1
    parts = torch.cat([task.sample(torch.arange(3), seed=5), task.sample(torch.tensor([6, 5, 4, 3]), seed=5).flip(0)])
    torch.testing.assert_close(parts, whole)
    assert not torch.allclose(task.sample(torch.arange(7), seed=6), whole)
    assert len(set(whole.flatten(1).sum(1).tolist())) == 7


def test_the_sampler_takes_its_options() -> None:
    network = Tiny()
    task, numbers = make(network), torch.arange(2)
    usual = {"steps": 10, "spacing": "linear", "eta": 0.0, "sampler": "ddim"}
    calls, pictures = [], []
    for options in (
        {},
        {"steps": 20},
        {"spacing": "quadratic"},
        {"eta": 1.0},
        {"sampler": "ddpm"},
        {"sampler": "ddpm", "variance": "fixed_small"},
        {"clip_denoised": False},
        {"prediction": "v"},
    ):
        for name, value in {**usual, **options}.items():
            setattr(task, name, value)
        network.asked.clear()
        pictures.append(task.sample(numbers, seed=0))
        calls.append(len(network.asked))
    assert calls == [10, 20, 10, 10, 100, 100, 10, 10]
    assert all(not torch.allclose(a, b) for i, a in enumerate(pictures) for b in pictures[:i])


def test_a_trained_denoiser_of_one_picture_makes_it() -> None:
    """The best prediction for data that are one picture is known: x₀ is that picture whatever x_t."""
    picture = torch.linspace(-0.9, 0.9, 16).view(1, 1, 4, 4)

    class Known(nn.Module):
        num_classes = None

        def __init__(self) -> None:
            super().__init__()
            self.picture = nn.Parameter(picture)

        def forward(self, noisy: Tensor, time: Tensor) -> Tensor:
            return self.picture.expand_as(noisy)

    for options in SAMPLERS:
        task = make(Known(), prediction="x0", **options)
        torch.testing.assert_close(task.sample(torch.arange(3), seed=0), ((picture + 1) / 2).expand(3, 1, 4, 4))
        assert task.loss(task.network, {**a_batch(2), "input": picture.expand(2, 1, 4, 4)})[0] == 0


def test_classes_that_are_asked_for_and_classes_in_turn() -> None:
    network = Tiny(3)
    task, numbers = make(network), torch.arange(5)
    in_turn = task.sample(numbers, seed=0)
    assert network.asked[-1][2].tolist() == [0, 1, 2, 0, 1]
    torch.testing.assert_close(task.sample(numbers, seed=0, condition=numbers % 3), in_turn)
    none = task.sample(numbers, seed=0, condition=torch.full((5,), 3))
    assert not torch.allclose(none, in_turn)
    task.guidance = 0.0
    torch.testing.assert_close(task.sample(numbers, seed=0), none)
    for wrong in (-1, 4):
        with pytest.raises(ValueError, match="condition: must be classes from 0 to 2, or 3 for none"):
            task.sample(numbers, seed=0, condition=torch.full((5,), wrong))
    with pytest.raises(ValueError, match="condition: must be left out"):
        make().sample(numbers, seed=0, condition=numbers % 3)


def test_averaged_weights_make_the_pictures() -> None:
    settings = Optimization(optimizer=lambda p: torch.optim.SGD(p, lr=0.1), schedule=Constant(), ema_decay=0.9)
    task = make(optimization=settings)
    before = task.sample(torch.arange(2), seed=0)
    with torch.no_grad():
        task.network.conv.weight.add_(1)
    torch.testing.assert_close(task.sample(torch.arange(2), seed=0), before)
    with torch.no_grad():
        task.ema.conv.weight.add_(1)
    assert not torch.allclose(task.sample(torch.arange(2), seed=0), before)


@pytest.mark.parametrize("options", SAMPLERS)
def test_a_film_ends_in_the_picture(options: dict[str, Any]) -> None:
    task, numbers = make(Tiny(3), **options), torch.arange(3)
    film = task.film(numbers, seed=2, frames=4)
    assert film.noisy.shape == film.predicted.shape == (4, 3, 1, 4, 4)
    torch.testing.assert_close(film.predicted[-1], task.sample(numbers, seed=2))
    begin = (task.start(numbers, seed=2) * 0.5 + 0.5).clamp(0, 1)
    torch.testing.assert_close(film.noisy[0], begin)
    assert len(film.times) == 4
    assert film.times == sorted(film.times, reverse=True)
    total = 100 if task.sampler == "ddpm" else 10
    assert len(task.film(numbers, seed=2, frames=total).times) == total
    for frames in (1, total + 1):
        with pytest.raises(ValueError, match=f"frames={frames}: must be 2 to {total}"):
            task.film(numbers, seed=2, frames=frames)


@pytest.mark.parametrize("options", SAMPLERS)
def test_an_interpolation_begins_and_ends_in_the_pictures(options: dict[str, Any]) -> None:
    task, first, second = make(Tiny(3), **options), torch.tensor([0, 1]), torch.tensor([3, 4])
    between = task.interpolate(first, second, weights=[0, 0.5, 1], seed=0)
    assert between.shape == (3, 2, 1, 4, 4)
    torch.testing.assert_close(between[0], task.sample(first, seed=0), rtol=1e-4, atol=1e-4)
    if task.sampler == "ddim" and not task.eta:
        torch.testing.assert_close(between[2], task.sample(second, seed=0), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(between[1], between[0])


def test_a_forward_film_drowns_the_picture_in_noise() -> None:
    task = make(timesteps=200)
    images = torch.full((500, 1, 4, 4), 0.25)
    film = task.forward_film(images, [-1, 0, 20, 199], seed=1)
    assert film.shape == (4, 500, 1, 4, 4)
    torch.testing.assert_close(film[0], images / 2 + 0.5)
    for frame, time in ((1, 0), (2, 20)):  # here the clamp to pixels does nothing
        kept = math.prod(1 - (1e-4 + t * (0.02 - 1e-4) / 199) * 5 for t in range(time + 1))
        x = film[frame] * 2 - 1
        assert x.mean().item() == pytest.approx(0.25 * math.sqrt(kept), abs=0.01)
        assert x.std().item() == pytest.approx(math.sqrt(1 - kept), abs=0.02)
    assert film[3].mean().item() == pytest.approx(0.5, abs=0.02)
    correlation = torch.corrcoef(torch.stack([film[1].flatten(), film[2].flatten()]))[0, 1]
    assert correlation > 0.05  # one way of the chain, not two draws
    torch.testing.assert_close(
        task.forward_film(images[:2], [5], seed=1), task.forward_film(images, [5], seed=1)[:, :2]
    )
    for times in ([], [5, 5], [9, 2], [-2, 3], [200]):
        with pytest.raises(ValueError, match="must increase, from −1"):
            task.forward_film(images, times, seed=1)


def test_unlabelled_pictures_need_a_network_without_classes() -> None:
    task = make(facts=UNLABELLED)
    batch = {name: value for name, value in a_batch().items() if name != "target"}
    assert len(task.inputs(batch)) == 2
    assert task.loss(task.network, batch)[0].isfinite()
    assert task.sample(torch.arange(2), seed=0).shape == (2, 1, 4, 4)
    with pytest.raises(ValueError, match=r"model.conditional=true: must be false here, as this data has no classes"):
        make(Tiny(3), facts=UNLABELLED)


def test_the_schedule_is_no_weight_and_follows_precision() -> None:
    task = make()
    task.loss(task.network, a_batch())
    assert set(task.state_dict()) == {"network.conv.weight", "network.conv.bias", "network.classes.weight"}
    task.network.to(torch.bfloat16)
    loss, _ = task.loss(task.network, {**a_batch(), "input": a_batch()["input"].bfloat16()})
    assert loss.isfinite()
    assert loss.dtype == torch.float32
    made = task.sample(torch.arange(2), seed=0)
    assert made.dtype == torch.float32
    assert made.isfinite().all()
    meta = {name: value.to("meta") for name, value in a_batch().items()}
    assert task.inputs(meta)[0].shape == (6, 1, 4, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "square"}, "schedule=square: must be linear or cosine"),
        ({"timesteps": 10}, "timesteps=10: must be more than 20"),
        ({"prediction": "noise"}, "prediction=noise: must be epsilon, x0 or v"),
        ({"condition_dropout": 1.0}, "condition_dropout=1.0: must be at least 0 and below 1"),
        ({"condition_dropout": 0.2}, "condition_dropout=0.2: must be left out, as this network is not told classes"),
        ({"sampler": "euler"}, "sampler=euler: must be ddim or ddpm"),
        ({"steps": 101}, "steps=101: must be 2 to 100"),
        ({"eta": 2.0}, "eta=2.0: must be 0"),
        ({"spacing": "cubic"}, "spacing=cubic: must be linear or quadratic"),
        ({"sampler": "ddpm", "variance": "learned"}, "variance=learned: must be fixed_small or fixed_large"),
        ({"guidance": 3.0}, "guidance=3.0: must be 1, as this network is not told classes"),
        ({"guidance": -1.0, "network": 3}, "guidance=-1.0: must be 0 or more"),
        ({"guidance": 3.0, "condition_dropout": 0.0, "network": 3}, "guidance=3.0: must be 1, as with condition_drop"),
        ({"facts": {**FACTS, "mean": [0.0]}}, r"data.mean=\[0.0\]: must be \[0.5\] here"),
    ],
)  # fmt: skip
def test_wrong_values_are_refused(options: dict[str, Any], message: str) -> None:
    network = Tiny(options.pop("network", None))
    with pytest.raises(ValueError, match=message):
        make(network, **options)


def test_options_are_checked_again_before_sampling() -> None:
    task = make()
    task.steps = 1000
    with pytest.raises(ValueError, match="steps=1000: must be 2 to 100"):
        task.sample(torch.arange(2), seed=0)


def test_a_run_refuses_what_its_sampler_does_not_take(small_run: Any) -> None:
    with pytest.raises(ZooError, match=r"task\.eta=0\.5: must be 1 with task\.sampler=ddpm"):
        small_run("model=diffusion", "task.sampler=ddpm", "task.eta=0.5")
    with pytest.raises(ZooError, match=r"train split has 1 example: .*, or raise train_examples\."):
        small_run("model=diffusion", "model.width=4", "train_examples=1", name="other")
