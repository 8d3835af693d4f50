"""A small made-up data set that models can learn, for tests and trials."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.data.arrays import ArrayDataModule, Arrays
from zoo.randomness import key, normal, uniform


@dataclass(kw_only=True, eq=False)
class Synthetic(ArrayDataModule):
    """Seeded examples of one of three kinds, as many as asked for.

    images: each class is a coarse pattern under noise, uint8 (channels, image_size, image_size). vectors: each class is
    a Gaussian cloud, float32 (num_features,). regression: a linear function of a Gaussian vector plus noise, (1,).
    """

    kind: str = "images"
    train_size: int = 256
    val_size: int = 64
    test_size: int = 64
    batch_size: int = 32
    channels: int | None = 1
    image_size: int | None = 28
    num_classes: int | None = 10

    def __post_init__(self) -> None:
        if self.kind not in ("images", "vectors", "regression"):
            raise ValueError(f"kind={self.kind}: must be images, vectors or regression")
        self.sizes = {"train": self.train_size, "val": self.val_size, "test": self.test_size}
        for name, size in self.sizes.items():
            if size < 1:
                raise ValueError(f"{name}_size={size}: must be at least 1")
        if self.kind == "images":
            self.channels, self.image_size = self.channels or 1, self.image_size or 28
        else:
            self.channels, self.image_size, self.num_features = None, None, self.num_features or 16
        self.num_classes = 1 if self.kind == "regression" else self.num_classes or 10
        super().__post_init__()

    def arrays(self) -> dict[str, Arrays]:
        counter = torch.arange(sum(self.sizes.values()))
        made = {"images": self._images, "vectors": self._vectors, "regression": self._regression}[self.kind](counter)
        parts = [torch.split(tensor, list(self.sizes.values())) for tensor in made]
        return {name: (inputs, targets) for name, inputs, targets in zip(self.sizes, *parts, strict=True)}

    def _key(self, stream: str) -> int:
        return key(self.split_seed, "synthetic", stream)

    def _images(self, counter: Tensor) -> Arrays:
        classes, channels, size = (self.facts[name] for name in ("num_classes", "channels", "image_size"))
        patterns = uniform(self._key("classes"), torch.arange(classes), channels * 16).view(classes, channels, 4, 4)
        targets = counter % classes
        clean = F.interpolate(patterns, size=(size, size), mode="nearest")
        pictures = []
        for part in counter.split(32):  # a few at a time: the counters of all pixels would take gigabytes
            noise = uniform(self._key("examples"), part, channels * size * size).view(-1, channels, size, size)
            pictures.append((255 * (0.7 * clean[targets[part]] + 0.3 * noise)).to(torch.uint8))
        return torch.cat(pictures), targets

    def _vectors(self, counter: Tensor) -> Arrays:
        classes, features = self.facts["num_classes"], self.facts["num_features"]
        targets = counter % classes
        centres = 2 * normal(self._key("classes"), torch.arange(classes), features)
        return centres[targets] + normal(self._key("examples"), counter, features), targets

    def _regression(self, counter: Tensor) -> Arrays:
        features = self.facts["num_features"]
        inputs = normal(self._key("examples"), counter, features)
        weights = normal(self._key("weights"), torch.arange(features), 1) / features**0.5
        return inputs, inputs @ weights + 0.1 * normal(self._key("noise"), counter, 1)
