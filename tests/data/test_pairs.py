"""Made-up pairs: right by independent readings, no example in two splits, lengths even, batches cut to the longest."""

import hashlib
import re
from contextlib import suppress
from datetime import date, datetime
from functools import cache
from typing import Any

import pytest
import torch
from conftest import compose_config
from hydra.utils import instantiate

from zoo.data.pairs import DATE_FORMS, Pairs, PairSplit, encode, in_words, ordinal
from zoo.errors import ZooError

SEEDS: list[dict[str, Any]] = [{}, {"seed": 1}, {"split_seed": 1}]
KINDS = ["reversal", "number_words", "dates"]
# sha256 over the pairs of train, val and test in order: results compare only on the very same pairs.
HASHES = {
    "reversal": "a4282d370c245a5b196884f8022206595b3bfa23c7b3644043484b1cd7d5829e",
    "number_words": "6200c2e2ab883d4fbef1b2f6d97f3e20e23d26a524f5fcc1800f21b6306d7662",
    "dates": "9bd764190a7b19369dea29577170aa29cde9c21bc4d47a0098b5d8d95913575b",
}


@cache
def load(name: str, **options: Any) -> Pairs:
    data: Pairs = instantiate({**compose_config([f"data={name}"]).data, **options})
    data.setup("fit")
    return data


def split(data: Pairs, name: str) -> PairSplit:
    part = data.splits[name]
    assert isinstance(part, PairSplit)
    return part


@cache
def pairs(data: Pairs, name: str) -> list[tuple[str, str]]:
    """Source and target of each example of a split, read back from its tokens."""
    part, found = split(data, name), []
    words = data.facts["source_vocabulary"], data.facts["target_vocabulary"]
    for source, length, target in zip(part.source.tolist(), part.length.tolist(), part.target.tolist(), strict=True):
        assert not any(source[length:])
        assert 0 not in source[:length]
        assert target[0] == 1
        end = target.index(2)
        assert not any(target[end + 1 :])
        found.append(("".join(words[0][i] for i in source[:length]), "".join(words[1][i] for i in target[1:end])))
    return found


