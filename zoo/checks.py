"""Stage 1: every mistake that configs and sources can tell, refused before torch is imported.

`check` composes a command's config and holds the command and a person's files against what there is: groups and options
are files, keys are those of the files or of the target's signature (zoo/signatures.py), values have the annotation's or
the default's type. Ranges beyond the bounds below, and combinations, are checked where they are used.
"""

import itertools
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zoo.errors import ZooError
from zoo.fitting import check_task, is_foreign, readers
from zoo.layout import (
    CONFIGS,
    Layout,
    composed,
    is_global,
    one_line,
    option_file,
    options,
    read_comments,
    read_layout,
    read_option,
    read_yaml,
)
from zoo.signatures import ANY, Kind, Kinds, Signature, fits, kinds_of, parse, signature, words
from zoo.suggest import nearest, nearest_key

# Types that neither a signature nor a default, being null, can tell.
TYPES = {
    "resume": "str | None",
    "run_dir": "str | None",
    "ema_decay": "float | None",
    "early_stopping.patience": "int | None",
    "checkpoint.every_n_steps": "int | None",
    "train_examples": "int | float | None",
    "model.weights": "str | None",
    "transfer.freeze": "Literal['nothing', 'body'] | int",
    "trainer.data_on_device": "Literal['auto'] | bool",
}
Bound = tuple[str, Callable[[float], bool]]
_ABOVE_0: Bound = ("more than 0", lambda x: x > 0)
_FROM_0: Bound = ("0 or more", lambda x: x >= 0)
_FROM_1: Bound = ("1 or more", lambda x: x >= 1)
_NO_LIMIT: Bound = ("1 or more, or -1 for no limit", lambda x: x >= 1 or x == -1)
_PROPER: Bound = ("at least 0 and less than 1", lambda x: 0 <= x < 1)
# Bounds of a key of this name, wherever it stands.
BOUNDS: dict[str, Bound] = {
    **dict.fromkeys(("lr", "gradient_clip_val", "body_lr", "layer_decay", "width"), _ABOVE_0),
    **dict.fromkeys(("seed", "split_seed", "weight_decay", "l1", "l2", "num_workers"), _FROM_0),
    **dict.fromkeys(("warmup_steps", "warmup_epochs", "min_delta"), _FROM_0),
    **dict.fromkeys(("batch_size", "eval_batch_size", "num_classes", "channels", "image_size"), _FROM_1),
    **dict.fromkeys(("num_features", "accumulate_grad_batches", "log_every_n_steps"), _FROM_1),
    **dict.fromkeys(("check_val_every_n_epoch", "every_n_steps", "patience", "drop_block_size"), _FROM_1),
    **dict.fromkeys(("hidden", "layers", "embedding", "heads", "sequence_length", "window", "horizon"), _FROM_1),
    **dict.fromkeys(("length", "delay", "trials", "at_once"), _FROM_1),
    "folds": ("2 or more", lambda x: x >= 2),
    "fold": _FROM_0,
    **dict.fromkeys(("max_epochs", "max_steps"), _NO_LIMIT),
    **dict.fromkeys(("train_examples", "limit_train_batches", "limit_test_batches"), _ABOVE_0),
    **dict.fromkeys(("dropout", "aux_dropout", "label_smoothing", "stochastic_depth", "drop_block"), _PROPER),
    "ema_decay": ("more than 0 and less than 1", lambda x: 0 < x < 1),
    "devices": ("from 1 to 4096, or -1 for all", lambda x: 1 <= x <= 4096 or x == -1),
}
# Arguments that the harness passes: a signature has them, a config must not.
_PASSED = {"params", "network", "optimization", "facts", "log_every", "logger", "callbacks", "plugins"}
_PASSED |= {"default_root_dir", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"}
_PASSED |= {"num_sanity_val_steps", "use_distributed_sampler"}
_DEEPEST = 20
_HYDRA_KEYS = ("_target_", "_partial_", "_convert_", "_recursive_")


class Job(NamedTuple):
    """One run: its config, interpolations unresolved and open to new keys, and the options chosen."""

    config: DictConfig
    choices: dict[str, str]


# Reading a command ---------------------------------------------------------------------------------------------------


def name_of(argument: str) -> str:
    """The key or group an argument sets."""
    return argument.partition("=")[0].strip().lstrip("+~")


def raw_value(argument: str) -> str:
    """What stands behind the first =, such as a path, without quotes."""
    return argument.partition("=")[2].strip().strip("'\"")


def read_argument(argument: str) -> Override | None:
    """An argument as Hydra reads it; None if it cannot."""
    try:
        return OverridesParser.create().parse_override(argument)
    except (HydraException, ValueError):  # ValueError: a number of thousands of digits
        return None


def check_form(arguments: Sequence[str]) -> None:
    """Refuse what lacks a side of its =, brackets in brackets without end, a second choice of what is chosen once."""
    given: dict[str, str] = {}
    for argument in arguments:
        if max(itertools.accumulate((c in "[{(") - (c in ")}]") for c in argument), default=0) > _DEEPEST:
            raise ZooError(f"{argument}: more than {_DEEPEST} brackets inside each other are not read.")
        name, value = name_of(argument), argument.partition("=")[2].strip()
        if "=" in argument and not (name and value):
            raise ZooError(f"{argument}: write key=value, with something on both sides of the =.")
        if name in given and name in (*options(), "resume", "run_dir", "ckpt_path"):
            raise ZooError(f"{argument}: {given[name]} was given already; one {name} can be chosen.")
        given[name] = argument


def _did_you_mean(meant: str | None, key: str = "") -> str:
    return f" Did you mean {key}{meant}?" if meant else ""


def _listed(names: Sequence[str]) -> str:
    text = ", ".join(names)
    return text if len(text) <= 400 else text[:400].rpartition(",")[0] + ", …"


def _check_choice(argument: str, override: Override | None) -> None:
    """Refuse a group's option that is not there, or that cannot be chosen so."""
    group, value = name_of(argument), argument.partition("=")[2].strip()
    there = options()[group]
    if override is not None and override.is_delete():
        raise ZooError(
            f"{argument}: a group cannot be taken away.{_did_you_mean(argument[1:])} There is: {_listed(there)}."
        )
    is_sweep = override is not None and override.is_sweep_override()
    names = [value] if override is None else values_of(override) if is_sweep else [str(override.value())]
    if not set(names) <= set(there):
        of_others = [f"{other}={value}" for other, found in options().items() if value in found]
        meant = nearest(value, there)
        hint = of_others[0] if of_others else f"{group}={meant}" if meant else None
        raise ZooError(
            f"{argument}: there is no {group} {value}.{_did_you_mean(hint)}\nThere is: {_listed(there) or 'none'}."
        )
    if is_sweep:
        raise ZooError(f"{argument}: more than one value is a sweep, which needs -m.")
    if override is not None and (override.is_add() or override.is_force_add()):
        raise ZooError(f"{argument}: an option is chosen without a +. Did you mean {group}={value}?")


def values_of(override: Override) -> list[str]:
    """The values of one argument: those of a sweep, the ends of an interval, else its own."""
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    if isinstance(override._value, Glob):
        return override._value.filter(options().get(override.key_or_group, []))
    if isinstance(override._value, IntervalSweep):
        return [str(override._value.start), str(override._value.end)]
    return list(override.sweep_string_iterator())


def check_sweep(arguments: Sequence[str]) -> None:
    """Refuse a sweep of which any job has a mistake. Values are checked with every choice of options, once each."""
    choices: list[list[str]] = []
    values: list[list[str]] = []
    for argument in arguments:
        override = read_argument(argument)
        if override is None:
            check([argument])
        elif not argument.startswith(("hydra.", "hydra/")):
            name = name_of(argument)
            jobs = [f"{override.get_key_element()}={value}" for value in values_of(override)]
            if override.is_delete():
                jobs = [argument]
            if not jobs:
                raise ZooError(f"{argument}: this chooses nothing. There is: {_listed(options().get(name, []))}.")
            if name in ("resume", "run_dir"):
                raise ZooError(f"{argument}: no sweep takes this; hydra.sweep.dir=… names the folder of all runs.")
            (choices if name in options() else values).append(jobs)
    first = [jobs[0] for jobs in values]
    for choice in itertools.product(*choices):
        check([*choice, *first])
        for place, jobs in enumerate(values):
            for job in jobs[1:]:
                check([*choice, *first[:place], job, *first[place + 1 :]])


def check(arguments: Sequence[str]) -> Job:
    """The job that a command's arguments make. ZooError: the first mistake in them, or in the files they choose."""
    check_form(arguments)
    overrides = [(argument, read_argument(argument)) for argument in arguments]
    chosen: dict[str, str] = {}
    for argument, override in overrides:
        name = name_of(argument)
        if name in options() and ("=" in argument or (override is not None and override.is_delete())):
            _check_choice(argument, override)
            chosen[name] = argument
    config, choices = composed(tuple(chosen.values()))
    config, layout = deepcopy(config), read_layout(choices)
    values = [(argument, override) for argument, override in overrides if argument not in chosen.values()]
    apply(config, layout, values)
    if not any(name_of(argument).endswith("._target_") for argument in arguments):  # a person's own takes what it takes
        check_task(choices, _plain(config.data))
    return Job(config, choices)


def check_saved(
    file: Path | None, arguments: Sequence[str], *, groups: Sequence[str] = (), nodes: Sequence[str] = ()
) -> dict[str, Any]:
    """Hold further values against a stored config, and return them by key.

    Options may be chosen in `groups`, values set in `nodes` (everywhere, if none is given). Without a file only
    `trainer` and what the options chosen bring can be told; the rest is checked when the checkpoint is read.
    """
    tree = dict(read_yaml(file)) if file else {}
    chosen = [argument for argument in arguments if name_of(argument) in groups and "=" in argument]
    for argument in chosen:
        _check_choice(argument, read_argument(argument))
    if chosen or not file:
        base = _plain(composed(tuple(chosen))[0])
        tree |= {name: base[name] for name in map(name_of, chosen)}
        tree.setdefault("trainer", base["trainer"])
    values = [(argument, read_argument(argument)) for argument in arguments if argument not in chosen]
    own = [key for key in _keys(tree) if not nodes or (key.partition(".")[0] in nodes and key not in nodes)]
    known = [*read_yaml(CONFIGS / "evaluate.yaml"), *groups, *own]
    for argument, _ in values:
        name = name_of(argument)
        if argument.startswith(("+", "~")):
            raise ZooError(f"{argument}: a stored config is changed without + and ~.")
        if "=" not in argument:
            raise ZooError(_unreadable(argument, known))
        if nodes and (name in nodes or name.partition(".")[0] not in nodes):
            hint = _did_you_mean(nearest_key(name, known))
            raise ZooError(f"{argument}: there is no key {name} among {', '.join(nodes)}.{hint}")
    known_nodes = [pair for pair in values if name_of(pair[0]).partition(".")[0] in tree]
    comments = read_comments(file) if file and file.parent == CONFIGS else {}
    apply(OmegaConf.create(tree), Layout(tree, comments, {}), known_nodes, only_given=True)
    return {name_of(argument): override.value() for argument, override in values if override}


def read_choice(argument: str) -> dict[str, Any]:
    """The keys that a choice, such as trainer=cpu, brings."""
    _check_choice(argument, read_argument(argument))
    return read_option(name_of(argument), raw_value(argument)).tree


def known_keys() -> list[str]:
    """Every key of the default config, and every group."""
    return _keys(_plain(composed(())[0]))


def apply(
    config: DictConfig,
    layout: Layout,
    overrides: Sequence[tuple[str, Override | None]],
    *,
    only_given: bool = False,
) -> None:
    """Set values in a config, then hold it, or what was given, against the layout and the signatures of its targets."""
    for argument, override in sorted(overrides, key=lambda pair: not name_of(pair[0]).endswith("._target_")):
        known = _keys(_plain(config))
        if override is None or ("=" not in argument and not override.is_delete()):
            raise ZooError(_unreadable(argument, known))
        _set(argument, override, config, known)
    plain = _plain(config)
    # the model refers to the data, so it comes last: a wrong value is told where it stands
    for path, parent, value in sorted(_walk(plain), key=lambda item: item[0].startswith("model.")):
        given = [argument for argument, _ in overrides if f"{path}.".startswith(f"{name_of(argument)}.")]
        if (given or not only_given) and (problem := _problem(path, parent, value, config, layout)):
            if path.startswith(("data.", "task.")) and not given:  # perhaps what a model sets for another kind of them
                check_task(layout.choices, plain["data"])
            lacks = path.startswith("model.") and problem.startswith("needs data.")
            group = path.split(".")[0]
            stated = lacks or (value == "???" and group in layout.choices)
            origin = f"{group}={layout.choices.get(group)}" if stated else _origin(path, value, layout)
            raise ZooError(f"{given[-1] if given else origin}: {problem}")


def _unreadable(argument: str, known: Sequence[str]) -> str:
    name, equals, value = argument.partition("=")
    if argument.startswith("hydra"):
        return f"{argument}: not readable as key=value."
    if not equals:
        choices = [f"{group}={option}" for group, names in options().items() for option in names]
        named = [choice for choice in choices if choice.endswith(f"={name}")]
        meant = named[0] if named else nearest_key(name, list(options())) or nearest(name, [*choices, *known])
        meant = meant if meant is None or "=" in meant else f"{meant}=…"
        return f"{argument}: write group=option or key=value.{_did_you_mean(meant)}"
    if name_of(argument) in known:
        return f"{argument}: the value cannot be read. Did you mean {name}='\"{value}\"'?"
    return f"{argument}: there is no key {name_of(argument)}.{_did_you_mean(nearest_key(name, known))}"


def _plain(config: Any) -> dict[str, Any]:
    return OmegaConf.to_container(config)  # type: ignore[return-value]


def _walk(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any], Any]]:
    for key, value in node.items():
        here = f"{path}.{key}" if path else str(key)
        yield here, node, value
        if isinstance(value, dict):
            yield from _walk(value, here)


