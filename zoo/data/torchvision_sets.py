"""MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100: found or downloaded by torchvision, then kept in memory."""

import io
import zlib
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar

import numpy as np
import torch
from torchvision import datasets

from zoo.data.arrays import ArrayDataModule, Arrays
from zoo.data.splits import stratified
from zoo.errors import ZooError


@dataclass(kw_only=True, eq=False)
class _TorchvisionSet(ArrayDataModule):
    """The official training part, less `val_size` stratified examples for validation, and the official test part.

    `root` is the folder of torchvision's datasets. Files in place are used; absent ones are downloaded.
    """

    root: str = "downloads"
    val_size: int = 5000
    source: ClassVar[type[datasets.VisionDataset]]
    instead: ClassVar[str] = "digits"  # the embedded set to take where there is no network

    def arrays(self) -> dict[str, Arrays]:
        (inputs, targets), test = self._part(train=True), self._part(train=False)
        if not 1 <= self.val_size < len(targets):
            raise ValueError(f"val_size={self.val_size}: must be from 1 to {len(targets) - 1}")
        train, val = stratified(targets, self.val_size, seed=self.split_seed)
        return {"train": (inputs[train], targets[train]), "val": (inputs[val], targets[val]), "test": test}

    def files(self) -> tuple[Path, list[str]]:
        """The folder, and the files in it, that torchvision reads."""
        raise NotImplementedError

    def _part(self, *, train: bool) -> Arrays:
        try:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                part: Any = self.source(self.root, train=train, download=True)
        except (OSError, RuntimeError, ValueError, AssertionError, EOFError, UnpicklingError, zlib.error) as error:
            folder, names = self.files()
            reason = " ".join(str(error).split())[:100] or type(error).__name__
            raise ZooError(
                f"{self.source.__name__} is not in {self.root}, or is damaged, and could not be downloaded: {reason}\n"
                f"Put {', '.join(names)} into {folder} (remove damaged files first),\n"
                f"or use an embedded set: data={self.instead}"
            ) from error
        if not set(np.unique(part.targets).tolist()) <= {*range(len(part.classes))}:
            raise ZooError(
                f"{self.source.__name__} in {self.root} is damaged: it has classes beyond the {len(part.classes)}."
            )
        if not self.facts["class_names"]:
            self.facts["class_names"] = list(part.classes)
        images = torch.as_tensor(np.asarray(part.data))
        images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
        return images, torch.as_tensor(part.targets, dtype=torch.int64)


class MNIST(_TorchvisionSet):
    """60,000 + 10,000 handwritten digits, 28×28 grey (LeCun, Cortes, Burges)."""

    source = datasets.MNIST

    def files(self) -> tuple[Path, list[str]]:
        names = [Path(name).stem for name, _ in self.source.resources]
        return Path(self.root, self.source.__name__, "raw"), names


class FashionMNIST(MNIST):
    """60,000 + 10,000 pictures of clothes, 28×28 grey (Xiao, Rasul, Vollgraf 2017, 1708.07747)."""

    source = datasets.FashionMNIST
    instead = "fashion"


class CIFAR10(_TorchvisionSet):
    """50,000 + 10,000 photographs, 32×32 colour, 10 classes (Krizhevsky 2009).

    The files are pickles, which can run code when they are read, so torchvision's checksums are required of them.
    """

    source = datasets.CIFAR10
    instead = "earth"

    def files(self) -> tuple[Path, list[str]]:
        return Path(self.root), [self.source.filename]


class CIFAR100(CIFAR10):
    """50,000 + 10,000 photographs, 32×32 colour, 100 classes (Krizhevsky 2009)."""

    source = datasets.CIFAR100
