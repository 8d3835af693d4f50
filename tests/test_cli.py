"""The commands as a person types them: exit codes, sentences, folders, sweeps, and what is never imported."""

import errno
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from zoo import cli
from zoo.checks import options
from zoo.errors import ZooError
from zoo.signals import Stopped

ROOT = Path(__file__).parents[1]
TINY = ["data=synthetic", "model=mlp", "trainer.accelerator=cpu", "trainer.max_epochs=1", "logger=csv"]
QUICK = {
    "help": ["train", "--help"],
    "config": ["train", "--cfg", "job"],
    "list": ["list"],
    "evaluate help": ["evaluate", "-h"],
    "refused": ["train", "trainer.max_epoch=3"],
    "refused in a sweep": ["train", "-m", "model=lenet5,mlp", "seed=0,x"],
    "refused in a search": ["train", "-m", "model=mlp", "sweep=random", "optimizer.lr=interval(-1,1)", "seed=0"],
    "range test help": ["lr", "--help"],
    "refused range test": ["lr", "model=mlp", "optimizer.l=3"],
    "refused evaluation": ["evaluate", "ckpt_path=nowhere"],
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The sentence on stderr of a command that must end with 2."""
    assert cli.main(words) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert 1 <= len(output.err.splitlines()) <= 3
    return output.err


def process(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("words", QUICK.values(), ids=QUICK)
def test_neither_torch_nor_lightning_is_imported(words: list[str]) -> None:
    code = "import sys; from zoo.cli import main; code = main(sys.argv[1:]); print(*sys.modules); sys.exit(code)"
    done = process(code, *words)
    assert done.returncode == (2 if "nowhere" in words[-1] or "=" in words[-1] else 0), done.stderr
    assert not {"torch", "pytorch_lightning", "torchvision", "zoo.run"} & set(done.stdout.splitlines()[-1].split())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["help", "config", "list", "refused"])
def test_answers_take_less_than_half_a_second(name: str) -> None:
    """Of processor time, which other work on the machine does not stretch as it does the wall clock."""
    spent = []
    for _ in range(3):
        before = os.times()
        process("import sys; from zoo.cli import main; sys.exit(main(sys.argv[1:]))", *QUICK[name])
        after = os.times()
        spent.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert statistics.median(spent) < 0.5


def test_scripts_are_the_verbs() -> None:
    for script, verb in (("train.py", "train"), ("evaluate.py", "evaluate")):
        by_script = subprocess.run([sys.executable, ROOT / script, "-h"], capture_output=True, text=True)
        by_module = subprocess.run([sys.executable, "-m", "zoo", verb, "-h"], capture_output=True, text=True, cwd=ROOT)
        assert by_script.returncode == by_module.returncode == 0
        assert by_script.stdout == by_module.stdout


def test_help_names_every_group_option_and_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--help"]) == 0
    words = capsys.readouterr().out.replace("\n", " ").split(" ")
    for group, names in options().items():
        assert {group, *names} <= set(words)
    for key in yaml.safe_load((ROOT / "configs" / "train.yaml").read_text(encoding="utf-8")):
        assert f"{key}:" in words or key in ("defaults", "hydra")


def test_examples_in_the_help_are_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for line in cli.EXAMPLES["train"].splitlines():
        words = [word for word in line.split("   ")[0].split()[2:] if word != "-m"]
        if "resume" not in line and "-m" not in line:
            assert cli.main(["train", *words, *([] if "--cfg" in words else ["--cfg", "job"])]) == 0, line


def test_help_of_evaluation_lists_no_flag_that_it_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "--help"]) == 0
    flags = [word.strip(",") for word in capsys.readouterr().out.split() if word.startswith("--")]
    assert set(flags) == {"--help", "--cfg", "--resolve"}


def test_ctrl_c_at_exit_says_nothing() -> None:
    code = "import atexit, os, signal, sys, time\n"
    code += "atexit.register(lambda: (os.kill(os.getpid(), signal.SIGINT), time.sleep(5)))\n"
    done = process(code + "from zoo.cli import main; main(['-h'])")
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def test_config_is_printed_with_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--cfg", "job", "optimizer.lr=0.5"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["optimizer"]["lr"] == 0.5
    assert config["model"]["num_classes"] == "${data.num_classes}"
    assert cli.main(["train", "--cfg=job", "--resolve"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["num_classes"] == 10


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["trian"], "Did you mean train?"),
        (["model=mlp"], "Did you mean train?"),
        (["train", "--multi"], "Did you mean --multirun?"),
        (["train", "--cfg"], "--cfg job, --cfg hydra or --cfg all"),
        (["train", "--cfg", "jbo"], "--cfg job, --cfg hydra or --cfg all"),
        (["train", "--epochs=3"], "Did you mean trainer.max_epochs=3?"),
        (["train", "hydra.run.dir=x"], "run_dir"),
        (["train", "--config-dir", "x"], "no such flag"),
        (["train", "-m", "run_dir=x", "seed=1,2"], "hydra.sweep.dir"),
        (["train", "-m", "hydra.swep.dir=x", "seed=1,2"], "hydra.swep.dir"),
        (["train", "resume=nowhere"], "resume=nowhere: there is no such folder"),
        (["train", "resume=here"], "it has no config.yaml"),
        (["train", "resume=a/checkpoints/last.ckpt"], "resume=a"),
        (["train", "resume=run", "seed=3"], "Beside resume= may stand"),
        (["train", "resume=run", "optimizer=sgd"], "Beside resume= may stand"),
        (["train", "resume=run", "trainer.max_epochs=x"], "whole number"),
        (["train", "resume=run", "data.root=elsewhere"], "there is no key data.root"),
        (["train", "resume=run", "data.batch_size=3"], "data.root, data.path"),
        (["train", "resume=run", "trainer=cpuu"], "Did you mean trainer=cpu?"),
        (["train", "-m", "resume=run"], "takes no flags"),
        (["train", "run_dir=run"], "resume=run"),
        (["train", "run_dir=file"], "is a file"),
        (["train", "run_dir=file/below"], "is a file or below one"),
        (["train", "resume="], "something on both sides of the ="),
        (["train", "resume"], "Did you mean resume=…?"),
        (["train", "resume=run", "resume=run"], "given already"),
        (["evaluate", "ckpt_path=run", "ckpt_path=here"], "given already"),
        (["evaluate", "ckpt_path"], "Did you mean ckpt_path=…?"),
        (["evaluate", "ckpt_path=run", "data"], "Did you mean data=…?"),
        (["evaluate"], "ckpt_path is needed"),
        (["evaluate", "run"], "Did you mean ckpt_path=run?"),
        (["evaluate", "ckpt=run"], "Did you mean ckpt_path?"),
        (["evaluate", "ckpt_path=nowhere"], "there is no such file or folder"),
        (["evaluate", "ckpt_path=run", "split=tset"], "Did you mean split=test?"),
        (["evaluate", "ckpt_path=run", "trust=1"], "true or false"),
        (["evaluate", "ckpt_path=run", "data=digitss"], "Did you mean data=digits?"),
        (["evaluate", "ckpt_path=run", "data.batchsize=3"], "Did you mean data.batch_size?"),
        (["evaluate", "ckpt_path=run", "data.batch_size=x"], "whole number"),
        (["evaluate", "ckpt_path=run", "optimizer.lr=1"], "among data, task, trainer"),
        (["evaluate", "ckpt_path=run", "+data.x=1"], "without + and ~"),
        (["evaluate", "ckpt_path=run", "-m"], "--help and --cfg job only"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_refused(words: list[str], part: str, elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("here").mkdir()
    Path("file").write_text("")
    Path("run").mkdir()
    assert cli.main(["train", "--cfg", "job", "--resolve"]) == 0
    Path("run/config.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
    assert part in refused(words, capsys)


def test_train_resume_and_evaluate(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", *TINY]) == 0
    [folder] = Path("runs/mlp-synthetic").iterdir()
    about = json.loads((folder / "run.json").read_text())
    assert about["choices"]["model"] == "mlp"
    assert about["command"][-len(TINY) :] == TINY
    assert "ZOO_RUN_DIR" not in os.environ
    scores = json.loads((folder / "scores.json").read_text())
    capsys.readouterr()
    assert cli.main(["evaluate", f"ckpt_path={folder}", "data.eval_batch_size=13"]) == 0
    assert f"test/accuracy {scores['test/accuracy']:.6g}" in capsys.readouterr().out
    assert cli.main(["train", f"resume={folder}", "trainer.max_epochs=2", "trainer=cpu"]) == 0
    steps = {line.split(",")[1] for line in (folder / "metrics.csv").read_text().splitlines()}
    assert "1" in steps


@pytest.mark.parametrize("words", [[], ["run_dir=runs/of/mine"]], ids=["default", "named"])
def test_a_refused_run_leaves_no_folder(words: list[str], elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "hidden" in refused(["train", *TINY, "model.hidden=[-1]", *words], capsys)
    assert not list(elsewhere.iterdir())


def test_a_folder_that_was_there_stays(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine").mkdir()
    refused(["train", *TINY, "model.hidden=[-1]", "run_dir=mine"], capsys)
    assert list(elsewhere.iterdir()) == [Path("mine").absolute()]
    assert not list(Path("mine").iterdir())


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_error(redirection: str) -> None:
    command = f"{sys.executable} {ROOT / 'train.py'} --help {redirection}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_of_several_processes_the_first_speaks_and_writes(elsewhere: Path) -> None:
    command = [sys.executable, ROOT / "train.py", *TINY, "trainer.devices=2", "run_dir=run"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trainable parameters") == done.stdout.count("\nepoch 1 ") == 1
    assert done.stdout.count("test/accuracy ") == 1
    assert {path.name for path in Path("run").iterdir()} >= {"config.yaml", "model.txt", "scores.json"}
    names = [line.split(",")[2] for line in Path("run/metrics.csv").read_text().splitlines()]
    assert names.count("train/loss") == names.count("val/loss") == 1


@pytest.mark.parametrize(
    "signum", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)], ids=["ctrl-c", "sigterm"]
)
def test_stopped_run_says_how_to_continue(elsewhere: Path, signum: int) -> None:
    words = [*TINY, "trainer.max_epochs=100000", "run_dir=run"]
    command = [sys.executable, str(ROOT / "train.py"), *words]
    started = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    until = time.monotonic() + 120
    while not Path("run/checkpoints/last.ckpt").exists() and time.monotonic() < until:
        time.sleep(0.1)
    started.send_signal(signum)
    _, error = started.communicate(timeout=60)
    assert started.returncode == 128 + signum
    assert error == "Stopped. Continue with: python train.py resume=run\n"


def test_reader_that_leaves_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, ROOT / "train.py", "-h"], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert done.returncode == 128 + signal.SIGPIPE
    assert done.stderr == b""


def test_obstacles_become_sentences(elsewhere: Path) -> None:
    def told(error: BaseException) -> tuple[int, str]:
        found = cli._told(error)
        assert found is not None
        return found

    code, sentence = told(OSError(errno.ENOSPC, "No space left on device", "runs/x"))
    assert code == 2
    assert sentence == "runs/x: no space left on device; make room on the disk."
    for number in (errno.EROFS, errno.EACCES, errno.EPERM):
        assert told(OSError(number, "not allowed", "runs/x"))[0] == 2
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")):
        assert "lower data.batch_size" in told(error)[1]
    assert told(ZooError("a sentence")) == (2, "a sentence")
    assert told(ValueError("width=0: must be at least 1")) == (2, "width=0: must be at least 1")
    assert told(KeyboardInterrupt()) == (130, "Stopped.")
    stopped = Stopped(signal.SIGTERM, Path("."))
    assert told(stopped) == (143, "Stopped.")  # nothing to continue yet
    Path("config.yaml").touch()
    assert told(stopped) == (143, "Stopped. Continue with: python train.py resume=.")


@pytest.mark.parametrize(
    "bug", [RuntimeError("x"), ValueError("not of our form"), KeyError("x"), OSError(errno.EIO, "x")]
)
def test_a_bug_keeps_its_traceback(bug: Exception) -> None:
    assert cli._told(bug) is None
