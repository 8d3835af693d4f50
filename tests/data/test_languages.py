"""Snippets in 28 languages: paragraphs apart, every snippet from its paragraph, crops by (seed, epoch, position)."""

import hashlib
from functools import cache
from typing import Any

import pytest
import torch
from conftest import compose_config
from hydra.utils import instantiate
from torch import Tensor

from zoo.data.languages import Languages, udhr
from zoo.data.loaders import Batch
from zoo.errors import ZooError


@cache
def load(**options: Any) -> Languages:
    config = compose_config(["data=languages"])
    for name, value in options.items():
        config.data[name] = value
    data: Languages = instantiate(config.data)
    data.setup("fit")
    return data


def everything(data: Languages, split: str, epoch: int = 0, training: bool = False) -> Batch:
    loader = data.loader(split, training=training)
    loader.sampler.set_epoch(epoch)
    batches = list(loader)
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def texts(data: Languages, batch: Batch) -> list[str]:
    vocabulary = data.facts["vocabulary"]
    rows = zip(batch["input"].tolist(), batch["length"].tolist(), strict=True)
    return ["".join(vocabulary[token] for token in row[:length]) for row, length in rows]


def test_the_paragraphs_are_28_languages() -> None:
    languages, paragraphs = udhr()
    assert len(languages) == len(set(paragraphs)) == 1647
    names = sorted(set(languages))
    assert names == load().facts["class_names"]
    assert len(names) == load().facts["num_classes"] == 28
    assert min(languages.count(name) for name in names) == 56


def test_sizes_and_hash_of_the_splits() -> None:
    data = load()
    digest = hashlib.sha256()
    for name, size in (("train", 10033), ("val", 1160), ("test", 2894)):
        batch = everything(data, name)
        assert batch["input"].shape == (size, 20)
        assert torch.equal(batch["position"], torch.arange(size))
        assert batch["length"].unique().tolist() == [20]
        counts = torch.bincount(batch["target"], minlength=28)
        assert len(counts) == 28
        assert int(counts.min()) > 0.3 * size / 28
        digest.update(batch["input"].numpy().tobytes())
        digest.update(batch["target"].numpy().tobytes())
    assert digest.hexdigest() == "194c482f826b93dac9b22e455df82f00ae9c08b496f2c894ac7f71be5576fa80"


