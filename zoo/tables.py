"""`python -m zoo.tables`: RESULTS.md from results.json, and PARITY.md from parity.json; each from that file alone.

`zoo prove` writes the first one itself. The second follows `python -m pytest tests … --write-parity`.
"""

import json
import math
import re
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from zoo.results import Json, lower_is_better, mean_and_std, reaches

RESULTS = """\
# Results

Written by `python -m zoo prove` from `results.json`. Mean ± sample standard deviation over n seeds of training, never
the best. ↓: lower is better. Every score is computed a second time from its checkpoint, in another process, and must be
the same to the last digit. Minutes: wall time of one run, from start to score. Multiply-adds: those of convolutions,
linear and recurrent layers, for one example. Where each row comes from: [below](#provenance).
"""
JUDGED = """\
## Judged

2,000 samples, three times for each seed of training, beside the test split, in the features of a classifier
of this zoo: not the FID of the literature. Confident: the share of samples it is 90 % sure of. Classes: the
shares times the number of classes. Nearest: the median distance to a training picture. Mean ± standard
deviation over the seeds of training; of the baselines, in italics, over their three sets of pictures.
"""
PROVENANCE = """\
## Provenance

Inputs: for each seed the hash of config, code and data that it was trained with; `python -m zoo prove --changed` runs
what has another one today. Started: the first of the runs. Hardware: threads of cores. Versions: the list below.
"""
PARITY = """\
# Parity

Every network held against an independent implementation that has the same weights: differences in double precision.
Outputs and loss: the largest absolute one. Gradients, and weights after one step of SGD: the largest one of a tensor,
over that tensor's largest entry. Asserted by the tests at {output:g} and {gradient:g}. — : not measured there.

Written by `python -m zoo.tables` from `parity.json`, which the same tests write with `--write-parity`: docs/models.md.
"""
OUTPUT_BAR, GRADIENT_BAR = 1e-9, 1e-7  # those of tests/parity.py
ARXIV = re.compile(r"([^;]+?), (?:arXiv[ :])?(\d{4}\.\d{4,5})")
Row = Sequence[str]


def main() -> int:
    """Write both tables of the repository in the current folder."""
    for source, table in ((Path("results.json"), results_table), (Path("parity.json"), parity_table)):
        if not source.exists():
            print(f"There is no {source} here: call this where the repository lies.", file=sys.stderr)
            return 2
        out = source.with_name(source.stem.upper() + ".md")
        out.write_text(table(json.loads(source.read_text(encoding="utf-8"))), encoding="utf-8")
        print(f"wrote {out}")
    return 0


def markdown(head: Row, rows: Iterable[Row], numeric: str) -> list[str]:
    """A table; `numeric` has an r for each column that stands to the right, else an l."""
    rule = "|" + "|".join("---:" if side == "r" else "---" for side in numeric) + "|"
    return ["| " + " | ".join(head) + " |", rule, *("| " + " | ".join(row) + " |" for row in rows)]


# Results --------------------------------------------------------------------------------------------------------------


def results_table(results: Json) -> str:
    """RESULTS.md, a function of results.json alone."""
    rows: dict[str, Json] = results["rows"]
    head: Row = (
        "experiment",
        "model, form",
        "paper",
        "parameters",
        "multiply-adds",
        "data: train / val / test",
        "score",
    )
    head = (*head, "mean ± std", "n", "baseline", "floor", "goal", "met", "minutes")
    lines = [RESULTS, *markdown(head, (result_cells(name, row) for name, row in rows.items()), "lllrrllrrlrrlr")]
    if judged := {name: row for name, row in rows.items() if row["expect"].get("judge")}:
        lines += ["", JUDGED, *judged_table(judged)]
    lines += ["", PROVENANCE, *provenance_table(rows)]
    if results["calls"]:
        lines += ["", "## Wall time", ""]
        lines += [
            f"- `{command}`: {call['trained']} of {call['runs']} runs trained in {call['seconds'] / 60:.0f} minutes, "
            f"{call['jobs']} at a time, {call['cores']} cores ({call['started']})."
            for command, call in results["calls"].items()
        ]
    return "\n".join(lines) + "\n"


def result_cells(name: str, row: Json) -> Row:
    expect, run = row["expect"], row["runs"][-1]
    counts, choices = run["counts"], run["about"]["choices"]
    seconds = [r["seconds"] for r in row["runs"] if r["seconds"] is not None]
    sizes = " / ".join(f"{counts['splits'].get(split, 0):,}" for split in ("train", "val", "test"))
    met = "goal" if reaches(row, "goal") else "floor" if reaches(row, "floor") else "**no**"
    return (
        name,
        choices.get("model", "—") + (f", {counts['form']}" if counts.get("form") else ""),
        ARXIV.sub(r"[\1](https://arxiv.org/abs/\2)", row["paper"] or "—"),
        f"{counts['parameters']:,}",
        f"{counts['multiply_adds']:,}",
        f"{choices['data']}: {sizes}",
        expect["metric"] + (" ↓" if lower_is_better(expect) else ""),
        mean_and_std(row),
        str(len(row["runs"])),
        str(expect["baseline"]),
        str(expect["floor"]),
        str(expect["goal"]),
        met if row["largest_difference"] == 0 else f"**not reproduced: {row['largest_difference']:.2g}**",
        f"{statistics.fmean(seconds) / 60:.1f}" if seconds else "—",
    )


