"""Pictures with masks, cut into tiles: overlapping as they like for training, each pixel counted once in evaluation.

N tiles, C channels, H × W the size of a picture, S the side of a tile, K classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zoo.data.arrays import ArraySplit, statistics
from zoo.data.loaders import Batch
from zoo.data.mask_augment import MaskAugment
from zoo.data.module import DataModule
from zoo.randomness import key, permutation

IGNORED = 255  # in a mask: a pixel that counts nowhere
Scene = tuple[np.ndarray, np.ndarray]  # a picture, uint8 (C, H, W), and its mask, uint8 (H, W)


def starts(length: int, size: int, stride: int | None = None) -> list[int]:
    """Where tiles of `size` begin that cover `length`: evenly spaced, as few as can be at most `stride` apart."""
    count = 1 + -(-max(length - size, 0) // (stride or size))
    return np.linspace(0, max(length - size, 0), count).round().astype(int).tolist()


def cut(picture: np.ndarray, size: int, stride: int | None = None) -> np.ndarray:
    """The tiles (N, …, S, S) that cover a picture (…, H, W), row by row."""
    height, width = picture.shape[-2:]
    places = [(top, left) for top in starts(height, size, stride) for left in starts(width, size, stride)]
    return np.stack([picture[..., top : top + size, left : left + size] for top, left in places])


def repeats(height: int, width: int, size: int) -> np.ndarray:
    """Which pixels of the tiles that `cut` makes an earlier tile has already, bool (N, S, S)."""
    order = cut(np.arange(height * width).reshape(height, width), size)
    first = np.unique(order, return_index=True)[1]
    repeated = np.ones(order.size, bool)
    repeated[first] = False
    return repeated.reshape(order.shape)


def padded(scene: Scene, size: int) -> Scene:
    """A scene of at least `size` each way, grown to the right and below by a mirrored picture and an ignored mask."""
    image, mask = scene
    grow = [(0, max(size - length, 0)) for length in mask.shape]
    if not any(by for _, by in grow):
        return scene
    return np.pad(image, [(0, 0), *grow], mode="symmetric"), np.pad(mask, grow, constant_values=IGNORED)


class MaskSplit:
    """Tiles in memory: images uint8 (N, C, S, S), masks uint8 (N, S, S), and the weights of pixels float32 (N, S, S).

    A batch holds `input`, `target` int64 (B, S, S) in which 255 is ignored, `position` and, with weights, `weight`.
    """

    def __init__(
        self,
        images: Tensor,
        masks: Tensor,
        *,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        weights: Tensor | None = None,
        augment: MaskAugment | None = None,
    ) -> None:
        self.images, self.masks, self.weights, self.augment = images, masks, weights, augment
        self.mean, self.std = mean, std

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, epoch: int, positions: Tensor, indices: Tensor) -> Batch:
        images, masks = self.images.index_select(0, indices), self.masks.index_select(0, indices)
        weights = None if self.weights is None else self.weights.index_select(0, indices)
        if self.augment:
            images, masks, weights = self.augment(images, masks, epoch, positions, weights)
        tiles = ArraySplit(images, masks.long(), mean=self.mean, std=self.std)
        batch = tiles.batch(epoch, positions, torch.arange(len(indices)))
        return batch if weights is None else batch | {"weight": weights}


@dataclass(kw_only=True, eq=False)
class MaskData(DataModule):
    """Base of data with masks. A subclass reads scenes and hands them to `keep`; facts left None come from them.

    Training tiles are at most `train_stride` apart (None: as few as cover a scene), those of other splits as few as can
    be. `border_weight` and `border_sigma` are w_0 and σ of `zoo.data.border_weights`; w_c balances the classes over the
    training scenes.
    """

    channels: int | None = None
    image_size: int = 64
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    ignore_index: int = IGNORED
    train_stride: int | None = None
    border_weight: float = 0.0
    border_sigma: float = 5.0

    augmenter = MaskAugment
    background = 0  # the class between cells

    def __post_init__(self) -> None:
        if self.image_size < 2:
            raise ValueError(f"image_size={self.image_size}: must be at least 2 pixels")
        if self.ignore_index != IGNORED:
            raise ValueError(
                f"ignore_index={self.ignore_index}: must be {IGNORED}, which these data put on such pixels"
            )
        if self.train_stride is not None and not 1 <= self.train_stride <= self.image_size:
            raise ValueError(
                f"train_stride={self.train_stride}: must be from 1 to image_size, {self.image_size}, or null"
            )
        if self.border_weight < 0:
            raise ValueError(f"border_weight={self.border_weight}: must be 0 (off) or more")
        if self.border_sigma <= 0:
            raise ValueError(f"border_sigma={self.border_sigma}: must be above 0 pixels")
        super().__post_init__()

    def keep(self, scenes: Mapping[str, Sequence[Scene]]) -> None:
        """Cut the scenes of each split into its tiles; fill in `mean` and `std`, of the training tiles."""
        size = self.image_size
        scenes = {name: [padded(scene, size) for scene in part] for name, part in scenes.items()}
        weights = self._weights(scenes) if self.border_weight else None
        for name in (name for name in ("train", "val", "test") if name in scenes):
            training = name == "train"
            stride = self.train_stride if training else None
            images = np.concatenate([cut(image, size, stride) for image, _ in scenes[name]])
            masks = np.concatenate([cut(mask, size, stride) for _, mask in scenes[name]])
            if not training:
                masks[np.concatenate([repeats(mask.shape[0], mask.shape[1], size) for _, mask in scenes[name]])] = (
                    IGNORED
                )
            # Shuffled, so that the first tiles, which `train_examples` takes, are not all of one scene.
            order = permutation(key(self.split_seed, "order"), len(images))
            tiles = torch.from_numpy(images)[order]
            if self.facts["mean"] is None or self.facts["std"] is None:
                mean, std = statistics(tiles)
                self.facts |= {"mean": self.facts["mean"] or mean, "std": self.facts["std"] or std}
            split = self.splits[name] = MaskSplit(
                tiles,
                torch.from_numpy(masks)[order],
                mean=self.facts["mean"],
                std=self.facts["std"],
                augment=self.augmentation if training else None,
            )
            if weights is not None:
                split.weights = torch.from_numpy(np.concatenate([cut(each, size, stride) for each in weights[name]]))
                split.weights = split.weights[order].masked_fill_(split.masks == IGNORED, 0)

    def _weights(self, scenes: Mapping[str, Sequence[Scene]]) -> dict[str, list[np.ndarray]]:
        """The border weights of every scene, taken before it is cut: a tile shows parts of cells only."""
        from zoo.data.border_weights import border_weights, class_balance  # SciPy, which nothing else needs

        classes = len(self.facts["class_names"])
        fitted = scenes["train"] if "train" in scenes else [scene for part in scenes.values() for scene in part]
        counts = sum(np.bincount(mask.ravel(), minlength=256)[:classes] for _, mask in fitted)
        balance = class_balance(np.asarray(counts))
        options = {"weight": self.border_weight, "sigma": self.border_sigma}
        return {
            name: [border_weights(mask, balance, background=self.background, **options) for _, mask in part]
            for name, part in scenes.items()
        }
