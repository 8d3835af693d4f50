"""The hash of what a run depends on: what changes it, what does not, and what it takes in."""

import ast
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from zoo import inputs
from zoo.inputs import closure, code, data_files, inputs_hash, judged_hash
from zoo.proof_runs import compose
from zoo.prove import select

ROOT = Path(__file__).parents[1]
SOURCE = '''"""A module. {docstring}"""

from zoo.deep import constant  # {comment}


class Model:
    """A class."""

    size = {size}

    def run(self) -> None:
        """A method."""
        from zoo.lazy import late

        print(f"{{late}}, {{self.size:.{{constant}}f}}")
'''


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small package of its own."""
    write(tmp_path, "model", SOURCE.format(docstring="One.", comment="why", size=3))
    write(tmp_path, "deep", "from zoo.run import anything\nconstant = 2\n")
    write(tmp_path, "lazy", "from zoo.models import part\nlate = part.here\n")
    write(tmp_path, "models/part", "here = 1\n")
    write(tmp_path, "unrelated", "other = 1\n")
    write(tmp_path, "run", "from zoo.unrelated import other\nanything = 1\n")  # the harness
    write(tmp_path, "network", "first_weights = 1\n")
    write(
        tmp_path,
        "data/sets",
        'from zoo.data.base import Base\nNAME = "{}.bin".format("never")\nFILE = "a.bin"\n\n\n'
        'class A(Base):\n    file: str = FILE\n\n\nclass B:\n    file = "b.bin"\n\n\ndef read():\n    return B()\n',
    )
    write(tmp_path, "data/base", 'def table():\n    return "c.bin"\n\n\nclass Base:\n    rows = table()\n')
    (tmp_path / "zoo/data/files").mkdir()
    for name in "abc":
        (tmp_path / f"zoo/data/files/{name}.bin").write_bytes(name.encode())
    return tmp_path


def write(root: Path, module: str, text: str) -> None:
    file = root / "zoo" / f"{module}.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


CONFIG: dict[str, Any] = {
    "seed": 0,
    "model": {"_target_": "zoo.model.Model", "parts": [{"_target_": "torch.nn.ReLU"}]},
    "data": {"_target_": "zoo.data.sets.A"},
}


def test_closure_follows_imports_of_all_kinds_and_stops_at_the_harness(root: Path) -> None:
    assert list(code(CONFIG, root=root)) == [
        *("zoo.data.base", "zoo.data.sets", "zoo.deep", "zoo.lazy", "zoo.model", "zoo.models.part", "zoo.network")
    ]
    assert closure(["zoo.models", "zoo.missing", "torch.nn", "zoo.run"], root=root) == {}


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("model", "size = 3", "size = 4"),
        ("model", "{self.size:.{constant}f}", "{self.size:.{constant}e}"),
        ("deep", "constant = 2", "constant = 2.0"),
        ("models/part", "here = 1", "here = None"),
        ("network", "first_weights = 1", "first_weights = True"),
        ("data/base", "rows = table()", "rows = [table()]"),
    ],
)
def test_code_that_is_run_changes_the_hash(root: Path, module: str, old: str, new: str) -> None:
    before = inputs_hash(CONFIG, root=root)
    file = root / "zoo" / f"{module}.py"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    assert inputs_hash(CONFIG, root=root) != before
    file.write_text(text)
    assert inputs_hash(CONFIG, root=root) == before


def test_comments_docstrings_layout_and_what_is_not_run_do_not(root: Path) -> None:
    before = inputs_hash(CONFIG, root=root)
    text = SOURCE.format(docstring="Another one.", comment="no", size="(  3  )").replace("A method.", "It.")
    write(root, "model", text.replace('    """A class."""\n', ""))
    write(root, "unrelated", "other = 2\n")
    write(root, "run", "anything = 2\n")
    (root / "zoo/data/files/b.bin").write_bytes(b"changed")
    assert inputs_hash(CONFIG, root=root) == before


def test_a_string_that_is_no_docstring_is_code(root: Path) -> None:
    before = inputs_hash(CONFIG, root=root)
    write(root, "deep", 'from zoo.run import anything\nconstant = 2\n"""Text."""\n')
    assert inputs_hash(CONFIG, root=root) != before


def test_config_and_data_change_the_hash_but_not_what_only_the_run_is_about(root: Path) -> None:
    before = inputs_hash(CONFIG, root=root)
    assert len(before) == 8
    assert inputs_hash(dict(reversed(CONFIG.items())), root=root) == before
    more = {"expect": {"floor": 1}, "run_dir": "here", "resume": None, "logger": {"tensorboard": False}}
    assert inputs_hash(CONFIG | more, root=root) == before
    assert inputs_hash(CONFIG | {"seed": 1}, root=root) != before
    assert inputs_hash(CONFIG | {"fast": True}, root=root) != before
    (root / "zoo/data/files/a.bin").write_bytes(b"changed")
    assert inputs_hash(CONFIG, root=root) != before


@pytest.mark.parametrize(("target", "names"), [("A", "ac"), ("B", "b"), ("read", "b"), ("Missing", "")])
def test_data_files_are_those_that_the_data_set_names_or_what_it_refers_to(root: Path, target: str, names: str) -> None:
    config = {"data": {"_target_": f"zoo.data.sets.{target}"}}
    assert [file.name for file in data_files(config, root=root)] == [f"{name}.bin" for name in names]


def test_the_place_of_the_checkout_does_not_matter(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other") / "checkout"
    shutil.copytree(root, other)
    assert inputs_hash(CONFIG, root=other) == inputs_hash(CONFIG, root=root)


def test_a_judgement_depends_on_both_runs_and_on_the_code_that_judges(root: Path) -> None:
    write(root, "judging", "from zoo.distance import far\n")
    write(root, "distance", "far = 1\n")
    before = judged_hash("1", "2", root=root)
    assert judged_hash("1", "3", root=root) != before != judged_hash("3", "2", root=root)
    write(root, "distance", "far = 2\n")
    assert judged_hash("1", "2", root=root) != before


# The zoo --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("experiment", "modules", "files"),
    [
        ("digits_lenet5", "models.lenet losses mixing tasks.classification data.embedded", "mnist_5k.npz"),
        ("digits_gan", "models.dcgan gan_losses tasks.gan tasks.generative data.embedded", "mnist_5k.npz"),
        ("moby_dick_lstm", "models.recurrent models.cells tasks.language_model data.text", "moby_dick.txt.gz"),
        ("earth_unet", "models.unet data.tiles data.mask_augment tiling", "earth.jpg earth_climate.png"),
        ("reversal_transformer", "models.transformer decoding data.pairs", ""),
    ],
)
def test_closures_of_experiments(experiment: str, modules: str, files: str) -> None:
    config = compose(experiment, 0)
    found = {name.removeprefix("zoo.") for name in code(config)}
    always = {
        "network",
        "init",
        "schedules",
        "randomness",
        "tasks.base",
        "tasks.engine",
        "data.loaders",
        "data.augment",
    }
    assert always | set(modules.split()) <= found
    assert not found & {"cli", "run", "report", "prove", "listing", "inspection", "judging", "tasks.vae", "data.series"}
    assert [file.name for file in data_files(config)] == files.split()


def test_judging_is_hashed_without_what_only_reports() -> None:
    found = {name.removeprefix("zoo.") for name in closure(inputs.JUDGING)}
    assert {"judging", "frechet", "extractors", "baselines", "generators"} <= found
    assert not found & {"cli", "run", "report", "pictures", "prove"}


def test_harness_and_roots_exist_and_no_hashed_module_imports_in_a_way_that_is_not_seen() -> None:
    for name in [*inputs.HARNESS, *inputs.ALWAYS, *inputs.JUDGING]:
        assert (ROOT / f"{name.replace('.', '/')}.py").is_file(), name
    for file in (ROOT / "zoo").rglob("*.py"):
        relative = [node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
        assert not any(node.level for node in relative), f"{file}: a relative import"


def test_all_experiments_are_hashed_in_seconds() -> None:
    names = list(select([]))[::4]
    configs = [compose(name, 0) for name in names]
    for config in configs:
        inputs_hash(config)  # reads the files
    started = time.process_time()
    hashes = [inputs_hash(config | {"seed": seed}) for config in configs for seed in range(3)]
    assert time.process_time() - started < 3 / 4  # seconds; measured: a tenth of that
    assert len(set(hashes)) == len(hashes)
