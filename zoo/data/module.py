"""The data module every data set is: splits in, loaders out, facts for the model."""

import copy
from typing import Any

import pytorch_lightning as pl

from zoo.data.loaders import Loader, PositionSampler, Split

Facts = dict[str, Any]


class DataModule(pl.LightningDataModule):
    """Base of all data sets. A subclass implements `read`, which fills `self.splits` and completes `self.facts`.

    `facts` are what a model or a picture needs to know: channels, image_size, num_features, num_classes, class_names,
    mean, std; a subclass passes those it states and fills in the others from the files. Values are primitives.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        eval_batch_size: int = 500,
        num_workers: int = 0,
        seed: int = 0,
        facts: Facts | None = None,
    ) -> None:
        super().__init__()
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.num_workers, self.seed = num_workers, seed
        self.facts: Facts = dict(facts or {})
        self.splits: dict[str, Split] = {}
        self.train_examples: int | float | None = None  # how many of the training examples to use, or which share
        for name in ("batch_size", "eval_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if num_workers < 0:
            raise ValueError(f"num_workers={num_workers}: must be 0 (this process) or more")

    def read(self) -> None:
        """Read the data: set `self.splits` (train, val, test; those there are) and complete `self.facts`."""
        raise NotImplementedError

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What turns a person's own input into the network's, as primitives, for the checkpoint."""
        kept = ("channels", "image_size", "num_features", "mean", "std")
        return {name: self.facts[name] for name in kept if self.facts.get(name) is not None}

    def setup(self, stage: str | None = None) -> None:
        if not self.splits:
            self.read()

    def size(self, split: str) -> int:
        """How many examples of a split are used: all, or of the training split the first `train_examples`."""
        size, wanted = len(self.splits[split]), self.train_examples
        if split != "train" or wanted is None:
            return size
        return min(size, wanted) if isinstance(wanted, int) else max(1, round(size * wanted))

    def loader(self, split: str, *, training: bool = False) -> Loader:
        """A split's loader: shuffled by (seed, epoch) and augmented for training, else in order and as it is."""
        examples = self.splits[split]
        if not training and getattr(examples, "augment", None):
            examples = copy.copy(examples)
            examples.augment = None
        trainer = self.trainer
        sampler = PositionSampler(
            self.size(split),
            self.batch_size if training else self.eval_batch_size,
            seed=self.seed,
            shuffle=training,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )
        on_gpu = trainer is not None and trainer.strategy.root_device.type == "cuda"
        return Loader(examples, sampler, num_workers=self.num_workers, pin_memory=on_gpu)

    def train_dataloader(self) -> Loader:
        return self.loader("train", training=True)

    def val_dataloader(self) -> Loader:
        return self.loader("val")

    def test_dataloader(self) -> Loader:
        return self.loader("test")
