"""What a `_target_` takes, read from its source: nothing is imported, so torch stays out of a mistake's way.

A source is found by walking the path, as importing would, and parsed with `ast`; names are followed through imports
(star imports too) and base classes. What cannot be followed with certainty is unknown, and unknown is never refused.
"""

import ast
import importlib.util
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """One alternative of an annotation: int, float, bool, str, none, dict, class, any, literal, list or tuple.

    `items` are the values of a literal, the alternatives of a list's elements, or those of each place of a tuple.
    """

    name: str
    items: tuple[Any, ...] = ()


Kinds = tuple[Kind, ...]
ANY: Kinds = (Kind("any"),)


class Parameter(NamedTuple):
    module: str
    annotation: ast.expr | None
    default: ast.expr | None

    @property
    def kinds(self) -> Kinds:
        """What the annotation allows, else what is like the default. Read when asked for: that takes time."""
        kinds = _kinds(self.module, self.annotation) if self.annotation is not None else ()
        # A class counts only as a node with a `_target_`, and tells nothing alone.
        if not all(kind.name in ("class", "any", "none") for kind in kinds):
            return kinds
        try:
            return ANY if self.default is None else kinds_of(ast.literal_eval(self.default))
        except ValueError:
            return ANY


class Signature(NamedTuple):
    parameters: dict[str, Parameter]
    is_open: bool  # takes **kwargs


class Found(NamedTuple):
    module: str
    node: ast.stmt


@cache
def _spec(module: str) -> ModuleSpec | None:
    parent, _, _ = module.rpartition(".")
    if not parent:  # a top-level module: finding it imports nothing, and editable installs are seen
        try:
            return importlib.util.find_spec(module)
        except (ImportError, ValueError):
            return None
    above = _spec(parent)
    if above is None or above.submodule_search_locations is None:
        return None
    return PathFinder.find_spec(module, list(above.submodule_search_locations))


@cache
def _names(module: str) -> tuple[dict[str, ast.stmt], list[str]] | None:
    """The statement that makes each top-level name, and the modules imported with a star; None without a source."""
    spec = _spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    names: dict[str, ast.stmt] = {}
    stars: list[str] = []
    pending = list(ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body)
    while pending:
        statement = pending.pop(0)
        match statement:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                names[name] = statement
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                names[name] = statement
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                for alias in aliases:
                    if alias.name == "*" and isinstance(statement, ast.ImportFrom):
                        stars.append(_source(module, statement))
                    else:
                        names[alias.asname or alias.name] = statement
            case ast.If(body=body, orelse=rest) | ast.Try(body=body, orelse=rest):
                pending = [*body, *rest, *pending]
    return names, stars


def _source(module: str, statement: ast.ImportFrom) -> str:
    """The absolute name of the module that a `from … import` inside `module` reads."""
    if not statement.level:
        return statement.module or ""
    spec = _spec(module)
    is_package = spec is not None and spec.submodule_search_locations is not None
    parts = module.split(".")
    base = parts[: len(parts) - statement.level + (1 if is_package else 0)]
    return ".".join([*base, statement.module] if statement.module else base)


@cache
def _find(module: str, name: str, depth: int = 0) -> Found | None:
    """The class, function or assignment behind a name; None if it cannot be followed. LookupError: there is none."""
    found = _names(module)
    if found is None or depth > 10:
        return None
    names, stars = found
    statement = names.get(name)
    if isinstance(statement, ast.ImportFrom):
        original = next(alias.name for alias in statement.names if (alias.asname or alias.name) == name)
        return _find(_source(module, statement), original, depth + 1)
    if isinstance(statement, ast.Import):
        return None
    if statement is not None:
        return Found(module, statement)
    if "__getattr__" in names:
        return None
    certain = True
    for star in stars:
        try:
            behind = _find(star, name, depth + 1)
        except LookupError:
            continue
        if behind is not None:
            return behind
        certain = False
    if not certain or _spec(f"{module}.{name}") is not None:
        return None
    raise LookupError(f"{module} has no {name}")


