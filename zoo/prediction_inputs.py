"""A person's own files as inputs of a trained network, prepared as in its training; what cannot be read is listed.

`described` is what a checkpoint says of itself (`checkpoint["zoo"]`). Readers are iterated once, a batch at a time;
`rows` (what stands before each answer) and `skipped` (name and reason) grow meanwhile.
"""

import math
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from zoo.data import tables, text
from zoo.data.arrays import ArraySplit
from zoo.data.image_files import SUFFIXES, Scan, decode_or_reason, reason, to_array, traits
from zoo.data.loaders import Batch
from zoo.data.own import listed, note
from zoo.data.sequences import PixelSplit
from zoo.errors import ZooError
from zoo.prediction_files import unused
from zoo.randomness import key, permutation

Described = dict[str, Any]
Part = TypeVar("Part", bound=Sequence[Any])


class Inputs(Protocol):
    """Batches of examples that could be read. `example` in a batch: which of `rows` each belongs to, if not its own."""

    head: list[str]
    rows: list[list[str]]
    skipped: list[tuple[str, str]]

    def __iter__(self) -> Iterator[Batch]: ...


def told(parts: Sequence[Part]) -> Iterator[Part]:
    """The parts one by one; a bar on a terminal, or a line every 10 s elsewhere, says how far it is."""
    total, done, due = sum(map(len, parts)), 0, time.monotonic() + 10
    on_terminal = sys.stderr.isatty()
    columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not on_terminal) as bar:
        line = bar.add_task("", total=total)
        for part in parts:
            yield part
            bar.advance(line, len(part))
            done += len(part)
            if not on_terminal and time.monotonic() > due:
                print(f"predicting: {done:,} of {total:,}", file=sys.stderr, flush=True)
                due = time.monotonic() + 10


def chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[first : first + size] for first in range(0, len(items), size)]


# Pictures -------------------------------------------------------------------------------------------------------------


def find_pictures(source: Path) -> list[tuple[str, Path]]:
    """The one picture, or those of a folder and the folders in it, by the name they go by: relative to the folder."""
    if not source.is_dir():
        return [(source.name, source)]
    found = Scan()
    found.add(source, None, None)
    if found.others:
        note(f"{found.others} files in {source} are not images by their names: left out.")
    if not found.images:
        raise ZooError(f"input={source}: holds no image ({', '.join(sorted(SUFFIXES))}).")
    return sorted((item.path.relative_to(source).as_posix(), item.path) for item in found.images)


def decode_photo(path: Path, *, image_size: int, resize: int) -> np.ndarray | str:
    """As `zoo.data.photos` in evaluation: the shorter side resized, then the centre; or the reason why not."""
    try:
        with Image.open(path) as file:
            return to_array(F.center_crop(F.resize(file.convert("RGB"), [resize]), [image_size] * 2))
    except Exception as error:  # decoders of damaged files raise nearly anything
        return reason(error)


class Pictures:
    """Picture files as training saw pictures of any size: their centre, resized. Grey or colour as the network has."""

    head = ["file"]  # noqa: RUF012

    def __init__(self, source: Path, described: Described, batch_size: int) -> None:
        self.rows: list[list[str]] = []
        self.skipped: list[tuple[str, str]] = []
        self.found, self.batch_size = find_pictures(source), batch_size
        self.facts, self.data = described["preprocessing"], described["config"]["data"]
        if "image_size" in self.facts:
            self.channels, self.size = self.facts["channels"], self.facts["image_size"]
        else:  # one whose pixels are read as a sequence
            self.channels, self.size = 1, math.isqrt(self.facts["num_features"] * self.facts["sequence_length"])

    def decode(self, path: Path) -> np.ndarray | str:
        if isinstance(head := traits(path), str):
            return head
        if "resize" in self.facts:
            return decode_photo(path, image_size=self.size, resize=self.facts["resize"])
        return decode_or_reason(path, channels=self.channels, image_size=self.size)

    def split(self, images: Tensor) -> ArraySplit:
        """Pictures uint8 (N, C, S, S), to be normalised, as a split without targets."""
        options: dict[str, Any] = {"mean": self.facts["mean"], "std": self.facts["std"]}
        if "image_size" in self.facts:
            return ArraySplit(images, torch.zeros(len(images)), **options)
        pixels = PixelSplit(images, torch.zeros(len(images)), **options)
        count = images[0].numel()
        shuffled = self.data.get("permute")
        pixels.order = permutation(key(self.data["split_seed"], "pixels"), count) if shuffled else torch.arange(count)
        pixels.features = self.facts["num_features"]
        return pixels

    def __iter__(self) -> Iterator[Batch]:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for part in told(chunks(self.found, self.batch_size)):
                images = []
                for (name, _), image in zip(part, pool.map(self.decode, [path for _, path in part]), strict=True):
                    if isinstance(image, str):
                        self.skipped.append((name, image))
                    else:
                        self.rows.append([name])
                        images.append(image)
                if images:
                    positions = torch.arange(len(self.rows) - len(images), len(self.rows))
                    split = self.split(torch.from_numpy(np.stack(images)))
                    batch = split.batch(0, positions, torch.arange(len(images)))
                    yield {"input": batch["input"], "position": positions}


# Tables ---------------------------------------------------------------------------------------------------------------


def read_bytes(source: Path) -> bytes:
    if source.is_dir():
        raise ZooError(f"input={source}: is a folder; this network reads one file, so name it.")
    return source.read_bytes()  # what the system refuses is told by zoo.cli


