"""`zoo prove`: which runs it starts, continues and skips, what it compares, what it writes."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from zoo import prove
from zoo.checks import options
from zoo.errors import ZooError

ROOT = Path(__file__).parents[1]

# A stand-in for `zoo train`, two processes as in earnest: it stops half-way when told to, and continues with resume=.
TRAINER = """
import json, os, pathlib, sys
words = dict(word.split("=", 1) for word in sys.argv[1:])
resumed = "resume" in words
folder = pathlib.Path(words.get("resume") or words["run_dir"])
assert resumed or not folder.exists()
(folder / "checkpoints").mkdir(parents=True, exist_ok=True)
with open("calls", "a") as calls:
    calls.write(" ".join(sys.argv[1:]) + chr(10))
if os.environ.get("STOP") == "before":
    sys.exit("no checkpoint yet")
(folder / "checkpoints" / "last.ckpt").touch()
if os.environ.get("STOP") and not resumed:
    sys.exit("stopped half-way")
print("epoch 1")
seed = int(folder.name[4])
scores = {"test/accuracy": 0.9 + seed / 100, "test/loss": 1 / 3, "val/accuracy": 0.5}
(folder / "scores.json").write_text(json.dumps(scores))
about = {"command": sys.argv, "commit": "abc", "versions": {"torch": "2"}, "hardware": {"cores": 2, "machine": "x86"}}
(folder / "run.json").write_text(json.dumps(about | {"choices": {"data": "digits"}, "started": "now"}))
"""
EXAMINER = """
import json, os, pathlib, sys
scores = json.loads((pathlib.Path(sys.argv[1]) / "scores.json").read_text())
scores = {name: value for name, value in scores.items() if name.startswith(sys.argv[2])}
scores["test/loss"] += float(os.environ.get("DRIFT", 0))
print("noise")
counts = {"form": "small", "parameters": 1234, "multiply_adds": 5678, "splits": {"train": 3600, "test": 1000}}
print(json.dumps({"scores": scores} | counts))
"""
# A stand-in for `zoo judge`: what it finds depends on the generator's seed and on the judge.
JUDGER = """
import json, os, pathlib, sys
generator, judge = map(pathlib.Path, sys.argv[1:])
assert (generator / "scores.json").exists() and (judge / "scores.json").exists()
with open("calls", "a") as calls:
    calls.write(f"judge {generator} by {judge}" + chr(10))
if os.environ.get("STOP") == "judging":
    sys.exit("stopped in judging")
print("seed 0: 2,000 samples")
found = {"frechet_distance": 1000.4 + 100 * int(generator.name[4]), "frechet_distance_std": 7.0}
found |= {"noise/frechet_distance": 21234.5, "noise/frechet_distance_std": 12.34, "nearest_distance_of_held_out": 5.678}
print(json.dumps({f"judged/{name}": value for name, value in found.items()}))
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(prove, "TRAIN", [sys.executable, "-c", TRAINER])
    monkeypatch.setattr(prove, "EXAMINE", [sys.executable, "-c", EXAMINER])
    expect = {
        "metric": "test/accuracy",
        "floor": 0.9,
        "goal": 0.95,
        "baseline": "LR .8",
        "seeds": [0, 1, 2],
        "minutes": 1,
    }
    monkeypatch.setattr(prove, "select", lambda patterns: {"toy": expect})
    monkeypatch.setattr(prove, "compose", lambda experiment, seed: {"seed": seed, "expect": expect})
    return tmp_path


def calls(place: Path) -> list[str]:
    return (place / "calls").read_text().splitlines() if (place / "calls").exists() else []


