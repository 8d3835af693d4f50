"""Mixup and cutmix: shares, labels and pixels agree, and the seed decides everything."""

import pytest
import torch
from torch import Tensor

from zoo.mixing import mix

TARGET = torch.tensor([0, 1, 2, 0, 1, 2])
INPUT = torch.arange(6.0).reshape(6, 1, 1, 1).expand(6, 2, 12, 10).clone()  # every pixel says which example it is of


def draw(seed: int, input: Tensor = INPUT, *, mixup_alpha: float = 0.0, cutmix_alpha: float = 0.0):
    return mix(input, TARGET, num_classes=3, mixup_alpha=mixup_alpha, cutmix_alpha=cutmix_alpha, seed=seed)


def share_of(labels: Tensor) -> float:
    """The share of the example itself, which every row must agree on."""
    own = labels[torch.arange(6), TARGET]
    assert torch.allclose(own, own[0].expand(6))
    partner = labels[torch.arange(6), TARGET.roll(1)]
    assert torch.allclose(own + partner, torch.ones(6))
    return own[0].item()


@pytest.mark.parametrize("seed", range(5))
def test_mixup_mixes_inputs_and_labels_by_one_share(seed: int) -> None:
    mixed, labels = draw(seed, mixup_alpha=0.4)
    share = share_of(labels)
    torch.testing.assert_close(mixed, share * INPUT + (1 - share) * INPUT.roll(1, 0))


@pytest.mark.parametrize("seed", range(20))
def test_cutmix_pastes_a_box_whose_area_is_the_share(seed: int) -> None:
    mixed, labels = draw(seed, cutmix_alpha=1.0)
    pasted = mixed != INPUT
    assert torch.equal(mixed[pasted], INPUT.roll(1, 0)[pasted])
    assert (pasted == pasted[:1, :1]).all()  # the same place in every example and channel
    box = pasted[0, 0]
    rows, columns = box.any(1), box.any(0)
    assert torch.equal(box, rows[:, None] & columns)
    assert (rows.int().diff() != 0).sum() <= 2  # in one piece
    assert share_of(labels) == pytest.approx(1 - box.float().mean().item(), abs=1e-6)


def test_shares_are_beta_distributed() -> None:
    for alpha in (0.2, 1.0, 4.0):
        shares = torch.tensor([share_of(draw(seed, mixup_alpha=alpha)[1]) for seed in range(600)])
        assert shares.mean() == pytest.approx(0.5, abs=0.05)
        assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.15)


def test_cutmix_boxes_have_the_area_and_the_place_of_the_paper() -> None:
    input = torch.arange(6.0).reshape(6, 1, 1, 1).expand(6, 1, 32, 32).clone()
    boxes = torch.stack([draw(seed, input, cutmix_alpha=1.0)[0][0, 0] != 0 for seed in range(800)]).float()
    # λ uniform: a box of side √(1 − λ) around a uniform centre covers, cut at the border, (s − s²/4)² on average
    side = (1 - torch.rand(200_000, generator=torch.Generator().manual_seed(0))).sqrt()
    assert boxes.mean() == pytest.approx((side - side**2 / 4).square().mean().item(), abs=0.02)
    covered = boxes.mean(0)
    assert 0 < covered[0, 0] < covered[16, 16]
    assert covered == pytest.approx(covered.flip(0, 1), abs=0.09)


def test_one_of_the_two_each_batch_with_probability_a_half() -> None:
    mixed = [draw(seed, mixup_alpha=1.0, cutmix_alpha=1.0)[0] for seed in range(400)]
    pasted = sum(torch.equal(batch, batch.round()) for batch in mixed)
    assert 160 < pasted < 240


def test_the_seed_decides_and_nothing_else_is_touched() -> None:
    before, kept = torch.get_rng_state(), INPUT.clone()
    for arguments in ({"mixup_alpha": 0.5}, {"cutmix_alpha": 0.5}):
        first, again, other = (draw(seed, **arguments)[0] for seed in (7, 7, 8))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(INPUT, kept)


def test_tables_can_be_mixed_up_but_not_cut() -> None:
    table = torch.randn(6, 4)
    mixed, labels = draw(0, table, mixup_alpha=1.0)
    share = share_of(labels)
    torch.testing.assert_close(mixed, share * table + (1 - share) * table.roll(1, 0))
    with pytest.raises(ValueError, match=r"cutmix_alpha=1.0: must be 0, as cutmix needs images"):
        draw(0, table, cutmix_alpha=1.0)


def test_off_gives_the_input_and_one_hot_labels() -> None:
    mixed, labels = draw(0)
    assert torch.equal(mixed, INPUT)
    assert labels.argmax(1).tolist() == TARGET.tolist()
    assert labels.sum() == 6


@pytest.mark.parametrize("argument", ["mixup_alpha", "cutmix_alpha"])
def test_negative_alpha_is_refused(argument: str) -> None:
    with pytest.raises(ValueError, match=f"{argument}=-1: must be 0"):
        draw(0, **{argument: -1})
