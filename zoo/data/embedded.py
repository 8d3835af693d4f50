"""The data sets that ship with the package. Provenance and licences: docs/data.md."""

from pathlib import Path

import numpy as np
import torch

from zoo.data.arrays import ArrayDataModule, Arrays, stratified

FILES = Path(__file__).parent / "files"


class Digits(ArrayDataModule):
    """5,000 real MNIST digits, 500 a class: 3,600 train, 400 validation, 1,000 test, stratified."""

    def arrays(self) -> dict[str, Arrays]:
        with np.load(FILES / "mnist_5k.npz") as file:
            inputs, targets = torch.from_numpy(file["x"])[:, None], torch.from_numpy(file["y"]).long()
        rest, test = stratified(targets, 1000, seed=self.split_seed)
        train, val = (rest[part] for part in stratified(targets[rest], 400, seed=self.split_seed))
        return {name: (inputs[part], targets[part]) for name, part in (("train", train), ("val", val), ("test", test))}
