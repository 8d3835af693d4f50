"""The GAN task: its iterations against loops written by hand, its counting, its state, its scores."""

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn

from zoo.checkpoint import Checkpoints
from zoo.data.arrays import ArraySplit
from zoo.data.module import DataModule
from zoo.errors import ZooError
from zoo.frechet import sliced_wasserstein
from zoo.gan_scores import PICTURES, GanScores
from zoo.logs import MetricsCSV
from zoo.randomness import key, normal, uniform
from zoo.run import make_trainer, skip_unused_hooks
from zoo.schedules import Constant, Cosine, Step
from zoo.tasks.engine import Optimization
from zoo.tasks.gan import ByIteration, Gan
from zoo.transfer import evaluated_weights

# Lightning says this once in a process, of the hook that zoo/tasks/base.py overrides on purpose
pytestmark = pytest.mark.filterwarnings("ignore:You have overridden .transfer_batch_to_device.:UserWarning")

FACTS = {"channels": 1, "image_size": 4, "num_classes": 3, "mean": [0.5], "std": [0.5]}
SIZE, BATCH, LATENT = 72, 16, 3  # five batches an epoch, the last of eight


class Pictures(DataModule):
    def read(self) -> None:
        generator = torch.Generator().manual_seed(3)
        inputs = torch.randint(0, 256, (SIZE, 1, 4, 4), generator=generator).to(torch.uint8)
        targets = torch.randint(0, 3, (SIZE,), generator=generator)
        self.splits = {
            "train": ArraySplit(inputs, targets, mean=[0.5], std=[0.5]),
            "val": ArraySplit(inputs[:30], targets[:30], mean=[0.5], std=[0.5]),
        }


class Generator(nn.Module):
    def __init__(self, classes: int | None, norm: bool) -> None:
        super().__init__()
        self.classes = classes
        self.first = nn.Linear(LATENT + (classes or 0), 8)
        self.norm = nn.BatchNorm1d(8) if norm else nn.Identity()
        self.last = nn.Linear(8, 16)
        self.seen: list[Tensor | None] = []

    def forward(self, noise: Tensor, condition: Tensor | None = None) -> Tensor:
        self.seen.append(condition)
        if self.classes:
            noise = torch.cat([noise, F.one_hot(condition, self.classes)], 1)
        return self.last(self.norm(self.first(noise)).relu()).tanh().view(-1, 1, 4, 4)


class Discriminator(nn.Module):
    def __init__(self, classes: int | None) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 8), nn.Linear(8, 1 + (classes or 0))
        self.seen: list[tuple[bool, Tensor | None]] = []

    def forward(self, input: Tensor, condition: Tensor | None = None) -> Tensor:
        self.seen.append((self.first.weight.requires_grad, condition))
        scores = self.last(F.leaky_relu(self.first(input.flatten(1)), 0.2))
        return scores[:, 0] if condition is None else scores.gather(1, 1 + condition[:, None])[:, 0] + scores[:, 0]


