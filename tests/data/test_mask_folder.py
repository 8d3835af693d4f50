"""A person's pictures and masks: layouts, kinds of masks, tiles, and every sentence about what cannot be used."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import compose_config
from hydra.utils import instantiate
from PIL import Image

from zoo.data.mask_augment import MaskAugment
from zoo.data.mask_folder import MaskFolder
from zoo.data.tiles import IGNORED, MaskSplit
from zoo.errors import ZooError

SIZE = 8


def save(folder: Path, name: str, *, height: int = 12, width: int = 20, seed: int = 0, mask: Any = None) -> None:
    """A picture whose red channel is 40 × its class, and its mask with values 0, 1, 2 and 255."""
    draws = np.random.default_rng(seed)
    labels = draws.integers(0, 3, (height, width)).astype(np.uint8)
    pixels = draws.integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[..., 0] = 40 * labels
    labels[0, :4] = IGNORED
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
    (mask or Image.fromarray(labels)).save(folder / "masks" / f"{name}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(10):
        save(tmp_path / "data", f"p{number}", seed=number)
    return tmp_path / "data"


def read(root: Path, **options: Any) -> MaskFolder:
    data = MaskFolder(root=str(root), **{"image_size": SIZE, **options})
    data.setup()
    return data


def refusal(root: Path, **options: Any) -> str:
    with pytest.raises(ZooError) as raised:
        read(root, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def split(data: MaskFolder, name: str) -> MaskSplit:
    part = data.splits[name]
    assert isinstance(part, MaskSplit)
    return part


def relabel(root: Path, table: dict[int, int], **options: Any) -> None:
    """Write other values, or colours, into all masks."""
    for path in (root / "masks").iterdir():
        old = np.asarray(Image.open(path))
        new = np.zeros((*old.shape, *np.shape(next(iter(table.values())))), np.uint8)
        for before, after in table.items():
            new[old == before] = after
        Image.fromarray(new).save(path, **options)


def check_labels(data: MaskFolder) -> None:
    """Mask and picture belong together, and ignored are just the pixels that should be."""
    for name in data.splits:
        part = split(data, name)
        kept = part.masks != IGNORED
        assert torch.equal(part.images[:, 0][kept], 40 * part.masks[kept])
    counted = sum(int((split(data, name).masks != IGNORED).sum()) for name in ("val", "test"))
    assert counted == 3 * (12 * 20 - 4)


def test_pictures_are_split_whole_and_cut_into_tiles(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = read(root)
    assert {name: len(part) for name, part in data.splits.items()} == {"train": 7 * 6, "val": 6, "test": 12}
    check_labels(data)
    # Which pictures each split shows parts of.
    owners = {
        name: {
            number
            for number in range(10)
            for tile in split(data, name).images[:, 2].numpy()
            if tile[:2].tobytes() in rows_of(root, number)
        }
        for name in data.splits
    }
    assert [len(owners[name]) for name in ("train", "val", "test")] == [7, 1, 2]
    assert set.union(*owners.values()) == set(range(10))
    assert {name: data.facts[name] for name in ("channels", "num_classes", "num_features", "class_names")} == {
        "channels": 3,
        "num_classes": 3,
        "num_features": 3 * SIZE**2,
        "class_names": ["0", "1", "2"],
    }
    train = split(data, "train").images.double() / 255
    assert data.facts["mean"] == [round(x, 4) for x in train.mean((0, 2, 3)).tolist()]
    assert data.facts["std"] == [round(x, 4) for x in train.std((0, 2, 3), correction=0).tolist()]
    assert (
        "10 pictures, 3 classes (0, 1, 2); 7 train (42 tiles), 1 val (6 tiles), 2 test (12" in capsys.readouterr().err
    )
    other = read(root, split_seed=1)
    assert not torch.equal(split(other, "test").images, split(data, "test").images)


def rows_of(root: Path, number: int) -> set[bytes]:
    """Every two rows of eight pixels of a picture's blue channel."""
    blue = np.asarray(Image.open(root / "images" / f"p{number}.png"))[..., 2]
    windows = np.lib.stride_tricks.sliding_window_view(blue, (2, SIZE))
    return {window.tobytes() for row in windows for window in row}


