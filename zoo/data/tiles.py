"""Pictures with masks, cut into tiles: overlapping as they like for training, each pixel counted once in evaluation.

N tiles, C channels, H × W the size of a picture, S the side of a tile. Of a tile the outermost `context` pixels are
there to be seen, not to be predicted: the target is what is left in the middle, and tiles cover a picture with that.
"""

import math
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


def starts(length: int, size: int, stride: int) -> list[int]:
    """Where tiles of `size` begin that cover `length`: evenly spaced, as few as can be at most `stride` apart."""
    count = 1 + -(-max(length - size, 0) // stride)
    return np.linspace(0, max(length - size, 0), count).round().astype(int).tolist()


def cut(picture: np.ndarray, size: int, stride: int) -> np.ndarray:
    """The tiles (N, …, S, S) that cover a picture (…, H, W), row by row."""
    tops, lefts = (starts(length, size, stride) for length in picture.shape[-2:])
    places = [(top, left) for top in tops for left in lefts]
    return np.stack([picture[..., top : top + size, left : left + size] for top, left in places])


def repeats(height: int, width: int, size: int) -> np.ndarray:
    """Which pixels of the tiles that `cut` makes side by side an earlier tile has already, bool (N, S, S)."""
    order = cut(np.arange(height * width).reshape(height, width), size, size)
    first = np.unique(order, return_index=True)[1]
    repeated = np.ones(order.size, bool)
    repeated[first] = False
    return repeated.reshape(order.shape)


def padded(scene: Scene, size: int, context: int = 0) -> Scene:
    """A scene grown by `context` all around, then to the right and below to at least `size` each way.

    The picture is mirrored at its first and last pixels, as in Ronneberger et al. 2015 (1505.04597), figure 2; the mask
    grows by ignored pixels.
    """
    image, mask = scene
    grow = [(context, context + max(size - 2 * context - length, 0)) for length in mask.shape]
    if not any(map(any, grow)):
        return scene
    return np.pad(image, [(0, 0), *grow], mode="reflect"), np.pad(mask, grow, constant_values=IGNORED)


class MaskSplit:
    """Tiles in memory: images uint8 (N, C, S, S), masks uint8 (N, S, S), and the weights of pixels float32 (N, S, S).

    A batch holds `input` (B, C, S, S), `target` int64 in which 255 is ignored, `position` and, with weights, `weight`;
    target and weight are (B, S − 2·context, S − 2·context), the middle, cut out behind the augmentation.
    """

    def __init__(
        self,
        images: Tensor,
        masks: Tensor,
        *,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        context: int = 0,
        weights: Tensor | None = None,
        augment: MaskAugment | None = None,
    ) -> None:
        self.images, self.masks, self.weights, self.augment = images, masks, weights, augment
        self.mean, self.std, self.context = mean, std, context

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, epoch: int, positions: Tensor, indices: Tensor) -> Batch:
        images, masks = self.images.index_select(0, indices), self.masks.index_select(0, indices)
        weights = None if self.weights is None else self.weights.index_select(0, indices)
        if self.augment:
            images, masks, weights = self.augment(images, masks, epoch, positions, weights)
        middle = slice(self.context, masks.shape[-1] - self.context)
        tiles = ArraySplit(images, masks[:, middle, middle].long(), mean=self.mean, std=self.std)
        batch = tiles.batch(epoch, positions, torch.arange(len(indices)))
        return batch if weights is None else batch | {"weight": weights[:, middle, middle]}


@dataclass(kw_only=True, eq=False)
class MaskData(DataModule):
    """Base of data with masks. A subclass reads scenes and hands them to `keep`; facts left None come from them.

    A tile has `image_size` pixels each way, a target but for the outermost `context`: what a network without padding
    needs to predict the rest, taken from the scene, beyond its edge mirrored. Training tiles are at most `train_stride`
    apart (None: as few as cover a scene), those of other splits as few as can be; of training tiles that show nothing
    but background the share `background_share` is kept, drawn by `split_seed`. `border_weight` and `border_sigma` are
    w_0 and σ of `zoo.data.border_weights`; w_c balances the classes over the training scenes.
    """

    channels: int | None = None
    image_size: int = 64
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    ignore_index: int = IGNORED
    context: int = 0
    train_stride: int | None = None
    background_share: float = 1.0
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
        if not 0 <= 2 * self.context < self.image_size:
            raise ValueError(f"context={self.context}: must be 0 or more, below half of image_size={self.image_size}")
        self.side = self.image_size - 2 * self.context  # of a target
        if self.train_stride is not None and not 1 <= self.train_stride <= self.side:
            raise ValueError(
                f"train_stride={self.train_stride}: must be from 1 to {self.side}, the side of a target, or null"
            )
        if not 0 < self.background_share <= 1:
            raise ValueError(f"background_share={self.background_share}: must be above 0 and at most 1 (all)")
        if not 0 <= self.border_weight < math.inf:
            raise ValueError(f"border_weight={self.border_weight}: must be 0 (off) or more")
        if not 0 < self.border_sigma < math.inf:
            raise ValueError(f"border_sigma={self.border_sigma}: must be above 0 pixels")
        super().__post_init__()
        crop = self.augmentation.crop if self.augmentation else 0
        if 0 < crop <= 2 * self.context:
            raise ValueError(f"augment.crop={crop}: must be more than twice the context, {self.context} pixels")

    def stride(self, split: str) -> int:
        """How far apart the tiles of a split are at most."""
        return self.train_stride if split == "train" and self.train_stride else self.side

    def keep(self, scenes: Mapping[str, Sequence[Scene]]) -> None:
        """Cut the scenes of each split into its tiles; fill in `mean` and `std`, of the training tiles."""
        size, context = self.image_size, self.context
        middle = slice(context, size - context)
        scenes = {name: [padded(scene, size, context) for scene in part] for name, part in scenes.items()}
        weights = self._weights(scenes) if self.border_weight else None
        for name in (name for name in ("train", "val", "test") if name in scenes):
            training, stride = name == "train", self.stride(name)
            images = np.concatenate([cut(image, size, stride) for image, _ in scenes[name]])
            masks = np.concatenate([cut(mask, size, stride) for _, mask in scenes[name]])
            if not training:
                shapes = [[length - 2 * context for length in mask.shape] for _, mask in scenes[name]]
                repeated = np.concatenate([repeats(height, width, self.side) for height, width in shapes])
                masks[:, middle, middle][repeated] = IGNORED
            # Shuffled, so that the first tiles, which `train_examples` takes, are not all of one scene.
            order = permutation(key(self.split_seed, "order"), len(images))
            if training and self.background_share < 1:
                empty = torch.from_numpy(((masks == self.background) | (masks == IGNORED)).all((1, 2)))[order]
                order = order[~empty | (empty.cumsum(0) <= math.ceil(self.background_share * int(empty.sum())))]
            tiles = torch.from_numpy(images)[order]
            if self.facts["mean"] is None or self.facts["std"] is None:
                mean, std = statistics(tiles)
                self.facts |= {"mean": self.facts["mean"] or mean, "std": self.facts["std"] or std}
            split = self.splits[name] = MaskSplit(
                tiles,
                torch.from_numpy(masks)[order],
                mean=self.facts["mean"],
                std=self.facts["std"],
                context=context,
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
