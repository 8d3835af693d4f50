"""The generated sections: tables from results.json, parity.json, zoo/listing.json, and what the model files say."""

import ast
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from docs_pages.families import FAMILIES, Family, further_models, models_of, module_of
from zoo.checks import CONFIGS, options, read_yaml
from zoo.listing import TABLE, describe
from zoo.results import lower_is_better, mean_and_std, reaches
from zoo.tables import markdown

Json = dict[str, Any]
ZOO = Path(__file__).resolve().parent.parent / "zoo"
MODELS = ZOO / "models"
NAMES = {  # how a score is called in a sentence
    "test/accuracy": "accuracy",
    "test/mean_iou": "mean IoU",
    "test/bits_per_character": "bits per character",
    "test/squared_error": "squared error of a picture",
    "test/nelbo": "nats per picture",
    "test/exact_match": "exact match",
    "judged/frechet_distance": "Fréchet distance",
    "judged/class_as_asked": "class as asked",
}
TWINS = ("torchvision", "timm", "diffusers", "torchmetrics", "torch.distributions", "torch.nn")
NOT_RUN = ("imagenet_", "cifar10_", "fashion_mnist_")


def model_of(experiment: str) -> str:
    """The model that an experiment chooses."""
    for choice in read_yaml(CONFIGS / "experiment" / f"{experiment}.yaml").get("defaults", []):
        if isinstance(choice, dict) and "override /model" in choice:
            return str(choice["override /model"])
    return "lenet5"


def experiments_of(family: Family) -> list[str]:
    return [name for name in options()["experiment"] if module_of(model_of(name)) in family.modules]


def linked(words: str) -> str:
    """Words for a table or a list: numbers of arXiv become links, what would be HTML stays text."""
    words = words.replace("<", "&lt;").replace(">", "&gt;").replace("|", "\\|")
    return re.sub(r"(?:arXiv[: ])?\b(\d{4}\.\d{4,5})\b", r"[\1](https://arxiv.org/abs/\1)", words)