def test_folders_of_splits_are_kept_and_absent_ones_taken_from_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(8):
        save(tmp_path / "train", f"a{number}", height=SIZE, width=SIZE, seed=number)
    save(tmp_path / "test", "b", height=SIZE, width=SIZE, seed=100)
    data = read(tmp_path)
    assert {name: len(part) for name, part in data.splits.items()} == {"train": 7, "val": 1, "test": 1}
    expected = np.asarray(Image.open(tmp_path / "test" / "images" / "b.png")).transpose(2, 0, 1)
    assert np.array_equal(split(data, "test").images[0].numpy(), expected)
    assert "no pictures for val: taken from train" in capsys.readouterr().err
    save(tmp_path / "Valid", "c", height=SIZE, width=SIZE, seed=101)
    save(tmp_path / "more", "d", height=SIZE, width=SIZE, seed=102)
    assert {name: len(part) for name, part in read(tmp_path).splits.items()} == {"train": 8, "val": 1, "test": 1}
    assert "more is none of train, val, test: left out" in capsys.readouterr().err


def test_a_test_set_alone_is_read_with_stored_facts(tmp_path: Path) -> None:
    save(tmp_path / "test", "b", seed=3)
    assert "none in" in refusal(tmp_path)
    data = read(tmp_path, mean=[0.5], std=[0.5], channels=3, class_names=["x", "y", "z", "never seen"])
    assert set(data.splits) == {"test"}
    assert data.facts["num_classes"] == 4
    batch = split(data, "test").batch(0, torch.arange(2), torch.arange(2))
    torch.testing.assert_close(batch["input"], split(data, "test").images[:2].float() / 127.5 - 1)


