"""What `results.json` holds: a row for each experiment, with what was promised and every run, and what proving took.

A row: `expect` as it was, `paper`, `mean`, `std` (of the sample; None for one run), `largest_difference` between
training and evaluation, and `runs`, each with its seed, its `inputs` (zoo/inputs.py), its scores, and what its folder
says of it. A judged run also has `judged_by`, the hash of what its judgement depends on.
"""

import itertools
import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.layout import CONFIGS, options

Json = dict[str, Any]
SOURCE = re.compile(
    r"\b[A-Z][^\W\d]+(?:(?:, | & )[A-Z][^\W\d]+)*(?: et al\.)? (?:19|20)\d\d\b(?:, (?:arXiv[ :])?\d{4}\.\d{4,5})?"
)


def row(expect: Json, runs: Sequence[Json], *, paper: str | None) -> Json:
    """One experiment's row, its runs in the order of their seeds."""
    ordered = sorted(runs, key=lambda run: run["seed"])
    scores = [run["scores"][expect["metric"]] for run in ordered]
    differences = [abs(run["scores"][name] - value) for run in ordered for name, value in run["evaluated"].items()]
    return {
        "expect": expect,
        "paper": paper,
        "mean": statistics.fmean(scores),
        "std": statistics.stdev(scores) if len(scores) > 1 else None,
        "largest_difference": max(differences),
        "runs": ordered,
    }


def lower_is_better(expect: Json) -> bool:
    return expect["goal"] < expect["floor"]


def reaches(row: Json, bar: str) -> bool:
    """Whether the mean meets `floor` or `goal`."""
    expect = row["expect"]
    return row["mean"] <= expect[bar] if lower_is_better(expect) else row["mean"] >= expect[bar]


def passes(row: Json) -> bool:
    return reaches(row, "floor") and row["largest_difference"] == 0


def mean_and_std(row: Json) -> str:
    decimals = 4 if abs(row["mean"]) < 100 else 1
    return f"{row['mean']:.{decimals}f}" + ("" if row["std"] is None else f" ± {row['std']:.{decimals}f}")


def verdict(row: Json) -> str:
    expect = row["expect"]
    bars = [f"{bar} {expect[bar]} {'met' if reaches(row, bar) else 'missed'}" for bar in ("floor", "goal")]
    words = [f"{expect['metric']} {mean_and_std(row)} (n = {len(row['runs'])})", *bars]
    if row["largest_difference"]:
        words.append(f"evaluation differs from training by {row['largest_difference']:.2g}")
    return ", ".join(words)


def read_results(file: Path) -> Json:
    """`{"rows": {experiment: row}, "calls": {command: what it took}}`, both empty where there is no file."""
    if not file.exists():
        return {"rows": {}, "calls": {}}
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
        return {"rows": dict(results["rows"]), "calls": dict(results["calls"])}
    except (ValueError, LookupError, TypeError) as error:
        raise ZooError(f"{file} is not what zoo prove writes: move it away, or name another with out=….md") from error


def paper_of(model: str | None) -> str | None:
    """The sources that the comment at the head of a model's config names: `He et al. 2015, 1512.03385`."""
    if model not in options()["model"]:
        return None
    lines = (CONFIGS / "model" / f"{model}.yaml").read_text(encoding="utf-8").splitlines()
    head = itertools.takewhile(lambda line: line.startswith("#"), lines)
    return "; ".join(SOURCE.findall(" ".join(line.lstrip("# ") for line in head))) or None
