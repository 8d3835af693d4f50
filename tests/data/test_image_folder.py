"""A person's own images: the layouts, how a file becomes an array, and every sentence about what cannot be used."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import zoo.data.image_folder
from zoo.data.arrays import ArraySplit
from zoo.data.image_files import FileSplit, decode, decode_all
from zoo.data.image_folder import ImageFolder
from zoo.errors import ZooError

SIZE = 12


def picture(seed: int, height: int = 20, width: int = 30, channels: int = 3) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


def fill(folder: Path, count: int = 10, channels: int = 3, first: int = 0) -> None:
    folder.mkdir(parents=True)
    for number in range(first, first + count):
        picture(number, 14 + number % 5, 14 + number % 7, channels).save(folder / f"{number:03}.png")


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Twenty cats and ten dogs, in colour, of several sizes."""
    fill(tmp_path / "data" / "dog", 10, first=100)
    fill(tmp_path / "data" / "cat", 20)
    return tmp_path / "data"


def read(root: Path, **options: Any) -> ImageFolder:
    data = ImageFolder(root=str(root), **{"image_size": SIZE, **options})
    data.setup()
    return data


def refusal(root: Path, **options: Any) -> str:
    with pytest.raises(ZooError) as raised:
        read(root, **options)
    assert str(raised.value).count("\n") < 3
    return str(raised.value)


def everything(data: ImageFolder, split: str, epoch: int = 0) -> dict[str, torch.Tensor]:
    size = torch.arange(len(data.splits[split]))
    return data.splits[split].batch(epoch, size, size)


def sizes(data: ImageFolder) -> dict[str, int]:
    return {name: len(split) for name, split in data.splits.items()}


def pixels(data: ImageFolder, split: str) -> torch.Tensor:
    """The images of a split as they were before normalising, uint8."""
    mean, std = (torch.tensor(data.facts[name])[:, None, None] for name in ("mean", "std"))
    return ((everything(data, split)["input"] * std + mean) * 255).round().to(torch.uint8)


