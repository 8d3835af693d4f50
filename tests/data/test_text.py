"""Texts in streams: every place once, batch after batch going on; vocabularies; a person's file and what is refused."""

import gzip
import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import compose_config
from hydra.utils import instantiate
from torch import Tensor

from zoo.data.embedded import FILES
from zoo.data.loaders import Loader, PositionSampler
from zoo.data.text import MobyDick, TextFile, TextSplit, encode, fit_vocabulary, parts, tokenize
from zoo.errors import ZooError


def epoch(loader: Loader, number: int = 0) -> list[dict[str, Tensor]]:
    loader.sampler.set_epoch(number)
    return list(loader)


def streams(batches: list[dict[str, Tensor]], name: str) -> Tensor:
    """Each row through all batches."""
    return torch.cat([batch[name] for batch in batches], 1)


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "book.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path, **options: Any) -> TextFile:
    data = TextFile(path=str(path), **{"batch_size": 3, "eval_batch_size": 4, "sequence_length": 5, **options})
    data.setup()
    return data


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(ZooError) as raised:
        read(path, **options).loader("train", training=True)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("places", [1, 3, 4, 20, 21, 63, 64, 200])
def test_in_evaluation_every_place_is_a_target_once_and_its_input_the_token_before(places: int) -> None:
    tokens = torch.arange(1000, 1001 + places)
    split = TextSplit(tokens, streams=4, window=5)
    rows = split.streams
    batches = [split.batch(0, i, i) for i in torch.arange(len(split)).split(rows)]
    inputs, targets = streams(batches, "input"), streams(batches, "target")
    counted = targets != -100
    assert torch.equal(targets[counted], tokens[1:])  # row after row: the text
    assert torch.equal(inputs[counted], tokens[:-1])
    assert not inputs[~counted].any()
    lengths = counted.sum(1)
    assert int(lengths.max() - lengths.min()) <= 1
    assert len(batches) == -(-int(lengths.max()) // 5)
    assert torch.equal(counted, torch.arange(inputs.shape[1]) < lengths[:, None])  # filled at the end only


def test_training_goes_on_from_batch_to_batch_and_uses_no_place_twice() -> None:
    data = MobyDick(batch_size=8, sequence_length=100, seed=3)
    data.setup("fit")
    text, loader = data.tokens["train"], data.loader("train", training=True)
    starts = []
    for number in (0, 1, 2):
        batches = epoch(loader, number)
        assert len(batches) == len(loader) == (len(text) - 100) // 800
        inputs, targets = streams(batches, "input"), streams(batches, "target")
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
        assert torch.equal(inputs[1:, 0], targets[:-1, -1])  # a row begins where the one above ends
        start = loader.split.shift(number)  # type: ignore[attr-defined]
        assert torch.equal(inputs.flatten(), text[start : start + inputs.numel()])
        starts.append(start)
    assert len(set(starts)) == 3
    assert torch.equal(torch.cat([batch["position"] for batch in batches]), torch.arange(8 * len(batches)))


def test_the_streams_move_by_seed_and_epoch_as_far_as_the_text_goes() -> None:
    tokens = torch.arange(48)  # 47 places: 2 windows of 7 for each of 3 streams, 5 over
    one = TextSplit(tokens, streams=3, window=7, training=True, moving=True, seed=1)
    other = TextSplit(tokens, streams=3, window=7, training=True, moving=True, seed=2)
    assert len(one) == 3 * ((47 - 6) // 21)
    shifts = [one.shift(number) for number in range(300)]
    assert [one.shift(number) for number in range(300)] == shifts
    assert set(shifts) == set(range(one.spare + 1)) == set(range(47 - 21 + 1))
    assert shifts != [other.shift(number) for number in range(300)]
    still = TextSplit(tokens, streams=3, window=7, training=True)
    assert len(still) == 6
    assert [still.shift(number) for number in range(5)] == [0] * 5


def test_a_training_epoch_goes_on_from_its_middle() -> None:
    data = MobyDick(batch_size=64, sequence_length=512)
    data.setup("fit")
    whole = epoch(data.loader("train", training=True), 4)
    begun = data.loader("train", training=True)
    begun.sampler.set_epoch(4)
    for _ in zip(range(11), begun, strict=False):
        pass
    fresh = data.loader("train", training=True)
    fresh.load_state_dict(begun.state_dict())
    rest = epoch(fresh, 4)
    assert len(rest) == len(whole) - 11
    assert all(torch.equal(a[name], b[name]) for a, b in zip(whole[11:], rest, strict=True) for name in a)


@pytest.mark.parametrize("training", [True, False])
def test_processes_together_see_what_one_would(training: bool) -> None:
    split = TextSplit(torch.arange(500), streams=6, window=9, training=training, moving=training)
    places = set()
    for rank in range(4):
        mine = [split.batch(*plan) for plan in PositionSampler(torch.arange(len(split)), 6, rank=rank, world_size=4)]
        rows = {tuple((batch["position"] % 6).tolist()) for batch in mine}
        assert len(rows) == 1  # the same streams in every batch, whose state goes on
        places |= {int(p) for batch in mine for p in batch["position"]}
    assert places == set(range(len(split)))


def test_train_examples_are_windows_from_the_beginning_that_stay() -> None:
    data = MobyDick(batch_size=4, eval_batch_size=2, sequence_length=10)
    data.setup("fit")
    for wanted, rows, batches in ((6, 4, 1), (8, 4, 2), (3, 3, 1), (1, 1, 1), (100 / 95225, 4, 25)):
        data.train_examples = wanted
        loader = data.loader("train", training=True)
        seen = epoch(loader, 1)
        assert (len(seen), len(seen[0]["input"])) == (batches, rows)
        assert torch.equal(streams(seen, "input").flatten(), data.tokens["train"][: 10 * rows * batches])
        assert torch.equal(seen[0]["input"], epoch(loader, 2)[0]["input"])
        windows = wanted if isinstance(wanted, int) else 100
        scored = epoch(data.loader("train"))
        assert sum(int((batch["target"] != -100).sum()) for batch in scored) == windows * 10
        assert data.size("train") == sum(len(batch["input"]) for batch in scored)
    assert data.size("val") == 2 * 5952


def test_the_novel_is_whole_and_its_parts_are_pinned() -> None:
    data = instantiate(compose_config(["data=moby_dick"]).data)
    data.setup("fit")
    with gzip.open(FILES / "moby_dick.txt.gz", "rt", encoding="utf-8", newline="") as file:
        text = file.read()
    vocabulary = data.facts["vocabulary"]
    assert data.facts["num_tokens"] == len(vocabulary) == 84
    assert vocabulary == ["<unk>", *sorted(set(text[:952253]))]
    found = "".join(
        "".join(vocabulary[i] for i in data.tokens[name][name != "train" :].tolist()) for name in data.tokens
    )
    assert found == text
    assert [len(tokens) for tokens in data.tokens.values()] == [952253, 119033, 119033]
    assert data.tokens["test"][0] == data.tokens["val"][-1]
    for name in ("val", "test"):  # all of it is scored, the first character with the one before as its input
        batches = epoch(data.loader(name))
        rows = streams(batches, "target")
        assert "".join(vocabulary[i] for i in rows[rows != -100].tolist()) == parts(text, 0.1, 0.1)[name]
        assert batches[0]["input"][0, 0] == data.tokens[name][0]
    digest = hashlib.sha256(b"".join(tokens.numpy().tobytes() for tokens in data.tokens.values())).hexdigest()
    assert digest == "1b5543d222757ce2761a4a3b9ad683c6c249670c79c673a64e8aba5bfdf286ea"


def test_words_and_what_stands_between_them() -> None:
    text = "It’s o'er_ 'tis\n—never  mind 3½ naïve—"
    words = ["It’s", " ", "o'er", "_", " ", "'", "tis", "\n", "—", "never", " ", " ", "mind", " ", "3½", " ", "naïve"]
    assert tokenize(text, "words") == [*words, "—"]
    data = MobyDick(level="words", max_vocabulary=500)
    data.setup()
    vocabulary = data.facts["vocabulary"]
    assert data.facts["num_tokens"] == len(vocabulary) == 500
    assert {"Ahab", "whale", " ", "\n", ",", "whale’s"} <= set(vocabulary)
    assert 0 < (data.tokens["train"] == 0).double().mean() < 0.2
    assert "".join(tokenize(text * 3, "words")) == text * 3


def test_a_vocabulary_keeps_the_most_frequent_and_is_sorted() -> None:
    assert fit_vocabulary("dcbaab cc", "characters", 100) == ["<unk>", " ", "a", "b", "c", "d"]
    assert fit_vocabulary("dcbaab cc", "characters", 4) == ["<unk>", "a", "b", "c"]
    assert fit_vocabulary("b a b c", "words", 4) == ["<unk>", " ", "a", "b"]
    assert encode("abx😀c", ["<unk>", "a", "c", "😀"], "characters").tolist() == [1, 0, 0, 3, 2]
    assert encode("a b c", ["<unk>", " ", "c"], "words").tolist() == [0, 1, 0, 1, 2]


def test_a_file_is_split_and_its_vocabulary_is_of_the_training_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "Abc é\n" * 100 + "z" * 150
    data = read(write(tmp_path, "\ufeff" + text.replace("\n", "\r\n")), val_fraction=0.2, test_fraction=0.1)
    assert data.facts["vocabulary"] == ["<unk>", "\n", " ", "A", "b", "c", "é"]
    assert [len(tokens) for tokens in data.tokens.values()] == [525, 151, 76]
    assert "characters 525 train, 150 val, 75 test; a vocabulary of 7, which lacks 66" in capsys.readouterr().err
    given = read(tmp_path / "book.txt", vocabulary=["<unk>", "c", "z"], lower=True)
    assert given.facts["vocabulary"] == ["<unk>", "c", "z"]
    assert given.facts["num_tokens"] == 3
    assert given.tokens["train"].unique().tolist() == [0, 1]
    assert given.preprocessing["lower"] is True
    assert given.preprocessing["vocabulary"] == ["<unk>", "c", "z"]
    small = read(tmp_path / "book.txt", lower=True).facts["vocabulary"]
    assert small == ["<unk>", "\n", " ", "a", "b", "c", "é"]


def test_encodings_line_ends_and_a_single_line(tmp_path: Path) -> None:
    expected = read(write(tmp_path, "naïve\n" * 60)).tokens["train"]
    for content, encoding in (
        (("naïve\r\n" * 60).encode("utf-16"), "utf-16"),
        (("naïve\r" * 60).encode("cp1252"), "cp1252"),
        (("naïve\x85" * 60).encode(), "utf-8"),
        (("naïve\n" * 60).encode("latin-1"), "latin-1"),
    ):
        assert torch.equal(read(write(tmp_path, content), encoding=encoding).tokens["train"], expected)
    assert read(write(tmp_path, "one line only, " * 30)).facts["num_tokens"] == 9


def test_another_file_than_the_one_trained_on_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, "some text " * 40)
    stated = read(path).facts["fingerprint"]
    read(path, fingerprint=stated)
    assert "not what the run was trained on" not in capsys.readouterr().err
    read(write(tmp_path, "other text " * 40), fingerprint=stated)
    assert "not what the run was trained on" in capsys.readouterr().err


def test_what_is_wrong_with_a_file_is_said_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    assert "book.txt: cannot read" in refusal(path)
    assert "is a folder: name the one text file" in refusal(tmp_path)
    assert "is empty: there is nothing to learn from" in refusal(write(tmp_path, ""))
    assert "is empty" in refusal(write(tmp_path, "\ufeff"))
    assert "holds 1 character:" in refusal(write(tmp_path, "a"))
    needed = "data.batch_size=3 streams of data.sequence_length=5 need 20 characters to train on, and there are 19"
    assert needed in refusal(write(tmp_path, "abcdefgh " * 2 + "ab cd"), val_fraction=0.1, test_fraction=0.1)
    assert "train split has nothing to predict: 1 char" in refusal(write(tmp_path, "abcde"), val_fraction=0.75)
    assert "val split has nothing to predict: 0 characters" in refusal(write(tmp_path, "abcd"))
    assert "and there are 8:" in refusal(write(tmp_path, "abcde" * 2)), "one character of validation is enough"
    latin = refusal(write(tmp_path, b"fine\nna\xefve\n" * 9))
    assert "is not utf-8: byte 7 (line 2) is 0xef; say how the file is encoded, as in data.encoding=cp1252." in latin
    assert "data.encoding=latin-1" in refusal(write(tmp_path, b"ab\x81" * 9), encoding="cp1252")
    assert "data.encoding=utf-16" in refusal(write(tmp_path, ("é" * 99).encode("utf-16")))
    assert "data.encoding=utf-17: not the encoding" in refusal(path, encoding="utf-17")
    assert "is not utf-16: byte 2 (line 1) is 0x63" in refusal(write(tmp_path, b"abc"), encoding="utf-16")
    assert "holds a zero byte (character 2): it is no text" in refusal(write(tmp_path, b"ab\0c" * 30))
    assert "holds zero bytes: it is no text" in refusal(write(tmp_path, b"\xff\0\xaa" * 30))
    assert "no plain text: save it as" in refusal(write(tmp_path, b"%PDF-1.7"))
    with pytest.raises(ZooError, match=r"data.path=null: say which text"):
        TextFile().setup()


def test_impossible_options_are_refused(tmp_path: Path) -> None:
    for name, value in (("level", "bytes"), ("sequence_length", 0), ("max_vocabulary", 1), ("batch_size", 0)):
        with pytest.raises(ValueError, match=f"{name}={value}: must be"):
            MobyDick(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="test_fraction=1"):
        TextFile(path="x", test_fraction=1)
    with pytest.raises(ZooError, match="augment=none"):
        MobyDick(augment={"flip": 0.5})
    MobyDick(augment=compose_config(["data=moby_dick"]).augment)
    with pytest.raises(ZooError, match=r"holds words; say data.level=words"):
        MobyDick(vocabulary=["<unk>", "a", "whale"]).setup()
    with pytest.raises(ZooError, match=r"data.num_tokens=7: these data have 84"):
        MobyDick(num_tokens=7).setup()


def test_odd_symbols_of_a_vocabulary_survive_the_config_file(tmp_path: Path) -> None:
    odd = " \t\n\x0b\u00a0\ufeff~=-:#&*!|>'\"%@`{}[]$\\?,yn01é😀\x7f\x1b"
    vocabulary = read(write(tmp_path, "a" + odd * 20)).facts["vocabulary"]
    assert set(odd) <= set(vocabulary)
    assert yaml.safe_load(yaml.safe_dump(vocabulary, sort_keys=False, allow_unicode=True)) == vocabulary
