"""Wrong and right command lines, made by seed from whatever configs/ contains; independent of zoo/checks.py."""

import random
import re
import string
from pathlib import Path
from typing import Any, NamedTuple

import yaml

CONFIGS = Path(__file__).parents[1] / "configs"
LETTERS = string.ascii_letters + string.digits + "_.-"

# What people type, and what they mean.
GUESSES = {
    "lr=0.1": "optimizer.lr",
    "optimizer.learning_rate=0.1": "optimizer.lr",
    "learning_rate=0.1": "optimizer.lr",
    "epochs=3": "trainer.max_epochs",
    "trainer.epochs=3": "trainer.max_epochs",
    "max_epochs=3": "trainer.max_epochs",
    "num_epochs=3": "trainer.max_epochs",
    "trainer.max_epoch=3": "trainer.max_epochs",
    "trainer.steps=3": "trainer.max_steps",
    "bs=8": "data.batch_size",
    "batchsize=8": "data.batch_size",
    "batch_size=8": "data.batch_size",
    "data.bs=8": "data.batch_size",
    "dataset.batch_size=8": "data.batch_size",
    "wd=0.1": "optimizer.weight_decay",
    "optimizer.wd=0.1": "optimizer.weight_decay",
    "optim.weight_decay=0.1": "optimizer.weight_decay",
    "workers=2": "data.num_workers",
    "data.workers=2": "data.num_workers",
    "gpus=1": "trainer.devices",
    "trainer.gpus=1": "trainer.devices",
    "device=cpu": "trainer.accelerator",
    "model.n_classes=3": "model.num_classes",
    "data.n_classes=3": "data.num_classes",
    "label_smoothing=0.1": "task.label_smoothing",
    "criterion=focal": "task.loss",
    "grad_clip=1": "trainer.gradient_clip_val",
    "trainer.accumulate=2": "trainer.accumulate_grad_batches",
    "ema=0.99": "ema_decay",
    "random_seed=1": "seed",
    "output_dir=x": "run_dir",
    "dataset=digits": "data",
    "net=lenet5": "model",
    "network=lenet5": "model",
    "arch=lenet5": "model",
    "optim=sgd": "optimizer",
    "opt=sgd": "optimizer",
    "sched=cosine": "scheduler",
    "lr_scheduler=cosine": "scheduler",
    "logging=csv": "logger",
    "model=lenet": "model=lenet5",
    "data=mnist5k": "data=digits",
    "optimizer=cosine": "scheduler=cosine",
    "lenet5": "model=lenet5",
    "--batch-size=8": "data.batch_size=8",
    "--lr": "optimizer.lr=…",
    "--multi-run": "--multirun",
}


class Case(NamedTuple):
    """A command line with one wrong argument, and what was meant by it."""

    words: list[str]
    wrong: str
    meant: str


def options() -> dict[str, list[str]]:
    """The options of each group; configs/hydra holds no group of ours."""
    found = {f.name: sorted(file.stem for file in f.glob("*.yaml")) for f in sorted(CONFIGS.iterdir()) if f.is_dir()}
    return {group: names for group, names in found.items() if names}


def leaves(node: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Every key with a value, by dotted path."""
    found: dict[str, Any] = {}
    for name, value in node.items():
        here = f"{path}.{name}" if path else name
        found |= leaves(value, here) if isinstance(value, dict) and value else {here: value}
    return found


def keys_of(file: Path) -> dict[str, Any]:
    """The keys a config file sets, under the names a command line gives them."""
    text = file.read_text(encoding="utf-8")
    content = {name: value for name, value in yaml.safe_load(text).items() if name not in ("defaults", "expect")}
    is_global = file.parent == CONFIGS or text.startswith("# @package _global_")
    return leaves(content, "" if is_global else file.parent.name)


def every_key() -> list[tuple[list[str], str, Any]]:
    """(what to choose, key, default) for every key of every option."""
    found = [([], key, value) for key, value in keys_of(CONFIGS / "train.yaml").items()]
    for group, names in options().items():
        for name in names:
            own = keys_of(CONFIGS / group / f"{name}.yaml")
            found += [([f"{group}={name}"], key, value) for key, value in own.items()]
    return found


def written(value: Any) -> str:
    """A value in Hydra's syntax."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ",".join(written(item) for item in value) + "]"
    plain = isinstance(value, str) and re.fullmatch(r"[\w./-]*[a-zA-Z][\w./-]*|\$\{.*\}", value)
    if isinstance(value, str) and not plain:
        return f"'{value}'"
    return str(value)


def mutated(word: str, draw: random.Random) -> str:
    """The word with one character inserted, deleted, swapped with the next, or substituted."""
    place = draw.randrange(len(word))
    kind = draw.choice(["insert", "delete", "swap", "substitute"])
    if kind == "insert":
        return word[:place] + draw.choice(LETTERS) + word[place:]
    if kind == "delete":
        return word[:place] + word[place + 1 :]
    if kind == "swap":
        return word[:place] + word[place : place + 2][::-1] + word[place + 2 :]
    return word[:place] + draw.choice(LETTERS) + word[place + 1 :]


def mutations(count: int, seed: int) -> list[Case]:
    """Wrong command lines over every group, option and key; mutations that are themselves right are left out."""
    draw = random.Random(seed)
    groups = options()
    all_keys = every_key()
    names = {key for _, key, _ in all_keys} | set(groups)
    cases: list[Case] = []
    while len(cases) < count:
        kind = draw.choice(["group", "option", "key", "key"])
        group = draw.choice(sorted(groups))
        option = draw.choice(groups[group])
        if kind == "group":
            word = mutated(group, draw)
            if word.strip() not in names:
                cases.append(Case([f"{word}={option}"], f"{word}={option}", group))
        elif kind == "option":
            word = mutated(option, draw)
            if word not in groups[group]:
                cases.append(Case([f"{group}={word}"], f"{group}={word}", f"{group}={option}"))
        else:
            chosen, key, value = draw.choice(all_keys)
            word = mutated(key, draw)
            if word not in names:
                wrong = f"{word}={written(value)}"
                cases.append(Case([*chosen, wrong], wrong, key))
    return cases


def right(count: int, seed: int, runnable: list[list[str]]) -> list[list[str]]:
    """Right command lines: one or two keys of an option at their defaults, or at values of the same kind."""
    draw = random.Random(seed)
    by_choice: dict[str, list[tuple[str, Any]]] = {}
    for chosen, key, value in every_key():
        if not key.endswith("_target_"):
            by_choice.setdefault(" ".join(chosen), []).append((key, value))
    lines: list[list[str]] = []
    while len(lines) < count:
        chosen = draw.choice(runnable)
        pairs = by_choice.get(" ".join(chosen), []) or by_choice[""]
        picked = draw.sample(pairs, min(len(pairs), draw.choice([1, 2])))
        lines.append([*chosen, *(f"{key}={written(varied(key, value, draw))}" for key, value in picked)])
    return lines


def varied(key: str, value: Any, draw: random.Random) -> Any:
    """Another right value for a key: numbers stay inside any bound they were inside of. Some are of a table."""
    if key in ("resume", "model.depth", "model.stride") or draw.random() < 0.3:
        return value
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1 if value >= 1 else value
    if isinstance(value, float):
        return value * 0.75
    return value
