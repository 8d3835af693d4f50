"""A person's own images: one folder per class, with or without train/ val/ test/ above them.

    root/train/cat/*.jpg  root/val/cat/…  root/test/cat/…    val or test, where absent, are split from train
    root/cat/*.jpg  root/dog/…                               split by `split_seed` and the fractions, stratified
    root/*.jpg                                               no classes: only with `labels=False`

How a file becomes an array is told in `zoo.data.image_files`. Nothing is left out without a word: bad files and empty
class folders stop the run unless `skip_bad_files` is on, and then each is named.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zoo.data.arrays import ArraySplit
from zoo.data.image_files import SUFFIXES, FileSplit, Item, Scan, Unlabelled, decode_all, scan, traits, unreadable
from zoo.data.loaders import Split
from zoo.data.own import OwnData, identify, listed, note
from zoo.data.splits import Folds
from zoo.errors import ZooError
from zoo.randomness import key, permutation

_STATISTICS_FROM = 5000  # training images, chosen by seed: enough for mean and std


@dataclass(kw_only=True, eq=False)
class ImageFolder(Folds, OwnData):
    """Images of `root` as uint8 (C, S, S), augmented and normalised a batch at a time.

    Decoded images that fit in `memory_limit_mb` are read once and kept, so that a damaged file is found before training
    starts; others are read from their files for every batch, into the same batches. Of those only the heads are checked
    beforehand (the whole files with `skip_bad_files`), and a damaged one stops the run by name when its turn comes.

    `channels` None: 1 if every file is stored as grey, else 3. `mean` and `std`, from 0 to 1, are taken from at most
    5,000 training images. Class names are the names of the folders, sorted.
    """

    root: str | None = None
    labels: bool = True
    image_size: int = 64
    channels: int | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    skip_bad_files: bool = False
    memory_limit_mb: float = 1000

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise ValueError(f"image_size={self.image_size}: must be at least 1 pixel")
        if self.channels not in (None, 1, 3):
            raise ValueError(f"channels={self.channels}: must be 1 (grey), 3 (colour) or null (as the files are)")
        super().__post_init__()

    def read(self) -> None:
        if self.root is None:
            raise ZooError("data.root=null: say where the images are, as in data.root=path/to/folder.")
        root = Path(self.root).expanduser()
        if not os.path.isdir(root):
            what = "is a file, not a folder" if os.path.isfile(root) else "does not exist or may not be read"
            raise ZooError(f"data.root={self.root}: {root.absolute()} {what}; say where the images are.")
        found = scan(root, labels=self.labels)
        identify(self.facts, str(root), _contents(root, found.images))
        items, images = self._usable(root, found)
        fitted = None not in (self.facts["mean"], self.facts["std"])  # by a training before: then a test set is enough
        if not fitted and all(item.split in ("val", "test") for item in items):
            raise ZooError(f"data.root={self.root}: holds images for validation or test but none in {root / 'train'}.")
        targets = self._targets(root, items)
        indices = self.refold(self._indices(root, items, targets), targets, seed=self.split_seed)
        channels, size = self.facts["channels"], self.facts["image_size"]
        if not fitted:
            mean, std = self._statistics(items, images, indices["train"])
            self.facts["mean"], self.facts["std"] = self.facts["mean"] or mean, self.facts["std"] or std
        self.state({"num_features": channels * size * size})
        for name in (name for name in ("train", "val", "test") if name in indices):
            part, augment = indices[name], self.augmentation if name == "train" else None
            mean, std = self.facts["mean"], self.facts["std"]
            split: Split
            if images is not None:
                split = ArraySplit(images[part], targets[part], mean=mean, std=std, augment=augment)
            else:
                paths = [items[index].path for index in part.tolist()]
                split = FileSplit(
                    paths, targets[part], channels=channels, image_size=size, mean=mean, std=std, augment=augment
                )
            self.splits[name] = split if self.labels else Unlabelled(split)
        sizes = ", ".join(f"{len(split)} {name}" for name, split in self.splits.items())
        names = self.facts["class_names"]
        classes = f" in {len(names)} classes ({listed(names)})" if self.labels else ""
        note(f"{root}: {len(items)} images{classes}, {'grey' if channels == 1 else 'colour'}; {sizes}.")

    def _usable(self, root: Path, found: Scan) -> tuple[list[Item], Tensor | None]:
        """The images that can be used and, where they fit in memory, their pixels (N, C, S, S); settles `channels`."""
        heads = [traits(item.path) for item in found.images]
        bad = {item.path: head for item, head in zip(found.images, heads, strict=True) if isinstance(head, str)}
        items = [item for item in found.images if item.path not in bad]
        kinds = [head for head in heads if not isinstance(head, str)]
        if self.facts["channels"] is None:
            self.facts["channels"] = 1 if all("grey" in kind for kind in kinds) else 3
        channels, size = self.facts["channels"], self.facts["image_size"]
        fits = len(items) * channels * size**2 <= self.memory_limit_mb * 1e6
        pixels = np.empty((len(items) if fits else 0, channels, size, size), np.uint8)
        if fits or self.skip_bad_files:
            kept: list[Item] = []
            paths = [item.path for item in items]
            for item, image in zip(items, decode_all(paths, channels=channels, image_size=size), strict=True):
                if isinstance(image, str):
                    bad[item.path] = image
                    continue
                if fits:
                    pixels[len(kept)] = image
                kept.append(item)
            items = kept
        self._refuse(root, found, items, bad)
        notes = {
            "transparent": "may be transparent: laid over white",
            "animated": "have several frames: the first is used",
        }
        for trait, what in notes.items():
            if count := sum(trait in kind for kind in kinds):
                note(f"{count} of {len(kinds)} images {what}.")
        return items, torch.from_numpy(pixels[: len(items)]) if fits else None

    def _refuse(self, root: Path, found: Scan, items: Sequence[Item], bad: Mapping[Path, str]) -> None:
        """Stop at files and folders that cannot be used, or say which are left out."""
        if found.others:
            note(f"{found.others} files in {root} are not images by their names: left out.")
        problems = []
        if bad:
            files = listed([f"{path.relative_to(root)} ({reason})" for path, reason in sorted(bad.items())])
            problems.append(f"{len(bad)} of {len(found.images)} images cannot be read: {files}.")
        if found.loose:
            files = listed([str(path.relative_to(root)) for path in found.loose])
            problems.append(f"images outside the class folders: {files}.")
        full = {(item.split, item.label) for item in items}
        if empty := [
            str(each.path.relative_to(root)) for each in found.folders if (each.split, each.label) not in full
        ]:
            problems.append(f"class folders without a usable image: {listed(empty)}.")
        if problems and not self.skip_bad_files:
            advice = "Mend, move or remove them, or leave them out with data.skip_bad_files=true."
            raise ZooError(f"data.root={self.root}: " + "\n".join(problems) + " " + advice)
        for problem in problems:
            note(f"{problem} Left out.")
        if not items:
            raise ZooError(f"data.root={self.root}: holds no usable image ({', '.join(sorted(SUFFIXES))}).")

    def _targets(self, root: Path, items: Sequence[Item]) -> Tensor:
        """The class of each image, int64 (N,), all 0 without labels; settles the class names."""
        if not self.labels:
            return torch.zeros(len(items), dtype=torch.int64)
        names = self.facts["class_names"] or sorted(
            {str(item.label) for item in items if item.split in (None, "train")}
        )
        if len(names) < 2:
            raise ZooError(
                f"data.root={self.root}: {listed(names) or 'no'} class folder for training; classification needs two "
                "or more: make one folder per class, or say data.labels=false for a task without classes."
            )
        if strange := sorted({str(item.path.relative_to(root).parent) for item in items if item.label not in names}):
            raise ZooError(f"data.root={self.root}: {listed(strange)}: not among the training classes {listed(names)}.")
        self.state({"num_classes": len(names), "class_names": names})
        return torch.tensor([names.index(item.label) for item in items])

    def _indices(self, root: Path, items: Sequence[Item], targets: Tensor) -> dict[str, Tensor]:
        """The images of each split."""
        names = self.facts["class_names"] or [str(root)]
        if items[0].split is None:
            return self.divide(targets, names)
        splits = np.array([item.split for item in items])
        indices = {str(name): torch.from_numpy(np.flatnonzero(splits == name)) for name in np.unique(splits)}
        missing = [part for part in ("test", "val") if part not in indices]
        if "train" in indices and missing:
            train = indices["train"]
            indices |= {name: train[part] for name, part in self.divide(targets[train], names, parts=missing).items()}
            note(f"{root} has no images for {' and '.join(missing)}: taken from train by data.split_seed.")
        return indices

    def _statistics(
        self, items: Sequence[Item], images: Tensor | None, train: Tensor
    ) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel, to four digits, exact for the images they are taken from."""
        channels, size = self.facts["channels"], self.facts["image_size"]
        chosen = train[permutation(key(self.split_seed, "statistics"), len(train))[:_STATISTICS_FROM]].tolist()
        arrays = (
            decode_all([items[index].path for index in chosen], channels=channels, image_size=size)
            if images is None
            else (images[index].numpy() for index in chosen)
        )
        counts = np.zeros((channels, 256), np.int64)  # how often each level occurs: sums without rounding
        for index, image in zip(chosen, arrays, strict=True):
            if isinstance(image, str):
                raise ZooError(unreadable(items[index].path, image))
            for channel in range(channels):
                counts[channel] += np.bincount(image[channel].ravel(), minlength=256)
        levels, total = np.arange(256) / 255, counts.sum(1)
        mean = counts @ levels / total
        std = np.sqrt(np.maximum(counts @ levels**2 / total - mean**2, 0))
        return [round(float(x), 4) for x in mean], [round(float(x), 4) or 1.0 for x in std]


def _contents(root: Path, items: Sequence[Item]) -> bytes:
    """The relative paths and sizes of the images, for the fingerprint."""
    sizes = [item.path.stat().st_size if item.path.exists() else -1 for item in items]
    lines = [f"{item.path.relative_to(root).as_posix()}\t{size}\n" for item, size in zip(items, sizes, strict=True)]
    return "".join(lines).encode("utf-8", "surrogateescape")