def read_words(text: str) -> int:
    """The number that English words name, by adding and multiplying from the left."""
    value = {"zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8}
    value |= {"nine": 9, "ten": 10}
    value |= {"eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16}
    value |= {"seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50}
    value |= {"sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
    total = group = 0
    for word in text.replace("-", " ").replace(" and ", " ").split():
        if word == "hundred":
            group *= 100
        elif word in ("thousand", "million"):
            total, group = total + group * {"thousand": 1000, "million": 10**6}[word], 0
        else:
            group += value[word]
    return total + group


def read_date(text: str) -> date:
    plain = re.sub(r"(\d)(st|nd|rd|th)\b", r"\1", text).replace(" of ", " ")
    for form in ("%d %B %Y", "%B %d, %Y", "%d %b %Y", "%b %d, %Y", "%A, %d %B %Y", "%A, %B %d, %Y"):
        with suppress(ValueError):
            return datetime.strptime(plain, form).date()
    year = "%Y" if re.search(r"\d{4}$", text) else "%y"
    return datetime.strptime(text, f"%m/%d/{year}" if "/" in text else f"%d.%m.{year}").date()


@pytest.mark.parametrize("name", KINDS)
def test_sizes_and_hash(name: str) -> None:
    data = load(name)
    digest = hashlib.sha256()
    for part, size in (("train", 10_000), ("val", 1000), ("test", 1000)):
        assert data.size(part) == len(pairs(data, part)) == size
        digest.update(repr(pairs(data, part)).encode())
    assert digest.hexdigest() == HASHES[name]


@pytest.mark.parametrize("name", [*KINDS, "number_to_words"])
def test_targets_are_right_and_no_example_is_in_two_splits(name: str) -> None:
    data = load("number_words", direction=name) if name == "number_to_words" else load(name)
    for part in data.splits:
        for source, target in pairs(data, part):
            if name == "reversal":
                assert target == source[::-1]
            elif name == "dates":
                assert target == read_date(source).isoformat()
            elif name == "number_words":
                assert str(read_words(source)) == target
            else:
                assert read_words(target) == int(source)
    for side in (0, 1):
        seen = [pair[side] for part in data.splits for pair in pairs(data, part)]
        assert len(set(seen)) == len(seen) == 12_000


def test_numbers_in_words() -> None:
    told = {0: "zero", 11: "eleven", 40: "forty", 99: "ninety-nine", 100: "one hundred", 105: "one hundred and five"}
    told |= {4217: "four thousand two hundred and seventeen", 3007: "three thousand and seven", 9100: "nine thousand"}
    told[9100] += " one hundred"
    told |= {212_012: "two hundred and twelve thousand and twelve", 1_000_000: "one million"}
    told |= {7_005_300: "seven million five thousand three hundred", 10_000_001: "ten million and one"}
    assert {number: in_words(number) for number in told} == told
    assert all(read_words(in_words(number)) == number for number in [*range(2200), *range(0, 10**9, 7_654_321)])


def test_dates_in_every_form() -> None:
    day = date(1987, 3, 3)
    forms = ["3 March 1987", "3rd of March 1987", "March 3, 1987", "March 3rd, 1987", "3 Mar 1987", "Mar 3, 1987"]
    forms += ["Tuesday, 3 March 1987", "Tuesday, March 3rd, 1987", "3/3/87", "3/3/1987", "3.3.1987", "3.3.87"]
    assert [form(day) for form in DATE_FORMS] == forms
    for day in (date(2012, 12, 31), date(1969, 1, 2), date(2068, 5, 22), date(2000, 2, 29)):
        assert all(read_date(form(day)) == day for form in DATE_FORMS)
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 22, 23, 30, 31)] == [
        *("1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "23rd", "30th", "31st")
    ]
    seen = [source for part in ("train", "val", "test") for source, _ in pairs(load("dates"), part)]
    shapes = {re.sub(r"\d+", "1", re.sub(r"(st|nd|rd|th)\b", "th", re.sub("[A-Z][a-z]+", "A", s))) for s in seen}
    assert len(shapes) == 8  # of twelve forms: long and short months, and years, look the same here
    years = {int(target[:4]) for _, target in pairs(load("dates"), "train")}
    assert years == set(range(1969, 2069))


def test_lengths_are_even_and_test_may_have_longer_ones() -> None:
    data = load("reversal")
    for name in ("train", "val", "test"):
        assert split(data, name).length.unique().tolist() == list(range(4, 17))
    assert set(torch.bincount(split(data, "test").length)[4:].tolist()) == {76, 77}
    letters = torch.bincount(split(data, "train").source[split(data, "train").source > 0], minlength=30)
    assert int(letters[4:].min()) > 0.9 * int(letters.sum()) / 26
    longer = load("reversal", test_max_length=20, min_length=6, max_length=8)
    assert split(longer, "train").length.unique().tolist() == [6, 7, 8]
    assert split(longer, "val").length.unique().tolist() == [6, 7, 8]
    assert set(torch.bincount(split(longer, "test").length)[6:].tolist()) == {66, 67}
    digits = [
        torch.bincount(split(load("number_words"), name).target_length - 2).tolist() for name in ("train", "test")
    ]
    assert digits[1][1:3] == [4, 45]  # half of all there are, and the others
    assert max(digits[1][3:]) - min(digits[1][3:]) <= 1
    assert digits[0][1] + digits[0][2] >= 40
    places = split(load("dates"), "test").length
    assert torch.bincount(places)[6:30].min() >= 39


def test_batches_are_cut_to_their_longest() -> None:
    data = load("number_words", eval_batch_size=5)
    part = split(data, "val")
    for batch, (_, _, indices) in zip(data.loader("val"), data.loader("val").sampler, strict=True):
        length, ends = part.length[indices], part.target_length[indices]
        assert torch.equal(batch["length"], length)
        assert torch.equal(batch["input"], part.source[indices][:, : int(length.max())])
        assert torch.equal(batch["target"], part.target[indices][:, : int(ends.max())])
        assert (batch["target"] == 2).sum(1).tolist() == [1] * 5
    assert torch.equal(batch["position"], indices)


def test_characters_to_numbers_and_what_fills() -> None:
    vocabulary = ["<pad>", "<start>", "<end>", "<unk>", "a", "b"]
    tokens, length = encode(["ab", "?", "bab"], vocabulary)
    assert tokens.tolist() == [[4, 5, 0], [3, 0, 0], [5, 4, 5]]
    assert length.tolist() == [2, 1, 3]
    tokens, length = encode(["ab", ""], vocabulary, framed=True)
    assert tokens.tolist() == [[1, 4, 5, 2], [1, 2, 0, 0]]
    assert length.tolist() == [4, 2]


@pytest.mark.parametrize("name", KINDS)
def test_the_vocabularies_are_of_the_training_pairs_or_as_given(name: str) -> None:
    data = load(name)
    for side, which in enumerate(("source", "target")):
        vocabulary = data.facts[f"{which}_vocabulary"]
        seen = sorted({character for pair in pairs(data, "train") for character in pair[side]})
        assert vocabulary == ["<pad>", "<start>", "<end>", "<unk>", *seen]
        assert data.facts[f"num_{which}_tokens"] == len(vocabulary)
        assert not (getattr(split(data, "test"), which) == 3).any()  # nothing there is new
    given = load(name, source_vocabulary=("<pad>", "<start>", "<end>", "<unk>", "e"))
    assert given.facts["num_source_tokens"] == 5
    assert set(split(given, "test").source.unique().tolist()) <= {0, 3, 4}


def test_the_pairs_follow_the_split_seed_alone() -> None:
    for kind in KINDS:
        made = [Pairs(kind=kind, train_size=50, val_size=10, test_size=20, **seeds) for seeds in SEEDS]
        for data in made:
            data.setup()
        assert pairs(made[0], "test") == pairs(made[1], "test")
        assert len(set(pairs(made[0], "test")) & set(pairs(made[2], "test"))) < 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "copy"}, "kind=copy: must be reversal, number_words or dates"),
        ({"kind": "dates", "max_length": 9}, "max_length=9: must be null"),
        ({"direction": "words"}, "direction=words: must be words_to_number or"),
        ({"direction": "number_to_words"}, "direction=number_to_words: must be left out"),
        ({"min_length": 0}, "min_length=0: must be at least 1"),
        ({"max_length": 3}, "max_length=3: must be from min_length=4 to 1000"),
        ({"kind": "number_words", "max_length": 10}, "max_length=10: must be from min_length=1 to 9"),
        ({"test_max_length": 15}, "test_max_length=15: must be from max_length=16"),
        ({"val_size": 0}, "val_size=0: must be at least 1"),
        ({"kind": "number_words", "max_length": 2}, "train_size=10000: .* only 99 different pairs"),
        ({"min_length": 1, "max_length": 1, "train_size": 5, "val_size": 2}, "train_size=5: .* only 26 different"),
        ({"kind": "dates", "train_size": 40_000}, "train_size=40000: .* only 36525 different pairs"),
        ({"kind": "dates", "train_size": 33_000}, r"train_size=33000: .* different pairs were found"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pairs(**options).setup()


def test_characters_that_only_test_has_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"train_size": 200, "val_size": 20, "test_size": 50}
    Pairs(kind="number_words", max_length=6, test_max_length=7, **sizes).setup()
    assert "test has sources with m, which training has not" in capsys.readouterr().err
    Pairs(kind="number_words", max_length=6, test_max_length=7, direction="number_to_words", **sizes).setup()
    assert "test has targets with m, which training has not" in capsys.readouterr().err
    Pairs(kind="number_words", max_length=6, **sizes).setup()
    assert not capsys.readouterr().err


def test_augmentation_of_images_is_refused() -> None:
    with pytest.raises(ZooError, match="augment=none"):
        Pairs(augment={"shift": 2})