def class_value(target: str, name: str) -> Any:
    """What a class, or the first of its bases that does, sets `name` to; None where that cannot be followed."""
    module, _, label = target.rpartition(".")
    try:
        found = _find(module, label)
        if found is None or not isinstance(found.node, ast.ClassDef):
            return None
        for statement in found.node.body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=given)]) | ast.AnnAssign(target=ast.Name(id=given)):
                    if given == name and statement.value is not None:
                        return ast.literal_eval(statement.value)
        values = (class_value(f"{found.module}.{ast.unparse(base)}", name) for base in found.node.bases)
        return next((value for value in values if value is not None), None)
    except (LookupError, ValueError):
        return None


def signature(target: str) -> Signature | None:
    """What `target` takes, without `self`; None if its source cannot be followed. LookupError: there is no target."""
    module, _, name = target.rpartition(".")
    if not module or not all(part.isidentifier() for part in target.split(".")):
        raise LookupError(f"{target} is no module and name, such as my.module.Net")
    if _spec(module) is None:
        above = module.rpartition(".")[0]
        if above and _spec(above) is not None and (inner := _names(above)) and module.rpartition(".")[2] in inner[0]:
            return None  # a method, or a class inside a class
        raise LookupError(f"there is no module {module}")
    found = _find(module, name)
    return None if found is None else _of(found)


@cache
def _of(found: Found) -> Signature | None:
    node = found.node
    if isinstance(node, ast.FunctionDef):
        return _arguments(found.module, node.args, skip=0)
    if not isinstance(node, ast.ClassDef):
        return None
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return _arguments(found.module, statement.args, skip=1)
    inherited: dict[str, Parameter] = {}
    for base in reversed(node.bases):  # as a dataclass collects its fields
        above = _of_base(found.module, base)
        if above is None:
            return None
        if above.is_open:
            return above
        inherited |= above.parameters
    if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        fields = [statement for statement in node.body if isinstance(statement, ast.AnnAssign)]
        for field in fields:
            no_argument = field.value is not None and "init=False" in ast.unparse(field.value)
            no_argument |= "ClassVar" in ast.unparse(field.annotation)
            if isinstance(field.target, ast.Name) and not no_argument:
                inherited[field.target.id] = Parameter(found.module, field.annotation, field.value)
    return Signature(inherited, False)


def _of_base(module: str, base: ast.expr) -> Signature | None:
    if ast.unparse(base) in ("object", "nn.Module", "torch.nn.Module", "pl.LightningDataModule", "ABC", "Protocol"):
        return Signature({}, False)
    if not isinstance(base, ast.Name):
        return None
    try:
        found = _find(module, base.id)
    except LookupError:
        return None
    return None if found is None else _of(found)


def _arguments(module: str, arguments: ast.arguments, *, skip: int) -> Signature:
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(positional, defaults, strict=True)][skip:]
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    parameters = {argument.arg: Parameter(module, argument.annotation, default) for argument, default in pairs}
    return Signature(parameters, arguments.kwarg is not None)


def parse(annotation: str) -> Kinds:
    """The alternatives an annotation of built-in types allows."""
    return _kinds("builtins", ast.parse(annotation, mode="eval").body)


def kinds_of(value: object) -> Kinds:
    """The kinds that are like a default: of a number a number, of a list a list; anything for None and the unknown."""
    for kind in (bool, int, float, str, list, dict):
        if type(value) is kind:
            return (Kind(kind.__name__, (ANY,) if kind is list else ()),)
    return ANY


