"""What is chosen by device: with a GPU that torch only says is there, on the device `meta`, with a scaler on the CPU.

What needs a GPU to be seen is in tests/gpu.
"""

import copy
import functools
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.distributed as dist
from conftest import compose_config
from pytorch_lightning.plugins.precision import MixedPrecision
from pytorch_lightning.trainer.connectors.accelerator_connector import _AcceleratorConnector
from torch import nn

from zoo.build import build
from zoo.data.arrays import ArraySplit
from zoo.data.augment import Augment
from zoo.data.languages import SnippetSplit
from zoo.data.loaders import PositionSampler, Split
from zoo.data.mask_augment import MaskAugment
from zoo.data.pairs import PairSplit
from zoo.data.sequences import PixelSplit
from zoo.data.series import SeriesSplit
from zoo.data.text import TextSplit
from zoo.data.tiles import MaskSplit
from zoo.devices import (
    Placing,
    Resident,
    check_device,
    compiled_parts,
    fast_precision,
    fused_options,
    half_precision,
    lightning_settings,
    make_fast,
    on_cuda,
    prepare_device,
    size_in_memory,
)
from zoo.errors import ZooError
from zoo.memory import advice, is_out_of_memory, peak_memory
from zoo.models.mlp import MLP
from zoo.network import construct
from zoo.run import fill_facts, make_task, resume, to_plain
from zoo.summary import summarize

REPOSITORY = Path(__file__).parents[1]
CPU = torch.device("cpu")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch says that there is a GPU; nothing may run on it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@functools.cache
def composed(*words: str) -> dict[str, Any]:
    return to_plain(compose_config(list(words)))


def config_of(*words: str) -> dict[str, Any]:
    return copy.deepcopy(composed(*words))


# Which device --------------------------------------------------------------------------------------------------------


def test_auto_is_cuda_or_the_cpu(cuda: None, monkeypatch: pytest.MonkeyPatch) -> None:
    auto, cpu = config_of()["trainer"], config_of("trainer=cpu")["trainer"]
    assert on_cuda(auto)
    assert on_cuda(config_of("trainer=gpu")["trainer"])
    assert not on_cuda(cpu)
    assert lightning_settings(auto, training=True)["accelerator"] == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not on_cuda(auto)
    assert lightning_settings(auto, training=True)["accelerator"] == "cpu"  # on a Mac, too
    assert "data_on_device" not in lightning_settings(auto, training=True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["trainer=gpu"], "trainer.accelerator=gpu: needs a CUDA device, and there is none.*trainer=cpu"),
        (["trainer.accelerator=cuda"], "trainer.accelerator=cuda: needs a CUDA device"),
        (["trainer=fsdp"], "trainer=fsdp: needs a CUDA device.*trainer=ddp"),
        (["trainer.precision=16-mixed"], "trainer.precision=16-mixed: needs a CUDA device.*bf16-mixed"),
    ],
)
def test_a_device_that_is_not_there_is_refused(no_cuda: None, words: list[str], told: str) -> None:
    with pytest.raises(ZooError, match=told):
        check_device(config_of(*words))
    check_device(config_of("fast=true"))


def test_refused_before_data_are_read(no_cuda: None, small_run: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"trainer\.accelerator=gpu"):
        small_run("trainer.accelerator=gpu", "data=text_file", "data.path=nowhere.txt", "model=lstm")
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["model=gan"], "trainer=fsdp: is for classification, regression, segmentation, forecasting; Gan"),
        (["ema_decay=0.9"], "ema_decay=0.9: must be null"),
        (["penalty.l1=0.1"], r"penalty\.l1"),
        (["logger=tensorboard"], "logger.pictures: must be false"),
        (["trainer.precision=16-mixed"], "must be bf16-mixed or 32-true"),
    ],
)
def test_what_is_not_sharded_is_refused(
    cuda: None, monkeypatch: pytest.MonkeyPatch, words: list[str], told: str
) -> None:
    with pytest.raises(ZooError, match="needs several CUDA devices"):
        check_device(config_of("trainer=fsdp", "logger=csv"))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ZooError, match=told):
        check_device(config_of("trainer=fsdp", "logger=csv", *words))
    check_device(config_of("trainer=fsdp", "logger=csv"))


