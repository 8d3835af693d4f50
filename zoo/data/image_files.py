"""Image files: finding them in folders, and decoding them, one way for training, evaluation and new images.

An image is turned as its EXIF orientation says, laid over white where it is transparent, cut from 16 bits to 8, made
grey or colour, and its largest centred square is resized (bilinear, antialiased). A JPEG is decoded at the smallest
scale of its format that still has twice the size asked for. Of several frames the first is used.
"""

import copy
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from zoo.data.arrays import ArraySplit
from zoo.data.augment import Augment
from zoo.data.loaders import Batch, Split
from zoo.data.own import note
from zoo.errors import ZooError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm"}
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass
class Item:
    """An image file, or a class folder: its split (None: not split yet), its class (None: no labels), its path."""

    split: str | None
    label: str | None
    path: Path


@dataclass
class Scan:
    """What a folder holds: images, class folders, images outside any class folder, and the number of other files."""

    images: list[Item] = field(default_factory=list)
    folders: list[Item] = field(default_factory=list)
    loose: list[Path] = field(default_factory=list)
    others: int = 0

    def _is_image(self, path: Path) -> bool:
        """Whether a file is taken as an image; hidden files are not, such as the ._cat.jpg that macOS writes."""
        image = path.suffix.lower() in SUFFIXES and not hidden(path.name)
        self.others += not image
        return image

    def subfolders(self, folder: Path) -> list[Path]:
        """The folders in `folder`; the images beside them are noted as loose."""
        try:
            entries = sorted(folder.iterdir())
            folders = [entry for entry in entries if entry.is_dir()]
        except OSError as error:
            raise ZooError(f"cannot read the folder {folder}: {error.strerror}.") from None
        self.loose += [entry for entry in entries if entry not in set(folders) and self._is_image(entry)]
        self.others += sum(hidden(entry.name) for entry in folders)
        return [entry for entry in folders if not hidden(entry.name)]

    def add(self, folder: Path, split: str | None, label: str | None) -> None:
        """Add all images in `folder` and the folders in it."""

        def refuse(error: OSError) -> None:
            raise ZooError(f"cannot read the folder {error.filename}: {error.strerror}.")

        for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
            self.others += sum(map(hidden, folders))
            folders[:] = [name for name in folders if not hidden(name)]
            self.images += [Item(split, label, path) for name in files if self._is_image(path := Path(parent, name))]

    def add_classes(self, folder: Path, split: str | None) -> None:
        """Add the class folders in `folder` and the images in them."""
        before = len(self.loose)
        folders = self.subfolders(folder)
        if not folders and len(self.loose) > before:
            raise ZooError(
                f"{folder} holds images but no class folders: make one folder per class in it, such as "
                f"{folder / 'cat'} and {folder / 'dog'}, or say data.labels=false for a task without classes."
            )
        for entry in folders:
            self.folders.append(Item(split, entry.name, entry))
            self.add(entry, split, entry.name)


def hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def scan(root: Path, *, labels: bool) -> Scan:
    """Find the images of the three layouts under `root`, sorted by path."""
    found = Scan()
    folders = found.subfolders(root)
    splits = {folder: SPLIT_NAMES.get(folder.name.lower()) for folder in folders}
    # A class may be called "train": then it has no class folders in it, and stands beside other classes.
    split = any(name == "train" and Scan().subfolders(folder) for folder, name in splits.items())
    if split or (folders and None not in splits.values()):
        for folder, name in splits.items():
            if name is None:
                note(f"{folder} is none of train, val, test: left out.")
            elif labels:
                found.add_classes(folder, name)
            else:
                found.add(folder, name, None)
    else:
        found = Scan()
        if labels:
            found.add_classes(root, None)
        else:
            found.add(root, None, None)
    found.images.sort(key=lambda item: item.path.relative_to(root).as_posix())
    return found


def prepare(file: Image.Image, *, channels: int) -> Image.Image:
    """An opened image at its own size: upright, without transparency, in 8 bits, grey or colour."""
    image = ImageOps.exif_transpose(file)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")


