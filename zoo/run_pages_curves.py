"""The curves of a run, from its metrics.csv. Lines that are none are left out, with a note."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Json = dict[str, Any]
MOST_POINTS = 400  # of a curve; of longer ones every n-th
LONGEST = 120  # characters of a name


def read_curves(file: Path, seconds_at: Mapping[int, float], notes: list[str]) -> list[Json]:
    """The metrics of a run, those together that were logged at the same steps.

    Each group is {step, epoch, seconds, values: {name: […]}, every}; `seconds_at` is the clock of the steps.
    """
    points: dict[str, tuple[list[int], list[int], list[float | None]]] = {}
    bad, first_bad = 0, 0
    try:
        with file.open(newline="", encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith("\n"):  # being written, or of a run that was killed: half a number is another one
                    continue
                try:
                    step, epoch, name, value = next(csv.reader([line]))
                    row = int(step), int(epoch), float(value)
                except (ValueError, StopIteration, csv.Error):
                    if number > 1:  # the heading is none
                        bad, first_bad = bad + 1, first_bad or number
                    continue
                steps, epochs, values = points.setdefault(name, ([], [], []))
                steps.append(row[0])
                epochs.append(row[1])
                values.append(single(row[2]))
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            notes.append(f"metrics.csv is damaged: {(error.strerror or 'it cannot be read').lower()}.")
    if bad:
        notes.append(f"metrics.csv is damaged: {bad} of its lines were left out, the first is line {first_bad}.")
    groups: dict[tuple[tuple[int, ...], tuple[int, ...]], dict[str, list[float | None]]] = {}
    for name, (steps, epochs, values) in points.items():
        groups.setdefault((tuple(steps), tuple(epochs)), {})[name[:LONGEST]] = values
    return [thinned(*places, of_group, seconds_at) for places, of_group in groups.items()]


def single(value: float) -> float | None:
    """A value with the digits that a 32-bit number has, as metrics are; None where it is no number."""
    if not math.isfinite(value):
        return None
    return float(str(np.float32(value))) if 1e-37 < abs(value) < 1e38 else value


def thinned(
    steps: Sequence[int],
    epochs: Sequence[int],
    values: Mapping[str, Sequence[float | None]],
    seconds_at: Mapping[int, float],
) -> Json:
    """A group of curves, of at most `MOST_POINTS` of its points, the first and the last among them."""
    every = max(1, math.ceil(len(steps) / MOST_POINTS))
    kept = sorted({*range(0, len(steps), every), len(steps) - 1})
    seconds = [round(seconds_at[steps[i]], 1) if steps[i] in seconds_at else None for i in kept]
    return {
        "step": [steps[i] for i in kept],
        "epoch": [epochs[i] for i in kept],
        "seconds": seconds if any(second is not None for second in seconds) else None,
        "values": {name: [of_name[i] for i in kept] for name, of_name in values.items()},
        "every": every,
    }