# What fast=true means ------------------------------------------------------------------------------------------------


def test_a_gpu_without_bfloat16_gets_float16(cuda: None, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = config_of()["trainer"]
    assert fast_precision(trainer) == "16-mixed"
    assert fast_precision(trainer | {"accelerator": "cpu"}) == "bf16-mixed"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert fast_precision(trainer) == "bf16-mixed"


def test_float16_is_evaluated_on_a_cpu_in_float32(no_cuda: None) -> None:
    trainer = config_of("trainer.precision=16-mixed")["trainer"]
    assert lightning_settings(trainer, training=False)["precision"] == "32-true"
    assert half_precision(trainer) is None
    assert half_precision(trainer | {"precision": "bf16-mixed"}) == torch.bfloat16


def test_float16_stays_on_cuda(cuda: None) -> None:
    trainer = config_of("trainer.precision=16-mixed")["trainer"]
    assert lightning_settings(trainer, training=False)["precision"] == "16-mixed"
    assert half_precision(trainer) == torch.float16


@pytest.mark.parametrize(
    ("words", "tf32", "benchmark"),
    [([], False, False), (["fast=true"], True, True), (["fast=true", "trainer.deterministic=true"], True, False)],
)
def test_exact_float32_unless_fast(
    cuda: None, monkeypatch: pytest.MonkeyPatch, words: list[str], tf32: bool, benchmark: bool
) -> None:
    for name in ("allow_tf32", "benchmark"):  # put back behind the test
        monkeypatch.setattr(torch.backends.cudnn, name, getattr(torch.backends.cudnn, name))
    before = torch.get_float32_matmul_precision()
    try:
        prepare_device(config_of(*words))
        assert torch.backends.cudnn.allow_tf32 is tf32
        assert torch.backends.cudnn.benchmark is benchmark
        assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["model=mlp"], [""]),
        (["model=gan"], ["generator", "discriminator"]),
        (["model=wgan_gp"], ["generator"]),  # the discriminator is differentiated twice
        (["model=gru_classifier", "data=languages"], []),
        (["model=gru_classifier", "data=languages", "model.fused=false"], []),
        (["model=mlp", "trainer=fsdp"], []),
    ],
)
def test_what_is_compiled(words: list[str], parts: list[str]) -> None:
    cfg = compose_config(words)
    fill_facts(cfg, build(to_plain(cfg.data), "data")())
    network = construct(to_plain(cfg))
    assert compiled_parts(network, to_plain(cfg)) == [network.get_submodule(name) for name in parts]


def test_compiling_leaves_keys_copies_and_summary(cuda: None, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(module) or eager(module))
    monkeypatch.setattr("zoo.devices.find_spec", lambda name: True)

    def eager(module: nn.Module) -> None:
        module._compiled_call_impl = torch.compile(module._call_impl, backend="eager")

    network = MLP(in_features=64, num_classes=3)
    plain, image = copy.deepcopy(network), torch.randn(2, 1, 8, 8)
    make_fast(network, config_of())
    assert compiled == [network]
    assert network.state_dict().keys() == plain.state_dict().keys()
    assert copy.deepcopy(network)._compiled_call_impl is None  # an average is not compiled
    assert summarize(network, image).trainable == summarize(plain, image).trainable
    monkeypatch.undo()
    torch.testing.assert_close(network(image), plain(image))


def test_nothing_is_compiled_for_the_cpu(cuda: None, monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Conv2d(3, 4, 3)
    make_fast(network, config_of("trainer=cpu"))
    assert network._compiled_call_impl is None
    assert network.weight.is_contiguous(memory_format=torch.channels_last)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (6, 1))  # for which there is no compiler
    make_fast(network, config_of())
    assert network._compiled_call_impl is None


