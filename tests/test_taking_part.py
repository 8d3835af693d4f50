"""What people who take part rely on: the checklists, the hooks, the citation, the types that the package brings."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import zoo
from zoo.listing import select

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def project(name: str) -> str:
    """A value of the first table of pyproject.toml; Python 3.10 cannot read it."""
    found = re.search(rf'^{name} = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    assert found is not None, name
    return found[1]


# CONTRIBUTING ---------------------------------------------------------------------------------------------------------


def test_the_page_is_one_page() -> None:
    assert re.findall(r"^## (.*)$", PAGE, re.M) == ["Add a model", "Add data", "Add a task"]
    assert len(PAGE.splitlines()) <= 75


def test_every_file_that_the_page_names_is_there() -> None:
    # of what is to be added, names stand in <…>
    named = re.findall(r"(?:^|[\s`(])((?:zoo|tests|docs|docs_pages|configs)/[\w./]*\w|\.ci/run)\b(?![<*])", PAGE)
    named += re.findall(r"\]\((?!https?:)([^)#]+)\)", PAGE)
    assert len(named) > 20
    assert not [name for name in named if not (ROOT / name).exists()]


def test_every_test_that_the_page_names_is_in_the_file_before_it() -> None:
    file, count = "", 0
    for found in re.finditer(r"`(tests/[\w/]+\.py)`|`(test_\w+)`", PAGE):
        file = found[1] or file
        if found[2]:
            count += 1
            text = (ROOT / file).read_text(encoding="utf-8")
            assert re.search(rf"^def {found[2]}\(", text, re.M), f"{found[2]} is not in {file}"
    assert count > 15


@pytest.mark.parametrize("name", ["densenet121", "earth_densenet"])
def test_what_was_added_by_the_page_is_listed(name: str) -> None:
    assert any(name in names for names in select([name]).values())


def test_the_config_alone_enrols_a_model() -> None:
    """DenseNet, which was added by the page, is a case of every test that the page says finds it."""
    part = PAGE[PAGE.index("The name alone enrols it") : PAGE.index("3. [ ] `configs/experiment")]
    cases = set(re.findall(r"`(test_(?:every|output|batch|state|colour|overfits|short)\w+)`", part))
    cases -= {"test_every_network_has_a_row_of_parity"}  # of all networks in one
    words = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-k", "densenet121", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*words, "tests/test_zoo.py", "tests/test_fitting.py"], capture_output=True, text=True, cwd=ROOT
    )
    assert set(re.findall(r"::(\w+)\[densenet121\]", done.stdout)) == cases, done.stdout + done.stderr
    assert len(cases) == 8


# Hooks, citation, types -----------------------------------------------------------------------------------------------


def test_hooks_are_the_checks_of_continuous_integration() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repository in config["repos"] for hook in repository["hooks"]]
    commands = [hook["entry"] for hook in hooks]
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert commands == [line for line in lines if re.match(r"(ruff|mypy)\b", line)]
    assert f'echo "+ {" && ".join(commands)}"' in lines
    assert " && ".join(commands) in PAGE
    # the versions are those of the environment, and every hook sees all files, as there
    assert all(repository["repo"] == "local" for repository in config["repos"])
    assert all((hook["language"], hook["pass_filenames"]) == ("system", False) for hook in hooks)


def test_the_citation_is_of_this_package() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # what the format asks for
    assert citation["title"] == project("name")
    assert citation["abstract"] == project("description")
    assert (citation["version"], citation["license"]) == (project("version"), project("license"))
    assert citation["authors"] == [{"name": "The reference model zoo authors"}]


def test_the_package_says_that_it_has_types() -> None:
    """Hatchling takes every file of the package that git does not ignore."""
    assert (Path(zoo.__file__).parent / "py.typed").read_text() == ""
    ignored = subprocess.run(["git", "check-ignore", "zoo/py.typed"], cwd=ROOT, capture_output=True)
    assert ignored.returncode != 0
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'packages = ["zoo"]' in text
    assert "exclude" not in text.partition("[tool.hatch")[2].partition("[tool.ruff]")[0]
