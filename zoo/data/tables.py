"""Tables of cells to features: reading a CSV file, and encoding it, one way for training rows and new ones.

Numbers are standardised with the mean and deviation of the training rows; a missing one becomes their median, and an
indicator column says so if any is missing in the training rows. Categories become one column each (one-hot), missing
being one of them; a category that the training rows lack is all zeros, as the weights of a column "unknown" would never
have been trained. A cell is missing if it is empty, ?, NA, N/A, NaN, null or None, in any case.
"""

import csv
import difflib
import io
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.data.own import listed, note
from zoo.errors import ZooError

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf(inity)?", re.IGNORECASE)
_MISSING = {"", "?", "na", "n/a", "nan", "null", "none"}
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t"}
_MOSTLY = 0.9  # a column with this share of numbers, but not all, is taken for numbers with mistakes

Column = dict[str, Any]  # primitives: name, missing; and median, mean, std of numbers, or categories


@dataclass
class Table:
    """The stripped cells of each column, and the line of the file on which each row begins."""

    cells: dict[str, list[str]]
    lines: list[int]

    def pick(self, rows: Sequence[int]) -> "Table":
        cells = {name: [column[row] for row in rows] for name, column in self.cells.items()}
        return Table(cells, [self.lines[row] for row in rows])


def read_table(
    content: bytes, source: str, *, separator: str = "auto", encoding: str = "utf-8", ignore: Sequence[str] = ()
) -> Table:
    """The columns of a CSV file but those in `ignore`; raises ZooError naming the line of `source` that is wrong."""
    text = _decode(content, source, encoding)
    first = text.lstrip().split("\n", 1)[0]
    if separator == "auto":
        separator = max(SEPARATORS.values(), key=lambda mark: len(next(csv.reader([first], delimiter=mark), [])))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=SEPARATORS.get(separator, separator), strict=True)
    rows, line = [], 1
    try:
        for row in reader:
            if any(cells := [cell.strip() for cell in row]):
                rows.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise ZooError(f"{source} line {line}: {error}; look for a stray or missing quotation mark.") from None
    if not rows:
        raise ZooError(f"{source} is empty: it must hold a line that names the columns, and rows.")
    (head, names), *rows = rows
    if len(names) == 1:
        _refuse_separator(first, f"{source} line {head}")
    if all(NUMBER.fullmatch(name) for name in names):
        raise ZooError(f"{source} line {head}: {listed(names)}: the first line must name the columns.")
    if unnamed := [place for place, name in enumerate(names, 1) if not name and f"column {place}" not in ignore]:
        raise ZooError(
            f"{source} line {head}: column {unnamed[0]} has no name: give it one, or, if it only counts the rows, "
            f"leave it out with 'data.ignore=[column {unnamed[0]}]'."
        )
    names = [name or f"column {place}" for place, name in enumerate(names, 1)]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ZooError(f"{source} line {head}: more than one column is called {listed(repeated)}.")
    if ragged := [f"line {line} has {len(row)}" for line, row in rows if len(row) != len(names)]:
        raise ZooError(f"{source}: the header has {len(names)} cells, but {listed(ragged)}.")
    check_names(ignore, names, "data.ignore", source)
    columns = {name: [row[place] for _, row in rows] for place, name in enumerate(names) if name not in ignore}
    return Table(columns, [line for line, _ in rows])


def _refuse_separator(first: str, where: str) -> None:
    """Refuse a table of one column whose first line another separator would split."""
    for name, mark in {**SEPARATORS, "|": "|"}.items():
        if len(next(csv.reader([first], delimiter=mark), [])) > 1:
            mend = f"say data.separator={name}" if name in SEPARATORS else "write commas, semicolons or tabs for |"
            raise ZooError(f"{where}: one column only; {mend}.")


def _decode(content: bytes, source: str, encoding: str) -> str:
    if content[:2] == b"PK":
        raise ZooError(f"{source} is a spreadsheet or a zip file: save the table as CSV.")
    try:
        text = content.decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
    except UnicodeDecodeError as error:
        if b"\0" in content and content[:2] not in (b"\xff\xfe", b"\xfe\xff") and "utf-16" not in encoding.lower():
            raise ZooError(f"{source} holds zero bytes: it is no text, or one for data.encoding=utf-16.") from None
        line = content.count(b"\n", 0, error.start) + 1
        guess = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "cp1252"
        raise ZooError(
            f"{source} line {line} is not {encoding}: say how the file is encoded, as in data.encoding={guess}."
        ) from None
    except (LookupError, ValueError):
        raise ZooError(f"data.encoding={encoding}: no such encoding; utf-8, cp1252, latin-1 and utf-16 are.") from None
    if "\0" in text:
        raise ZooError(
            f"{source} holds zero bytes: it is no text, or in another encoding than data.encoding={encoding}."
        )
    return text


def check_names(wanted: Sequence[str], names: Sequence[str], option: str, source: str) -> None:
    """Refuse names of columns that the table lacks."""
    for name in wanted:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {listed(list(names))}."
            raise ZooError(f"{option}={name}: {source} has no such column; {hint}")


def missing(cell: str) -> bool:
    return cell.lower() in _MISSING


