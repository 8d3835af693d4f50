"""Randomness as a function of position.

No generator is carried from step to step and none is stored. Every random number of a run is computed from where it is
used: (seed, stream, epoch, position). A run that is killed and continued therefore draws the same numbers, whatever the
number of workers, of processes, or the size of a batch.

The generator is SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", OOPSLA) used as
a hash of a counter, in vectorised int64 arithmetic: the same bits on every device.
"""

import math
import zlib

import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio: SplitMix64's increment


def _signed(value: int) -> int:
    """The int64 with the same 64 bits, since torch has no full uint64 arithmetic."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _mix_int(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def key(*parts: int | str) -> int:
    """Hash integers and names to one 63-bit seed, the same in every process and Python version."""
    state = 0
    for part in parts:
        number = zlib.crc32(part.encode()) if isinstance(part, str) else part
        state = _mix_int((state + _GOLDEN + (number & _MASK)) & _MASK)
    return state >> 1


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch's is arithmetic)."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def uniform(seed: int, positions: Tensor, draws: int) -> Tensor:
    """Uniform numbers in [0, 1) for every position: float32, (B, draws), from `seed` = `key(...)` and int64 (B,)."""
    counter = positions[:, None] * draws + torch.arange(draws, device=positions.device)
    z = counter * _signed(_GOLDEN) + _signed(_mix_int(seed))
    z = (z ^ _shift(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shift(z, 27)) * _signed(0x94D049BB133111EB)
    z = z ^ _shift(z, 31)
    return _shift(z, 40).to(torch.float32) * 2.0**-24


def normal(seed: int, positions: Tensor, draws: int) -> Tensor:
    """Standard normal numbers for every position: float32, (B, draws), by the Box–Muller transform."""
    u = uniform(seed, positions, 2 * draws)
    radius = torch.sqrt(-2.0 * torch.log1p(-u[:, :draws]))
    return radius * torch.cos(2.0 * math.pi * u[:, draws:])


def permutation(seed: int, n: int) -> Tensor:
    """A random order of 0…n-1, from a private generator: the global one is not touched."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def seed_layer_noise(seed: int) -> None:
    """Seed what layers draw from (dropout) on every device, without `torch.manual_seed`'s 70 µs of bookkeeping."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(seed)