def test_a_changed_folder_is_noted_when_a_run_is_evaluated(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = read(root).facts["fingerprint"]
    save(root, "p10", seed=10)
    read(root, fingerprint=stored)
    assert f"is not what the run was trained on (fingerprint {stored}" in capsys.readouterr().err


def test_small_pictures_are_padded_with_ignored_pixels(tmp_path: Path) -> None:
    for number in range(4):
        save(tmp_path, f"p{number}", height=5, width=6, seed=number)
    data = read(tmp_path)
    for name in data.splits:
        part = split(data, name)
        assert part.images.shape[1:] == (3, SIZE, SIZE)
        assert ((part.masks != IGNORED).flatten(1).sum(1) == 5 * 6 - 4).all()
        assert (part.masks[:, 5:] == IGNORED).all()
        assert (part.masks[:, :, 6:] == IGNORED).all()
        assert torch.equal(part.images[:, :, 5], part.images[:, :, 3])


@pytest.mark.parametrize("kind", ["palette", "tiff", "tiff16", "rgb", "rgba", "bmp", "int32"])
def test_kinds_of_index_masks(root: Path, kind: str) -> None:
    for path in list((root / "masks").iterdir()):
        labels = np.array(Image.open(path))
        path.unlink()
        image, ending = Image.fromarray(labels), ".png"
        if kind == "palette":
            image.putpalette([9, 9, 9, 8, 8, 8, 200, 0, 0] + [3] * 759)  # two indices of one colour are two classes
            assert image.mode == "P"
        elif kind.startswith("tiff"):
            image, ending = Image.fromarray(labels.astype(np.uint16) if kind == "tiff16" else labels), ".tif"
        elif kind in ("rgb", "rgba"):
            image = image.convert(kind.upper())
        elif kind == "bmp":
            ending = ".bmp"
        elif kind == "int32":
            image, ending = Image.fromarray(labels.astype(np.int32)), ".tiff"
        image.save(path.with_suffix(ending))
    check_labels(read(root))


def test_values_and_colours_of_classes(root: Path) -> None:
    relabel(root, {0: 7, 1: 0, 2: 255, 255: 9})
    check_labels(read(root, class_values=[7, 0, 255], ignore_values=[255, 9]))
    text = refusal(root)
    assert "the masks hold 0, 7, 9 (and perhaps 255, which is ignored)" in text
    assert "data.class_values" in text
    relabel(root, {7: [255, 0, 0], 0: [0, 0, 0], 255: [0, 0, 1], 9: [255, 255, 255]})
    options = {"class_values": [[255, 0, 0], [0, 0, 0], [0, 0, 1]], "ignore_values": [[255, 255, 255]]}
    data = read(root, **options)
    check_labels(data)
    assert data.facts["class_names"] == ["[255, 0, 0]", "[0, 0, 0]", "[0, 0, 1]"]
    assert "list those of the classes as data.class_values=[[0,0,0]" in refusal(root)
    unknown = refusal(root, class_values=options["class_values"])
    assert "masks/p0.png ([255, 255, 255])" in unknown
    config = compose_config(["data=mask_folder", f"data.root={root}"]).data
    check_labels(_setup(instantiate({**config, "image_size": SIZE, **options})))


def _setup(data: MaskFolder) -> MaskFolder:
    data.setup()
    return data


def test_black_and_white_masks_are_not_taken_for_ignored_ones(root: Path) -> None:
    relabel(root, {0: 0, 1: 255, 2: 255})
    assert "hold 0 (and perhaps 255, which is ignored)" in refusal(root)
    data = read(root, class_values=[0, 255], class_names=["ground", "cell"])
    assert data.facts["num_classes"] == 2
    assert split(data, "train").masks.unique().tolist() == [0, 1]
    for path in (root / "masks").iterdir():
        Image.open(path).convert("1").save(path)
    again = read(root, class_names=["ground", "cell"])
    assert torch.equal(split(again, "train").masks, split(data, "train").masks)


def test_names_of_masks_may_add_something_and_lie_deeper(root: Path) -> None:
    (root / "images" / "day").mkdir()
    (root / "masks" / "day").mkdir()
    (root / "images" / "p3.png").rename(root / "images" / "day" / "p3.png")
    for path in list((root / "masks").glob("*.png")):
        folder = path.parent / "day" if path.stem == "p3" else path.parent
        path.rename(folder / f"{path.stem}_mask.png")
    check_labels(read(root, mask_suffix="_mask"))
    (root / "images" / "p1.png").unlink()
    (root / "images" / "p2.png").unlink()
    text = refusal(root, mask_suffix="_mask")
    assert "masks without a picture: masks/p1_mask.png, masks/p2_mask.png. The mask of" in text
    assert "masks/a_mask.png" in text
    text = refusal(root)
    assert "pictures without a mask: images/day/p3.png, images/p0.png" in text
    assert "and 3 more; masks without a picture: masks/day/p3_mask.png" in text


def test_grey_pictures_have_one_channel(root: Path) -> None:
    for path in (root / "images").iterdir():
        Image.open(path).getchannel(0).save(path)
    data = read(root)
    assert data.facts["channels"] == 1
    check_labels(data)
    assert read(root, channels=3).facts["num_features"] == 3 * SIZE**2


def test_pictures_turned_by_their_exif_are_turned_before_they_meet_their_mask(root: Path) -> None:
    for path in (root / "images").iterdir():
        image = Image.open(path)
        exif = image.getexif()
        exif[0x0112] = 6  # shown after a turn by 90° clockwise
        image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    check_labels(read(root))


def test_what_cannot_be_used_is_named(root: Path) -> None:
    (root / "images" / "p1.png").write_bytes((root / "images" / "p1.png").read_bytes()[:300])
    assert "cannot use images/p1.png (" in refusal(root)
    (root / "images" / "p1.png").write_bytes(b"")
    (root / "masks" / "p2.png").write_text("no image")
    Image.open(root / "masks" / "p3.png").resize((20, 11), Image.Resampling.NEAREST).save(root / "masks" / "p3.png")
    Image.open(root / "masks" / "p4.png").save(root / "masks" / "p4.jpg")
    (root / "masks" / "p4.png").unlink()
    (root / "masks" / "p5.png").unlink()
    labels = np.zeros((12, 20), np.float32)
    Image.fromarray(labels).save(root / "masks" / "p5.tif")
    text = refusal(root)
    for words in (
        "images/p1.png (empty file)",
        "masks/p2.png (not an image)",
        "masks/p3.png (20×11 pixels, but its picture 20×12)",
        "masks/p4.jpg (a JPEG does not keep a mask's values, save it as PNG)",
        "masks/p5.tif (its pixels are not whole numbers)",
    ):
        assert words in text
    (root / "masks" / "p5.tif").unlink()
    assert "pictures without a mask: images/p5.png. The mask of" in refusal(root)


def test_stacks_of_pictures_are_refused_but_not_a_phones_preview(root: Path) -> None:
    for kind in ("images", "masks"):
        whole = Image.open(root / kind / "p1.png")
        (root / kind / "p1.png").unlink()
        whole.save(root / kind / "p1.tif", save_all=True, append_images=[whole])
        assert f"{kind}/p1.tif (several pictures in one file" in refusal(root)
        (root / kind / "p1.tif").unlink()
        whole.save(root / kind / "p1.png")
    (root / "images" / "p1.png").unlink()
    photo = Image.new("RGB", (20, 12))
    photo.save(root / "images" / "p1.jpg", "MPO", save_all=True, append_images=[photo])
    with Image.open(root / "images" / "p1.jpg") as file:
        assert (file.format, file.n_frames) == ("MPO", 2)
    assert read(root).facts["num_classes"] == 3


def test_hidden_files_and_folders_are_left_out(root: Path) -> None:
    expected = len(split(read(root), "train"))
    (root / "images" / ".ipynb_checkpoints").mkdir()
    for name in (".ipynb_checkpoints/p0-checkpoint.png", "._p0.png"):
        Image.new("L", (20, 12)).save(root / "images" / name)
    assert len(split(read(root), "train")) == expected


def test_unknown_values_are_named_by_file(root: Path) -> None:
    for number in range(7):
        labels = np.array(Image.open(root / "masks" / f"p{number}.png"))
        labels[5, 5], labels[5, 6] = 77, 3
        Image.fromarray(labels).save(root / "masks" / f"p{number}.png")
    text = refusal(root, class_names=["a", "b", "c"])
    assert "unknown values: masks/p0.png (3, 77), " in text
    assert "masks/p4.png (3, 77), and 2 more. Classes are 0, 1, 2, ignored 255" in text
    check = read(root, class_names=["a", "b", "c"], ignore_values=[3, 77, 255])
    assert check.facts["num_classes"] == 3


def test_a_class_that_no_training_mask_shows_is_noted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read(root)
    assert "no training mask" not in capsys.readouterr().err
    read(root, class_names=["a", "b", "c", "never seen"])
    assert "note: no training mask shows never seen.\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda root: (root / "images").rename(root / "pictures"), "has no folder images; it must hold images/ and"),
        (lambda root: (root / "masks").rename(root / "labels"), "masks does not exist: masks lie in a folder masks"),
        (lambda root: save(root / "train", "x"), "has both"),
        (lambda root: Image.new("L", (20, 12)).save(root / "images" / "p1.jpg"), "have the same name: keep one"),
    ],
)
def test_folders_of_another_form_are_refused(root: Path, break_it: Any, words: str) -> None:
    break_it(root)
    assert words in refusal(root)


