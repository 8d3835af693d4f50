"""Witten–Bell n-grams against a case by hand and against the recursion written out."""

import itertools
import math

import numpy as np
import pytest

from studies.ngrams import probabilities
from zoo.randomness import key, permutation


def tokens(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


def test_a_case_by_hand() -> None:
    """After abaa: a 3 times and b once; behind a once a, once b; behind b once a. A third symbol was never seen."""
    p = probabilities(tokens(0, 1, 0, 0), tokens(0, 0, 1, 0, 2, 1), symbols=3, orders=2)
    a, b, c = (3 + 2 / 3) / 6, (1 + 2 / 3) / 6, (0 + 2 / 3) / 6
    assert p[0].tolist() == pytest.approx([a, b, a, c, b])
    after_a, after_b = lambda count, q: (count + 2 * q) / 4, lambda count, q: (count + q) / 2
    assert p[1].tolist() == pytest.approx([after_a(1, a), after_a(1, b), after_b(1, a), after_a(0, c), b])


def slow(train: list[int], history: tuple[int, ...], token: int, symbols: int) -> float:
    """p of `token` after the whole `history`, by the formula."""
    places = range(len(history), len(train))
    followers = [train[i] for i in places if tuple(train[i - len(history) : i]) == history]
    shorter = slow(train, history[1:], token, symbols) if history else 1 / symbols
    kinds = len(set(followers))
    return (followers.count(token) + kinds * shorter) / (len(followers) + kinds) if followers else shorter


def test_against_the_recursion_and_sums_to_one() -> None:
    train = (permutation(key("train"), 300) % 7 % 4).numpy()
    text = (permutation(key("text"), 40) % 7 % 4).numpy()
    p = probabilities(train, text, symbols=4, orders=4)
    assert p.shape == (4, 37)
    for order, place in itertools.product(range(1, 5), range(37)):
        end = place + 3
        history = tuple(text[end - order + 1 : end].tolist())
        assert p[order - 1, place] == pytest.approx(slow(train.tolist(), history, int(text[end]), 4))
    endings = [probabilities(train, tokens(*text[:10], x), symbols=4, orders=4)[:, -1] for x in range(4)]
    assert np.sum(endings, axis=0).tolist() == pytest.approx([1] * 4)


def test_strings_too_long_for_a_number_are_refused() -> None:
    with pytest.raises(ValueError, match="orders=7: must be fewer"):
        probabilities(tokens(0, 1), tokens(0, 1), symbols=math.ceil(2**9.5), orders=7)
