"""A person's own pictures with a mask each, matched by name, with or without train/ val/ test/ above them.

    root/images/*.jpg  root/masks/*.png                        split by `split_seed` and the fractions
    root/train/images/…  root/train/masks/…  root/val/…  …     val or test, where absent, are split from train

Whole pictures are split, then cut into tiles, so that no picture is in two splits. Nothing is left out without a word:
a picture or a mask that cannot be used stops the run, by name.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from zoo.data.image_files import reason, traits
from zoo.data.mask_files import SPLITS, Pair, find_pairs, read_mask, read_picture
from zoo.data.own import OwnData, identify, listed, note
from zoo.data.splits import Folds
from zoo.data.tiles import IGNORED, MaskData, Scene, starts
from zoo.errors import ZooError

_SIDEWAYS = (5, 6, 7, 8)  # values of the EXIF tag Orientation, 0x0112, that swap height and width


class Head(NamedTuple):
    """What is known of a pair before its picture is decoded. Values are coded as by `_code`."""

    height: int
    width: int
    is_grey: bool
    values: frozenset[int]


@dataclass(kw_only=True, eq=False)
class MaskFolder(Folds, MaskData, OwnData):
    """Pictures of `root/images`, each with the mask in `root/masks` whose name is the picture's and `mask_suffix`.

    A mask's numbers (of a palette, its indices) are the classes 0 … K - 1; otherwise `class_values` lists the value of
    each class: numbers, or colours [red, green, blue]. `ignore_values` count nowhere, unless they are a class's. How
    many classes there are is told by `class_names` or `num_classes`, else by the masks.

    Tiles are kept in memory; where they need more than `memory_limit_mb` they are refused. `channels` None: 1 if every
    picture is stored as grey, else 3.
    """

    root: str | None = None
    mask_suffix: str = ""
    class_values: Sequence[int | Sequence[int]] | None = None
    ignore_values: Sequence[int | Sequence[int]] = (IGNORED,)
    memory_limit_mb: float = 2000

    def __post_init__(self) -> None:
        if self.channels not in (None, 1, 3):
            raise ValueError(f"channels={self.channels}: must be 1 (grey), 3 (colour) or null (as the files are)")
        self._colours = any(isinstance(value, Sequence) for value in self.class_values or ())
        self._classes = _codes("class_values", self.class_values or (), colours=self._colours)
        if self.class_values is not None and not 2 <= len(set(self._classes)) == len(self._classes) <= IGNORED:
            raise ValueError(f"class_values={self.class_values}: must be 2 to {IGNORED} values, each of them once")
        only_default = list(self.ignore_values) == [IGNORED] and self._colours
        ignored = () if only_default else self.ignore_values
        self._ignored = set(_codes("ignore_values", ignored, colours=self._colours)) - set(self._classes)
        super().__post_init__()

    def read(self) -> None:
        if self.root is None:
            raise ZooError("data.root=null: say where images and masks are, as in data.root=path/to/folder.")
        root = Path(self.root).expanduser()
        if not root.is_dir():
            raise ZooError(f"data.root={self.root}: {root.absolute()} is not a folder that can be read.")
        pairs = find_pairs(root, mask_suffix=self.mask_suffix)
        lines = [f"{path.relative_to(root).as_posix()}\t{path.stat().st_size}\n" for pair in pairs for path in pair[1:]]
        identify(self.facts, str(root), "".join(lines).encode("utf-8", "surrogateescape"))
        heads = self._heads(root, pairs)
        self._settle_classes(root, pairs, heads)
        if self.facts["channels"] is None:
            self.facts["channels"] = 1 if all(head.is_grey for head in heads) else 3
        self.state({"num_features": self.facts["channels"] * self.image_size**2})
        parts = self._parts(root, pairs)
        self._check_memory(parts, heads)
        scenes = self._scenes(root, pairs)
        self.keep({name: [scenes[index] for index in part] for name, part in parts.items()})
        sizes = ", ".join(f"{len(part)} {name} ({len(self.splits[name])} tiles)" for name, part in parts.items())
        names = self.facts["class_names"]
        note(f"{root}: {len(pairs)} pictures, {len(names)} classes ({listed(names)}); {sizes}.")
        shown = set().union(*(heads[index].values for index in parts.get("train", range(len(heads)))))
        if unseen := [name for name, value in zip(names, self._classes, strict=True) if value not in shown]:
            note(f"no training mask shows {listed(unseen)}.")

    def _heads(self, root: Path, pairs: Sequence[Pair]) -> list[Head]:
        """Sizes of the pictures and values of the masks; refuses what cannot be read or does not fit together."""

        def head(pair: Pair) -> Head | str:
            path, kind = pair.image, traits(pair.image)
            if isinstance(kind, str):
                return f"{path.relative_to(root)} ({kind})"
            try:
                with Image.open(path) as image:
                    width, height = image.size
                    if image.getexif().get(0x0112) in _SIDEWAYS:
                        width, height = height, width
                path = pair.mask
                values = read_mask(path, colours=self._colours)
            except Exception as error:  # decoders of damaged files raise nearly anything
                return f"{path.relative_to(root)} ({reason(error)})"
            if values.shape != (height, width):
                tall, wide = values.shape
                return f"{pair.mask.relative_to(root)} ({wide}×{tall} pixels, but its picture {width}×{height})"
            return Head(height, width, "grey" in kind, frozenset(np.unique(values).tolist()))

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            heads = list(pool.map(head, pairs))
        self._refuse([each for each in heads if isinstance(each, str)])
        return [each for each in heads if isinstance(each, Head)]

    def _refuse(self, bad: Sequence[str]) -> None:
        if bad:
            raise ZooError(
                f"data.root={self.root}: cannot use {listed(bad)}: put right files in their place, or remove "
                "picture and mask."
            )

    def _settle_classes(self, root: Path, pairs: Sequence[Pair], heads: Sequence[Head]) -> None:
        """Settle which values are which classes, and their names; refuses masks with other values."""
        found = sorted({value for head in heads for value in head.values} - self._ignored)
        stated = len(self.facts["class_names"] or ()) or self.facts["num_classes"]
        if not self._classes:
            self._classes = list(range(stated or len(found)))
            if not stated and (found != self._classes or not 2 <= len(found) <= IGNORED):
                values = listed([str(value) for value in found])
                raise ZooError(
                    f"data.root={self.root}: the masks hold {values} (and perhaps {IGNORED}, which is ignored), which "
                    "is not 0, 1, … without a gap: list the value of each class, as in data.class_values=[0,255], or "
                    "name all classes in data.class_names."
                )
        strange = [
            f"{pair.mask.relative_to(root)} ({listed([self._text(value) for value in sorted(unknown)])})"
            for pair, head in zip(pairs, heads, strict=True)
            if (unknown := head.values - set(self._classes) - self._ignored)
        ]
        if strange:
            classes, ignored = (
                listed([self._text(value) for value in codes]) for codes in (self._classes, sorted(self._ignored))
            )
            raise ZooError(
                f"data.root={self.root}: masks with unknown values: {listed(strange)}. Classes are {classes}, ignored "
                f"{ignored or 'none'}: mend the masks, or list the values in data.class_values or data.ignore_values."
            )
        names = self.facts["class_names"] or [self._text(value) for value in self._classes]
        self.state({"num_classes": len(self._classes), "class_names": names})
        if len(names) != len(self._classes):
            raise ZooError(f"data.class_names has {len(names)} names for {len(self._classes)} classes: name each.")

    def _text(self, code: int) -> str:
        return str([code >> 16, code >> 8 & 255, code & 255]) if self._colours else str(code)

    def _parts(self, root: Path, pairs: Sequence[Pair]) -> dict[str, list[int]]:
        """Which pictures are in which split."""
        of_split = {name: [i for i, pair in enumerate(pairs) if pair.split in (name, None)] for name in SPLITS}
        given = {name: part for name, part in of_split.items() if part and pairs[0].split}
        missing = [name for name in ("test", "val") if name not in given]
        if "train" in given and missing:
            note(f"{root} has no pictures for {' and '.join(missing)}: taken from train by data.split_seed.")
        if missing and ("train" in given or not given):
            whole = torch.tensor(of_split["train"])
            divided = self.divide(torch.zeros(len(whole), dtype=torch.int64), ["all pictures"], parts=missing)
            given |= {name: whole[part].tolist() for name, part in divided.items()}
        if "train" not in given and None in (self.facts["mean"], self.facts["std"]):
            raise ZooError(
                f"data.root={self.root}: holds pictures for validation or test but none in {root / 'train'}."
            )
        indices = {name: torch.tensor(given[name]) for name in SPLITS if name in given}
        refolded = self.refold(indices, torch.zeros(len(pairs), dtype=torch.int64), seed=self.split_seed)
        return {name: part.tolist() for name, part in refolded.items()}

    def _check_memory(self, parts: Mapping[str, Sequence[int]], heads: Sequence[Head]) -> None:
        size, tiles = self.image_size, 0
        for name, part in parts.items():
            for head in (heads[index] for index in part):
                down, right = (starts(n, self.side, self.stride(name)) for n in (head.height, head.width))
                tiles += len(down) * len(right)
        needed = tiles * size**2 * (self.facts["channels"] + 1 + 4 * bool(self.border_weight)) / 1e6
        if needed > self.memory_limit_mb:
            raise ZooError(
                f"data.memory_limit_mb={self.memory_limit_mb:g}: {tiles:,} tiles of {size}×{size} pixels take "
                f"{needed:,.1f} MB; allow as much if this machine has twice that, or make the pictures smaller."
            )

    def _scenes(self, root: Path, pairs: Sequence[Pair]) -> list[Scene]:
        def scene(pair: Pair) -> Scene | str:
            try:
                image = read_picture(pair.image, channels=self.facts["channels"])
            except Exception as error:  # decoders of damaged files raise nearly anything
                return f"{pair.image.relative_to(root)} ({reason(error)})"
            values = read_mask(pair.mask, colours=self._colours)
            mask = np.full(values.shape, IGNORED, np.uint8)
            for label, value in enumerate(self._classes):
                mask[values == value] = label
            return image, mask

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            scenes = list(pool.map(scene, pairs))
        self._refuse([each for each in scenes if isinstance(each, str)])
        return [each for each in scenes if not isinstance(each, str)]


def _codes(name: str, values: Sequence[int | Sequence[int]], *, colours: bool) -> list[int]:
    """Each value as one number: itself, or of a colour its 24 bits."""
    length, top = (3, 255) if colours else (1, 65535)
    kind = "colours such as [255,0,0]" if colours else "numbers from 0 to 65535, or class_values be colours"
    codes = []
    for value in values:
        parts = list(value) if isinstance(value, Sequence) else [value]
        right = isinstance(value, Sequence) == colours and len(parts) == length
        if not right or not all(isinstance(part, int) and 0 <= part <= top for part in parts):
            raise ValueError(f"{name}={values}: must be {kind}")
        codes.append(sum(part << shift for part, shift in zip(parts, (16, 8, 0), strict=True)) if colours else parts[0])
    return codes
