"""Sequence to sequence: metrics of whole splits against brute force, and what teacher forcing shows the network."""

import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.tasks.seq2seq import Seq2Seq, sentences

PAD, START, END = 0, 1, 2
TOKENS = 7
FACTS = {"num_source_tokens": 20, "num_target_tokens": TOKENS}


class Scripted(nn.Module):
    """Says what it is told: to a source that begins with n, the n-th row when decoding, the n-th logits when taught."""

    def __init__(self, said: Tensor, taught: Tensor) -> None:
        super().__init__()
        self.said, self.taught = said, taught
        self.seen: list[Tensor] = []

    def forward(self, source: Tensor, length: Tensor, target: Tensor) -> Tensor:
        self.seen = [source, length, target]
        return self.taught[source[:, 0], : target.shape[1]]

    def start(self, source: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        return source[:, 0], torch.zeros(len(source)).long()

    def step(self, token: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        number, place = state
        return F.one_hot(self.said[number, place], TOKENS).float(), (number, place + 1)


def rows(*sequences: list[int]) -> Tensor:
    """Sequences with their ends, padded."""
    width = max(map(len, sequences)) + 1
    return torch.tensor([[*sequence, END, *[PAD] * (width - 1 - len(sequence))] for sequence in sequences])


TRUTH = [[3, 4, 5, 6, 3], [4, 4, 5, 3], [6, 5, 4, 3, 6, 5], [3], [5, 6, 5, 6, 5, 6], [5, 6]]
SAID = [[3, 4, 5, 6, 3], [4, 4, 5, 3, 3], [6, 5, 4, 4, 4, 4], [3], [5, 6, 5, 6], [5, 6, 5, 6, 5, 6]]  # the last: cut


def batches(*parts: slice) -> list[dict[str, Tensor]]:
    """Six examples in two batches of other widths, or in others."""
    found = []
    for part in parts or (slice(0, 3), slice(3, 6)):
        target = F.pad(rows(*TRUTH[part]), (1, 0), value=START)
        numbers, length = torch.arange(6)[part], torch.full((len(target),), 3)
        found.append({"input": numbers[:, None].repeat(1, 3), "length": length, "target": target})
    return found


def a_task(**options: float) -> Seq2Seq:
    taught = torch.randn(6, 7, TOKENS, generator=torch.Generator().manual_seed(0)) * 2
    said = F.pad(rows(*SAID), (0, 9), value=4)
    said[5] = torch.tensor([5, 6]).repeat(8)  # it never ends
    return Seq2Seq(Scripted(said, taught), facts=FACTS, **options)


def evaluated(task: Seq2Seq, *parts: slice) -> dict[str, float]:
    task.start_split()
    with torch.no_grad():
        for number, batch in enumerate(batches(*parts)):
            task.evaluation_step(batch, number)
    return task.split_scores("test")


def bleu(said: list[list[int]], truth: list[list[int]]) -> float:
    """Papineni et al. 2002: brevity penalty times the geometric mean of the clipped precisions of 1- to 4-grams."""
    product = 1.0
    for n in range(1, 5):
        hits = total = 0
        for mine, right in zip(said, truth, strict=True):
            counts = [Counter(tuple(s[i : i + n]) for i in range(len(s) - n + 1)) for s in (mine, right)]
            hits += sum(min(count, counts[1][gram]) for gram, count in counts[0].items())
            total += sum(counts[0].values())
        product *= (hits / total) ** 0.25
    short, long = sum(map(len, said)), sum(map(len, truth))
    return product * min(1.0, math.exp(1 - long / short))


def test_scores_are_those_of_all_tokens_and_all_outputs_of_a_split() -> None:
    task = a_task()
    scores = evaluated(task)
    nats, hits = [], []
    for number, truth in enumerate(TRUTH):
        for place, token in enumerate([*truth, END]):
            row = [math.exp(value) for value in task.network.taught[number, place].tolist()]
            nats.append(-math.log(row[token] / sum(row)))
            hits.append(row[token] == max(row))
    assert scores == pytest.approx(
        {
            "test/loss": sum(nats) / len(nats),
            "test/token_accuracy": sum(hits) / len(hits),
            "test/exact_match": 2 / 6,
            "test/bleu": bleu(SAID, TRUTH),
        },
        rel=1e-6,
    )
    assert 0.3 < scores["test/bleu"] < 0.95
    alone = evaluated(task, *(slice(i, i + 1) for i in range(6)))
    assert alone == pytest.approx(scores), "whatever else is in a batch"


def test_a_network_decodes_no_longer_than_it_can() -> None:
    task = a_task()
    task.network.max_length = 7  # enough for the longest target
    scores = evaluated(task)
    assert scores["test/exact_match"] == pytest.approx(2 / 6)
    task.network.said[:, 7:] = 10**6  # no token, and an error where it is looked at
    assert evaluated(task) == scores


def test_which_outputs_were_right_is_told_for_pictures() -> None:
    task = a_task()
    task.start_split()
    assert task.evaluation_step(batches()[0], 0)["exact"].tolist() == [True, False, False]
    assert task.evaluation_step(batches()[1], 1)["exact"].tolist() == [True, False, False]


def test_the_network_is_taught_the_right_tokens_so_far() -> None:
    task, batch = a_task(), batches()[0]
    task.loss(task.network, batch)
    for seen, shown in zip(task.network.seen, (batch["input"], batch["length"], batch["target"][:, :-1]), strict=True):
        assert torch.equal(seen, shown)


def test_smoothing_leaves_out_padding() -> None:
    task, batch = a_task(label_smoothing=0.2), batches()[0]
    loss = task.loss(task.network, batch)[0]
    losses = []
    for logits, target in zip(task.network.taught[:3], batch["target"][:, 1:], strict=True):
        log_p = logits[: len(target)].log_softmax(-1)[target != PAD]
        wanted = 0.8 * F.one_hot(target[target != PAD], TOKENS) + 0.2 / TOKENS
        losses += (-(log_p * wanted).sum(-1)).tolist()
    assert loss.item() == pytest.approx(sum(losses) / len(losses))


def test_step_metrics_weigh_the_tokens_of_a_window_of_steps_alike() -> None:
    task = a_task()
    kept = [task.step_values(task.loss(task.network, batch)[1], batch) for batch in batches()]
    expected = evaluated(task)["test/token_accuracy"]
    assert task.step_metrics(kept) == pytest.approx({"train/token_accuracy": expected})


def test_sentences_stop_at_the_end() -> None:
    tokens = torch.tensor([[3, 10, END, PAD], [END, PAD, PAD, PAD], [3, 4, 5, 6], [3, 4, 5, PAD]])
    assert sentences(tokens) == ["3 10", "", "3 4 5 6", "3 4 5"]


def test_wrong_values_are_refused() -> None:
    for value in (-0.1, 1.0):
        with pytest.raises(ValueError, match=rf"label_smoothing={value}: must be at least 0 and below 1"):
            a_task(label_smoothing=value)
    assert "data=reversal" in Seq2Seq.needs["num_target_tokens"]
