"""`zoo export`: a file says what the network says, for any batch; one that does not is refused in a sentence."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn
from torch._decomp import decomposition_table
from untrained import untrained_run

import zoo.exporting as exporting
from zoo.cli import main as zoo
from zoo.errors import ZooError
from zoo.evaluation import load
from zoo.export_table import PAGE, fresh, read_rows, try_model
from zoo.layout import options
from zoo.models.recurrent import RecurrentPredictor
from zoo.models.unet import UNet
from zoo.tasks.classification import Classification
from zoo.tasks.segmentation import Segmentation

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
TEXT = ["data=languages", "model.hidden=6", "model.embedding=4"]
PAIRS = ["data.train_size=40", "data.val_size=5", "data.test_size=5"]
SMALL = ["data=synthetic", "data.image_size=12", "data.channels=1", "data.augment=null"]
PIXELS = {0: ["data.mean=[0.0]", "data.std=[1.0]"], -1: ["data.mean=[0.5]", "data.std=[0.5]"]}
# one of each contract: the words of its run, the formats it is tried in here, and what goes in
FAMILIES: dict[str, tuple[list[str], tuple[str, ...], list[str]]] = {
    "picture": (["model=lenet5", "data=digits"], ("onnx",), ["input"]),
    "table": (["model=mlp", "data=synthetic", "data.kind=vectors"], ("torch_export",), ["input"]),
    "snippet": (["model=bilstm_classifier", *TEXT], ("onnx",), ["input"]),
    "gru": (["model=gru", "data=copy_task", "data.delay=5", "model.hidden=6"], ("onnx",), ["tokens", "state_0"]),
    "lstm": (["model=lstm", "data=copy_task", "model.hidden=6"], ("torch_export",), ["tokens", "state_0", "state_1"]),
    "rnn": (["model=rnn", "data=copy_task", "model.hidden=6", "model.layers=2"], ("onnx",), ["tokens", "state_0"]),
    "gpt": (["model=gpt", "data=copy_task", "model.layers=1", "model.d_model=8"], ("torch_export",), ["tokens"]),
    "cells": (
        ["model=rnn", "data=copy_task", "model.hidden=6", "model.fused=false"],
        ("torch_export",),
        ["tokens", "state_0"],
    ),
    "pairs": (
        ["model=transformer", "model.layers=1", "model.d_model=8", *PAIRS],
        ("torch_export",),
        ["source", "source_length", "target"],
    ),
    "autoencoder": (["model=autoencoder_2006", "model.widths=[8]", *SMALL, *PIXELS[0]], ("torch_export",), ["input"]),
    "cvae": (["model=cvae", "model.hidden=[8]", *SMALL, *PIXELS[0]], ("onnx",), ["input", "noise", "condition"]),
    "gan": (["model=mlp_gan", "model.generator_hidden=[8]", *SMALL, *PIXELS[-1]], ("torch_export",), ["noise"]),
    "diffusion": (
        ["model=diffusion", "model.width=4", "model.multipliers=[1,1]", "model.attention=[]", *SMALL, *PIXELS[-1]],
        ("torch_export",),
        ["noisy", "time", "condition"],
    ),
}


def run_file(path: Path, about: dict[str, Any], given: list[Tensor]) -> list[Tensor]:
    """What a file gives, called as docs/export.md says."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path)
        assert json.loads(session.get_modelmeta().custom_metadata_map["zoo"])["inputs"] == about["inputs"]
        names = [put["name"] for put in about["inputs"]]
        taken = {put.name for put in session.get_inputs()}
        feed = {name: value.numpy() for name, value in zip(names, given, strict=True) if name in taken}
        return [torch.from_numpy(array) for array in session.run(None, feed)]
    extra = {"zoo.json": ""}
    module = torch.export.load(path, extra_files=extra).module()
    assert json.loads(extra["zoo.json"])["inputs"] == about["inputs"]
    states = [place for place, put in enumerate(about["inputs"]) if put["name"].startswith("state_")]
    args = (*given[: states[0]], tuple(given[states[0] :])) if len(states) > 1 else tuple(given)
    return exporting.tensors(module(*args))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_says_what_the_network_says(family: str, tmp_path: Path, capsys: Any) -> None:
    words, formats, names = FAMILIES[family]
    run, _ = untrained_run(tmp_path / "ein lauf", *words, std=0.1)
    network, preprocessing, class_names = load(run)
    for form in formats:
        capsys.readouterr()
        assert zoo(["export", f"ckpt_path={run}", f"format={form}"]) == 0
        said = capsys.readouterr()
        assert said.err == ""
        path = Path(re.findall(r"wrote (.*) and", said.out)[0])
        assert path.parent == run / "export"
        about = json.loads(path.with_name(f"{path.name}.json").read_text(encoding="utf-8"))
        assert 0 <= about["largest_difference"] <= 1e-4
        assert f"{about['largest_difference']:.2g}" in said.out
        assert (about["preprocessing"], about["class_names"]) == (json.loads(json.dumps(preprocessing)), class_names)
        assert [put["name"] for put in about["inputs"]] == names
        # of other sizes than those it was recorded and verified with
        sizes, given = {"batch": 7, "steps": 9, "targets": 6}, []
        for put in about["inputs"]:
            shape = [sizes.get(axis, axis) for axis in put["shape"]]
            is_length, is_whole = put["name"] == "source_length", put["dtype"] == "int64"
            given.append(
                torch.arange(3, 10) if is_length else torch.randint(2, shape) if is_whole else torch.randn(shape)
            )
        called = network.generator if family == "gan" else network
        states = len(given) - 1 if family == "lstm" else 0
        with torch.no_grad():
            live = called(*given[: len(given) - states], *([tuple(given[-states:])] if states else []))
        found = run_file(path, about, given)
        for one, two, put in zip(exporting.tensors(live), found, about["outputs"], strict=True):
            torch.testing.assert_close(two, one, atol=1e-4, rtol=1e-4)
            wanted = [sizes.get(axis, axis) for axis in put["shape"]]
            assert list(two.shape) == ([7, 6, *wanted[2:]] if family == "pairs" else wanted)