def test_other_mistakes_get_a_sentence(root: Path, tmp_path: Path) -> None:
    assert "is not a folder" in refusal(tmp_path / "nowhere")
    with pytest.raises(ZooError, match=r"data\.root=null"):
        MaskFolder().setup()
    text = refusal(root, memory_limit_mb=0.01)
    assert "60 tiles of 8×8 pixels take 0.0 MB" in text
    options = {"context": 2, "train_stride": 3}
    tiles = sum(len(part) for part in read(root, **options).splits.values())
    assert f"{tiles} tiles of 8×8" in refusal(root, memory_limit_mb=0.01, **options)
    (tmp_path / "empty" / "images").mkdir(parents=True)
    (tmp_path / "empty" / "masks").mkdir()
    assert "holds no image" in refusal(tmp_path / "empty")
    for number in range(2, 10):
        for kind in ("images", "masks"):
            (root / kind / f"p{number}.png").unlink()
    assert "there are 2 examples, too few for one in each of train, val, test" in refusal(root)
    assert "class_names has 2 names" in refusal(root, class_values=[0, 1, 2], class_names=["a", "b"])


@pytest.mark.parametrize(
    "options",
    [
        {"channels": 2},
        {"class_values": [1]},
        {"class_values": [1, 1]},
        {"class_values": [0, [1, 2, 3]]},
        {"class_values": [[0, 0, 0], [1, 2, 256]]},
        {"class_values": [[0, 0, 0], [1, 2]]},
        {"class_values": [0, -1]},
        {"ignore_values": [[1, 2, 3]]},
        {"val_fraction": 0.0},
    ],
)
def test_wrong_values_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(options))}=.*: must "):
        MaskFolder(**options)


def test_training_tiles_are_augmented_with_their_masks_and_weights(root: Path) -> None:
    augment = {"flip": 0.5, "quarter_turns": 0.75, "crop": 6}
    data = read(root, augment=augment, border_weight=10.0, border_sigma=1.0)
    assert isinstance(split(data, "train").augment, MaskAugment)
    assert split(data, "val").augment is None
    indices = torch.arange(20)
    batch = split(data, "train").batch(0, indices, indices)
    assert batch["input"].shape == (20, 3, 6, 6)
    assert batch["weight"].shape == batch["target"].shape == (20, 6, 6)
    assert torch.equal(batch["weight"] == 0, batch["target"] == IGNORED)
    red = ((batch["input"][:, 0] * data.facts["std"][0] + data.facts["mean"][0]) * 255).round().long()
    kept = batch["target"] != IGNORED
    assert torch.equal(red[kept], 40 * batch["target"][kept])
