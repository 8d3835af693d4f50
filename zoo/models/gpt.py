"""GPT-2: a stack of causal Transformer layers that predicts the next token.

A. Radford, J. Wu, R. Child, D. Luan, D. Amodei, I. Sutskever, "Language models are unsupervised multitask learners",
OpenAI 2019: pre-norm layers with a last norm, learned positions, GELU in its tanh form, the embedding as output matrix,
N(0, 0.02²) weights, and those at the end of each residual branch divided by √(2·layers), the number of branches.

Deliberate deviations:
- `bias=False`, the default, leaves out the biases of linear layers and norms; GPT-2 has them.
- Positions start at N(0, 0.02²) too, where the published code has 0.01.

Attention is PyTorch's fused function; `zoo.models.transformer.attend` is the same equation to be read.

Shapes: B batch, T steps, D width, K tokens.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CausalSelfAttention(nn.Module):
    """Every step looks at the steps up to itself."""

    def __init__(self, d_model: int, heads: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(d_model, d_model, bias)
        self.key = nn.Linear(d_model, d_model, bias)
        self.value = nn.Linear(d_model, d_model, bias)
        self.output = nn.Linear(d_model, d_model, bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        projected = (self.query(input), self.key(input), self.value(input))
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in projected)  # (B, heads, T, D / heads)
        dropout = self.dropout.p if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        return self.dropout(self.output(mixed.transpose(1, 2).flatten(2)))


class Block(nn.Module):
    """Attention, then two linear layers; a norm before each, a shortcut round each."""

    def __init__(self, d_model: int, heads: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(d_model, bias=bias)
        self.attention = CausalSelfAttention(d_model, heads, dropout, bias)
        self.norm2 = nn.LayerNorm(d_model, bias=bias)
        self.expand = nn.Linear(d_model, 4 * d_model, bias)
        self.activation = nn.GELU(approximate="tanh")
        self.contract = nn.Linear(4 * d_model, d_model, bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        x = input + self.attention(self.norm1(input))
        return x + self.dropout(self.contract(self.activation(self.expand(self.norm2(x)))))


class GPT(nn.Module):
    """`layers` blocks, `d_model` wide; it sees the last `context` tokens and carries no state beyond them.

    Raises ValueError for numbers that are not positive, a `d_model` that is no multiple of `heads`, a dropout outside
    [0, 1), and for more than `context` tokens.
    """

    def __init__(
        self,
        *,
        num_tokens: int,
        context: int = 64,
        layers: int = 4,
        heads: int = 4,
        d_model: int = 128,
        dropout: float = 0.0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        numbers = {"num_tokens": num_tokens, "context": context, "layers": layers, "heads": heads, "d_model": d_model}
        for name, value in numbers.items():
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        if d_model % heads:
            raise ValueError(f"d_model={d_model}: must be a multiple of heads={heads}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}: must be at least 0 and below 1")
        self.context = context
        self.embedding = nn.Embedding(num_tokens, d_model)
        self.positions = nn.Embedding(context, d_model)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(d_model, heads, dropout, bias) for _ in range(layers))
        self.norm = nn.LayerNorm(d_model, bias=bias)
        self.head = nn.Linear(d_model, num_tokens, bias=False)
        self.head.weight = self.embedding.weight
        self._initialise(layers)

    def _initialise(self, layers: int) -> None:
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding) and name != "head":
                ends_a_branch = name.endswith((".output", ".contract"))
                nn.init.normal_(module.weight, std=0.02 / math.sqrt(2 * layers) if ends_a_branch else 0.02)
                if isinstance(module, nn.Linear) and module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor, state: None = None) -> tuple[Tensor, None]:
        """Map tokens (B, T) to logits (B, T, K) of the next ones. There is no state: None goes in and comes out."""
        steps = tokens.shape[1]
        if steps > self.context:
            raise ValueError(f"tokens of {steps} steps: must be at most context={self.context}")
        x = self.embedding(tokens) + self.positions(torch.arange(steps, device=tokens.device))
        x = self.dropout(x)  # (B, T, D)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)), None
