"""What a run says of its code."""

import subprocess
from pathlib import Path

import pytest

from zoo.report import commit_of


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("zoo/__init__.py", "configs/train.yaml", "train.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    (tmp_path / ".gitignore").write_text("/runs/\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return tmp_path


def test_a_clean_checkout_is_its_commit(checkout: Path) -> None:
    (checkout / "runs").mkdir()
    (checkout / "runs" / "my.py").touch()  # ignored
    (checkout / "notes.txt").touch()  # moves no number
    assert commit_of(checkout) == git(checkout, "rev-parse", "--short", "HEAD")


@pytest.mark.parametrize("name", ["train.py", "my_models.py", "zoo/models/mine.py", "configs/model/mine.yaml"])
def test_what_the_commit_does_not_give_is_told(checkout: Path, name: str) -> None:
    (checkout / name).parent.mkdir(parents=True, exist_ok=True)
    (checkout / name).write_text("x = 2\n")
    head = git(checkout, "rev-parse", "--short", "HEAD")
    assert commit_of(checkout) == f"{head}-dirty"
    git(checkout, "add", name)
    assert commit_of(checkout) == f"{head}-dirty"
    git(checkout, "commit", "--quiet", "-m", "second")
    assert commit_of(checkout) == git(checkout, "rev-parse", "--short", "HEAD") != head


def test_of_an_installed_package_nothing_is_said(checkout: Path) -> None:
    """It lies in `.venv`, which belongs to the project of its user."""
    package = checkout / "runs" / "site-packages"
    (package / "zoo").mkdir(parents=True)
    (package / "zoo" / "__init__.py").touch()
    assert commit_of(package) is None


def test_without_git_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit_of(tmp_path) is None
    monkeypatch.setenv("PATH", "")
    assert commit_of(tmp_path) is None
