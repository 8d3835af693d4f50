"""Tab completion: what is offered, that bash takes it, that it is quick, and Hydra's for train.py."""

import importlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from zoo import cli
from zoo.checks import check, known_keys
from zoo.completion import BASH, offers
from zoo.layout import options

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("zoo ev", ["evaluate "]),
        ("zoo train model=densenet1", ["model=densenet100 ", "model=densenet121 ", "model=densenet161 "]),
        ("zoo train mod", ["model.", "model="]),
        ("zoo train model=mlp seed=1 model.hid", ["model.hidden="]),
        ("zoo train model.we", ["model.weights="]),
        ("zoo train optimizer=momentum optimizer.mom", ["optimizer.momentum="]),
        ("zoo train model=resnet18 scheduler.warmup_f", ["scheduler.warmup_fraction="]),  # what the model chooses
        ("zoo train experiment=earth_resnet20 model.short", ["model.shortcut="]),  # what the experiment chooses
        ("zoo train --mul", ["--multirun "]),
        ("zoo evaluate ", ["ckpt_path=", "data=", "split=", "trainer=", "trust="]),
        ("zoo evaluate data=fash", ["data=fashion "]),
        ("zoo lr ste", ["steps="]),
        ("zoo sample temp", ["temperature="]),
        ("zoo prove digits_lenet5_", ["digits_lenet5_1998 "]),
        ("zoo list opt", ["optimizer "]),
        ("zoo train nothing", []),
        ("zoo train ckpt_path=ru", []),  # bash offers files
    ],
)
def test_offers(line: str, found: list[str]) -> None:
    assert offers(line)[: len(found)] == found
    assert found or not offers(line)


def test_what_is_offered_is_accepted() -> None:
    """The groups, the options of each, and every key of the default options."""
    everything = offers("zoo train ")
    assert {f"{group}=" for group in options()} <= {*everything}
    for group, names in options().items():
        assert offers(f"zoo train {group}=") == [f"{group}={name} " for name in names]
    for node in [word for word in everything if word.endswith(".")]:
        keys = {word.rstrip("=") for word in offers(f"zoo train {node}")}
        assert keys, node
        assert keys <= {*known_keys()}, node
    check([offers("zoo train model=densenet121")[0].strip(), "model.dropout=0.1"])


def test_every_verb_is_offered_with_the_keys_it_reads() -> None:
    assert [word.strip() for word in offers("zoo ")] == list(cli.VERBS)
    for verb, module in cli.MODULES.items():
        keys = getattr(importlib.import_module(module), "KEYS", {})
        assert {f"{key}=" for key in keys} <= {*offers(f"zoo {verb} ")}, verb


def in_bash(line: str, tmp_path: Path, script: str = BASH) -> list[str]:
    """What bash has to offer behind `line`, with a `zoo` on its path."""
    zoo = tmp_path / "zoo"
    zoo.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m zoo "$@"\n')
    zoo.chmod(0o755)
    ask = f'COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)}; _zoo; printf "%s|" "${{COMPREPLY[@]}}"'
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    environment = {**os.environ, **path}
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, env=environment)
    assert not done.stderr
    return done.stdout.split("|")[:-1]


def test_bash_takes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert in_bash("zoo pre", tmp_path, script) == ["predict "]
    assert in_bash("zoo train seed=1 model=vgg16_", tmp_path, script) == ["vgg16_bn ", "vgg16_c "]  # behind the =
    without = f"{script}\nCOMP_WORDBREAKS=' '"
    assert in_bash("zoo train model=vgg16_b", tmp_path, without) == ["model=vgg16_bn "]
    assert in_bash("zoo train model=none optimizer.", tmp_path, script) == [""]  # a mistake on the line: no sentence


def test_it_answers_without_torch() -> None:
    code = "import sys; from zoo.cli import main; main(['completion', 'words', 'zoo train model=vgg11 optimizer.']);"
    code += "assert not {'torch', 'numpy', 'pytorch_lightning'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "optimizer.lr=" in done.stdout


@pytest.mark.parametrize("words", [[], ["zsh"], ["words"]])
def test_anything_else_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", *words]) == 2
    assert 'eval "$(zoo completion bash)"' in capsys.readouterr().err


def test_hydra_completes_train_py() -> None:
    """As `python train.py` with a Tab behind `model=lenet` asks it."""
    environment = {**os.environ, "COMP_LINE": "python train.py model=lenet", "COMP_POINT": "27", "COMP_CWORD": "2"}
    words = [sys.executable, "train.py", "-sc", "query=bash"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.stdout.split() == ["model=lenet5", "model=lenet5_1998"], done.stderr
    done = subprocess.run([*words[:3], "install=bash"], capture_output=True, text=True, cwd=ROOT)
    assert "complete -o nospace" in done.stdout
