"""The words `key=value` of a verb, read by a table of its keys; a wrong one is a sentence.

read(["n=3", "out=null"], {"ckpt_path": Key(), "n": Key(whole(1), 64), "out": Key()})  →  {"n": 3}
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zoo.errors import ZooError
from zoo.suggest import nearest

MOST = 1_000_000  # pictures or texts: what memory holds


class Key(NamedTuple):
    """How a value is read, which raises ValueError that says what it must be, and what stands for it when not given.

    With the default None the word `null` may be given, which is the default; with "" no value at all.
    """

    read: Callable[[str], Any] = str
    default: Any = None


def real(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError("must be a number.") from None


def truth(value: str) -> bool:
    if value not in ("true", "false"):
        raise ValueError("must be true or false.")
    return value == "true"


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    def read_whole(value: str) -> int:
        if not value.isdecimal() or len(value) > 100 or int(value) < least:
            raise ValueError(f"must be a whole number, at least {least}.")
        if most is not None and int(value) > most:
            raise ValueError(f"must be at most {most}.")
        return int(value)

    return read_whole


def defaults(keys: Mapping[str, Key]) -> dict[str, Any]:
    return {name: key.default for name, key in keys.items()}


def read(words: Sequence[str], keys: Mapping[str, Key]) -> dict[str, Any]:
    """The keys that were given, with their values; of a key that stands twice the last."""
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals and Path(word).exists():
            raise ZooError(f"{word}: write key=value. Did you mean ckpt_path={word}?")
        if name not in keys:
            near = nearest(name, list(keys))
            hint = f"Did you mean {near}?" if near else f"There is {', '.join(keys)}."
            raise ZooError(f"{word}: there is no key {name}. {hint}")
        if not equals or (not value and keys[name].default != ""):
            raise ZooError(f"{word}: write {name}=value, or leave it out.")
        if value == "null" and keys[name].default is None:
            found.pop(name, None)
            continue
        try:
            found[name] = keys[name].read(value)
        except ValueError as error:
            raise ZooError(f"{name}={value}: {error}") from None
    return found
