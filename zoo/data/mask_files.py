"""Pictures and masks as files: finding the pairs in folders, and reading both at their full size."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from zoo.data.image_files import SPLIT_NAMES, Scan, prepare, to_array
from zoo.data.own import listed, note
from zoo.errors import ZooError

SPLITS = ("train", "val", "test")


class Pair(NamedTuple):
    split: str | None  # None: not split yet
    image: Path
    mask: Path


def find_pairs(root: Path, *, mask_suffix: str) -> list[Pair]:
    """The pictures and masks of each split, matched by name."""
    entries = [entry for entry in Scan().subfolders(root) if _has_images(entry)]
    folders = {entry: SPLIT_NAMES.get(entry.name.lower()) for entry in entries}
    for folder in [folder for folder, split in folders.items() if split is None]:
        note(f"{folder} is none of train, val, test: left out.")
        del folders[folder]
    if _has_images(root) == bool(folders):
        what = f"both {root / 'images'} and {next(iter(folders)) / 'images'}" if folders else "no folder images"
        raise ZooError(
            f"data.root={root}: has {what}; it must hold images/ and masks/, "
            "or train/images/, train/masks/ and perhaps val/ and test/ alike."
        )
    pairs: list[Pair] = []
    for folder, split in (folders or {root: None}).items():
        images, masks = _by_name(folder / "images", ""), _by_name(folder / "masks", mask_suffix)
        alone = [str(path.relative_to(root)) for name, path in images.items() if name not in masks]
        unused = [str(path.relative_to(root)) for name, path in masks.items() if name not in images]
        problems = [f"pictures without a mask: {listed(alone)}"] if alone else []
        problems += [f"masks without a picture: {listed(unused)}"] if unused else []
        if problems:
            ending = f"{mask_suffix}.png" if mask_suffix else ".png"
            raise ZooError(
                f"data.root={root}: {'; '.join(problems)}. The mask of images/a.jpg is masks/a{ending} "
                "(data.mask_suffix names what masks add): add what is missing, or remove its partner."
            )
        if not images:
            raise ZooError(f"data.root={root}: {folder / 'images'} holds no image.")
        pairs += [Pair(split, path, masks[name]) for name, path in sorted(images.items())]
    return pairs


def _has_images(folder: Path) -> bool:
    return (folder / "images").is_dir()


def _by_name(folder: Path, suffix: str) -> dict[str, Path]:
    """The images in a folder and those in it, by relative path without ending and `suffix`."""
    if not folder.is_dir():
        raise ZooError(f"{folder} does not exist: masks lie in a folder masks beside images, with the same names.")
    found = Scan()
    found.add(folder, None, None)
    if found.others:
        note(f"{found.others} files in {folder} are not images by their names: left out.")
    named: dict[str, Path] = {}
    for path in sorted(item.path for item in found.images):
        name = path.relative_to(folder).with_suffix("").as_posix()
        name = name.removesuffix(suffix) if name.endswith(suffix) else f"{name} without {suffix}"
        if name in named:
            raise ZooError(f"{named[name]} and {path} have the same name: keep one of them.")
        named[name] = path
    return named


def read_mask(path: Path, *, colours: bool) -> np.ndarray:
    """The values of a mask, int32 (H, W): indices and numbers as they are, or with `colours` 24 bits of each pixel."""
    with Image.open(path) as file:
        if file.format == "JPEG":
            raise ValueError("a JPEG does not keep a mask's values, save it as PNG")
        _refuse_stack(file)
        image = ImageOps.exif_transpose(file)
        pixels = np.asarray(image.convert("RGB") if colours else image)
    if colours:
        return pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    if pixels.ndim == 3:
        bands = pixels[..., :3] if pixels.shape[2] > 2 else pixels[..., :1]  # without transparency
        if (bands != bands[..., :1]).any():
            raise ValueError("its pixels are colours, list those of the classes as data.class_values=[[0,0,0],…]")
        pixels = bands[..., 0]
    if not np.can_cast(pixels.dtype, np.int64):
        raise ValueError("its pixels are not whole numbers")
    return pixels.astype(np.int32)


def read_picture(path: Path, *, channels: int) -> np.ndarray:
    """A whole picture, uint8 (channels, H, W), prepared as `zoo.data.image_files` says but for its size."""
    with Image.open(path) as file:
        _refuse_stack(file)
        return to_array(prepare(file, channels=channels))


def _refuse_stack(file: Image.Image) -> None:
    # a phone's MPO has a preview behind its picture; of a microscope's stack all but the first would be lost
    if getattr(file, "n_frames", 1) > 1 and file.format != "MPO":
        raise ValueError("several pictures in one file, save each as a file of its own")
