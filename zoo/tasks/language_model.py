"""Language models: the next token of a text, from all that came before it."""

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection

from zoo.tasks.base import Batch, Task
from zoo.tasks.engine import Optimization

IGNORED = -100  # a target that counts nowhere
State: TypeAlias = Tensor | tuple[Any, ...]  # nested as the network likes


class Perplexity(MeanMetric):
    """e to the mean of the nats, not the mean of the batches' perplexities."""

    def compute(self) -> Tensor:
        return super().compute().exp()


class Bits(MeanMetric):
    def compute(self) -> Tensor:
        return super().compute() / math.log(2)


def mapped(state: State, change: Callable[[Tensor], Tensor]) -> State:
    """The state with every tensor in it changed."""
    return change(state) if isinstance(state, Tensor) else tuple(mapped(part, change) for part in state)


class LanguageModel(Task):
    """Logits (B, T, K) of the next token at every place. Monitor: validation loss, in nats per token.

    Metrics over a whole split, each token weighing the same: loss, perplexity = e^nats, accuracy, of texts read by
    character bits_per_character = nats / ln 2, and with the fact `recall` = n recall_accuracy over each sequence's last
    n targets. Perplexity and bits are of the plain likelihood, also where `label_smoothing` changes the loss.

    `carry_state` is truncated back-propagation through time (Williams & Peng 1990): row b of a batch goes on where row
    b of the batch before ended, from the state reached there, through which no gradient flows. An epoch and an
    evaluated split begin without a state. Data with `recall` are sequences of their own: each begins without one.
    """

    monitor = "val/loss"
    mode: Literal["min", "max"] = "min"
    needs: ClassVar[dict[str, str]] = {
        "num_tokens": "a language model reads tokens; choose data of texts, such as data=moby_dick or data=text_file"
    }

    def __init__(
        self,
        network: nn.Module,
        *,
        label_smoothing: float = 0.0,
        carry_state: bool = True,
        optimization: Optimization | None = None,
        facts: dict[str, Any] | None = None,
        seed: int = 0,
        log_every: int = 50,
    ) -> None:
        facts = facts or {}
        if facts.get("class_names"):
            raise ValueError(
                "the targets of this data are classes of whole sequences, and a language model predicts the next token:"
                " choose a model that classifies, such as model=lstm_classifier"
            )
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing={label_smoothing}: must be at least 0 and below 1")
        self.recall = facts.get("recall") or 0
        self.by_character = facts.get("level") == "characters"
        super().__init__(network, optimization=optimization, facts=facts, seed=seed, log_every=log_every)
        self.label_smoothing, self.carries = label_smoothing, carry_state and not self.recall
        self.carried: dict[str, tuple[int, State]] = {}  # in training, in evaluation: rows, and the state they reached

    # The loss, and the state between batches ------------------------------------------------------------------------

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        tokens, target = batch["input"], batch["target"].flatten()
        logits, state = network(tokens, self.carried_state(network, tokens))  # (B, T, K)
        if self.carries and state is not None:
            self.carried[self.stream(network)] = len(tokens), mapped(state, Tensor.detach)
        count = self.weight(batch).clamp_min(1)  # a batch of nothing but padding has the loss 0
        flat = logits.flatten(0, 1)
        total = F.cross_entropy(
            flat, target, ignore_index=IGNORED, label_smoothing=self.label_smoothing, reduction="sum"
        )
        nats = total.detach()
        if self.label_smoothing:
            nats = F.cross_entropy(flat.detach(), target, ignore_index=IGNORED, reduction="sum")
        return total / count, {"logits": logits.detach(), "nats": nats / count}

    def stream(self, network: nn.Module) -> str:
        return "training" if network.training else "evaluation"

    def carried_state(self, network: nn.Module, tokens: Tensor) -> State | None:
        """Where the rows of the batch before ended; None at the beginning, and for a batch with other rows."""
        rows, state = self.carried.get(self.stream(network), (0, None))
        if state is None or rows != len(tokens):
            return None
        return mapped(state, lambda part: part.to(tokens.device))  # a loaded one lies where the file was read to

    def start_epoch(self) -> None:
        self.carried.pop("training", None)

    def start_split(self) -> None:
        super().start_split()
        self.evaluated_network.eval()  # what `stream` goes by
        self.carried.pop("evaluation", None)

    on_validation_epoch_start = start_split
    on_test_epoch_start = start_split

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["carried"] = self.carried.get("training")
        if self.trainer.world_size > 1:  # each process reads streams of its own, and the first writes for all
            checkpoint["carried"] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(checkpoint["carried"], self.carried.get("training"))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        saved = checkpoint.get("carried")
        processes = self.trainer.world_size if isinstance(saved, list) or torch.distributed.is_initialized() else 1
        if (len(saved) if isinstance(saved, list) else 1) != processes:
            if saved:
                print("Continued by another number of processes, the streams of the text begin anew.")
            saved = None
        if isinstance(saved, list):
            saved = saved[self.trainer.global_rank]
        self.carried = {"training": saved} if saved else {}

    # Metrics --------------------------------------------------------------------------------------------------------

    def weight(self, batch: Batch) -> Tensor:
        return (batch["target"] != IGNORED).sum()

    def step_values(self, outputs: dict[str, Tensor], batch: Batch) -> tuple[Tensor, ...]:
        hits = outputs["logits"].argmax(-1) == batch["target"]  # at once, half a percent of a step: logits are large
        return outputs["nats"], hits.sum(), self.weight(batch)

    def step_metrics(self, kept: list[tuple[Tensor, ...]]) -> dict[str, float]:
        nats, hits, counts = (torch.stack(part) for part in zip(*kept, strict=True))
        total = counts.sum().clamp_min(1)
        return {
            "train/perplexity": ((nats * counts).sum() / total).exp().item(),
            "train/accuracy": (hits.sum() / total).item(),
        }

    def metrics(self) -> MetricCollection:
        shown: Any = {"nan_strategy": math.nan}  # a batch that is no number is not left out ("disable" drops weights)
        collection: dict[str, Any] = {"accuracy": MeanMetric(), "perplexity": Perplexity(**shown)}
        if self.by_character:
            collection["bits_per_character"] = Bits(**shown)
        if self.recall:
            collection["recall_accuracy"] = MeanMetric()
        return MetricCollection(collection, compute_groups=False).set_dtype(torch.float64)  # of millions of tokens

    def update_metrics(self, outputs: dict[str, Tensor], batch: Batch) -> None:
        metrics, target = self.split_metrics, batch["target"]
        counts = target != IGNORED
        hits = outputs["logits"].argmax(-1) == target
        metrics["accuracy"].update(hits, counts)
        for name in ("perplexity", "bits_per_character"):
            if name in metrics:
                metrics[name].update(outputs["nats"], counts.sum())
        if self.recall:
            metrics["recall_accuracy"].update(hits[:, -self.recall :], counts[:, -self.recall :])
