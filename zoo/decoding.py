"""From a trained network to sequences: greedy choice, sampling and beam search for networks that map a sequence to a
sequence, and generated text for language models.

- Sampling: temperature; the k most likely tokens (Fan, Lewis, Dauphin 2018, "Hierarchical neural story generation",
  1805.04833); the nucleus of tokens that hold the probability p (Holtzman et al. 2019, "The curious case of neural text
  degeneration", 1904.09751).
- Beam search with length normalisation: Wu et al. 2016, "Google's neural machine translation system", 1609.08144,
  equation 14, without its coverage penalty.

All work on batches, compute no gradients, and use the network in the mode it is in: `network.eval()` turns dropout off.

Shapes: B batch, S source steps, T target steps, K tokens, W width of the beam.
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

State = tuple[Tensor, ...]
PAD, START, END = 0, 1, 2


class Stepwise(Protocol):
    """A network that gives its outputs token by token. Every tensor of the state has the batch as its first axis."""

    def start(self, source: Tensor, source_length: Tensor) -> State:
        """Read sources (B, S) of lengths (B,)."""

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Map the tokens (B,) before to logits (B, K) of the next."""


def greedy(network: Stepwise, source: Tensor, source_length: Tensor, *, max_length: int) -> Tensor:
    """The most likely token at every step: (B, T) with T up to `max_length`.

    A row ends with `END` and is filled with `PAD` behind it; one that found no end has neither. `START` is left out.
    """
    return _unroll(network, source, source_length, lambda logits: logits.argmax(-1), max_length)


