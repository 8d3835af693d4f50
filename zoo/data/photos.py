"""Photographs in class folders, too many for memory: listed without a look at them, cropped and decoded by the batch.

Prepared as torchvision's recipes do it. Training: a crop of random area and shape (Szegedy et al. 2014, 1409.4842,
section 6), resized; colours, where asked for; then the steps of `Augment`. Evaluation: the shorter side resized, then
the centre. Pictures are not turned as their EXIF says, as nobody's scores on ImageNet are of turned pictures.
"""

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from zoo.data.arrays import ArraySplit
from zoo.data.augment import Augment
from zoo.data.image_files import SUFFIXES, hidden, reason
from zoo.data.loaders import Batch
from zoo.data.own import listed
from zoo.errors import ZooError
from zoo.randomness import key, uniform

warnings.filterwarnings("ignore", message="(Possibly )?[Cc]orrupt EXIF data", category=UserWarning)  # of what is unused

_ATTEMPTS = 10  # to find a crop that fits, as torchvision's RandomResizedCrop
Box = tuple[int, int, int, int]  # left, top, right, bottom


@dataclass(frozen=True, eq=False)
class Listing:
    """Files by class. Their names are bytes in one array, which workers share; a million paths each would copy."""

    folders: list[Path]
    names: np.ndarray  # (N,)
    labels: Tensor  # int64 (N,)
    others: int  # how many files beside them are not images by their names

    def path(self, index: int) -> Path:
        return self.folders[int(self.labels[index])] / os.fsdecode(self.names[index])

    def part(self, indices: Tensor) -> "Listing":
        return Listing(self.folders, self.names[indices.numpy()], self.labels[indices], self.others)


def list_classes(folder: Path) -> Listing:
    """The pictures in the class folders of `folder`, by class and name; a file is not looked at."""
    try:
        with os.scandir(folder) as entries:
            classes = sorted(entry.name for entry in entries if entry.is_dir() and not hidden(entry.name))
        entries_of = [os.listdir(folder / name) for name in classes]
    except OSError as error:
        raise ZooError(f"cannot read the folder {error.filename}: {error.strerror}.") from None
    if not classes:
        raise ZooError(
            f"{folder} holds no class folders: unpack each archive into a folder of its class, such as "
            f"{folder / 'n01440764'}; pictures of val/ that lie side by side must be sorted into such folders."
        )
    files = [sorted(filter(_is_image, names)) for names in entries_of]
    if empty := [name for name, found in zip(classes, files, strict=True) if not found]:
        raise ZooError(f"{folder}: class folders without a picture: {listed(empty)}; fill or remove them.")
    names = np.array([os.fsencode(name) for found in files for name in found])
    labels = torch.arange(len(classes)).repeat_interleave(torch.tensor([len(found) for found in files]))
    return Listing([folder / name for name in classes], names, labels, sum(map(len, entries_of)) - len(names))


def _is_image(name: str) -> bool:
    return name[name.rfind(".") :].lower() in SUFFIXES and not hidden(name)


@dataclass(frozen=True)
class Crops:
    """What changes a training picture, as a function of (seed, epoch, position): crop, colours, steps of `augment`.

    `scale` is the range of the crop's area as shares of the picture (None: the centre, as in evaluation), `ratio` that
    of its width / height. `color_jitter` j multiplies brightness, contrast and saturation, in this order, by 1 - j to
    1 + j each (torchvision shuffles the three).
    """

    seed: int
    scale: Sequence[float] | None
    ratio: Sequence[float]
    color_jitter: float
    augment: Augment | None

    def draws(self, epoch: int, positions: Tensor) -> list[list[float]]:
        """Numbers in [0, 1) for each of `positions` (B,): four for each attempt at a crop, then three for colours."""
        return uniform(key(self.seed, "crop", epoch), positions, 4 * _ATTEMPTS + 3).tolist()

    def box(self, width: int, height: int, draws: Sequence[float]) -> Box:
        """The first attempt that fits; if none does, the largest centred crop within `ratio`."""
        smallest, largest = self.scale or (1.0, 1.0)
        low, high = (math.log(ratio) for ratio in self.ratio)
        for share, shape, down, right in zip(*(draws[i : 4 * _ATTEMPTS : 4] for i in range(4)), strict=True):
            area = width * height * (smallest + (largest - smallest) * share)
            aspect = math.exp(low + (high - low) * shape)
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                left, top = int(right * (width - w + 1)), int(down * (height - h + 1))
                return left, top, left + w, top + h
        w, h = min(width, round(height * self.ratio[1])), min(height, round(width / self.ratio[0]))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h

    def colour(self, image: Image.Image, draws: Sequence[float]) -> Image.Image:
        if self.color_jitter:
            brightness, contrast, saturation = (1 + self.color_jitter * (2 * draw - 1) for draw in draws[-3:])
            image = F.adjust_contrast(F.adjust_brightness(image, brightness), contrast)
            image = F.adjust_saturation(image, saturation)
        return image


class PhotoSplit:
    """Photographs decoded from their files a batch at a time, as uint8 (B, 3, S, S), then normalised."""

    def __init__(
        self,
        listing: Listing,
        *,
        image_size: int,
        resize: int,
        mean: Sequence[float],
        std: Sequence[float],
        augment: Crops | None = None,
    ) -> None:
        self.listing, self.targets = listing, listing.labels
        self.image_size, self.resize, self.mean, self.std, self.augment = image_size, resize, mean, std, augment

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, epoch: int, positions: Tensor, indices: Tensor) -> Batch:
        draws = self.augment.draws(epoch, positions) if self.augment else [[]] * len(indices)
        pixels = np.empty((len(indices), self.image_size, self.image_size, 3), np.uint8)
        for place, (index, row) in enumerate(zip(indices.tolist(), draws, strict=True)):
            path = self.listing.path(index)
            try:
                pixels[place] = np.asarray(self._read(path, row))
            except Exception as error:  # decoders of damaged files raise nearly anything
                raise ZooError(f"cannot read {path} ({reason(error)}): put a whole copy in its place.") from None
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
        if self.augment and self.augment.augment:
            images = self.augment.augment(images, epoch, positions)
        whole = ArraySplit(images, self.targets[indices], mean=self.mean, std=self.std)
        return whole.batch(epoch, positions, torch.arange(len(indices)))

    def _read(self, path: Path, draws: Sequence[float]) -> Image.Image:
        """One picture of S × S pixels: the centre without `draws`, else what they decide."""
        with Image.open(path) as file:
            if self.augment is None or self.augment.scale is None:
                image = F.center_crop(F.resize(file.convert("RGB"), [self.resize]), [self.image_size] * 2)
            else:
                width, height = file.size
                left, top, right, bottom = self.augment.box(width, height, draws)
                # A JPEG decodes faster at a half, quarter or eighth: where the crop still has the pixels asked for.
                if (smaller := min(right - left, bottom - top) // self.image_size) > 1:
                    file.draft(None, (width // smaller, height // smaller))
                x, y = file.width / width, file.height / height
                box = (round(left * x), round(top * y), round(right * x), round(bottom * y))
                image = F.resize(file.crop(box).convert("RGB"), [self.image_size] * 2)
        return self.augment.colour(image, draws) if self.augment else image
