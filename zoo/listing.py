"""`zoo list [pattern …]`: what there is to choose from, in a fraction of a second and without torch.

Everything is read from the config files, except what only a built network tells: the models' sizes stand in
`zoo/listing.json`, which `zoo list write=true` makes and a test holds against the networks.
"""

import copy
import fnmatch
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.checks import CONFIGS, options, read_yaml
from zoo.errors import ZooError
from zoo.suggest import nearest

TABLE = Path(__file__).with_name("listing.json")
FIRST = ("model", "data", "experiment")  # the groups with a table of their own, in this order
Row = tuple[str, ...]


def main(args: Sequence[str]) -> int:
    """Print the options that one of the patterns fits, or with `write=true` count the models again."""
    patterns = [word for word in args if "=" not in word]
    for word in args:
        key, equals, value = word.partition("=")
        if equals and (key != "write" or value not in ("true", "false")):
            raise ZooError(f"zoo list {word}: the only key is write=true, which counts the models again.")
    if "write=true" in args:
        TABLE.write_text(json.dumps(count_models(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"wrote {TABLE}")
        return 0
    for pattern in patterns:
        if not select([pattern]):
            near = nearest(pattern, sorted({name for group, names in options().items() for name in (group, *names)}))
            hint = f" Did you mean {near}?" if near else ""
            raise ZooError(f"Nothing is called like {pattern}.{hint}\n`zoo list` without a word shows everything.")
    print(render(select(patterns), width=shutil.get_terminal_size().columns if sys.stdout.isatty() else None))
    return 0


def select(patterns: Sequence[str]) -> dict[str, list[str]]:
    """The options of each group that fit a pattern: a part of a name, a glob, a group, or `group/` and one of these."""
    groups = options()
    ordered = [*(group for group in FIRST if group in groups), *(group for group in groups if group not in FIRST)]
    found = {g: [n for n in groups[g] if not patterns or any(fits(p, g, n) for p in patterns)] for g in ordered}
    return {group: names for group, names in found.items() if names}


def fits(pattern: str, group: str, name: str) -> bool:
    pattern = pattern.lower()
    wanted, slash, rest = pattern.partition("/")
    if slash and wanted == group:
        return fits(rest, "", name)
    return pattern == group or pattern in name.lower() or fnmatch.fnmatchcase(name.lower(), pattern)


def describe(group: str, name: str) -> str:
    """The first comment line of a config file: what it is."""
    for line in (CONFIGS / group / f"{name}.yaml").read_text(encoding="utf-8").splitlines():
        if line.startswith("# ") and not line.startswith("# @package"):
            return line[2:].rstrip(".:")
    return ""


def render(found: dict[str, list[str]], *, width: int | None = None) -> str:
    """The sections as text; lines are cut at `width` columns."""
    models = json.loads(TABLE.read_text(encoding="utf-8"))
    sections = []
    for group, names in found.items():
        if group == "model":
            head: Row = ("MODELS", "parameters", "multiply-adds", "input", "form", "data", "task", "")
            rows = [(name, *model_cells(models.get(name, {})), describe(group, name)) for name in names]
        elif group == "data":
            head = ("DATA", "input", "classes", "")
            rows = [
                (name, *data_cells(read_yaml(CONFIGS / group / f"{name}.yaml")), describe(group, name))
                for name in names
            ]
        elif group == "experiment":
            head = ("EXPERIMENTS", "metric", "floor", "goal", "")
            rows = [
                (name, *expect_cells(read_yaml(CONFIGS / group / f"{name}.yaml")), describe(group, name))
                for name in names
            ]
        else:
            head = (group.upper(), "")
            rows = [(name, describe(group, name)) for name in names]
        sections.append(columns(head, rows, width))
    return "\n\n".join(sections)


def model_cells(model: dict[str, Any]) -> Row:
    if not model:
        return ("?", "?", "?", "?", "?", "?")  # a new config: `zoo list write=true` has not been run
    counts = (f"{model['parameters']:,}", f"{model['multiply_adds']:,}")
    return (*counts, model["input"], model["form"] or "—", model["data"], model["task"])


def data_cells(config: dict[str, Any]) -> Row:
    classes = config.get("num_classes")
    return input_shape(config) or "from the files", "—" if classes is None else str(classes)


def expect_cells(config: dict[str, Any]) -> Row:
    expect = config.get("expect") or {}
    return tuple("—" if expect.get(name) is None else str(expect[name]) for name in ("metric", "floor", "goal"))


def input_shape(facts: dict[str, Any]) -> str | None:
    """One example's shape from the facts of a data config, None where only the files know it."""
    if facts.get("channels") and facts.get("image_size"):
        return f"{facts['channels']}×{facts['image_size']}×{facts['image_size']}"
    return str(facts["num_features"]) if facts.get("num_features") else None


def columns(head: Row, rows: Sequence[Row], width: int | None) -> str:
    """Aligned columns: numbers to the right, the last column free."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head) - 1)]
    numeric = [all(row[i][:1].isdigit() or row[i] in "—?" for row in rows) and i > 0 for i in range(len(head) - 1)]

    def line(row: Row) -> str:
        cells = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row[:-1], widths, numeric, strict=True)]
        text = "  ".join([*cells, row[-1]]).rstrip()
        return text if width is None or len(text) <= width else text[: width - 1] + "…"

    return "\n".join(line(row) for row in (head, *rows))


def count_models() -> dict[str, dict[str, Any]]:
    """Compose every model's config, build the network on the `meta` device and count. Imports torch."""
    read: dict[str, Any] = {}
    return {name: count_model(name, read) for name in options()["model"]}


def count_model(name: str, read: dict[str, Any]) -> dict[str, Any]:
    """What the table says of a model; `read` keeps the data that were read, by option."""
    import torch
    from hydra import compose, initialize_config_dir
    from omegaconf import open_dict

    from zoo.build import build
    from zoo.network import construct
    from zoo.report import summarize_example, to_plain
    from zoo.run import fill_facts, make_task

    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", overrides=[f"model={name}"], return_hydra_config=True)
    choices = cfg.hydra.runtime.choices
    with open_dict(cfg):
        del cfg["hydra"]
    if choices["data"] not in read:
        read[choices["data"]] = build(to_plain(cfg.data), "data")()
        read[choices["data"]].setup("fit")
    data = copy.copy(read[choices["data"]])
    fill_facts(cfg, data)
    config = to_plain(cfg)
    data.facts = {name: config["data"].get(name, value) for name, value in data.facts.items()}  # as this model has them
    with torch.device("meta"):
        network = construct(config)
    summary = summarize_example(make_task(config, network, data), data)
    one = torch.zeros(1, dtype=torch.int64)
    shape = data.splits["train"].batch(0, one, one)["input"].shape[1:]
    return {
        "parameters": summary.parameters,
        "multiply_adds": summary.multiply_adds,
        "input": "×".join(map(str, shape)),
        "form": getattr(network, "form", None),
        "data": choices["data"],
        "task": choices["task"],
    }


if __name__ == "__main__":
    sys.exit(main(["write=true"] if "--write" in sys.argv else sys.argv[1:]))
