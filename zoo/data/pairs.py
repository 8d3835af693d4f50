"""Made-up pairs for sequence to sequence, character by character: a string reversed, numbers in words, dates.

All pairs of a data set differ in their targets, so that no split shares an example with another, in any form. They
follow from `split_seed` alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import torch
from torch import Tensor

from zoo.data.loaders import Batch
from zoo.data.module import DataModule
from zoo.data.own import listed, note
from zoo.data.splits import balanced
from zoo.errors import ZooError
from zoo.randomness import key, permutation, uniform

SPECIAL = ("<pad>", "<start>", "<end>", "<unk>")  # tokens 0 to 3 of either vocabulary
PAD, START, END, UNKNOWN = range(4)
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_ONES += ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_UNITS = ((1_000_000, "million"), (1000, "thousand"), (100, "hundred"))
_MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October"]
_MONTHS += ["November", "December"]
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_LENGTHS = {"reversal": (4, 16), "number_words": (1, 6)}  # letters and digits, unless told otherwise
Pair = tuple[str, str]  # source, target


class PairSplit:
    """Sources (N, S) and targets (N, T + 1), int64, filled with 0; batches are cut to the longest in them."""

    augment = None

    def __init__(self, sources: tuple[Tensor, Tensor], answers: tuple[Tensor, Tensor]) -> None:
        self.source, self.length = sources  # the numbers of the tokens, and how many of them there are
        self.target, self.target_length = answers

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, epoch: int, positions: Tensor, indices: Tensor) -> Batch:
        length = self.length.index_select(0, indices)
        longest = int(self.target_length.index_select(0, indices).max())
        source, target = self.source.index_select(0, indices), self.target.index_select(0, indices)
        return {
            "input": source[:, : int(length.max())],
            "length": length,
            "target": target[:, :longest],
            "position": positions,
        }


def encode(texts: Sequence[str], vocabulary: Sequence[str], *, framed: bool = False) -> tuple[Tensor, Tensor]:
    """The numbers of the texts' characters, (N, longest), and how many there are, (N,).

    `framed` puts `<start>` in front and `<end>` behind; a character that the vocabulary lacks is `<unk>`.
    """
    number = {token: place for place, token in enumerate(vocabulary)}
    rows = [[number.get(token, UNKNOWN) for token in text] for text in texts]
    if framed:
        rows = [[START, *row, END] for row in rows]
    length = torch.tensor([len(row) for row in rows])
    padded = torch.full((len(rows), int(length.max())), PAD)
    padded[torch.arange(padded.shape[1]) < length[:, None]] = torch.tensor([token for row in rows for token in row])
    return padded, length


# What the pairs are --------------------------------------------------------------------------------------------------


def reversals(size: int, count: int, seed: int) -> list[Pair]:
    """`count` strings of `size` random letters, and each from its end to its beginning."""
    drawn = (uniform(seed, torch.arange(count), size) * len(_LETTERS)).long()
    strings = np.array(list(_LETTERS))[drawn.numpy()]
    return [(text, text[::-1]) for text in map("".join, strings.tolist())]


def numbers(size: int, count: int, seed: int) -> list[Pair]:
    """`count` random numbers of `size` digits in words, and in digits."""
    lowest = torch.tensor([1, *[0] * (size - 1)])  # no number begins with a 0
    drawn = lowest + (uniform(seed, torch.arange(count), size) * (10 - lowest)).long()
    digits = ["".join(map(str, row)) for row in drawn.tolist()]
    return [(in_words(int(text)), text) for text in digits]


def in_words(number: int) -> str:
    """A number below a thousand million in British English: four thousand two hundred and seventeen."""
    for unit, name in _UNITS:
        if number >= unit:
            high, rest = divmod(number, unit)
            link = "" if not rest else " and " if rest < 100 else " "
            return f"{in_words(high)} {name}{link}{in_words(rest) if rest else ''}"
    if number < 20:
        return _ONES[number]
    return _TENS[number // 10] + (f"-{_ONES[number % 10]}" if number % 10 else "")


def ordinal(day: int) -> str:
    ending = "th" if day in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return f"{day}{ending}"


# Slashes are the American order, dots the German one. Two digits are a year of 1969 to 2068, as POSIX reads them.
DATE_FORMS: tuple[Callable[[date], str], ...] = (
    lambda d: f"{d.day} {_MONTHS[d.month - 1]} {d.year}",
    lambda d: f"{ordinal(d.day)} of {_MONTHS[d.month - 1]} {d.year}",
    lambda d: f"{_MONTHS[d.month - 1]} {d.day}, {d.year}",
    lambda d: f"{_MONTHS[d.month - 1]} {ordinal(d.day)}, {d.year}",
    lambda d: f"{d.day} {_MONTHS[d.month - 1][:3]} {d.year}",
    lambda d: f"{_MONTHS[d.month - 1][:3]} {d.day}, {d.year}",
    lambda d: f"{_DAYS[d.weekday()]}, {d.day} {_MONTHS[d.month - 1]} {d.year}",
    lambda d: f"{_DAYS[d.weekday()]}, {_MONTHS[d.month - 1]} {ordinal(d.day)}, {d.year}",
    lambda d: f"{d.month}/{d.day}/{d.year % 100:02}",
    lambda d: f"{d.month}/{d.day}/{d.year}",
    lambda d: f"{d.day}.{d.month}.{d.year}",
    lambda d: f"{d.day}.{d.month}.{d.year % 100:02}",
)


_FIRST, _LAST = date(1969, 1, 1).toordinal(), date(2069, 1, 1).toordinal()  # the last is not among them


def dates(count: int, seed: int) -> list[Pair]:
    """`count` days from 1969 to 2068, each in one of `DATE_FORMS`, and as in 1987-03-03."""
    drawn = uniform(seed, torch.arange(count), 2)
    days = [date.fromordinal(_FIRST + day) for day in (drawn[:, 0] * (_LAST - _FIRST)).long().tolist()]
    forms = (drawn[:, 1] * len(DATE_FORMS)).long().tolist()
    return [(DATE_FORMS[form](day), day.isoformat()) for day, form in zip(days, forms, strict=True)]


# The data set --------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False)
class Pairs(DataModule):
    """Pairs of one kind: `reversal` of letters, `number_words`, or `dates` to their ISO form.

    `min_length` to `max_length` are the lengths of what is reversed, in letters, or of the numbers, in digits; with
    `test_max_length` the test split has longer ones, too. Test has as many of each length as can be (dates: of each
    length of the source), though never more than half of what is drawn of a length that is trained on; then training
    and validation together have as many of each as can be.
    """

    kind: str = "reversal"
    direction: str = "words_to_number"
    min_length: int | None = None
    max_length: int | None = None
    test_max_length: int | None = None
    train_size: int = 10_000
    val_size: int = 1000
    test_size: int = 1000
    num_source_tokens: int | None = None
    source_vocabulary: Sequence[str] | None = None
    num_target_tokens: int | None = None
    target_vocabulary: Sequence[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in (*_LENGTHS, "dates"):
            raise ValueError(f"kind={self.kind}: must be reversal, number_words or dates")
        if self.direction not in ("words_to_number", "number_to_words"):
            raise ValueError(f"direction={self.direction}: must be words_to_number or number_to_words")
        if self.direction == "number_to_words" and self.kind != "number_words":
            raise ValueError("direction=number_to_words: must be left out but for kind=number_words")
        for name in ("train_size", "val_size", "test_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.augmentation:
            raise ZooError("augment: these data are not images, and only images are augmented; say augment=none.")
        self.lengths = self._lengths()
        wanted, there = self.train_size + self.val_size + self.test_size, self._different()
        if wanted > there:
            raise ValueError(
                f"train_size={self.train_size}: with val_size and test_size must be fewer, as there are only {there} "
                "different pairs; lower it, or widen the lengths"
            )

    def _lengths(self) -> tuple[int, int, int]:
        """The shortest, the longest that is trained on, the longest in test; (0, 0, 0) of dates."""
        given = {name: getattr(self, name) for name in ("min_length", "max_length", "test_max_length")}
        if self.kind == "dates":
            for name, value in given.items():
                if value is not None:
                    raise ValueError(f"{name}={value}: must be null, as dates are as long as they are")
            return 0, 0, 0
        default = _LENGTHS[self.kind]
        low = default[0] if self.min_length is None else self.min_length
        high = default[1] if self.max_length is None else self.max_length
        top = high if self.test_max_length is None else self.test_max_length
        limit = 9 if self.kind == "number_words" else 1000
        if low < 1:
            raise ValueError(f"min_length={low}: must be at least 1")
        if not low <= high <= limit:
            raise ValueError(f"max_length={high}: must be from min_length={low} to {limit}")
        if not high <= top <= limit:
            raise ValueError(f"test_max_length={top}: must be from max_length={high} to {limit}")
        return low, high, top

    def _different(self) -> int:
        """How many targets there are."""
        if self.kind == "dates":
            return _LAST - _FIRST
        low, _, top = self.lengths
        return sum(len(_LETTERS) ** n if self.kind == "reversal" else 9 * 10 ** (n - 1) for n in range(low, top + 1))

    def draw(self) -> tuple[list[Pair], Tensor]:
        """Pairs of different targets, more than are needed, and the length of each as `lengths` counts it, (N,)."""
        wanted = 3 * (self.train_size + self.val_size + self.test_size)
        found: dict[str, tuple[str, int]] = {}  # source and length by target
        if self.kind == "dates":
            drawn = dates(wanted, key(self.split_seed, "dates"))
            found = {target: (source, len(source)) for source, target in drawn}
        low, high, top = self.lengths
        for size in range(low, top + 1) if self.kind != "dates" else ():
            make = reversals if self.kind == "reversal" else numbers
            count = -(-wanted // (high - low + 1)) if size <= high else 2 * self.test_size
            drawn = make(size, count, key(self.split_seed, self.kind, size))
            found |= {target: (source, size) for source, target in drawn}
        pairs = [(source, target) for target, (source, _) in found.items()]
        if self.direction == "number_to_words":
            pairs = [(target, source) for source, target in pairs]
        return pairs, torch.tensor([length for _, length in found.values()])

    def read(self) -> None:
        pairs, length = self.draw()
        order = permutation(key(self.split_seed, "split"), len(pairs))
        length = length[order]
        to_train = torch.ones(len(order), dtype=torch.bool) if self.kind == "dates" else length <= self.lengths[1]
        by_length = length.argsort(stable=True)
        sizes = torch.bincount(length)
        place = torch.empty_like(by_length)  # within its length
        place[by_length] = torch.arange(len(order)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
        to_test = (2 * place + 1 < sizes[length]) | ~to_train
        candidates = to_test.nonzero().flatten()
        test = candidates[balanced(length[candidates], self.test_size)]
        to_train[test] = False
        rest, needed = to_train.nonzero().flatten(), self.train_size + self.val_size
        rest = rest[balanced(length[rest], needed)]
        rest = rest[permutation(key(self.split_seed, "validation"), len(rest))]
        if len(rest) < needed or len(test) < self.test_size:
            raise ValueError(
                f"train_size={self.train_size}: with val_size and test_size must be fewer, as only {len(pairs)} "
                "different pairs were found; lower it, or widen the lengths"
            )
        parts = {"train": rest[self.val_size :], "val": rest[: self.val_size], "test": test}
        chosen = {name: [pairs[i] for i in order[part].tolist()] for name, part in parts.items()}
        for side, name in enumerate(("source", "target")):
            if self.facts[f"{name}_vocabulary"] is None:
                characters = sorted({character for pair in chosen["train"] for character in pair[side]})
                self.facts[f"{name}_vocabulary"] = [*SPECIAL, *characters]
            self.state({f"num_{name}_tokens": len(self.facts[f"{name}_vocabulary"])})
            known = {*self.facts[f"{name}_vocabulary"]}
            if strange := sorted({character for pair in chosen["test"] for character in pair[side]} - known):
                note(f"test has {name}s with {listed(strange)}, which training has not: read as <unk>.")
        for name, members in chosen.items():
            sources = encode([source for source, _ in members], self.facts["source_vocabulary"])
            answers = encode([target for _, target in members], self.facts["target_vocabulary"], framed=True)
            self.splits[name] = PairSplit(sources, answers)
