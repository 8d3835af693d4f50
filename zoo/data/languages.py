"""Which language is a snippet of a few characters in? The Universal Declaration of Human Rights in 28 languages.

Paragraphs, not snippets, are dealt to the splits, so that no sentence of a test snippet was trained on. (The same
article is there in every language, though: what is said in test was read in others.)
"""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.data.embedded import shipped
from zoo.data.loaders import Batch
from zoo.data.module import DataModule
from zoo.data.splits import stratified
from zoo.data.text import encode, fit_vocabulary
from zoo.errors import ZooError
from zoo.randomness import key, permutation, uniform

_TEST, _VAL = 0.2, 0.1  # of all paragraphs, of those that are not test


class SnippetSplit:
    """Snippets of the paragraphs `tokens` with targets (P,): of `shortest` to `longest` tokens, filled with 0 behind.

    A paragraph gives as many examples as snippets of `longest` that it can be cut into. Without `augment` these are the
    examples. With it, a key of training's randomness, each starts at a place of its paragraph that follows from that
    key, epoch and position. So does its length; in evaluation that follows from `seed` and the example's index.
    """

    def __init__(
        self, tokens: Sequence[Tensor], targets: Tensor, *, longest: int, shortest: int, seed: int, augment: int | None
    ) -> None:
        self.longest, self.shortest, self.seed, self.augment = longest, shortest, seed, augment
        size = torch.tensor([len(part) for part in tokens])
        examples = size // longest
        paragraph = torch.arange(len(size)).repeat_interleave(examples)
        order = permutation(key(seed, "order"), len(paragraph))  # so that any few examples are of many paragraphs
        first = (size.cumsum(0) - size)[paragraph]
        number = torch.arange(len(paragraph)) - (examples.cumsum(0) - examples)[paragraph]  # within its paragraph
        self.first, self.start = first[order], (first + longest * number)[order]
        self.choices = (size - longest + 1)[paragraph][order]  # how many places a snippet may start at
        self.targets = targets[paragraph][order]  # (N,)
        self.windows = torch.cat(list(tokens)).unfold(0, longest, 1)  # a view: window w begins at token w
        self.column = torch.arange(longest)
        self._draws: tuple[int, Tensor] = (-2, torch.empty(0))  # an epoch and its draws: drawing small parts is slow

    def __len__(self) -> int:
        return len(self.start)

    def draws(self, epoch: int) -> Tensor:
        """Two uniform numbers for every position of a training epoch, (N, 2); epoch -1 is evaluation, by index."""
        if self._draws[0] != epoch:
            stream = key(self.seed, "snippets") if self.augment is None else key(self.augment, epoch)
            self._draws = (epoch, uniform(stream, torch.arange(len(self)), 2))
        return self._draws[1]

    def batch(self, epoch: int, positions: Tensor, indices: Tensor) -> Batch:
        if self.augment is None:
            start, draws = self.start.index_select(0, indices), self.draws(-1).index_select(0, indices)
        else:
            draws = self.draws(epoch).index_select(0, positions)
            choices = self.choices.index_select(0, indices)
            start = self.first.index_select(0, indices) + (draws[:, 0] * choices).long()
        snippets = self.windows.index_select(0, start)
        length = self.shortest + (draws[:, 1] * (self.longest - self.shortest + 1)).long()
        if self.shortest < self.longest:
            snippets.masked_fill_(self.column >= length[:, None], 0)
        target = self.targets.index_select(0, indices)
        return {"input": snippets, "length": length, "target": target, "position": positions}


@dataclass(kw_only=True, eq=False)
class Languages(DataModule):
    """Snippets of `length` characters, or of `min_length` to `length`, in one of 28 languages of Latin script.

    A fifth of the paragraphs is test, a tenth of the others validation, stratified by language, by `split_seed`. The
    vocabulary is the characters of the training paragraphs; a paragraph shorter than `length` gives no snippet.
    """

    length: int = 20
    min_length: int | None = None
    sequence_length: int | None = None
    num_tokens: int | None = None
    vocabulary: Sequence[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length < 1:
            raise ValueError(f"length={self.length}: must be at least 1")
        if self.min_length is not None and not 1 <= self.min_length <= self.length:
            raise ValueError(f"min_length={self.min_length}: must be from 1 to {self.length}, the length")
        if self.augmentation:
            raise ZooError("augment: these data are not images, and only images are augmented; say augment=none.")

    def read(self) -> None:
        languages, paragraphs = udhr()
        names = sorted(set(languages))
        self.state({"sequence_length": self.length, "num_classes": len(names), "class_names": names})
        targets = torch.tensor([names.index(language) for language in languages])
        rest, test = stratified(targets, round(_TEST * len(targets)), seed=self.split_seed)
        train, val = (rest[part] for part in stratified(targets[rest], round(_VAL * len(rest)), seed=self.split_seed))
        if self.facts["vocabulary"] is None:
            text = "".join(paragraphs[i] for i in train.tolist())
            self.facts["vocabulary"] = fit_vocabulary(text, "characters", len(text))
        self.state({"num_tokens": len(self.facts["vocabulary"])})
        sizes = torch.tensor([len(paragraph) for paragraph in paragraphs])
        tokens = encode("".join(paragraphs), self.facts["vocabulary"], "characters").split(sizes.tolist())
        longest = min(int(sizes[p][targets[p] == k].max()) for p in (train, val, test) for k in range(len(names)))
        if self.length > longest:
            raise ValueError(f"length={self.length}: must be at most {longest}, or a language would have no snippets")
        self.splits = {
            name: SnippetSplit(
                [tokens[i] for i in part.tolist()],
                targets[part],
                longest=self.length,
                shortest=self.min_length or self.length,
                seed=self.split_seed,
                augment=key(self.seed, "crops") if name == "train" else None,
            )
            for name, part in (("train", train), ("val", val), ("test", test))
        }


def udhr() -> tuple[list[str], list[str]]:
    """The language of each of the 1,647 paragraphs, and the paragraphs."""
    content = shipped("udhr_28_languages.tsv.gz", "803cbf23740a92cc")
    with gzip.open(content, "rt", encoding="utf-8", newline="") as file:
        _, *rows = (line.split("\t") for line in file.read().rstrip("\n").split("\n"))
    return [language for language, _ in rows], [paragraph for _, paragraph in rows]
