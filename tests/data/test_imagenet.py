"""Folders of ImageNet's form, tiny ones: the splits, torchvision's recipes, exact resume, every sentence of refusal."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torchvision import transforms
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from zoo.data.imagenet import ImageNet
from zoo.data.loaders import Batch
from zoo.data.photos import Crops, PhotoSplit, list_classes
from zoo.errors import ZooError

WNIDS = ["n01440764", "n01443537", "n02012849"]
SIZE = 16


def picture(seed: int, height: int = 24, width: int = 32) -> Image.Image:
    """Smooth colours, which JPEG keeps, different in every picture."""
    y, x = np.mgrid[0:height, 0:width] / 8
    waves = [np.sin(x * (1 + seed % 5) / 3 + seed + c) * np.cos(y + c * seed) for c in range(3)]
    return Image.fromarray((127 + 120 * np.stack(waves, -1)).astype(np.uint8))


def fill(root: Path, train: int = 8, val: int = 3) -> Path:
    for place, wnid in enumerate(WNIDS):
        for part, count, name in (("train", train, f"{wnid}_{{}}.JPEG"), ("val", val, f"ILSVRC_{place}_{{}}.JPEG")):
            (root / part / wnid).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                seed = 100 * place + number + (50 if part == "val" else 0)
                picture(seed, 24 + number, 40 - 2 * number).save(root / part / wnid / name.format(number), "JPEG")
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("imagenet"))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return fill(tmp_path / "imagenet")


def read(root: Path, stage: str | None = None, **options: Any) -> ImageNet:
    small: dict[str, Any] = {"image_size": SIZE, "val_per_class": 2, "num_workers": 0, "batch_size": 4, "seed": 3}
    data = ImageNet(root=str(root), **small | {"augment": {"flip": 0.5, "erase": 0.5}} | options)
    data.setup(stage)
    return data


def refusal(root: Path, stage: str | None = None, **options: Any) -> str:
    with pytest.raises(ZooError) as raised:
        read(root, stage, **options)
    assert str(raised.value).count("\n") < 3
    return str(raised.value)


def photos(data: ImageNet, name: str) -> PhotoSplit:
    split = data.splits[name]
    assert isinstance(split, PhotoSplit)
    return split


def paths(data: ImageNet, name: str) -> list[Path]:
    split = photos(data, name)
    return [split.listing.path(index) for index in range(len(split))]


def everything(data: ImageNet, name: str, epoch: int = 0) -> Batch:
    all_of_it = torch.arange(len(data.splits[name]))
    return data.splits[name].batch(epoch, all_of_it, all_of_it)


def equal(first: Batch, second: Batch) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# The splits ----------------------------------------------------------------------------------------------------------


def test_validation_comes_from_train_and_the_official_validation_is_the_test(root: Path) -> None:
    data = read(root)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 18, "val": 6, "test": 9}
    assert torch.bincount(photos(data, "val").targets).tolist() == [2, 2, 2]
    assert sorted(paths(data, "train") + paths(data, "val")) == sorted((root / "train").rglob("*.JPEG"))
    assert paths(data, "test") == sorted((root / "val").rglob("*.JPEG"))
    for name in data.splits:
        folders = [WNIDS[label] for label in photos(data, name).targets.tolist()]
        assert folders == [path.parent.name for path in paths(data, name)]
    assert paths(read(root), "val") == paths(data, "val")
    assert paths(read(root, split_seed=1), "val") != paths(data, "val")
    assert paths(read(root, seed=9), "val") == paths(data, "val")


def test_facts(root: Path) -> None:
    data = read(root)
    assert data.facts["num_classes"] == 3
    assert data.facts["class_names"] == WNIDS
    assert data.facts["num_features"] == 3 * SIZE**2
    assert data.preprocessing["resize"] == round(SIZE * 8 / 7)
    assert ImageNet().preprocessing["resize"] == 256
    assert ImageNet(image_size=299).preprocessing["resize"] == 342
    assert yaml.safe_load(yaml.safe_dump(data.facts)) == data.facts


def test_few_training_examples_are_of_all_classes(root: Path) -> None:
    data = read(root)
    data.train_examples = 6
    assert torch.bincount(photos(data, "train").targets[data.indices("train")]).tolist() == [2, 2, 2]


def test_a_listing_is_sorted_and_holds_pictures_only(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "train" / WNIDS[0] / "notes.txt").touch()
    (own / "train" / WNIDS[0] / "._x.JPEG").touch()
    (own / "train" / ".cache").mkdir()
    listing = list_classes(own / "train")
    assert [listing.path(index) for index in range(24)] == sorted((own / "train").rglob("n*.JPEG"))
    assert len(listing.names) == len(listing.labels) == 24
    read(own)
    assert "2 files in" in capsys.readouterr().err


# The recipes ---------------------------------------------------------------------------------------------------------


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (pixels.float() / 255 - mean) / std


@pytest.mark.parametrize("resize", [None, 20])
def test_evaluation_is_torchvisions(root: Path, resize: int | None) -> None:
    data = read(root, resize=resize)
    recipe = v2.Compose([v2.Resize(resize or round(SIZE * 8 / 7)), v2.CenterCrop(SIZE), v2.PILToTensor()])
    expected = torch.stack([recipe(Image.open(path).convert("RGB")) for path in paths(data, "test")])
    torch.testing.assert_close(everything(data, "test")["input"], normalised(expected))
    scored = torch.cat([batch["input"] for batch in data.loader("train")])  # the training pictures too
    expected = torch.stack([recipe(Image.open(path).convert("RGB")) for path in paths(data, "train")])
    torch.testing.assert_close(scored, normalised(expected))
    off = read(root, resize=resize, scale=None, augment=None)
    torch.testing.assert_close(everything(off, "train")["input"], normalised(expected))
    assert everything(data, "train")["input"].is_contiguous()


def test_training_is_a_resized_crop_then_colours(root: Path) -> None:
    data = read(root, augment=None, color_jitter=0.4)
    split = photos(data, "train")
    crops = split.augment
    assert crops is not None
    positions = torch.arange(18) + 5
    found = split.batch(2, positions, torch.arange(18))["input"]
    for path, draws, image in zip(paths(data, "train"), crops.draws(2, positions), found, strict=True):
        picture = Image.open(path).convert("RGB")
        left, top, right, bottom = crops.box(picture.width, picture.height, draws)
        cut = F.resized_crop(picture, top, left, bottom - top, right - left, [SIZE, SIZE])
        for change, draw in zip((F.adjust_brightness, F.adjust_contrast, F.adjust_saturation), draws[-3:], strict=True):
            cut = change(cut, 0.6 + 0.8 * draw)
        torch.testing.assert_close(image, normalised(F.pil_to_tensor(cut)))


def test_boxes_are_distributed_as_torchvisions() -> None:
    crops = Crops(0, (0.08, 1.0), (3 / 4, 4 / 3), 0.0, None)
    image = torch.empty(3, 375, 500)
    torch.manual_seed(0)
    theirs = torch.tensor(
        [transforms.RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(12000)]
    ).double()
    boxes = torch.tensor([crops.box(500, 375, draws) for draws in crops.draws(0, torch.arange(12000))]).double()
    ours = torch.stack([boxes[:, 1], boxes[:, 0], boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]], 1)
    assert ours[:, :2].min() >= 0
    assert boxes[:, 2].max() <= 500
    assert boxes[:, 3].max() <= 375
    for quantity in (lambda b: b[:, 0], lambda b: b[:, 1], lambda b: b[:, 2] * b[:, 3], lambda b: b[:, 3] / b[:, 2]):
        a, b = quantity(ours), quantity(theirs)
        assert abs(a.mean() - b.mean()) < 0.05 * b.std()  # four standard errors
        assert a.std() == pytest.approx(b.std().item(), rel=0.05)


@pytest.mark.parametrize(("width", "height"), [(300, 3), (3, 300), (40, 30)])
def test_where_no_crop_fits_the_centre_is_taken_as_by_torchvision(width: int, height: int) -> None:
    crops = Crops(0, (1.5, 1.5) if width == 40 else (0.9, 1.0), (3 / 4, 4 / 3), 0.0, None)  # too large for any attempt
    top, left, h, w = transforms.RandomResizedCrop.get_params(
        torch.empty(3, height, width), list(crops.scale or ()), list(crops.ratio)
    )
    assert crops.box(width, height, crops.draws(0, torch.arange(1))[0]) == (left, top, left + w, top + h)


def test_a_large_jpeg_is_decoded_at_a_smaller_scale_to_the_same_picture(own: Path) -> None:
    victim = own / "train" / WNIDS[0] / f"{WNIDS[0]}_0.JPEG"
    picture(1).resize((517, 403)).save(victim, "JPEG", quality=95)
    data = read(own, augment=None)
    split = photos(data, "train" if victim in paths(data, "train") else "val")
    split.augment = Crops(0, (0.5, 1.0), (3 / 4, 4 / 3), 0.0, None)
    index = torch.tensor([split.listing.names.tolist().index(victim.name.encode())])
    for position in range(5):
        found = split.batch(0, torch.tensor([position]), index)["input"][0]
        whole = Image.open(victim)
        left, top, right, bottom = split.augment.box(*whole.size, split.augment.draws(0, torch.tensor([position]))[0])
        exact = normalised(F.pil_to_tensor(F.resized_crop(whole, top, left, bottom - top, right - left, [SIZE, SIZE])))
        assert (found - exact).abs().mean() < 0.1  # 6 of 255 levels
        assert (found - exact).abs().max() > 1e-3  # a level is 0.017


def test_modes_other_than_rgb_are_read_in_colour(own: Path) -> None:
    folder = own / "train" / WNIDS[1]
    picture(1).convert("CMYK").save(folder / f"{WNIDS[1]}_0.JPEG", "JPEG")
    picture(2).convert("L").save(folder / f"{WNIDS[1]}_1.JPEG", "JPEG")
    picture(3).save(folder / f"{WNIDS[1]}_2.JPEG", "PNG")  # ImageNet has one of these, too
    picture(4).quantize(16).save(folder / "palette.png")
    data = read(own)
    for name in ("train", "val"):
        assert everything(data, name)["input"].shape[1:] == (3, SIZE, SIZE)


# Exact resume --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_workers(root: Path) -> Any:
    return read(root, num_workers=2, color_jitter=0.4).train_dataloader()


def epoch(loader: Any, number: int) -> list[Batch]:
    loader.sampler.set_epoch(number)
    return list(loader)


def test_workers_give_the_same_pictures(root: Path, with_workers: Any) -> None:
    here = read(root, color_jitter=0.4).train_dataloader()
    for number in (0, 3):
        expected, found = epoch(here, number), epoch(with_workers, number)
        assert len(expected) == len(found) == 5
        assert all(equal(a, b) for a, b in zip(expected, found, strict=True))


def test_a_loader_continues_in_the_middle_of_an_epoch(root: Path, with_workers: Any) -> None:
    whole = epoch(read(root, color_jitter=0.4).train_dataloader(), 4)
    whole += epoch(read(root, color_jitter=0.4).train_dataloader(), 5)
    begun = read(root, color_jitter=0.4).train_dataloader()
    begun.sampler.set_epoch(4)
    batches = iter(begun)
    for _ in range(3):
        next(batches)
    for fresh in (read(root, color_jitter=0.4).train_dataloader(), with_workers):
        fresh.load_state_dict(begun.state_dict())
        rest = epoch(fresh, 4) + epoch(fresh, 5)
        assert all(equal(a, b) for a, b in zip(whole[3:], rest, strict=True))


def test_a_picture_follows_the_seed_the_epoch_and_the_position_only(root: Path) -> None:
    options: dict[str, Any] = {"augment": None}  # the draws of the crops alone
    data = read(root, **options)
    split, order = photos(data, "train"), torch.arange(18)
    whole = split.batch(1, order, order)["input"]
    torch.manual_seed(7)  # nothing is drawn from the global generator
    parts = [split.batch(1, order[i : i + 5], order[i : i + 5])["input"] for i in range(0, 18, 5)]
    assert torch.equal(whole, torch.cat(parts))
    for other in (
        split.batch(2, order, order),
        split.batch(1, order + 1, order),
        everything(read(root, color_jitter=0.1, **options), "train", 1),
    ):
        assert not torch.equal(whole, other["input"])
    other_seed = read(root, seed=4, **options)
    assert paths(other_seed, "train") == paths(data, "train")
    assert not torch.equal(whole, everything(other_seed, "train", 1)["input"])


# What is wrong with a folder -----------------------------------------------------------------------------------------


def test_a_root_that_is_not_there(tmp_path: Path) -> None:
    said = refusal(tmp_path / "none")
    assert f"{tmp_path}/none has no train and val. Put ImageNet there" in said
    assert "train/n01440764/*.JPEG, val/n01440764/*.JPEG" in said
    assert "has no train and val" in refusal(tmp_path)
    with pytest.raises(ZooError, match=r"data\.root=None: .* say where it is, as in data\.root="):
        ImageNet(root=None).setup()


def test_pictures_outside_class_folders(own: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    (flat / "val").mkdir(parents=True)
    picture(0).save(flat / "val" / "ILSVRC2012_val_00000001.JPEG", "JPEG")
    assert f"{flat / 'val'} holds no class folders" in refusal(flat)
    (own / "train" / "n09999999").mkdir()
    assert "class folders without a picture: n09999999" in refusal(own)


def test_classes_that_do_not_match(own: Path) -> None:
    assert "data.num_classes=1000: " in (said := refusal(own, num_classes=1000))
    assert "has 3 class folders; add the others, or say data.num_classes=null" in said
    assert "class n01440764 has 8 pictures: must have more than data.val_per_class=8" in refusal(own, val_per_class=8)
    (own / "val" / WNIDS[1]).rename(own / "val" / "n00000000")
    assert "n00000000, n01443537: must be in both, train and val" in refusal(own)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_file_is_named(own: Path, workers: int) -> None:
    data = read(own, num_workers=workers)
    victim = paths(data, "train")[4]
    victim.write_bytes(victim.read_bytes()[:200])
    with pytest.raises(ZooError, match=rf"cannot read .*{victim.name} \(.*\): put a whole copy in its place"):
        list(data.train_dataloader())
    victim.unlink()
    with pytest.raises(ZooError, match=rf"{victim.name} \(No such file or directory\)"):
        list(read_again(data))


def read_again(data: ImageNet) -> Any:
    data.num_workers = 0
    return data.loader("train")


def test_the_pictures_for_evaluation_are_enough(own: Path, tmp_path: Path) -> None:
    (own / "train").rename(tmp_path / "away")
    assert list(read(own, "test").splits) == ["test"]
    assert "no examples to train on, only test" in refusal(own, "fit")
    (tmp_path / "away").rename(own / "train")
    (own / "val").rename(tmp_path / "away")
    assert list(read(own, "fit").splits) == ["train", "val"]


@pytest.mark.parametrize("name", ["LOC_synset_mapping.txt", "classes.txt", "meta.bin"])
def test_human_names_of_classes(own: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    known = {WNIDS[0]: ("tench", "Tinca tinca"), WNIDS[2]: ("crane",)}
    if name == "meta.bin":
        torch.save((known, ["n01440764"]), own / name)
    else:
        (own / name).write_text("".join(f"{wnid} {', '.join(names)}\n" for wnid, names in known.items()))
    expected = ["n01440764 tench", "n01443537", "n02012849 crane"]
    data = read(own)
    assert data.facts["class_names"] == expected
    (own / name).write_bytes(b"\xff\xfe")
    assert read(own).facts["class_names"] == WNIDS
    assert f"{own / name} cannot be read" in capsys.readouterr().err
    assert read(own, **data.facts).facts == data.facts  # the names of the training stay
    assert "data.class_names are a, b, c, but" in refusal(own, class_names=["a", "b", "c"])
    assert "data.class_names are" in refusal(own, class_names=WNIDS[:2])


def test_a_changed_folder_is_noticed(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = read(own).facts
    read(own, **facts)
    assert "is not what the run was trained on" not in capsys.readouterr().err
    picture(9).save(own / "train" / WNIDS[0] / "new.JPEG", "JPEG")
    read(own, **facts)
    assert f"{own / 'train'} is not what the run was trained on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"image_size": 0}, "image_size=0: must"),
        ({"image_size": 299, "resize": 256}, "resize=256: must be image_size=299 or more"),
        ({"resize": 0}, "resize=0: must"),
        ({"val_per_class": 0}, "val_per_class=0: must"),
        ({"channels": 1}, "channels=1: must be 3"),
        ({"scale": [0.0, 1.0]}, "scale=.*: must be two numbers"),
        ({"scale": [0.5, 1.2]}, "scale=.*: must be two numbers"),
        ({"ratio": [2.0, 1.0]}, "ratio=.*: must be two numbers"),
        ({"color_jitter": 1.5}, "color_jitter=1.5: must"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ImageNet(**options)


def test_a_run_from_config_to_scores(root: Path, small_run: Callable[..., tuple[Path, dict[str, float]]]) -> None:
    options = ["data=imagenet", f"data.root={root}", "data.num_classes=null", "data.val_per_class=2"]
    options += ["data.image_size=28", "data.num_workers=0", "data.batch_size=6", "fast=true", "model=lenet5"]
    folder, scores = small_run(*options)
    assert 0 <= scores["test/accuracy"] <= 1
    stored = yaml.safe_load((folder / "config.yaml").read_text())["data"]
    assert (stored["num_classes"], stored["class_names"]) == (3, WNIDS)
