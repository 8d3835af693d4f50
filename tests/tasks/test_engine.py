"""The optimisation engine against loops written by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo.data.arrays import ArraySplit
from zoo.data.module import DataModule
from zoo.errors import ZooError
from zoo.run import make_trainer, skip_unused_hooks
from zoo.schedules import Constant, Cosine
from zoo.tasks.classification import Classification
from zoo.tasks.engine import Optimization, parameter_groups

# Lightning says this once in a process, of the hook that zoo/tasks/base.py overrides on purpose
pytestmark = pytest.mark.filterwarnings("ignore:You have overridden .transfer_batch_to_device.:UserWarning")

SIZE, BATCH = 72, 16  # five batches, the last of eight


class Vectors(DataModule):
    def read(self) -> None:
        generator = torch.Generator().manual_seed(3)
        inputs, targets = torch.randn(SIZE, 6, generator=generator), torch.randint(0, 3, (SIZE,), generator=generator)
        self.splits = {"train": ArraySplit(inputs, targets), "val": ArraySplit(inputs[:10], targets[:10])}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def fit(
    net: nn.Module, optimization: Optimization, epochs: int = 2, tmp_path=None, kind=Classification
) -> Classification:
    data = Vectors(batch_size=BATCH)
    task = kind(net, optimization=optimization, facts={"num_classes": 3})
    options = {"accelerator": "cpu", "max_epochs": epochs, "max_steps": optimization.max_steps}
    trainer = make_trainer(options, folder=tmp_path, logger=False, callbacks=[])
    skip_unused_hooks(trainer, task)
    trainer.fit(task, datamodule=data)
    return task


def batches(epochs: int):
    """The same batches, from a loader of our own."""
    data = Vectors(batch_size=BATCH)
    data.setup()
    loader = data.loader("train", training=True)
    for epoch in range(epochs):
        loader.sampler.set_epoch(epoch)
        yield list(loader)


def assert_same(a: nn.Module, b: nn.Module) -> None:
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


def sgd(groups):
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.01)


def test_plain_steps_equal_a_loop_by_hand_with_torchs_cosine(tmp_path) -> None:
    ours, theirs = network(), network()
    fit(ours, Optimization(optimizer=sgd, schedule=Cosine()), epochs=2, tmp_path=tmp_path)
    optimizer = sgd(theirs.parameters())
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    for epoch in batches(2):
        for batch in epoch:
            optimizer.zero_grad()
            F.cross_entropy(theirs(batch["input"]), batch["target"]).backward()
            optimizer.step()
            schedule.step()
    assert_same(ours, theirs)


def test_accumulation_averages_over_the_window_and_over_what_is_left(tmp_path) -> None:
    ours, theirs = network(), network()
    task = fit(ours, Optimization(optimizer=sgd, schedule=Constant(), accumulate=3), epochs=2, tmp_path=tmp_path)
    optimizer = sgd(theirs.parameters())
    for epoch in batches(2):
        for window in (epoch[:3], epoch[3:]):
            optimizer.zero_grad()
            sum(F.cross_entropy(theirs(b["input"]), b["target"]) / len(window) for b in window).backward()
            optimizer.step()
    assert task.engine.step_count == 4
    assert_same(ours, theirs)


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_clipping_and_penalty(algorithm: str, tmp_path) -> None:
    ours, theirs = network(), network()
    settings = Optimization(
        optimizer=sgd, schedule=Constant(), clip=0.05, clip_algorithm=algorithm, l1=0.02, l2=0.3, max_steps=3
    )
    fit(ours, settings, tmp_path=tmp_path)
    optimizer = sgd(theirs.parameters())
    for batch in next(batches(1))[:3]:
        optimizer.zero_grad()
        loss = F.cross_entropy(theirs(batch["input"]), batch["target"])
        for weight in (theirs[0].weight, theirs[2].weight):
            loss = loss + 0.02 * weight.abs().sum() + 0.15 * weight.square().sum()
        loss.backward()
        clip = nn.utils.clip_grad_norm_ if algorithm == "norm" else nn.utils.clip_grad_value_
        clip(theirs.parameters(), 0.05)
        optimizer.step()
    assert_same(ours, theirs)


def test_average_of_the_weights_follows_its_formula(tmp_path) -> None:
    ours = network()
    theirs, average = network(), network()
    task = fit(ours, Optimization(optimizer=sgd, schedule=Constant(), ema_decay=0.3), epochs=1, tmp_path=tmp_path)
    optimizer = sgd(theirs.parameters())
    for t, batch in enumerate(next(batches(1)), start=1):
        optimizer.zero_grad()
        F.cross_entropy(theirs(batch["input"]), batch["target"]).backward()
        optimizer.step()
        decay = min(0.3, (1 + t) / (10 + t))
        with torch.no_grad():
            for kept, new in zip(average.parameters(), theirs.parameters(), strict=True):
                kept.copy_(decay * kept + (1 - decay) * new)
    assert_same(task.ema, average)


def test_average_takes_the_current_batch_statistics() -> None:
    from zoo.tasks.engine import Engine

    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    engine = Engine(net, Optimization(optimizer=sgd, schedule=Constant(), ema_decay=0.9))
    net(torch.randn(8, 2))
    assert not torch.equal(net[1].running_mean, torch.zeros(2))
    assert torch.equal(engine.network_for_evaluation()[1].running_mean, net[1].running_mean)


def test_max_steps_counts_optimisation_steps_and_stops_in_mid_epoch(tmp_path) -> None:
    task = fit(network(), Optimization(optimizer=sgd, schedule=Constant(), max_steps=7), tmp_path=tmp_path)
    assert task.engine.step_count == task.trainer.global_step == 7


def test_weights_only_decay_leaves_biases_and_norms_alone() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
    decayed, free = parameter_groups(net, "weights")
    assert [p.ndim for p in decayed["params"]] == [4, 2]
    assert len(free["params"]) == 4
    assert free["weight_decay"] == 0.0
    assert len(parameter_groups(net, "all")) == 1


def test_a_loss_that_is_not_finite_stops_the_run_with_advice(tmp_path) -> None:
    net = network()
    net[0].weight.data.fill_(float("nan"))
    with pytest.raises(ZooError, match=r"loss became nan[\s\S]*optimizer\.lr"):
        fit(net, Optimization(optimizer=sgd, schedule=Constant()), tmp_path=tmp_path)


def test_the_step_and_the_tensor_of_a_divergence_are_named(tmp_path) -> None:
    """The weights are spoiled after two steps: the third step's loss is no number."""

    class Spoiled(Classification):
        def optimize(self, engine, batch, batch_idx, *, wants_norm):
            if engine.step_count == 2:
                self.network[0].bias.data[1] = float("nan")
            return super().optimize(engine, batch, batch_idx, wants_norm=wants_norm)

    told = r"became nan at step 3: 0\.weight and \d+ more hold no numbers any more; no checkpoint was written before"
    with pytest.raises(ZooError, match=told):
        fit(network(), Optimization(optimizer=sgd, schedule=Constant()), tmp_path=tmp_path, kind=Spoiled)


@pytest.mark.parametrize(
    ("name", "value"),
    [("accumulate", 0), ("clip", -1.0), ("clip_algorithm", "size"), ("ema_decay", 1.0), ("l1", -1.0), ("max_steps", 0)],
)
def test_settings_out_of_range_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=str(value)):
        Optimization(optimizer=sgd, schedule=Constant(), **{name: value})


def test_training_leaves_the_initial_copy_and_global_generator_out_of_play(tmp_path) -> None:
    """The same weights whatever was drawn from the global generator before."""
    first, second = network(), network()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    fit(first, Optimization(optimizer=sgd, schedule=Constant()), tmp_path=tmp_path / "first")
    torch.rand(17)
    fit(second, Optimization(optimizer=sgd, schedule=Constant()), tmp_path=tmp_path / "second")
    for p, q in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(p, q)
