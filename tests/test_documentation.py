"""README and docs/: commands are right, links lead somewhere, generated parts are not stale, the site builds."""

import ast
import importlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from docs_pages.families import FAMILIES, models_of
from docs_pages.messages import ZOO, texts
from docs_pages.pages import generated
from docs_pages.pictures import PICTURES, draw
from zoo.checks import check, check_saved, check_sweep, name_of
from zoo.cli import MODULES, VERBS, main
from zoo.errors import ZooError
from zoo.keys import Key, read
from zoo.listing import select
from zoo.sweeps import is_setting, read_settings

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.M | re.S)
LINK = re.compile(r"!?\[(?:[^\[\]]|!?\[[^\]]*\]\([^)]*\))*\]\(([^()\s]+(?:\([^()]*\))?)\)")
PLACEHOLDER = re.compile(r"…|<|\b[A-Z]{4,}\b|\.py$| --dataset|model=wide\b")  # in a sentence: no command as it stands
TOOLS = {
    "tensorboard",
    "ruff",
    "mypy",
    "git",
    "pip",
    "zensical",
    "zoo",
    "pre-commit",
    "jupyter",
    "xdg-open",
    "cd",
    "conda",
}


def blocks(path: Path, language: str) -> list[str]:
    return [body for _, name, body in FENCE.findall(path.read_text(encoding="utf-8")) if name == language]


def commands(path: Path) -> Iterator[list[str]]:
    """The words of each command that a page shows, without comments."""
    text = path.read_text(encoding="utf-8")
    indented = "\n".join(re.findall(r"^    ((?:python|zoo|pip|git) .+)$", FENCE.sub("", text), re.M))
    inline = re.findall(r"`(python (?:train|evaluate|-m)[^`\n]*)`", FENCE.sub("", text))
    whole = "\n".join(code for code in inline if not PLACEHOLDER.search(code))
    for block in [*blocks(path, "bash"), *blocks(path, "sh"), indented, whole]:
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r" (?:&&|\|) ", line):
                words = shlex.split(part, comments=True)
                if words and "$(" not in part:
                    yield words


# Commands -------------------------------------------------------------------------------------------------------------


def check_command(words: list[str]) -> None:
    """Refuse, as the real first stage does, a command that a page shows. ZooError or AssertionError: what is wrong."""
    while "=" in words[0] and words[0].partition("=")[0].isupper():  # OMP_NUM_THREADS=1 python …
        words = words[1:]
    if words[0] in ("torchrun", "srun"):
        words = ["python", *words[next(i for i, word in enumerate(words) if word.endswith(".py")) :]]
    words = [word for word in words if word != "…"]
    if words[0] != "python":
        assert words[0] in TOOLS, words
        if words[0] == "zoo":
            check_verb(words[1], words[2:])
    elif words[1] == "-m":
        if words[2] == "zoo":
            check_verb(words[3], words[4:])
        else:
            assert importlib.util.find_spec(words[2]) is not None, words
    elif words[1] != "-c":
        verb = words[1].removesuffix(".py")
        assert verb in ("train", "evaluate"), words
        check_verb(verb, words[2:])


def check_verb(verb: str, words: list[str]) -> None:
    assert verb in VERBS, verb
    if verb == "train":
        check_train(words)
    elif verb == "evaluate":
        assert any(word.startswith("ckpt_path=") for word in words), words
        rest = [word for word in words if name_of(word) not in ("ckpt_path", "split", "trust")]
        check_saved(
            None,
            [w for w in rest if not w.startswith("-")],
            groups=("data", "trainer"),
            nodes=("data", "task", "trainer"),
        )
    elif verb == "list":
        assert all(select([word]) for word in words if "=" not in word), words
    elif verb == "prove":
        patterns = [word for word in words if "=" not in word and not word.startswith("--") and word != "families"]
        assert all(select([f"experiment/{word}"]) for word in patterns), words
    elif verb == "lr":
        check([word for word in words if name_of(word) not in ("min", "max", "steps")])
    else:
        keys = importlib.import_module(MODULES[verb]).KEYS
        if all(isinstance(key, Key) for key in keys.values()):
            read([word for word in words if "=" in word], keys)
        else:  # inspect: a fresh network takes what train takes
            rest = [word for word in words if name_of(word) not in keys]
            check([word for word in rest if not any(w.startswith("ckpt_path=") for w in words)])