def test_a_network_for_masks_is_recorded_too(tmp_path: Path) -> None:
    network = UNet(in_channels=1, num_classes=2, image_size=16, width=0.125, depth=1).eval()
    facts = {"channels": 1, "image_size": 16, "class_names": ["sky", "land"]}
    path = tmp_path / "x.pt2"
    about = exporting.export(network, Segmentation, {"data": facts}, form="torch_export", path=path, about={})
    assert about["outputs"] == [{"name": "logits", "shape": ["batch", 2, 16, 16], "dtype": "float32"}]
    pictures = torch.randn(2, 1, 16, 16)
    torch.testing.assert_close(run_file(path, about, [pictures])[0], network(pictures))


def test_weights_alone_build_the_network_again(tmp_path: Path, capsys: Any) -> None:
    words = ["model=gpt", "data=copy_task", "model.layers=1", "model.d_model=8"]  # one matrix under two names
    run, _ = untrained_run(tmp_path / "run", *words)
    out = tmp_path / "new" / "weights.safetensors"
    assert zoo(["export", f"ckpt_path={run}", "format=safetensors", f"out={out}"]) == 0
    with safe_open(out, framework="pt") as file:
        about = json.loads(file.metadata()["zoo"])
    assert about["config"]["model"]["d_model"] == 8
    assert json.loads(out.with_name("weights.safetensors.json").read_text())["largest_difference"] == 0
    assert out.with_name("weights.safetensors.json").read_text().count('"config"') == 1
    capsys.readouterr()
    assert zoo(["export", f"ckpt_path={run}", "format=safetensors", f"out={out}"]) == 2
    assert "is there already" in capsys.readouterr().err
    out.unlink()
    assert zoo(["export", f"ckpt_path={run}", "format=safetensors", f"out={out}"]) == 2
    assert "weights.safetensors.json is there already, though weights.safetensors is not" in capsys.readouterr().err
    for name in ("gpt", "gpt_2"):
        assert zoo(["export", f"ckpt_path={run}", "format=safetensors"]) == 0
        assert (run / "export" / f"{name}.safetensors.json").exists()


def test_the_averaged_weights_are_written(tmp_path: Path) -> None:
    run, _ = untrained_run(tmp_path / "run", "model=softmax_regression", "data=digits")
    path = run / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(path)
    state = checkpoint["state_dict"]
    state |= {name.replace("network.", "ema."): torch.full_like(value, 0.5) for name, value in state.items()}
    torch.save(checkpoint, path)
    assert zoo(["export", f"ckpt_path={run}", "format=torch_export"]) == 0
    module = torch.export.load(run / "export" / "softmax_regression.pt2").module()
    assert torch.allclose(module(torch.ones(2, 1, 28, 28)), torch.full((2, 10), 0.5 * 784 + 0.5))


def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    run, _ = untrained_run(tmp_path / "run", "model=lenet5", "data=digits")
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text(encoding="utf-8")
    for form, code in re.findall(r"<!-- run: (\w+) -->\n```python\n(.*?)```", page, re.DOTALL):
        target = f"lenet5{exporting.ENDINGS[form]}"
        assert zoo(["export", f"ckpt_path={run}", f"format={form}", f"out={target}"]) == 0
        os.remove(f"{target}.json")
        capsys.readouterr()
        exec(code, {})
        labels = capsys.readouterr().out.strip()
        assert re.fullmatch(r"\[('\d'(, )?){5}\]", labels)


# What is refused ------------------------------------------------------------------------------------------------------


class Noisy(nn.Module):
    def forward(self, input: Tensor) -> Tensor:
        return input + torch.rand_like(input)


class Branching(nn.Module):
    def forward(self, input: Tensor) -> Tensor:
        return input if input.sum() > 0 else -input


class Flattening(nn.Module):
    """Reads sequences of one length only."""

    def forward(self, input: Tensor) -> Tensor:
        return input.reshape(-1, 6 * 3).cumsum(1)[:, :2]


