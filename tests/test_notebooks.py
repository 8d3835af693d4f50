"""Every notebook runs from top to bottom; the outputs it holds are those of such a run, and small."""

import os
import re
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SECONDS = 600  # for a notebook that takes 45 alone on an idle core
BYTES = 400_000
SECTIONS = ("## What you should see", "## Sources")
# a path of the machine it was run on
MACHINE = re.compile("|".join(["/(home|root|Users|tmp)/", *(re.escape(str(path)) for path in (ROOT, Path.home()))]))


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def test_there_are_notebooks_and_the_readme_lists_them() -> None:
    assert NOTEBOOKS
    readme = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        assert f"({path.name})" in readme, path.name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_says_what_to_see_and_where_it_is_from(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    lines = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown").splitlines()
    for section in SECTIONS:
        assert lines.count(section) == 1, section
    assert any(re.match(r" *assert ", line) for cell in code(path) for line in cell.source.splitlines()), "no claims"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_outputs_in_the_file_are_of_one_clean_run(path: Path) -> None:
    assert path.stat().st_size < BYTES
    cells = code(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs), "no picture"
    for output in outputs:
        shown = {name: text for name, text in output.get("data", {}).items() if name.startswith("text/")}
        text = " ".join([output.get("text", ""), *shown.values()])
        assert not MACHINE.search(text), MACHINE.search(text)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)  # of `!python -m zoo …`
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))  # not a person's own settings
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder = tmp_path / "notebook"  # empty: nothing is read from former runs
    folder.mkdir()
    end = time.monotonic() + SECONDS
    client = NotebookClient(
        read(path),
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        timeout_func=lambda cell: max(1, int(end - time.monotonic())),
    )
    client.execute()  # raises where a cell does, or the time is over
