"""What configs/ declares: groups and options are files; keys, defaults and comments stand in them. Nothing is built."""

import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from zoo.errors import ZooError

_PACKAGED = Path(__file__).parent / "configs"  # where a wheel has them
CONFIGS = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[1] / "configs"
_GLOBAL = "# @package _global_"


class Layout(NamedTuple):
    """What files declare: keys with their defaults, the comments behind keys (dotted), and the options they are of."""

    tree: dict[str, Any]
    comments: dict[str, str]
    choices: dict[str, str]


@cache
def options() -> dict[str, list[str]]:
    """The options of each group: the files of its folder. Hydra's own groups are not among them."""
    folders = sorted(folder for folder in CONFIGS.iterdir() if folder.is_dir() and folder.name != "hydra")
    return {
        folder.name: sorted(file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.yaml"))
        for folder in folders
    }


@cache
def read_yaml(file: Path) -> dict[str, Any]:
    """A config file as plain data."""
    try:
        content = OmegaConf.to_container(OmegaConf.load(file))
    except (OSError, ValueError, OmegaConfBaseException, YAMLError) as error:
        raise ZooError(f"{file}: not readable as YAML: {one_line(error)}") from error
    return content if isinstance(content, dict) else {}  # type: ignore[return-value]


@cache
def read_comments(file: Path) -> dict[str, str]:
    """The comment behind each key of a config file, by dotted key; empty where there is none."""
    found: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"( *)(\w+):(?: .*?)??(?:\s+#\s*(.*))?$", line):
            above = [*(outer for outer in above if outer[0] < len(match[1])), (len(match[1]), match[2])]
            found[".".join(name for _, name in above)] = match[3] or ""
    return found


def option_file(group: str, option: str) -> Path:
    return CONFIGS / group / f"{option}.yaml"


def is_global(file: Path) -> bool:
    """Whether the keys of an option's file are those of the whole config, not of its group's node."""
    return file.read_text(encoding="utf-8").startswith(_GLOBAL)


@cache
def read_option(group: str, option: str) -> Layout:
    """What an option declares in its group's own node, with the options of the group it builds on."""
    file = option_file(group, option)
    tree, notes = read_yaml(file), read_comments(file)
    if is_global(file):
        tree, start = tree.get(group, {}) | {"defaults": tree.get("defaults")}, f"{group}."
        notes = {key.removeprefix(start): note for key, note in notes.items() if key.startswith(start)}
    for entry in tree.get("defaults") or []:
        if isinstance(entry, str) and entry in options()[group]:
            below = read_option(group, entry)
            merged = OmegaConf.to_container(OmegaConf.merge(below.tree, tree))
            tree, notes = merged, below.comments | notes  # type: ignore[assignment]
    return Layout({key: value for key, value in tree.items() if key != "defaults"}, notes, {group: option})


def read_layout(choices: dict[str, str]) -> Layout:
    """What train.yaml and the chosen options declare; an experiment declares nothing but `expect`."""
    file = CONFIGS / "train.yaml"
    tree = {key: value for key, value in read_yaml(file).items() if key not in ("defaults", "hydra")}
    notes = dict(read_comments(file))
    for group, option in choices.items():
        if group == "experiment":
            tree |= {key: value for key, value in read_yaml(option_file(group, option)).items() if key == "expect"}
        elif group != "debug":
            own = read_option(group, option)
            tree[group] = own.tree
            notes |= {f"{group}.{key}": note for key, note in own.comments.items()}
    return Layout(tree, notes, choices)


@cache
def composed(arguments: tuple[str, ...]) -> tuple[DictConfig, dict[str, str]]:
    """The config that choices of options make, and all choices. Copy it before writing to it."""
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            config = compose("train", overrides=list(arguments), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise ZooError(one_line(error)) from error
    chosen = OmegaConf.to_container(config.hydra.runtime.choices)
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    return config, {group: str(chosen[group]) for group in options() if chosen.get(group)}  # type: ignore[index, call-overload, union-attr]


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
