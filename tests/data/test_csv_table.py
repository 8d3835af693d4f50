"""A person's own table: what is read, how it is encoded, and every sentence about what is wrong in it."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from zoo.data.csv_table import CsvTable
from zoo.data.tables import encode, feature_names, read_table
from zoo.errors import ZooError

HEADER = ["id", "size", "city", "same", "grade", "sold", "price"]
SIZE, CITY, GRADE, SOLD, PRICE = 1, 2, 4, 5, 6


def rows(count: int = 60) -> list[list[str]]:
    """A number with gaps, a category with gaps, a constant, a coded category, two classes, and a number to predict."""
    cities = ["Rome", "Oslo", "NA", "Bern"]
    return [
        [
            str(i),
            "" if i % 9 == 4 else f"{i * i / 8}",
            cities[i % 4],
            "7",
            str(1 + i % 3),
            ("no", "yes")[i % 5 < 2],
            f"{100 + 3 * i}.5",
        ]
        for i in range(count)
    ]


def write(folder: Path, table: list[list[str]], header: list[str] = HEADER, separator: str = ",") -> Path:
    path = folder / "table.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=separator).writerows([header, *table])
    return path


def read(path: Path, **options: Any) -> CsvTable:
    data = CsvTable(path=str(path), **{"target": "sold", "ignore": ["id"], **options})
    data.setup()
    return data


def everything(data: CsvTable, split: str) -> dict[str, torch.Tensor]:
    size = torch.arange(len(data.splits[split]))
    return data.splits[split].batch(0, size, size)


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(ZooError) as raised:
        read(path, **options)
    assert str(raised.value).count("\n") < 3
    return str(raised.value)


def changed(row: int, column: int, cell: str, count: int = 60) -> list[list[str]]:
    table = rows(count)
    table[row][column] = cell
    return table


def test_numbers_categories_and_gaps_become_features(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = read(write(tmp_path, rows()), categorical=["grade"], split_seed=1)
    names = ["size", "size missing", *(f"city={city}" for city in ("Bern", "Oslo", "Rome")), "city missing"]
    names += ["grade=1", "grade=2", "grade=3", "price"]
    assert data.facts["feature_names"] == names
    assert (data.facts["num_features"], data.facts["num_classes"]) == (10, 2)
    assert data.facts["class_names"] == ["no", "yes"]
    # Which rows are where is told by price, the only column whose values all differ.
    column = data.facts["columns"][3]
    seen = []
    inputs = {name: everything(data, name) for name in data.splits}
    ids = {}
    for name, batch in inputs.items():
        prices = batch["input"][:, 9].double() * column["std"] + column["mean"]
        ids[name] = ((prices - 100.5) / 3).round().long().tolist()
        seen += ids[name]
    assert sorted(seen) == list(range(60))
    assert {name: len(members) for name, members in ids.items()} == {"train": 42, "val": 6, "test": 12}
    known = [float(row[SIZE]) for row in rows() if row[SIZE] and int(row[0]) in ids["train"]]
    median = sorted(known)[len(known) // 2] if len(known) % 2 else sum(sorted(known)[len(known) // 2 - 1 :][:2]) / 2
    sizes = {int(row[0]): float(row[SIZE]) if row[SIZE] else median for row in rows()}
    of_train = torch.tensor([sizes[i] for i in ids["train"]], dtype=torch.float64)
    mean, std = of_train.mean().item(), of_train.std(correction=0).item()
    for name, batch in inputs.items():
        for place, i in enumerate(ids[name]):
            row, found = rows()[i], batch["input"][place]
            assert found[0].item() == pytest.approx((sizes[i] - mean) / std, abs=1e-5)
            assert found[1] == (row[SIZE] == "")
            assert found[2:6].tolist() == [row[CITY] == city for city in ("Bern", "Oslo", "Rome", "NA")]
            assert found[6:9].tolist() == [row[GRADE] == grade for grade in "123"]
            assert batch["target"][place] == (row[SOLD] == "yes")
    assert inputs["train"]["input"].dtype == torch.float32
    assert inputs["train"]["target"].dtype == torch.int64
    torch.testing.assert_close(inputs["train"]["input"][:, 0].mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    said = capsys.readouterr().err
    assert "left out, being the same in all training rows: same." in said
    assert "5 columns as 10 features; sold is 2 classes (no, yes); rows 42 train, 6 val, 12 test." in said


def test_a_regression_is_standardised_by_training_rows(tmp_path: Path) -> None:
    path = write(tmp_path, rows())
    data, plain = (read(path, target="price", kind="regression", standardize_target=on) for on in (True, False))
    target = everything(plain, "train")["target"]
    assert target.shape == (42, 1)
    assert target.dtype == torch.float32
    assert (plain.facts["target_mean"], plain.facts["target_std"]) == (0.0, 1.0)
    assert data.facts["target_mean"] == pytest.approx(target.mean().item())
    assert data.facts["target_std"] == pytest.approx(target.std(correction=0).item())
    assert (data.facts["num_classes"], data.facts["class_names"]) == (1, None)
    for name in data.splits:
        scaled = everything(data, name)["target"] * data.facts["target_std"] + data.facts["target_mean"]
        torch.testing.assert_close(scaled, everything(plain, name)["target"])


def test_the_split_is_by_seed_and_stratified(tmp_path: Path) -> None:
    path = write(tmp_path, rows())
    targets = {seed: everything(read(path, split_seed=seed), "test") for seed in (0, 1)}
    again = everything(read(path, split_seed=0), "test")
    assert torch.equal(targets[0]["input"], again["input"])
    assert not torch.equal(targets[0]["input"], targets[1]["input"])
    assert [int(batch["target"].sum()) for batch in targets.values()] == [5, 5]  # two fifths of 12


@pytest.mark.parametrize("name", ["semicolon", "tab", "comma"])
def test_separators_are_found_or_named(tmp_path: Path, name: str) -> None:
    expected = everything(read(write(tmp_path, rows())), "test")["input"]
    path = write(tmp_path, rows(), separator={"semicolon": ";", "tab": "\t", "comma": ","}[name])
    assert torch.equal(everything(read(path), "test")["input"], expected)
    assert torch.equal(everything(read(path, separator=name), "test")["input"], expected)
    if name != "comma":
        assert "one column only; say data.separator=" in refusal(path, separator="comma")


def test_a_byte_order_mark_quotes_and_blank_lines_are_read(tmp_path: Path) -> None:
    text = '\ufeff"first, one",answer\r\n\r\n" 1.5 ",a\r\n"-2e1","b"\r\n'.encode()
    table = read_table(text, "t.csv")
    assert table.cells == {"first, one": ["1.5", "-2e1"], "answer": ["a", "b"]}
    assert table.lines == [3, 4]


def test_lines_are_counted_through_cells_that_span_several(tmp_path: Path) -> None:
    table = read_table(b'text,answer\n"two\nlines",a\nplain,b\n', "t.csv")
    assert table.lines == [2, 4]


def test_other_encodings_are_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, changed(3, CITY, "Zürich"))
    expected = everything(read(path), "train")["input"]
    text = path.read_text(encoding="utf-8")
    path.write_bytes(text.encode("cp1252"))
    assert "line 5 is not utf-8: say how the file is encoded, as in data.encoding=cp1252" in refusal(path)
    assert torch.equal(everything(read(path, encoding="cp1252"), "train")["input"], expected)
    path.write_bytes(text.encode("utf-16"))
    assert "data.encoding=utf-16" in refusal(path)
    assert torch.equal(everything(read(path, encoding="utf-16"), "train")["input"], expected)
    path.write_bytes("a,b".encode("utf-16-le"))
    assert "zero bytes" in refusal(path)
    path.write_bytes(b"\x89PNG\0\0\xaa" * 30)
    assert "zero bytes: it is no text" in refusal(path)
    assert "data.encoding=utf-nine: no such encoding" in refusal(path, encoding="utf-nine")
    path.write_bytes(b"PK\x03\x04")
    assert "spreadsheet" in refusal(path)


@pytest.mark.parametrize(
    ("table", "header", "options", "sentence"),
    [
        (changed(3, SIZE, "abc"), HEADER, {}, "column 'size' holds numbers, but not in line 5: 'abc'"),
        (changed(3, SIZE, "12,5"), HEADER, {}, "column 'size': numbers with commas in line 5: '12,5'"),
        (changed(3, SIZE, "1_0"), HEADER, {}, "not in line 5: '1_0'"),
        (changed(3, SIZE, "inf"), HEADER, {}, "column 'size': not a finite number in line 5: 'inf'"),
        (changed(3, SIZE, "-1e999"), HEADER, {}, "not a finite number in line 5: '-1e999'"),
        (changed(3, SOLD, ""), HEADER, {}, "no sold in line 5; fill it in"),
        (changed(3, SOLD, "maybe"), HEADER, {}, "class 'maybe' has 1 example, too few for one in each"),
        (changed(3, PRICE, "x"), HEADER, {"target": "price", "kind": "regression"}, "not a finite number in line 5"),
        (changed(3, PRICE, "2,5"), HEADER, {"target": "price", "kind": "regression"}, "with commas in line 5: '2,5'"),
        (rows(), HEADER, {"target": "price"}, "price has 60 different values in 60 rows, too many for classes"),
        (rows(), HEADER, {"target": "same"}, "same is 7 in every row"),
        (rows(), HEADER, {"target": "same", "kind": "regression"}, "same is 7 in every training row"),
        (rows(), HEADER, {"target": "slod"}, "data.target=slod: PATH has no such column; did you mean 'sold'?"),
        (rows(), HEADER, {"target": None}, "data.target=null: say which column to predict; PATH has size, city, same"),
        (rows(), HEADER, {"ignore": ["ID"]}, "data.ignore=ID: PATH has no such column; there are id, size"),
        (rows(), HEADER, {"categorical": ["grad"]}, "data.categorical=grad: PATH has no such column; did you mean"),
        (rows(), HEADER, {"ignore": ["id", *HEADER[1:5], "price"]}, "no column is left to predict from"),
        (rows(), [*HEADER[:-1], "size"], {}, "line 1: more than one column is called size"),
        (rows(), ["", *HEADER[1:]], {"ignore": []}, "line 1: column 1 has no name"),
        (rows()[1:], rows()[0][:2] + list("12345"), {}, "the first line must name the columns"),
        ([*rows(), ["1", "2"]], HEADER, {}, "the header has 7 cells, but line 62 has 2"),
        (rows(9), HEADER, {}, "has 9 rows, and at least 10 are needed"),
        ([], HEADER, {}, "has 0 rows"),
        ([[*row[:2], f"street {row[0]}", *row[3:]] for row in rows(200)], HEADER, {}, "'city' holds 140 categories"),
        ([[*row[:6], f"{row[0]}e200"] for row in rows()], HEADER, {}, "'price': the numbers are too large"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(
    tmp_path: Path, table: list[list[str]], header: list[str], options: dict[str, Any], sentence: str
) -> None:
    path = write(tmp_path, table, header)
    assert sentence.replace("PATH", str(path)) in refusal(path, **options)


def test_unclosed_quotes_and_empty_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text('size,sold\n1,a\n"2,b\n3,a\n')
    assert "line 3: unexpected end of data; look for a stray or missing quotation mark" in refusal(path)
    path.write_text("\n")
    assert "is empty" in refusal(path)
    path.unlink()
    assert "cannot read" in refusal(path)
    assert "cannot read" in refusal(tmp_path)
    with pytest.raises(ZooError, match=r"data\.path=null"):
        CsvTable().setup()


def test_at_most_five_lines_are_listed(tmp_path: Path) -> None:
    table = rows()
    for row in range(8):
        table[row][SOLD] = "?"
    assert "no sold in line 2, 3, 4, 5, 6, and 3 more;" in refusal(write(tmp_path, table))


def test_what_is_left_out_or_unexpected_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = read(write(tmp_path, changed(3, SOLD, "")), drop_missing_target=True)
    assert sum(len(split) for split in data.splits.values()) == 59
    assert "rows without sold left out: line 5." in capsys.readouterr().err
    data = read(write(tmp_path, rows(), ["", *HEADER[1:]]), ignore=["column 1"])
    assert "column 1" not in data.facts["feature_names"]
    capsys.readouterr()
    table = [[*row[:2], row[CITY] if i % 2 else "5", *row[3:]] for i, row in enumerate(rows())]
    read(write(tmp_path, table))
    assert "column 'city': 30 of 60 cells are numbers, read as categories with the others." in capsys.readouterr().err


def test_new_rows_are_encoded_as_training_rows_were(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = read(write(tmp_path, rows()))
    kept = yaml.safe_load(yaml.safe_dump(data.preprocessing))  # primitives, exact to the last digit
    assert kept["columns"] == data.facts["columns"]
    table = read_table(b"price,grade,city,size\n106.5,,Paris,?\n", "new.csv", separator=kept["separator"])
    capsys.readouterr()
    found = encode(table, kept["columns"], "new.csv")
    size, _, grade, price = kept["columns"]
    expected = [(size["median"] - size["mean"]) / size["std"], 1, 0, 0, 0, 0]
    expected += [(grade["median"] - grade["mean"]) / grade["std"], (106.5 - price["mean"]) / price["std"]]
    torch.testing.assert_close(found, torch.tensor([expected], dtype=torch.float32))
    assert len(feature_names(kept["columns"])) == found.shape[1]
    said = capsys.readouterr().err
    assert "column 'city': 1 cells hold Paris, not among the training rows: all zeros." in said
    assert "column 'grade': 1 cells are missing, none among the training rows: the median of the training rows." in said
    with pytest.raises(ZooError, match="'price': not a finite number in line 2: 'high'"):
        encode(read_table(b"price,grade,city,size\nhigh,1,Rome,1\n", "new.csv"), kept["columns"], "new.csv")
    with pytest.raises(ZooError, match=r"size: new\.csv has no such column"):
        encode(read_table(b"price,grade,city\n1,1,Rome\n", "new.csv"), kept["columns"], "new.csv")


def test_a_stored_config_reads_the_same_and_notices_a_changed_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, rows())
    data = read(path)
    capsys.readouterr()
    again = read(path, **data.facts)
    assert again.facts == data.facts
    for name in data.splits:
        for key, value in everything(data, name).items():
            assert torch.equal(value, everything(again, name)[key])
    assert "is not what the run was trained on" not in capsys.readouterr().err
    write(tmp_path, [[row[0], row[SIZE] and f"{row[SIZE]}e1", *row[2:]] for row in rows()])
    other = read(path, **data.facts)
    assert f"is not what the run was trained on (fingerprint {data.facts['fingerprint']}," in capsys.readouterr().err
    assert other.facts["columns"] == data.facts["columns"]  # encoded by the rows of the training
    write(tmp_path, changed(3, SOLD, "perhaps"))
    assert "'perhaps' in line 5: not among the classes no, yes" in refusal(path, **data.facts)
    write(tmp_path, rows())
    assert "data.num_features=9: these data have 8" in refusal(path, num_features=9)


def test_classes_that_are_numbers_are_in_order_of_value(tmp_path: Path) -> None:
    table = [[*row[:5], str(8 + int(row[0]) % 3), row[6]] for row in rows()]
    assert read(write(tmp_path, table)).facts["class_names"] == ["8", "9", "10"]


def test_arguments_are_checked() -> None:
    for options, sentence in [
        ({"kind": "ranking"}, "kind=ranking: must be classification or regression"),
        ({"separator": "pipe"}, "separator='pipe': must be auto"),
        ({"val_fraction": 0.0}, "val_fraction=0.0: must be above 0 and below 1"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "must leave some for training"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            CsvTable(**options)  # type: ignore[arg-type]


def test_every_split_has_every_class_even_where_its_fraction_is_smaller(tmp_path: Path) -> None:
    table = [[*row[:5], "abcdefghijkl"[int(row[0]) % 12], row[6]] for row in rows(36)]
    data = read(write(tmp_path, table))
    for name in ("train", "val", "test"):
        assert sorted(everything(data, name)["target"].tolist()) == list(range(12))


def test_a_table_is_not_augmented(tmp_path: Path) -> None:
    path = write(tmp_path, rows())
    assert "only images are augmented; say augment=none" in refusal(path, augment={"flip": 0.5})
    read(path, augment={"flip": 0.0, "shift": 0})
