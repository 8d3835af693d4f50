"""docs/reference.md: every group, option and key with its default, from configs/ and signatures."""

import ast
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from docs_pages.tables import linked, purpose
from zoo.checks import CONFIGS, TYPES, options, read_comments, read_yaml
from zoo.cli import MODULES, VERBS
from zoo.layout import read_option
from zoo.results import lower_is_better
from zoo.signatures import Parameter, parse, signature, words
from zoo.tables import markdown

ZOO = Path(__file__).resolve().parent.parent / "zoo"
ORDER = ("model", "data", "augment", "task", "optimizer", "scheduler", "init", "trainer", "logger", "debug")
ABOUT = {
    "model": "The network. It brings its own data, task, recipe and length; what stands on the command line wins.",
    "data": "What is learnt from. Facts such as `channels` are filled in from the files where they are `null`.",
    "augment": "What happens to training pictures. Each data set chooses its own.",
    "task": "The loss, the metrics, the step.",
    "optimizer": "The optimizers of `torch.optim`, with rates that suit small networks.",
    "scheduler": "The learning rate as a function of the step. All take `warmup_steps` and `warmup_epochs`.",
    "init": "First weights; `default` leaves those of the network's paper.",
    "trainer": "Length, device, precision, clipping.",
    "logger": "Where curves go, besides `metrics.csv`.",
    "debug": "Ready-made ways to find out what is wrong.",
}
EXTRA = {  # what no comment says, by key or by the last name of one
    "seed": "of everything that is drawn: weights, order, augmentation, noise",
    "early_stopping.min_delta": "what counts as an improvement",
    "trainer.accelerator": "auto, cpu, gpu or mps",
    "trainer.devices": "how many, -1 for all, or their numbers as in [0,1]",
    "trainer.strategy": "one process, ddp or fsdp: docs/clusters.md",
    "trainer.precision": "32-true, bf16-mixed, 16-mixed (CUDA) or 64-true",
    "trainer.max_epochs": "the length of a run",
    "trainer.accumulate_grad_batches": "batches whose gradients make one step",
    "trainer.gradient_clip_val": "the largest norm, or value, of a gradient",
    "trainer.log_every_n_steps": "optimisation steps between two points of a curve",
    "trainer.check_val_every_n_epoch": "epochs from one validation to the next",
    "trainer.deterministic": "true: equal bits on CUDA too, at some cost",
    "trainer.profiler": "simple or advanced: where the time goes; debug=profiler",
    "limit_train_batches": "how many, or a share, of an epoch",
    "limit_val_batches": "how many, or a share, of the validation split",
    "limit_test_batches": "how many, or a share, of the test split",
    "batch_size": "examples in a step, of all processes together",
    "eval_batch_size": "examples in a batch of validation and test",
    "num_workers": "processes that read ahead; 0: none",
    "val_fraction": "how much becomes validation",
    "test_fraction": "how much becomes test",
    "split_seed": "of the division into training, validation and test",
    "lr": "the largest rate, which the schedule scales",
    "fingerprint": "of the data, held against them when a run continues",
}
HEAD = """\
# All options

<!-- written by `python -m docs_pages`: change nothing here -->

Everything that can stand behind `python train.py`, as the config files declare it. `group=option` chooses a file of
`configs/group/`, `group.key=value` changes a key; a key in *italics* is not in the file and takes a plus, as in
`+optimizer.maximize=true`. `python train.py --help` and `python -m zoo list` show the same in a terminal, `--cfg job`
the whole config of a command.
"""


def reference() -> str:
    """The page."""
    parts = [HEAD, "## Keys of every run", "", *key_table(CONFIGS / "train.yaml", skip=("defaults",))]
    parts += [
        "",
        "## Keys of a sweep",
        "",
        "With `-m`: [many runs](sweeps.md).",
        "",
        *key_table(CONFIGS / "sweep.yaml"),
    ]
    for group in (*ORDER, *(name for name in options() if name not in (*ORDER, "experiment"))):
        parts += ["", f"## {group}", "", ABOUT.get(group, ""), "", *group_lines(group)]
    parts += [
        "",
        "## experiment",
        "",
        "Recipes with what they promise; [results](results.md).",
        "",
        *experiment_lines(),
    ]
    parts += ["", "## Verbs", "", "`python -m zoo VERB`, or `zoo VERB`.", ""]
    parts += markdown(("verb", ""), [(f"`{verb}`", purpose) for verb, purpose in VERBS.items()], "ll")
    for verb, module in MODULES.items():
        source = (ZOO / f"{module.rpartition('.')[2]}.py").read_text(encoding="utf-8")
        help_text = (ast.get_docstring(ast.parse(source)) or "").replace("```", "")
        parts += ["", f"### zoo {verb}", "", "```text", help_text, "```"]
    return "\n".join(parts) + "\n"


