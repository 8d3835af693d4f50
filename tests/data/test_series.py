"""Time series: which rows are in which window and split, the baselines on sunspots, every sentence about odd files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import compose_config
from hydra.utils import instantiate
from numpy.lib.stride_tricks import sliding_window_view

from zoo.data.series import CsvSeries, Series, Sunspots
from zoo.errors import ZooError


def everything(data: Series, split: str) -> dict[str, torch.Tensor]:
    size = torch.arange(len(data.splits[split]))
    return data.splits[split].batch(0, size, size)


def arrays(data: Series, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Windows (M, window, F) and targets (M, horizon) in the unit of the file."""
    batch, facts = everything(data, split), data.facts
    inputs = batch["input"].double().numpy() * np.array(facts["std"]) + np.array(facts["mean"])
    return inputs, batch["target"].double().numpy() * facts["target_std"] + facts["target_mean"]


def rmse(error: np.ndarray) -> float:
    return float(np.sqrt(np.mean(error**2)))


# Sunspots -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sunspots() -> Sunspots:
    data: Sunspots = instantiate(compose_config(["data=sunspots"]).data)
    data.setup()
    return data


def test_sunspots_baselines(sunspots: Sunspots) -> None:
    """The last fifth of the windows of eleven years: persistence 32.9, a ridge regression on the eleven 19.3."""
    parts = {name: arrays(sunspots, name) for name in ("train", "val", "test")}
    assert [len(target) for _, target in parts.values()] == [198, 40, 60]
    inputs, target = parts["test"]
    assert rmse(inputs[:, -1] - target) == pytest.approx(32.90, abs=0.01)
    past = np.concatenate([parts["train"][0], parts["val"][0]])[:, :, 0]
    known = np.concatenate([parts["train"][1], parts["val"][1]])
    centred = past - past.mean(0)
    weights = np.linalg.solve(centred.T @ centred + np.eye(11), centred.T @ (known - known.mean()))
    forecast = (inputs[:, :, 0] - past.mean(0)) @ weights + known.mean()
    assert rmse(forecast - target) == pytest.approx(19.34, abs=0.01)


def test_sunspots_windows_are_consecutive_years(sunspots: Sunspots) -> None:
    file = Path(__file__).parents[2] / "zoo" / "data" / "files" / "sunspots.csv"
    years = np.loadtxt(file, delimiter=",", skiprows=1)
    assert (years[0, 0], years[-1, 0], len(years)) == (1700, 2008, 309)
    found = [arrays(sunspots, name) for name in ("train", "val", "test")]
    inputs, target = (np.concatenate(part) for part in zip(*found, strict=True))
    np.testing.assert_allclose(inputs[:, :, 0], sliding_window_view(years[:-1, 1], 11), atol=1e-4)
    np.testing.assert_allclose(target[:, 0], years[11:, 1], atol=1e-4)
    assert sunspots.facts["target_mean"] == pytest.approx(years[:209, 1].mean())
    assert sunspots.facts["target_std"] == pytest.approx(years[:209, 1].std())
    assert sunspots.facts["season"] == 11


def test_horizons_and_windows_follow_the_command() -> None:
    data: Sunspots = instantiate(compose_config(["data=sunspots", "data.window=22", "data.horizon=5"]).data)
    data.setup()
    facts = data.facts
    assert (facts["num_classes"], facts["horizon"], facts["sequence_length"], facts["num_features"]) == (5, 5, 22, 1)
    sizes = {name: len(split) for name, split in data.splits.items()}
    assert sizes == {"train": 209 - 22 - 4, "val": 36, "test": 56}
    batch = everything(data, "test")
    assert batch["input"].shape == (56, 22, 1)
    assert batch["target"].shape == (56, 5)
    assert batch["input"].dtype == batch["target"].dtype == torch.float32
    # step s of the target that begins one row later is step s + 1 of this one, and then it is in the window
    assert torch.equal(batch["target"][1:, :-1], batch["target"][:-1, 1:])
    assert torch.equal(batch["input"][1:, -1, 0], batch["target"][:-1, 0])


