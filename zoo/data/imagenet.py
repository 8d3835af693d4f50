"""ImageNet (ILSVRC 2012; Russakovsky et al. 2015, 1409.0575), or any folder of its form, read through workers.

root/train/n01440764/*.JPEG …    validation is `val_per_class` pictures of each class, taken from here
root/val/n01440764/*.JPEG …      the test split: papers report the official validation part, whose labels are public
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.data.image_files import reason
from zoo.data.module import DataModule
from zoo.data.own import identify, listed, note
from zoo.data.photos import Crops, Listing, PhotoSplit, list_classes
from zoo.data.splits import balanced
from zoo.errors import ZooError
from zoo.randomness import key, permutation


@dataclass(kw_only=True, eq=False)
class ImageNet(DataModule):
    """The folders of `root` as float32 (B, 3, S, S), through `num_workers` processes, whose number changes no batch.

    `resize` is the shorter side in evaluation, None: 8/7 of `image_size`, such as 256 for 224. `scale`, `ratio` and
    `color_jitter` are those of `Crops`. Classes are numbered in the order of their folders' names.
    """

    root: str | None = "downloads/imagenet"
    val_per_class: int = 50
    batch_size: int = 256
    eval_batch_size: int = 256
    num_workers: int = 8
    image_size: int = 224
    resize: int | None = None
    scale: Sequence[float] | None = (0.08, 1.0)
    ratio: Sequence[float] = (3 / 4, 4 / 3)
    color_jitter: float = 0.0
    channels: int = 3
    mean: Sequence[float] = (0.485, 0.456, 0.406)
    std: Sequence[float] = (0.229, 0.224, 0.225)
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size < 1:
            raise ValueError(f"image_size={self.image_size}: must be at least 1 pixel")
        self.shorter_side = round(self.image_size * 8 / 7) if self.resize is None else self.resize
        if self.shorter_side < self.image_size:
            raise ValueError(
                f"resize={self.resize}: must be image_size={self.image_size} or more, or null for 8/7 of it"
            )
        if self.val_per_class < 1:
            raise ValueError(f"val_per_class={self.val_per_class}: must be at least 1")
        if self.channels != 3:
            raise ValueError(f"channels={self.channels}: must be 3, as photographs are read in colour")
        for name, values, above in (("scale", self.scale, 1.0), ("ratio", self.ratio, math.inf)):
            if values is not None and (len(values) != 2 or not 0 < values[0] <= values[1] <= above):
                raise ValueError(f"{name}={list(values)}: must be two numbers, 0 < smallest <= largest <= {above:g}")
        if not 0 <= self.color_jitter <= 1:
            raise ValueError(f"color_jitter={self.color_jitter}: must be from 0 to 1")

    @property
    def preprocessing(self) -> dict[str, Any]:
        return super().preprocessing | {"resize": self.shorter_side}

    def read(self) -> None:
        root = Path(self.root or "").expanduser()
        found = {name: list_classes(root / name) for name in ("train", "val") if os.path.isdir(root / name)}
        if not self.root or not found:
            raise ZooError(
                f"data.root={self.root}: {root.absolute()} has no train and val. Put ImageNet there (ILSVRC 2012, from "
                "image-net.org), a folder for each class: train/n01440764/*.JPEG, val/n01440764/*.JPEG and so on; or "
                "say where it is, as in data.root=/path/to/imagenet."
            )
        if others := sum(listing.others for listing in found.values()):
            note(f"{others} files in {root} are not images by their names: left out.")
        self._classes(root, found)
        self.state({"num_features": 3 * self.image_size**2})
        if "train" in found:
            train = found["train"]
            identify(self.facts, str(root / "train"), train.names.tobytes() + train.labels.numpy().tobytes())
            indices = self._divide(train)
            self.splits = {name: self._split(train.part(part), name) for name, part in indices.items()}
        if "val" in found:
            self.splits["test"] = self._split(found["val"], "test")
        sizes = ", ".join(f"{len(split):,} {name}" for name, split in self.splits.items())
        note(f"{root}: {self.facts['num_classes']:,} classes ({listed(self.facts['class_names'])}); {sizes}.")

    def _classes(self, root: Path, found: dict[str, Listing]) -> None:
        """Settle number and names of the classes; refuse folders that are not of the same classes."""
        classes = [[folder.name for folder in listing.folders] for listing in found.values()]
        if odd := sorted(set(classes[0]) ^ set(classes[-1])):
            raise ZooError(f"data.root={self.root}: {listed(odd)}: must be in both, train and val.")
        folders, stated = classes[0], self.facts["num_classes"]
        if stated not in (None, len(folders)):
            raise ZooError(
                f"data.num_classes={stated}: {root} has {len(folders)} class folders; add the others, or say "
                "data.num_classes=null to train on these."
            )
        human = _human_names(root)
        names = [f"{folder} {human[folder]}" if folder in human else folder for folder in folders]
        before = self.facts["class_names"] or names  # those of a training may have other human names
        same = [f"{name} ".startswith(f"{folder} ") for name, folder in zip(before, folders, strict=False)]
        if len(before) != len(folders) or not all(same):
            raise ZooError(f"data.class_names are {listed(before)}, but {root} has {listed(names)}.")
        self.facts |= {"num_classes": len(folders), "class_names": before}

    def _divide(self, train: Listing) -> dict[str, Tensor]:
        """Indices of train and val, the latter with `val_per_class` of each class, by `split_seed`."""
        sizes = torch.bincount(train.labels)
        if sizes.min() <= self.val_per_class:
            fewest = int(sizes.argmin())
            raise ZooError(
                f"class {train.folders[fewest].name} has {int(sizes[fewest])} pictures: must have more than "
                f"data.val_per_class={self.val_per_class}; choose a smaller number."
            )
        order = permutation(key(self.split_seed, "split"), len(train.labels))
        in_val = torch.zeros(len(order), dtype=torch.bool)
        in_val[balanced(train.labels[order], self.val_per_class * len(sizes))] = True
        return {"train": order[~in_val], "val": order[in_val]}

    def _split(self, listing: Listing, name: str) -> PhotoSplit:
        crops = None
        if name == "train" and (self.scale or self.color_jitter or self.augmentation):
            crops = Crops(self.seed, self.scale, self.ratio, self.color_jitter, self.augmentation)
        return PhotoSplit(
            listing,
            image_size=self.image_size,
            resize=self.shorter_side,
            mean=self.facts["mean"],
            std=self.facts["std"],
            augment=crops,
        )


def _human_names(root: Path) -> dict[str, str]:
    """Names of class folders, from lines such as `n01440764 tench, Tinca tinca`, or from torchvision's meta.bin."""
    for path in (root / name for name in ("LOC_synset_mapping.txt", "classes.txt", "meta.bin")):
        if not path.is_file():
            continue
        try:
            if path.suffix == ".bin":
                return {folder: names[0] for folder, names in torch.load(path, weights_only=True)[0].items()}
            pairs = [line.partition(" ") for line in path.read_text(encoding="utf-8").splitlines()]
            return {folder: names.split(",")[0].strip() for folder, _, names in pairs if names}
        except Exception as error:  # what a damaged pickle raises may be anything
            note(f"{path} cannot be read ({reason(error)}): classes are called as their folders.")
    return {}
