"""Run folders: names of their own, gone again when nothing was written, one training process at a time."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.errors import ZooError
from zoo.folders import RUN_DIR, held, run_folder
from zoo.run import resume

HOLDER = """
import os, sys, time
from pathlib import Path
from zoo.folders import held
with held(Path(sys.argv[1])):
    child = os.fork()  # as a data worker, which outlives a killed run
    if child:
        print(child, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_two_runs_in_one_second_have_two_folders() -> None:
    choices = {"model": "mlp", "data": "digits"}
    folders = []
    for _ in range(4):
        with run_folder(None, choices) as folder:
            (folder / "config.yaml").touch()
        folders.append(folder)
    assert len(set(folders)) == 4
    assert all(folder.is_dir() and folder.parent == Path("runs/mlp-digits") for folder in folders)
    assert any(folder.name.endswith("-2") for folder in folders)


def test_an_empty_folder_is_taken_and_stays() -> None:
    Path("mine").mkdir()
    Path("mine/.lock").touch()  # of a run killed before it wrote anything
    with run_folder("mine", {}) as folder:
        assert folder == Path("mine")
    assert Path("mine").is_dir()


def test_a_folder_left_empty_goes_with_the_parents_made_for_it() -> None:
    Path("there").mkdir()
    with run_folder("there/a/b", {}) as folder:
        assert folder.is_dir()
    assert list(Path().rglob("*")) == [Path("there")]


def test_the_lock_ends_with_its_process_however_it_ends(small_run) -> None:
    folder, scores = small_run()
    before = {path: path.read_bytes() for path in folder.rglob("*.*") if path.is_file()}
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert holder.stdout is not None
    worker = int(holder.stdout.readline())
    try:
        with pytest.raises(ZooError, match="is being trained by another process"):
            resume(folder, {})
        assert {path: path.read_bytes() for path in before} == before
        assert RUN_DIR not in os.environ
        holder.kill()
        holder.wait()
        assert resume(folder, {}) == scores
    finally:
        os.kill(worker, signal.SIGKILL)
        holder.stdout.close()
    assert not (folder / ".lock").exists()


def test_further_processes_of_a_run_are_let_in(tmp_path: Path) -> None:
    with held(tmp_path):
        assert os.environ[RUN_DIR] == str(tmp_path)
        code = "import sys; from pathlib import Path; from zoo.folders import held\nwith held(Path(sys.argv[1])): pass"
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        assert subprocess.run([sys.executable, "-c", code, tmp_path], env=environment).returncode == 0
        del environment[RUN_DIR]
        done = subprocess.run([sys.executable, "-c", code, tmp_path], env=environment, capture_output=True, text=True)
        assert "is being trained by another process" in done.stderr
    assert RUN_DIR not in os.environ
