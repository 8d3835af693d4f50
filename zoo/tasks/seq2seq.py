"""Sequence to sequence: a target sequence for every source sequence, such as a date in another notation."""

from itertools import takewhile
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.text import BLEUScore

from zoo.decoding import END, PAD, greedy
from zoo.tasks.base import Batch, Task
from zoo.tasks.engine import Optimization


def sentences(tokens: Tensor) -> list[str]:
    """The numbers before the first `END` or `PAD` of each row of (B, T), with blanks between them."""
    return [" ".join(map(str, takewhile(lambda token: token not in (END, PAD), row))) for row in tokens.tolist()]


class Seq2Seq(Task):
    """Targets `<start>` … `<end>` (B, T + 1), padded with 0, for sources (B, S). Monitor: validation exact match.

    Trained with teacher forcing: the network reads the right tokens so far and gives logits (B, T, K) of the next. Over
    a whole split: loss, in nats per token, and token_accuracy are of teacher forcing, each token weighing the same;
    exact_match, the share of outputs that are right from first to last token, and bleu (Papineni et al. 2002, of up to
    4 tokens, one reference) are of greedy decoding; an output is cut at twice its target's length.
    """

    monitor = "val/exact_match"
    mode: Literal["min", "max"] = "max"
    needs: ClassVar[dict[str, str]] = {
        "num_target_tokens": "these data have no target sequences; choose data of pairs, such as data=reversal"
    }

    def __init__(
        self,
        network: nn.Module,
        *,
        label_smoothing: float = 0.0,
        optimization: Optimization | None = None,
        facts: dict[str, Any] | None = None,
        seed: int = 0,
        log_every: int = 50,
    ) -> None:
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing={label_smoothing}: must be at least 0 and below 1")
        super().__init__(network, optimization=optimization, facts=facts, seed=seed, log_every=log_every)
        self.label_smoothing = label_smoothing

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        return batch["input"], batch["length"], batch["target"][:, :-1]

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logits, target = network(*self.inputs(batch)), batch["target"][:, 1:]  # (B, T, K), (B, T)
        loss = F.cross_entropy(
            logits.flatten(0, 1), target.flatten(), ignore_index=PAD, label_smoothing=self.label_smoothing
        )
        return loss, {"logits": logits.detach()}

    def weight(self, batch: Batch) -> Tensor:
        return (batch["target"][:, 1:] != PAD).sum()

    def step_values(self, outputs: dict[str, Tensor], batch: Batch) -> tuple[Tensor, ...]:
        target = batch["target"][:, 1:]
        hits = (outputs["logits"].argmax(-1) == target) & (target != PAD)
        return hits.sum(), self.weight(batch)

    def step_metrics(self, kept: list[tuple[Tensor, ...]]) -> dict[str, float]:
        hits, counts = (torch.stack(part).sum() for part in zip(*kept, strict=True))
        return {"train/token_accuracy": (hits / counts).item()}

    def metrics(self) -> MetricCollection:
        collection: dict[str, Any] = {"token_accuracy": MeanMetric(), "exact_match": MeanMetric(), "bleu": BLEUScore()}
        return MetricCollection(collection, compute_groups=False).set_dtype(torch.float64)

    def update_metrics(self, outputs: dict[str, Tensor], batch: Batch) -> None:
        metrics, target = self.split_metrics, batch["target"][:, 1:]
        metrics["token_accuracy"].update(outputs["logits"].argmax(-1) == target, target != PAD)
        decoded = self.decode(batch)
        outputs["exact"] = (decoded[:, : target.shape[1]] == target).all(1)  # (B,), for pictures
        metrics["exact_match"].update(outputs["exact"])
        metrics["bleu"].update(sentences(decoded), [[sentence] for sentence in sentences(target)])

    def decode(self, batch: Batch) -> Tensor:
        """Greedy outputs (B, at least T), cut at twice their targets' lengths: whatever else is in the batch."""
        target, network = batch["target"][:, 1:], self.evaluated_network
        steps = 2 * target.shape[1]
        longest = min(steps, getattr(network, "max_length", steps))
        decoded = greedy(network, batch["input"], batch["length"], max_length=longest)  # type: ignore[arg-type]
        places = torch.arange(decoded.shape[1], device=decoded.device)
        decoded = decoded.masked_fill(places >= 2 * (target != PAD).sum(1, keepdim=True), PAD)
        return F.pad(decoded, (0, max(0, target.shape[1] - decoded.shape[1])), value=PAD)
