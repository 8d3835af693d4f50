"""The data module every data set is: splits in, loaders out, facts for the model."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from inspect import signature
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor

from zoo.data.augment import Augment
from zoo.data.loaders import Loader, PositionSampler, Split
from zoo.data.splits import balanced
from zoo.errors import ZooError

# Arguments that a model, a task or a picture needs to know. Stated, or filled in from the files; all are primitives.
FACTS = (
    *("channels", "image_size", "num_features", "num_classes", "class_names", "feature_names", "mean", "std"),
    *("target_mean", "target_std", "columns", "fingerprint", "ignore_index"),
    *("num_tokens", "vocabulary", "level", "sequence_length", "horizon", "season", "recall"),
    *("num_source_tokens", "source_vocabulary", "num_target_tokens", "target_vocabulary"),
)
# Those among them that turn a person's own input into the network's, and its output into words and numbers.
INPUT_FACTS = (
    *("channels", "image_size", "num_features", "mean", "std", "level", "vocabulary", "sequence_length"),
    *("horizon", "season", "target_mean", "target_std", "columns", "source_vocabulary", "target_vocabulary"),
)


@dataclass(kw_only=True, eq=False)
class DataModule(pl.LightningDataModule):
    """Base of all data sets, and the arguments that all of them take.

    A subclass adds its arguments as fields, under the same decorator, and implements `read`, which fills `self.splits`
    and completes `self.facts`. The fields keep what was asked for; `facts` says what holds.
    """

    augmenter: ClassVar[Callable[..., Any]] = Augment

    batch_size: int = 64
    eval_batch_size: int = 500
    num_workers: int = 0
    split_seed: int = 0
    seed: int = 0
    augment: Mapping[str, Any] | None = None  # arguments of `augmenter`, for training examples
    num_features: int | None = None
    num_classes: int | None = None
    class_names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        super().__init__()
        self.facts: dict[str, Any] = {}
        for name in (field.name for field in fields(self) if field.name in FACTS):
            value = getattr(self, name)
            self.facts[name] = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        unknown = [name for name in self.augment or {} if name not in signature(type(self).augmenter).parameters]
        if any((self.augment or {})[name] for name in unknown):
            raise ValueError(
                f"augment.{unknown[0]}={(self.augment or {})[unknown[0]]}: must be left out, as it is for pictures "
                "with masks, and these data have none"
            )
        known = {name: value for name, value in (self.augment or {}).items() if name not in unknown}
        self.augmentation = type(self).augmenter(seed=self.seed, **known) if known else None
        self.splits: dict[str, Split] = {}
        self.placing: Callable[[Split], Split] | None = None  # to where a run's device wants batches made
        self.train_examples: int | float | None = None  # how many of the training examples to use, or which share
        for name in ("batch_size", "eval_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.num_workers < 0:
            raise ValueError(f"num_workers={self.num_workers}: must be 0 (this process) or more")

    def read(self) -> None:
        """Read the data: set `self.splits` (train, val, test; those there are) and complete `self.facts`."""
        raise NotImplementedError

    def state(self, found: Mapping[str, Any]) -> None:
        """Fill in the facts left None; refuse one that contradicts what was found."""
        for name, value in found.items():
            if self.facts[name] is None:
                self.facts[name] = value
            elif self.facts[name] != value:
                raise ZooError(
                    f"data.{name}={self.facts[name]}: these data have {value}; leave it as the data set has it, or "
                    "give a trained network data like those it was trained on."
                )

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What turns a person's own input into the network's, as primitives, for the checkpoint."""
        return {name: self.facts[name] for name in INPUT_FACTS if self.facts.get(name) is not None}

    def setup(self, stage: str | None = None) -> None:
        if not self.splits:
            self.read()
        if stage == "fit" and "train" not in self.splits:
            raise ZooError(f"These data have no examples to train on, only {' and '.join(self.splits)}.")

    def indices(self, split: str) -> Tensor:
        """The examples of a split that are used, ascending: all, or of the training split `train_examples`.

        Of labelled classes these are the first of each class, as many of each as can be.
        """
        examples, wanted = self.splits[split], self.train_examples
        if split != "train" or wanted is None:
            return torch.arange(len(examples))
        count = min(len(examples), wanted) if isinstance(wanted, int) else max(1, round(len(examples) * wanted))
        targets: Tensor | None = getattr(examples, "targets", None)
        if targets is None or targets.ndim != 1 or targets.dtype != torch.int64:
            return torch.arange(count)
        return balanced(targets, count)

    def size(self, split: str) -> int:
        """How many examples of a split are used."""
        return len(self.indices(split))

    def loader(self, split: str, *, training: bool = False) -> Loader:
        """A split's loader: shuffled by (seed, epoch) and augmented for training, else in order and as it is."""
        examples = self.splits[split]
        if not training and getattr(examples, "augment", None):
            examples = copy.copy(examples)
            examples.augment = None
        trainer = self.trainer
        sampler = PositionSampler(
            self.indices(split),
            self.batch_size if training else self.eval_batch_size,
            seed=self.seed,
            shuffle=training,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )
        on_gpu = trainer is not None and trainer.strategy.root_device.type == "cuda"
        examples = self.placing(examples) if self.placing is not None else examples
        return Loader(examples, sampler, num_workers=self.num_workers, pin_memory=on_gpu)

    def train_dataloader(self) -> Loader:
        return self.loader("train", training=True)

    def val_dataloader(self) -> Loader:
        return self.loader("val")

    def test_dataloader(self) -> Loader:
        return self.loader("test")
