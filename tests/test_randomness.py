"""Random numbers are functions of where they are used, right in distribution and independent of the batch."""

import math
import zlib

import torch

from zoo.randomness import key, normal, permutation, seed_layer_noise, uniform

M = (1 << 64) - 1


def splitmix64(state: int) -> int:
    """The published generator's output for one state, in Python's integers."""
    z = state & M
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & M
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & M
    return z ^ (z >> 31)


def test_the_mixing_is_splitmix64() -> None:
    # The first outputs of SplitMix64 seeded with 1234567, from the reference implementation's published test vector.
    state, first = 1234567, []
    for _ in range(3):
        state = (state + 0x9E3779B97F4A7C15) & M
        first.append(splitmix64(state))
    assert first == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    seed, draws = key(3, "stream"), 4
    got = uniform(seed, torch.tensor([0, 1, 70_000]), draws)
    base = splitmix64(seed)
    for row, position in enumerate((0, 1, 70_000)):
        for draw in range(draws):
            z = splitmix64((position * draws + draw) * 0x9E3779B97F4A7C15 + base)
            assert got[row, draw].item() == (z >> 40) * 2.0**-24


def test_key_is_fixed_and_depends_on_every_part_and_their_order() -> None:
    keys = [
        key(0),
        key(1),
        key(0, 0),
        key(0, "order", 1),
        key(0, "order", 2),
        key(1, "order", 0),
        key("order", 0, 1),
        key(-1),
    ]
    assert len(set(keys)) == len(keys)
    assert all(0 <= k < 1 << 63 for k in keys)
    state = 0
    for part in (7, zlib.crc32(b"order"), -1):
        state = splitmix64(state + 0x9E3779B97F4A7C15 + part)
    assert key(7, "order", -1) == state >> 1


def test_uniform_depends_on_the_position_alone() -> None:
    whole = uniform(5, torch.arange(100), 3)
    parts = torch.cat([uniform(5, torch.arange(start, min(start + 7, 100)), 3) for start in range(0, 100, 7)])
    assert torch.equal(whole, parts)
    assert whole.dtype == torch.float32
    assert not torch.equal(whole, uniform(6, torch.arange(100), 3))


def test_uniform_is_uniform_and_uncorrelated() -> None:
    u = uniform(key(1), torch.arange(50_000), 2).double()
    assert u.min() >= 0
    assert u.max() < 1
    counts = torch.histc(u, bins=100, min=0, max=1)
    chi2 = ((counts - 1000) ** 2 / 1000).sum()
    assert 60 < chi2 < 150  # 99 degrees of freedom: mean 99, standard deviation 14
    pairs = torch.stack([u[:, 0], u[:, 1], u[:, 0].roll(1), uniform(key(2), torch.arange(50_000), 2)[:, 0].double()])
    assert (torch.corrcoef(pairs) - torch.eye(4)).abs().max() < 4 / math.sqrt(50_000)


def test_normal_is_standard_and_depends_on_the_position_alone() -> None:
    z = normal(key(1), torch.arange(50_000), 2).double()
    assert abs(z.mean()) < 4 / math.sqrt(z.numel())
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / z.numel())
    assert abs((z**3).mean()) < 4 * math.sqrt(15 / z.numel())
    assert abs((z**4).mean() - 3) < 4 * math.sqrt(96 / z.numel())
    assert abs((z[:, 0] * z[:, 1]).mean()) < 4 / math.sqrt(50_000)
    assert torch.equal(normal(key(1), torch.arange(10, 20), 2).double(), z[10:20])


def test_permutation_is_one_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    order = permutation(key(0, "order", 0), 1000)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(order.sort().values, torch.arange(1000))
    assert torch.equal(order, permutation(key(0, "order", 0), 1000))
    assert not torch.equal(order, permutation(key(0, "order", 1), 1000))


def test_layer_noise_is_what_manual_seed_would_give() -> None:
    torch.manual_seed(17)
    expected = torch.rand(5)
    seed_layer_noise(17)
    assert torch.equal(torch.rand(5), expected)
