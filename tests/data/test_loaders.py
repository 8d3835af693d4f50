"""Loaders: the same batches with and without workers, from any place, in any number of processes."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from zoo.data.loaders import Batch, Loader, PositionSampler
from zoo.data.module import DataModule
from zoo.data.synthetic import Synthetic

AUGMENT = {"shift": 2, "flip": 0.5, "rotation": 10.0, "erase": 0.5, "noise": 0.1}


def synthetic(**changes: Any) -> Synthetic:
    small: dict[str, Any] = {"image_size": 9, "train_size": 100, "batch_size": 7, "seed": 3, "augment": AUGMENT}
    data = Synthetic(**small | changes)
    data.setup()
    return data


def equal(first: Batch, second: Batch) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def epoch(loader: Loader, number: int) -> list[Batch]:
    loader.sampler.set_epoch(number)
    return list(loader)


def examples(batches: list[Batch]) -> Batch:
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


@pytest.fixture(scope="module")
def with_workers() -> Loader:
    return synthetic(num_workers=2).train_dataloader()


def test_workers_give_the_same_batches_in_the_same_order(with_workers: Loader) -> None:
    here = synthetic().train_dataloader()
    for number in (0, 1, 5):
        expected, got = epoch(here, number), epoch(with_workers, number)
        assert len(expected) == len(got) == len(here) == 15
        assert all(equal(a, b) for a, b in zip(expected, got, strict=True))


def test_a_loader_continues_in_the_middle_of_an_epoch(with_workers: Loader) -> None:
    """What a killed run does: the state of one loader is loaded into another, before iteration and set_epoch."""
    whole = [*epoch(synthetic().train_dataloader(), 4), *epoch(synthetic().train_dataloader(), 5)]
    for fresh in (synthetic().train_dataloader(), with_workers):
        begun = synthetic().train_dataloader()
        begun.sampler.set_epoch(4)
        batches = iter(begun)
        for _ in range(6):
            next(batches)
        assert begun.state_dict() == {"epoch": 4, "batch": 6}
        fresh.load_state_dict(begun.state_dict())
        assert fresh.state_dict() == begun.state_dict()
        rest = []
        fresh.sampler.set_epoch(4)
        for number, batch in enumerate(fresh, start=7):
            rest.append(batch)
            assert fresh.state_dict() == {"epoch": 4, "batch": number}
        rest += epoch(fresh, 5)
        assert all(equal(a, b) for a, b in zip(whole[6:], rest, strict=True))
        assert len(epoch(fresh, 4)) == 15  # the place to continue from holds once


def test_a_loader_saved_at_the_end_of_an_epoch_goes_on_with_the_next() -> None:
    done, fresh = synthetic().train_dataloader(), synthetic().train_dataloader()
    epoch(done, 2)
    fresh.load_state_dict(done.state_dict())
    assert epoch(fresh, 2) == []
    assert len(epoch(fresh, 3)) == 15


def test_an_epoch_broken_off_leaves_the_next_one_whole() -> None:
    for workers in (0, 1):
        loader = synthetic(num_workers=workers).train_dataloader()
        for batch in loader:
            assert len(batch["input"]) == 7
            break
        assert len(epoch(loader, 1)) == 15


@pytest.mark.parametrize("size", [1, 7, 64])
def test_an_example_does_not_depend_on_the_batch_size(size: int) -> None:
    """The same pixels for each position; a training loader leaves out batches of one, so those come from the split."""
    whole = examples(epoch(synthetic(batch_size=100).train_dataloader(), 2))
    if size == 1:
        split = synthetic().splits["train"]
        plans = list(epoch_plans(PositionSampler(torch.arange(100), 100, seed=3, shuffle=True), 2))
        _, positions, indices = plans[0]
        parts = examples([split.batch(2, positions[i : i + 1], indices[i : i + 1]) for i in range(100)])
    else:
        parts = examples(epoch(synthetic(batch_size=size).train_dataloader(), 2))
    assert equal(whole, parts)


def epoch_plans(sampler: PositionSampler, number: int) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    sampler.set_epoch(number)
    return iter(sampler)


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_together_see_what_one_would(world_size: int) -> None:
    split = synthetic().splits["train"]
    one = list(epoch_plans(PositionSampler(torch.arange(100), 12, seed=1, shuffle=True), 3))
    ranks = [
        list(
            epoch_plans(PositionSampler(torch.arange(100), 12, seed=1, shuffle=True, rank=r, world_size=world_size), 3)
        )
        for r in range(world_size)
    ]
    for number, (_, positions, indices) in enumerate(one):
        mine = [plans[number] for plans in ranks]
        together = torch.cat([plan[1] for plan in mine])
        order = together.argsort()
        assert torch.equal(together[order], positions)
        assert torch.equal(torch.cat([plan[2] for plan in mine])[order], indices)
        pixels = torch.cat([split.batch(*plan)["input"] for plan in mine])[order]
        assert torch.equal(pixels, split.batch(3, positions, indices)["input"])
        assert min(len(plan[1]) for plan in mine) >= 1


def test_training_visits_every_example_once_in_a_new_order_each_epoch() -> None:
    sampler = PositionSampler(torch.arange(100), 7, seed=0, shuffle=True)
    orders = [torch.cat([plan[2] for plan in epoch_plans(sampler, number)]) for number in (0, 1)]
    for order in orders:
        assert torch.equal(order.sort().values, torch.arange(100))
    assert not torch.equal(*orders)
    other = torch.cat([plan[2] for plan in epoch_plans(PositionSampler(torch.arange(100), 7, seed=1, shuffle=True), 0)])
    assert not torch.equal(orders[0], other)


def test_evaluation_keeps_the_order_and_the_index_is_the_position() -> None:
    batches = list(synthetic(eval_batch_size=30).val_dataloader())
    assert [len(batch["target"]) for batch in batches] == [30, 30, 4]
    assert torch.equal(examples(batches)["position"], torch.arange(64))
    assert torch.equal(examples(batches)["target"], torch.arange(100, 164) % 10)


@pytest.mark.parametrize(("size", "shuffle", "batches"), [(21, True, 2), (22, True, 3), (21, False, 3), (20, True, 2)])
def test_a_training_batch_of_a_single_example_is_left_out(size: int, shuffle: bool, batches: int) -> None:
    sampler = PositionSampler(torch.arange(size), 10, shuffle=shuffle)
    assert len(sampler) == len(list(sampler)) == batches


@pytest.mark.parametrize(("size", "batch_size", "processes"), [*((n, 10, 2) for n in (2, 30, 31, 33)), (7, 3, 3)])
def test_in_evaluation_each_example_counts_once_and_no_batch_is_empty(
    size: int, batch_size: int, processes: int
) -> None:
    indices = torch.arange(size) + 100
    ranks = [list(PositionSampler(indices, batch_size, rank=rank, world_size=processes)) for rank in range(processes)]
    assert {len(plans) for plans in ranks} == {len(PositionSampler(indices, batch_size, world_size=processes))}
    plans = [plan for plans in ranks for plan in plans]
    assert min(len(positions) for _, positions, _ in plans) >= 1
    assert torch.equal(torch.cat([chosen for _, _, chosen in plans]).sort().values, indices)


@pytest.mark.parametrize(("size", "batch_size"), [(2, 10), (4, 2)])
def test_each_process_evaluates_all_of_what_cannot_be_shared(size: int, batch_size: int) -> None:
    indices = torch.arange(size)
    for rank in range(3):
        sampler = PositionSampler(indices, batch_size, rank=rank, world_size=3)
        assert sampler.world_size == 1
        assert torch.equal(torch.cat([chosen for _, _, chosen in sampler]), indices)


def test_iterating_does_not_touch_the_global_generator() -> None:
    for workers in (0, 1):
        loader = synthetic(num_workers=workers).train_dataloader()
        before = torch.get_rng_state()
        epoch(loader, 0)
        assert torch.equal(torch.get_rng_state(), before)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_size=0"):
        PositionSampler(torch.arange(10), 0)
    with pytest.raises(ValueError, match=r"batch_size=2: .* 3$"):
        PositionSampler(torch.arange(10), 2, shuffle=True, world_size=3)
    for name, value in (("batch_size", 0), ("eval_batch_size", 0), ("num_workers", -1)):
        with pytest.raises(ValueError, match=f"{name}={value}"):
            Synthetic(**{name: value})  # type: ignore[arg-type]
    data = synthetic()
    with pytest.raises(ValueError, match="num_workers=-1"):
        Loader(data.splits["train"], PositionSampler(torch.arange(100), 7), num_workers=-1)


def test_setup_reads_once() -> None:
    class Counted(DataModule):
        reads = 0

        def read(self) -> None:
            self.reads += 1
            self.splits = synthetic().splits

    data = Counted(batch_size=5)
    for stage in ("fit", "test", None):
        data.setup(stage)
    assert data.reads == 1