def test_fused_where_the_optimizer_can(cuda: None) -> None:
    fast = config_of("fast=true", "optimizer=adamw")
    assert fused_options(fast["optimizer"], fast)["fused"] is True
    for words in (["fast=false"], ["fast=true", "trainer=cpu"], ["fast=true", "trainer=fsdp"]):
        config = config_of("optimizer=adamw", *words)
        assert "fused" not in fused_options(config["optimizer"], config)
    for optimizer in ("adadelta", "adagrad"):  # the second is fused by some versions only
        config = config_of("fast=true", f"optimizer={optimizer}")
        assert "fused" not in fused_options(config["optimizer"], config)


# Where batches are made ----------------------------------------------------------------------------------------------


def images(count: int, channels: int = 3, size: int = 12) -> torch.Tensor:
    return torch.randint(0, 256, (count, channels, size, size), generator=torch.Generator().manual_seed(0)).byte()


ALL = {"shift": 2, "flip": 0.5, "flip_vertical": 0.5, "rotation": 20, "erase": 0.5, "noise": 0.1}
BOTH = {"shift": 2, "flip": 0.5, "quarter_turns": 0.75, "rotation": 9, "elastic": 2, "brightness": 0.2, "noise": 0.1}


def splits() -> dict[str, Split]:
    """One of each kind that can lie on a device."""
    labels, tokens = torch.arange(20) % 3, torch.arange(400) % 17
    pixels = PixelSplit(images(20, 1), labels, augment=Augment(shift=1))
    pixels.order, pixels.features = torch.randperm(144), 12
    masks = images(20, 1)[:, 0] % 3
    return {
        "images": ArraySplit(images(20), labels, mean=[0.5] * 3, std=[0.2] * 3, augment=Augment(**ALL)),
        "table": ArraySplit(torch.randn(20, 4), torch.randn(20, 1)),
        "pixels": pixels,
        "masks": MaskSplit(images(20), masks, weights=torch.rand(20, 12, 12), augment=MaskAugment(**BOTH)),
        "crops": MaskSplit(images(20), masks, context=1, augment=MaskAugment(crop=8, flip=0.5)),
        "text": TextSplit(tokens, streams=4, window=5, training=True),
        "text, evaluated": TextSplit(tokens, streams=4, window=5),
        "snippets": SnippetSplit([tokens[:200], tokens[200:]], labels, longest=8, shortest=3, seed=0, augment=5),
        "series": SeriesSplit(torch.randn(60, 2), torch.arange(10, 50), window=5, horizon=2),
    }