class SometimesNoNumber(nn.Module):
    def forward(self, input: Tensor) -> Tensor:
        return input / (input.shape[0] - 1)  # of a batch of one


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (Noisy(), "differs from the live network by 0"),
        (Branching(), "this network cannot be recorded"),
        (SometimesNoNumber(), "outputs are no numbers"),
    ],
)
def test_what_is_not_the_network_is_refused(tmp_path: Path, network: nn.Module, sentence: str) -> None:
    config = {"data": {"num_features": 3}}
    path = tmp_path / "x.pt2"
    with pytest.raises(ZooError, match=sentence) as told:
        exporting.export(network, Classification, config, form="torch_export", path=path, about={})
    assert "format=safetensors holds its weights." in str(told.value)
    assert not path.exists()


def test_where_the_number_of_steps_cannot_be_free_it_is_fixed(tmp_path: Path) -> None:
    config = {"data": {"num_features": 3, "sequence_length": 6}}
    called = exporting.signature(Flattening(), Classification, config["data"])
    assert called.arguments[0].shape == ("batch", "steps", 3)
    path = tmp_path / "x.pt2"
    about = exporting.export(Flattening(), Classification, config, form="torch_export", path=path, about={})
    assert about["inputs"][0]["shape"] == ["batch", 6, 3]
    assert called.fixed().arguments[0].shape == ("batch", 6, 3)


class Summing(nn.Module):
    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool2d(input, 2, divisor_override=1) + F.avg_pool2d(input, 2)


def test_a_pool_that_sums_sums_in_onnx_too(tmp_path: Path) -> None:
    config = {"data": {"channels": 1, "image_size": 4}}
    about = exporting.export(Summing(), Classification, config, form="onnx", path=tmp_path / "x.onnx", about={})
    assert about["largest_difference"] < 1e-5 < about["largest_output"]


def test_recording_leaves_pytorch_as_it_was(tmp_path: Path) -> None:
    operator = torch.ops.aten.lstm.input
    before = decomposition_table[operator], dict(operator.py_kernels)
    network = RecurrentPredictor(num_features=3, hidden=2, num_classes=2)
    config = {"data": {"num_features": 3, "sequence_length": 4}}
    exporting.export(network, Classification, config, form="torch_export", path=tmp_path / "x.pt2", about={})
    assert (decomposition_table[operator], dict(operator.py_kernels)) == before


def test_a_recurrent_encoder_of_pairs_says_why_not(tmp_path: Path, capsys: Any) -> None:
    run, _ = untrained_run(tmp_path / "run", "model=seq2seq", "model.hidden=6", *PAIRS)
    capsys.readouterr()
    assert zoo(["export", f"ckpt_path={run}", "format=onnx"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("format=onnx: its encoder packs sequences by their lengths")
    assert said.endswith("format=safetensors holds its weights.\n")
    assert said.count("\n") == 1
    assert not (run / "export").exists()
    assert zoo(["export", f"ckpt_path={run}", "format=safetensors"]) == 0


def test_wrong_words_are_sentences(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = untrained_run(tmp_path / "run", "model=softmax_regression", "data=digits")
    for given, sentence in {
        (): "Which network?",
        (f"ckpt_path={run}",): "Into what? format=torch_export",
        (f"ckpt_path={run}", "format=ONNX"): "Did you mean format=onnx?",
        (f"ckpt_path={run}", "format=tflite"): "format=tflite: there is no such format.",
        (f"ckpt_path={run}", "format=onnx", "out=x.pt2"): "out=x.pt2: must end in .onnx",
        (f"ckpt_path={tmp_path / 'gone'}", "format=onnx"): "There is no checkpoint",
    }.items():
        capsys.readouterr()
        assert zoo(["export", *given]) == 2
        assert sentence in capsys.readouterr().err, given
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == "onnxscript" else "there")
    assert zoo(["export", f"ckpt_path={run}", "format=onnx"]) == 2
    assert "onnxscript must be installed: python -m pip install -e '.[onnx]'" in capsys.readouterr().err


# The table ------------------------------------------------------------------------------------------------------------


def is_let_pass(cell: str) -> bool:
    """Whether a cell of the table is a sentence that names another format, or a difference that is small enough."""
    if cell.endswith("format=safetensors holds its weights."):
        return True
    return float(cell.split(",")[0].partition(" of ")[0]) <= exporting.BAR


def test_the_table_holds_what_is_verified() -> None:
    rows = read_rows(PAGE.read_text(encoding="utf-8"))
    assert set(rows) <= set(options()["model"])
    assert len(rows) > 80
    for name, row in rows.items():
        assert all(map(is_let_pass, row.values())), name
        assert row["safetensors"] == "0"


@pytest.mark.slow
@pytest.mark.parametrize("name", options()["model"])
def test_every_model_is_exported_or_says_why_not(name: str) -> None:
    row = try_model(name, {})
    assert set(row) == set(exporting.ENDINGS)
    assert row["safetensors"] == "0"
    assert all(map(is_let_pass, row.values()))


def test_a_model_of_the_table_is_built_by_its_config() -> None:
    network, kind, config = fresh("softmax_regression")
    assert (kind, config["model"]["num_classes"]) == (Classification, 10)
    assert not network.training