def mend(error: ZooError) -> ZooError:
    """The sentences of training's readers name keys of `data`; here two of them stand alone, and one is missing."""
    said = str(error).replace("data.encoding=", "encoding=").replace("data.separator=", "separator=")
    return ZooError(re.sub(r"leave it out with 'data\.ignore=\[.*?\]'", "take it out", said))


def read_rows(source: Path, described: Described, *, separator: str | None, encoding: str | None) -> tables.Table:
    """The rows of a CSV file, read as in training unless told otherwise."""
    facts, content = described["preprocessing"], read_bytes(source)
    options = {
        "separator": separator or facts.get("separator") or "auto",
        "encoding": encoding or facts.get("encoding") or "utf-8",
    }
    # of the columns that training left out those without a name, which its reader refuses; others may be there or not
    unnamed = [
        name for name in described["config"]["data"].get("ignore") or () if re.fullmatch(r"column \d+", str(name))
    ]
    try:
        table = tables.read_table(content, str(source), ignore=unnamed, **options)
    except ZooError:
        try:
            table = tables.read_table(content, str(source), **options)
        except ZooError as error:
            raise mend(error) from None
    if not table.lines:
        raise ZooError(f"{source} has a line that names the columns, but no rows.")
    return table


def require_columns(wanted: Sequence[str], table: tables.Table, source: Path) -> None:
    if lacking := [name for name in wanted if name not in table.cells]:
        raise ZooError(
            f"input={source}: has no column {listed([repr(name) for name in lacking])}, which the network was trained "
            f"with; it has {listed([repr(name) for name in table.cells])}."
        )


def is_number(cell: str) -> bool:
    """Whether training's reader takes a cell for a number, or for a missing one."""
    try:
        tables.numbers([cell], [0], "")
    except ZooError:
        return False
    return True


class Rows:
    """The rows of a CSV file; columns are known by their names, and those the network does not read do not matter."""

    def __init__(
        self,
        source: Path,
        described: Described,
        batch_size: int,
        *,
        separator: str | None = None,
        encoding: str | None = None,
    ) -> None:
        columns = described["preprocessing"]["columns"]
        table = read_rows(source, described, separator=separator, encoding=encoding)
        require_columns([column["name"] for column in columns], table, source)
        wrong: dict[int, str] = {}
        for column in columns:
            if "categories" not in column:
                cells = table.cells[column["name"]]
                for row, cell in enumerate(cells):
                    if not is_number(cell):
                        wrong.setdefault(row, f"{column['name']} is {cell!r}, no finite number")
        self.skipped = [(f"line {table.lines[row]}", why) for row, why in sorted(wrong.items())]
        table = table.pick([row for row in range(len(table.lines)) if row not in wrong])
        inputs = tables.encode(table, columns, str(source)) if table.lines else torch.empty(0, 1)
        kept = inputs.isfinite().all(1).tolist()
        too_large = [line for line, fits in zip(table.lines, kept, strict=True) if not fits]
        self.skipped += [(f"line {line}", "a number too large for the network") for line in too_large]
        table = table.pick([row for row, fits in enumerate(kept) if fits])
        self.head = [*unused(["line"], table.cells), *table.cells]
        self.rows = [list(map(str, row)) for row in zip(table.lines, *table.cells.values(), strict=True)]
        self.inputs = inputs[kept]
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[Batch]:
        for part in told(chunks(range(len(self.rows)), self.batch_size)):
            positions = torch.tensor(part)
            yield {"input": self.inputs[positions], "position": positions}


# Text -----------------------------------------------------------------------------------------------------------------


def read_text(source: Path, described: Described, encoding: str | None) -> str:
    """A text file; in small letters if the network was trained so."""
    stated = encoding or described["config"]["data"].get("encoding") or "utf-8"
    try:
        content = text.decode(read_bytes(source), str(source), stated)
    except ZooError as error:
        raise mend(error) from None
    if not content:
        raise ZooError(f"input={source}: is empty.")
    return content.lower() if described["preprocessing"].get("lower") else content


def read_lines(source: Path, described: Described, encoding: str | None) -> list[str]:
    content = read_text(source, described, encoding)
    return content.removesuffix("\n").split("\n")


class Snippets:
    """The lines of a text file, each an example. Longer ones than in training are cut into pieces of that length."""

    head = ["line", "text"]  # noqa: RUF012

    def __init__(self, source: Path, described: Described, batch_size: int, *, encoding: str | None = None) -> None:
        facts, self.batch_size = described["preprocessing"], batch_size
        self.longest, level = facts["sequence_length"], facts.get("level") or "characters"
        self.rows: list[list[str]] = []
        self.skipped: list[tuple[str, str]] = []
        self.pieces: list[tuple[int, Tensor]] = []
        for number, line in enumerate(read_lines(source, described, encoding), 1):
            tokens = text.encode(line, facts["vocabulary"], level)
            if not tokens.any():  # 0 is unknown
                why = "none of its characters were in the training text" if line.strip() else "empty"
                self.skipped.append((f"line {number}", why))
            else:
                self.pieces += [(len(self.rows), piece) for piece in tokens.split(self.longest)]
                self.rows.append([str(number), line])

    def __iter__(self) -> Iterator[Batch]:
        for part in told(chunks(self.pieces, self.batch_size)):
            example = torch.tensor([row for row, _ in part])
            length = torch.tensor([len(piece) for _, piece in part])
            inputs = torch.zeros(len(part), self.longest, dtype=torch.int64)
            for row, (_, piece) in zip(inputs, part, strict=True):
                row[: len(piece)] = piece
            yield {"input": inputs, "length": length, "position": example, "example": example}
