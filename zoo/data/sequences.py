"""Sequences that ask for memory: the copying and the adding problem, and digits read row by row or pixel by pixel.

The examples of the first two are drawn as they are needed, a batch at a time: a training example is a function of
(seed, epoch, its number), one of validation or test of (split_seed, its number).

Shapes: B examples, T steps, F features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from zoo.data.arrays import ArraySplit, statistics
from zoo.data.embedded import Digits
from zoo.data.loaders import Batch
from zoo.data.module import DataModule
from zoo.errors import ZooError
from zoo.randomness import key, permutation, uniform

BLANK, DELIMITER, SYMBOLS, COPIED = 0, 9, 8, 10  # tokens 1 to 8 are the symbols, of which ten are to be copied


class DrawnSplit:
    """`size` examples made by `draw` from a seed and their numbers (B,); `fresh`: others in each epoch."""

    augment = None

    def __init__(
        self, draw: Callable[[int, Tensor], tuple[Tensor, Tensor]], size: int, *, seed: int, fresh: bool
    ) -> None:
        self.draw, self.size, self.seed, self.fresh = draw, size, seed, fresh

    def __len__(self) -> int:
        return self.size

    def batch(self, epoch: int, positions: Tensor, indices: Tensor) -> Batch:
        inputs, targets = self.draw(key(self.seed, epoch if self.fresh else 0), indices)
        return {"input": inputs, "target": targets, "position": positions}


@dataclass(kw_only=True, eq=False)
class Drawn(DataModule):
    """Base of the drawn tasks, which implement `draw`. `fresh: false` trains on the same examples in every epoch."""

    train_size: int = 6400
    val_size: int = 1000
    test_size: int = 1000
    fresh: bool = True
    num_tokens: int | None = None
    sequence_length: int | None = None

    def __post_init__(self) -> None:
        for name in ("train_size", "val_size", "test_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        super().__post_init__()
        if self.augmentation:
            raise ZooError("augment: these data are not images, and only images are augmented; say augment=none.")

    def draw(self, seed: int, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (B, T, …) and targets (B, …) of the examples `numbers` (B,)."""
        raise NotImplementedError

    def read(self) -> None:
        for name, size in (("train", self.train_size), ("val", self.val_size), ("test", self.test_size)):
            seed = key(self.seed if name == "train" else self.split_seed, type(self).__name__, name)
            self.splits[name] = DrawnSplit(self.draw, size, seed=seed, fresh=self.fresh and name == "train")


@dataclass(kw_only=True, eq=False)
class CopyTask(Drawn):
    """Ten symbols, `delay` steps of nothing, then the ten again (Hochreiter & Schmidhuber 1997; 1511.06464, 4.1).

    `input` and `target` int64 (B, delay + 20): ten of eight symbols, delay - 1 blanks, a delimiter, ten blanks; the
    target is blank but for the last ten steps (fact `recall`). Without memory the loss is 10·ln 8 / (delay + 20) nats.
    """

    delay: int = 30
    vocabulary: Sequence[str] | None = None
    recall: int | None = COPIED

    def __post_init__(self) -> None:
        if self.delay < 1:
            raise ValueError(f"delay={self.delay}: must be at least 1")
        super().__post_init__()

    def read(self) -> None:
        super().read()
        tokens = ["_", *"abcdefgh", ":"]
        self.state({"num_tokens": len(tokens), "vocabulary": tokens, "num_classes": len(tokens), "recall": COPIED})
        self.state({"sequence_length": self.delay + 2 * COPIED})

    def draw(self, seed: int, numbers: Tensor) -> tuple[Tensor, Tensor]:
        symbols = 1 + (SYMBOLS * uniform(seed, numbers, COPIED)).long()
        inputs = torch.full((len(numbers), self.delay + 2 * COPIED), BLANK)
        targets = inputs.clone()
        inputs[:, :COPIED] = targets[:, -COPIED:] = symbols
        inputs[:, -COPIED - 1] = DELIMITER
        return inputs, targets


@dataclass(kw_only=True, eq=False)
class AddingTask(Drawn):
    """The sum of the two marked numbers of a sequence (Hochreiter & Schmidhuber 1997; marks as in 1504.00941, 4.1).

    `input` float32 (B, length, 2): numbers from U[0, 1), and marks, 1 at one step of either half, else 0; `target`
    (B, 1). Always answering 1 has a squared error of 1/6, the variance of the sum.
    """

    length: int = 100

    def __post_init__(self) -> None:
        if self.length < 2:
            raise ValueError(f"length={self.length}: must be at least 2")
        super().__post_init__()

    def read(self) -> None:
        super().read()
        self.state({"num_features": 2, "num_classes": 1, "sequence_length": self.length})

    def draw(self, seed: int, numbers: Tensor) -> tuple[Tensor, Tensor]:
        draws = uniform(seed, numbers, self.length + 2)
        values, half = draws[:, 2:], self.length // 2
        marked = (draws[:, :2] * torch.tensor([half, self.length - half])).long() + torch.tensor([0, half])  # (B, 2)
        marks = torch.zeros_like(values).scatter_(1, marked, 1.0)
        return torch.stack((values, marks), 2), values.gather(1, marked).sum(1, keepdim=True)


class PixelSplit(ArraySplit):
    """Pictures uint8 (N, 1, H, W) as sequences: after augmentation the pixels in `order`, `features` of them a step."""

    order: Tensor
    features: int

    def batch(self, epoch: int, positions: Tensor, indices: Tensor) -> Batch:
        batch = super().batch(epoch, positions, indices)
        pixels = batch["input"].flatten(1)[:, self.order]
        return {**batch, "input": pixels.view(len(pixels), -1, self.features)}


@dataclass(kw_only=True, eq=False)
class SequentialDigits(Digits):
    """The digits of `Digits`, same splits: a row of 28 pixels a step, or one of 784 pixels (1504.00941, 4.2).

    `permute` puts the pixels of all pictures in one random order, by `split_seed`, first (there "permuted MNIST").
    """

    by: Literal["rows", "pixels"] = "rows"
    permute: bool = False
    num_tokens: int | None = None
    sequence_length: int | None = None

    def __post_init__(self) -> None:
        if self.by not in ("rows", "pixels"):
            raise ValueError(f"by={self.by}: must be rows or pixels")
        super().__post_init__()

    def read(self) -> None:
        arrays = self.folded_arrays()
        inputs = arrays["train"][0]
        pixels, features = inputs[0].numel(), inputs.shape[-1] if self.by == "rows" else 1
        self.state({"num_features": features, "sequence_length": pixels // features, "num_classes": 10})
        self.state({"class_names": [str(digit) for digit in range(10)]})
        if self.facts["mean"] is None or self.facts["std"] is None:
            mean, std = statistics(inputs)
            self.facts |= {"mean": mean, "std": std}
        order = permutation(key(self.split_seed, "pixels"), pixels) if self.permute else torch.arange(pixels)
        for name, (images, targets) in arrays.items():
            augment = self.augmentation if name == "train" else None
            split = PixelSplit(images, targets, mean=self.facts["mean"], std=self.facts["std"], augment=augment)
            split.order, split.features = order, features
            self.splits[name] = split