def _keys(plain: dict[str, Any]) -> list[str]:
    """Every key that can be written: those there are, the groups, then those that targets would take besides."""
    known = list(dict.fromkeys([*(path for path, _, _ in _walk(plain)), *options()]))
    for path, _, value in _walk(plain):
        if isinstance(value, dict) and (takes := _signature(value)):
            known += [f"{path}.{name}" for name in takes.parameters if name not in value and name not in _PASSED]
    return known


def _signature(node: dict[str, Any]) -> Signature | None:
    try:
        return signature(str(node["_target_"])) if "_target_" in node else None
    except LookupError:
        return None


def _get(tree: Any, path: str) -> Any:
    """The value at a dotted path; `...` if there is none."""
    for part in path.split("."):
        if isinstance(tree, dict) and part in tree:
            tree = tree[part]
        elif isinstance(tree, list) and part.isdigit() and int(part) < len(tree):
            tree = tree[int(part)]
        else:
            return ...
    return tree


def _set(argument: str, override: Override, config: DictConfig, known: Sequence[str]) -> None:
    """Do to a config what an argument says, or say why it cannot be."""
    path = override.key_or_group
    plain = _plain(config)
    there = _get(plain, path) is not ...
    above, _, key = path.rpartition(".")
    parent = _get(plain, above) if above else plain
    if path.startswith("hydra.") or "/" in path or override.package is not None or not (there or path in known):
        raise ZooError(f"{argument}: {_unknown(path, parent, known)}")
    if override.is_sweep_override():
        raise ZooError(f"{argument}: more than one value is a sweep, which needs -m.")
    if override.is_delete():
        takes = _signature(parent) if there and isinstance(parent, dict) and above != "trainer" else None
        if takes is None or (key in takes.parameters and takes.parameters[key].default is None):
            raise ZooError(f"{argument}: {path} is needed. Did you mean {path}=…?")
        if override.value() not in (None, _get(plain, path)):
            raise ZooError(f"{argument}: {path} is {_get(plain, path)}. Did you mean ~{path}?")
        OmegaConf.update(config, above, {name: value for name, value in parent.items() if name != key}, merge=False)
        return
    plus = override.is_add() or override.is_force_add()
    if not there and not plus:
        raise ZooError(f"{argument}: the config does not set {path}, so it takes a +. Did you mean +{path}?")
    if there and override.is_add():
        raise ZooError(f"{argument}: the config has {path}: write it without +. Did you mean {path}?")
    try:
        OmegaConf.update(config, path, override.value(), merge=True, force_add=plus)
    except OmegaConfBaseException as error:  # a list for a mapping, a reference that cannot be read
        raise ZooError(f"{argument}: {one_line(error).partition(' full_key:')[0]}.") from None