def _kinds(module: str, node: ast.expr, depth: int = 0) -> Kinds:
    match node:
        case ast.Constant(value=None):
            return (Kind("none"),)
        case ast.Constant(value=str(text)):
            return _kinds(module, ast.parse(text, mode="eval").body, depth)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _kinds(module, left, depth) + _kinds(module, right, depth)
        case ast.Name(id="int" | "float" | "bool" | "str" | "dict" as name):
            return (Kind(name),)
        case ast.Name(id="list" | "tuple"):
            return (Kind("list", (ANY,)),)
        case ast.Name(id="Any" | "object"):
            return ANY
        case ast.Name(id="Path"):
            return (Kind("str"),)
        case ast.Name(id=name):
            return _alias(module, name, depth)
        case ast.Attribute(value=ast.Name(id="typing" | "t"), attr=name):
            return _kinds(module, ast.Name(name), depth)
        case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name), slice=inner):
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return _generic(module, name, parts, depth)
    return (Kind("class"),)


def _generic(module: str, name: str, parts: list[ast.expr], depth: int) -> Kinds:
    if name in ("Union", "Optional"):
        kinds = tuple(kind for part in parts for kind in _kinds(module, part, depth))
        return (*kinds, Kind("none")) if name == "Optional" else kinds
    if name == "Literal":
        return (Kind("literal", tuple(part.value for part in parts if isinstance(part, ast.Constant))),)
    if name.lower() == "tuple" and ast.unparse(parts[-1]) != "...":
        return (Kind("tuple", tuple(_kinds(module, part, depth) for part in parts)),)
    if name in ("list", "tuple", "List", "Tuple", "Sequence", "Iterable", "Collection"):
        return (Kind("list", (_kinds(module, parts[0], depth),)),)
    if name in ("dict", "Dict", "Mapping"):
        return (Kind("dict"),)
    if name in ("Annotated", "Final"):
        return _kinds(module, parts[0], depth)
    return (Kind("class"),)


def _alias(module: str, name: str, depth: int) -> Kinds:
    """What a name such as `Unit = Literal[…]` stands for; a class, or what cannot be followed, is a class."""
    if depth > 5 or name == "Tensor":  # torch/__init__.py is long, and no config can write a tensor
        return (Kind("class"),)
    try:
        found = _find(module, name)
    except LookupError:
        return (Kind("class"),)
    if found and isinstance(found.node, ast.Assign) and isinstance(found.node.value, ast.Subscript | ast.BinOp):
        return _kinds(found.module, found.node.value, depth + 1)
    return (Kind("class"),)


def fits(value: object, kinds: Kinds) -> bool:
    """Whether a plain value of a config is one of the alternatives; a whole number is a float too, a bool no number."""
    return any(_fits(value, kind) for kind in kinds)


def _fits(value: object, kind: Kind) -> bool:
    match kind.name:
        case "any":
            return True
        case "none":
            return value is None
        case "literal":
            return any(value == item and type(value) is type(item) for item in kind.items)
        case "float":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "list":
            return isinstance(value, list) and all(fits(item, kind.items[0]) for item in value)
        case "tuple":
            return (
                isinstance(value, list)
                and len(value) == len(kind.items)
                and all(fits(item, kinds) for item, kinds in zip(value, kind.items, strict=True))
            )
        case "dict":
            return isinstance(value, dict)
        case "class":
            return isinstance(value, dict) and "_target_" in value
        case name:
            return type(value).__name__ == name


_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "none": "null",
    "dict": "a mapping",
}


def words(kinds: Kinds) -> str:
    """What fits, for a sentence: `a number or null`, `relu or tanh`, `a list [a number, …]`."""
    parts: list[str] = []
    for kind in kinds:
        if kind.name == "literal":
            parts += [str(item) for item in kind.items]
        elif kind.name == "list":
            parts.append("a list" if kind.items[0] == ANY else f"a list [{words(kind.items[0])}, …]")
        elif kind.name == "tuple":
            parts.append("[" + ", ".join(words(item) for item in kind.items) + "]")
        elif kind.name in _WORDS and not (kind.name == "int" and Kind("float") in kinds):
            parts.append(_WORDS[kind.name])
    parts = list(dict.fromkeys(parts)) or ["a node with a _target_"]
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + f" or {parts[-1]}"