def test_class_folders_are_split_by_seed_and_stratified(classes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = read(classes)
    assert sizes(data) == {"train": 21, "val": 3, "test": 6}
    assert {name: int(everything(data, name)["target"].sum()) for name in sizes(data)} == {
        "train": 7,
        "val": 1,
        "test": 2,
    }
    assert data.facts["class_names"] == ["cat", "dog"]
    stated = {name: data.facts[name] for name in ("channels", "image_size", "num_features", "num_classes")}
    assert stated == {"channels": 3, "image_size": SIZE, "num_features": 3 * SIZE**2, "num_classes": 2}
    batch = everything(data, "train")
    assert (batch["input"].dtype, batch["target"].dtype) == (torch.float32, torch.int64)
    # Every image is in one split, with its own class.
    found = {
        image.numpy().tobytes(): int(target)
        for name in data.splits
        for image, target in zip(pixels(data, name), everything(data, name)["target"], strict=True)
    }
    paths = sorted(classes.rglob("*.png"))
    expected = {decode(path, channels=3, image_size=SIZE).tobytes(): int(path.parent.name == "dog") for path in paths}
    assert found == expected
    assert len(found) == 30
    assert not torch.equal(batch["input"], everything(read(classes, split_seed=1), "train")["input"])
    assert "30 images in 2 classes (cat, dog), colour; 21 train, 3 val, 6 test." in capsys.readouterr().err


def test_statistics_are_those_of_the_training_images(classes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = read(classes)
    train = pixels(data, "train").double() / 255
    assert data.facts["mean"] == [round(x, 4) for x in train.mean((0, 2, 3)).tolist()]
    assert data.facts["std"] == [round(x, 4) for x in train.std((0, 2, 3), correction=0).tolist()]
    monkeypatch.setattr(zoo.data.image_folder, "_STATISTICS_FROM", 5)
    few = read(classes)
    assert few.facts["mean"] != data.facts["mean"]
    assert read(classes, memory_limit_mb=0).facts == few.facts


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Train", "valid", "TEST"), ("train", "validation", "test")]
)
def test_folders_of_splits_are_kept_apart(tmp_path: Path, names: tuple[str, str, str]) -> None:
    for place, name in enumerate(names):
        for label in ("ant", "bee"):
            fill(tmp_path / name / label, 3 + place, first=10 * place)
    data = read(tmp_path)
    assert sizes(data) == {"train": 6, "val": 8, "test": 10}
    assert everything(data, "val")["target"].tolist() == [0] * 4 + [1] * 4
    expected = [decode(path, channels=3, image_size=SIZE) for path in sorted((tmp_path / names[1]).rglob("*.png"))]
    assert np.array_equal(pixels(data, "val").numpy(), np.stack(expected))


@pytest.mark.parametrize("absent", [("val",), ("test",), ("val", "test")])
def test_an_absent_split_is_taken_from_train(
    tmp_path: Path, absent: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in {"train", "val", "test"} - set(absent):
        fill(tmp_path / name / "ant", 20 if name == "train" else 3)
        fill(tmp_path / name / "bee", 20 if name == "train" else 3)
    given = {"train": 40, "val": 6, "test": 6} | {name: {"val": 4, "test": 8}[name] for name in absent}
    given["train"] = 40 - sum(given[name] for name in absent)
    assert sizes(read(tmp_path)) == given
    missing = " and ".join(name for name in ("test", "val") if name in absent)
    assert f"has no images for {missing}: taken from train by data.split_seed." in capsys.readouterr().err


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("car", "plane", "train"):
        fill(tmp_path / name)
    assert read(tmp_path).facts["class_names"] == ["car", "plane", "train"]


def test_folders_beside_train_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train/ant", "train/bee", "extra/ant"):
        fill(tmp_path / name)
    assert sum(sizes(read(tmp_path)).values()) == 20
    assert f"{tmp_path / 'extra'} is none of train, val, test: left out." in capsys.readouterr().err


def test_images_in_folders_of_a_class_folder_belong_to_it(classes: Path) -> None:
    fill(classes / "cat" / "black" / "2024", 6, first=50)
    assert sum(sizes(read(classes)).values()) == 36


@pytest.mark.parametrize("limit", [1000, 0])
def test_without_labels_every_image_is_used(tmp_path: Path, limit: int) -> None:
    fill(tmp_path / "flat")
    assert "make one folder per class in it, such as" in refusal(tmp_path / "flat")
    data = read(tmp_path / "flat", labels=False, memory_limit_mb=limit, augment={"flip": 0.5})
    assert sizes(data) == {"train": 7, "val": 1, "test": 2}
    assert (data.facts["class_names"], data.facts["num_classes"]) == (None, None)
    assert set(everything(data, "train")) == {"input", "position"}
    plain = data.loader("train")  # evaluation takes augmentation off, and leaves training's on
    assert not torch.equal(next(iter(plain))["input"], everything(data, "train")["input"])
    assert data.splits["train"].augment is not None
    assert sizes(read(tmp_path, labels=False)) == {"train": 7, "val": 1, "test": 2}


def test_memory_and_files_give_the_same_batches(classes: Path) -> None:
    options: dict[str, Any] = {"augment": {"shift": 2, "flip": 0.5, "noise": 0.1}, "batch_size": 8, "seed": 3}
    memory, files = read(classes, **options), read(classes, memory_limit_mb=0, num_workers=2, **options)
    assert isinstance(memory.splits["train"], ArraySplit)
    assert isinstance(files.splits["train"], FileSplit)
    assert memory.facts == files.facts
    for split in ("train", "val", "test"):
        loaders = [data.loader(split, training=split == "train") for data in (memory, files)]
        for loader in loaders:
            loader.sampler.set_epoch(2)
        for one, two in zip(*loaders, strict=True):
            assert one.keys() == two.keys()
            for name in one:
                assert torch.equal(one[name], two[name])
    assert not torch.equal(everything(files, "train", 0)["input"], everything(files, "train", 1)["input"])
    assert torch.equal(everything(files, "test", 0)["input"], everything(files, "test", 1)["input"])


def test_the_memory_limit_counts_decoded_bytes(classes: Path) -> None:
    megabytes = 30 * 3 * SIZE**2 / 1e6
    assert isinstance(read(classes, memory_limit_mb=megabytes).splits["train"], ArraySplit)
    assert isinstance(read(classes, memory_limit_mb=megabytes - 1e-6).splits["train"], FileSplit)


def save_as(image: Image.Image, path: Path, **options: Any) -> np.ndarray:
    image.save(path, **options)
    return decode(path, channels=3, image_size=image.height)


def test_every_kind_of_pixel_is_decoded(tmp_path: Path) -> None:
    colour = picture(0, 8, 8)
    expected = np.asarray(colour).transpose(2, 0, 1)
    assert np.array_equal(save_as(colour, tmp_path / "a.png"), expected)
    palette = colour.quantize(16)
    assert np.array_equal(save_as(palette, tmp_path / "b.png"), np.asarray(palette.convert("RGB")).transpose(2, 0, 1))
    sixteen = np.random.default_rng(0).integers(0, 2**16, (8, 8), dtype=np.uint16)
    assert np.array_equal(save_as(Image.fromarray(sixteen), tmp_path / "c.png"), np.stack([sixteen // 256] * 3))
    grey = decode(tmp_path / "c.png", channels=1, image_size=8)
    assert np.array_equal(grey, sixteen[None] // 256)
    black = Image.fromarray(np.eye(8, dtype=bool))
    assert np.array_equal(save_as(black, tmp_path / "d.png"), np.stack([255 * np.eye(8, dtype=np.uint8)] * 3))
    luma = decode(tmp_path / "a.png", channels=1, image_size=8).astype(float)
    assert np.abs(luma[0] - np.tensordot([0.299, 0.587, 0.114], expected, 1)).max() < 1


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    pixels = np.asarray(picture(0, 8, 8, 4)).copy()
    pixels[:4, :, 3], pixels[4, :, 3] = 0, 255
    found = save_as(Image.fromarray(pixels), tmp_path / "a.png").transpose(1, 2, 0).astype(float)
    alpha = pixels[..., 3:] / 255
    assert np.abs(found - (alpha * pixels[..., :3] + (1 - alpha) * 255)).max() <= 1
    assert (found[:4] == 255).all()
    palette = picture(1, 8, 8).quantize(4)
    first = np.asarray(palette) == 0
    assert (save_as(palette, tmp_path / "b.png", transparency=0)[:, first] == 255).all()


def test_images_are_turned_as_exif_says(tmp_path: Path) -> None:
    image = picture(0, 8, 8)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    expected = np.rot90(np.asarray(image), -1).transpose(2, 0, 1)
    assert np.array_equal(save_as(image, tmp_path / "a.png", exif=exif), expected)


@pytest.mark.parametrize(("height", "width"), [(40, 40), (40, 90), (80, 40), (5, 300), (1, 1)])
def test_the_centred_square_is_resized_with_antialiasing(tmp_path: Path, height: int, width: int) -> None:
    """Against torchvision: the short side resized, then cut; alike but for where the cut falls between pixels."""
    from torchvision.transforms import v2

    smooth = np.add.outer(np.arange(height) / height, np.arange(width) / width) / 2 * 255
    image = Image.fromarray(np.stack([smooth, 255 - smooth, smooth / 2], -1).astype(np.uint8))
    found = save_as_size(image, tmp_path / "a.png", 10)
    whole = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
    expected = v2.functional.center_crop(v2.functional.resize(whole, [10], antialias=True), [10, 10])
    assert found.shape == (3, 10, 10)
    assert np.abs(found.astype(int) - expected.numpy().astype(int)).max() <= 3


def save_as_size(image: Image.Image, path: Path, size: int) -> np.ndarray:
    image.save(path)
    return decode(path, channels=3, image_size=size)


def test_fine_stripes_become_grey(tmp_path: Path) -> None:
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (64, 32)))
    for name in ("a.png", "a.jpg"):
        assert np.abs(save_as_size(stripes, tmp_path / name, 8).astype(int) - 127).max() < 12


def test_grey_is_one_channel_only_if_all_are(tmp_path: Path) -> None:
    fill(tmp_path / "a", channels=1)
    fill(tmp_path / "b", channels=1)
    data = read(tmp_path)
    assert (data.facts["channels"], len(data.facts["mean"])) == (1, 1)
    assert everything(data, "val")["input"].shape == (2, 1, SIZE, SIZE)
    assert read(tmp_path, channels=3).facts["channels"] == 3
    picture(0).save(tmp_path / "a" / "colour.png")
    assert read(tmp_path).facts["channels"] == 3
    assert read(tmp_path, channels=1).facts["num_features"] == SIZE**2


def spoil(root: Path) -> None:
    """One truncated file, one text, one empty file, an image in no class, an empty class, and other files."""
    whole = root / "whole.jpg"
    picture(7, 60, 60).save(whole)
    (root / "cat" / "truncated.jpg").write_bytes(whole.read_bytes()[:900])
    whole.unlink()
    (root / "cat" / "text.png").write_text("not an image")
    (root / "dog" / "empty.gif").touch()
    (root / "dog" / "gone.png").symlink_to(root / "nowhere.png")
    picture(1).save(root / "loose.png")
    (root / "owl").mkdir()
    (root / "notes.txt").touch()
    (root / "cat" / ".DS_Store").touch()
    (root / ".cache").mkdir()


def test_bad_files_stop_the_run_by_name(classes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(classes)
    said = refusal(classes)
    assert "4 of 34 images cannot be read:" in said
    assert "cat/text.png (not an image)" in said
    assert "cat/truncated.jpg (image file is truncated" in said
    assert "dog/empty.gif (empty file)" in said
    assert "dog/gone.png (No such file or directory)" in said
    assert "images outside the class folders: loose.png." in said
    assert "class folders without a usable image: owl." in said
    assert said.endswith("data.skip_bad_files=true.")
    assert "3 files in" in capsys.readouterr().err


@pytest.mark.parametrize("limit", [1000, 0])
def test_bad_files_are_left_out_on_demand_and_named(
    classes: Path, limit: int, capsys: pytest.CaptureFixture[str]
) -> None:
    clean = read(classes)
    spoil(classes)
    capsys.readouterr()
    data = read(classes, skip_bad_files=True, memory_limit_mb=limit)
    said = capsys.readouterr().err
    for part in ("truncated.jpg", "text.png", "empty.gif", "gone.png", "loose.png. Left out.", "image: owl. Left out."):
        assert part in said
    assert data.facts["class_names"] == ["cat", "dog"]
    assert torch.equal(everything(data, "train")["input"], everything(clean, "train")["input"])


def test_more_than_five_bad_files_are_counted(classes: Path) -> None:
    for number in range(8):
        (classes / "cat" / f"x{number}.jpg").touch()
    said = refusal(classes)
    assert "x4.jpg (empty file), and 3 more." in said
    assert "x5" not in said


def test_a_file_that_is_damaged_later_is_named(classes: Path) -> None:
    data = read(classes, memory_limit_mb=0)
    victim = classes / "cat" / "003.png"
    victim.write_bytes(victim.read_bytes()[:100])
    with pytest.raises(ZooError, match=r"cannot read .*cat/003\.png \(.*\): mend or remove it"):
        [everything(data, split) for split in data.splits]
    assert "003.png" in refusal(classes, memory_limit_mb=0, image_size=8)


def test_pixels_of_unknown_range_are_refused(classes: Path) -> None:
    Image.fromarray(np.ones((8, 8), np.float32)).save(classes / "cat" / "float.tif")
    assert "cat/float.tif (32-bit pixels of unknown range, save it with 8 or 16 bits)" in refusal(classes)


def test_transparent_and_animated_images_are_counted(classes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(0, channels=4).save(classes / "cat" / "x.png")
    picture(1).save(classes / "cat" / "x.gif", save_all=True, append_images=[picture(2)])
    read(classes)
    said = capsys.readouterr().err
    assert "1 of 32 images may be transparent: laid over white." in said
    assert "1 of 32 images have several frames: the first is used." in said


def test_classes_that_do_not_fit_are_named(tmp_path: Path) -> None:
    fill(tmp_path / "one" / "cat")
    assert "cat class folder for training; classification needs two or more" in refusal(tmp_path / "one")
    fill(tmp_path / "few" / "cat")
    fill(tmp_path / "few" / "owl", 2)
    assert "class 'owl' has 2 examples, too few for one in each of train, val, test" in refusal(tmp_path / "few")
    for folder in ("train/cat", "train/dog", "test/cat", "test/owl"):
        fill(tmp_path / "new" / folder)
    assert "test/owl: not among the training classes cat, dog." in refusal(tmp_path / "new")
    (tmp_path / "nothing").mkdir()
    assert "holds no usable image (.bmp, .gif" in refusal(tmp_path / "nothing")
    fill(tmp_path / "later" / "test" / "cat")
    assert f"none in {tmp_path / 'later' / 'train'}" in refusal(tmp_path / "later")


def test_roots_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    assert f"data.root={tmp_path}/none: {tmp_path}/none does not exist" in refusal(tmp_path / "none")
    (tmp_path / "file").touch()
    assert "is a file, not a folder" in refusal(tmp_path / "file")
    with pytest.raises(ZooError, match=r"data\.root=null: say where the images are"):
        ImageFolder().setup()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="who may read everything cannot be refused")
def test_folders_and_files_without_permission_are_named(classes: Path) -> None:
    (classes / "cat" / "000.png").chmod(0)
    assert "cat/000.png (Permission denied)" in refusal(classes)
    (classes / "dog").chmod(0)
    try:
        assert f"cannot read the folder {classes / 'dog'}: Permission denied." in refusal(classes)
    finally:
        (classes / "dog").chmod(0o700)


def test_a_stored_config_reads_the_same_and_notices_a_changed_folder(
    classes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = read(classes)
    facts = yaml.safe_load(yaml.safe_dump(data.facts))  # primitives
    again = read(classes, **facts)
    assert again.facts == data.facts
    for split in data.splits:
        assert torch.equal(everything(again, split)["input"], everything(data, split)["input"])
    assert "is not what the run was trained on" not in capsys.readouterr().err
    picture(999).save(classes / "cat" / "new.png")
    other = read(classes, **facts)
    assert (
        f"{classes} is not what the run was trained on (fingerprint {facts['fingerprint']}," in capsys.readouterr().err
    )
    assert other.facts["mean"] == facts["mean"]
    assert other.facts["fingerprint"] != facts["fingerprint"]
    assert "data.num_classes=5: these data have 2" in refusal(classes, num_classes=5)


def test_a_trained_network_needs_a_test_folder_only(tmp_path: Path, classes: Path) -> None:
    facts = read(classes).facts
    fill(tmp_path / "new" / "test" / "dog", 4)
    data = read(tmp_path / "new", **facts)
    assert sizes(data) == {"test": 4}
    assert everything(data, "test")["target"].tolist() == [1, 1, 1, 1]  # the class it was in training


def test_the_order_of_decoded_files_is_theirs_and_slow_reading_is_told(
    classes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = sorted(classes.rglob("*.png"))
    clock = iter(range(0, 1000, 1))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    images = list(decode_all(paths, channels=3, image_size=SIZE))
    monkeypatch.undo()
    assert all(np.array_equal(decode(p, channels=3, image_size=SIZE), i) for p, i in zip(paths, images, strict=True))
    assert "reading images:" in capsys.readouterr().err


def test_arguments_are_checked() -> None:
    for options, sentence in [
        ({"image_size": 0}, "image_size=0: must be at least 1 pixel"),
        ({"channels": 4}, "channels=4: must be 1"),
        ({"augment": {"flip": 2}}, "flip=2: must be from 0 to 1"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            ImageFolder(**options)  # type: ignore[arg-type]
