"""RESULTS.md and PARITY.md are what their JSON files say, and what these say holds."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import parity
import pytest

from zoo import tables
from zoo.checks import options
from zoo.prove import plan, select
from zoo.results import passes, reaches, read_results, row
from zoo.tables import parity_table, results_table

ROOT = Path(__file__).parents[1]
EXPECT = {"metric": "test/accuracy", "floor": 0.9, "goal": 0.95, "baseline": "LR .8", "seeds": [0, 1], "minutes": 1}


def run(seed: int, score: float, **more: Any) -> dict[str, Any]:
    about = {"command": ["train"], "commit": f"c{seed}", "versions": {"python": "3", "torch": "2"}}
    about |= {"hardware": {"cores": 2, "threads": 1, "machine": "x86"}, "started": f"2026-01-0{seed + 1}"}
    return {
        "seed": seed,
        "inputs": f"hash{seed}",
        "scores": {"test/accuracy": score, "val/accuracy": 0.5},
        "evaluated": {"test/accuracy": score},
        "seconds": 60.0 * (seed + 1),
        "about": {**about, "choices": {"data": "digits", "model": "toynet"}},
        "counts": {"form": "small", "parameters": 1234, "multiply_adds": 5678, "splits": {"train": 3600, "test": 1000}},
        **more,
    }


def cells(text: str, first: str) -> list[list[str]]:
    """The rows whose first cell is `first`, by their cells."""
    lines = [line for line in text.splitlines() if line.startswith(f"| {first} |")]
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]


def test_a_row_says_all_there_is() -> None:
    paper = "He et al. 2015, 1512.03385; Elman 1990"
    toy = row(EXPECT, [run(1, 0.96), run(0, 0.92)], paper=paper)
    call = {"started": "2026-01-01 10:00", "seconds": 5400.0, "runs": 3, "trained": 2, "jobs": 2, "cores": 2}
    text = results_table({"rows": {"toy": toy}, "calls": {"zoo prove jobs=2": call}})
    scores, provenance = cells(text, "toy")
    assert scores == [
        *("toy", "toynet, small", "[He et al. 2015](https://arxiv.org/abs/1512.03385); Elman 1990"),
        *("1,234", "5,678", "digits: 3,600 / 0 / 1,000", "test/accuracy", "0.9400 ± 0.0283", "2", "LR .8"),
        *("0.9", "0.95", "floor", "1.5"),
    ]
    assert provenance == [
        *("toy", "x86, 1 of 2 cores", "A", "c0, c1", "hash0 hash1", "2026-01-01"),
        "`python train.py experiment=toy`",
    ]
    assert "- A: python 3, torch 2\n" in text
    wall = "- `zoo prove jobs=2`: 2 of 3 runs trained in 90 minutes, 2 at a time, 2 cores (2026-01-01 10:00).\n"
    assert text.endswith(wall)
    heads = [line for line in text.splitlines() if line.startswith("| experiment")]
    assert [head.count("|") - 1 for head in heads] == [len(scores), len(provenance)]


def test_what_is_not_known_is_a_dash_and_gpus_are_named() -> None:
    only = run(0, 0.97, seconds=None, inputs=None)
    only["about"]["hardware"]["gpu"] = "H100"
    only["counts"]["form"] = None
    toy = row(EXPECT, [only], paper=None)
    scores, provenance = cells(results_table({"rows": {"toy": toy}, "calls": {}}), "toy")
    assert scores[1:3] == ["toynet", "—"]
    assert scores[7:9] == ["0.9700", "1"]
    assert scores[-2:] == ["goal", "—"]
    assert provenance[1] == "H100"
    assert provenance[4] == "—"


def test_a_row_that_fails_says_so() -> None:
    low = row(EXPECT, [run(0, 0.89)], paper=None)
    drifted = row(EXPECT, [run(0, 0.92, evaluated={"test/accuracy": 0.92 + 1e-12})], paper=None)
    text = results_table({"rows": {"low": low, "drifted": drifted}, "calls": {}})
    assert cells(text, "low")[0][-2] == "**no**"
    assert cells(text, "drifted")[0][-2] == "**not reproduced: 1e-12**"


@pytest.mark.parametrize(
    ("floor", "goal", "mean", "met"),
    [
        *((0.9, 0.95, 0.9, "floor"), (0.9, 0.95, 0.89, "**no**"), (0.9, 0.9, 0.9, "goal"), (0.9, 0.9, 0.8, "**no**")),
        *((30, 25, 31, "**no**"), (30, 25, 29, "floor"), (30, 25, 25, "goal")),
    ],
)
def test_bars_where_lower_is_better(floor: float, goal: float, mean: float, met: str) -> None:
    entry = row(EXPECT | {"floor": floor, "goal": goal}, [run(0, mean)], paper=None)
    assert passes(entry) is reaches(entry, "floor") is (met != "**no**")
    text = results_table({"rows": {"toy": entry}, "calls": {}})
    assert cells(text, "toy")[0][-2] == met
    assert ("test/accuracy ↓" in text) is (goal < floor)


# Judged ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def maker() -> dict[str, Any]:
    """A row of an experiment that makes pictures."""
    expect = EXPECT | {"metric": "judged/frechet_distance", "judge": "classifier", "floor": 1200, "goal": 1000}
    runs = []
    for seed in range(3):
        judged = {"frechet_distance": 1000.4 + 100 * seed, "frechet_distance_std": 7.0}
        judged |= {"noise/frechet_distance": 21234.5, "noise/frechet_distance_std": 12.34}
        judged |= {"nearest_distance_of_held_out": 5.678}
        runs.append(run(seed, 0.9))
        runs[-1]["scores"] |= {f"judged/{name}": value for name, value in judged.items()}
    return row(expect, runs, paper=None)


def test_the_table_of_what_was_judged(maker: dict[str, Any]) -> None:
    text = results_table({"rows": {"maker": maker}, "calls": {}})
    assert "| judged/frechet_distance ↓ | 1100.4 ± 100.0 | 3 |" in text
    first, _, judged = text.partition("## Judged")
    assert "*noise*" not in first
    judged = judged.partition("## Provenance")[0]
    rows = {line.split(" | ")[0][2:]: line[1:-1].split("|") for line in judged.splitlines() if line.startswith("| ")}
    found = {name: [cell.strip() for cell in row[1:]] for name, row in rows.items()}
    assert list(found) == ["experiment", "maker", "*noise*", "*held-out pictures*"]
    column = {name: place for place, name in enumerate(found["experiment"])}
    assert {found[name][0] for name in list(found)[1:]} == {"classifier"}
    assert found["maker"][column["Fréchet"]] == "1100 ± 100"  # over the seeds of training
    assert found["*noise*"][column["Fréchet"]] == "21234 ± 12"  # over the sets of pictures
    assert found["maker"][column["kernel"]] == found["*noise*"][column["nearest"]] == "—"
    assert found["*held-out pictures*"][column["nearest"]] == "5.68"


def test_baselines_stand_once_for_each_judge(maker: dict[str, Any]) -> None:
    other = {**maker, "expect": {**maker["expect"], "judge": "other"}}
    lines = tables.judged_table({"a": maker, "b": other, "c": maker})
    assert [line.split(" | ")[:2] for line in lines[2:]] == [
        ["| a", "classifier"],
        ["| c", "classifier"],
        ["| *noise*", "classifier"],
        ["| *held-out pictures*", "classifier"],
        ["| b", "other"],
        ["| *noise*", "other"],
        ["| *held-out pictures*", "other"],
    ]


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (1066.2, 3, "1066"),
        (0.01234, 3, "0.0123"),
        (12.345, 3, "12.3"),
        (0.0, 3, "0"),
        (9.0, 2, "9.0"),
        (float("nan"), 3, "nan"),
        (-0.000456, 2, "-0.00046"),
    ],
)
def test_numbers_are_rounded_without_exponents(value: float, digits: int, text: str) -> None:
    assert tables.rounded(value, digits) == text


# Parity ---------------------------------------------------------------------------------------------------------------


def test_a_row_of_parity() -> None:
    rows = {
        "toy": {"twin": "torch.nn", "outputs": 2.22e-16, "gradients": 0.0, "cases": "2: both"},
        "toynet": {"twin": "by hand", "image_size": 28, "parameters": 61706, "outputs": 0.0}
        | {"gradients": 1.04e-15, "weights after a step": 3e-17},
    }
    text = parity_table(rows)
    assert cells(text, "toy") == [["toy", "torch.nn (2: both)", "—", "—", "2e-16", "0", "—"]]
    assert cells(text, "toynet") == [["toynet", "by hand", "61,706", "28", "0", "1e-15", "3e-17"]]
    assert "at 1e-09 and 1e-07" in text
    assert (tables.OUTPUT_BAR, tables.GRADIENT_BAR) == (parity.OUTPUT_BAR, parity.GRADIENT_BAR)


# The files in the repository ------------------------------------------------------------------------------------------


def test_the_command_writes_both_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tables.main() == 2
    assert "There is no results.json here" in capsys.readouterr().err
    shutil.copy(ROOT / "results.json", "results.json")
    Path("parity.json").write_text('{"toy": {"twin": "torch.nn", "outputs": 0.0, "gradients": 0.0}}')
    assert tables.main() == 0
    assert Path("RESULTS.md").read_text(encoding="utf-8") == results_table(read_results(ROOT / "results.json"))
    assert cells(Path("PARITY.md").read_text(encoding="utf-8"), "toy")[0][1] == "torch.nn"


def test_results_are_their_table_and_hold() -> None:
    """Stale? `python -m zoo.tables` writes it anew. Rows of other code are told by `zoo prove --changed dry=true`."""
    results = read_results(ROOT / "results.json")
    assert (ROOT / "RESULTS.md").read_text(encoding="utf-8") == results_table(results)
    assert set(results["rows"]) <= set(select([]))
    for name, entry in results["rows"].items():
        assert entry == row(entry["expect"], entry["runs"], paper=entry["paper"]), name
        assert passes(entry), name
        assert all(one["about"]["choices"]["model"] in options()["model"] for one in entry["runs"]), name
        if entry["expect"].get("judge"):
            assert all("judged_by" in one for one in entry["runs"]), name


def test_rows_of_today_s_code_are_above_the_floors_of_today() -> None:
    """Others await `zoo prove --changed`, which takes hours."""
    rows = read_results(ROOT / "results.json")["rows"]
    stale = []
    for name, expect in select([]).items():
        if plan(name, expect, rows.get(name), None, True).proofs:
            stale.append(name)
        else:
            assert reaches({**rows[name], "expect": expect}, "floor"), name
    print(f"of other code, config or data, or not there: {', '.join(stale) or 'none'}")


def test_parity_is_its_table_and_holds() -> None:
    """Stale? `python -m zoo.tables` writes the table anew."""
    rows = json.loads((ROOT / "parity.json").read_text(encoding="utf-8"))
    assert (ROOT / "PARITY.md").read_text(encoding="utf-8") == parity_table(rows)
    for name, entry in rows.items():
        assert entry["outputs"] <= parity.OUTPUT_BAR, name
        assert (
            max(entry[part] for part in ("gradients", "weights after a step") if part in entry) <= parity.GRADIENT_BAR
        )


def test_every_network_has_a_row_of_parity() -> None:
    rows = json.loads((ROOT / "parity.json").read_text(encoding="utf-8"))
    held = {entry.get("network") for entry in rows.values()}
    for model in options()["model"]:
        text = (ROOT / f"configs/model/{model}.yaml").read_text(encoding="utf-8")
        (kind,) = re.findall(r"^  _target_: zoo\.models\.\w+\.(\w+)$", text, flags=re.MULTILINE)
        assert kind in held, f"{model}: no row of parity.json is of {kind}"