def sample(
    network: Stepwise,
    source: Tensor,
    source_length: Tensor,
    *,
    max_length: int,
    generator: torch.Generator,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:
    """Draw every token from the network's distribution, as `draw` changes it: rows as `greedy`'s."""
    check_sampling(temperature, top_k, top_p)

    def choose(logits: Tensor) -> Tensor:
        return draw(logits, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)

    return _unroll(network, source, source_length, choose, max_length)


@torch.no_grad()
def _unroll(
    network: Stepwise, source: Tensor, source_length: Tensor, choose: Callable[[Tensor], Tensor], max_length: int
) -> Tensor:
    _check_at_least_1(max_length=max_length)
    state = network.start(source, source_length)
    token = source.new_full((len(source),), START)
    ended = torch.zeros_like(token, dtype=torch.bool)
    tokens = []
    for _ in range(max_length):
        logits, state = network.step(token, state)
        token = choose(logits).masked_fill(ended, PAD)
        tokens.append(token)
        ended = ended | (token == END)
        if ended.all():
            break
    return torch.stack(tokens, 1)


@torch.no_grad()
def beam_search(
    network: Stepwise, source: Tensor, source_length: Tensor, *, max_length: int, beam: int = 4, alpha: float = 0.6
) -> tuple[Tensor, Tensor]:
    """The most probable output found with `beam` hypotheses at a time: rows as `greedy`'s, and their scores (B,).

    A finished hypothesis y has the score log P(y) / lp(y), lp(y) = ((5 + |y|) / 6)^alpha, its end counted in |y|;
    `alpha=0` is the plain log-probability, which prefers short outputs. A row is done when `beam` hypotheses have
    finished, or when none that goes on could still win; if none has finished by `max_length`, the best open one is
    returned. `beam=1` gives what `greedy` gives.
    """
    _check_at_least_1(max_length=max_length, beam=beam)
    if not 0 <= alpha < math.inf:
        raise ValueError(f"alpha={alpha}: must be 0 or more")
    batch, device = len(source), source.device
    rows = torch.arange(batch, device=device)
    state = tuple(part.repeat_interleave(beam, 0) for part in network.start(source, source_length))  # (B·W, …)
    token = source.new_full((batch * beam,), START)
    open_tokens = source.new_full((batch, beam, max_length), PAD)
    best_tokens = source.new_full((batch, max_length), PAD)
    done = torch.zeros(batch, dtype=torch.bool, device=device)
    finished = torch.zeros(batch, dtype=torch.int64, device=device)
    best_scores = torch.full((batch,), -math.inf, device=device)
    scores = torch.full((batch, beam), -math.inf, device=device)
    scores[:, 0] = 0  # all hypotheses are still the same one: the first alone may go on
    for step in range(max_length):
        logits, state = network.step(token, state)
        log_p = logits.log_softmax(-1).view(batch, beam, -1)  # (B, W, K)
        # Each hypothesis has one way to end, so that among the best 2W at least W go on.
        candidates, where = (scores[:, :, None] + log_p).flatten(1).topk(2 * beam)  # (B, 2W), best first
        parent, choice = where // log_p.shape[-1], where % log_p.shape[-1]
        tokens = open_tokens.gather(1, parent[:, :, None].expand(-1, -1, max_length))
        tokens[:, :, step] = choice
        ends = choice == END

        # An end counts where it is among the best W, as a beam of W would have held it.
        normalised = candidates[:, :beam] / _length_penalty(step + 1, alpha)
        normalised = normalised.masked_fill(~ends[:, :beam] | done[:, None], -math.inf)
        finished = finished + (normalised > -math.inf).sum(1)
        score, rank = normalised.max(1)
        better = score > best_scores
        best_scores = torch.where(better, score, best_scores)
        best_tokens = torch.where(better[:, None], tokens[rows, rank], best_tokens)

        kept = ends.int().sort(dim=1, stable=True).indices[:, :beam]  # the first W that go on
        scores = candidates.gather(1, kept)
        open_tokens = tokens.gather(1, kept[:, :, None].expand(-1, -1, max_length))
        # No score rises from here, and the penalty divides by `max_length`'s at most.
        done = done | (finished >= beam) | (scores[:, 0] / _length_penalty(max_length, alpha) <= best_scores)
        if done.all():
            break
        origin = (beam * rows[:, None] + parent.gather(1, kept)).flatten()
        state = tuple(part.index_select(0, origin) for part in state)
        token = choice.gather(1, kept).flatten()
    best_tokens = torch.where((finished > 0)[:, None], best_tokens, open_tokens[:, 0])
    best_scores = torch.where(finished > 0, best_scores, scores[:, 0] / _length_penalty(max_length, alpha))
    return best_tokens[:, : step + 1], best_scores


def _length_penalty(length: int, alpha: float) -> float:
    return ((5 + length) / 6) ** alpha


@torch.no_grad()
def generate(
    network: nn.Module,
    prompt: Tensor,
    length: int,
    *,
    generator: torch.Generator,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    never: Sequence[int] = (),
) -> Tensor:
    """Go on with prompts (B, T) for `length` tokens, drawn as `draw` does: (B, length), without the prompt.

    A language model is called as `network(tokens, state)`. A recurrent one reads the prompt once and then each new
    token with the state before it; one with an attribute `context` reads the last `context` tokens for every new one.
    """
    check_sampling(temperature, top_k, top_p)
    _check_at_least_1(length=length)
    if prompt.ndim != 2 or prompt.shape[1] == 0:
        raise ValueError(f"prompt of shape {tuple(prompt.shape)}: must be (B, T) with at least one token")
    context = getattr(network, "context", None)
    tokens, read, state = prompt, prompt, None
    barred = torch.tensor(never, dtype=torch.int64, device=prompt.device)
    for _ in range(length):
        if context is not None:
            read = tokens[:, -context:]
        logits, state = network(read, state)
        allowed = logits[:, -1].index_fill(-1, barred, -math.inf)
        read = draw(allowed, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)[:, None]
        tokens = torch.cat([tokens, read], 1)
    return tokens[:, prompt.shape[1] :]


def draw(
    logits: Tensor, *, generator: torch.Generator, temperature: float = 1.0, top_k: int | None, top_p: float | None
) -> Tensor:
    """Draw a token (B,) from softmax(logits / temperature) of logits (B, K), cut by `cut_tail`."""
    logits = logits - logits.amax(-1, keepdim=True)  # so that no temperature makes the largest overflow
    probabilities = cut_tail(logits / temperature, top_k=top_k, top_p=top_p).softmax(-1)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]


def cut_tail(logits: Tensor, *, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """Logits (…, K) with −∞ for tokens that may not be drawn.

    `top_k` keeps the k most likely, `top_p` then the fewest of these that hold at least the share p of what is left;
    None keeps all. Of equal logits the first are kept.
    """
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    if top_k is not None:
        ordered[..., top_k:] = -math.inf
    if top_p is not None and top_p < 1:
        probabilities = ordered.softmax(-1)
        before = probabilities.cumsum(-1) - probabilities  # held by more likely tokens
        ordered = ordered.masked_fill(before >= top_p, -math.inf)
    return torch.empty_like(logits).scatter_(-1, order, ordered)


def check_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Raises ValueError for a temperature that is not positive, a `top_k` below 1, a `top_p` outside (0, 1]."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature={temperature}: must be above 0; top_k=1 always takes the most likely token")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k}: must be at least 1, or null for all tokens")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p}: must be above 0 and at most 1, or null for all tokens")


def _check_at_least_1(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name}={value}: must be at least 1")