def test_every_snippet_is_of_a_paragraph_of_its_language_and_split() -> None:
    data, (languages, paragraphs) = load(), udhr()
    names, seen = data.facts["class_names"], {}
    for split in ("train", "val", "test"):
        batch = everything(data, split)
        found = set()
        for text, target in zip(texts(data, batch), batch["target"].tolist(), strict=True):
            known = text.replace("<unk>", "\ufffd")
            homes = [i for i, name in enumerate(languages) if name == names[target] and covers(paragraphs[i], known)]
            assert homes
            found |= set(homes) if len(homes) == 1 else set()
        seen[split] = found
    assert not seen["train"] & seen["test"]
    assert not seen["train"] & seen["val"]
    assert not seen["val"] & seen["test"]
    # in evaluation a paragraph is cut into as many pieces as it has, from its start
    assert sum(len(paragraph) // 20 for paragraph in paragraphs) == sum(data.size(split) for split in data.splits)
    assert {text[:20] for text in (paragraphs[i] for i in seen["train"])} <= set(texts(data, everything(data, "train")))


def covers(paragraph: str, snippet: str) -> bool:
    """Whether the snippet, in which � stands for any character, is in the paragraph."""
    if "\ufffd" not in snippet:
        return snippet in paragraph
    size = len(snippet)
    places = range(len(paragraph) - size + 1)
    return any(all(a in (b, "\ufffd") for a, b in zip(snippet, paragraph[p : p + size], strict=True)) for p in places)


def test_training_crops_anew_each_epoch_the_same_whatever_the_batch() -> None:
    data = load()
    one, two = (everything(data, "train", epoch, training=True) for epoch in (1, 2))
    assert len(one["input"]) == 10033
    assert torch.equal(one["target"].sort().values, two["target"].sort().values)
    fixed = {tuple(row) for row in everything(data, "train")["input"].tolist()}
    for batch in (one, two):
        assert sum(tuple(row) in fixed for row in batch["input"].tolist()) < 0.2 * 10033
    other = everything(load(batch_size=977), "train", 1, training=True)
    assert all(torch.equal(one[name], other[name]) for name in one)
    elsewhere = everything(load(seed=5), "train", 1, training=True)
    assert not torch.equal(one["input"], elsewhere["input"])
    split = data.splits["train"]
    indices = torch.full((500,), 7)  # one example at all positions: its paragraph is used from end to end
    starts = split.batch(3, torch.arange(500), indices)["input"][:, 0]
    first, choices = int(split.first[7]), int(split.choices[7])  # type: ignore[attr-defined]
    assert set(starts.tolist()) <= set(split.windows[first : first + choices, 0].tolist())  # type: ignore[attr-defined]
    assert len({tuple(row) for row in split.batch(3, torch.arange(500), indices)["input"].tolist()}) > 0.8 * choices


def test_crops_reach_the_first_and_the_last_character_of_a_paragraph() -> None:
    data, (_, paragraphs) = load(), udhr()
    epochs = [set(texts(data, everything(data, "train", epoch, training=True))) for epoch in range(4)]
    seen = set().union(*epochs)
    assert seen & {paragraph[:20] for paragraph in paragraphs if len(paragraph) > 40}
    assert seen & {paragraph[-20:] for paragraph in paragraphs if len(paragraph) > 40}


def test_shorter_snippets_are_filled_behind_their_length() -> None:
    data = load(min_length=5, length=12)
    for batch in (everything(data, "test"), everything(data, "train", 1, training=True)):
        assert batch["input"].shape[1] == data.facts["sequence_length"] == 12
        assert batch["length"].unique().tolist() == list(range(5, 13))
        behind = torch.arange(12) >= batch["length"][:, None]
        assert not batch["input"][behind].any()
        assert (batch["input"][~behind] == 0).float().mean() < 0.001  # characters unknown to training
    again = everything(load(min_length=5, length=12, seed=9), "test")
    assert torch.equal(everything(data, "test")["length"], again["length"])


def test_the_vocabulary_is_of_the_training_paragraphs_or_as_given() -> None:
    data = load()
    vocabulary = data.facts["vocabulary"]
    assert vocabulary[0] == "<unk>"
    assert len(vocabulary) == data.facts["num_tokens"] == 145
    assert vocabulary[1:] == sorted(set(vocabulary[1:]))
    assert not (data.splits["train"].windows == 0).any()  # type: ignore[attr-defined]
    assert (data.splits["test"].windows == 0).any()  # type: ignore[attr-defined]
    given = load(vocabulary=("<unk>", "e", " "))
    assert given.facts["num_tokens"] == 3
    assert everything(given, "val")["input"].unique().tolist() == [0, 1, 2]


def test_a_few_training_examples_are_of_all_languages() -> None:
    data = Languages()
    data.setup("fit")
    data.train_examples = 56
    few = everything(data, "train")
    assert torch.bincount(few["target"]).tolist() == [2] * 28


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "length=0: must be at least 1"),
        ({"min_length": 21}, "min_length=21: must be from 1 to 20"),
        ({"min_length": 0}, "min_length=0: must be from 1"),
        ({"length": 600}, r"length=600: must be at most \d+, or a language"),
    ],
)
def test_impossible_lengths_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Languages(**options).setup()  # type: ignore[arg-type]


def test_augmentation_of_images_is_refused() -> None:
    with pytest.raises(ZooError, match="augment=none"):
        Languages(augment={"noise": 0.1})


def test_the_split_follows_its_seed() -> None:
    def targets(seed: int) -> Tensor:
        return everything(load(split_seed=seed, vocabulary=("<unk>", "a")), "test")["target"]

    assert not torch.equal(targets(0)[:100], targets(1)[:100])
