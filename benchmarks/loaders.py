"""The in-memory loader against torchvision's dataset and DataLoader, with the same augmentation.

python benchmarks/loaders.py

Both read the 3,600 training digits, shift by up to two pixels, mirror half of them, normalise, and make batches of 64.
Rounds alternate, an epoch each after one to warm up; the table gives medians.
"""

import struct
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from zoo.data.arrays import ArraySplit
from zoo.data.embedded import Digits
from zoo.data.loaders import Loader

BATCH, ROUNDS = 64, 7


def torchvision_loader(
    split: ArraySplit, mean: list[float], std: list[float], folder: Path, workers: int
) -> DataLoader:
    """The usual loader, over `split` written in MNIST's format."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    count, _, height, width = split.inputs.shape
    for part in ("train", "t10k"):
        header = struct.pack(">4i", 2051, count, height, width)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + split.inputs.numpy().tobytes())
        labels = split.targets.to(torch.uint8).numpy().tobytes()
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + labels)
    steps = [
        transforms.RandomCrop(height, padding=2),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(mean, std),
    ]
    dataset = datasets.MNIST(folder, transform=transforms.Compose(steps))
    return DataLoader(dataset, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)


def our_loader(workers: int) -> Loader:
    data = Digits(batch_size=BATCH, num_workers=workers, augment={"shift": 2, "flip": 0.5})
    data.setup()
    return data.train_dataloader()


def epoch_seconds(loader: Iterable) -> float:
    start = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - start


def main() -> None:
    torch.set_num_threads(1)
    data = Digits(batch_size=BATCH)
    data.setup()
    split = data.splits["train"]
    assert isinstance(split, ArraySplit)
    with tempfile.TemporaryDirectory() as folder:
        usual: Callable[[int], DataLoader] = partial(
            torchvision_loader, split, data.facts["mean"], data.facts["std"], Path(folder)
        )
        loaders: dict[str, Iterable] = {
            "in memory": our_loader(0),
            "in memory, 2 workers": our_loader(2),
            "torchvision": usual(0),
            "torchvision, 2 workers": usual(2),
        }
        seconds: dict[str, list[float]] = {name: [] for name in loaders}
        for round_ in range(ROUNDS + 1):
            for name, loader in loaders.items():
                if isinstance(loader, Loader):
                    loader.sampler.set_epoch(round_)
                took = epoch_seconds(loader)
                if round_:
                    seconds[name].append(took)
    best = median(seconds["in memory"])
    print(f"{'loader':24} {'images/s':>12} {'µs a batch':>12} {'in memory is faster by':>24}")
    for name, values in seconds.items():
        middle = median(values)
        batch = middle / -(-len(split) // BATCH) * 1e6
        print(f"{name:24} {len(split) / middle:12,.0f} {batch:12,.0f} {middle / best:23.1f}×")


if __name__ == "__main__":
    main()
