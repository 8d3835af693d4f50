"""Shared by all tests: one thread (the suite runs small networks), configs composed in this process, tiny runs.

`python -m pytest tests/models --write-parity` writes `parity.json`, the certificate of the networks that have a twin.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from parity import GRADIENT_BAR, OUTPUT_BAR, compare
from torch import nn

from zoo.checks import CONFIGS
from zoo.report import quieten_lightning
from zoo.run import train

quieten_lightning()
torch.set_num_threads(1)

SMALL = ["data=synthetic", "trainer.accelerator=cpu", "trainer.max_epochs=2", "logger=csv"]


def compose_config(overrides: list[str]) -> DictConfig:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", overrides=overrides)


@pytest.fixture
def small_run(tmp_path: Path) -> Callable[..., tuple[Path, dict[str, float]]]:
    """Train a small run and return its folder and scores; later overrides win."""

    def start(*overrides: str, name: str = "run") -> tuple[Path, dict[str, float]]:
        folder = tmp_path / name
        folder.mkdir()
        words = [*SMALL, *overrides]
        choices = {"data": "synthetic", "model": "lenet5", "task": "classification"}
        choices |= dict(word.split("=", 1) for word in overrides if word.partition("=")[0] in choices)
        return folder, train(compose_config(words), folder, choices=choices, command=["train.py", *words])

    return start


CERTIFICATE = Path(__file__).parents[1] / "parity.json"
ROWS = pytest.StashKey[dict[str, Any]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-parity", action="store_true", help="write what the parity tests measured to parity.json")


@pytest.fixture
def certify(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`certify(name, ours, twin, source=…, image_size=…)` asserts that both are equal; options: `parity.compare`'s."""

    def check(name: str, ours: nn.Module, twin: nn.Module, *, source: str, image_size: int, **options: Any) -> None:
        row = compare(ours, twin, image_size=image_size, **options)
        request.config.stash.setdefault(ROWS, {})[name] = {"twin": source, "image_size": image_size, **row}
        assert row["outputs"] <= OUTPUT_BAR, row
        for part in ("gradients", "weights after a step", "buffers"):
            assert row[part] <= GRADIENT_BAR, (part, row)

    return check


@pytest.fixture
def certify_row(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`certify_row(name, outputs=…, gradients=…, source=…)` asserts that differences a test measured are small enough.

    For networks that do not map one image to logits; `more` stands in the row beside them.
    """

    def check(name: str, *, outputs: float, gradients: float, source: str, **more: Any) -> None:
        row = {"twin": source, "outputs": outputs, "gradients": gradients, **more}
        request.config.stash.setdefault(ROWS, {})[name] = row
        assert outputs <= OUTPUT_BAR, row
        assert gradients <= GRADIENT_BAR, row

    return check


def pytest_sessionfinish(session: pytest.Session) -> None:
    rows = session.config.stash.get(ROWS, {})
    if rows and session.config.getoption("--write-parity"):
        former = json.loads(CERTIFICATE.read_text()) if CERTIFICATE.exists() else {}
        CERTIFICATE.write_text(json.dumps(dict(sorted({**former, **rows}.items())), indent=1) + "\n")
