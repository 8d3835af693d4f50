"""Shared by all tests: one thread (the suite runs small networks), configs composed in this process, tiny runs."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from zoo.checks import CONFIGS
from zoo.run import quieten_lightning, train

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
        return folder, train(compose_config(words), folder, choices=choices, command=["train.py", *words])

    return start
