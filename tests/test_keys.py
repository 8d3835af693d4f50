"""Words `key=value` of a verb."""

import pytest

from zoo.errors import ZooError
from zoo.keys import Key, defaults, read, real, truth, whole

KEYS = {"ckpt_path": Key(), "n": Key(whole(2, 9), 4), "eta": Key(real), "trust": Key(truth, False)}
KEYS |= {"prompt": Key(default="")}


def test_values_are_read_by_their_keys() -> None:
    words = ["n=3", "eta=1e-1", "trust=true", "prompt=a=b", "ckpt_path=a/b"]
    assert read(words, KEYS) == {"n": 3, "eta": 0.1, "trust": True, "prompt": "a=b", "ckpt_path": "a/b"}
    assert read([], KEYS) == {}
    assert defaults(KEYS) == {"ckpt_path": None, "n": 4, "eta": None, "trust": False, "prompt": ""}


def test_null_and_nothing_where_they_mean_something() -> None:
    assert read(["eta=1", "eta=null", "prompt="], KEYS) == {"prompt": ""}
    assert read(["n=3", "n=5", "prompt=null"], KEYS) == {"n": 5, "prompt": "null"}


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("zzz=3", r"zzz=3: there is no key zzz\. There is ckpt_path, n, eta, trust, prompt\."),
        ("trsut=true", r"trsut=true: there is no key trsut\. Did you mean trust\?"),
        ("n", "n: write n=value, or leave it out"),
        ("eta=", "eta=: write eta=value, or leave it out"),
        ("prompt", "prompt: write prompt=value, or leave it out"),
        (".", r"\.: write key=value\. Did you mean ckpt_path=\.\?"),
        ("n=1", "n=1: must be a whole number, at least 2"),
        ("n=10", "n=10: must be at most 9"),
        ("n=-3", "n=-3: must be a whole number"),
        ("n=null", "n=null: must be a whole number"),
        ("eta=x", "eta=x: must be a number"),
        ("trust=1", "trust=1: must be true or false"),
    ],
)
def test_a_wrong_word_is_a_sentence(word: str, sentence: str) -> None:
    with pytest.raises(ZooError, match=f"^{sentence}"):
        read([word], KEYS)