def cell(value: Any) -> str:
    """A value as a config file has it, in a table."""
    if value is None:
        return "`null`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        shown = "[" + ", ".join(str(item) for item in value) + "]"
        return f"`{shown}`" if len(shown) < 60 else f"`{shown[:50]} …`"
    return f"`{value}`".replace("|", "\\|") if value != "" else "`''`"


def key_table(file: Path, *, skip: Sequence[str] = ()) -> list[str]:
    """The keys of a file that belongs to no group."""
    comments, tree = read_comments(file), read_yaml(file)
    rows = []
    for path, value in leaves({key: value for key, value in tree.items() if key not in skip}):
        kind = words(parse(TYPES[path])) if path in TYPES else ""
        about = comments.get(path, "") or EXTRA.get(path, "")
        parent = comments.get(path.partition(".")[0], "") if "." in path else ""
        text = "; ".join(part for part in (about or parent, kind) if part)
        rows.append((f"`{path}`", cell(value), linked(text)))
    return markdown(("key", "default", ""), rows, "lll")


def leaves(tree: dict[str, Any], path: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        here = f"{path}.{key}" if path else key
        found += leaves(value, here) if isinstance(value, dict) and value else [(here, value)]
    return found


def group_lines(group: str) -> list[str]:
    """The options of a group, those that build the same class together."""
    together: dict[str, list[str]] = {}
    for name in options()[group]:
        together.setdefault(str(node_of(group, name).get("_target_", "")), []).append(name)
    lines: list[str] = []
    for target, names in together.items():
        if target and len(together) > 1:
            lines += [
                "",
                f"### {target.rpartition('.')[2]}",
                "",
                f"`{target}`",
                "",
            ]
        first = node_of(group, names[0])
        rows = []
        for name in names:
            other = [
                f"`{k}={cell(v).strip(chr(96))}`" for k, v in differing(first, node_of(group, name)) if name != names[0]
            ]
            rows.append((f"`{group}={name}`", linked(purpose(group, name)), " ".join(other[:8]).replace("|", "\\|")))
        lines += markdown((f"`{group}=`", "", f"unlike `{names[0]}`" if len(names) > 1 else ""), rows, "lll")
        lines += ["", *target_keys(group, names[0], first, target)] if first else []
    return lines


def node_of(group: str, name: str) -> dict[str, Any]:
    """The keys of an option's own node."""
    tree = read_option(group, name).tree
    inner = tree.get(group) if "_target_" not in tree and isinstance(tree.get(group), dict) else tree
    return (
        {k: v for k, v in (inner or {}).items() if k not in ("expect", "defaults")} if isinstance(inner, dict) else {}
    )


def differing(first: dict[str, Any], other: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(key, value) for key, value in other.items() if key != "_target_" and first.get(key, ...) != value]


def target_keys(group: str, name: str, node: dict[str, Any], target: str) -> list[str]:
    """The keys of an option with defaults, comments and types; what its class would take besides, in italics."""
    comments = read_option(group, name).comments
    takes: dict[str, Parameter] = {}
    try:
        found = signature(target) if target and not target.startswith("pytorch_lightning") else None
        takes = found.parameters if found else {}
    except LookupError:
        pass
    rows = []
    for key, value in node.items():
        if key in ("_target_", "_partial_", "_convert_", "_recursive_"):
            continue
        about = comments.get(key) or EXTRA.get(f"{group}.{key}") or EXTRA.get(key, "")
        kind = words(takes[key].kinds) if key in takes and takes[key].annotation is not None else ""
        rows.append((f"`{group}.{key}`", cell(value), linked(about), readable(kind)))
    passed = {"params", "network", "optimization", "facts", "log_every"}
    for key, parameter in takes.items():
        if key not in node and key not in passed and parameter.default is not None:
            rows.append((f"*{group}.{key}*", default(parameter.default), "", readable(words(parameter.kinds))))
    return markdown(("key", f"default in `{name}`", "", "takes"), rows, "llll") if rows else []


def default(node: ast.expr) -> str:
    """A default of a signature, as a config would have it."""
    try:
        return cell(ast.literal_eval(node))
    except ValueError:
        return f"`{ast.unparse(node)}`"


def readable(kind: str) -> str:
    return "" if kind == "a node with a _target_" else re.sub(r"\|", "\\|", kind)


def experiment_lines() -> list[str]:
    rows = []
    for name in options()["experiment"]:
        expect = read_yaml(CONFIGS / "experiment" / f"{name}.yaml").get("expect") or {}
        promise = (
            f"{expect['metric']} {'≤' if lower_is_better(expect) else '≥'} {expect['floor']}"
            if "floor" in expect
            else "—"
        )
        rows.append((f"`experiment={name}`", linked(purpose("experiment", name)), promise))
    return markdown(("`experiment=`", "", "promises"), rows, "lll")
