"""What a benchmark is asked, what it answers, and the circumstances that belong to the answer."""

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
IDLE = 0.3  # load average of the last minute, for each core, from which on times are not to be trusted
Cell = str | float | int | None


@dataclass(frozen=True, kw_only=True)
class Options:
    """`rounds` replaces each part's own number of rounds; `quick` is for tests: tiny sizes, times without meaning.

    `data` is the folder that holds `FashionMNIST/raw/`; `peers` the folder with the clones of public projects, and
    `python` the interpreter that runs them.
    """

    rounds: int | None = None
    quick: bool = False
    data: Path = Path("downloads")
    peers: Path | None = None
    python: str = ""

    def repeat(self, usual: int) -> int:
        return 1 if self.quick else self.rounds or usual


@dataclass(frozen=True)
class Bar:
    """A promise and what was measured; `limit` is the most or, with `at_least`, the least that keeps it."""

    name: str
    measured: float | None  # None: could not be measured
    limit: float
    unit: str = ""
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


@dataclass
class Part:
    """A table, the bars it is held against, remarks, and curves to draw: `{name: {"x": […], "y": […], …}}`."""

    columns: Sequence[str]
    rows: list[list[Cell]] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    curves: dict[str, Any] = field(default_factory=dict)

    def add(self, *cells: Cell) -> None:
        """Add a row, and print it."""
        self.rows.append([float(f"{cell:.5g}") if isinstance(cell, float) else cell for cell in cells])
        print("  " + "  ".join(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in cells), flush=True)

    def hold(self, bar: Bar) -> None:
        self.bars.append(bar)

    def plain(self, about: dict[str, Any]) -> dict[str, Any]:
        """The part as JSON holds it."""
        bars = [{**asdict(bar), "met": bar.met} for bar in self.bars]
        return {"about": about, "columns": list(self.columns), "rows": self.rows, "bars": bars} | {
            "notes": self.notes,
            "curves": self.curves,
        }


def circumstances(options: Options) -> dict[str, Any]:
    """Machine, versions, commit and how busy the machine is; asked before the first part, as parts load it and write
    into the checkout."""
    from zoo.report import versions

    model = platform.processor() or platform.machine()
    about = Path("/proc/cpuinfo")
    if about.exists():
        names = [line.split(":", 1)[1].strip() for line in about.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return {
        "machine": model,
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "versions": versions(),
        "commit": commit.stdout.strip() or None,
        "load_average": round(os.getloadavg()[0], 2),
        "rounds": options.rounds,
    }


def is_busy(about: dict[str, Any]) -> bool:
    return about["load_average"] > IDLE * about["cores"]


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def alternate(*calls: Callable[[], float], rounds: int) -> list[list[float]]:
    """What each of the calls returns in each round; in every round all are called, in turn."""
    results = [[call() for call in calls] for _ in range(rounds)]
    return [list(column) for column in zip(*results, strict=True)]


def ratio(first: Sequence[float], second: Sequence[float]) -> float:
    """The median over rounds of first / second."""
    return statistics.median(a / b for a, b in zip(first, second, strict=True))
