"""The data sets that ship with the package. Provenance, licences, splits and baselines: docs/data.md."""

import hashlib
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zoo.data.arrays import ArrayDataModule, Arrays
from zoo.data.splits import stratified
from zoo.errors import ZooError
from zoo.randomness import key, permutation

FILES = Path(__file__).parent / "files"

# How many of the Köppen–Geiger classes 1 … 32 in earth_climate.png each main group has, in their order: Af Am As Aw,
# BSh … BWk, Cfa … Cwc, Dfa … Dwd, EF ET, Ocean. Tropical, arid, temperate, continental, polar.
MAIN_GROUPS = {"A": 4, "B": 4, "C": 9, "D": 12, "E": 2, "Ocean": 1}


def shipped(name: str, digest: str) -> io.BytesIO:
    """A file that ships with the package, whose SHA-256 begins with `digest`. ZooError where it is another, or gone."""
    path = FILES / name
    content = path.read_bytes() if path.is_file() else b""
    if not hashlib.sha256(content).hexdigest().startswith(digest):
        raise ZooError(f"{path} is {'damaged' if content else 'gone'}: install the zoo again, or restore this file.")
    return io.BytesIO(content)


class Digits(ArrayDataModule):
    """5,000 real MNIST digits, 500 a class: 3,600 train, 400 validation, 1,000 test, stratified."""

    def arrays(self) -> dict[str, Arrays]:
        with np.load(shipped("mnist_5k.npz", "f814240cf7e0d3cb")) as file:
            inputs, targets = _tensors(file["x"], file["y"])
        rest, test = stratified(targets, 1000, seed=self.split_seed)
        train, val = (rest[part] for part in stratified(targets[rest], 400, seed=self.split_seed))
        return {name: (inputs[part], targets[part]) for name, part in (("train", train), ("val", val), ("test", test))}


class Fashion(ArrayDataModule):
    """6,000 pictures of Fashion-MNIST: 4,500 train, 500 validation, stratified; the 1,000 test pictures are its own."""

    def arrays(self) -> dict[str, Arrays]:
        with np.load(shipped("fashion_mnist_5k_1k.npz", "5de05f4efcbb2713")) as file:
            inputs, targets = _tensors(file["x_train"], file["y_train"])
            test = _tensors(file["x_test"], file["y_test"])
        train, val = stratified(targets, 500, seed=self.split_seed)
        return {"train": (inputs[train], targets[train]), "val": (inputs[val], targets[val]), "test": test}


class Earth(ArrayDataModule):
    """The climate of a 32×32 tile of the Earth seen from space: tropical, arid, temperate, continental or polar.

    The map is cut into stripes of 12° of longitude that no tile crosses, so that the splits share no pixel. Every fifth
    stripe is test; three others are validation, drawn by `split_seed` so that each class gives it about a tenth. Folds
    are of whole stripes too, drawn so that each class is about evenly spread over them.
    """

    def folded_arrays(self) -> dict[str, Arrays]:
        return self.arrays()

    def arrays(self) -> dict[str, Arrays]:
        tiles = earth_tiles()
        order = permutation(key(self.split_seed, "order"), len(tiles[0]))  # else a split begins in the far north
        inputs, targets, stripes = (tensor[order] for tensor in tiles)
        test = stripes % 5 == 4
        others = stripes[~test].unique()
        sizes = torch.stack([torch.bincount(targets[stripes == stripe], minlength=5) for stripe in others])
        draws = torch.stack([permutation(key(self.split_seed, "split", draw), len(others)) for draw in range(200)])
        # the stripes of each part: three of them, or all by folds
        folds, fold = self.chosen_fold(len(others)) or (10, 0)
        parts = draws.tensor_split(folds, 1) if self.folds else (draws[:, :3],)
        # of each class in each part, (200, parts, 5)
        shares = torch.stack([sizes[part].sum(1) for part in parts], 1) / sizes.sum(0)
        val = torch.isin(stripes, others[parts[fold][(shares - 1 / folds).abs().amax((1, 2)).argmin()]])
        masks = {"train": ~test & ~val, "val": val, "test": test}
        return {name: (inputs[mask], targets[mask]) for name, mask in masks.items()}


def earth_tiles() -> tuple[Tensor, Tensor, Tensor]:
    """All tiles of one climate: uint8 (N, 3, 32, 32), its number (N,), the tile's 12° stripe of longitude (N,).

    Tiles start at multiples of 16 pixels and end north of 60° S; at least 80 % of a tile's pixels are of its group.
    """
    tile, stride, stripe, south = 32, 16, 180, 2250  # pixels, 15 to a degree
    with Image.open(shipped("earth.jpg", "10f5389b365d7ece")) as file:
        picture = np.asarray(file)
    with Image.open(shipped("earth_climate.png", "d1e36bae98382a56")) as file:
        climate = np.asarray(file)
    groups = len(MAIN_GROUPS)
    group_of = np.concatenate([[groups - 1], np.repeat(np.arange(groups), list(MAIN_GROUPS.values()))])
    # Count the pixels of each group in cells of stride × stride, then join 2 × 2 cells to a tile.
    down, right = south // stride, climate.shape[1] // stride
    labels = group_of[climate[: down * stride, : right * stride]]
    cell = (np.arange(down * stride) // stride)[:, None] * right + np.arange(right * stride) // stride
    counts = np.bincount((cell * groups + labels).ravel(), minlength=down * right * groups).reshape(down, right, groups)
    counts = counts[:-1] + counts[1:]
    counts = counts[:, :-1] + counts[:, 1:]  # (rows, columns, groups)
    group = counts.argmax(-1)
    left = np.arange(right - 1) * stride
    within = left // stripe == (left + tile - 1) // stripe
    row, column = np.nonzero((counts.max(-1) >= 0.8 * tile * tile) & (group < groups - 1) & within)
    windows = np.lib.stride_tricks.sliding_window_view(picture, (tile, tile), axis=(0, 1))
    tiles = np.ascontiguousarray(windows[row * stride, column * stride])
    return torch.from_numpy(tiles), torch.from_numpy(group[row, column]), torch.from_numpy(column * stride // stripe)


def _tensors(images: np.ndarray, labels: np.ndarray) -> Arrays:
    return torch.from_numpy(images)[:, None], torch.from_numpy(labels).long()