def _unknown(path: str, parent: Any, known: Sequence[str]) -> str:
    node, _, key = path.rpartition(".")
    others = [option for option in options().get(node, []) if key in read_option(node, option).tree]
    meant = nearest_key(path, known)
    if meant and others and not meant.startswith(f"{node}."):  # the key is right: another option has it
        meant = None
    text = f"there is no key {path}.{_did_you_mean(meant)}"
    if meant is None and isinstance(parent, dict) and node:
        text += f"\n{node} has: {_listed([key for key in parent if not key.startswith('_')])}."
    return text + (f"\nOther options have it: {_listed([f'{node}={option}' for option in others])}." if others else "")


# Holding a config against what there is ------------------------------------------------------------------------------


def _problem(path: str, parent: dict[str, Any], value: Any, config: DictConfig, layout: Layout) -> str | None:
    """What is wrong with one key and its value."""
    above, _, key = path.rpartition(".")
    if key == "_target_":
        return _wrong_target(str(value), above, parent)
    if key in _HYDRA_KEYS:
        return None
    declared = _get(layout.tree, path)
    takes = _signature(parent)
    if takes is not None:
        known = (key in takes.parameters and key not in _PASSED) or takes.is_open or path in TYPES
    elif "_target_" in parent:
        known = True
    else:  # a mapping, of which the files name all keys or none
        known = declared is not ... or (above != "" and _get(layout.tree, above) in (None, {}, ...))
    if not known:
        text = f"there is no key {path}" if takes is None else f"{parent['_target_']} takes no {key}"
        return text + f".{_did_you_mean(nearest_key(path, [k for k in _keys(layout.tree) if k != path]))}"
    if value == "???":
        return f"needs a value: add {path}=…"
    if isinstance(value, str) and "${" in value:
        try:
            value = _plain(OmegaConf.create({"value": OmegaConf.select(config, path)}))["value"]
        except OmegaConfBaseException as error:
            lacking = re.search(r"Interpolation key '(\w+)(\S*)' not found", str(error))
            if lacking is None:
                return one_line(error)
            option = layout.choices.get(lacking[1])
            place = f"{lacking[1]}={option} does not have" if option else "the config does not have"
            data, names = layout.tree.get("data", {}), layout.choices
            advice = readers(data, names.get("data", "")) if is_foreign(names.get("model", ""), data) else ""
            return f"needs {lacking[1]}{lacking[2]}, which {place}.{advice}"
        if value is None:  # a fact that only the files of the data know
            return None
    return _wrong_value(path, value, declared, takes, layout)


