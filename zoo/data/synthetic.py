"""A small made-up data set that models can learn, for tests and trials."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.data.arrays import ArrayDataModule, Arrays
from zoo.randomness import key, normal, uniform


class Synthetic(ArrayDataModule):
    """Seeded examples of one of three kinds, as many as asked for.

    images: each class is a coarse pattern under noise, uint8 (channels, image_size, image_size). vectors: each class is
    a Gaussian cloud, float32 (num_features,). regression: a linear function of a Gaussian vector plus noise, (1,).
    """

    def __init__(
        self,
        *,
        kind: str = "images",
        train_size: int = 256,
        val_size: int = 64,
        test_size: int = 64,
        batch_size: int = 32,
        eval_batch_size: int = 500,
        num_workers: int = 0,
        split_seed: int = 0,
        seed: int = 0,
        augment: Mapping[str, Any] | None = None,
        channels: int | None = 1,
        image_size: int | None = 28,
        num_features: int | None = None,
        num_classes: int | None = 10,
        class_names: Sequence[str] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        if kind not in ("images", "vectors", "regression"):
            raise ValueError(f"kind={kind}: must be images, vectors or regression")
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        for name, size in self.sizes.items():
            if size < 1:
                raise ValueError(f"{name}_size={size}: must be at least 1")
        images = kind == "images"
        super().__init__(
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            split_seed=split_seed,
            seed=seed,
            augment=augment,
            channels=(channels or 1) if images else None,
            image_size=(image_size or 28) if images else None,
            num_features=num_features if images else num_features or 16,
            num_classes=1 if kind == "regression" else num_classes or 10,
            class_names=class_names,
            mean=mean,
            std=std,
        )
        self.kind = kind

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
        clean = F.interpolate(patterns, size=(size, size), mode="nearest")[targets]
        noise = uniform(self._key("examples"), counter, channels * size * size).view(clean.shape)
        return (255 * (0.7 * clean + 0.3 * noise)).to(torch.uint8), targets

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
