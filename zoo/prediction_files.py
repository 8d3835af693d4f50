"""Where verbs write what a person asked for: whole or not at all, and never over something else."""

import csv
import io
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from zoo.errors import ZooError
from zoo.folders import remove_empty

Table = tuple[list[str], list[list[str]]]  # the names of the columns, and the rows


def shown(value: float) -> str:
    return f"{value:.6g}"


def target_of(out: str | None, default: Path, ending: str) -> Path:
    """Where to write: `out`, or `default` with a number behind it where that is taken. Refuses to overwrite.

    `ending` is that of the file; "" is a folder. An `out` that is a folder gets a file called as `default`.
    """
    if out is None:
        number, target = 1, default
        while target.exists():
            number += 1
            target = default.with_name(f"{default.name.removesuffix(ending)}_{number}{ending}")
        return target
    target = Path(out).expanduser()
    if target.name in ("", ".."):
        raise ZooError(f"out={out}: must name a file or a folder that is to be made.")
    if ending and (target.is_dir() or out.endswith("/")):
        target = target / default.name
    if ending and target.suffix.lower() != ending:
        raise ZooError(f"out={out}: must end in {ending}, or be a folder.")
    if not ending and target.suffix and not target.is_dir():
        raise ZooError(f"out={out}: must be a folder, a name without ending: pictures and a table are written to it.")
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ZooError(f"out={out}: {target} is there already; name another, or move it away.")
    return target


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A path beside `target` to write a file or a folder to; in the end it is called `target`, or is gone."""
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    made = [folder for folder in aside.parents if not folder.exists()]
    try:
        aside.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ZooError(f"out={target}: lies below a file; name another place.") from None
    except OSError as error:
        reason = (error.strerror or "cannot be made").lower()
        raise ZooError(f"out={target}: {reason}; name another place.") from None
    try:
        yield aside
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise ZooError(f"{target} was made by something else meanwhile; name another with out=…")
        if target.is_dir():
            target.rmdir()
        os.replace(aside, target)
    finally:
        if aside.is_dir():
            shutil.rmtree(aside)
        aside.unlink(missing_ok=True)
        remove_empty(made)


def unused(names: Sequence[str], taken: Collection[str]) -> list[str]:
    """The names of columns, with a _ behind those that a person's own column has."""
    found = []
    for name in names:
        while name in taken:
            name += "_"
        found.append(name)
    return found


def write_csv(path: Path, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.StringIO()
    csv.writer(content, lineterminator="\n").writerows([head, *rows])
    path.write_bytes(content.getvalue().encode("utf-8", "surrogateescape"))  # names of files may be no text
