"""Decoding held against brute force: all sequences of a tiny random network, and filters computed one by one."""

import itertools
import math
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from zoo.decoding import END, PAD, START, State, beam_search, cut_tail, generate, greedy, sample

TOKENS, HIDDEN = 4, 5
LENGTH = 4


class Tiny(nn.Module):
    """A random recurrent network: what comes next depends on the source and on all tokens before."""

    def __init__(self, seed: int = 0, sharpness: float = 2.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def weights(*shape: int) -> Tensor:
            return sharpness * torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.sources, self.tokens = weights(9, HIDDEN), weights(TOKENS, HIDDEN)
        self.recurrent, self.output = weights(HIDDEN, HIDDEN), weights(HIDDEN, TOKENS)

    def start(self, source: Tensor, source_length: Tensor) -> State:
        return self.sources[source[:, 0]], source_length

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        hidden = torch.tanh(state[0] @ self.recurrent + self.tokens[token])
        return hidden @ self.output, (hidden, state[1])

    @cache  # noqa: B019  # the networks of a test are few and die with the process
    def _read(self, source: int, tokens: tuple[int, ...]) -> tuple[list[float], State]:
        """The log-probabilities of what comes after `tokens`."""
        state = self._read(source, tokens[:-1])[1] if tokens else self.start(torch.tensor([[source]]), torch.ones(1))
        logits, state = self.step(torch.tensor([tokens[-1] if tokens else START]), state)
        return logits[0].log_softmax(-1).tolist(), state

    def log_p(self, source: int, tokens: list[int]) -> float:
        return sum(self._read(source, tuple(tokens[:t]))[0][token] for t, token in enumerate(tokens))


SOURCE, SOURCE_LENGTH = torch.arange(9)[:, None], torch.ones(9, dtype=torch.int64)


def all_outputs() -> list[list[int]]:
    """Every sequence that ends within LENGTH tokens."""
    others = [token for token in range(TOKENS) if token != END]
    return [[*body, END] for n in range(LENGTH) for body in itertools.product(others, repeat=n)]


def filled(tokens: list[int]) -> list[int]:
    return tokens + [PAD] * (LENGTH - len(tokens))


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_finds_what_exhaustive_search_finds(seed: int, alpha: float) -> None:
    network = Tiny(seed)
    found, scores = beam_search(network, SOURCE, SOURCE_LENGTH, max_length=LENGTH, beam=TOKENS**LENGTH, alpha=alpha)
    for row in range(9):
        score = {
            tuple(tokens): network.log_p(row, tokens) / ((5 + len(tokens)) ** alpha / (5 + 1) ** alpha)
            for tokens in all_outputs()
        }
        best = max(score, key=score.__getitem__)
        assert (found[row].tolist() + [PAD] * LENGTH)[:LENGTH] == filled(list(best))
        assert scores[row].item() == pytest.approx(score[best], abs=1e-9)


def plain_beam_search(network: Tiny, source: int, beam: int, alpha: float) -> tuple[list[int], float]:
    """The same search for one source, with lists and without early ends beyond `beam` finished ones."""

    def score(tokens: list[int]) -> float:
        return network.log_p(source, tokens) / ((5 + len(tokens)) / 6) ** alpha

    alive: list[list[int]] = [[]]
    finished: list[list[int]] = []
    for _ in range(LENGTH):
        grown = [[*tokens, token] for tokens in alive for token in range(TOKENS)]
        grown.sort(key=lambda tokens: -network.log_p(source, tokens))
        finished += [tokens for tokens in grown[:beam] if tokens[-1] == END]
        alive = [tokens for tokens in grown if tokens[-1] != END][:beam]
        if len(finished) >= beam:
            break
    best = max(finished or alive[:1], key=score)
    return best, score(best)


@pytest.mark.parametrize(("beam", "alpha"), [(1, 0.0), (2, 0.0), (2, 1.0), (3, 0.6), (5, 3.0)])
def test_a_narrow_beam_prunes_and_stops_as_the_plain_algorithm(beam: int, alpha: float) -> None:
    differ = 0
    for seed in range(8):
        network = Tiny(seed)
        found, scores = beam_search(network, SOURCE, SOURCE_LENGTH, max_length=LENGTH, beam=beam, alpha=alpha)
        for row in range(9):
            tokens, score = plain_beam_search(network, row, beam, alpha)
            assert (found[row].tolist() + [PAD] * LENGTH)[:LENGTH] == filled(tokens), (seed, row)
            assert scores[row].item() == pytest.approx(score, abs=1e-9)
            differ += tokens != plain_beam_search(network, row, TOKENS**LENGTH, alpha)[0]
    assert differ, "the case is too easy to tell a pruned search from a full one"


@pytest.mark.parametrize("seed", range(5))
def test_beam_of_one_and_sampling_of_one_are_greedy(seed: int) -> None:
    network, generator = Tiny(seed), torch.Generator().manual_seed(0)
    expected = greedy(network, SOURCE, SOURCE_LENGTH, max_length=12)
    assert torch.equal(beam_search(network, SOURCE, SOURCE_LENGTH, max_length=12, beam=1)[0], expected)
    for options in ({"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-9}):
        drawn = sample(network, SOURCE, SOURCE_LENGTH, max_length=12, generator=generator, **options)
        assert torch.equal(drawn, expected), options


def test_greedy_takes_the_best_token_ends_at_the_end_and_fills_behind_it() -> None:
    network = Tiny(1)
    found = greedy(network, SOURCE, SOURCE_LENGTH, max_length=12)
    lengths = set()
    for row, output in enumerate(found.tolist()):
        tokens: list[int] = []
        while len(tokens) < 12 and END not in tokens:
            scores = [network.log_p(row, [*tokens, token]) for token in range(TOKENS)]
            tokens.append(scores.index(max(scores)))
        assert output == tokens + [PAD] * (found.shape[1] - len(tokens))
        lengths.add(len(tokens))
    assert len(lengths) > 1, "rows of one length show no filling"


def test_no_row_depends_on_the_others() -> None:
    network = Tiny(2)
    together = beam_search(network, SOURCE, SOURCE_LENGTH, max_length=6, beam=3)
    for row in range(9):
        alone = beam_search(network, SOURCE[row : row + 1], SOURCE_LENGTH[:1], max_length=6, beam=3)
        assert together[0][row, : alone[0].shape[1]].tolist() == alone[0][0].tolist()
        assert together[1][row].item() == pytest.approx(alone[1][0].item())


def allowed(logits: list[float], top_k: int | None, top_p: float | None) -> set[int]:
    """The tokens that may be drawn, from the definitions."""
    ranked = sorted(range(len(logits)), key=lambda token: -logits[token])[:top_k]
    weights = [math.exp(logits[token]) for token in ranked]
    kept: set[int] = set()
    share = 0.0
    for token, weight in zip(ranked, weights, strict=True):
        if top_p is not None and share >= top_p:
            break
        kept.add(token)
        share += weight / sum(weights)
    return kept


@pytest.mark.parametrize("top_k", [None, 1, 3, 7, 100])
@pytest.mark.parametrize("top_p", [None, 0.01, 0.5, 0.9, 1.0])
def test_filters_are_their_definitions(top_k: int | None, top_p: float | None) -> None:
    logits = 2 * torch.randn(30, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = cut_tail(logits, top_k=top_k, top_p=top_p)
    for row, cut in zip(logits, found, strict=True):
        kept = allowed(row.tolist(), top_k, None if top_p == 1 else top_p)
        assert {token for token in range(7) if cut[token] > -math.inf} == kept
        assert all(cut[token] == row[token] for token in kept)


def test_top_p_keeps_the_token_that_crosses_it_and_equal_logits_are_cut_to_k() -> None:
    logits = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64).log()
    assert torch.isfinite(cut_tail(logits, top_p=0.5)).tolist() == [True, False, False, False]
    assert torch.isfinite(cut_tail(logits, top_p=0.51)).tolist() == [True, True, False, False]
    assert torch.isfinite(cut_tail(logits, top_k=3)).tolist() == [True, True, True, False]
    assert torch.isfinite(cut_tail(torch.tensor([100.0, 0.0]), top_p=1.0)).all(), "rounding must not cut the tail"


def test_samples_follow_the_distribution() -> None:
    network, draws = Tiny(0, sharpness=0.5), 20_000
    source, length = torch.full((draws, 1), 3), torch.ones(draws, dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    first = sample(network, source, length, max_length=2, temperature=0.7, top_k=3, generator=generator)[:, 0]
    logits = [network.log_p(3, [token]) for token in range(TOKENS)]
    weights = {token: math.exp(logits[token] / 0.7) for token in allowed(logits, 3, None)}
    for token in range(TOKENS):
        expected = weights.get(token, 0.0) / sum(weights.values())
        assert (first == token).double().mean().item() == pytest.approx(expected, abs=0.015)


class Successor(nn.Module):
    """A language model for which n is followed by n + 1; it counts what it reads."""

    def __init__(self, context: int | None = None) -> None:
        super().__init__()
        self.read: list[list[int]] = []
        if context is not None:
            self.context = context

    def forward(self, tokens: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        self.read.append(tokens[0].tolist())
        seen = tokens.shape[1] + (0 if state is None else int(state))
        logits = torch.nn.functional.one_hot((tokens + 1) % 50, 50).double() * 1e3
        return logits, None if hasattr(self, "context") else torch.tensor(seen)


def test_generated_text_goes_on_from_the_prompt_with_the_state_or_the_context() -> None:
    prompt, generator = torch.tensor([[7, 8, 9], [20, 30, 40]]), torch.Generator()
    recurrent, windowed = Successor(), Successor(context=2)
    for network in (recurrent, windowed):
        found = generate(network, prompt, 4, generator=generator)
        assert found.tolist() == [[10, 11, 12, 13], [41, 42, 43, 44]]
    assert recurrent.read == [[7, 8, 9], [10], [11], [12]]
    assert windowed.read == [[8, 9], [9, 10], [10, 11], [11, 12]]


class Stateful(nn.Module):
    """The sum of all tokens so far decides what comes next."""

    def forward(self, tokens: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        sums = tokens.cumsum(1) + (0 if state is None else state[:, None])
        return torch.nn.functional.one_hot(sums % 10, 10).double() * 1e3, sums[:, -1]


def test_what_is_never_drawn_is_not_drawn_however_likely() -> None:
    found = generate(Successor(), torch.tensor([[7]]), 200, generator=torch.Generator().manual_seed(0), never=[10, 12])
    assert found[0, :2].tolist() == [8, 9]
    assert {10, 12}.isdisjoint(found.flatten().tolist())


def test_generate_carries_the_state() -> None:
    found = generate(Stateful(), torch.tensor([[1, 2], [3, 4]]), 3, generator=torch.Generator())
    assert found.tolist() == [[3, 6, 2], [7, 4, 8]]


def test_the_generator_decides_what_is_drawn() -> None:
    network = nn.Module()
    network.forward = lambda tokens, state: (torch.zeros(*tokens.shape, 50), None)
    drawn = [
        generate(network, torch.zeros(2, 1, dtype=torch.int64), 20, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": 0.0}, "temperature=0.0: must be above 0"),
        ({"temperature": -1.0}, "temperature=-1.0: must be above 0"),
        ({"temperature": math.nan}, "temperature=nan: must be above 0"),
        ({"top_k": 0}, "top_k=0: must be at least 1"),
        ({"top_p": 0.0}, "top_p=0.0: must be above 0 and at most 1"),
        ({"top_p": 1.1}, "top_p=1.1: must be above 0 and at most 1"),
    ],
)
def test_wrong_sampling_is_refused(options: dict, said: str) -> None:
    generator = torch.Generator()
    with pytest.raises(ValueError, match=f"^{said}"):
        sample(Tiny(), SOURCE, SOURCE_LENGTH, max_length=3, generator=generator, **options)
    with pytest.raises(ValueError, match=f"^{said}"):
        generate(Stateful(), torch.ones(1, 1, dtype=torch.int64), 3, generator=generator, **options)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: greedy(Tiny(), SOURCE, SOURCE_LENGTH, max_length=0), "max_length=0: must be at least 1"),
        (lambda: beam_search(Tiny(), SOURCE, SOURCE_LENGTH, max_length=3, beam=0), "beam=0: must be at least 1"),
        (lambda: beam_search(Tiny(), SOURCE, SOURCE_LENGTH, max_length=3, alpha=-1), "alpha=-1: must be 0 or more"),
        (lambda: generate(Stateful(), SOURCE, 0, generator=torch.Generator()), "length=0: must be at least 1"),
        (lambda: generate(Stateful(), SOURCE[:, :0], 1, generator=torch.Generator()), "prompt of shape"),
    ],
)
def test_other_wrong_arguments_are_refused(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        call()
