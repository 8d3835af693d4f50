"""Texts for language models: the next token from those before, in streams that go on from batch to batch.

A split of n + 1 tokens has n places at which the next token is known. Its places are dealt to B streams, row b of a
batch being stream b; batch t holds the T places of window t of every stream, so that row b of batch t + 1 goes on where
row b of batch t ended. A language model carries its state along (truncated back-propagation through time).
"""

import gzip
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.embedded import shipped
from zoo.data.loaders import Batch, Loader, PositionSampler
from zoo.data.module import DataModule
from zoo.data.own import OwnData, identify, note
from zoo.errors import ZooError
from zoo.randomness import key, uniform

IGNORED = -100  # a target that counts nowhere
UNKNOWN = "<unk>"  # token 0 of every vocabulary; no character and no word of a text is written so
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|\W|_")  # letters and digits, with inner apostrophes; else one character
_LINE_END = re.compile("\r\n|[\r\x85\u2028\u2029]")  # of Windows, old Macs, and Unicode's, which YAML would not keep


class TextSplit:
    """The windows of `streams` parallel streams over `tokens` (n + 1,); example i is window i // B of stream i % B.

    For evaluation the places are dealt out evenly, and each of them is a target once. What a last window lacks is
    filled: input 0, target -100. For training all windows are whole and all streams equally long; with `moving` they
    start later by a number of places that `seed` and the epoch decide, so that what is left over, and where windows
    begin, differs from epoch to epoch. No place is a target twice in an epoch.
    """

    augment = None

    def __init__(
        self, tokens: Tensor, *, streams: int, window: int, training: bool = False, moving: bool = False, seed: int = 0
    ) -> None:
        places = len(tokens) - 1
        self.training, self.seed = training, seed
        if training:
            windows = (places - (window - 1) * moving) // (streams * window)
            bounds = torch.arange(streams + 1) * windows * window
        else:
            streams = min(streams, places)
            bounds = torch.arange(streams + 1) * places // streams
            windows = -(-int(bounds.diff().max()) // window)
        if windows < 1:
            raise ValueError(f"streams={streams}: must leave each a window of {window} of the {places} places")
        self.spare = places - streams * windows * window if moving else 0
        start = bounds[:-1] + window * torch.arange(windows)[:, None]  # (windows, streams)
        self.start = start.flatten()
        self.count = (bounds[1:] - start).clamp(0, window).flatten()  # how many places of each window there are
        filled = torch.cat([tokens, tokens.new_zeros(window)])
        self.windows = filled.to(torch.int32).unfold(0, window + 1, 1)  # a view: window w begins at place w
        self.column = torch.arange(window)
        self.streams = streams
        self._shift = (-1, 0)  # an epoch and its shift: drawing costs more than the batch

    def __len__(self) -> int:
        return len(self.start)

    def shift(self, epoch: int) -> int:
        """By how many places the streams start later in a training epoch: 0 … `spare`."""
        if self.spare and self._shift[0] != epoch:
            draw = uniform(key(self.seed, "streams", epoch), torch.zeros(1, dtype=torch.int64), 1).item()
            self._shift = (epoch, int(draw * (self.spare + 1)))
        return self._shift[1]

    def batch(self, epoch: int, positions: Tensor, indices: Tensor) -> Batch:
        start = self.start.index_select(0, indices)
        if self.training:
            start += self.shift(epoch)
        window = self.windows.index_select(0, start).long()
        tokens, target = window[:, :-1], window[:, 1:]
        if not self.training:
            behind = self.column >= self.count.index_select(0, indices)[:, None]
            tokens, target = tokens.masked_fill(behind, 0), target.masked_fill(behind, IGNORED)
        return {"input": tokens, "target": target, "position": positions}


# From text to tokens -------------------------------------------------------------------------------------------------


def tokenize(text: str, level: str) -> Sequence[str]:
    """The text's characters, or its words and all that stands between them, a character each; joined, the text."""
    return text if level == "characters" else _WORD.findall(text)


def fit_vocabulary(text: str, level: str, largest: int) -> list[str]:
    """`<unk>`, then the `largest` - 1 most frequent tokens, sorted; of equally frequent ones the first in order."""
    counts = Counter(tokenize(text, level))
    return [UNKNOWN, *sorted(sorted(counts, key=lambda token: (-counts[token], token))[: largest - 1])]


def encode(text: str, vocabulary: Sequence[str], level: str) -> Tensor:
    """The number of each token of the text, int64; 0 of those that the vocabulary lacks."""
    if level != "characters":
        number = {token: place for place, token in enumerate(vocabulary)}
        return torch.tensor([number.get(token, 0) for token in tokenize(text, level)], dtype=torch.int64)
    table = np.zeros(0x110000, dtype=np.int64)  # of every code point
    table[[ord(token) for token in vocabulary[1:]]] = np.arange(1, len(vocabulary))
    return torch.from_numpy(table[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")])


def parts(text: str, val_fraction: float, test_fraction: float) -> dict[str, str]:
    """The end of a text for test, what comes before it for validation, the rest for training."""
    test = len(text) - round(len(text) * test_fraction)
    val = test - round(len(text) * val_fraction)
    return {"train": text[:val], "val": text[val:test], "test": text[test:]}


# Data sets -----------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False)
class Text(DataModule):
    """Base of data sets of one text, read by characters or by words (`level`), cut into windows of `sequence_length`.

    `batch_size` and `eval_batch_size` are numbers of streams. A vocabulary left None is made from the training text,
    with `max_vocabulary` tokens at most. The first token of the text is no target, as nothing comes before it; that of
    another split has the last one of the split before for its input.

    With `train_examples` only so many windows are used, from the text's beginning, rounded down to whole batches, and
    they do not move.
    """

    batch_size: int = 32
    eval_batch_size: int = 32
    sequence_length: int = 128
    level: str = "characters"
    max_vocabulary: int = 10_000
    num_tokens: int | None = None
    vocabulary: Sequence[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.level not in ("characters", "words"):
            raise ValueError(f"level={self.level}: must be characters or words")
        for name, least in (("sequence_length", 1), ("max_vocabulary", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least {least}")
        if self.augmentation:
            raise ZooError("augment: these data are not images, and only images are augmented; say augment=none.")
        self.tokens: dict[str, Tensor] = {}  # of each split, the last one of the split before in front

    def texts(self) -> dict[str, str]:
        """The text of train, val and test, each going on where the one before ended."""
        raise NotImplementedError

    def read(self) -> None:
        texts = self.texts()
        if self.facts["vocabulary"] is None:
            self.facts["vocabulary"] = fit_vocabulary(texts["train"], self.level, self.max_vocabulary)
        vocabulary: list[str] = self.facts["vocabulary"]
        if self.level == "characters" and any(len(token) > 1 for token in vocabulary[1:]):
            raise ZooError("data.level=characters: the vocabulary holds words; say data.level=words.")
        self.state({"num_tokens": len(vocabulary)})
        before = torch.empty(0, dtype=torch.int64)
        for name, text in texts.items():
            self.tokens[name] = torch.cat([before, encode(text, vocabulary, self.level)])
            before = self.tokens[name][-1:]
            if len(self.tokens[name]) < 2:
                raise ZooError(f"The {name} split has nothing to predict: {len(text)} characters; give more text.")
        self.splits = {name: self._evaluation(name) for name in texts}

    def used(self, split: str) -> Tensor:
        """The tokens of a split that are used: all, or of the training text `train_examples` windows."""
        tokens, wanted = self.tokens[split], self.train_examples
        if split != "train" or wanted is None:
            return tokens
        windows = (len(tokens) - 1) // self.sequence_length
        count = min(windows, wanted) if isinstance(wanted, int) else round(windows * wanted)
        return tokens[: max(1, count) * self.sequence_length + 1]

    def indices(self, split: str) -> Tensor:
        return torch.arange(len(self._evaluation(split)))

    def loader(self, split: str, *, training: bool = False) -> Loader:
        """A split's loader: batches in the order of the text; while training, from where (seed, epoch) says."""
        examples = self._training(split) if training else self._evaluation(split)
        trainer = self.trainer
        if training and trainer and examples.streams < trainer.world_size:
            raise ZooError(
                f"data.batch_size={self.batch_size}: must give each of {trainer.world_size} processes a stream; there "
                f"are {examples.streams}."
            )
        sampler = PositionSampler(
            torch.arange(len(examples)),
            examples.streams,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )
        on_gpu = trainer is not None and trainer.strategy.root_device.type == "cuda"
        return Loader(examples, sampler, num_workers=self.num_workers, pin_memory=on_gpu)

    def _evaluation(self, split: str) -> TextSplit:
        return TextSplit(self.used(split), streams=self.eval_batch_size, window=self.sequence_length)

    def _training(self, split: str) -> TextSplit:
        tokens, window, is_whole = self.used(split), self.sequence_length, self.train_examples is None
        streams = self.batch_size if is_whole else max(1, min(self.batch_size, (len(tokens) - 1) // window))
        needed = streams * window + (window if is_whole else 1)
        if len(tokens) < needed:
            raise ZooError(
                f"data.batch_size={self.batch_size} streams of data.sequence_length={window} need {needed} "
                f"{self.level} to train on, and there are {len(tokens)}: lower one of the two, or give more text."
            )
        return TextSplit(tokens, streams=streams, window=window, training=True, moving=is_whole, seed=self.seed)


@dataclass(kw_only=True, eq=False)
class MobyDick(Text):
    """Herman Melville, "Moby-Dick; or, The Whale" (1851): 1,190,317 characters, of which the last tenth is test.

    The tenth before it is validation. By characters 83 symbols, all of them in the training text.
    """

    def texts(self) -> dict[str, str]:
        content = shipped("moby_dick.txt.gz", "5a67c95318c48150")
        with gzip.open(content, "rt", encoding="utf-8", newline="") as file:
            return parts(file.read(), 0.1, 0.1)


@dataclass(kw_only=True, eq=False)
class TextFile(Text, OwnData):
    """A person's own text in `path`: its end is test, what comes before it validation, the rest is trained on.

    Any convention of line ends is read as `\\n`, a byte-order mark is dropped; `lower` reads capitals as small letters.
    """

    path: str | None = None
    encoding: str = "utf-8"
    lower: bool = False
    test_fraction: float = 0.1

    @property
    def preprocessing(self) -> dict[str, Any]:
        return super().preprocessing | {"lower": self.lower}

    def texts(self) -> dict[str, str]:
        if self.path is None:
            raise ZooError("data.path=null: say which text to read, as in data.path=book.txt.")
        path, source = Path(self.path).expanduser(), self.path
        if path.is_dir():
            raise ZooError(f"data.path={source} is a folder: name the one text file in it to read.")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ZooError(f"data.path={source}: cannot read {path.absolute()}: {error.strerror}.") from None
        identify(self.facts, source, content)
        text = decode(content, source, self.encoding)
        if len(text) < 3:
            what = f"holds {len(text)} character{'s' if len(text) > 1 else ''}" if text else "is empty"
            raise ZooError(f"{source} {what}: there is nothing to learn from; give more text.")
        return parts(text.lower() if self.lower else text, self.val_fraction, self.test_fraction)

    def read(self) -> None:
        super().read()
        held_out = torch.cat([self.tokens["val"], self.tokens["test"]])
        sizes = ", ".join(f"{len(tokens) - (name != 'train'):,} {name}" for name, tokens in self.tokens.items())
        note(
            f"{self.path}: {self.level} {sizes}; a vocabulary of {self.facts['num_tokens']:,}, which lacks "
            f"{(held_out == 0).double().mean():.2%} of validation and test."
        )


def decode(content: bytes, source: str, encoding: str) -> str:
    """The text of a file, line ends as `\\n`; raises ZooError where it is no text, or in another encoding."""
    if content.startswith((b"PK\3\4", b"%PDF", b"\xd0\xcf\x11\xe0")):
        raise ZooError(f"{source} is a document or an archive, no plain text: save it as a .txt file in utf-8.")
    try:
        text = content.decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
    except UnicodeDecodeError as error:
        is_utf_16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        if b"\0" in content and not is_utf_16 and "utf-16" not in encoding.lower():
            raise ZooError(f"{source} holds zero bytes: it is no text, or one for data.encoding=utf-16.") from None
        guess = "utf-16" if is_utf_16 else "latin-1" if encoding.lower() in ("cp1252", "windows-1252") else "cp1252"
        raise ZooError(
            f"{source} is not {encoding}: byte {error.start} (line {content.count(bytes([10]), 0, error.start) + 1}) "
            f"is {content[error.start]:#04x}; say how the file is encoded, as in data.encoding={guess}."
        ) from None
    except (LookupError, ValueError):
        raise ZooError(
            f"data.encoding={encoding}: not the encoding of {source}, or none at all; there are utf-8, cp1252, latin-1 "
            "and utf-16."
        ) from None
    if "\0" in text:
        raise ZooError(
            f"{source} holds a zero byte (character {text.index(chr(0))}): it is no text, or in another encoding than "
            f"data.encoding={encoding}."
        )
    return _LINE_END.sub("\n", text.removeprefix("\ufeff"))