def numbers(cells: Sequence[str], lines: Sequence[int], what: str) -> list[float]:
    """Cells as numbers, nan where missing; raises ZooError naming the lines of those that are none, or infinite."""
    if wrong := [f"line {line}: {cell!r}" for cell, line in zip(cells, lines, strict=True) if not _finite(cell)]:
        if all(_finite(cell.replace(",", ".")) for cell in cells):
            raise ZooError(_with_commas(what, wrong))
        raise ZooError(f"{what}: not a finite number in {listed(wrong)}; mend it, or leave the cell empty.")
    return [math.nan if missing(cell) else float(cell) for cell in cells]


def _with_commas(what: str, wrong: Sequence[str]) -> str:
    return f"{what}: numbers with commas in {listed(wrong)}; write 12.5 and 1000 instead of 12,5 and 1,000."


def _finite(cell: str) -> bool:
    return missing(cell) or (NUMBER.fullmatch(cell) is not None and math.isfinite(float(cell)))


def _holds_numbers(cells: Sequence[str], lines: Sequence[int], what: str) -> bool:
    """Whether a column holds numbers; one that does but for a few cells is refused, as those are likely mistakes."""
    known = [(cell, line) for cell, line in zip(cells, lines, strict=True) if not missing(cell)]
    wrong = [f"line {line}: {cell!r}" for cell, line in known if not NUMBER.fullmatch(cell)]
    if wrong and all(NUMBER.fullmatch(cell.replace(",", ".")) for cell, _ in known):
        raise ZooError(_with_commas(what, wrong))
    if wrong and len(wrong) <= (1 - _MOSTLY) * len(known) + 1e-9:
        raise ZooError(
            f"{what} holds numbers, but not in {listed(wrong)}; mend the cell or leave it empty, or "
            "list the column in data.categorical."
        )
    if 0 < len(wrong) < len(known):
        note(
            f"{what}: {len(known) - len(wrong)} of {len(known)} cells are numbers, read as categories with the others."
        )
    return bool(known) and not wrong


def fit_columns(
    table: Table, train: Sequence[int], source: str, *, categorical: Sequence[str] = (), max_categories: int = 100
) -> list[Column]:
    """What `encode` needs to know of each column, from the rows `train`; constant columns are left out, with a note."""
    columns: list[Column] = []
    constant = []
    for name, cells in table.cells.items():
        what = f"{source} column {name!r}"
        known = [cells[row] for row in train if not missing(cells[row])]
        column: Column = {"name": name, "missing": len(known) < len(train)}
        if name not in categorical and _holds_numbers(cells, table.lines, what):
            values = numbers(cells, table.lines, what)
            column["median"] = statistics.median([values[row] for row in train if not math.isnan(values[row])] or [0.0])
            filled = torch.tensor([values[row] for row in train], dtype=torch.float64).nan_to_num_(column["median"])
            column["mean"], column["std"] = filled.mean().item(), filled.std(correction=0).item() or 1.0
            if not math.isfinite(column["std"]):
                raise ZooError(f"{what}: the numbers are too large; rescale them.")
            distinct = len({float(cell) for cell in known})
        else:
            column["categories"] = sorted(set(known))
            distinct = len(column["categories"])
            if distinct > max_categories:
                raise ZooError(
                    f"{what} holds {distinct} categories, such as {known[0]!r}: leave it out with "
                    f"'data.ignore=[{name}]', or raise data.max_categories={max_categories}."
                )
        if distinct + column["missing"] > 1:
            columns.append(column)
        else:
            constant.append(name)
    if constant:
        note(f"{source}: left out, being the same in all training rows: {listed(constant)}.")
    if not columns:
        raise ZooError(f"{source}: no column is left to predict from.")
    return columns


def feature_names(columns: Sequence[Column]) -> list[str]:
    """The names of the features that `encode` makes, in order."""
    names = []
    for column in columns:
        name = column["name"]
        names += [f"{name}={category}" for category in column["categories"]] if "categories" in column else [name]
        names += [f"{name} missing"] if column["missing"] else []
    return names


def encode(table: Table, columns: Sequence[Column], source: str) -> Tensor:
    """Rows of a table, of training or new ones, as features float32 (N, F), by what `fit_columns` found."""
    parts = []
    for column in columns:
        name = column["name"]
        what = f"{source} column {name!r}"
        check_names([name], list(table.cells), "data.columns", source)
        cells = table.cells[name]
        absent = torch.tensor([missing(cell) for cell in cells], dtype=torch.bool)
        if "categories" in column:
            places = {category: place for place, category in enumerate(column["categories"])}
            places |= {cell: -1 for cell in cells if missing(cell)}
            strange = [cell for cell in cells if cell not in places]
            if strange:
                seen = listed(sorted(set(strange)))
                note(f"{what}: {len(strange)} cells hold {seen}, not among the training rows: all zeros.")
            found = torch.tensor([places.get(cell, -1) for cell in cells])
            parts.append((found[:, None] == torch.arange(len(column["categories"]))).float())
        else:
            values = torch.tensor(numbers(cells, table.lines, what), dtype=torch.float64)
            filled = torch.where(absent, column["median"], values)
            parts.append(((filled - column["mean"]) / column["std"]).float()[:, None])
        if column["missing"]:
            parts.append(absent.float()[:, None])
        elif absent.any():
            fallback = "all zeros" if "categories" in column else "the median of the training rows"
            note(f"{what}: {int(absent.sum())} cells are missing, none among the training rows: {fallback}.")
    return torch.cat(parts, 1)