class Tiny(nn.Module):
    def __init__(self, *, conditional: bool = False, norm: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.latent, self.num_classes = LATENT, 3 if conditional else None
        self.generator, self.discriminator = Generator(self.num_classes, norm), Discriminator(self.num_classes)

    def forward(self, noise: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.discriminator(self.generator(noise, condition), condition)


def sgd(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=0.1, momentum=0.5)


def adam(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=0.02)


def settings(**more: Any) -> Optimization:
    return Optimization(**{"optimizer": sgd, "schedule": Constant(), **more})


def make(network: nn.Module, optimization: Optimization | None = None, log_every: int = 1, **more: Any) -> Gan:
    return Gan(network, optimization=optimization, facts=FACTS, log_every=log_every, **more)


def fit(task: Gan, folder: Any, *, epochs: int = 2, callbacks: Any = (), checkpoint: Any = None, **more: Any) -> Gan:
    """Train; the logs go to `folder`."""
    steps = task.engine.settings.max_steps
    options = {"accelerator": "cpu", "max_epochs": epochs, "max_steps": steps, "log_every_n_steps": 1, **more}
    trainer = make_trainer(options, folder=folder, logger=False, callbacks=list(callbacks))
    folder.mkdir(exist_ok=True)
    trainer.loggers = [MetricsCSV(folder)]
    skip_unused_hooks(trainer, task)
    data = Pictures(batch_size=BATCH)
    try:
        trainer.fit(task, datamodule=data, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    finally:
        trainer.loggers[0].close()
    return task


def logged(folder: Any) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for line in (folder / "metrics.csv").read_text().splitlines()[1:]:
        step, _, name, value = line.split(",")
        found.setdefault(name, {})[int(step)] = float(value)
    return found


def batches(epochs: int) -> list[list[dict[str, Tensor]]]:
    data = Pictures(batch_size=BATCH)
    data.setup()
    loader, found = data.loader("train", training=True), []
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        found.append(list(loader))
    return found


def assert_same(a: nn.Module, b: nn.Module) -> None:
    for (name, p), (_, q) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


# Iterations -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_critic", "accumulate"), [(1, 1), (2, 1), (2, 2), (3, 2)])
def test_iterations_equal_a_loop_by_hand(n_critic: int, accumulate: int, tmp_path) -> None:
    """Losses, windows, draws, clipping, penalties, both rates and the average, over three epochs of five batches."""
    ours, theirs = Tiny(), Tiny()
    options = settings(accumulate=accumulate, clip=0.5, ema_decay=0.5, l2=0.1)
    task = fit(make(ours, options, n_critic=n_critic, discriminator_lr=0.5), tmp_path, epochs=3)

    average = copy.deepcopy(theirs.generator)
    for_discriminator = torch.optim.SGD(theirs.discriminator.parameters(), lr=0.05, momentum=0.5)
    for_generator = torch.optim.SGD(theirs.generator.parameters(), lr=0.1, momentum=0.5)
    discriminator_steps = generator_steps = 0

    def step(optimizer: torch.optim.Optimizer, losses: list[Tensor], network: nn.Module) -> None:
        optimizer.zero_grad()
        decay = sum(0.05 * p.square().sum() for p in network.parameters() if p.ndim > 1)
        (sum(losses) / len(losses) + decay).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        optimizer.step()

    for number, epoch in enumerate(batches(3)):
        draws = key(0, "draws", number)
        for window in (epoch[i : i + accumulate] for i in range(0, 5, accumulate)):
            losses = []
            for batch in window:
                fake = theirs.generator(normal(key(draws, "latents"), batch["position"], LATENT)).detach()
                real_scores, fake_scores = theirs.discriminator(batch["input"]), theirs.discriminator(fake)
                ones, zeros = torch.ones_like(real_scores), torch.zeros_like(real_scores)
                losses.append(
                    F.binary_cross_entropy_with_logits(real_scores, ones)
                    + F.binary_cross_entropy_with_logits(fake_scores, zeros)
                )
            step(for_discriminator, losses, theirs.discriminator)
            discriminator_steps += 1
            if discriminator_steps % n_critic:
                continue
            losses = []
            for draw in range(accumulate):
                noise = normal(key(draws, f"generator's latents {draw}"), window[-1]["position"], LATENT)
                scores = theirs(noise)
                losses.append(F.binary_cross_entropy_with_logits(scores, torch.ones_like(scores)))
            step(for_generator, losses, theirs.generator)
            generator_steps += 1
            decay = min(0.5, (1 + generator_steps) / (10 + generator_steps))
            with torch.no_grad():
                for kept, new in zip(average.parameters(), theirs.generator.parameters(), strict=True):
                    kept.lerp_(new, 1 - decay)
    assert_same(ours, theirs)
    average.norm.load_state_dict(average.norm.state_dict() | dict(theirs.generator.norm.named_buffers()))
    assert_same(task.ema.generator, average)
    assert task.discriminator_engine.step_count == discriminator_steps
    assert task.engine.step_count == task.trainer.global_step == task.engine.total_steps == generator_steps


def test_gradient_penalty_and_its_log(tmp_path) -> None:
    ours, theirs = Tiny(), Tiny()
    options = settings(max_steps=1)
    fit(make(ours, options, loss="wasserstein", gradient_penalty=10.0), tmp_path)
    batch = batches(1)[0][0]
    fake = theirs.generator(normal(key(key(0, "draws", 0), "latents"), batch["position"], LATENT)).detach()
    mix = uniform(key(key(0, "draws", 0), "mix"), batch["position"], 1).view(-1, 1, 1, 1)
    between = (mix * batch["input"] + (1 - mix) * fake).requires_grad_()
    slope = torch.autograd.grad(theirs.discriminator(between).sum(), between, create_graph=True)[0]
    penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
    distance = theirs.discriminator(fake).mean() - theirs.discriminator(batch["input"]).mean()
    (distance + 10 * penalty).backward()
    sgd(theirs.discriminator.parameters()).step()
    assert_same(ours.discriminator, theirs.discriminator)
    values = {name: steps[1] for name, steps in logged(tmp_path).items() if name.startswith("train/")}
    assert values["train/gradient_penalty"] == pytest.approx(penalty.item(), rel=1e-5)
    assert values["train/discriminator_loss"] == pytest.approx(distance.item(), rel=1e-5)
    assert "train/discriminator_accuracy" not in values


def test_max_steps_counts_iterations_and_epochs_go_on_counting(tmp_path) -> None:
    task = fit(make(Tiny(), settings(max_steps=7), n_critic=3), tmp_path, epochs=1)
    assert task.engine.step_count == task.trainer.global_step == 7
    assert task.discriminator_engine.step_count == 21  # of five an epoch
    assert sorted(logged(tmp_path)["train/generator_loss"]) == list(range(1, 8))


def test_the_generators_step_leaves_the_discriminator_alone(tmp_path) -> None:
    network = Tiny()
    task = fit(make(network, settings(max_steps=2), n_critic=2), tmp_path, limit_val_batches=0)
    assert [learns for learns, _ in network.discriminator.seen] == [True] * 4 + [False] + [True] * 4 + [False]
    assert all(p.requires_grad for p in task.discriminator_engine.parameters)


def test_an_n_critic_that_never_lets_the_generator_learn_is_refused(tmp_path) -> None:
    with pytest.raises(ZooError, match=r"n_critic=11: must be at most 10.*more epochs"):
        fit(make(Tiny(), settings(), n_critic=11), tmp_path, epochs=2)
    assert fit(make(Tiny(), settings(), n_critic=10), tmp_path, epochs=2).engine.step_count == 1


def test_a_schedule_gives_both_networks_the_same_factor_in_an_iteration(tmp_path) -> None:
    for schedule in (Cosine(warmup_steps=4), Step(every=3, factor=0.5, unit="step")):
        theirs = ByIteration(schedule=schedule, steps=5)
        for step in range(100):
            assert theirs.multiplier(step, 102, 51) == schedule.multiplier(step // 5, 20, 10)
        assert theirs.multiplier(101, 102, 51) == schedule.multiplier(19, 20, 10)
    task = fit(make(Tiny(), settings(schedule=Cosine()), n_critic=3, discriminator_lr=0.25), tmp_path, epochs=3)
    assert task.discriminator_engine.step_count == 15
    assert task.discriminator_engine.lr == pytest.approx(0.25 * task.engine.lr)


def test_rates_reach_the_parts_by_their_own_names() -> None:
    rates = {"generator.last.weight": 0.5, "discriminator.last.weight": 0.1}
    task = make(Tiny(), settings(rates=rates), discriminator_lr=3.0)
    network = task.network

    def lr_of(optimizer: torch.optim.Optimizer, parameter: Tensor) -> float:
        (found,) = [g["initial_lr"] for g in optimizer.param_groups if any(p is parameter for p in g["params"])]
        return found

    generator, discriminator = task.configure_optimizers()
    assert lr_of(generator, network.generator.last.weight) == pytest.approx(0.05)
    assert lr_of(generator, network.generator.last.bias) == pytest.approx(0.1)
    assert lr_of(discriminator, network.discriminator.last.weight) == pytest.approx(0.03)
    assert lr_of(discriminator, network.discriminator.last.bias) == pytest.approx(0.3)


def test_weights_are_clipped_after_each_step_of_the_discriminator(tmp_path) -> None:
    network = Tiny()
    fit(make(network, settings(max_steps=1), loss="wasserstein", clip_weights=0.01), tmp_path)
    assert max(p.abs().max().item() for p in network.discriminator.parameters()) == pytest.approx(0.01)
    assert network.generator.first.weight.abs().max() > 0.01


def test_classes_of_fakes(tmp_path) -> None:
    """The batch's own for the discriminator, evenly drawn ones for the generator, the same for both networks."""
    network = Tiny(conditional=True)
    fit(make(network, settings(), n_critic=2), tmp_path, epochs=40, limit_val_batches=0)
    flat = [batch for epoch in batches(40) for batch in epoch]
    made, drawn = iter(network.generator.seen), []
    judged = iter(network.discriminator.seen)
    for number, batch in enumerate(flat, start=1):
        for seen in (next(made), next(judged)[1], next(judged)[1]):
            assert torch.equal(seen, batch["target"])
        if number % 2 == 0:
            drawn.append(next(made))
            assert torch.equal(drawn[-1], next(judged)[1])
            assert len(drawn[-1]) == len(batch["target"])
    assert not list(made)
    counts = torch.bincount(torch.cat(drawn), minlength=3).double()
    assert len(counts) == 3
    share, even = counts / counts.sum(), 1 / 3
    assert (share - even).abs().max() < 4 * math.sqrt(even * (1 - even) / counts.sum())


@pytest.mark.parametrize("norm", [True, False])
def test_training_in_bf16_moves_both_networks(norm: bool, tmp_path) -> None:
    ours, plain = Tiny(norm=norm), Tiny(norm=norm)
    fit(make(ours, settings(max_steps=3)), tmp_path, precision="bf16-mixed")
    fit(make(plain, settings(max_steps=3)), tmp_path / "plain")
    start, wanted = dict(Tiny(norm=norm).named_parameters()), dict(plain.named_parameters())
    for name, parameter in ours.named_parameters():
        assert parameter.dtype == torch.float32
        way, moved = wanted[name] - start[name], parameter - start[name]
        if way.abs().max() > 1e-6:  # a bias before batch normalisation does not move
            torch.testing.assert_close(moved, way, rtol=0, atol=0.1 * way.abs().max().item())


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_tensor(tmp_path) -> None:
    network = Tiny()
    network.discriminator.last.bias.data.fill_(float("nan"))
    with pytest.raises(ZooError, match=r"became nan at step 1: generator\.first\.weight and .* more"):
        fit(make(network, settings()), tmp_path)


@pytest.mark.parametrize("loss", ["minimax", "non_saturating", "least_squares", "hinge"])
def test_training_logs(loss: str, tmp_path) -> None:
    """The mean over the window of each iteration's last batch."""
    fit(make(Tiny(), settings(max_steps=4), loss=loss, n_critic=2, log_every=2), tmp_path / "two")
    fit(make(Tiny(), settings(max_steps=4), loss=loss, n_critic=2), tmp_path / "each")
    two, each = logged(tmp_path / "two"), logged(tmp_path / "each")
    names = ("discriminator_loss", "generator_loss", "real_score", "fake_score", "discriminator_accuracy")
    for name in ("train/loss", *(f"train/{name}" for name in names)):
        assert sorted(two[name]) == [2, 4]
        assert two[name][4] == pytest.approx((each[name][3] + each[name][4]) / 2, rel=1e-4)
    assert each["train/loss"][3] == pytest.approx(
        each["train/discriminator_loss"][3] + each["train/generator_loss"][3], rel=1e-5
    )
    assert each["grad_norm"][3] > 0
    assert "train/gradient_penalty" not in each


@pytest.mark.parametrize(("loss", "boundary"), [("hinge", 0.0), ("least_squares", 0.5)])
def test_discriminator_accuracy_is_about_the_losss_own_boundary(loss: str, boundary: float, tmp_path) -> None:
    """A discriminator that scores real pictures just above and fakes just below it is always right."""
    network = Tiny()

    class Sharp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, input: Tensor, condition: Tensor | None = None) -> Tensor:
            is_real = input.flatten(1).abs().amax(1) > 1.5  # as only the data's are, below
            return self.weight * 0 + boundary + torch.where(is_real, 0.1, -0.1) + 0 * input.flatten(1).sum(1)

    network.discriminator = Sharp()
    task = make(network, settings(max_steps=1), loss=loss)
    task.prepare_batch = lambda batch, seed: {**batch, "input": batch["input"].sign() * 2}  # type: ignore[method-assign]
    fit(task, tmp_path, limit_val_batches=0)
    assert logged(tmp_path)["train/discriminator_accuracy"][1] == 1
    assert logged(tmp_path)["train/real_score"][1] == pytest.approx(boundary + 0.1)
    assert logged(tmp_path)["train/fake_score"][1] == pytest.approx(boundary - 0.1)


# State ----------------------------------------------------------------------------------------------------------------


class Bomb(Callback):
    """Ends the process's work at the start of its `count`-th batch."""

    def __init__(self, count: int) -> None:
        self.count = count

    def on_train_batch_start(self, *_: Any) -> None:
        self.count -= 1
        if self.count == 0:
            raise RuntimeError("bomb")


@pytest.mark.parametrize("kept_at", ["in mid-epoch", "at an epoch's end, in mid-iteration"])
def test_an_interrupted_run_ends_with_the_same_bits(kept_at: str, tmp_path) -> None:
    every, bombs = {"in mid-epoch": (4, [11, 8])}.get(kept_at, (None, [7, 13]))

    def run(folder: Any, bomb: int | None, checkpoint: Any = None) -> None:
        options = settings(optimizer=adam, schedule=Cosine(warmup_steps=2), accumulate=1, clip=1.0, ema_decay=0.8)
        task = make(Tiny(conditional=True), options, n_critic=2, loss="hinge", log_every=3)
        torch.manual_seed(torch.seed() % 1000)  # what is left in the global generator plays no part
        keep = Checkpoints(folder, {}, monitor=task.monitor, mode=task.mode, every_n_steps=every)
        fit(task, folder, epochs=5, callbacks=[keep, *([Bomb(bomb)] if bomb else [])], checkpoint=checkpoint)

    run(tmp_path / "whole", None)
    checkpoint, killed = None, tmp_path / "killed"
    for bomb in bombs:
        with pytest.raises(RuntimeError, match="bomb"):
            run(killed, bomb, checkpoint)
        checkpoint = killed / "checkpoints" / "last.ckpt"
    kept = saved(checkpoint)
    if every is None:
        assert kept["discriminator_engine"]["step_count"] % 2 == 1
    run(killed, None, checkpoint)

    ends = [saved(folder / "checkpoints" / "last.ckpt") for folder in (tmp_path / "whole", killed)]
    assert ends[0]["engine"]["step_count"] == 12
    assert len(ends[0]["optimizer_states"]) == 2
    assert all(state["state"] for state in ends[0]["optimizer_states"])
    for part in ("state_dict", "optimizer_states", "engine", "discriminator_engine"):
        assert_equal(ends[0][part], ends[1][part])
    assert logged(tmp_path / "whole") == logged(killed)


def saved(path: Any) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def assert_equal(a: Any, b: Any) -> None:
    if isinstance(a, Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for name in a:
            assert_equal(a[name], b[name])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        assert a == b


# Scores and samples ---------------------------------------------------------------------------------------------------


def evaluated(task: Gan, size: int = 30) -> dict[str, float]:
    data = Pictures(batch_size=BATCH, eval_batch_size=size)
    data.setup()
    task.eval()
    task.start_split()
    with torch.inference_mode():
        for number, batch in enumerate(data.loader("val")):
            task.evaluation_step(batch, number)
        return task.split_scores("val")


@pytest.mark.parametrize("conditional", [False, True])
def test_scores_of_a_split_by_hand(conditional: bool) -> None:
    task = make(Tiny(conditional=conditional), loss="least_squares", seed=5)
    scores = evaluated(task, size=7)
    data = Pictures()
    data.setup()
    batch = data.splits["val"].batch(0, torch.arange(30), torch.arange(30))
    condition = batch["target"] if conditional else None
    with torch.no_grad():
        latents = normal(key(key(5, "draws", "evaluation"), "latents"), torch.arange(30), LATENT)
        fake = task.network.generator(latents, condition)
        real_scores, fake_scores = (task.network.discriminator(x, condition) for x in (batch["input"], fake))
    discriminator = ((real_scores - 1).square().mean() + fake_scores.square().mean()) / 2
    generator = (fake_scores - 1).square().mean() / 2
    a, b = ((images.flatten(1) + 1) / 2 for images in (batch["input"], fake))
    spread = (b - b.mean(0)).square().mean().sqrt() / (a - a.mean(0)).square().mean().sqrt()
    assert scores == pytest.approx(
        {
            "val/loss": (discriminator + generator).item(),
            "val/discriminator_loss": discriminator.item(),
            "val/generator_loss": generator.item(),
            "val/sliced_wasserstein": sliced_wasserstein(a, b).item(),
            "val/spread": spread.item(),
        },
        rel=1e-4,
    )


def test_label_smoothing_is_the_discriminators_alone() -> None:
    plain, smooth = make(Tiny()).eval(), make(Tiny(), label_smoothing=0.2).eval()
    batch = {"input": torch.rand(5, 1, 4, 4), "target": torch.zeros(5).long(), "position": torch.arange(5)}
    (_, before), (_, after) = (task.loss(task.network, batch) for task in (plain, smooth))
    more = 0.2 * plain.network.discriminator(batch["input"]).mean()
    torch.testing.assert_close(after["losses"] - before["losses"], torch.stack((more, 0 * more)).detach())


def test_compared_pictures_are_bounded_and_the_same_whatever_the_batches() -> None:
    count = PICTURES + 500
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.rand(count, 1, 2, 2, generator=generator) for _ in range(2))
    results = []
    for size in (100, 700, count):
        scores = GanScores()
        for start in range(0, count, size):
            part = slice(start, start + size)
            scores.update(torch.zeros(2), real[part], fake[part], torch.arange(count)[part])
            assert sum(map(len, scores.real)) <= PICTURES
        results.append(scores.compute()["sliced_wasserstein"].item())
    assert results[0] == results[1] == results[2]
    chosen = uniform(key("compared pictures"), torch.arange(count), 1)[:, 0].argsort()[:PICTURES]
    assert chosen.float().mean() == pytest.approx(count / 2, rel=0.1)  # from all over the split
    wanted = sliced_wasserstein(real[chosen].flatten(1), fake[chosen].flatten(1)).item()
    assert results[0] == pytest.approx(wanted, rel=1e-9)


def test_collapse_shows_in_distance_and_spread() -> None:
    generator = torch.Generator().manual_seed(0)
    modes = torch.rand(10, 1, 4, 4, generator=generator)
    real = modes[torch.randint(0, 10, (600,), generator=generator)]
    found = {}
    for name, count in {"all": 10, "three": 3, "one": 1}.items():
        scores = GanScores()
        scores.update(
            torch.zeros(2), real, modes[torch.randint(0, count, (600,), generator=generator)], torch.arange(600)
        )
        found[name] = scores.compute()
    distances, spreads = ([found[n][score] for n in found] for score in ("sliced_wasserstein", "spread"))
    assert distances[0] < distances[1] / 3 < distances[2]
    assert spreads[0] == pytest.approx(1, abs=0.05)
    assert spreads[2] < 1e-3


def test_the_average_is_evaluated_with_the_current_statistics_and_so_it_is_from_a_checkpoint(tmp_path) -> None:
    task = fit(make(Tiny(), settings(ema_decay=0.9)), tmp_path, epochs=2)
    state = task.state_dict()
    assert {name.rpartition(".")[0] for name in state if name.startswith("ema.")} == {
        "ema.generator.first",
        "ema.generator.norm",
        "ema.generator.last",
    }
    network = task.evaluated_network
    assert network.discriminator is task.network.discriminator
    assert network.generator is task.engine.average
    noise = torch.randn(4, LATENT)
    task.eval()
    torch.testing.assert_close(network(noise), task.network.discriminator(task.engine.average(noise)))
    assert torch.equal(network.generator.norm.running_mean, task.network.generator.norm.running_mean)
    assert not torch.equal(network.generator.first.weight, task.network.generator.first.weight)

    bare = make(Tiny())
    bare.network.load_state_dict(evaluated_weights(state))
    assert bare.engine is None
    assert evaluated(bare) == evaluated(task)
    numbers = torch.arange(3)
    assert torch.equal(bare.sample(numbers, seed=1), task.sample(numbers, seed=1))


@pytest.mark.parametrize("conditional", [False, True])
def test_samples_are_functions_of_seed_number_and_class(conditional: bool) -> None:
    task = make(Tiny(conditional=conditional)).eval()
    numbers = torch.arange(7)
    before = torch.get_rng_state()
    pictures = task.sample(numbers, seed=3, condition=task.classes(numbers))
    assert torch.equal(before, torch.get_rng_state())
    assert pictures.shape == (7, *task.shape)
    assert 0 <= pictures.min() < pictures.max() <= 1
    assert not pictures.requires_grad
    part = torch.tensor([5, 2])
    torch.testing.assert_close(task.sample(part, seed=3, condition=task.classes(part)), pictures[part])
    assert not torch.allclose(task.sample(numbers, seed=4, condition=task.classes(numbers)), pictures)
    latents = task.latents(numbers, seed=3)
    assert latents.shape == (7, LATENT)
    assert torch.equal(task.decode(latents, task.classes(numbers)), pictures)
    raw = task.network.generator(latents, task.classes(numbers))
    torch.testing.assert_close(pictures, (raw.detach() + 1) / 2)


def test_inputs_are_those_of_the_network_on_meta_too() -> None:
    for conditional in (False, True):
        task = make(Tiny(conditional=conditional)).eval()
        batch = {"input": torch.zeros(2, 1, 4, 4), "target": torch.zeros(2).long(), "position": torch.arange(2)}
        assert task.network(*task.inputs(batch)).shape == (2,)
        loss, _ = task.loss(task.network, batch)
        assert loss.ndim == 0
        meta = {name: value.to("meta") for name, value in batch.items()}
        assert task.inputs(meta)[0].shape == (2, LATENT)


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("loss", "entropy"),
        ("n_critic", 0),
        ("gradient_penalty", -1.0),
        ("gradient_penalty", math.nan),
        ("clip_weights", 0.0),
        ("discriminator_lr", 0.0),
        ("label_smoothing", 0.5),
    ],
)
def test_arguments_out_of_range_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}={value}: must be"):
        make(Tiny(), **{name: value})


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match=r"clip_weights=0.01: must be null"):
        make(Tiny(), clip_weights=0.01, gradient_penalty=10.0)
    network = Tiny()
    network.discriminator.last = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 1))
    with pytest.raises(ValueError, match=r"gradient_penalty=10.0: must be 0 with batch normalisation in the disc"):
        make(network, gradient_penalty=10.0)
    network.discriminator.last = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 1))
    with pytest.raises(ValueError, match=r"clip_weights=0.01: must be null with spectral norm"):
        make(network, clip_weights=0.01)
    with pytest.raises(ValueError, match=r"model.conditional=true: must be false here, as this data has no classes"):
        Gan(Tiny(conditional=True), facts={**FACTS, "num_classes": None})
    with pytest.raises(ValueError, match=r"label_smoothing=0.1: must be 0"):
        make(Tiny(), loss="hinge", label_smoothing=0.1)
    with pytest.raises(ValueError, match=r"data.mean=\[0.0\]: must be \[0.5\]"):
        Gan(Tiny(), facts={**FACTS, "mean": [0.0], "std": [1.0]})
