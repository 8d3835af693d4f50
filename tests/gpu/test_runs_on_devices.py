"""Every task trained on a device: on the CPU always, on CUDA with `-m gpu`, skipped where there is none.

python -m pytest tests -m gpu
"""

import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import fingerprint, run_until
from torch import nn

from zoo.checks import check
from zoo.devices import Pinned, prepare_device
from zoo.errors import ZooError
from zoo.evaluation import evaluate
from zoo.randomness import normal, uniform
from zoo.run import train

PLACES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
REPOSITORY = Path(__file__).parents[2]
PICTURES = ["data=synthetic", "data.channels=1", "data.image_size=28", "data.train_size=96", "data.batch_size=32"]
TASKS = {
    "classification": ["model=resnet20", "data=synthetic", "data.train_size=96", "augment=flip_shift"],
    "regression": ["model=mlp", "data=synthetic", "data.kind=regression", "task=regression", "data.num_classes=1"],
    "segmentation": ["model=unet", "model.width=0.0625", "model.depth=2", "train_examples=48"],
    "language_model": ["model=lstm", "model.hidden=16", "trainer.limit_train_batches=5"],
    "seq2seq": ["model=seq2seq", "model.hidden=16", "trainer.limit_train_batches=5"],
    "attention": ["model=transformer", "model.d_model=16", "model.layers=1", "trainer.limit_train_batches=5"],
    "forecasting": ["model=gru_forecaster", "model.hidden=8"],
    "reconstruction": ["model=autoencoder", "model.width=0.125", *PICTURES],
    "vae": ["model=vae", "model.hidden=[24]", "model.latent_size=5", *PICTURES],
    "gan": ["model=cgan", "model.width=0.125", "model.latent=8", *PICTURES],
    "wgan_gp": ["model=wgan_gp", "model.width=0.125", "model.latent=8", *PICTURES],
    "diffusion": ["model=diffusion", "model.width=8", "model.multipliers=[1,2]", "model.attention=[]", *PICTURES],
}
COMMON = ["trainer.max_epochs=2", "trainer.log_every_n_steps=1", "ema_decay=0.9", "trainer.gradient_clip_val=1.0"]
COMMON += ["trainer.limit_val_batches=1", "trainer.limit_test_batches=1", "data.eval_batch_size=64", "logger=csv"]
SETTINGS = {
    "float32": [],
    "bf16": ["trainer.precision=bf16-mixed"],
    "fp16": ["trainer.precision=16-mixed"],
    "fast": ["fast=true"],  # channels last, bf16, TF32, fused, compiled
    "compiled, float16": ["fast=true", "trainer.precision=16-mixed"],
}


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device: torch.cuda.is_available() is false")
    return request.param


