"""`zoo prove`: which runs it starts, continues and skips, what it compares, what it writes."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from zoo import children, proof_runs, prove
from zoo.checks import options
from zoo.errors import ZooError
from zoo.results import paper_of, read_results, row
from zoo.tables import results_table

ROOT = Path(__file__).parents[1]

# A stand-in for `zoo train`, two processes as in earnest: it stops half-way when told to, and continues with resume=.
TRAINER = """
import json, os, pathlib, sys, time
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
(folder / "run.json").write_text(json.dumps(about | {"choices": {"data": "digits"}, "started": str(time.time_ns())}))
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
def configs() -> dict[str, dict[str, Any]]:
    """The configs of the experiments, without seed."""
    return {"toy": {}, "classifier": {}, "maker": {}}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, configs: dict[str, dict[str, Any]]) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(proof_runs, "TRAIN", [sys.executable, "-c", TRAINER])
    monkeypatch.setattr(proof_runs, "EXAMINE", [sys.executable, "-c", EXAMINER])
    monkeypatch.setattr(proof_runs, "compose", lambda experiment, seed: configs[experiment] | {"seed": seed})
    monkeypatch.setattr(proof_runs, "inputs_hash", toy_hash)
    expect = {"metric": "test/accuracy", "floor": 0.9, "goal": 0.95, "baseline": "LR .8", "minutes": 1}
    expect["seeds"] = [0, 1, 2]
    monkeypatch.setattr(prove, "select", lambda patterns: {"toy": expect})
    return tmp_path


def toy_hash(config: dict[str, Any]) -> str:
    """Of the config, and of a file that stands for the code."""
    code = Path("code").read_text() if Path("code").exists() else ""
    return hashlib.sha256(f"{sorted(config.items())} {code}".encode()).hexdigest()[:8]


def rows_of(place: Path, name: str = "results.json") -> dict[str, Any]:
    return json.loads((place / name).read_text())["rows"]


def calls(place: Path) -> list[str]:
    return (place / "calls").read_text().splitlines() if (place / "calls").exists() else []


def test_trains_each_seed_once_and_writes_the_results(place: Path) -> None:
    assert prove.main([]) == 0
    assert [call.split()[:2] for call in calls(place)] == [["experiment=toy", f"seed={seed}"] for seed in range(3)]
    entry = rows_of(place)["toy"]
    assert entry["mean"] == pytest.approx(0.91)
    assert entry["std"] == pytest.approx(0.01)  # of the sample: n - 1
    assert entry["largest_difference"] == 0
    assert [run["scores"]["test/accuracy"] for run in entry["runs"]] == [0.9, 0.91, 0.92]
    assert all(run["seconds"] >= 0 and run["about"]["commit"] == "abc" for run in entry["runs"])
    assert (place / "RESULTS.md").read_text() == results_table(read_results(place / "results.json"))
    assert prove.main([]) == 0
    assert len(calls(place)) == 3  # what is finished is not run again


