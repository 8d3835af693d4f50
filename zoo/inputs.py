"""What the numbers of a run depend on, as one hash: its config, the code that it runs, the data files that it reads.

The code is that of the modules that the config's `_target_`s live in, of `zoo.network`, which gives the first weights,
and of every module of `zoo` that these import, inside functions too. It is hashed as a syntax tree without docstrings:
comments and layout change nothing. `HARNESS` is not followed: it carries, guards and reports and moves no number, which
tests of exact resuming and evaluation hold it to. Versions of packages and the device are not in the hash: each result
names them.

Nothing is imported, so the hash of another commit's checkout is that of `root=<its folder>`.
"""

import ast
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]  # the folder that `zoo` lies in
RUN_ONLY = ("resume", "trust", "run_dir", "experiment", "debug", "expect", "logger")  # keys that move no number
ALWAYS = ("zoo.network",)
JUDGING = ("zoo.judging",)
HARNESS = frozenset(
    f"zoo.{name}"
    for name in (
        *("run", "build", "checks", "checkpoint", "conditions", "devices", "evaluation", "fitting", "folders", "keys"),
        *("layout", "logs", "pictures", "processes", "progress", "report", "sharding", "signals", "signatures"),
        *("suggest", "summary"),
    )
)
DIGITS = 8  # hexadecimal, of a hash


class Source(NamedTuple):
    """What a module's file says: a hash of its code, what it imports, and its definitions for `strings_of`."""

    digest: str
    imports: frozenset[str]  # modules, and names in modules: `zoo.losses`, `zoo.errors.ZooError`
    origins: dict[str, str]  # an imported name → the dotted name it stands for
    names: dict[str, frozenset[str]]  # a definition → the names in it
    strings: dict[str, frozenset[str]]  # a definition → the strings in it


def inputs_hash(config: dict[str, Any], *, root: Path = ROOT) -> str:
    """The hash of a resolved config and of what it runs and reads in the checkout `root`."""
    kept = {name: value for name, value in config.items() if name not in RUN_ONLY}
    files = {file.name: _digest_of(file, _stamp(file)) for file in data_files(config, root=root)}
    return _hash({"config": kept, "code": _digests(code(config, root=root)), "files": files})


def judged_hash(inputs: str, judge: str, *, root: Path = ROOT) -> str:
    """The hash of what a judgement depends on: the inputs of the two runs, and the code that judges."""
    return _hash({"inputs": inputs, "judge": judge, "code": _digests(closure(JUDGING, root=root))})


def code(config: dict[str, Any], *, root: Path = ROOT) -> dict[str, Path]:
    """The modules of `zoo` that a run of a config runs, with their files."""
    modules = (target.rpartition(".")[0] for target in targets(config))
    return closure([*ALWAYS, *modules], root=root)


def targets(config: Any) -> Iterator[str]:
    """Every `_target_` in a plain config, at any depth."""
    if isinstance(config, dict):
        if "_target_" in config:
            yield str(config["_target_"])
        for value in config.values():
            yield from targets(value)
    elif isinstance(config, list):
        for value in config:
            yield from targets(value)


def closure(modules: Iterable[str], *, root: Path = ROOT) -> dict[str, Path]:
    """The modules of `zoo` among `modules`, and those that they import, at any distance; sorted."""
    found: dict[str, Path] = {}
    seen = set(HARNESS)
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if file := _file(name, root):
            found[name] = file
            waiting += _read(file).imports
        else:
            waiting.append(name.rpartition(".")[0])  # `name` is something in a module; a package computes nothing
    return dict(sorted(found.items()))


def data_files(config: dict[str, Any], *, root: Path = ROOT) -> list[Path]:
    """The embedded files that the config's data set reads: those that its class, or what that refers to, names."""
    folder = root / "zoo" / "data" / "files"
    target = str(config.get("data", {}).get("_target_", ""))
    strings = strings_of(target, root=root)
    return sorted(file for file in folder.glob("*") if file.name in strings)


def strings_of(name: str, *, root: Path = ROOT) -> set[str]:
    """The strings in the definition of a dotted name in `zoo` and in all definitions that it refers to."""
    seen: set[str] = set()
    strings: set[str] = set()
    waiting = [name]
    while waiting:
        name = waiting.pop()
        module, _, own = name.rpartition(".")
        if name in seen or (file := _file(module, root)) is None:
            continue
        seen.add(name)
        source = _read(file)
        if own in source.origins:
            waiting.append(source.origins[own])
        elif own in source.names:
            strings |= source.strings[own]
            waiting += [f"{module}.{other}" for other in source.names[own] & (source.names.keys() | source.origins)]
    return strings


# Files ----------------------------------------------------------------------------------------------------------------


def _file(module: str, root: Path) -> Path | None:
    """The file of a module of `zoo`; None for a package, for what is no module, and for other packages' modules."""
    place = f"{root}/{module.replace('.', '/')}.py"
    return Path(place) if module.startswith("zoo.") and os.path.isfile(place) else None


def _read(file: Path) -> Source:
    return _parse(file, _stamp(file))


def _stamp(file: Path) -> tuple[int, int]:
    """What changes when a file is written."""
    state = file.stat()
    return state.st_mtime_ns, state.st_size


@cache
def _digest_of(file: Path, stamp: tuple[int, int]) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@cache
def _parse(file: Path, stamp: tuple[int, int]) -> Source:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    origins: dict[str, str] = {}
    imports: set[str] = set()
    for node in ast.walk(tree):  # of the whole tree: imports inside functions, too
        if isinstance(node, ast.Import):
            imports |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:  # we import by whole names: no `from . import`
            imports |= {f"{node.module}.{alias.name}" for alias in node.names}
            origins |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    names: dict[str, frozenset[str]] = {}
    strings: dict[str, frozenset[str]] = {}
    for statement in tree.body:
        parts = list(ast.walk(statement))
        for name in _defined(statement):
            names[name] = frozenset(part.id for part in parts if isinstance(part, ast.Name))
            strings[name] = frozenset(str(part.value) for part in parts if isinstance(part, ast.Constant))
    digest = hashlib.sha256(json.dumps(_plain(tree)).encode()).hexdigest()
    return Source(digest, frozenset(imports), origins, names, strings)


def _defined(node: ast.stmt) -> list[str]:
    """The names that a statement at a module's top defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]


def _plain(node: Any) -> Any:
    """A syntax tree without docstrings and places, in a form that all versions of Python have in common."""
    if isinstance(node, ast.AST):
        has_docstring = (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        )
        fields = [
            (name, value[1:] if has_docstring and name == "body" else value) for name, value in ast.iter_fields(node)
        ]
        # absent fields are not the same ones in every version
        return [type(node).__name__, *([name, _plain(value)] for name, value in fields if value not in (None, []))]
    return [_plain(item) for item in node] if isinstance(node, list) else repr(node)


def _digests(modules: dict[str, Path]) -> dict[str, str]:
    return {name: _read(file).digest for name, file in modules.items()}


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:DIGITS]