@pytest.mark.parametrize("name", splits())
@pytest.mark.parametrize("place", ["cpu", "meta", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_batches_are_the_same_where_the_data_lie_on_the_device(name: str, place: str) -> None:
    if place == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device: torch.cuda.is_available() is false")
    host = splits()[name]
    resident, seen = Resident(host, torch.device(place), {}), 0
    for epoch in (0, 1):
        sampler = PositionSampler(torch.arange(len(host)), 7, shuffle=True)
        sampler.set_epoch(epoch)
        for plan in sampler:
            expected, made = host.batch(*plan), resident.batch(*plan)
            assert made.keys() == expected.keys()
            for key, value in made.items():
                assert value.device.type == place, key
                assert (value.shape, value.dtype) == (expected[key].shape, expected[key].dtype), key
                if place == "cpu":
                    assert torch.equal(value, expected[key]), key
                elif place == "cuda":  # rotated and displaced pixels may round to the next of 256 levels
                    tolerance = {"rtol": 0, "atol": 0.03} if key == "input" else {"rtol": 0, "atol": 0}
                    torch.testing.assert_close(value.cpu(), expected[key], **tolerance)
            seen += 1
    assert seen > 2


def test_views_of_one_storage_stay_views() -> None:
    host = TextSplit(torch.arange(10_000) % 17, streams=4, window=50)
    moved: dict[Any, Any] = {}
    resident = Resident(host, CPU, moved).split
    assert torch.equal(resident.windows, host.windows)  # type: ignore[attr-defined]
    assert resident.windows.untyped_storage().nbytes() == host.windows.untyped_storage().nbytes()  # type: ignore[attr-defined]
    assert resident.windows.data_ptr() != host.windows.data_ptr()  # type: ignore[attr-defined]
    assert host.windows.numel() * 4 > 20 * size_in_memory({"train": host})  # which counts overlapping windows once
    again = Resident(copy.copy(host), CPU, moved).split
    assert again.windows.data_ptr() == resident.windows.data_ptr()  # type: ignore[attr-defined]


def test_where_batches_are_made(cuda: None, monkeypatch: pytest.MonkeyPatch) -> None:
    table, gpu = {"train": splits()["table"]}, torch.device("cuda")
    free = 4 * size_in_memory(table)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 0))
    assert Placing(table, gpu, "auto", 0).keeps
    assert not Placing(table, gpu, False, 0).keeps
    assert Placing(table, gpu, False, 0).pins
    assert not Placing(table, gpu, "auto", 2).keeps  # workers make them in memory of their own,
    assert not Placing(table, gpu, "auto", 2).pins  # and their DataLoader pins
    assert Placing(table, CPU, "auto", 0)(table["train"]) is table["train"]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free - 1, 0))
    assert not Placing(table, gpu, "auto", 0).keeps
    assert Placing(table, gpu, True, 0).keeps
    pairs = {"train": PairSplit((torch.zeros(2, 3), torch.ones(2)), (torch.zeros(2, 3), torch.ones(2)))}
    assert not Placing(pairs, gpu, "auto", 0).keeps
    with pytest.raises(ZooError, match="data_on_device=true"):
        Placing(pairs, gpu, True, 0)


TASKS = {
    "classification": ["model=resnet20", "data=synthetic"],
    "regression": ["model=mlp", "data=synthetic", "data.kind=regression", "task=regression"],
    "segmentation": ["model=unet", "data=earth_segmentation", "model.width=0.125"],
    "language model": ["model=lstm", "data=moby_dick", "model.hidden=8"],
    "attention": ["model=gpt", "data=moby_dick"],
    "pairs": ["model=transformer", "data=reversal"],
    "recurrent pairs": ["model=seq2seq", "data=reversal"],
    "forecasting": ["model=gru_forecaster", "data=sunspots"],
    "snippets": ["model=lstm_classifier", "data=languages"],
    "autoencoder": ["model=contractive_autoencoder"],
    "vae": ["model=cvae"],
    "gan": ["model=cgan"],
    "diffusion": ["model=diffusion", "model.width=8", "model.multipliers=[1,2]", "model.attention=[14]"],
}


@pytest.mark.parametrize("name", TASKS)
def test_no_loss_mixes_devices(name: str) -> None:
    """On `meta`, as on CUDA, a tensor made on the CPU is refused beside one of the device."""
    cfg = compose_config(TASKS[name])
    data = build(to_plain(cfg.data), "data")()
    fill_facts(cfg, data)
    data.setup("fit")
    if name == "regression":
        cfg.model.num_classes = 1
    network = construct(to_plain(cfg))
    task = make_task(to_plain(cfg), network, data).to("meta")
    indices = torch.arange(4)
    batch = data.splits["train"].batch(0, indices, indices)
    batch = {key: value if key == "length" else value.to("meta") for key, value in batch.items()}
    loss, _ = task.loss(network, batch)
    loss.backward()
    assert loss.device.type == "meta"


# Scaled gradients ----------------------------------------------------------------------------------------------------