def test_an_interrupted_run_is_continued(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOP", "half-way")
    with pytest.raises(ZooError, match=r"Not proved: toy \(toy seed 0: training stopped with .* 1: stopped half-way\)"):
        prove.main(["seeds=1"])
    monkeypatch.delenv("STOP")
    assert prove.main(["seeds=1"]) == 0
    first, second = calls(place)
    folder = first.rpartition("run_dir=")[2]
    assert second == f"resume={folder}"
    assert rows_of(place)["toy"]["runs"][0]["seconds"] is None  # not the whole time


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
    monkeypatch.setattr(proof_runs, "JUDGE", [sys.executable, "-c", JUDGER])
    expect = {"metric": "judged/frechet_distance", "judge": "classifier", "floor": 1200, "goal": 1000}
    expect |= {"baseline": "noise", "seeds": [0, 1, 2], "minutes": 1}
    monkeypatch.setattr(prove, "select", lambda patterns: {"maker": expect})
    return expect


def test_what_makes_pictures_is_judged_by_a_classifier_trained_first(generator: dict[str, Any], place: Path) -> None:
    assert prove.main([]) == 0
    done = [call.split() for call in calls(place)]
    assert done[0][:2] == ["experiment=classifier", "seed=0"]
    judge = done[0][2].removeprefix("run_dir=")
    trained = [call[2].removeprefix("run_dir=") for call in done[1::2]]
    assert [call[:2] for call in done[1::2]] == [["experiment=maker", f"seed={seed}"] for seed in range(3)]
    assert done[2::2] == [["judge", folder, "by", judge] for folder in trained]
    results = rows_of(place)
    assert list(results) == ["maker"]  # nobody asked to prove the judge
    entry = results["maker"]
    assert entry["mean"] == pytest.approx(1100.4)
    assert entry["std"] == pytest.approx(100)
    assert [run["scores"]["judged/frechet_distance"] for run in entry["runs"]] == [1000.4, 1100.4, 1200.4]
    assert all("test/accuracy" in run["scores"] for run in entry["runs"])
    assert entry == row(entry["expect"], entry["runs"], paper=None)
    assert prove.main([]) == 0
    assert len(calls(place)) == 7  # what is judged is not judged again


def test_interrupted_judging_is_repeated_and_training_is_not(
    generator: dict[str, Any], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOP", "judging")
    monkeypatch.setattr(proof_runs, "TRAIN", [sys.executable, "-c", f"import os; os.environ.pop('STOP'){TRAINER}"])
    with pytest.raises(ZooError, match=r"Judging runs/prove/maker/seed0-\w+ failed: stopped in judging"):
        prove.main(["seeds=1"])
    assert rows_of(place) == {}
    monkeypatch.delenv("STOP")
    assert prove.main(["seeds=1"]) == 0
    done = calls(place)
    assert [call.split()[0] for call in done] == ["experiment=classifier", "experiment=maker", "judge", "judge"]
    assert done[2] == done[3]


def test_another_judge_judges_anew_and_so_does_one_retrained(
    generator: dict[str, Any], place: Path, configs: dict[str, dict[str, Any]]
) -> None:
    prove.main(["seeds=1"])
    first = rows_of(place)["maker"]["runs"][0]
    configs["classifier"] = {"lr": 1}
    prove.main(["seeds=1"])
    second = rows_of(place)["maker"]["runs"][0]
    assert first["inputs"] == second["inputs"]
    assert first["judged_by"] != second["judged_by"]
    again = ["experiment=classifier", "experiment=maker", "judge", "experiment=classifier", "judge"]
    assert [call.split()[0] for call in calls(place)] == again
    shutil.rmtree(next(place.glob(f"runs/prove/classifier/seed0-{toy_hash({'lr': 1, 'seed': 0})}")))
    prove.main(["seeds=1"])  # of the same inputs, but on another machine, say
    assert [call.split()[0] for call in calls(place)] == [*again, "experiment=classifier", "judge"]
    del generator["judge"]
    generator["metric"] = "test/accuracy"
    prove.main(["seeds=1"])
    run = rows_of(place)["maker"]["runs"][0]
    assert "judged_by" not in run
    assert not any(name.startswith("judged/") for name in run["scores"])


def test_a_generator_whose_judge_fails_is_not_judged_and_says_why(
    generator: dict[str, Any], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = 'import sys\nif "experiment=classifier" in sys.argv: sys.exit("no judge")\n'
    monkeypatch.setattr(proof_runs, "TRAIN", [sys.executable, "-c", stop + TRAINER])
    with pytest.raises(ZooError, match=r"maker \(classifier seed 0: training stopped with exit code 1: no judge\)"):
        prove.main(["seeds=1", "jobs=2"])
    assert [call.split()[0] for call in calls(place)] == ["experiment=maker"]


# What has changed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--changed", "changed=true"])
def test_changed_runs_what_is_missing_or_of_other_inputs(
    place: Path, configs: dict[str, dict[str, Any]], flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prove.main([flag]) == 0
    shutil.rmtree(place / "runs")  # as in a fresh clone: the row is enough
    assert prove.main([flag]) == 0
    assert len(calls(place)) == 3
    (place / "code").write_text("changed")
    capsys.readouterr()
    assert prove.main([flag, "dry=true"]) == 0
    told = capsys.readouterr().out
    assert told.splitlines() == ["toy: seed 0, 1, 2; about 3 min", "3 runs to do, about 3 min with jobs=1"]
    assert len(calls(place)) == 3
    assert prove.main([flag]) == 0
    assert len(calls(place)) == 6
    assert prove.main([flag, "dry=true"]) == 0
    assert "0 runs to do, about 0 min" in capsys.readouterr().out


def test_changed_runs_the_seeds_that_a_row_lacks_and_drops_those_no_longer_asked_for(place: Path) -> None:
    expect = prove.select([])["toy"]
    expect["seeds"] = [0, 5]
    prove.main([])
    shutil.rmtree(place / "runs")
    expect["seeds"] = [5, 1]
    prove.main(["--changed"])
    assert [call.split()[1] for call in calls(place)] == ["seed=0", "seed=5", "seed=1"]
    assert [run["seed"] for run in rows_of(place)["toy"]["runs"]] == [1, 5]


def test_changed_takes_over_what_is_expected_now(place: Path) -> None:
    prove.main([])
    prove.select([])["toy"]["floor"] = 0.5
    prove.main(["--changed"])
    assert rows_of(place)["toy"]["expect"]["floor"] == 0.5
    assert len(calls(place)) == 3


def test_one_seed_more_keeps_the_others_of_the_row_but_not_those_of_other_code(place: Path) -> None:
    prove.main([])
    prove.main(["seeds=[1,4]"])
    assert [run["seed"] for run in rows_of(place)["toy"]["runs"]] == [0, 1, 2, 4]
    (place / "code").write_text("changed")
    prove.main(["seeds=1"])
    assert [run["seed"] for run in rows_of(place)["toy"]["runs"]] == [0]


def test_a_run_during_which_code_changed_has_unknown_inputs_and_is_trained_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit = TRAINER + 'pathlib.Path("code").write_text("edited")'
    monkeypatch.setattr(proof_runs, "TRAIN", [sys.executable, "-c", edit])
    assert prove.main(["seeds=1"]) == 0
    assert rows_of(place)["toy"]["runs"][0]["inputs"] is None
    (place / "code").unlink()  # undone: the folder is of today's hash again
    monkeypatch.setattr(proof_runs, "TRAIN", [sys.executable, "-c", TRAINER])
    assert prove.main(["seeds=1", "--changed"]) == 0
    assert rows_of(place)["toy"]["runs"][0]["inputs"] == toy_hash({"seed": 0})
    first, second = calls(place)
    assert first == second  # in the same folder, from the start


# Side by side ---------------------------------------------------------------------------------------------------------


def test_jobs_train_side_by_side_with_a_share_of_the_threads(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run waits for the second to begin, which only a process beside it can."""
    wait = """
import os, pathlib, sys, time
seed = int(sys.argv[2].removeprefix("seed="))
pathlib.Path(f"began{seed}").write_text(os.environ["OMP_NUM_THREADS"])
until = time.monotonic() + 20
while seed == 0 and not pathlib.Path("began1").exists():
    assert time.monotonic() < until
    time.sleep(0.01)
"""
    monkeypatch.setattr(proof_runs, "TRAIN", [sys.executable, "-c", wait + TRAINER])
    monkeypatch.setattr(children, "cores", lambda: 6)
    assert prove.main(["jobs=2"]) == 0
    assert [(place / f"began{seed}").read_text() for seed in range(3)] == ["3", "3", "3"]
    assert [run["seed"] for run in rows_of(place)["toy"]["runs"]] == [0, 1, 2]


def test_a_run_that_fails_does_not_hide_the_others(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expect = prove.select([])["toy"]
    monkeypatch.setattr(prove, "select", lambda patterns: dict.fromkeys(("classifier", "maker", "toy"), expect))
    stop = 'import sys\nif "experiment=classifier" in sys.argv and "seed=1" in sys.argv: sys.exit("burnt")\n'
    monkeypatch.setattr(proof_runs, "TRAIN", [sys.executable, "-c", stop + TRAINER])
    with pytest.raises(ZooError) as told:
        prove.main([])
    assert str(told.value).splitlines() == [
        "Not proved: classifier (classifier seed 1: training stopped with exit code 1: burnt)."
    ]
    assert len(calls(place)) == 8
    assert list(rows_of(place)) == ["maker", "toy"]
    assert "Its output is in runs/prove/classifier/seed1-" in capsys.readouterr().out


def test_what_a_call_took_is_stored_of_the_one_that_trained_most(place: Path) -> None:
    prove.main(["seeds=2", "out=first.md"])
    prove.main(["seeds=2", "out=first.md"])
    (took,) = json.loads((place / "first.json").read_text())["calls"].items()
    assert took[0] == "zoo prove seeds=2"
    assert took[1]["trained"] == took[1]["runs"] == 2
    assert took[1]["seconds"] >= 0


STOPPED = """
import sys
from pathlib import Path
from zoo import children, cli, proof_runs, prove
sys.path.insert(0, {tests!r})
from test_prove import toy_hash
children.PATIENCE = 1
proof_runs.TRAIN = [sys.executable, "-c", {trainer!r}]
proof_runs.compose = lambda experiment, seed: {{"seed": seed}}
proof_runs.inputs_hash = toy_hash
expect = {{"metric": "test/accuracy", "floor": 0.9, "goal": 0.95, "baseline": "", "seeds": [0, 1, 2], "minutes": 1}}
prove.select = lambda patterns: {{"toy": expect}}
sys.exit(cli.main(["prove", "jobs=2"]))
"""
DEAF = """
import os, pathlib, signal, sys, time
seed = sys.argv[2].removeprefix("seed=")
def told(signum, frame):
    pathlib.Path("told").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, signal.SIG_IGN if seed == "1" else told)
pathlib.Path(f"pid{seed}").write_text(str(os.getpid()))
time.sleep(60)
"""


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_children_and_says_how_to_go_on(tmp_path: Path, signum: int, code: int) -> None:
    """One child is deaf to SIGTERM, as one that hangs in a library is."""
    script = STOPPED.format(tests=str(ROOT / "tests"), trainer=DEAF)
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    pids = [tmp_path / "pid0", tmp_path / "pid1"]
    until = time.monotonic() + 30
    while not all(pid.exists() and pid.read_text() for pid in pids):
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signum)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == code, errors
    assert "what was begun is continued: python -m zoo prove jobs=2" in errors
    assert "Traceback" not in errors
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)
    assert (tmp_path / "told").exists()
    assert not (tmp_path / "pid2").exists()


# Failing, and words ---------------------------------------------------------------------------------------------------


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
    monkeypatch.setattr(prove, "select", lambda p: {"toy": expect, "maker": expect} if not p else {"maker": expect})
    prove.main(["maker", "seeds=1", "out=table.md"])
    assert list(rows_of(place, "table.json")) == ["maker", "toy"]
    monkeypatch.setattr(prove, "select", lambda patterns: {"maker": expect})
    prove.main(["seeds=1", "out=table.md"])
    assert list(rows_of(place, "table.json")) == ["maker"]


def test_results_of_another_kind_are_not_overwritten(place: Path) -> None:
    (place / "results.json").write_text('{"toy": {}}')
    with pytest.raises(ZooError, match=r"results\.json is not what zoo prove writes"):
        prove.main([])
    assert (place / "results.json").read_text() == '{"toy": {}}'


def test_parse() -> None:
    unsaid = {"seeds": None, "jobs": 1, "out": Path("RESULTS.md"), "changed": False, "dry": False}
    assert prove.parse([]) == ([], unsaid)
    words = ["digits*", "seeds=2", "out=a/b.md", "--changed", "jobs=4", "dry=true"]
    given = {"seeds": [0, 1], "jobs": 4, "out": Path("a/b.md"), "changed": True, "dry": True}
    assert prove.parse(words) == (["digits*"], given)
    assert prove.parse(["seeds=[4,7]"])[1]["seeds"] == prove.parse(["seeds=7,4,7"])[1]["seeds"] == [4, 7]


@pytest.mark.parametrize(
    "word", ["seeds=0", "seeds=many", "seeds=-1", "seeds=", "seed=3", "out=results.txt", "jobs=0", "dry=1", "--new"]
)
def test_wrong_words(word: str) -> None:
    with pytest.raises(ZooError, match=word.partition("=")[0]):
        prove.parse([word])


def test_select() -> None:
    assert set(prove.select(["digits_lenet5"])) == {"digits_lenet5"}  # a whole name is that one
    assert set(prove.select(["digits_lenet"])) == {"digits_lenet5", "digits_lenet5_1998"}
    assert {"digits_mlp", "fashion_mlp", "earth_lenet5"} <= set(prove.select(["*_mlp", "earth_lenet"]))
    with pytest.raises(ZooError, match="Did you mean digits_mlp"):
        prove.select(["earth", "digits_mpl"])


def test_families_are_thirteen_experiments_each_of_another() -> None:
    families = [expect["family"] for expect in prove.select(["families"]).values()]
    known = {"MLP", "LeNet", "AlexNet", "VGG", "ResNet", "Inception", "Xception", "U-Net", "LSTM", "autoencoder"}
    assert sorted(families) == sorted(known | {"VAE", "GAN", "diffusion"})


def test_every_experiment_says_what_it_expects_and_its_network_names_a_paper() -> None:
    for name, expect in prove.select([]).items():
        judge = expect.get("judge")
        assert set(expect) - {"judge", "family"} == {"metric", "floor", "goal", "baseline", "seeds", "minutes"}, name
        assert expect["metric"].partition("/")[0] in (("test", "judged") if judge else ("val", "test")), name
        assert judge is None or judge in options()["experiment"], name
        text = (ROOT / "configs" / "experiment" / f"{name}.yaml").read_text(encoding="utf-8")
        assert f"python train.py experiment={name}" in text
    for model in options()["model"]:
        assert paper_of(model), (
            f"configs/model/{model}.yaml: the head names no paper, such as He et al. 2015, 1512.03385"
        )
    assert paper_of("resnet18") == "He et al. 2015, 1512.03385"
    assert paper_of("lstm") == "Hochreiter & Schmidhuber 1997; Gers et al. 2000"
    assert paper_of("segnet") == "Badrinarayanan, Kendall & Cipolla 2015, 1511.00561"
    assert paper_of("mine") is None


def test_compose_is_what_train_would_compose() -> None:
    config = proof_runs.compose("digits_lenet5", seed=5)
    assert config["seed"] == config["data"]["seed"] == 5
    assert config["model"]["_target_"] == "zoo.models.lenet.LeNet5"
    assert config["expect"] == prove.select(["digits_lenet5"])["digits_lenet5"]


@pytest.mark.slow
def test_in_earnest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert prove.main(["digits_softmax_regression", "digits_mlp", "seeds=1", "jobs=2"]) == 0
    entry = rows_of(tmp_path)["digits_softmax_regression"]
    counts = {"parameters": 7850, "multiply_adds": 7840, "splits": {"train": 3600, "val": 400, "test": 1000}}
    assert entry["runs"][0]["counts"] == counts
    assert entry["paper"] == "LeCun et al. 1998"
    assert entry["runs"][0]["inputs"] == proof_runs.proof_of("digits_softmax_regression", 0).inputs
    assert prove.main(["digits_softmax_regression", "seeds=1", "--changed", "dry=true"]) == 0