@pytest.mark.parametrize("name", ["window", "horizon", "season"])
def test_lengths_are_at_least_one(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=0: must be at least 1"):
        Sunspots(**{name: 0})


def test_series_are_not_augmented() -> None:
    with pytest.raises(ZooError, match="augment=none"):
        Sunspots(augment={"shift": 2})


# A person's own series ------------------------------------------------------------------------------------------------


def cells(count: int = 100) -> list[list[str]]:
    generator = np.random.default_rng(0)
    wind, rain = generator.normal(5, 2, count), generator.normal(100, 50, count)
    return [[f"{1900 + i}", f"{wind[i]:.3f}", "x", f"{rain[i]:.2f}"] for i in range(count)]


def write(folder: Path, rows: list[list[str]], header: str = "year,wind,note,rain", separator: str = ",") -> Path:
    path = folder / "series.csv"
    lines = [header, *(",".join(row) for row in rows)]
    path.write_text("\n".join(lines).replace(",", separator) + "\n", encoding="utf-8")
    return path


def read(path: Path, **options: Any) -> CsvSeries:
    data = CsvSeries(path=str(path), **{"target": "rain", "inputs": ["wind"], "window": 5, **options})
    data.setup()
    return data


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(ZooError) as raised:
        read(path, **options)
    message = str(raised.value)
    assert message.count("\n") == 0
    assert message.endswith((".", "?"))
    return message


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_target_comes_first_and_time_splits(tmp_path: Path, separator: str) -> None:
    data = read(write(tmp_path, cells(), separator=separator), time="year", horizon=3)
    values = np.array([[float(row[3]), float(row[1])] for row in cells()])
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 63, "val": 8, "test": 18}
    facts = data.facts
    assert (facts["num_features"], facts["num_classes"], facts["sequence_length"]) == (2, 3, 5)
    assert facts["feature_names"] == ["rain", "wind"]
    np.testing.assert_allclose(facts["mean"], values[:70].mean(0))
    np.testing.assert_allclose(facts["std"], values[:70].std(0))
    for name, first in (("train", 5), ("val", 70), ("test", 80)):
        inputs, target = arrays(data, name)
        np.testing.assert_allclose(inputs[0], values[first - 5 : first], atol=1e-3)
        np.testing.assert_allclose(target[0], values[first : first + 3, 0], atol=1e-3)
    np.testing.assert_allclose(arrays(data, "train")[1][-1], values[67:70, 0], atol=1e-3)
    np.testing.assert_allclose(arrays(data, "test")[1][-1], values[-3:, 0], atol=1e-3)
    assert data.preprocessing["feature_names"] == ["rain", "wind"]
    assert data.preprocessing["separator"] == "auto"


def test_shares_of_the_rows(tmp_path: Path) -> None:
    data = read(write(tmp_path, cells()), val_fraction=0.25, test_fraction=0.3)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 40, "val": 25, "test": 30}


def test_statistics_of_training_are_kept_for_another_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = read(write(tmp_path, cells())).facts
    rows = cells(50)
    for row in rows[:35]:
        row[1] = "7.0"  # flat where a training would measure: nothing is learnt from this file
    other = write(tmp_path, rows)
    again = read(other, mean=facts["mean"], std=facts["std"], fingerprint=facts["fingerprint"])
    assert again.facts["mean"] == facts["mean"]
    assert again.facts["target_std"] == facts["target_std"]
    np.testing.assert_allclose(arrays(again, "test")[1][-1], float(cells(50)[-1][3]), atol=1e-3)
    assert "is not what the run was trained on" in capsys.readouterr().err
    assert "data.num_features=1: these data have 2" in refusal(other, num_features=1)


def test_odd_cells_are_named_by_line_and_column(tmp_path: Path) -> None:
    rows = cells()
    rows[6][3] = "NA"
    assert "column 'rain': no value in line 8;" in refusal(write(tmp_path, rows))
    rows[6][3] = "12;5"
    assert "column 'rain': not a finite number in line 8: '12;5';" in refusal(write(tmp_path, rows), separator="comma")
    rows[6][3] = "inf"
    assert "not a finite number in line 8: 'inf'" in refusal(write(tmp_path, rows))
    rows[6][3] = "1e300"
    assert "column 'rain': the numbers are too large" in refusal(write(tmp_path, rows))
    rows[6][3], rows[99][1] = "1", "3e200"  # in test
    assert "column 'wind': the numbers are too large" in refusal(write(tmp_path, rows))
    rows[99][1] = ""
    assert "column 'wind': no value in line 101;" in refusal(write(tmp_path, rows))
    assert read(write(tmp_path, rows), inputs=[]).facts["num_features"] == 1  # a column not used may have gaps


@pytest.mark.parametrize(
    ("row", "cell", "sentence"),
    [
        (50, "1949", "column 'year' line 52: 1949 does not come after 1949; sort the rows"),
        (50, "1800", "column 'year' line 52: 1800 does not come after 1949; sort the rows"),
        (50, "19S0", "unlike the other rows: line 52: '19S0'; mend"),
        (50, "", "unlike the other rows: line 52: ''; mend"),
        (50, "1950-01", "unlike the other rows: line 52: '1950-01'; mend"),
    ],
)
def test_time_must_rise(tmp_path: Path, row: int, cell: str, sentence: str) -> None:
    rows = cells()
    rows[row][0] = cell
    path = write(tmp_path, rows)
    assert sentence in refusal(path, time="year")
    assert read(path).facts["num_features"] == 2  # only where it is asked for