class Scaled(MixedPrecision):
    """A scaler as 16-mixed has it, in float32: what it scales by, powers of 2, leaves no trace in the numbers."""

    @contextmanager
    def forward_context(self) -> Any:
        yield


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`scaled(init_scale=…)`: from now on trainers have a scaler."""

    def start(**options: Any) -> None:
        def precision(self: Any) -> MixedPrecision:
            return Scaled("16-mixed", "cpu", torch.amp.GradScaler("cpu", **options))

        monkeypatch.setattr(_AcceleratorConnector, "_check_and_init_precision", precision)

    return start


def saved(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


SCALED = {
    "clipped by norm": ["model=mlp", "trainer.gradient_clip_val=0.5", "ema_decay=0.9"],
    "clipped by value": ["model=mlp", "trainer.gradient_clip_val=0.01", "trainer.gradient_clip_algorithm=value"],
    "accumulated": ["model=mlp", "trainer.gradient_clip_val=0.5", "trainer.accumulate_grad_batches=3"],
    "two engines": ["model=gan", "task.n_critic=2", "model.width=0.125", "model.latent=4", "ema_decay=0.9"],
    "a penalty": ["model=wgan_gp", "task.n_critic=2", "model.width=0.125", "model.latent=4"],
}


@pytest.mark.parametrize("case", SCALED)
def test_scaling_changes_no_number(small_run: Callable[..., Any], scaled: Callable[..., Any], case: str) -> None:
    words = [*SCALED[case], "trainer.log_every_n_steps=2", "data.train_size=128"]
    if "gan" in words[0]:
        words += ["data.mean=[0.5]", "data.std=[0.5]", "data.channels=1", "data.image_size=28"]
    plain, _ = small_run(*words)
    scaled(init_scale=2.0**10, growth_interval=3)  # so that it grows on the way
    other, _ = small_run(*words, name="scaled")
    assert saved(other)["Scaled"]["scale"] > 2.0**10
    for part in ("state_dict", "optimizer_states"):
        torch.testing.assert_close(saved(other)[part], saved(plain)[part], rtol=0, atol=0)
    assert (other / "metrics.csv").read_bytes() == (plain / "metrics.csv").read_bytes()


def test_a_skipped_step_changes_nothing(small_run: Callable[..., Any], scaled: Callable[..., Any]) -> None:
    words = ["model=mlp", "ema_decay=0.9", "scheduler=constant", "penalty.l1=100"]
    scaled(init_scale=2.0**127, growth_interval=1000)  # the penalty's gradients overflow until it is 2^121
    one, _ = small_run(*words, "trainer.max_steps=1")
    three, _ = small_run(*words, "trainer.max_steps=3", name="three")
    assert saved(one)["Scaled"]["scale"] == 2.0**126
    assert saved(three)["Scaled"]["scale"] == 2.0**124
    assert saved(three)["engine"]["step_count"] == 3  # they count
    state = saved(three)["state_dict"]
    torch.testing.assert_close(state, saved(one)["state_dict"], rtol=0, atol=0)
    for name in [name for name in state if name.startswith("network.")]:
        assert torch.equal(state[name], state[name.replace("network.", "ema.")])  # moved neither


def test_an_average_passes_over_skipped_steps(small_run: Callable[..., Any], scaled: Callable[..., Any]) -> None:
    words = ["model=mlp", "ema_decay=0.9", "scheduler=constant", "penalty.l1=100"]
    scaled(init_scale=2.0**10, growth_interval=4, growth_factor=2.0**112, backoff_factor=2.0**-112)
    four, _ = small_run(*words, "trainer.max_steps=4")
    five, _ = small_run(*words, "trainer.max_steps=5", name="five")  # the fifth overflows
    six, _ = small_run(*words, "trainer.max_steps=6", name="six")
    assert [saved(folder)["Scaled"]["scale"] for folder in (four, five, six)] == [2.0**122, 2.0**10, 2.0**10]
    before, after, later = (saved(folder)["state_dict"] for folder in (four, five, six))
    assert not torch.equal(before["ema.layers.1.weight"], before["network.layers.1.weight"])
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert not torch.equal(later["ema.layers.1.weight"], after["ema.layers.1.weight"])


def test_the_scale_is_saved_and_goes_on(small_run: Callable[..., Any], scaled: Callable[..., Any]) -> None:
    words = ["model=mlp", "scheduler=constant", "trainer.gradient_clip_val=0.5", "trainer.log_every_n_steps=2"]
    scaled(init_scale=2.0**10, growth_interval=5)
    whole, _ = small_run(*words, "trainer.max_epochs=4")
    halved, _ = small_run(*words, "trainer.max_epochs=2", name="halved")
    scaled(init_scale=2.0**3, growth_interval=5)  # what the checkpoint says counts
    resume(halved, {"trainer.max_epochs": 4})
    assert saved(halved)["Scaled"] == saved(whole)["Scaled"]
    torch.testing.assert_close(saved(halved)["state_dict"], saved(whole)["state_dict"], rtol=0, atol=0)


# Memory --------------------------------------------------------------------------------------------------------------


def test_the_peak_is_told_and_kept(small_run: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    folder, scores = small_run("model=mlp")
    told = re.search(r"^peak memory (\d+) MiB \(the process\)$", capsys.readouterr().out, re.MULTILINE)
    assert told is not None
    assert json.loads((folder / "run.json").read_text())["peak_memory"] == {"mib": int(told[1]), "of": "the process"}
    assert not any("memory" in name for name in scores)  # which are functions of the config


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_the_peak_is_no_less_than_what_is_held() -> None:
    held = torch.ones(64, 2**18)  # 64 MiB
    now = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20
    peak = peak_memory({"accelerator": "cpu"})
    assert peak is not None
    assert held.nbytes / 2**20 < now * 0.99 <= peak[0]


def failure(make: Callable[[], Any]) -> BaseException:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        make()
    return caught.value


def test_out_of_memory_is_known_by_all_its_names() -> None:
    assert is_out_of_memory(failure(lambda: torch.empty(1 << 50)))
    assert is_out_of_memory(failure(lambda: np.ones(1 << 50)))
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."))
    assert is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    assert is_out_of_memory(OSError(12, "Cannot allocate memory"))
    assert not is_out_of_memory(failure(lambda: torch.ones(2) @ torch.ones(3)))
    assert not is_out_of_memory(OSError(28, "No space left on device"))


def test_advice_names_what_can_be_changed(tmp_path: Path, cuda: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    error, config = torch.OutOfMemoryError("CUDA out of memory."), config_of("data.batch_size=64")
    told = advice(error, config, tmp_path)
    assert told is not None
    assert "on a GPU for data.batch_size=64" in told
    assert "data.batch_size=32 with trainer.accumulate_grad_batches=2" in told
    assert "data.eval_batch_size=250" in told
    assert "fast=true" in told
    assert "trainer.data_on_device=false" in told
    assert "no checkpoint" in told
    assert len(told.splitlines()) == 3  # as many as the command line shows
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    mended = config_of("data.batch_size=1", "fast=true", "trainer.data_on_device=false", "trainer=cpu")
    told = advice(error, mended, tmp_path)
    assert told is not None
    assert f"resume={tmp_path} goes on from last.ckpt" in told
    for gone in ("accumulate_grad_batches", "fast=true", "data_on_device"):
        assert gone not in told
    assert advice(ValueError("something else"), config, tmp_path) is None


def test_what_cannot_be_deterministic_is_told(tmp_path: Path) -> None:
    error = RuntimeError(
        "nll_loss2d_forward_out_cuda_template does not have a deterministic implementation, but you set "
        "'torch.use_deterministic_algorithms(True)'."
    )
    told = advice(error, config_of("trainer.deterministic=true"), tmp_path)
    assert told is not None
    assert "trainer.deterministic=True: nll_loss2d_forward_out_cuda_template" in told
    assert "trainer.deterministic=warn" in told


LIMITED = """
import resource, sys
import zoo.run, zoo.cli
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 2**29, now + 2**29))
sys.exit(zoo.cli.main(sys.argv[1:]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc and RLIMIT_AS")
def test_a_run_without_enough_memory_ends_with_advice(tmp_path: Path) -> None:
    words = ["model=resnet18", "data=synthetic", "data.train_size=600", "data.batch_size=600", "data.image_size=64"]
    words += ["trainer=cpu", "logger=csv", f"run_dir={tmp_path / 'run'}"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LIMITED, "train", *words]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "There is not enough memory on this machine for data.batch_size=600." in done.stderr
    assert "data.batch_size=300 with trainer.accumulate_grad_batches=2" in done.stderr
    assert "Traceback" not in done.stderr


# Sharded networks ----------------------------------------------------------------------------------------------------


@pytest.fixture
def alone() -> Iterator[None]:
    """A group of this one process, for which Lightning sets environment variables and the number of threads."""
    threads = torch.get_num_threads()
    with patch.dict(os.environ):
        yield
        torch.set_num_threads(threads)
        if dist.is_initialized():  # of a run that ended with an error
            dist.destroy_process_group()


def test_a_sharded_run_is_the_plain_one(
    small_run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, alone: None
) -> None:
    """A group of one process on the CPU, which `trainer=fsdp` itself refuses; two of them: `test_two_shards`."""
    words = ["model=mlp", "trainer.gradient_clip_val=0.5", "trainer.log_every_n_steps=2"]
    plain, scores = small_run(*words)
    monkeypatch.setattr("zoo.run.check_device", lambda config: None)
    sharded, same = small_run(*words, "trainer.strategy=fsdp", name="sharded")
    assert same == pytest.approx(scores, abs=1e-5)
    for part in ("state_dict", "optimizer_states"):
        torch.testing.assert_close(saved(sharded)[part], saved(plain)[part], rtol=0, atol=1e-5)  # to rounding


def test_a_plain_run_is_not_continued_sharded(
    small_run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, alone: None
) -> None:
    folder, _ = small_run("model=mlp", "trainer.max_epochs=1")
    monkeypatch.setattr("zoo.run.check_device", lambda config: None)
    with pytest.raises(ZooError, match="was not trained with trainer=fsdp"):
        resume(folder, {"trainer.strategy": "fsdp", "trainer.max_epochs": 2})


SHARDED = """
import sys, zoo.cli, zoo.run
zoo.run.check_device = lambda config: None
sys.exit(zoo.cli.main(sys.argv[1:]))
"""


def start(folder: Path, *words: str, processes: int = 1) -> str:
    """Run a command in processes that let `trainer=fsdp` onto the CPU; returns what the first prints."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    if processes > 1:
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GROUP_RANK": "0"}
        environment |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(processes))
    started = []
    for rank in range(processes):
        mine = environment | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {})
        command = [sys.executable, "-c", SHARDED, *words]
        started.append(subprocess.Popen(command, env=mine, cwd=folder, text=True, stdout=-1, stderr=-1))
    told = [process.communicate(timeout=300) for process in started]
    assert not any(process.returncode for process in started), told
    return told[0][0]


@pytest.mark.slow
def test_two_shards(tmp_path: Path) -> None:
    """Two processes train one network to the weights of one process; what they save, one evaluates, both continue."""
    words = ["model=mlp", "data=synthetic", "trainer.gradient_clip_val=0.5", "trainer.max_epochs=4", "logger=csv"]
    shared = ["trainer=fsdp", "trainer.accelerator=cpu", "trainer.devices=2"]
    start(tmp_path, "train", *words, "trainer=cpu", "run_dir=plain")
    start(tmp_path, "train", *words, *shared, "run_dir=sharded", processes=2)
    weights = [saved(tmp_path / name)["state_dict"] for name in ("sharded", "plain")]
    torch.testing.assert_close(*weights, rtol=0, atol=1e-5)
    assert "test/accuracy" in start(tmp_path, "evaluate", "ckpt_path=sharded", "trainer=cpu")
    start(tmp_path, "train", "resume=sharded", "trainer.max_epochs=5", processes=2)
    assert saved(tmp_path / "sharded")["engine"]["step_count"] == 40