def test_trains_each_seed_once_and_writes_the_results(place: Path) -> None:
    assert prove.main([]) == 0
    assert [call.split()[:2] for call in calls(place)] == [["experiment=toy", f"seed={seed}"] for seed in range(3)]
    entry = json.loads((place / "results.json").read_text())["toy"]
    assert entry["mean"] == pytest.approx(0.91)
    assert entry["std"] == pytest.approx(0.01)  # of the sample: n - 1
    assert entry["largest_difference"] == 0
    assert [run["scores"]["test/accuracy"] for run in entry["runs"]] == [0.9, 0.91, 0.92]
    assert all(run["seconds"] > 0 and run["about"]["commit"] == "abc" for run in entry["runs"])
    row = next(line for line in (place / "RESULTS.md").read_text().splitlines() if line.startswith("| toy"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:5] == ["toy", "small", "1,234", "5,678", "digits: 3,600 / 0 / 1,000"]
    assert cells[5:8] == ["test/accuracy", "0.9100 ± 0.0100", "3"]
    assert cells[8:12] == ["LR .8", "0.9", "0.95", "floor"]
    assert prove.main([]) == 0
    assert len(calls(place)) == 3  # what is finished is not run again


def test_an_interrupted_run_is_continued(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOP", "half-way")
    with pytest.raises(ZooError, match=r"toy seed 0: training stopped with exit code 1: stopped half-way"):
        prove.main(["seeds=1"])
    monkeypatch.delenv("STOP")
    assert prove.main(["seeds=1"]) == 0
    first, second = calls(place)
    folder = first.rpartition("run_dir=")[2]
    assert second == f"resume={folder}"
    assert json.loads((place / "results.json").read_text())["toy"]["runs"][0]["seconds"] is None  # not the whole time
    assert "| — |" in (place / "RESULTS.md").read_text()


def test_a_run_without_a_checkpoint_starts_over(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOP", "before")
    with pytest.raises(ZooError, match="no checkpoint yet"):
        prove.main(["seeds=1"])
    monkeypatch.delenv("STOP")
    assert prove.main(["seeds=1"]) == 0
    first, second = calls(place)
    assert first == second


@pytest.fixture
def generator(place: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An experiment that makes pictures, whose judge is another."""
    monkeypatch.setattr(prove, "JUDGE", [sys.executable, "-c", JUDGER])
    expect = {"metric": "judged/frechet_distance", "judge": "classifier", "floor": 1200, "goal": 1000}
    expect |= {"baseline": "noise", "seeds": [0, 1, 2], "minutes": 1}
    monkeypatch.setattr(prove, "select", lambda patterns: {"maker": expect})
    monkeypatch.setattr(prove, "compose", lambda experiment, seed: {"experiment": experiment, "seed": seed})
    return expect


def test_what_makes_pictures_is_judged_by_a_classifier_trained_first(generator: dict[str, Any], place: Path) -> None:
    assert prove.main([]) == 0
    done = [call.split() for call in calls(place)]
    assert done[0][:2] == ["experiment=classifier", "seed=0"]
    judge = done[0][2].removeprefix("run_dir=")
    trained = [call[2].removeprefix("run_dir=") for call in done[1::2]]
    assert [call[:2] for call in done[1::2]] == [["experiment=maker", f"seed={seed}"] for seed in range(3)]
    assert done[2::2] == [["judge", folder, "by", judge] for folder in trained]
    results = json.loads((place / "results.json").read_text())
    assert list(results) == ["maker"]  # nobody asked to prove the judge
    entry = results["maker"]
    assert entry["mean"] == pytest.approx(1100.4)
    assert entry["std"] == pytest.approx(100)
    assert [run["scores"]["judged/frechet_distance"] for run in entry["runs"]] == [1000.4, 1100.4, 1200.4]
    assert all("test/accuracy" in run["scores"] for run in entry["runs"])
    assert entry == prove.summary(entry["expect"], entry["runs"])
    assert prove.main([]) == 0
    assert len(calls(place)) == 7  # what is judged is not judged again


def test_the_table_of_what_was_judged(generator: dict[str, Any], place: Path) -> None:
    prove.main([])
    text = (place / "RESULTS.md").read_text()
    assert "| judged/frechet_distance | 1100.4 ± 100.0 | 3 |" in text
    first, judged = text.split("## Judged")
    assert "*noise*" not in first
    rows = {
        row[0]: row[1:]
        for row in ([c.strip() for c in line[1:-1].split("|")] for line in judged.splitlines())
        if len(row) == 11
    }
    assert list(rows) == ["experiment", "---", "maker", "*noise*", "*held-out pictures*"]
    column = dict(zip(rows["experiment"], range(10), strict=True))
    assert {row[0] for name, row in rows.items() if name not in ("experiment", "---")} == {"classifier"}
    assert rows["maker"][column["Fréchet"]] == "1100 ± 100"  # over the seeds of training
    assert rows["*noise*"][column["Fréchet"]] == "21234 ± 12"  # over the sets of pictures
    assert rows["maker"][column["kernel"]] == rows["*noise*"][column["nearest"]] == "—"
    assert rows["*held-out pictures*"][column["nearest"]] == "5.68"


def test_baselines_stand_once_for_each_judge(generator: dict[str, Any], place: Path) -> None:
    prove.main(["seeds=1"])
    entry = json.loads((place / "results.json").read_text())["maker"]
    other = {**entry, "expect": {**entry["expect"], "judge": "other"}}
    lines = prove.judged_table({"a": entry, "b": other, "c": entry})
    assert [line.split(" | ")[:2] for line in lines if line.startswith(("| a ", "| b ", "| c ", "| *"))] == [
        ["| a", "classifier"],
        ["| c", "classifier"],
        ["| *noise*", "classifier"],
        ["| *held-out pictures*", "classifier"],
        ["| b", "other"],
        ["| *noise*", "other"],
        ["| *held-out pictures*", "other"],
    ]
    assert prove.judged_table({}) == []


def test_interrupted_judging_is_repeated_and_training_is_not(
    generator: dict[str, Any], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOP", "judging")
    monkeypatch.setattr(prove, "TRAIN", [sys.executable, "-c", f"import os; os.environ.pop('STOP'){TRAINER}"])
    with pytest.raises(ZooError, match=r"Judging runs/prove/maker/seed0-\w+ failed: stopped in judging"):
        prove.main(["seeds=1"])
    assert not (place / "results.json").exists()
    monkeypatch.delenv("STOP")
    assert prove.main(["seeds=1"]) == 0
    done = calls(place)
    assert [call.split()[0] for call in done] == ["experiment=classifier", "experiment=maker", "judge", "judge"]
    assert done[2] == done[3]


def test_another_judge_judges_anew(generator: dict[str, Any], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prove.main(["seeds=1"])
    changed = {"classifier": {"lr": 1}, "maker": {"experiment": "maker", "seed": 0}}
    monkeypatch.setattr(prove, "compose", lambda experiment, seed: changed[experiment])
    prove.main(["seeds=1"])
    words = [call.split()[0] for call in calls(place)]
    assert words == ["experiment=classifier", "experiment=maker", "judge", "experiment=classifier", "judge"]
    del generator["judge"]
    generator["metric"] = "test/accuracy"
    prove.main(["seeds=1"])
    entry = json.loads((place / "results.json").read_text())["maker"]
    assert not any(name.startswith("judged/") for name in entry["runs"][0]["scores"])


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
    assert prove.rounded(value, digits) == text


def test_a_changed_config_is_run_anew(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prove.main(["seeds=1"])
    monkeypatch.setattr(prove, "compose", lambda experiment, seed: {"seed": seed, "lr": 1})
    prove.main(["seeds=1"])
    assert len(calls(place)) == 2


def test_hash_is_of_what_the_run_depends_on() -> None:
    config = {"seed": 0, "optimizer": {"lr": 0.1}}
    assert prove.config_hash(config) == prove.config_hash({"optimizer": {"lr": 0.1}, "seed": 0, "expect": {"floor": 1}})
    assert prove.config_hash(config) != prove.config_hash({"seed": 0, "optimizer": {"lr": 0.2}})
    assert len(prove.config_hash(config)) == 8


def test_a_score_that_evaluation_does_not_reproduce_fails(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFT", "1e-12")
    with pytest.raises(ZooError, match=r"toy \(.*evaluation differs from training by 1e-12"):
        prove.main(["seeds=1"])
    assert "not reproduced" in (place / "RESULTS.md").read_text()


def test_a_mean_below_the_floor_fails_but_is_written(place: Path) -> None:
    expect = prove.select([])["toy"]
    expect["floor"] = 0.93
    with pytest.raises(ZooError, match=r"Not proved: toy \(test/accuracy 0.9100 ± 0.0100 \(n = 3\), floor 0.93 missed"):
        prove.main([])
    assert "**no**" in (place / "RESULTS.md").read_text()


def test_other_results_stay_and_removed_experiments_go(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prove.main(["seeds=1", "out=table.md"])
    expect = prove.select([])["toy"]
    monkeypatch.setattr(prove, "select", lambda p: {"toy": expect, "art": expect} if not p else {"art": expect})
    prove.main(["art", "seeds=1", "out=table.md"])
    assert list(json.loads((place / "table.json").read_text())) == ["art", "toy"]
    monkeypatch.setattr(prove, "select", lambda patterns: {"art": expect})
    prove.main(["seeds=1", "out=table.md"])
    assert list(json.loads((place / "table.json").read_text())) == ["art"]


@pytest.mark.parametrize(
    ("floor", "goal", "mean", "met"),
    [(0.9, 0.95, 0.9, "floor"), (0.9, 0.95, 0.89, ""), (30, 25, 31, ""), (30, 25, 29, "floor"), (30, 25, 25, "goal")],
)
def test_bars_where_lower_is_better(floor: float, goal: float, mean: float, met: str) -> None:
    entry = {"expect": {"floor": floor, "goal": goal}, "mean": mean}
    assert prove.reaches(entry, "floor") is (met in ("floor", "goal"))
    assert prove.reaches(entry, "goal") is (met == "goal")


def test_parse() -> None:
    assert prove.parse([]) == ([], None, Path("RESULTS.md"))
    assert prove.parse(["digits*", "seeds=2", "out=a/b.md"]) == (["digits*"], [0, 1], Path("a/b.md"))
    assert prove.parse(["seeds=[4,7]"])[1] == prove.parse(["seeds=4,7"])[1] == [4, 7]


@pytest.mark.parametrize("word", ["seeds=0", "seeds=many", "seeds=-1", "seed=3", "out=results.txt"])
def test_wrong_words(word: str) -> None:
    with pytest.raises(ZooError, match=word.partition("=")[0]):
        prove.parse([word])


def test_select() -> None:
    assert set(prove.select(["digits_lenet5"])) == {"digits_lenet5"}  # a whole name is that one
    assert set(prove.select(["digits_lenet"])) == {"digits_lenet5", "digits_lenet5_1998"}
    assert set(prove.select(["*_mlp", "earth_lenet"])) == {"digits_mlp", "fashion_mlp", "earth_lenet5"}
    with pytest.raises(ZooError, match="Did you mean digits_mlp"):
        prove.select(["earth", "digits_mpl"])


def test_every_experiment_says_what_it_expects() -> None:
    for name, expect in prove.select([]).items():
        judge = expect.get("judge")
        assert set(expect) - {"judge"} == {"metric", "floor", "goal", "baseline", "seeds", "minutes"}, name
        assert expect["metric"].partition("/")[0] in (("test", "judged") if judge else ("val", "test")), name
        assert judge is None or judge in options()["experiment"], name
        text = (ROOT / "configs" / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
        assert f"python train.py experiment={name}" in text
        config = prove.compose(name, seed=5)
        assert config["seed"] == 5
        assert config["expect"] == expect


def test_results_table_is_written_from_the_results() -> None:
    """Stale? `python -m zoo prove` writes both."""
    file = ROOT / "results.json"
    results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if results:
        assert (ROOT / "RESULTS.md").read_text(encoding="utf-8") == prove.table(results)
        assert set(results) <= set(prove.select([]))
        for name, entry in results.items():
            assert entry == prove.summary(entry["expect"], entry["runs"]), name
            assert prove.passes(entry), name


@pytest.mark.slow
def test_in_earnest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert prove.main(["digits_softmax_regression", "seeds=1"]) == 0
    entry = json.loads((tmp_path / "results.json").read_text())["digits_softmax_regression"]
    counts = {"parameters": 7850, "multiply_adds": 7840, "splits": {"train": 3600, "val": 400, "test": 1000}}
    assert entry["runs"][0]["counts"] == counts