@pytest.fixture(autouse=True)
def exact() -> Any:
    """Put back what a run on CUDA sets for the whole process."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision("highest")


@pytest.fixture
def started(tmp_path: Path) -> Callable[..., tuple[Path, dict[str, float]]]:
    """Train as the command line does; the folder and the scores."""

    def start(*words: str, name: str = "run") -> tuple[Path, dict[str, float]]:
        folder, job = tmp_path / name, check(words)
        folder.mkdir()
        return folder, train(job.config, folder, choices=job.choices, command=[])

    return start


def words_of(task: str, device: str) -> list[str]:
    return [*TASKS[task], *COMMON, f"trainer.accelerator={device}"]


def runs() -> list[Any]:
    on_cpu = [pytest.param("cpu", task, "bf16", id=f"cpu-{task}-bf16") for task in TASKS]
    return on_cpu + [
        pytest.param("cuda", task, setting, id=f"cuda-{task}-{setting}", marks=pytest.mark.gpu)
        for task in TASKS
        for setting in SETTINGS
    ]


@pytest.mark.parametrize(("device", "task", "setting"), runs(), indirect=["device"])
def test_trained_here_and_evaluated_on_the_cpu(
    started: Callable[..., Any], device: str, task: str, setting: str
) -> None:
    folder, scores = started(*words_of(task, device), *SETTINGS[setting])
    assert all(math.isfinite(score) for score in scores.values()), scores
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert not any("_orig_mod" in name for name in state)  # compilation leaves the keys
    again = evaluate(ckpt_path=folder, overrides=["trainer.accelerator=cpu"])
    tolerance = 1e-3 if setting == "float32" else 0.05
    assert again["test/loss"] == pytest.approx(scores["test/loss"], rel=tolerance, abs=tolerance)
    about = (folder / "run.json").read_text()
    assert ("tensors on" in about) == (device == "cuda")


def deterministic(task: str) -> Any:
    on_cuda = pytest.param("cuda", task, id=f"cuda-{task}", marks=pytest.mark.gpu)
    return [on_cuda] if task != "classification" else [pytest.param("cpu", task, id=f"cpu-{task}"), on_cuda]


@pytest.mark.parametrize(
    ("device", "task"), [case for task in TASKS for case in deterministic(task)], indirect=["device"]
)
def test_the_same_seed_gives_the_same_bits(started: Callable[..., Any], device: str, task: str) -> None:
    words = [*words_of(task, device), "trainer.deterministic=true"]
    first, _ = started(*words, name="first")
    second, _ = started(*words, name="second")
    assert fingerprint(first) == fingerprint(second)


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["float32", "fp16"])
@pytest.mark.parametrize("device", [PLACES[1]], indirect=True)
@pytest.mark.parametrize("task", ["classification", "language_model", "gan"])
def test_killed_and_continued_to_the_same_bits(tmp_path: Path, device: str, task: str, setting: str) -> None:
    """The same on the CPU: tests/test_resume.py."""
    words = [*words_of(task, device), *SETTINGS[setting], "trainer.deterministic=true"]
    words += ["checkpoint.every_n_steps=2"]
    assert run_until(tmp_path / "whole", "never", 0, words) == 0
    assert run_until(tmp_path / "killed", "update", 5, words) != 0
    assert run_until(tmp_path / "killed", "never", 0, words) == 0
    assert fingerprint(tmp_path / "killed") == fingerprint(tmp_path / "whole")


@pytest.mark.parametrize("device", PLACES, indirect=True)
def test_data_on_the_device_are_the_data(started: Callable[..., Any], device: str) -> None:
    words = [*words_of("classification", device), "trainer.deterministic=true"]
    prints = []
    for on_device in ("false", "auto"):
        folder, _ = started(*words, f"trainer.data_on_device={on_device}", name=on_device)
        prints.append(fingerprint(folder))
    assert prints[0] == prints[1]


@pytest.mark.parametrize("device", PLACES, indirect=True)
def test_random_numbers_are_the_same(device: str) -> None:
    positions = torch.arange(10_000)
    assert torch.equal(uniform(7, positions.to(device), 5).cpu(), uniform(7, positions, 5))
    torch.testing.assert_close(normal(7, positions.to(device), 5).cpu(), normal(7, positions, 5), rtol=0, atol=1e-5)


@pytest.mark.parametrize("device", PLACES, indirect=True)
def test_float32_is_float32(device: str) -> None:
    """Without fast=true no product is rounded to TF32, whose error is a thousand times this bar."""
    prepare_device({"fast": False, "trainer": {"accelerator": device}})
    torch.manual_seed(0)
    image, matrix = torch.randn(8, 64, 16, 16), torch.randn(256, 256)
    layer = nn.Conv2d(64, 64, 3)
    expected = layer(image), matrix @ matrix
    made = layer.to(device)(image.to(device)), matrix.to(device) @ matrix.to(device)
    for ours, truth in zip(made, expected, strict=True):
        assert (ours.cpu() - truth).abs().max() < 1e-5 * truth.abs().max()


@pytest.mark.gpu
@pytest.mark.parametrize("device", PLACES[1:], indirect=True)
def test_batches_from_the_host_are_pinned(device: str) -> None:
    class Split:
        augment = None

        def __len__(self) -> int:
            return 4

        def batch(self, epoch: int, positions: torch.Tensor, indices: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"position": positions}

    assert Pinned(Split()).batch(0, torch.arange(4), torch.arange(4))["position"].is_pinned()


@pytest.mark.gpu
@pytest.mark.parametrize("device", PLACES[1:], indirect=True)
def test_advice_where_the_gpu_is_full(started: Callable[..., Any], device: str) -> None:
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 2**28) / total)
    try:
        with pytest.raises(ZooError, match=r"not enough memory.*data\.batch_size=2000") as told:
            started(
                *("model=resnet18", "data=synthetic", "data.train_size=2000", "data.batch_size=2000"),
                *("data.image_size=64", f"trainer.accelerator={device}"),
            )
        assert "trainer.data_on_device=false" in str(told.value)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("device", PLACES[1:], indirect=True)
def test_shards_on_several_gpus(tmp_path: Path, device: str) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    words = ["model=mlp", "data=synthetic", "trainer.max_epochs=4", "trainer.gradient_clip_val=0.5", "logger=csv"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    states = []
    for name, trainer in (("plain", ["trainer=gpu"]), ("sharded", ["trainer=fsdp", "trainer.devices=2"])):
        command = [sys.executable, "-m", "zoo", "train", *words, *trainer, f"run_dir={name}"]
        subprocess.run(command, env=environment, cwd=tmp_path, check=True, timeout=300)
        path = tmp_path / name / "checkpoints" / "last.ckpt"
        states.append(torch.load(path, weights_only=True)["state_dict"])
    torch.testing.assert_close(*states, rtol=0, atol=1e-4)
