"""torchvision's files, tiny ones of the same form: used where they are, asked for by name where they are not."""

import gzip
import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from zoo.data.arrays import ArraySplit
from zoo.data.torchvision_sets import CIFAR10, CIFAR100, MNIST, FashionMNIST
from zoo.errors import ZooError

CLOSED = "http://127.0.0.1:9/"  # the discard port: refuses at once


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for source in (datasets.MNIST, datasets.FashionMNIST):
        monkeypatch.setattr(source, "mirrors", [CLOSED])
    for cifar in (datasets.CIFAR10, datasets.CIFAR100):
        monkeypatch.setattr(cifar, "url", CLOSED + cifar.filename)


def write_idx(folder: Path, train: int = 100, test: int = 20) -> None:
    """The four files of MNIST: big-endian headers, then bytes."""
    folder.mkdir(parents=True)
    for part, count in (("train", train), ("t10k", test)):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, 28, 28) + pixels.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + labels.tobytes())


def write_cifar(root: Path, source: type[datasets.CIFAR10], monkeypatch: pytest.MonkeyPatch) -> None:
    """The pickled batches and names of CIFAR, whose checksums torchvision is made to expect."""
    folder = root / source.base_folder
    folder.mkdir(parents=True)
    hundred = source is datasets.CIFAR100
    classes, key = (100, "fine_labels") if hundred else (10, "labels")

    def write(name: str, content: dict[str, object]) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    for attribute in ("train_list", "test_list"):
        entries = []
        for seed, (name, _) in enumerate(getattr(source, attribute)):
            pixels = np.random.default_rng(seed).integers(0, 256, (2 * classes, 3072), dtype=np.uint8)
            labels = [i % classes for i in range(2 * classes)]
            entries.append([name, write(name, {"data": pixels, key: labels})])
        monkeypatch.setattr(source, attribute, entries)
    names: dict[str, object] = {source.meta["key"]: [f"name {i}" for i in range(classes)]}
    monkeypatch.setattr(source, "meta", source.meta | {"md5": write(source.meta["filename"], names)})


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
def test_mnist_files_in_place_are_used_whatever_their_checksum(kind: type[MNIST], tmp_path: Path) -> None:
    write_idx(tmp_path / kind.__name__ / "raw")
    data = kind(root=str(tmp_path), val_size=30)
    data.setup()
    assert [len(data.splits[part]) for part in ("train", "val", "test")] == [70, 30, 20]
    train, val, test = (data.splits[part] for part in ("train", "val", "test"))
    assert isinstance(train, ArraySplit)
    assert isinstance(val, ArraySplit)
    assert isinstance(test, ArraySplit)
    assert torch.bincount(val.targets).tolist() == [3] * 10
    pixels = np.random.default_rng(20).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    np.testing.assert_array_equal(test.inputs[:, 0].numpy(), pixels)
    assert test.targets.tolist() == [i % 10 for i in range(20)]
    every = {row.tobytes() for part in (train, val) for row in part.inputs.numpy()}
    assert every == {
        row.tobytes() for row in np.random.default_rng(100).integers(0, 256, (100, 28, 28), dtype=np.uint8)
    }
    assert data.facts["num_features"] == 784
    assert len(data.facts["class_names"]) == data.facts["num_classes"] == 10
    assert next(iter(data.train_dataloader()))["input"].shape == (64, 1, 28, 28)


@pytest.mark.parametrize("kind", [CIFAR10, CIFAR100])
def test_cifar_files_in_place_are_used(kind: type[CIFAR10], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = kind.source
    assert issubclass(source, datasets.CIFAR10)
    write_cifar(tmp_path, source, monkeypatch)
    data = kind(root=str(tmp_path), val_size=50)
    data.setup()
    classes = 100 if kind is CIFAR100 else 10
    assert data.facts["channels"] == 3
    assert data.facts["num_classes"] == classes
    assert data.facts["class_names"] == [f"name {i}" for i in range(classes)]
    test = data.splits["test"]
    assert isinstance(test, ArraySplit)
    pixels = np.random.default_rng(0).integers(0, 256, (2 * classes, 3072), dtype=np.uint8)
    np.testing.assert_array_equal(test.inputs.numpy().reshape(len(test), -1), pixels)  # red, green, blue planes
    assert test.inputs.is_contiguous()
    assert len(data.splits["val"]) == 50
    assert len(data.splits["train"]) == 2 * classes * len(source.train_list) - 50


def test_a_missing_mnist_says_which_files_go_where(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZooError) as caught:
        MNIST(root=str(tmp_path / "nowhere")).setup()
    text = str(caught.value)
    assert str(tmp_path / "nowhere" / "MNIST" / "raw") in text
    for name in (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ):
        assert name in text
    assert "data=digits" in text
    assert len(text.splitlines()) <= 3
    assert capfd.readouterr() == ("", "")
    # What it says to do is what helps.
    (tmp_path / "nowhere" / "MNIST" / "raw").rmdir()
    write_idx(tmp_path / "nowhere" / "MNIST" / "raw")
    MNIST(root=str(tmp_path / "nowhere"), val_size=10).setup()


@pytest.mark.parametrize(
    ("kind", "archive", "instead"),
    [(CIFAR10, "cifar-10-python.tar.gz", "data=earth"), (CIFAR100, "cifar-100-python.tar.gz", "data=earth")],
)
def test_a_missing_cifar_says_which_archive_goes_where(
    kind: type[CIFAR10], archive: str, instead: str, tmp_path: Path
) -> None:
    with pytest.raises(ZooError) as caught:
        kind(root=str(tmp_path)).setup()
    text = str(caught.value)
    assert f"{archive} into {tmp_path}" in text
    assert instead in text
    assert len(text.splitlines()) <= 3


def test_a_cifar_pickle_with_a_wrong_checksum_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "opened",)  # type: ignore[return-value]

    write_cifar(tmp_path, datasets.CIFAR10, monkeypatch)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ZooError, match="CIFAR10"):
        CIFAR10(root=str(tmp_path), val_size=10).setup()
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_damaged_files_are_reported_in_a_sentence(damage: str, tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    write_idx(raw)
    victim = raw / "train-images-idx3-ubyte"
    content = victim.read_bytes()
    victim.write_bytes({"cut": content[:-100], "empty": b"", "other": gzip.compress(content)}[damage])
    with pytest.raises(ZooError, match=r"(?s)FashionMNIST.*remove damaged.*data=fashion"):
        FashionMNIST(root=str(tmp_path), val_size=10).setup()


def test_a_validation_part_larger_than_the_data_is_refused(tmp_path: Path) -> None:
    write_idx(tmp_path / "MNIST" / "raw")
    for size in (0, 100):
        with pytest.raises(ValueError, match=f"val_size={size}: must be from 1 to 99"):
            MNIST(root=str(tmp_path), val_size=size).setup()
