"""Sequence to sequence with recurrent networks: an encoder, a decoder, and attention between them or none.

- `additive`: D. Bahdanau, K. Cho, Y. Bengio, "Neural machine translation by jointly learning to align and translate",
  2014, 1409.0473. The state before a step chooses what of the source the step reads.
- `dot`: M.-T. Luong, H. Pham, C. Manning, "Effective approaches to attention-based neural machine translation", 2015,
  1508.04025, global attention, without feeding its result to the next step. The state after a step chooses. With both
  directions the source's states are first projected to the decoder's width, which is their `general` score.
- `none`: K. Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine
  translation", 2014, 1406.1078: every step reads the same vector, the encoder's last state.

Deliberate deviations:
- Logits are linear in state, context and previous token, where Bahdanau and Cho have a maxout layer before them.
- The decoder starts from the last states of both directions (Bahdanau: of the backward one), or as the encoder ended.
- The GRU is PyTorch's (zoo/models/cells.py); first weights are `make_recurrent`'s and PyTorch's.

Shapes: B batch, S source steps, T target steps, E embedding, H hidden units, D directions of the encoder, A = D·H, L
layers, K target tokens.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from zoo.models.recurrent import make_recurrent

State = tuple[Tensor, ...]


class Seq2Seq(nn.Module):
    """Encoder and decoder of `layers` layers of `hidden` units each; `bidirectional` is the encoder alone.

    `dropout` acts on embedded tokens and between layers. Raises ValueError for an unknown `attention` or `cell`,
    numbers that are not positive and a dropout outside [0, 1).
    """

    def __init__(
        self,
        *,
        num_source_tokens: int,
        num_target_tokens: int,
        attention: Literal["additive", "dot", "none"] = "additive",
        cell: Literal["gru", "lstm"] = "gru",
        embedding: int = 64,
        hidden: int = 128,
        layers: int = 1,
        bidirectional: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if attention not in ("additive", "dot", "none"):
            raise ValueError(f"attention={attention}: must be one of additive, dot, none")
        if cell not in ("gru", "lstm"):
            raise ValueError(f"cell={cell}: must be gru or lstm")
        numbers = {"num_source_tokens": num_source_tokens, "num_target_tokens": num_target_tokens}
        for name, value in {**numbers, "embedding": embedding}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        annotation = hidden * (2 if bidirectional else 1)  # A
        context = 0 if attention == "dot" else annotation  # what the decoder reads beside the token
        self.kind, self.parts = attention, {"gru": 1, "lstm": 2}[cell]
        self.source_embedding = nn.Embedding(num_source_tokens, embedding)
        self.target_embedding = nn.Embedding(num_target_tokens, embedding)
        self.dropout = nn.Dropout(dropout)
        self.encoder = make_recurrent(
            cell=cell, inputs=embedding, hidden=hidden, layers=layers, dropout=dropout, bidirectional=bidirectional
        )
        self.decoder = make_recurrent(
            cell=cell, inputs=embedding + context, hidden=hidden, layers=layers, dropout=dropout
        )
        # from the last states of both directions to the first of the decoder; of an LSTM for hidden and cell each
        bridges = (nn.Linear(annotation, hidden) for _ in range(self.parts))
        self.bridges = nn.ModuleList(bridges) if bidirectional else None
        self.key: nn.Module
        if attention == "additive":
            self.query = nn.Linear(hidden, hidden)  # the paper's W_a,
            self.key = nn.Linear(annotation, hidden, bias=False)  # U_a
            self.score = nn.Linear(hidden, 1, bias=False)  # and v_a
        elif attention == "dot":
            self.key = nn.Linear(annotation, hidden, bias=False) if bidirectional else nn.Identity()  # W_a of `general`
            self.combine = nn.Linear(annotation + hidden, hidden, bias=False)  # the paper's W_c
        self.output = nn.Linear(hidden if attention == "dot" else hidden + annotation + embedding, num_target_tokens)

    def start(self, source: Tensor, source_length: Tensor) -> State:
        """Encode sources (B, S) of lengths (B,), from 1 to S.

        The state is the decoder's (B, L, H), of an LSTM two of these; then the source's states (B, S, A), their keys
        (B, S, H) and where there is a step (B, 1, S), or without attention the one vector (B, A).
        """
        x = self.dropout(self.source_embedding(source))  # (B, S, E)
        if x.is_meta:  # only shapes are wanted, and lengths have no values there
            annotations, last = self.encoder(x)
        else:
            packed = pack_padded_sequence(x, source_length.cpu(), batch_first=True, enforce_sorted=False)
            annotations, last = self.encoder(packed)
            annotations, _ = pad_packed_sequence(annotations, batch_first=True, total_length=source.shape[1])
        directions = 1 if self.bridges is None else 2
        ends = [
            part.unflatten(0, (-1, directions)).permute(2, 0, 1, 3).flatten(2)  # (L·D, B, H) → (B, L, A)
            for part in ([last] if isinstance(last, Tensor) else last)
        ]
        state = ends
        if self.bridges is not None:
            state = [torch.tanh(bridge(end)) for bridge, end in zip(self.bridges, ends, strict=True)]
        if self.kind == "none":
            return *state, ends[0][:, -1]
        there = torch.arange(source.shape[1], device=source.device) < source_length.to(source.device)[:, None]
        return *state, annotations, self.key(annotations), there[:, None]

    def _advance(self, input: Tensor, state: State) -> tuple[Tensor, State]:
        """Run the decoder's layers over (B, T, …): outputs (B, T, H) and the state after."""
        first = tuple(part.transpose(0, 1).contiguous() for part in state)
        outputs, last = self.decoder(input, first[0] if self.parts == 1 else first)
        return outputs, tuple(part.transpose(0, 1) for part in ([last] if self.parts == 1 else last))

    def _decode(self, tokens: Tensor, state: State) -> tuple[Tensor, State, Tensor | None]:
        """Logits (B, T, K) behind T further tokens, the state then, and the attention (B, T, S) if there is one."""
        recurrent, memory = state[: self.parts], state[self.parts :]
        embedded = self.dropout(self.target_embedding(tokens))  # (B, T, E)
        weights: Tensor | None = None
        if self.kind == "none":
            contexts = memory[0][:, None].expand(-1, tokens.shape[1], -1)  # (B, T, A)
            outputs, recurrent = self._advance(torch.cat([embedded, contexts], -1), recurrent)
        elif self.kind == "dot":
            annotations, keys, there = memory
            outputs, recurrent = self._advance(embedded, recurrent)
            weights = _softmax(outputs @ keys.transpose(1, 2), there)
            contexts = weights @ annotations
        else:
            annotations, keys, there = memory
            steps = []
            for x in embedded.split(1, 1):
                before = recurrent[0][:, -1:]  # (B, 1, H), of the last layer
                scores = self.score(torch.tanh(self.query(before) + keys))  # (B, S, 1): v·tanh(W·s + U·h)
                weight = _softmax(scores.transpose(1, 2), there)
                context = weight @ annotations  # (B, 1, A)
                output, recurrent = self._advance(torch.cat([x, context], -1), recurrent)
                steps.append((output, context, weight))
            outputs, contexts, weights = (torch.cat(parts, 1) for parts in zip(*steps, strict=True))
        if self.kind == "dot":
            features = torch.tanh(self.combine(torch.cat([contexts, outputs], -1)))
        else:
            features = torch.cat([outputs, contexts, embedded], -1)
        return self.output(features), (*recurrent, *memory), weights

    def step(self, token: Tensor, state: State) -> tuple[Tensor, State]:
        """Map tokens (B,) to logits (B, K) of the next, and the state behind them."""
        logits, state, _ = self._decode(token[:, None], state)
        return logits[:, 0], state

    def attention(self, source: Tensor, source_length: Tensor, target: Tensor) -> Tensor | None:
        """What of the source each step reads: (B, T, S), or None with `attention=none`."""
        return self._decode(target, self.start(source, source_length))[2]

    def forward(self, source: Tensor, source_length: Tensor, target: Tensor) -> Tensor:
        """Map sources (B, S) of lengths (B,) and the tokens before each wanted one (B, T) to logits (B, T, K)."""
        return self._decode(target, self.start(source, source_length))[0]


def _softmax(scores: Tensor, there: Tensor) -> Tensor:
    """Over the source steps there are: (B, T, S), with `there` (B, 1, S)."""
    return scores.masked_fill(~there, -math.inf).softmax(-1)
