"""Recurrent networks: a language model, and a network that reads a sequence and answers once.

Cells and sources are in zoo/models/cells.py. The language model is that of T. Mikolov et al., "Recurrent neural network
based language model", 2010, with dropout as in W. Zaremba, I. Sutskever, O. Vinyals, "Recurrent neural network
regularization", 2014, 1409.2329: on every connection but the recurrent ones, thus also on what the first layer and the
output layer read. With `hidden=embedding=650`, `layers=2`, `dropout=0.5` and 10,000 tokens it is their medium network:
19,780,400 parameters, of which 5,200 are PyTorch's second bias vectors. The predictor reads from either end and answers
from its last state or the mean of all (M. Schuster, K. Paliwal, "Bidirectional recurrent neural networks", 1997).

First weights (`recurrent_init`), of which an LSTM's forget-gate biases are always `forget_bias` (F. Gers et al. 2000):
- `orthogonal`: each gate's recurrent matrix orthogonal (A. Saxe et al. 2014, 1312.6120), its input weights Glorot's,
  biases 0.
- `identity`: recurrent matrix the identity, input weights N(0, 0.001²), biases 0: with `cell=rnn_relu` the IRNN of
  Q. Le, N. Jaitly, G. Hinton 2015, 1504.00941. Of RNNs only.
- `uniform`: PyTorch's, U(±1/√H) for everything; with `forget_bias=None` exactly so.

Deliberate deviations: the predictor drops nothing of raw numbers, only of embeddings; first weights are those above,
not each paper's own.

Shapes: B sequences, T steps, F features, E embedding, H hidden units, D directions, L layers, K classes or tokens.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from zoo.models.cells import CellName, Unrolled

RecurrentInit = Literal["orthogonal", "uniform", "identity"]
_FUSED = {"rnn": nn.RNN, "rnn_relu": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


def make_recurrent(
    *,
    cell: CellName,
    inputs: int,
    hidden: int,
    layers: int = 1,
    dropout: float = 0.0,
    bidirectional: bool = False,
    recurrent_init: RecurrentInit = "orthogonal",
    forget_bias: float | None = 1.0,
    fused: bool = True,
) -> nn.RNNBase:
    """Recurrent layers (B, T, `inputs`) → (B, T, D·H): torch.nn's, or the written-out ones, which have the same keys.

    `dropout` acts between layers. Raises ValueError for an argument out of range.
    """
    if cell not in _FUSED:
        raise ValueError(f"cell={cell}: must be one of {', '.join(_FUSED)}")
    for name, number in (("hidden", hidden), ("layers", layers)):
        if number < 1:
            raise ValueError(f"{name}={number}: must be at least 1")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout}: must be at least 0 and below 1")
    if recurrent_init not in ("orthogonal", "uniform", "identity"):
        raise ValueError(f"recurrent_init={recurrent_init}: must be one of orthogonal, uniform, identity")
    if recurrent_init == "identity" and cell in ("gru", "lstm"):
        raise ValueError(f"recurrent_init=identity: must be orthogonal or uniform with cell={cell}, which has gates")
    dropout = dropout if layers > 1 else 0.0  # PyTorch warns of one that has no place to act
    options: dict[str, Any] = {"batch_first": True, "dropout": dropout, "bidirectional": bidirectional}
    if not fused:
        network: nn.RNNBase = Unrolled(cell, inputs, hidden, layers, **options)
    elif cell == "rnn_relu":
        network = nn.RNN(inputs, hidden, layers, nonlinearity="relu", **options)
    else:
        network = _FUSED[cell](inputs, hidden, layers, **options)
    _initialise(network, recurrent_init, forget_bias)
    return network


@torch.no_grad()
def _initialise(network: nn.RNNBase, recurrent_init: RecurrentInit, forget_bias: float | None) -> None:
    hidden = network.hidden_size
    for weight_ih, weight_hh, bias_ih, bias_hh in network.all_weights:  # of each layer and direction
        if recurrent_init != "uniform":
            bias_ih.zero_()
            bias_hh.zero_()
        if recurrent_init == "orthogonal":
            for gate in weight_hh.split(hidden):  # not the stacked gates, whose columns alone would be orthogonal
                nn.init.orthogonal_(gate)
            for gate in weight_ih.split(hidden):
                nn.init.xavier_uniform_(gate)
        elif recurrent_init == "identity":
            nn.init.eye_(weight_hh)
            nn.init.normal_(weight_ih, 0, 0.001)
        if isinstance(forget_bias, int | float) and network.mode == "LSTM":
            bias_ih[hidden : 2 * hidden] = forget_bias  # gates stand in the order i, f, g, o
            bias_hh[hidden : 2 * hidden] = 0  # the two are added, so only one of them may have it


class RecurrentLanguageModel(nn.Module):
    """The next token at every step: embedding, recurrent layers, linear layer.

    `tie` uses the embedding as the output's weights too (O. Press, L. Wolf 2017, 1608.05859), which needs
    `embedding == hidden`. Raises ValueError for an argument out of range.
    """

    def __init__(
        self,
        *,
        cell: CellName = "lstm",
        num_tokens: int,
        embedding: int = 64,
        hidden: int = 256,
        layers: int = 1,
        dropout: float = 0.0,
        recurrent_init: RecurrentInit = "orthogonal",
        forget_bias: float | None = 1.0,
        tie: bool = False,
        fused: bool = True,
    ) -> None:
        super().__init__()
        for name, number in (("num_tokens", num_tokens), ("embedding", embedding)):
            if number < 1:
                raise ValueError(f"{name}={number}: must be at least 1")
        if tie and embedding != hidden:
            raise ValueError(f"tie=True: must be False unless embedding={embedding} and hidden={hidden} are equal")
        self.embedding = nn.Embedding(num_tokens, embedding)
        self.dropout = nn.Dropout(dropout)
        self.recurrent = make_recurrent(
            cell=cell,
            inputs=embedding,
            hidden=hidden,
            layers=layers,
            dropout=dropout,
            recurrent_init=recurrent_init,
            forget_bias=forget_bias,
            fused=fused,
        )
        self.head = nn.Linear(hidden, num_tokens)
        if tie:
            nn.init.normal_(self.embedding.weight, 0, hidden**-0.5)  # N(0, 1) suits an embedding, not an output layer
            self.head.weight = self.embedding.weight

    def forward(
        self, tokens: Tensor, state: Tensor | tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor | tuple[Tensor, Tensor]]:
        """Map tokens (B, T) to logits (B, T, K) and the state after them: (L, B, H), of an LSTM two of these.

        `state` is what the tokens before came to; None starts from zeros.
        """
        x = self.dropout(self.embedding(tokens))  # (B, T, E)
        x, state = self.recurrent(x, state)  # (B, T, H)
        return self.head(self.dropout(x)), state


class RecurrentPredictor(nn.Module):
    """Reads a whole sequence, of tokens or of numbers, then gives K outputs: logits, or forecasts.

    Give one of `num_tokens` and `num_features`; only tokens are embedded. `pooling` is what the output layer reads:
    the state after each sequence's own `last` step (of the backward direction after its first), or the `mean` of the
    last layer's hidden states over its steps. Raises ValueError for an argument out of range.
    """

    def __init__(
        self,
        *,
        cell: CellName = "lstm",
        num_tokens: int | None = None,
        num_features: int | None = None,
        num_classes: int,
        embedding: int = 64,
        hidden: int = 128,
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        pooling: Literal["last", "mean"] = "last",
        recurrent_init: RecurrentInit = "orthogonal",
        forget_bias: float | None = 1.0,
        fused: bool = True,
    ) -> None:
        super().__init__()
        if (num_tokens is None) == (num_features is None):
            raise ValueError(
                f"num_tokens={num_tokens}: must be given for tokens, or num_features={num_features} for numbers, "
                "and one of them only"
            )
        sizes = (("num_tokens", num_tokens), ("num_features", num_features), ("embedding", embedding))
        for name, number in (*sizes, ("num_classes", num_classes)):
            if number is not None and number < 1:
                raise ValueError(f"{name}={number}: must be at least 1")
        if pooling not in ("last", "mean"):
            raise ValueError(f"pooling={pooling}: must be last or mean")
        self.num_features, self.pooling = num_features, pooling
        self.embedding = None if num_tokens is None else nn.Embedding(num_tokens, embedding)
        self.dropout = nn.Dropout(dropout)
        self.recurrent = make_recurrent(
            cell=cell,
            inputs=num_features or embedding,
            hidden=hidden,
            layers=layers,
            dropout=dropout,
            bidirectional=bidirectional,
            recurrent_init=recurrent_init,
            forget_bias=forget_bias,
            fused=fused,
        )
        self.head = nn.Linear(hidden * (2 if bidirectional else 1), num_classes)

    def forward(self, input: Tensor, length: Tensor | None = None) -> Tensor:
        """Map tokens (B, T) or numbers (B, T, F) to (B, K). What stands behind `length` (B,) steps does not matter."""
        steps = input.shape[1] if input.ndim > 1 else 0
        if self.embedding is not None:
            if input.ndim != 2:
                raise ValueError(f"input of shape {tuple(input.shape)}: must be tokens (batch, steps)")
            x = self.dropout(self.embedding(input))  # (B, T, E)
        elif input.ndim == 3 and input.shape[2] == self.num_features:
            x = input
        else:
            raise ValueError(f"input of shape {tuple(input.shape)}: must be (batch, steps, {self.num_features})")
        lengths = [] if length is None else length.tolist()
        if any(not 1 <= number <= steps for number in lengths):
            raise ValueError(
                f"length from {min(lengths)} to {max(lengths)}: must be from 1 to the {steps} steps there are"
            )
        if len(set(lengths)) > 1:
            packed = pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
            outputs, state = self.recurrent(packed)
            x, _ = pad_packed_sequence(outputs, batch_first=True)  # (B, ≤ T, D·H), zeros behind the length
        else:
            x, state = self.recurrent(x[:, : lengths[0]] if lengths else x)
        if self.pooling == "mean":
            x = x.sum(1) / (x.new_tensor(lengths)[:, None] if lengths else steps)
        else:
            last = state[0] if isinstance(state, tuple) else state  # (L·D, B, H)
            x = torch.cat(last[-2:].unbind(), -1) if self.recurrent.bidirectional else last[-1]
        return self.head(self.dropout(x))  # (B, D·H) to (B, K)
