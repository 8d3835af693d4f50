"""`zoo predict`: of the files of a test split it says what an evaluation says; what it cannot read it lists."""

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from untrained import untrained_run

from zoo.checkpoint import read_checkpoint
from zoo.cli import main as zoo
from zoo.data.image_files import FileSplit
from zoo.data.photos import Listing, PhotoSplit
from zoo.decoding import END, greedy
from zoo.evaluation import evaluate_checkpoint, load
from zoo.generators import trained
from zoo.prediction_answers import forecast
from zoo.prediction_files import unused
from zoo.prediction_inputs import Pictures
from zoo.prediction_pictures import borders, mask_of, png_names


def draw(path: Path, size: tuple[int, int], seed: int, mode: str = "RGB") -> None:
    """A picture of coarse coloured patches."""
    path.parent.mkdir(parents=True, exist_ok=True)
    patches = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(patches).resize(size, Image.Resampling.NEAREST).convert(mode).save(path)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def scores(run: Path, *overrides: str) -> dict[str, float]:
    return evaluate_checkpoint(run / "checkpoints" / "best.ckpt", overrides=overrides)


# Pictures -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two classes in many sizes, in a folder whose name has blanks and letters beyond ASCII."""
    root = tmp_path_factory.mktemp("photos") / "mes été photos"
    for number in range(24):
        kind, split = ("chat noir", "Ω")[number % 2], ("train", "val", "test")[number % 3]
        mode = ("RGB", "L", "RGBA", "P")[number % 4]
        draw(root / split / kind / f"{number} é.png", (20 + 3 * number, 60 - number), number, mode)
    return root


def test_pictures_are_classified_as_in_an_evaluation(photos: Path, tmp_path: Path, capsys: Any) -> None:
    words = ["model=lenet5", "data=image_folder", f"data.root='{photos}'", "data.image_size=28"]
    run, data = untrained_run(tmp_path / "un run", *words, std=0.1)
    capsys.readouterr()
    assert zoo(["predict", f"ckpt_path={run}", f"input={photos / 'test'}"]) == 0
    written = run / "predictions" / "test.csv"
    assert capsys.readouterr().out == f"wrote {written}\n"
    rows, split = table(written), data.splits["test"]
    everything = torch.arange(len(split))
    batch = split.batch(0, everything, everything)
    with torch.no_grad():
        wanted = load(run)[0](batch["input"]).softmax(1)
    assert [row["file"].split("/")[0] for row in rows] == [data.facts["class_names"][k] for k in batch["target"]]
    found = [[float(row["p_chat noir"]), float(row["p_Ω"])] for row in rows]
    torch.testing.assert_close(torch.tensor(found), wanted, atol=2e-6, rtol=0)
    assert len({row["predicted"] for row in rows}) == 2  # the network has both opinions
    assert [float(row["probability"]) for row in rows] == [max(row) for row in found]
    right = sum(row["predicted"] == row["file"].split("/")[0] for row in rows) / len(rows)
    assert right == pytest.approx(scores(run)["test/accuracy"])
    # again: nothing is overwritten
    assert zoo(["predict", f"ckpt_path={run}", f"input={photos / 'test'}", "batch_size=3"]) == 0
    again = table(run / "predictions" / "test_2.csv")
    assert [row["predicted"] for row in again] == [row["predicted"] for row in rows]
    assert [float(row["p_Ω"]) for row in again] == pytest.approx([row[1] for row in found], abs=2e-6)
    assert zoo(["predict", f"ckpt_path={run}", f"input={photos / 'test'}", f"out={written}"]) == 2
    assert "is there already" in capsys.readouterr().err
    # what cannot be read is named and skipped
    bad = tmp_path / "bad"
    draw(bad / "a.png", (30, 30), 1)
    (bad / "b.png").write_bytes((bad / "a.png").read_bytes()[:60])
    (bad / "c.jpg").write_text("no picture")
    (bad / "d.png").touch()
    Image.fromarray(np.zeros((9, 9), np.float32)).save(bad / "e.tif")
    (bad / "f.txt").touch()
    out = tmp_path / "new" / "answers.csv"
    assert zoo(["predict", f"ckpt_path={run}", f"input={bad}", f"out={out}"]) == 2
    said = capsys.readouterr().err
    for name, why in (("b.png", ""), ("c.jpg", "not an image"), ("d.png", "empty file"), ("e.tif", "32-bit pixels")):
        assert f"skipped {name}: {why}" in said
    assert "1 files" in said
    assert "4 of 5 inputs were skipped" in said
    assert [row["file"] for row in table(out)] == ["a.png"]
    # where nothing can be read, nothing is left
    assert zoo(["predict", f"ckpt_path={run}", f"input={bad / 'c.jpg'}", f"out={tmp_path / 'none' / 'x.csv'}"]) == 2
    assert "nothing in it could be read" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_photograph_is_prepared_as_imagenet_is(photos: Path) -> None:
    facts = {"channels": 3, "image_size": 16, "resize": 20, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]}
    described = {"preprocessing": facts, "config": {"data": {}}}
    folder = photos / "test" / "Ω"
    (found,) = Pictures(folder, described, 64)
    names = sorted(path.name for path in folder.iterdir())
    listing = Listing([folder], np.array([name.encode() for name in names]), torch.zeros(len(names)).long(), 0)
    split = PhotoSplit(listing, **{name: facts[name] for name in ("image_size", "resize", "mean", "std")})
    everything = torch.arange(len(names))
    assert torch.equal(found["input"], split.batch(0, everything, everything)["input"])
    # without, as a folder of pictures is
    del facts["resize"]
    (found,) = Pictures(folder, described, 64)
    other = FileSplit([folder / name for name in names], torch.zeros(len(names)), **facts)
    assert torch.equal(found["input"], other.batch(0, everything, everything)["input"])


