"""What a batch costs before it reaches the network.

Our loaders against the usual `Dataset` and `DataLoader` written by hand, with the same augmentation and the same
batches: digits in memory (3,600, shifted and mirrored, batches of 64; torchvision's MNIST), image files (1,200 JPEG of
96 pixels, two workers; torchvision's ImageFolder), text (32 windows of 128 characters), pictures with masks (in memory,
mirrored both ways). An epoch each in every round, after one to warm up; medians. A text loader must never be what
training waits for: its share of a step of the LSTM that reads its batches is in the bars.
"""

import statistics
import struct
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms, tv_tensors
from torchvision.transforms import v2

from benchmarks.harness import CASES
from benchmarks.record import Bar, Options, Part, ratio
from benchmarks.running import Workload
from zoo.data.earth_masks import EarthSegmentation
from zoo.data.embedded import Digits
from zoo.data.image_folder import ImageFolder
from zoo.data.text import MobyDick

LSTM = "character LSTM 256, 32×128 letters"
Pair = tuple[Iterable[Any], Iterable[Any]]


class Windows(Dataset):
    """Character windows the usual way: one example at a time."""

    def __init__(self, tokens: Tensor, length: int) -> None:
        self.tokens, self.length = tokens, length

    def __len__(self) -> int:
        return (len(self.tokens) - 1) // self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        window = self.tokens[index * self.length : (index + 1) * self.length + 1]
        return window[:-1], window[1:]


class Masked(Dataset):
    """Pictures with masks the usual way, transformed together by torchvision's v2."""

    def __init__(self, images: Tensor, masks: Tensor, transform: Any) -> None:
        self.images, self.masks, self.transform = images, masks, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = self.transform(tv_tensors.Image(self.images[index]), tv_tensors.Mask(self.masks[index]))
        return image, mask.long()


def digits(folder: Path, *, quick: bool) -> dict[str, Pair]:
    usual: list[Any] = []
    ours: list[Any] = []
    for workers in (0,) if quick else (0, 2):
        data = Digits(batch_size=64, num_workers=workers, augment={"shift": 2, "flip": 0.5})
        data.setup()
        split: Any = data.splits["train"]
        raw = folder / "MNIST" / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        for part in ("train", "t10k"):
            header = struct.pack(">4i", 2051, len(split), 28, 28)
            (raw / f"{part}-images-idx3-ubyte").write_bytes(header + split.inputs.numpy().tobytes())
            labels = split.targets.to(torch.uint8).numpy().tobytes()
            (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, len(split)) + labels)
        steps = [
            transforms.RandomCrop(28, padding=2),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(data.facts["mean"], data.facts["std"]),
        ]
        dataset = datasets.MNIST(folder, transform=transforms.Compose(steps))
        usual.append(DataLoader(dataset, 64, shuffle=True, num_workers=workers, persistent_workers=workers > 0))
        ours.append(data.train_dataloader())
    names = ("digits in memory", "digits, 2 workers")
    return dict(zip(names, zip(ours, usual, strict=True), strict=False))


def image_files(folder: Path, *, quick: bool) -> dict[str, Pair]:
    draw = np.random.default_rng(0)
    for number in range(40 if quick else 1200):
        place = folder / "ab"[number % 2]
        place.mkdir(exist_ok=True)
        coarse = Image.fromarray(draw.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        coarse.resize((96, 96), Image.Resampling.BICUBIC).save(place / f"{number}.jpg", quality=90)
    workers = 0 if quick else 2
    data = ImageFolder(
        root=str(folder),
        image_size=64,
        batch_size=64,
        num_workers=workers,
        augment={"flip": 0.5},
        memory_limit_mb=0,  # from the files, as sets are that do not fit in memory
        val_fraction=0.05,
        test_fraction=0.05,
    )
    data.setup()
    steps = [
        transforms.Resize(64),
        transforms.CenterCrop(64),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(data.facts["mean"], data.facts["std"]),
    ]
    chosen = torch.utils.data.Subset(
        datasets.ImageFolder(str(folder), transforms.Compose(steps)), range(data.size("train"))
    )
    usual = DataLoader(chosen, 64, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    return {f"image files, {workers} workers": (data.train_dataloader(), usual)}


def text(folder: Path, *, quick: bool) -> dict[str, Pair]:
    data = MobyDick(batch_size=32, sequence_length=128)
    data.setup()
    usual = DataLoader(Windows(data.tokens["train"], 128), 32, shuffle=True, drop_last=True)
    return {"text": (data.train_dataloader(), usual)}


def masks(folder: Path, *, quick: bool) -> dict[str, Pair]:
    data = EarthSegmentation(batch_size=32, augment={"flip": 0.5, "flip_vertical": 0.5})
    data.setup()
    split: Any = data.splits["train"]
    steps = [
        v2.RandomHorizontalFlip(),
        v2.RandomVerticalFlip(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(split.mean, split.std),
    ]
    usual = DataLoader(Masked(split.images, split.masks, v2.Compose(steps)), 32, shuffle=True)
    return {"pictures with masks": (data.train_dataloader(), usual)}


def an_epoch(loader: Iterable[Any], number: int) -> float:
    """Milliseconds a batch."""
    if hasattr(loader, "sampler") and hasattr(loader.sampler, "set_epoch"):
        loader.sampler.set_epoch(number)
    start, count = time.perf_counter(), 0
    for _ in loader:
        count += 1
    return (time.perf_counter() - start) / count * 1e3


def measure(options: Options) -> Part:
    part = Part(("data", "ours, batches/s", "by hand, batches/s", "times as fast"))
    cost: dict[str, float] = {}
    least = {"digits in memory": 5.0}
    for make in (digits, image_files, text, masks):
        with tempfile.TemporaryDirectory() as folder:
            pairs = make(Path(folder), quick=options.quick)
            for name, pair in pairs.items():
                rounds = range(options.repeat(5) + 1)
                times = [[an_epoch(loader, number) for loader in pair] for number in rounds][1:]
                ours, usual = (list(column) for column in zip(*times, strict=True))
                cost[name] = statistics.median(ours)
                by = ratio(usual, ours)
                part.add(name, 1e3 / cost[name], 1e3 / statistics.median(usual), by)
                part.hold(Bar(f"{name}: times as fast as by hand", by, least.get(name, 1.0), at_least=True))
            del pairs, pair
    case = CASES[LSTM]
    workload = Workload(f"{case.words} {case.quick if options.quick else ''}".split())
    workload.by_hand(case.start, epochs=2, steps=4 if options.quick else 30, warm_up=4)
    at = workload.times(1)
    step = (at[-1] - at[0]) / (len(at) - 1) * 1e3
    part.hold(Bar("text: share of a step of the LSTM that the loader takes", cost["text"] / step, 0.05))
    return part