def test_numbers_are_compared_as_numbers_and_dates_as_dates(tmp_path: Path) -> None:
    rows = cells()
    for i, row in enumerate(rows):
        row[0] = str(i)  # as text, 10 would come before 9
    read(write(tmp_path, rows), time="year")
    for i, row in enumerate(rows):
        row[0] = f"{2000 + i // 12}-{1 + i % 12:02d}-05 10:30"
    read(write(tmp_path, rows), time="year")
    rows[30], rows[31] = rows[31], rows[30]
    assert "line 33: 2002-07-05 10:30 does not come after 2002-08-05 10:30" in refusal(
        write(tmp_path, rows), time="year"
    )


def test_columns_must_be_there_once(tmp_path: Path) -> None:
    path = write(tmp_path, cells())
    assert "data.target=rian: " in (message := refusal(path, target="rian"))
    assert "did you mean 'rain'?" in message
    assert "data.inputs=win: " in refusal(path, inputs=["win"])
    assert "data.time=day: " in refusal(path, time="day")
    assert "data.target=null: say which column to forecast" in refusal(path, target=None)
    assert "name each column once" in refusal(path, inputs=["wind", "wind"])
    assert "the target not at all" in refusal(path, inputs=["rain"])
    assert "column 'note': not a finite number in line 2: 'x'" in refusal(path, inputs=["note"])
    with pytest.raises(ZooError, match=r"data\.path=null"):
        CsvSeries(target="rain").setup()
    assert "cannot read" in refusal(tmp_path / "none.csv")


def test_a_series_that_is_too_short_or_flat(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, cells()), window=69)
    assert "The train part of the series has 70 rows, and window=69 horizon=1 need 71: " in message
    assert len(read(write(tmp_path, cells()), window=68).splits["train"]) == 2
    assert "The val part of the series has 10 rows, and window=5 horizon=10 need 11" in refusal(
        write(tmp_path, cells()), horizon=10
    )
    assert "or a larger data.val_fraction." in refusal(write(tmp_path, cells()), val_fraction=0.001)
    assert "The train part of the series has 0 rows" in refusal(write(tmp_path, []))
    rows = cells()
    for row in rows[:70]:
        row[1] = "7.0"
    assert "column 'wind' is 7 in all 70 training rows" in refusal(write(tmp_path, rows))


def test_a_season_longer_than_the_window_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read(write(tmp_path, cells()), season=5)
    assert "seasonal" not in capsys.readouterr().err
    read(write(tmp_path, cells()), season=6)
    assert "data.season=6 is more than data.window=5: no seasonal forecast" in capsys.readouterr().err


def test_one_column_is_a_series(tmp_path: Path) -> None:
    path = tmp_path / "series.csv"
    path.write_text("rain\n" + "".join(f"{i % 7}\n" for i in range(100)), encoding="utf-8")
    assert read(path, inputs=[]).facts["feature_names"] == ["rain"]
    path.write_text(f'"rain; mm"\n{path.read_text().removeprefix("rain")}', encoding="utf-8")
    assert read(path, inputs=[], target="rain; mm").facts["num_features"] == 1
    path = write(tmp_path, cells(), separator="|")
    assert refusal(path) == f"{path} line 1: one column only; write commas, semicolons or tabs for |."
    path = write(tmp_path, cells(), separator=";")
    assert refusal(path, separator="comma") == f"{path} line 1: one column only; say data.separator=semicolon."


def test_files_that_are_no_table(tmp_path: Path) -> None:
    path = tmp_path / "series.csv"
    path.write_bytes(b"")
    assert "is empty" in refusal(path)
    path.write_text("1900,1,2,3\n1901,2,3,4\n")
    assert "the first line must name the columns" in refusal(path)
    text = "year,rain,Größe\n" + "".join(f"{i},{i % 7},{i % 5}\n" for i in range(100))
    path.write_bytes(text.encode("cp1252"))
    assert "line 1 is not utf-8: say how the file is encoded, as in data.encoding=cp1252" in refusal(path, inputs=[])
    assert read(path, inputs=["Größe"], encoding="cp1252").facts["feature_names"] == ["rain", "Größe"]
    path.write_bytes(text.encode("utf-16"))
    assert read(path, inputs=[], encoding="utf-16").facts["num_features"] == 1