@pytest.mark.parametrize("permute", [False, True])
def test_pixels_in_a_row_are_those_of_the_training(tmp_path: Path, permute: bool) -> None:
    run, data = untrained_run(tmp_path / "run", "model=gru_classifier", "data=digits_rows", f"data.permute={permute}")
    first = torch.arange(3)
    split = data.splits["test"]
    for number in first.tolist():
        Image.fromarray(split.inputs[number, 0].numpy()).save(tmp_path / f"{number}.png")
    described = read_checkpoint(run / "checkpoints" / "best.ckpt")["zoo"]
    (batch,) = Pictures(tmp_path, described, 64)
    assert torch.equal(batch["input"], split.batch(0, first, first)["input"])


# Masks ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["unet", "unet_2015"])
def test_masks_are_those_of_an_evaluation(tmp_path: Path, capsys: Any, network: str) -> None:
    root = tmp_path / "masks"
    for number in range(6):
        path = root / ("train", "val", "test")[number % 3] / "images" / f"{number}.png"
        size = (70, 41) if number == 5 else (52, 52) if number == 2 else (40, 40)
        draw(path, size, number)
        mask = Image.new("L", size)
        mask.paste(1, (0, 0, size[0] // 2, size[1]))
        (path.parents[1] / "masks").mkdir(exist_ok=True)
        mask.save(path.parents[1] / "masks" / path.name)
    context = ["data.image_size=92", "data.context=20", "model.depth=2"] if network == "unet_2015" else []
    words = context or ["data.image_size=52", "model.depth=2"]
    words += [f"model={network}", "data=mask_folder", f"data.root={root}", "model.width=0.125"]
    run, data = untrained_run(tmp_path / "run", *words, "data.class_names=[sky, land]", centred=True)
    out = tmp_path / "out"
    assert zoo(["predict", f"ckpt_path={run}", f"input={root / 'test' / 'images'}", f"out={out}"]) == 0
    masks = {}
    for name in ("2", "5"):
        with Image.open(out / f"{name}.png") as made, Image.open(root / "test" / "images" / f"{name}.png") as picture:
            assert made.mode == "P"
            assert made.size == picture.size
            masks[name] = np.asarray(made)
            assert made.getpalette()[:6] == [0, 114, 178, 213, 94, 0]
    # a picture of one tile: every pixel as the network says of the tile of the split
    split = data.splits["test"]
    everything = torch.arange(len(split))
    batch = split.batch(0, everything, everything)
    with torch.no_grad():
        logits = load(run)[0](batch["input"])
    cut = (logits.shape[-1] - 52) // 2
    wanted = logits.argmax(1)[:, cut : cut + 52, cut : cut + 52]
    assert any(np.array_equal(masks["2"], each) for each in wanted.numpy())
    assert set(np.unique(masks["2"])) == {0, 1}
    shares = {row["file"]: row for row in table(out / "shares.csv")}
    assert float(shares["2.png"]["land"]) == pytest.approx((masks["2"] == 1).mean(), abs=1e-6)
    assert [row["name"] for row in table(out / "classes.csv")] == ["sky", "land"]
    capsys.readouterr()
    assert zoo(["predict", f"ckpt_path={run}", f"input={root / 'test' / 'images'}", f"out={out}"]) == 2
    assert "is there already" in capsys.readouterr().err
    if network == "unet_2015":  # which sees each pixel with all around it: tiles or not makes no difference
        right = sum(
            (masks[name] == np.asarray(Image.open(root / "test" / "masks" / f"{name}.png"))).sum() for name in masks
        )
        assert right / (52 * 52 + 70 * 41) == pytest.approx(scores(run)["test/accuracy"], abs=0.03)


def test_pictures_of_one_name_get_masks_of_two() -> None:
    assert png_names(["a.jpg", "a.tif", "b/a.jpg"]) == {
        "a.jpg": "a.jpg.png",
        "a.tif": "a.tif.png",
        "b/a.jpg": "b/a.png",
    }
    named = png_names(["a.jpg", "a.png", "a.jpg.png"])
    assert len(set(named.values())) == 3
    assert named["a.jpg.png"] == "a.jpg.png"


def test_a_large_picture_is_predicted_by_tiles_as_by_the_whole() -> None:
    """Of a network that sees two pixels around each: but where it sees its own padding, tiles make no difference."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Conv2d(4, 3, 3, padding=1)).eval()
    image = torch.randn(3, 70, 41)
    kept = borders(network, torch.zeros(3, 32, 32), context=0)
    found = mask_of(network, image, size=32, kept=kept, batch_size=4)
    with torch.no_grad():
        wanted = network(image[None])[0].argmax(0)
    assert found.shape == (70, 41)
    assert torch.equal(found[4:-4, 4:-4], wanted[4:-4, 4:-4])


# Reconstructions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "metric", "column"),
    [
        (["model=autoencoder_2006", "model.widths=[8]", "model.code=3"], "squared_error", "squared_error"),
        (["model=vae", "model.hidden=[8]", "task.importance_samples=0"], "nelbo", "nelbo"),
        (["model=vae", "model.hidden=[8]", "task.importance_samples=0", "task.binarize=dynamic"], "kl", "kl"),
    ],
)
def test_errors_of_reconstructions_are_those_of_an_evaluation(
    photos: Path, tmp_path: Path, model: list[str], metric: str, column: str
) -> None:
    data = ["data=image_folder", f"data.root='{photos}'", "data.labels=false", "data.image_size=12", "data.channels=1"]
    run, _ = untrained_run(tmp_path / "run", *model, *data, "data.mean=[0.0]", "data.std=[1.0]")
    assert zoo(["predict", f"ckpt_path={run}", f"input={photos / 'test'}", "batch_size=3"]) == 0
    folder = run / "predictions" / "test"
    rows = table(folder / "errors.csv")
    mean = sum(float(row[column]) for row in rows) / len(rows)
    assert mean == pytest.approx(scores(run)[f"test/{metric}"], rel=1e-5)
    for row in rows:
        with Image.open(folder / row["picture"]) as made:
            assert (made.mode, made.size) == ("L", (12, 12))


def test_a_vae_told_the_class_takes_the_likeliest(photos: Path, tmp_path: Path) -> None:
    words = [
        "model=cvae",
        "model.hidden=[8]",
        "task.importance_samples=0",
        "data=image_folder",
        f"data.root='{photos}'",
    ]
    words += ["data.image_size=12", "data.channels=1", "data.mean=[0.0]", "data.std=[1.0]"]
    run, data = untrained_run(tmp_path / "run", *words)
    assert zoo(["predict", f"ckpt_path={run}", f"input={photos / 'test'}"]) == 0
    rows = table(run / "predictions" / "test" / "errors.csv")
    task, _ = trained(read_checkpoint(run / "checkpoints" / "best.ckpt"), run, {}, reads_data=False)
    split = data.splits["test"]
    everything = torch.arange(len(split))
    batch, nats = split.batch(0, everything, everything), []
    task.evaluation_step(batch, 0)  # sets the key of the draws
    for label in range(2):
        with torch.no_grad():
            nats.append(task.loss(task.network, {**batch, "target": torch.full_like(everything, label)})[1]["nats"])
    least = torch.stack(nats).min(0)
    assert [float(row["nelbo"]) for row in rows] == pytest.approx(least.values.tolist(), rel=1e-5)
    assert [row["class"] for row in rows] == [data.facts["class_names"][k] for k in least.indices.tolist()]


# Tables and series ----------------------------------------------------------------------------------------------------


def write_table(path: Path, kind: str) -> None:
    generator = np.random.default_rng(0)
    lines = ["id,size,colour,price"]
    for number in range(60):
        size, colour = generator.normal(), ["red", "blue"][number % 2]
        answer = f"{3 * size + 10:.3f}" if kind == "regression" else "dear" if size > 0 else "cheap"
        lines.append(f"{number},{'' if number == 7 else f'{size:.4f}'},{colour},{answer}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_rows_of_a_table_are_predicted_as_in_an_evaluation(tmp_path: Path, capsys: Any, kind: str) -> None:
    source = tmp_path / "häuser neu.csv"
    write_table(source, kind)
    words = ["model=mlp", "data=csv_table", f"data.path='{source}'", "data.target=price", "data.ignore=[id]"]
    run, data = untrained_run(tmp_path / "run", *words, f"data.kind={kind}", f"task={kind}")
    assert zoo(["predict", f"ckpt_path={run}", f"input={source}"]) == 0
    rows = table(run / "predictions" / "häuser neu.csv")
    assert [row["line"] for row in rows] == [str(line) for line in range(2, 62)]
    test = data.splits["test"]
    with torch.no_grad():
        wanted = load(run)[0](test.inputs)
    if kind == "regression":
        values = (wanted[:, 0].double() * data.facts["target_std"] + data.facts["target_mean"]).tolist()
        found = [float(row["predicted"]) for row in rows]
        assert all(any(abs(value - each) < 1e-5 for each in found) for value in values)
        # the error over the test rows is that of the evaluation
        near = [min(found, key=lambda each, value=value: abs(each - value)) for value in values]
        truth = test.targets[:, 0].double() * data.facts["target_std"] + data.facts["target_mean"]
        mae = sum(abs(a - b) for a, b in zip(near, truth.tolist(), strict=True)) / len(near)
        assert mae == pytest.approx(scores(run)["test/mae"], rel=1e-4)
    else:
        found = [float(row["p_dear"]) for row in rows]
        assert all(any(abs(value - each) < 1e-5 for each in found) for value in wanted.softmax(1)[:, 1].tolist())
        assert {row["predicted"] for row in rows} == {"cheap", "dear"}
    # new rows: another order of the columns, no target, no id, one row that cannot be right
    new = tmp_path / "new.csv"
    new.write_text("colour;size;id;line\nred;0.25;a;x\nblue;big;b;y\nred;1e39;c;z\nred;;d;w\n", encoding="utf-8")
    capsys.readouterr()
    assert zoo(["predict", f"ckpt_path={run}", f"input={new}", "separator=semicolon"]) == 2
    said = capsys.readouterr().err
    assert "skipped line 3: size is 'big', no finite number" in said
    assert "skipped line 4: a number too large for the network" in said
    answers = table(run / "predictions" / "new.csv")
    assert [(row["line_"], row["line"], row["id"]) for row in answers] == [("2", "x", "a"), ("5", "w", "d")]
    assert zoo(["predict", f"ckpt_path={run}", f"input={new}", "separator=pipe"]) == 2
    assert "separator=pipe: must be auto, comma" in capsys.readouterr().err
    new.write_text(",colour,size\n0,red,1\n", encoding="utf-8")
    assert zoo(["predict", f"ckpt_path={run}", f"input={new}"]) == 2
    assert "give it one, or, if it only counts the rows, take it out." in capsys.readouterr().err
    new.write_text("colour\nred\n", encoding="utf-8")
    assert zoo(["predict", f"ckpt_path={run}", f"input={new}"]) == 2
    assert "has no column 'size'" in capsys.readouterr().err
    new.write_bytes("colour,size\nröt,1\n".encode("latin-1"))
    assert zoo(["predict", f"ckpt_path={run}", f"input={new}"]) == 2
    assert "as in encoding=cp1252" in capsys.readouterr().err
    assert zoo(["predict", f"ckpt_path={run}", f"input={new}", "encoding=latin-1"]) == 0


def test_a_column_keeps_its_name_beside_the_answer() -> None:
    assert unused(["predicted", "probability"], ["line", "predicted", "predicted_"]) == ["predicted__", "probability"]


def test_forecasts_are_those_of_an_evaluation(tmp_path: Path, capsys: Any) -> None:
    source = tmp_path / "series.csv"
    values = [math.sin(day / 3) + day / 20 for day in range(80)]
    rows = [f"{day},{value:.5f},{day % 7}" for day, value in enumerate(values)]
    source.write_text("day,sales,weekday\n" + "\n".join(rows) + "\n")
    words = ["model=gru_forecaster", "data=csv_series", f"data.path={source}", "data.target=sales", "data.time=day"]
    run, data = untrained_run(tmp_path / "run", *words, "data.inputs=[weekday]", "data.window=8", "data.horizon=3")
    checkpoint = read_checkpoint(run / "checkpoints" / "best.ckpt")
    task, _ = trained(checkpoint, run, {}, reads_data=False)
    errors = []
    for origin in data.splits["test"].origins.tolist():  # a forecast made on each day of the test stretch
        part = tmp_path / "part.csv"
        part.write_text("\n".join(["day,sales,weekday", *rows[:origin]]))
        _, found, _ = forecast(task, checkpoint["zoo"], part, separator=None, encoding=None)
        errors += [float(cells[1]) - float(f"{values[origin + k]:.5f}") for k, cells in enumerate(found)]
    rmse = math.sqrt(sum(error**2 for error in errors) / len(errors))
    assert rmse == pytest.approx(scores(run)["test/rmse"], rel=1e-5)
    capsys.readouterr()
    part.write_text("sales,weekday,day\n" + "oops,1,0\n" + "".join(f"{day},1,{day}\n" for day in range(8)))
    assert zoo(["predict", f"ckpt_path={run}", f"input={part}"]) == 0
    assert "after day 7: " in capsys.readouterr().out
    assert [row["step"] for row in table(run / "predictions" / "part.csv")] == ["1", "2", "3"]
    part.write_text("sales,weekday\n1,1\n")
    assert zoo(["predict", f"ckpt_path={run}", f"input={part}"]) == 2
    assert "has 1 rows, and this network forecasts from the last 8" in capsys.readouterr().err


# Text -----------------------------------------------------------------------------------------------------------------


def test_snippets_are_classified_as_in_an_evaluation(tmp_path: Path, capsys: Any) -> None:
    run, data = untrained_run(tmp_path / "run", "model=lstm_classifier", "model.hidden=8", "data.min_length=5")
    split, vocabulary = data.splits["test"], data.facts["vocabulary"]
    some = torch.arange(120)
    batch = split.batch(0, some, some)
    known = [row for row in some.tolist() if (batch["input"][row, : batch["length"][row]] > 0).all()]
    snippets = ["".join(vocabulary[t] for t in batch["input"][row, : batch["length"][row]].tolist()) for row in known]
    source = tmp_path / "snippets.txt"
    source.write_text("\n".join([*snippets, "", "ЖЖ"]) + "\n", encoding="utf-8")
    assert zoo(["predict", f"ckpt_path={run}", f"input={source}", "batch_size=50"]) == 2
    said = capsys.readouterr().err
    assert f"skipped line {len(known) + 1}: empty" in said
    assert f"skipped line {len(known) + 2}: none of its characters" in said
    rows = table(run / "predictions" / "snippets.csv")
    with torch.no_grad():
        wanted = load(run)[0](batch["input"], batch["length"]).softmax(1)[known]
    found = torch.tensor([[float(row[f"p_{name}"]) for name in data.facts["class_names"]] for row in rows])
    torch.testing.assert_close(found, wanted, atol=2e-6, rtol=0)
    assert [row["text"] for row in rows] == snippets
    # a longer line is read in pieces of 20 characters, each of which weighs as it is long
    source.write_text("a" * 20 + "b" * 5, encoding="utf-8")
    assert zoo(["predict", f"ckpt_path={run}", f"input={source}", f"out={tmp_path / 'long.csv'}"]) == 0
    source.write_text("a" * 20 + "\n" + "b" * 5, encoding="utf-8")
    assert zoo(["predict", f"ckpt_path={run}", f"input={source}", f"out={tmp_path / 'pieces.csv'}"]) == 0
    (long,), (first, second) = table(tmp_path / "long.csv"), table(tmp_path / "pieces.csv")
    mean = (20 * float(first["p_Welsh"]) + 5 * float(second["p_Welsh"])) / 25
    assert float(long["p_Welsh"]) == pytest.approx(mean, rel=1e-4)


@pytest.mark.parametrize(("model", "level"), [("lstm", "characters"), ("gpt", "characters"), ("lstm", "words")])
def test_bits_of_a_text_are_those_of_an_evaluation(tmp_path: Path, capsys: Any, model: str, level: str) -> None:
    book = tmp_path / "book.txt"
    lines = [f"{'abc'[n % 3]}é line {n % 7} of {n}." for n in range(120)]
    book.write_text("\n".join(lines) + "\n", encoding="utf-8")
    words = [f"model={model}", "data=text_file", f"data.path={book}", "data.sequence_length=16", "data.batch_size=2"]
    words += ["model.hidden=8"] if model == "lstm" else ["model.layers=1", "model.d_model=8", "model.heads=2"]
    run, data = untrained_run(tmp_path / "run", *words, f"data.level={level}", "data.eval_batch_size=1")
    tokens = data.tokens["test"]  # the last of the validation text in front, which is no target
    texts = data.texts()
    first = texts["val"][-1] if level == "characters" else "."
    source = tmp_path / "new.txt"
    source.write_text(first + texts["test"], encoding="utf-8")
    capsys.readouterr()
    assert zoo(["predict", f"ckpt_path={run}", f"input={source}"]) == 0
    perplexity = float(capsys.readouterr().out.split("perplexity ")[1].split(",")[0])
    if level == "characters":
        assert perplexity == pytest.approx(scores(run)["test/perplexity"], rel=1e-5)
    unit = "character" if level == "characters" else "token"
    rows = table(run / "predictions" / "new.csv")
    assert sum(int(row[f"{unit}s"]) for row in rows) == len(tokens) - 1 or level == "words"
    total = sum(float(row["bits"]) for row in rows) / sum(int(row[f"{unit}s"]) for row in rows)
    assert 2**total == pytest.approx(perplexity, rel=1e-4)
    assert "\n".join(row["text"] for row in rows) == (first + texts["test"]).rstrip("\n")
    source.write_text("x")
    assert zoo(["predict", f"ckpt_path={run}", f"input={source}"]) == 2
    assert f"holds one {level[:-1]}" in capsys.readouterr().err


def test_answers_to_lines_are_those_of_greedy_decoding(tmp_path: Path, capsys: Any) -> None:
    words = ["model=transformer", "model.d_model=8", "model.heads=2", "model.layers=1", "model.max_length=30"]
    run, data = untrained_run(tmp_path / "run", *words, "data.train_size=50", "data.val_size=5", "data.test_size=12")
    some = torch.arange(12)
    batch = data.splits["test"].batch(0, some, some)
    source, target = data.facts["source_vocabulary"], data.facts["target_vocabulary"]
    questions = ["".join(source[t] for t in row if t) for row in batch["input"].tolist()]
    path = tmp_path / "questions.txt"
    path.write_text("\n".join([*questions[:2], "", "a" * 31, "Ä", *questions[2:]]) + "\n", encoding="utf-8")
    capsys.readouterr()
    assert zoo(["predict", f"ckpt_path={run}", f"input={path}", "batch_size=5"]) == 2
    said = capsys.readouterr().err
    for line, why in ((3, "empty"), (4, "31 tokens, and the network reads 30"), (5, "the network was not taught 'Ä'")):
        assert f"skipped line {line}: {why}" in said
    found = greedy(load(run)[0], batch["input"], batch["length"], max_length=30)
    wanted = ["".join(target[t] for t in row if t > END) for row in found.tolist()]
    answers = (run / "predictions" / "questions.txt").read_text(encoding="utf-8").split("\n")
    assert answers == [*wanted[:2], "", "", "", *wanted[2:], ""]
    assert len(set(wanted)) > 1


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["model=mlp_gan", "model.generator_hidden=[4]"], "it makes pictures: zoo sample ckpt_path="),
        (["model=mlp", "data=synthetic", "data.kind=vectors"], "made-up examples that no file holds"),
        (["model=gru", "data=copy_task"], "made-up examples that no file holds"),
    ],
)
def test_where_there_is_nothing_to_predict_a_sentence_says_so(
    tmp_path: Path, capsys: Any, words: list[str], sentence: str
) -> None:
    run, _ = untrained_run(tmp_path / "run", *words)
    capsys.readouterr()
    assert zoo(["predict", f"ckpt_path={run}", f"input={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert not (run / "predictions").exists()


def test_wrong_words_are_sentences(photos: Path, tmp_path: Path, capsys: Any) -> None:
    words = ["model=softmax_regression", "data=image_folder", f"data.root='{photos}'", "data.image_size=8"]
    run, _ = untrained_run(tmp_path / "run", *words)
    (tmp_path / "file").touch()
    for given, sentence in {
        (): "Which network?",
        (f"ckpt_path={run}",): "Of what? input=",
        (f"ckpt_path={run}", "input=gone"): "input=gone: there is no such file or folder.",
        (f"ckpt_path={run}", f"input={photos}", "beam=3"): "beam=3: this network reads pictures",
        (f"ckpt_path={run}", f"input={photos}", "out=x.json"): "out=x.json: must end in .csv",
        (f"ckpt_path={run}", f"input={photos}", f"out={tmp_path}/file/x.csv"): "lies below a file",
        (f"ckpt_path={run}", f"input={photos}", "out=.."): "out=..: must name a file or a folder",
        (f"ckpt_path={run}", f"input={photos}", "batch_size=0"): "batch_size=0: must be a whole number",
        (f"ckpt_path={run}", f"input={run / 'checkpoints'}"): "holds no image",
    }.items():
        capsys.readouterr()
        assert zoo(["predict", *given]) == 2
        assert sentence in capsys.readouterr().err, given
    assert not list(tmp_path.glob("**/.*.tmp"))
