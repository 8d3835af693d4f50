"""`eval "$(zoo completion bash)"`: from then on, Tab behind `zoo` offers verbs, groups, options, keys and files.

In ~/.bashrc the line holds for every shell of bash. The keys are those of the options on the line; where no word fits,
Tab offers files. `python train.py` has its own, by Hydra: eval "$(python train.py -sc install=bash)"
"""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from zoo.cli import FLAGS, MODULES, VERBS
from zoo.errors import ZooError
from zoo.layout import CONFIGS, option_file, options, read_layout, read_yaml

# readline parts words at = and replaces what stands behind it
BASH = """\
_zoo() {
    local IFS=$'\\n' line="${COMP_LINE:0:COMP_POINT}"
    local word="${line##* }"
    COMPREPLY=($(zoo completion words "$line" 2>/dev/null))
    if [[ $COMP_WORDBREAKS == *=* ]]; then COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*=}"}"}"); fi
}
complete -o default -o nospace -F _zoo zoo"""
FILES = {"evaluate": "evaluate.yaml", "lr": "lr_range.yaml"}  # keys of verbs that stand in a config


def main(args: Sequence[str]) -> int:
    """Print what a shell is to evaluate, or, asked by it, the words that fit."""
    if len(args) == 2 and args[0] == "words":
        print("\n".join(offers(args[1])))
    elif list(args) == ["bash"]:
        print(BASH)
    else:
        raise ZooError(f"zoo completion {' '.join(args)}".strip() + ': write eval "$(zoo completion bash)"')
    return 0


def offers(line: str) -> list[str]:
    """What the last word of a line may become; a space stands behind what is whole."""
    *before, word = line.split(" ")
    words = [other for other in before if other]
    verb, groups = (words[1] if len(words) > 1 else ""), options()
    if not verb:
        found = [f"{name} " for name in VERBS]
    elif "=" in word:
        group = word.partition("=")[0]
        found = [f"{group}={name} " for name in groups.get(group, [])]
    elif verb in ("list", "prove"):
        found = [f"{name} " for name in (groups if verb == "list" else groups["experiment"])]
    else:
        found = [f"{flag.split()[0]} " for flag in FLAGS] if verb == "train" and word.startswith("-") else []
        found += sorted({*keys(verb, words[2:], "." in word)})
    return [offer for offer in found if offer.startswith(word)]


def keys(verb: str, words: Sequence[str], deep: bool) -> Iterator[str]:
    """`group=` and `key=` of a verb; of a node its name, or with `deep` all keys below it."""
    if verb in ("train", "inspect", "lr", "evaluate"):
        yield from (f"{group}=" for group in (options() if verb != "evaluate" else ("data", "trainer")))
    if verb in ("train", "inspect", "lr"):
        yield from names(read_layout(choices(words)).tree, deep)
        yield from names({"model": read_yaml(CONFIGS / "train.yaml")["model"]}, deep)
    if verb in FILES:
        yield from names(read_yaml(CONFIGS / FILES[verb]), deep)
    if verb in MODULES:  # read, as importing is slow
        source = Path(__file__).with_name(f"{MODULES[verb].rpartition('.')[2]}.py").read_text(encoding="utf-8")
        for node in ast.parse(source).body:
            if (
                isinstance(node, ast.Assign)
                and ast.unparse(node.targets[0]) == "KEYS"
                and isinstance(node.value, ast.Dict)
            ):
                yield from (f"{ast.literal_eval(key)}=" for key in node.value.keys if key)


def names(tree: dict[str, Any], deep: bool, path: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict):
            below = list(names(value, deep, f"{path}{key}."))
            if below:
                yield from below if deep else (f"{path}{key}.",)
        elif not key.startswith("_"):
            yield f"{path}{key}="


def choices(words: Sequence[str]) -> dict[str, str]:
    """The options of a line: the default ones, then those of its model, of its experiment, and its own."""

    def chosen(file: Path) -> dict[str, str]:
        entries = [entry for entry in read_yaml(file).get("defaults", []) if isinstance(entry, dict)]
        return {key.removeprefix("override /"): value for entry in entries for key, value in entry.items()}

    given = {word.partition("=")[0]: word.partition("=")[2] for word in words}
    start = chosen(CONFIGS / "train.yaml")
    experiment = chosen(option_file("experiment", given["experiment"])) if given.get("experiment") else {}
    model = chosen(option_file("model", {**start, **experiment, **given}["model"]))
    every = {**start, **model, **experiment, **given}
    return {group: option for group, option in every.items() if group in options() and option}