def to_array(image: Image.Image) -> np.ndarray:
    """The pixels of a grey or colour image, uint8 (C, H, W)."""
    pixels = np.asarray(image)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None])


def decode(path: Path, *, channels: int, image_size: int) -> np.ndarray:
    """An image file as uint8 (channels, image_size, image_size); raises what Pillow raises."""
    with Image.open(path) as file:
        file.draft(None, (2 * image_size, 2 * image_size))
        image = prepare(file, channels=channels)
        (width, height), side = image.size, min(image.size)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        return to_array(image.resize((image_size, image_size), Image.Resampling.BILINEAR, box=box))


def decode_or_reason(path: Path, *, channels: int, image_size: int) -> np.ndarray | str:
    """`decode`, or the reason why the file cannot be used."""
    try:
        return decode(path, channels=channels, image_size=image_size)
    except Exception as error:  # decoders of damaged files raise nearly anything
        return reason(error)


def unreadable(path: Path, reason: str) -> str:
    return f"cannot read {path} ({reason}): mend or remove it, or leave bad files out with data.skip_bad_files=true."


def decode_all(paths: Sequence[Path], *, channels: int, image_size: int) -> Iterator[np.ndarray | str]:
    """`decode_or_reason` of each file in turn; says how far it is where that takes more than 2 s."""
    due = time.monotonic() + 2
    work = partial(decode_or_reason, channels=channels, image_size=image_size)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for done, image in enumerate(pool.map(work, paths), start=1):
            if time.monotonic() > due:
                print(f"reading images: {done:,} of {len(paths):,}", file=sys.stderr, flush=True)
                due = time.monotonic() + 5
            yield image


def traits(path: Path) -> set[str] | str:
    """Which of grey, transparent, animated the head of an image file tells; or the reason why it cannot be used."""
    try:
        if path.stat().st_size == 0:
            return "empty file"
        with Image.open(path) as image:
            if image.mode in ("I", "F"):
                return "32-bit pixels of unknown range, save it with 8 or 16 bits"
            found = {
                "grey": image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I;16"),
                "transparent": image.has_transparency_data,
                "animated": getattr(image, "is_animated", False),
            }
    except Exception as error:  # decoders of damaged files raise nearly anything
        return reason(error)
    return {name for name, present in found.items() if present}


def reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


class FileSplit:
    """Images decoded from their files a batch at a time: the same batches as an `ArraySplit` of the decoded images."""

    def __init__(
        self,
        paths: Sequence[Path],
        targets: Tensor,
        *,
        channels: int,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        augment: Augment | None = None,
    ) -> None:
        self.paths, self.targets = list(paths), targets
        self.channels, self.image_size = channels, image_size
        self.mean, self.std, self.augment = mean, std, augment

    def __len__(self) -> int:
        return len(self.paths)

    def batch(self, epoch: int, positions: Tensor, indices: Tensor) -> Batch:
        arrays = []
        for index in indices.tolist():
            image = decode_or_reason(self.paths[index], channels=self.channels, image_size=self.image_size)
            if isinstance(image, str):
                raise ZooError(unreadable(self.paths[index], image))
            arrays.append(image)
        images = torch.from_numpy(np.stack(arrays))
        if self.augment:
            images = self.augment(images, epoch, positions)
        decoded = ArraySplit(images, self.targets[indices], mean=self.mean, std=self.std)
        return decoded.batch(epoch, positions, torch.arange(len(indices)))


class Unlabelled:
    """A split without its targets."""

    def __init__(self, split: Split) -> None:
        self.split = split

    @property
    def augment(self) -> Augment | None:
        return self.split.augment

    @augment.setter
    def augment(self, augment: Augment | None) -> None:
        self.split = copy.copy(self.split)  # as a copy of this split may change what the original must keep
        self.split.augment = augment

    def __len__(self) -> int:
        return len(self.split)

    def batch(self, epoch: int, positions: Tensor, indices: Tensor) -> Batch:
        return {name: value for name, value in self.split.batch(epoch, positions, indices).items() if name != "target"}
