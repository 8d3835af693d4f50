"""Transformer: encoder and decoder of attention and feed-forward layers, from one sequence to another.

A. Vaswani, N. Shazeer, N. Parmar, J. Uszkoreit, L. Jones, A. Gomez, L. Kaiser, I. Polosukhin, "Attention is all you
need", 2017, arXiv:1706.03762.

As in the paper, layer norm stands behind each sum (post-norm) with none at the ends of the stacks, the sines and
cosines of the positions alternate, embeddings are multiplied by √D, dropout stands on each branch and on the embedded
input only, and with `share_embeddings` one matrix embeds both languages and gives the logits.

Deliberate deviations:
- `pre_norm=True` has the norms before each branch and one at the end of each stack, which trains without warm-up (Xiong
  et al. 2020, "On layer normalization in the Transformer architecture", 2002.04745).
- The paper's formulas have no biases in attention, PyTorch's module has them, and so have we by default.
- Glorot-uniform matrices and N(0, 1/D) embeddings are those of the authors' code; the paper says nothing of them.

Decoding is done in one way, for all target steps at once or for one: keys and values of the steps so far are the state.

Shapes: B batch, S source steps, T target steps, P earlier target steps, D width, K target tokens.
"""

import math

import torch
from torch import Tensor, nn

State = tuple[Tensor, ...]


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention, equation 1: softmax(Q·Kᵀ / √d)·V, and the softmax.

    Maps queries (…, T, d), keys and values (…, S, d) to (…, T, d) and (…, T, S). `mask` is true where a query may
    look; every query must have such a place.
    """
    scores = queries @ keys.transpose(-2, -1) / math.sqrt(queries.shape[-1])
    weights = scores.masked_fill(~mask, -math.inf).softmax(-1)
    return weights @ values, weights


class MultiHeadAttention(nn.Module):
    """Section 3.2.2: `heads` attentions side by side, each on its own projection to d = D / heads numbers."""

    def __init__(self, d_model: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias)
        self.output = nn.Linear(d_model, d_model, bias)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, T, D) → (B, heads, T, d)

    def project(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, heads, S, d) of what is looked at, (B, S, D)."""
        return self._split(self.key(memory)), self._split(self.value(memory))

    def forward(self, input: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, T, D) to (B, T, D) and the weights (B, heads, T, S)."""
        mixed, weights = attend(self._split(self.query(input)), keys, values, mask)
        return self.output(mixed.transpose(1, 2).flatten(2)), weights


def _feed_forward(d_model: int, hidden: int) -> nn.Sequential:
    """Equation 2, at every step alike."""
    return nn.Sequential(nn.Linear(d_model, hidden), nn.ReLU(), nn.Linear(hidden, d_model))


class EncoderLayer(nn.Module):
    """Every step looks at all steps, then goes through the feed-forward layer; a shortcut passes round each."""

    def __init__(self, d_model: int, heads: int, feed_forward: int, dropout: float, pre_norm: bool, bias: bool) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.attention = MultiHeadAttention(d_model, heads, bias)
        self.norm1 = nn.LayerNorm(d_model)
        self.feed_forward = _feed_forward(d_model, feed_forward)
        self.norm2 = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, input: Tensor, mask: Tensor) -> Tensor:
        """Map (B, S, D) to (B, S, D); `mask` (B, 1, 1, S) is true at steps there are."""
        x = input
        y = self.norm1(x) if self.pre_norm else x
        x = x + self.dropout(self.attention(y, *self.attention.project(y), mask)[0])
        x = x if self.pre_norm else self.norm1(x)

        y = self.norm2(x) if self.pre_norm else x
        x = x + self.dropout(self.feed_forward(y))
        return x if self.pre_norm else self.norm2(x)


class DecoderLayer(nn.Module):
    """Every step looks at the steps up to itself, then at the source, then goes through the feed-forward layer."""

    def __init__(self, d_model: int, heads: int, feed_forward: int, dropout: float, pre_norm: bool, bias: bool) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.self_attention = MultiHeadAttention(d_model, heads, bias)
        self.norm1 = nn.LayerNorm(d_model)
        self.cross_attention = MultiHeadAttention(d_model, heads, bias)
        self.norm2 = nn.LayerNorm(d_model)
        self.feed_forward = _feed_forward(d_model, feed_forward)
        self.norm3 = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def start(self, memory: Tensor) -> State:
        """The state before the first step: no keys and values of the target, and those of the source (B, S, D)."""
        keys, values = self.cross_attention.project(memory)
        none = keys[:, :, :0]  # (B, heads, 0, d)
        return none, none, keys, values

    def forward(self, input: Tensor, state: State, past: Tensor, there: Tensor) -> tuple[Tensor, State, Tensor]:
        """Map T further steps (B, T, D) to (B, T, D), the state behind them, and the weights (B, heads, T, S).

        `past` (T, P + T) is true where a step may look at a target step, `there` (B, 1, 1, S) where at a source step.
        """
        x, (keys, values, source_keys, source_values) = input, state
        y = self.norm1(x) if self.pre_norm else x
        new_keys, new_values = self.self_attention.project(y)
        keys, values = torch.cat([keys, new_keys], 2), torch.cat([values, new_values], 2)  # (B, heads, P + T, d)
        x = x + self.dropout(self.self_attention(y, keys, values, past)[0])
        x = x if self.pre_norm else self.norm1(x)

        y = self.norm2(x) if self.pre_norm else x
        y, weights = self.cross_attention(y, source_keys, source_values, there)
        x = x + self.dropout(y)
        x = x if self.pre_norm else self.norm2(x)

        y = self.norm3(x) if self.pre_norm else x
        x = x + self.dropout(self.feed_forward(y))
        x = x if self.pre_norm else self.norm3(x)
        return x, (keys, values, source_keys, source_values), weights


def sinusoids(length: int, d_model: int) -> Tensor:
    """Section 3.5: (T, D) with sin(t / 10000^(2i/D)) in column 2i and the cosine of the same in column 2i + 1."""
    rates = 10000.0 ** (-torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * rates  # (T, D/2)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1).to(torch.get_default_dtype())


class Transformer(nn.Module):
    """Encoder and decoder of `layers` layers each, both `d_model` wide.

    `max_length` is how many steps a source or a target may have. `share_embeddings` needs one vocabulary for both
    languages. Raises ValueError for numbers that are not positive, a `d_model` that is odd or no multiple of `heads`, a
    dropout outside [0, 1), vocabularies of two sizes that are to be shared, and sequences that are too long.
    """

    positions: Tensor

    def __init__(
        self,
        *,
        num_source_tokens: int,
        num_target_tokens: int,
        d_model: int = 512,
        heads: int = 8,
        layers: int = 6,
        feed_forward: int = 2048,
        dropout: float = 0.1,
        max_length: int = 512,
        pre_norm: bool = False,
        share_embeddings: bool = False,
        attention_bias: bool = True,
    ) -> None:
        super().__init__()
        numbers = {"num_source_tokens": num_source_tokens, "num_target_tokens": num_target_tokens, "heads": heads}
        numbers |= {"layers": layers, "feed_forward": feed_forward, "max_length": max_length}
        for name, value in numbers.items():
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        if d_model < 1 or d_model % 2 or d_model % heads:
            raise ValueError(f"d_model={d_model}: must be even and a multiple of heads={heads}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}: must be at least 0 and below 1")
        if share_embeddings and num_source_tokens != num_target_tokens:
            raise ValueError(
                f"share_embeddings=True: must be false for vocabularies of different sizes, {num_source_tokens} and "
                f"{num_target_tokens}"
            )
        self.d_model, self.max_length = d_model, max_length
        self.source_embedding = nn.Embedding(num_source_tokens, d_model)
        self.target_embedding = self.source_embedding if share_embeddings else nn.Embedding(num_target_tokens, d_model)
        self.register_buffer("positions", sinusoids(max_length, d_model), persistent=False)
        self.dropout = nn.Dropout(dropout)
        options = (d_model, heads, feed_forward, dropout, pre_norm, attention_bias)
        self.encoder = nn.ModuleList(EncoderLayer(*options) for _ in range(layers))
        self.encoder_norm = nn.LayerNorm(d_model) if pre_norm else nn.Identity()
        self.decoder = nn.ModuleList(DecoderLayer(*options) for _ in range(layers))
        self.decoder_norm = nn.LayerNorm(d_model) if pre_norm else nn.Identity()
        self.output = nn.Linear(d_model, num_target_tokens, bias=False)
        self._initialise()
        if share_embeddings:
            self.output.weight = self.target_embedding.weight

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=self.d_model**-0.5)

    def _embed(self, embedding: nn.Module, tokens: Tensor, name: str, past: int = 0) -> Tensor:
        length = past + tokens.shape[1]
        if length > self.max_length:
            raise ValueError(f"{name} of {length} tokens: must be at most max_length={self.max_length}")
        return self.dropout(embedding(tokens) * math.sqrt(self.d_model) + self.positions[past:length])  # (B, T, D)

    def start(self, source: Tensor, source_length: Tensor) -> State:
        """Encode sources (B, S) of lengths (B,), each at least 1: where there is a source step, then the layers'."""
        there = torch.arange(source.shape[1], device=source.device) < source_length.to(source.device)[:, None]
        there = there[:, None, None]  # (B, 1, 1, S)
        x = self._embed(self.source_embedding, source, "source")
        for layer in self.encoder:
            x = layer(x, there)
        x = self.encoder_norm(x)
        return there, *(part for layer in self.decoder for part in layer.start(x))  # type: ignore[operator]

    def _decode(self, tokens: Tensor, state: State) -> tuple[Tensor, State, Tensor]:
        """Logits (B, T, K) behind T further tokens, the state then, and the last layer's weights (B, heads, T, S)."""
        there, *parts = state
        steps, before = tokens.shape[1], parts[0].shape[2]
        past = torch.ones(steps, before + steps, dtype=torch.bool, device=tokens.device).tril(before)
        x = self._embed(self.target_embedding, tokens, "target", before)
        weights, after = x, [there]
        for i, layer in enumerate(self.decoder):
            x, new, weights = layer(x, tuple(parts[4 * i : 4 * i + 4]), past, there)
            after += new
        return self.output(self.decoder_norm(x)), tuple(after), weights

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Map tokens (B,) to logits (B, K) of the next, and the state behind them."""
        logits, state, _ = self._decode(token[:, None], state)
        return logits[:, 0], state

    def attention(self, source: Tensor, source_length: Tensor, target: Tensor) -> Tensor:
        """How the last decoder layer looks at the source, its heads' mean: (B, T, S)."""
        return self._decode(target, self.start(source, source_length))[2].mean(1)

    def forward(self, source: Tensor, source_length: Tensor, target: Tensor) -> Tensor:
        """Map sources (B, S) of lengths (B,) and the tokens before each wanted one (B, T) to logits (B, T, K)."""
        return self._decode(target, self.start(source, source_length))[0]