def _wrong_target(target: str, above: str, node: dict[str, Any]) -> str | None:
    if target.partition(".")[0] in sys.stdlib_module_names:
        return "must be of zoo, torch, torchvision or a module of yours, and this is of Python's standard library."
    try:
        takes = signature(target)
    except LookupError as error:
        return f"{error.args[0]}."
    for name, parameter in takes.parameters.items() if takes and above == "model" else ():
        if parameter.default is None and name not in node:
            return f"{target} needs {name}: add +{above}.{name}=…"
    return None


def _wrong_value(path: str, value: Any, declared: Any, takes: Signature | None, layout: Layout) -> str | None:
    """Whether a value is of another type, out of its bounds, or none of the values a comment lists."""
    key = path.rpartition(".")[2]
    kinds: Kinds = ANY
    if path.startswith("swap."):  # the arguments of a function that no config names
        takes = signature("zoo.swaps.swap")
    if path in TYPES:
        kinds = parse(TYPES[path])
    elif takes is not None and key in takes.parameters:
        kinds = takes.parameters[key].kinds
    elif declared is not ... and not (isinstance(declared, str) and "${" in declared):
        kinds = kinds_of(declared)
    listed = re.match(r"\w[\w.-]*(?: \| \w[\w.-]*)+(?=$| [(;,]|[,;])", layout.comments.get(path, ""))
    if listed and isinstance(value, str) and declared in (names := listed[0].split(" | ")):
        kinds = (Kind("literal", tuple(names)),)
    if path.startswith("trainer.") and isinstance(value, dict) and "_target_" in value:
        return "must be a name: nothing is built here."
    if not fits(value, kinds):
        literals = [str(item) for kind in kinds if kind.name == "literal" for item in kind.items]
        return f"must be {words(kinds)}.{_did_you_mean(nearest(str(value), literals), f'{path}=')}"
    if key in BOUNDS and isinstance(value, int | float) and not isinstance(value, bool) and not BOUNDS[key][1](value):
        return f"must be {BOUNDS[key][0]}."
    return None


def _origin(path: str, value: Any, layout: Layout) -> str:
    """Where a value that no argument gave stands: `configs/experiment/mine.yaml: sed: 9`."""
    text = f"{path}: {value}" if not isinstance(value, dict) else path
    for group in ("debug", "experiment", "model", *options()):
        if group in layout.choices:
            file = option_file(group, layout.choices[group])
            if _get(read_yaml(file), path if is_global(file) else path.removeprefix(f"{group}.")) is not ...:
                return f"{file.parent.parent.name}/{group}/{file.name}: {text}"
    return text
