"""How well does counting predict the next letter? Witten–Bell n-grams on Moby-Dick, the mark for networks to pass.

Witten & Bell 1991, "The zero-frequency problem", method C, interpolated (Chen & Goodman 1998, section 2.5): after the
n − 1 characters h, which were followed N(h) times by D(h) different characters, c of them c(h, x) times x,

    p_n(x | h) = (c(h, x) + D(h) · p_{n−1}(x | h')) / (N(h) + D(h)),   h' being h without its first character,

and p_n = p_{n−1} where h was never seen; p_0 is uniform over the characters. Everything is counted by sorting: a string
of n characters is one int64, and all places of the text are looked up at once.

    python -m studies.ngrams
"""

import numpy as np
from numpy.typing import NDArray

from studies.running import COLOURS, figure, write
from zoo.data.text import MobyDick

Tokens = NDArray[np.int64]
ORDERS = 6


def strings(tokens: Tokens, length: int, base: int) -> Tokens:
    """Every string of `length` tokens as one number; the first ends at place `length` - 1."""
    count = len(tokens) - length + 1
    found = np.zeros(count, dtype=np.int64)
    for place in range(length):
        found = found * base + tokens[place : place + count]
    return found


def look_up(wanted: Tokens, keys: Tokens, values: Tokens) -> Tokens:
    """The value of each wanted key, 0 where it is not among the sorted keys."""
    place = np.searchsorted(keys, wanted).clip(max=len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)


def probabilities(train: Tokens, text: Tokens, *, symbols: int, orders: int) -> NDArray[np.float64]:
    """p_1 … p_orders of every token of `text` from place `orders` - 1 on, (orders, len(text) - orders + 1).

    Tokens are numbers below `symbols`, and p_0 is 1 / `symbols`.
    """
    if symbols**orders >= 2**63:
        raise ValueError(f"orders={orders}: must be fewer, as a string of {orders} of {symbols} symbols is no int64")
    p = np.full(len(text) - orders + 1, 1 / symbols)
    found = []
    for order in range(1, orders + 1):
        grams, times = np.unique(strings(train, order, symbols), return_counts=True)
        first = np.flatnonzero(np.diff(grams // symbols, prepend=-1))  # where another history begins
        histories = grams[first] // symbols
        seen, different = np.add.reduceat(times, first), np.diff(first, append=len(grams))
        wanted = strings(text, order, symbols)[orders - order :]
        count = look_up(wanted, grams, times)
        followed, kinds = (look_up(wanted // symbols, histories, values) for values in (seen, different))
        p = np.where(followed > 0, (count + kinds * p) / np.maximum(followed + kinds, 1), p)
        found.append(p)
    return np.stack(found)


def main(orders: int = ORDERS) -> dict[str, dict[str, float]]:
    data = MobyDick()
    data.setup()
    train, val, test = (data.tokens[name].numpy() for name in ("train", "val", "test"))
    symbols = len(data.facts["vocabulary"]) - 1  # <unk> is no character
    texts = {"trained on 80 %": train, "and on validation, 90 %": np.concatenate([train, val[1:]])}
    before = val[-orders:-1]  # test begins with the last character of validation
    picture, (axis,) = figure(6.5, 3.6, "Witten–Bell n-grams on the last tenth of Moby-Dick")
    numbers: dict[str, dict[str, float]] = {}
    for (name, text), colour in zip(texts.items(), COLOURS, strict=False):
        p = probabilities(text - 1, np.concatenate([before, test]) - 1, symbols=symbols, orders=orders)
        bits = -np.log2(p[:, 1 - len(test) :]).mean(1)
        numbers[name] = {f"{order}-grams": bit for order, bit in enumerate(bits.tolist(), 1)}
        axis.plot(range(1, orders + 1), bits, "o-", color=colour, label=name)
    axis.set(xlabel="n", ylabel="bits per character")
    axis.legend(frameon=False)
    write("ngrams", picture, numbers)
    return numbers


if __name__ == "__main__":
    main()