def purpose(group: str, name: str) -> str:
    """What a config file says of itself: its first comment, to the end of a sentence."""
    words = describe(group, name)
    lines = (CONFIGS / group / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    comments = [line[2:] for line in lines if line.startswith("# ") and not line.startswith("# @package")]
    for before, line in pairwise(comments):  # a line goes on where it was wrapped
        if len(before) < 90 or before.endswith((".", ":")) or line.startswith((" ", "Expected")):
            break
        words += f" {line}"
    return words.rstrip(".:")


def score(row: Json) -> str:
    """`0.9860 ± 0.0010`, with an arrow where lower is better."""
    words = mean_and_std(row) + (" ↓" if lower_is_better(row["expect"]) else "")
    return words.replace(" ", "\u00a0")  # on one line


def metric(row: Json) -> str:
    name = str(row["expect"]["metric"])
    return NAMES.get(name, name.partition("/")[2].replace("_", " "))


# The table of README --------------------------------------------------------------------------------------------------


def overview(rows: Mapping[str, Json], proofs: Mapping[str, Json], to: str) -> str:
    """A line for each family: its names, what it was held against, one score. `to` is where the pages lie."""
    cells = []
    for family in FAMILIES:
        names = sorted(models_of(family), key=naturally)
        shown = " ".join(f"`{name}`" for name in names[:4]) + (f" … {len(names)} in all" if len(names) > 4 else "")
        row, link = rows.get(family.shown), f"[{family.title}]({to}{family.page}.md)"
        result = f"`{family.shown}`: {metric(row)} {score(row)}" if row else "—"
        baseline = str(row["expect"]["baseline"]) if row else "—"
        cells.append((link, shown, proof(family, proofs), result, linked(baseline)))
    if others := further_models():
        cells.append(("Further networks", " ".join(f"`{name}`" for name in others), "—", "—", "—"))
    head = ("family", "`model=`", "held against; largest difference", "one of its experiments", "baseline")
    return "\n".join(markdown(head, cells, "lllll"))


def naturally(name: str) -> list[tuple[str, int]]:
    """The order in which people count: resnet18 before resnet101."""
    return [(word, int(number or 0)) for word, number in re.findall(r"(\D+)(\d*)", name)]


def proof(family: Family, proofs: Mapping[str, Json]) -> str:
    """What a family was held against, in a few words."""
    rows = parity_rows(family, proofs)
    if not rows:
        return "—"
    twins = [str(row["twin"]) for row in rows.values()]
    ours = "a twin written apart"
    found = {next((t for t in TWINS if twin.startswith(t) and "tests/" not in twin), ours) for twin in twins}
    against = [name for name in (*TWINS, ours) if name in found]
    largest = max((row.get("outputs", 0.0) for row in rows.values()), default=0.0)
    return f"{', '.join(against)}; {small(largest)}"


def small(value: float) -> str:
    return "0" if value == 0 else f"{value:.0e}"


# The sections of a family's page --------------------------------------------------------------------------------------


def models(family: Family) -> str:
    """Names, sizes as configured, and what each is."""
    sizes = json.loads(TABLE.read_text(encoding="utf-8"))
    cells = []
    for name in models_of(family):
        size = sizes.get(name, {})
        numbers = (f"{size['parameters']:,}", f"{size['multiply_adds']:,}") if size else ("?", "?")
        cells.append(
            (f"`{name}`", *numbers, size.get("input", "?"), size.get("form") or "—", linked(purpose("model", name)))
        )
    head = ("`model=`", "parameters", "multiply-adds", "input", "form", "")
    return "\n".join(markdown(head, cells, "lrrlll"))


def results(family: Family, rows: Mapping[str, Json]) -> str:
    """What was measured, and what else there is to run."""
    names = experiments_of(family)
    lines = result_lines([name for name in names if name in rows], rows)
    if not lines and not names:
        return "No experiment of this family is configured."
    if rest := [name for name in names if name not in rows]:
        lines += [*([""] if lines else []), "Without a row so far:", ""]
        lines += [f"- `experiment={name}`: {linked(purpose('experiment', name))}" for name in rest]
    return "\n".join(lines)


def result_lines(names: Sequence[str], rows: Mapping[str, Json]) -> list[str]:
    if not names:
        return []
    cells = []
    for name in names:
        row = rows[name]
        run = row["runs"][-1]
        form = run["counts"].get("form")
        seconds = [r["seconds"] for r in row["runs"] if r["seconds"] is not None]
        cells.append(
            (
                f"`{name}`",
                f"`{run['about']['choices'].get('model', '—')}`" + (f", {form}" if form else ""),
                f"{metric(row)} {score(row)}",
                str(len(row["runs"])),
                linked(str(row["expect"]["baseline"])),
                "goal" if reaches(row, "goal") else "floor" if reaches(row, "floor") else "**no**",
                f"{sum(seconds) / len(seconds) / 60:.1f}" if seconds else "—",
            )
        )
    head = ("`experiment=`", "model, form", "score", "n", "baseline", "reached", "minutes")
    return markdown(head, cells, "lllrllr")


def parity_rows(family: Family, proofs: Mapping[str, Json]) -> dict[str, Json]:
    """The comparisons that belong to a family: those called like one of its models, and those it names."""
    names = tuple(models_of(family))
    beginnings = (*family.parity, *(f"{module} " for module in family.modules))

    def belongs(name: str) -> bool:
        first = re.split(r"[ ,]", name)[0]
        return first in names or name.startswith(beginnings)

    return {name: row for name, row in proofs.items() if belongs(name)}


def parity(family: Family, proofs: Mapping[str, Json]) -> str:
    rows = parity_rows(family, proofs)
    if not rows:
        return "Nothing of this family stands in `parity.json`."
    largest = [max((row.get(part, 0.0) for row in rows.values()), default=0.0) for part in ("outputs", "gradients")]
    cells = [
        (
            name,
            row["twin"],
            f"{row['parameters']:,}" if "parameters" in row else "—",
            *(
                "—" if part not in row else small(row[part])
                for part in ("outputs", "gradients", "weights after a step")
            ),
        )
        for name, row in rows.items()
    ]
    head = ("network", "held against", "parameters", "outputs and loss", "gradients", "a step later")
    return "\n".join(
        [
            f"{len(rows)} comparisons in double precision with equal weights. The largest difference of outputs and "
            f"loss is {small(largest[0])}, of gradients (relative to their largest entry) {small(largest[1])}.",
            "",
            '<details markdown="1"><summary>Each of them</summary>',
            "",
            *markdown(head, cells, "llrrrr"),
            "",
            "</details>",
        ]
    )


def deviations(family: Family) -> str:
    """What the model files say of themselves: sources and deliberate deviations."""
    parts = []
    for module in (*family.modules, *family.sources):
        docstring = ast.get_docstring(ast.parse((MODELS / f"{module}.py").read_text(encoding="utf-8"))) or ""
        parts.append(f"**`zoo/models/{module}.py`** — {as_markdown(docstring)}")
    return "\n\n".join(parts)


def as_markdown(docstring: str) -> str:
    """A docstring as Markdown: no legend of shapes, an empty line before a list, links to arXiv."""
    kept = [part for part in docstring.split("\n\n") if not part.startswith("Shapes:")]
    text = re.sub(r"(?m)^(?!- |  )(.+)\n(?=- )", r"\1\n\n", "\n\n".join(kept))
    text = re.sub(r"(?m)^  (?=\S)", "    ", text)
    text = text.replace("|", "\\|") if "\n|" not in text else text
    return re.sub(r"(?:arXiv[: ])?\b(\d{4}\.\d{4,5})\b", r"[\1](https://arxiv.org/abs/\1)", text)


# The page of all results ----------------------------------------------------------------------------------------------


def experiments(rows: Mapping[str, Json], proofs: Mapping[str, Json]) -> str:
    """docs/results.md."""
    lines = [
        "# Results",
        "",
        "<!-- written by `python -m docs_pages`: change nothing here -->",
        "",
        "Mean ± sample standard deviation over n seeds, never the best; ↓: lower is better. Each score is",
        "computed a second time from its checkpoint, in another process, and must be the same to the last digit.",
        "`python train.py experiment=NAME` trains one run, `python -m zoo prove NAME` all seeds. Hardware, versions,",
        "commits and hashes of every row: `RESULTS.md` in the repository.",
    ]
    for family in FAMILIES:
        names = [name for name in experiments_of(family) if name in rows]
        if names:
            lines += ["", f"## {family.title}", "", f"[The page of this family](families/{family.page}.md)", ""]
            lines += result_lines(names, rows)
    known = {name for family in FAMILIES for name in experiments_of(family)}
    if others := [name for name in rows if name not in known]:
        lines += ["", "## Further networks", "", *result_lines(others, rows)]
    lines += [
        "",
        "## Held against",
        "",
        "The right network? Each family beside independent implementations; all in `PARITY.md`.",
        "",
    ]
    counts = [
        (
            f"[{family.title}](families/{family.page}.md)",
            str(len(parity_rows(family, proofs))),
            proof(family, proofs).rpartition("; ")[0] or "—",
            *_largest(parity_rows(family, proofs).values()),
        )
        for family in FAMILIES
    ]
    head = ("family", "comparisons", "against", "largest difference of outputs and loss", "of gradients")
    return "\n".join([*lines, *markdown(head, counts, "lrlrr")]) + "\n"


def _largest(rows: Iterable[Json]) -> tuple[str, str]:
    found = list(rows)
    first, second = (
        max((row.get(part, -math.inf) for row in found), default=-math.inf) for part in ("outputs", "gradients")
    )
    return tuple("—" if value == -math.inf else small(value) for value in (first, second))  # type: ignore[return-value]


def tasks_table() -> str:
    """The tasks with their pages."""
    cells = [
        (f"`{name}`", describe("task", name) or "One of K classes for every example") for name in options()["task"]
    ]
    return "\n".join(markdown(("`task=`", ""), cells, "ll"))


def task(name: str) -> str:
    """What a task computes, as its class says, and what there is for it."""
    target = str(read_yaml(CONFIGS / "task" / f"{name}.yaml")["_target_"])
    source = ZOO.parent / f"{target.rpartition('.')[0].replace('.', '/')}.py"
    label = target.rpartition(".")[2]
    node = next(
        node
        for node in ast.parse(source.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == label
    )
    sizes = json.loads(TABLE.read_text(encoding="utf-8"))
    names = [model for model in options()["model"] if sizes.get(model, {}).get("task") == name]
    data = list(dict.fromkeys(sizes[model]["data"] for model in names))
    none = "none for this task alone; which can be used is told above."
    return "\n".join(
        [
            "## Exactly",
            "",
            f"`{target}`, in its own words:",
            "",
            as_markdown(ast.get_docstring(node) or ""),
            "",
            f"**Models made for it:** {' '.join(f'`{model}`' for model in names) or none}",
            "",
            f"**Their data:** {' '.join(f'`{option}`' for option in data) or none}",
            "",
            "**Keys:** [`task.…`](../reference.md#task)",
        ]
    )
