"""docs/benchmarks.md and its pictures, from docs/benchmarks/benchmarks.json alone."""

import json
from collections.abc import Iterator
from importlib import import_module
from inspect import cleandoc
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

PARTS = {
    "harness": "The harness",
    "shell": "From the shell to an accuracy",
    "loaders": "Loaders",
    "startup": "Start-up",
    "networks": "Networks",
    "memory": "Memory",
    "growth": "As work grows",
}
MET, MISSED = "#0072B2", "#D55E00"  # Okabe & Ito 2008
HEAD = """\
# Benchmarks

Written by `python -m benchmarks`; the numbers are in [benchmarks.json](benchmarks/benchmarks.json). Times depend on the
machine: what is promised are the ratios, each measured in one run, alternating, beside what it is compared with.

    python -m benchmarks                                   # all parts; on an idle machine
    python -m benchmarks harness loaders rounds=9          # some of them, in more rounds
    python -m benchmarks shell startup peers=/tmp/peers data=/tmp/fashion
    python -m benchmarks page                              # this page again, nothing measured

A part replaces what it found before and leaves the other parts as they are. `data` is a folder with the four unpacked
files of Fashion-MNIST in `FashionMNIST/raw/`; Debian's `dataset-fashion-mnist` has them, packed, in
`/usr/share/datasets/fashion-mnist/`. `peers` is a folder with clones of public projects, by these names:

    git clone https://github.com/pytorch/examples
    git clone https://github.com/ashleve/lightning-hydra-template
    git clone https://github.com/huggingface/pytorch-image-models
    pip install lightning hydra-colorlog rootutils         # for the template; python=… names another interpreter

They are copied before they run, and lines are changed that point them at Fashion-MNIST; the benchmark prints these.
"""


def render(parts: dict[str, Any]) -> str:
    """The page."""
    blocks = [HEAD]
    rows = [bar for name in PARTS for bar in parts.get(name, {}).get("bars", [])]
    if rows:
        met = sum(bar["met"] is True for bar in rows)
        lines = ["| bar | measured | met |", "| --- | ---: | --- |"]
        for bar in rows:
            sign, limit = "≥" if bar["at_least"] else "≤", _number(bar["limit"])
            measured = "—" if bar["measured"] is None else f"{_number(bar['measured'])} {bar['unit']}".strip()
            said = {True: "yes", False: "**no**", None: "not measured"}[bar["met"]]
            lines.append(f"| {bar['name']} {sign} {limit} {bar['unit']}".rstrip() + f" | {measured} | {said} |")
        blocks.append(f"## Bars: {met} of {len(rows)} met\n\n" + "\n".join(lines) + "\n\n![](benchmarks/bars.png)\n")
    blocks += [_part(name, parts[name]) for name in PARTS if name in parts]
    return "\n".join(blocks)


def _part(name: str, part: dict[str, Any]) -> str:
    about = part["about"]
    lines = [f"## {PARTS[name]}", "", cleandoc(import_module(f"benchmarks.{name}").__doc__ or ""), ""]
    lines += ["| " + " | ".join(part["columns"]) + " |"]
    kinds = [all(isinstance(row[place], str) for row in part["rows"]) for place in range(len(part["columns"]))]
    lines += ["| " + " | ".join("---" if is_text else "---:" for is_text in kinds) + " |"]
    lines += ["| " + " | ".join(_number(cell) for cell in row) + " |" for row in part["rows"]]
    if part["curves"]:
        lines += ["", f"![](benchmarks/{name}.png)"]
    lines += ["", *(f"{note}\n" for note in part["notes"])]
    versions = about["versions"]
    lines.append(
        f"{about['date']}, {about['machine']}, {about['cores']} cores, {about['memory_gb']} GB; load average at the "
        f"start {about['load_average']}; commit {about['commit']}; Python {versions['python']}, "
        f"torch {versions['torch']}, pytorch-lightning {versions['pytorch-lightning']}."
        + (" **The machine was busy: these times are not to be trusted.**" if about.get("busy") else "")
    )
    return "\n".join(lines) + "\n"


def _number(cell: Any) -> str:
    if cell is None:
        return "—"
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.3g}" if abs(cell) < 100 else f"{cell:.0f}"


# Pictures ------------------------------------------------------------------------------------------------------------


def figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Any]]:
    made = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(made)
    axes = list(made.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, linewidth=0.6)
    return made, axes


def bars_picture(parts: dict[str, Any]) -> Figure:
    """Every bar: how far on the right side of its limit what was measured lies, as a factor."""
    rows = [bar for name in PARTS for bar in parts.get(name, {}).get("bars", []) if bar["measured"]]
    picture, (axis,) = figure(9, 1 + 0.22 * len(rows))
    for place, bar in enumerate(reversed(rows)):
        over = bar["measured"] / bar["limit"]
        better = over if bar["at_least"] else 1 / over if over > 0 else 100.0  # below nothing: a measurement's noise
        better = min(max(better, 0.01), 100.0)
        axis.plot([1, better], [place, place], color=MET if bar["met"] else MISSED, linewidth=2)
        axis.plot(better, place, "o" if bar["met"] else "X", color=MET if bar["met"] else MISSED, markersize=5)
    axis.set_yticks(range(len(rows)), [bar["name"] for bar in reversed(rows)], fontsize=7)
    axis.axvline(1, color="#595959", linewidth=1)
    axis.set_xscale("log")
    axis.set_xlabel("times better than the bar asks (right of the line: met)")
    return picture


def curves_picture(curves: dict[str, Any]) -> Figure:
    """What grows, each against its work."""
    columns = 3
    rows = -(-len(curves) // columns)
    picture, axes = figure(10, 2.6 * rows, rows, columns)
    for axis, (name, curve) in zip(axes, curves.items(), strict=False):
        axis.plot(curve["x"], curve["y"], "o-" if len(curve["x"]) < 20 else "-", color=MET, markersize=4)
        axis.set_ylim(bottom=0, top=1.15 * max(curve["y"]))
        axis.set_title(name, fontsize=9, loc="left")
        axis.set_xlabel(curve["of"], fontsize=8)
        axis.tick_params(labelsize=7)
    for axis in axes[len(curves) :]:
        axis.set_visible(False)
    return picture


def pictures(parts: dict[str, Any]) -> Iterator[tuple[str, Figure]]:
    if any(part["bars"] for part in parts.values()):
        yield "bars", bars_picture(parts)
    for name, part in parts.items():
        if part["curves"]:
            yield name, curves_picture(part["curves"])


def read(out: Path) -> dict[str, Any]:
    """The parts there are, in the page's order."""
    file = out / "benchmarks" / "benchmarks.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return {name: found[name] for name in PARTS if name in found}


def write(parts: dict[str, Any], out: Path) -> None:
    """benchmarks.md, benchmarks/benchmarks.json and the pictures, in `out`."""
    folder = out / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(parts, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "benchmarks.json").write_text(text + "\n", encoding="utf-8")
    (out / "benchmarks.md").write_text(render(parts), encoding="utf-8")
    for name, picture in pictures(parts):
        picture.savefig(folder / f"{name}.png")