def check_train(words: list[str]) -> None:
    flags = [word for word in words if word.startswith("-")]
    words = [word for word in words if not word.startswith("-") and word not in ("job", "install=bash")]
    if any(word.startswith("resume=") for word in words):
        return
    settings = [word for word in words if is_setting(word)]
    read_settings(settings)
    rest = [word for word in words if word not in settings and not name_of(word).startswith("hydra")]
    if "-m" in flags or "--multirun" in flags:
        check_sweep(rest)
    else:
        assert not settings, words
        check(rest)


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_every_command_passes_the_first_stage(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "my_models.py").write_text(model_of_the_page(), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    wrong = [f"{shlex.join(words)}: {problem}" for words in commands(path) if (problem := problem_of(tuple(words)))]
    assert not wrong, "\n".join(wrong)


@cache
def problem_of(words: tuple[str, ...]) -> str:
    try:
        check_command(list(words))
    except (ZooError, AssertionError, LookupError) as error:
        return f"{type(error).__name__} {error}"
    return ""


@pytest.mark.parametrize(
    "command",
    ["python train.py optimizer.learning_rate=1", "python train.py model=lenet6", "python -m zoo sample promt=Call",
     "python -m zoo lst", "python train.py -m model=mlp,lenet6", "python -m studies.nothing", "python -m zoo.nothing",
     "make coffee"],
)  # fmt: skip
def test_a_wrong_command_would_be_seen(command: str) -> None:
    assert problem_of(tuple(shlex.split(command)))


def test_what_readme_shows_of_a_mistake_is_what_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    shown = re.search(r"\$ python train.py (\S+)\n(.+)\n", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert shown is not None
    assert main(["train", shown[1]]) == 2
    assert capsys.readouterr().err.strip() == shown[2]


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_python_blocks_are_right(path: Path) -> None:
    """They compile, and what they import is there."""
    for block in blocks(path, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("my_"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, name.name) for name in node.names), ast.unparse(node)
            elif isinstance(node, ast.Import):
                assert all(importlib.util.find_spec(name.name) for name in node.names)


def model_of_the_page() -> str:
    return blocks(DOCS / "your_model.md", "python")[0]


def test_your_own_model_trains_and_is_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page's own commands, with a short run: what is trained outside the package is scored alike again."""
    train, _, evaluate = [words for words in commands(DOCS / "your_model.md") if words[0] == "python"]
    (tmp_path / "my_models.py").write_text(model_of_the_page(), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    short = ["train_examples=200", "run_dir=run", "trainer.accelerator=cpu"]
    words = [word for word in train[2:] if not word.startswith("trainer.max_epochs")]
    assert main(["train", *words, *short, "trainer.max_epochs=1"]) == 0
    told = re.search(r"test/accuracy +([\d.]+)", capsys.readouterr().out)
    assert told is not None
    trusted = [word.replace(evaluate[2], "ckpt_path=run") for word in evaluate[2:]]
    assert main(["evaluate", *trusted]) == 0
    assert told[0] in capsys.readouterr().out
    assert main(["evaluate", "ckpt_path=run"]) == 2  # as the page says, without trust=true


def test_the_config_of_your_own_model_fits_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "my_models.py").write_text(model_of_the_page(), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    config = yaml.safe_load(blocks(DOCS / "your_model.md", "yaml")[0])
    from zoo.signatures import signature

    found = signature(config["model"].pop("_target_"))
    assert found is not None
    assert set(config["model"]) <= set(found.parameters)
    choices = [next(iter(entry.items())) for entry in config["defaults"] if isinstance(entry, dict)]
    check([f"{key.removeprefix('override /')}={value}" for key, value in choices])


# Links ----------------------------------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """What a page can be linked at: its headings as the site names them, and what it names itself."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    found: set[str] = set(re.findall(r"\{ ?#([\w-]+) ?\}", text))
    for heading in re.findall(r"^#+ (.+)$", text, re.M):
        plain = re.sub(r"`|\*|\{.*\}|\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        ascii_only = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
        found.add(re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", ascii_only).strip().lower()))
    return found


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_every_link_and_picture_is_there(path: Path) -> None:
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    wrong = []
    for target in LINK.findall(re.sub(r"`[^`\n]*`", "", text)) + re.findall(r"\]\(([^()\s]+)\)\]", text):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        in_site = DOCS not in path.parents or DOCS in there.parents or there == DOCS
        if not there.exists() or not in_site or (anchor and anchor not in anchors(there)):
            wrong.append(target)
    assert not wrong, wrong


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_files_that_are_named_are_there(path: Path) -> None:
    named = re.findall(
        r"`((?:zoo|tests|studies|benchmarks|configs|notebooks)/[\w/.]+\.\w+)`", path.read_text(encoding="utf-8")
    )
    missing = [name for name in named if not (ROOT / name).exists() and name != "configs/model/wide.yaml"]
    assert not missing, missing


def test_the_navigation_has_every_page_once() -> None:
    def files(node: object) -> Iterator[str]:
        if isinstance(node, str):
            yield node
        elif isinstance(node, dict):
            for value in node.values():
                yield from files(value)
        elif isinstance(node, list):
            for value in node:
                yield from files(value)

    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    there = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
    assert sorted(files(config["nav"])) == there


# Generated parts ------------------------------------------------------------------------------------------------------


def test_generated_parts_are_not_stale() -> None:
    stale = [
        path.relative_to(ROOT).as_posix() for path, text in generated() if path.read_text(encoding="utf-8") != text
    ]
    assert not stale, f"{', '.join(stale)}: run `python -m docs_pages`"


def test_every_family_has_its_page_and_models() -> None:
    for family in FAMILIES:
        text = (DOCS / "families" / f"{family.page}.md").read_text(encoding="utf-8")
        for section in ("models", "results", "parity", "deviations"):
            assert f"<!-- generated: {section} -->" in text, (family.page, section)
        assert models_of(family), family.page


def content(svg: str) -> tuple[list[str], int]:
    """What a drawing says and how many lines it has; where things stand in it is left to the solver."""
    return re.findall(r"<text[^>]*>([^<]*)<", svg), svg.count("<path")


def stored(name: str) -> str:
    return (DOCS / "pictures" / f"architecture_{name}.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["lenet", "resnet_block", "lstm_cell", "segnet"])
def test_a_picture_shows_the_network(name: str) -> None:
    assert content(draw(name)) == content(stored(name)), "run `python -m docs_pages pictures`"


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_shows_the_network(name: str) -> None:
    assert content(draw(name)) == content(stored(name)), "run `python -m docs_pages pictures`"


def test_every_picture_is_shown() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in PAGES)
    for name in PICTURES:
        assert f"architecture_{name}.svg" in text


def test_messages_that_trouble_quotes_are_in_the_code() -> None:
    """`> a … b`: each part must be found in one text of the code; some sentences are put together from several."""
    there = "\n".join(" ".join(text.split()) for file in sorted(ZOO.rglob("*.py")) for text in texts(file))
    quoted = re.findall(r"^> (.+)$", (DOCS / "trouble.md").read_text(encoding="utf-8"), re.M)
    assert len(quoted) > 30
    parts = [part.strip(" :.;") for quote in quoted for part in quote.split("…")]
    missing = [part for part in parts if part not in there]
    assert not missing, missing
    assert "there is no key" in there
    assert "there is no clef" not in there


# The site -------------------------------------------------------------------------------------------------------------


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    """In a copy, so that nothing is left behind here."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    shutil.copytree(DOCS, tmp_path / "docs")
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    zensical = shutil.which("zensical", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert zensical, "install the extra docs"
    built = subprocess.run([zensical, "build", "--strict"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stdout + built.stderr
    assert (tmp_path / "site" / "index.html").is_file()
    assert (tmp_path / "site" / "families" / "resnet.html").is_file()