def provenance_table(rows: dict[str, Json]) -> list[str]:
    """Where each row comes from, and below it the versions of packages that the letters stand for."""
    letters: dict[str, str] = {}
    cells: list[Row] = []
    for name, row in rows.items():
        abouts = [run["about"] for run in row["runs"]]
        versions = [", ".join(f"{package} {number}" for package, number in a["versions"].items()) for a in abouts]
        for version in versions:
            letters.setdefault(version, chr(ord("A") + len(letters)))
        cells.append(
            (
                name,
                once(hardware(about["hardware"]) for about in abouts),
                once(letters[version] for version in versions),
                once(str(about["commit"]) for about in abouts),
                " ".join(run.get("inputs") or "—" for run in row["runs"]),
                min(str(about["started"]) for about in abouts),
                f"`python train.py experiment={name}`",
            )
        )
    head = ("experiment", "hardware", "versions", "commit", "inputs", "started", "command")
    lines = markdown(head, cells, "lllllll")
    return [*lines, "", *(f"- {letter}: {version}" for version, letter in letters.items())]


def once(values: Iterable[str], separator: str = ", ") -> str:
    """Each value that there is, at its first place."""
    return separator.join(dict.fromkeys(values))


def hardware(about: Json) -> str:
    if about.get("gpu"):
        return str(about["gpu"])
    return f"{about['machine']}, {about.get('threads', about['cores'])} of {about['cores']} cores"


def judged_table(results: Json) -> list[str]:
    """What pictures are to a classifier: for each judge its experiments, then the baselines on the first one's data."""
    columns = {
        "Fréchet": "frechet_distance",
        "kernel": "kernel_distance",
        "score": "score",
        "confident": "confident_share",
        "smallest class": "smallest_class",
        "largest class": "largest_class",
        "class as asked": "class_as_asked",
        "nearest": "nearest_distance",
        "seconds": "seconds",
    }
    cells: list[Row] = []
    for judge in dict.fromkeys(entry["expect"]["judge"] for entry in results.values()):
        judged = {name: entry["runs"] for name, entry in results.items() if entry["expect"]["judge"] == judge}
        rows = {name: [over_runs(runs, column) for column in columns.values()] for name, runs in judged.items()}
        scores = next(iter(judged.values()))[0]["scores"]
        for name in dict.fromkeys(
            key.split("/")[1] for key in scores if key.startswith("judged/") and key.count("/") == 2
        ):
            found = (
                [scores.get(f"judged/{name}/{column}{end}") for end in ("", "_std")] for column in columns.values()
            )
            rows[f"*{name.replace('_', ' ')}*"] = [with_spread(*pair) for pair in found]
        held_out = {"nearest_distance": scores.get("judged/nearest_distance_of_held_out")}
        rows["*held-out pictures*"] = [with_spread(held_out.get(column)) for column in columns.values()]
        cells += [(name, judge, *row) for name, row in rows.items()]
    return markdown(("experiment", "judge", *columns), cells, "ll" + "r" * len(columns))


def over_runs(runs: Sequence[Json], name: str) -> str:
    """Mean and standard deviation of what was judged, over the seeds of training."""
    values = [run["scores"][f"judged/{name}"] for run in runs if f"judged/{name}" in run["scores"]]
    return with_spread(
        statistics.fmean(values) if values else None, statistics.stdev(values) if len(values) > 1 else None
    )


def with_spread(mean: float | None, std: float | None = None) -> str:
    return "—" if mean is None else rounded(mean, 3) + ("" if std is None else f" ± {rounded(std, 2)}")


def rounded(value: float, digits: int) -> str:
    """So many significant digits, and all before the point: 1066, 0.0123."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


# Parity ---------------------------------------------------------------------------------------------------------------


def parity_table(rows: Json) -> str:
    """PARITY.md, a function of parity.json alone."""
    head = ("network", "held against", "parameters", "pixels", "outputs and loss", "gradients", "a step later")
    lines = [PARITY.format(output=OUTPUT_BAR, gradient=GRADIENT_BAR)]
    lines += markdown(head, (parity_cells(name, row) for name, row in rows.items()), "llrrrrr")
    return "\n".join(lines) + "\n"


def parity_cells(name: str, row: Json) -> Row:
    def difference(part: str) -> str:
        return "—" if part not in row else "0" if row[part] == 0 else f"{row[part]:.0e}"

    return (
        name,
        row["twin"] + (f" ({row['cases']})" if "cases" in row else ""),
        f"{row['parameters']:,}" if "parameters" in row else "—",
        str(row.get("image_size", "—")),
        *(difference(part) for part in ("outputs", "gradients", "weights after a step")),
    )


if __name__ == "__main__":
    sys.exit(main())
