"""Data that fits in memory: a split over two tensors, and the data module of such splits."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.data.augment import Augment
from zoo.data.loaders import Batch
from zoo.data.module import DataModule
from zoo.data.splits import Folds
from zoo.errors import ZooError

Arrays = tuple[Tensor, Tensor]  # inputs, uint8 (N, C, H, W) or float32 (N, F); targets, int64 (N,) or float32 (N, K)


class ArraySplit:
    """Examples in two tensors, indexed, augmented and normalised a batch at a time.

    `inputs` is uint8 (N, C, H, W), counted from 0 to 1 before normalising, or float32 (N, F). `mean` and `std` hold one
    number for all or one for each channel or feature. Only images can be augmented.
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        augment: Augment | None = None,
    ) -> None:
        if augment and inputs.dtype != torch.uint8:
            raise ZooError("augment: these data are not images, and only images are augmented; say augment=none.")
        channels = inputs.shape[1]
        for name, value in (("mean", mean), ("std", std)):
            if len(value) not in (1, channels):
                raise ValueError(f"{name}={list(value)}: must hold one number for each of {channels} channels")
        if min(std) <= 0:
            raise ValueError(f"std={list(std)}: must be above 0")
        self.inputs, self.targets, self.augment = inputs, targets, augment
        shape = (-1,) + (1,) * (inputs.ndim - 2)
        one = 255 if inputs.dtype == torch.uint8 else 1
        # (x / one - mean) / std as one multiplication and one addition
        self._scale = torch.tensor([1 / (one * s) for s in std]).view(shape)
        self._offset = (-torch.tensor(mean, dtype=torch.float64) / torch.tensor(std)).float().view(shape)
        self._draws: tuple[int, Tensor] = (-1, torch.empty(0))  # an epoch and its draws: drawing small parts is slow

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, epoch: int, positions: Tensor, indices: Tensor) -> Batch:
        inputs = self.inputs.index_select(0, indices)
        if self.augment:
            if self._draws[0] != epoch:
                self._draws = (epoch, self.augment.draws(epoch, torch.arange(len(self))))
            inputs = self.augment(inputs, epoch, positions, self._draws[1].index_select(0, positions))
        inputs = inputs.to(torch.float32).mul_(self._scale).add_(self._offset)
        return {"input": inputs, "target": self.targets.index_select(0, indices), "position": positions}


@dataclass(kw_only=True, eq=False)
class ArrayDataModule(Folds, DataModule):
    """A data module whose splits fit in memory. A subclass implements `arrays`; facts left None come from them."""

    channels: int | None = None
    image_size: int | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None

    def arrays(self) -> dict[str, Arrays]:
        """The inputs and targets of each split: train, val and test, those there are."""
        raise NotImplementedError

    def folded_arrays(self) -> dict[str, Arrays]:
        """The splits, with the fold for validation where `folds` are asked for."""
        arrays = self.arrays()
        (inputs, targets), held_out = arrays["train"], arrays.get("val")
        if (self.folds is None and self.fold is None) or held_out is None:
            return arrays
        inputs, targets = torch.cat([inputs, held_out[0]]), torch.cat([targets, held_out[1]])
        given = torch.arange(len(targets)).split([len(arrays["train"][1]), len(held_out[1])])
        indices = self.refold({"train": given[0], "val": given[1]}, targets, seed=self.split_seed)
        return arrays | {name: (inputs[part], targets[part]) for name, part in indices.items()}

    def read(self) -> None:
        arrays = self.folded_arrays()
        self._complete_facts(*arrays["train"])
        self.splits = {
            name: ArraySplit(
                inputs,
                targets,
                mean=self.facts["mean"],
                std=self.facts["std"],
                augment=self.augmentation if name == "train" else None,
            )
            for name, (inputs, targets) in arrays.items()
        }

    def _complete_facts(self, inputs: Tensor, targets: Tensor) -> None:
        """Fill in what no config states, and refuse what contradicts the training examples."""
        self.state({"num_features": inputs[0].numel()})
        if inputs.ndim == 4:
            self.state({"channels": inputs.shape[1], "image_size": inputs.shape[-1]})
        if targets.dtype == torch.int64:
            classes = int(targets.max()) + 1
            self.state({"num_classes": classes})
            names = self.facts["class_names"] = self.facts["class_names"] or [str(label) for label in range(classes)]
            if len(names) != classes:
                raise ZooError(
                    f"data.class_names has {len(names)} names: these data have {classes} classes; name each."
                )
        if self.facts["mean"] is None or self.facts["std"] is None:
            mean, std = statistics(inputs)
            self.facts |= {"mean": self.facts["mean"] or mean, "std": self.facts["std"] or std}


def statistics(inputs: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel or feature, to four digits; images count from 0 to 1."""
    if inputs.dtype == torch.uint8:  # from a histogram: exact, and without a copy in a wider type
        counts = torch.stack(
            [torch.bincount(channel.flatten(), minlength=256) for channel in inputs.unbind(1)]
        ).double()
        level = torch.arange(256, dtype=torch.float64) / 255
        share = counts / counts.sum(1, keepdim=True)
        mean = share @ level
        std = (share @ level**2 - mean**2).clamp(min=0).sqrt()
    else:
        mean, std = inputs.double().mean(0), inputs.double().std(0, correction=0)
    return [round(x, 4) for x in mean.tolist()], [round(x, 4) or 1.0 for x in std.tolist()]  # 1: nothing varies
