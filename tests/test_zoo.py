"""Every model there is a config for, enrolled by that config alone.

Every one is built and traced at full size on the `meta` device. What computes is done by the smallest of each class,
a quarter as wide where it takes a `width`, on the first examples of the data its config names: variants of a class
differ in their tables only, which its own tests count.
"""

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import compose_config
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn

import zoo
from zoo.build import build, targets
from zoo.checks import CONFIGS
from zoo.network import construct, initialise
from zoo.report import to_plain
from zoo.run import fill_facts, make_task
from zoo.tasks.base import Batch, Task

MODELS = sorted(path.stem for path in (CONFIGS / "model").rglob("*.yaml"))
OPTIONS = sorted(
    (path.parent.relative_to(CONFIGS).as_posix(), path.stem)
    for path in CONFIGS.rglob("*.yaml")
    if path.parent != CONFIGS and path.parent.name != "model" and "hydra" not in path.parts  # those are Hydra's groups
)
ONE_DIGIT = "needs ten classes: its outputs are pictures of the digits"
COUNTED = json.loads((Path(zoo.__file__).parent / "listing.json").read_text())


def target(model: str) -> str:
    return re.search(r"_target_: (\S+)", (CONFIGS / "model" / f"{model}.yaml").read_text())[1]


SMALLEST = {target(model): model for model in sorted(MODELS, key=lambda m: -COUNTED.get(m, {}).get("multiply_adds", 0))}
TRAINED = sorted(SMALLEST.values())
# the few that cannot do what every model does, each with its reason
EXCEPTIONS = {("lenet5_1998", "other classes"): ONE_DIGIT}
# a VAE's loss has a floor above 0, the losses of a GAN work against each other
NOT_BY_HEART = ("vae", "gan")
# data that only a person has: composed, not instantiated
NEED_A_FILE = {"image_folder", "csv_table", "mask_folder", "text_file", "csv_series"}
# a model that reads such data, where the default one does not
READERS = {"csv_table": "mlp", "mask_folder": "unet", "text_file": "lstm", "csv_series": "lstm_forecaster"}
READERS |= {"earth_segmentation_context": "unet_2015"}
READERS |= {"moby_dick": "lstm", "earth_segmentation": "unet", "copy_task": "lstm", "sunspots": "lstm_forecaster"}
READERS |= dict.fromkeys(("languages", "digits_rows", "digits_pixels", "adding_task"), "lstm_classifier")
READERS |= dict.fromkeys(("reversal", "number_words", "dates"), "seq2seq")


@cache
def data_of(option: str, *words: str) -> tuple[dict[str, Any], Any]:
    """The node of a data option with the facts its files tell, and the data module."""
    cfg = compose_config([f"model={READERS.get(option, 'lenet5')}", f"data={option}", "augment=none", *words])
    data = build(to_plain(cfg.data), "data")()
    data.setup("fit")
    fill_facts(cfg, data)
    return to_plain(cfg.data), data


def assembled(model: str, *words: str, data: str | None = None, full: bool = False) -> tuple[Task, Any]:
    """A model's task with its network, initialised, and the data: its own, or `data`. `full`: on meta, not narrowed."""
    data_words = [word for word in words if word.startswith("data.")]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        more = [f"data={data}"] if data else []
        cfg = compose("train", overrides=[f"model={model}", *more, *words], return_hydra_config=True)
    chosen = cfg.hydra.runtime.choices["data"]
    # a network that makes pictures states the range of their pixels
    given = {name: cfg.data[name] for name in ("mean", "std") if cfg.data.get(name) is not None}
    data_words += [f"data.{name}={list(values)}" for name, values in given.items()]
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    cfg.data, module = data_of(chosen, *data_words)
    config = to_plain(cfg)
    if full:
        with torch.device("meta"):
            network = construct(config)
        return make_task(config, network, module), module
    if "width" in config["model"] and config["task"]["_target_"].endswith(("Classification", "Segmentation")):
        config["model"]["width"] = 0.25 * min(1.0, config["model"]["width"])
    network = construct(config)
    initialise(network, config)
    return make_task(config, network, module), module


def first(data: Any, count: int) -> Batch:
    """A batch of examples from all over the training split."""
    split = data.splits["train"]
    return split.batch(0, torch.arange(count), torch.arange(count) * (len(split) // count))


def logits_of(task: Task, batch: Batch) -> torch.Tensor:
    """What the network predicts, without the state that a language model gives beside it."""
    output = task.network(*task.inputs(batch))
    return output[0] if isinstance(output, tuple) else output


def rows(batch: Batch, row: int) -> Batch:
    return {name: value[row : row + 1] for name, value in batch.items()}


def loss_of(task: Task, batch: Batch) -> torch.Tensor:
    task.start_epoch()  # a language model begins without a state
    return task.loss(task.network, batch)[0]


def makes_pictures(model: str) -> bool:
    return COUNTED.get(model, {}).get("task") in ("reconstruction", "vae", "gan", "diffusion")


def classes_of(data: Any) -> int:
    """How many numbers the network gives for each thing it predicts."""
    facts = data.facts
    return facts.get("num_target_tokens") or facts.get("num_classes") or facts["num_tokens"]


def has_images(model: str) -> bool:
    return COUNTED.get(model, {}).get("task") == "classification" and COUNTED[model]["input"].count("×") == 2


@pytest.mark.parametrize("model", MODELS)
def test_every_model_is_built_and_gives_logits(model: str) -> None:
    task, data = assembled(model, full=True)
    task.eval()
    lengths = ("length",)  # numbers a network reads; all else is shapes
    batch = {name: x if name in lengths else x.to("meta") for name, x in first(data, 2).items()}
    shape = logits_of(task, batch).shape
    assert shape[0] == 2
    if makes_pictures(model):  # a picture for each, but of a GAN the score of one
        assert shape[1:] == (() if COUNTED[model]["task"] == "gan" else batch["input"].shape[1:])
    else:
        assert classes_of(data) in shape[1:]


@pytest.mark.parametrize("model", TRAINED)
def test_output_shape_finite_values_and_a_gradient_for_every_parameter(model: str) -> None:
    task, data = assembled(model)
    if COUNTED[model]["task"] == "gan":
        task.loss_name = "non_saturating"  # of Wasserstein's two losses the one undoes the other in their sum
    batch = first(data, 4)
    with torch.no_grad():
        logits = logits_of(task.eval(), batch)
    assert logits.shape[0] == 4
    assert torch.isfinite(logits).all()
    task.train()
    loss_of(task, batch).backward()
    for name, parameter in task.network.named_parameters():
        if not parameter.requires_grad:  # FCN's up-sampling is fixed
            continue
        if name.endswith("attention.key.bias"):  # the same for all keys: softmax does not see it
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("model", TRAINED)
def test_batch_of_one_in_eval_mode_and_independence_of_the_batch(model: str) -> None:
    task, data = assembled(model)
    task.eval()
    batch = first(data, 3)
    with torch.no_grad():
        together = logits_of(task, batch)
        alone = torch.cat([logits_of(task, rows(batch, row)) for row in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", TRAINED)
def test_state_dict_round_trip(model: str) -> None:
    (task, data), (other, _) = assembled(model), assembled(model, "seed=1")
    mine, others = task.network, other.network
    assert any(not torch.equal(p, q) for p, q in zip(mine.parameters(), others.parameters(), strict=True)), "seed"
    others.load_state_dict(mine.state_dict())
    batch = first(data, 2)
    assert torch.equal(logits_of(task.eval(), batch), logits_of(other.eval(), batch))


@pytest.mark.parametrize("model", [model for model in TRAINED if has_images(model)])
def test_colour_and_another_number_of_classes(model: str) -> None:
    shown = "digits" if COUNTED[model]["input"].startswith("3") else "earth"
    config = to_plain(compose_config([f"model={model}", f"data={shown}", "data.num_classes=7"]))
    if "width" in config["model"]:
        config["model"]["width"] = 0.25
    if (model, "other classes") in EXCEPTIONS:
        with pytest.raises(Exception, match="num_classes=7"):
            construct(config)
        return
    images = torch.randn(2, config["data"]["channels"], config["data"]["image_size"], config["data"]["image_size"])
    assert construct(config).eval()(images).shape == (2, 7)


@pytest.mark.parametrize("model", [m for m in TRAINED if COUNTED[m]["task"] not in NOT_BY_HEART])
def test_overfits_one_small_batch(model: str) -> None:
    task, data = assembled(model)
    batch = first(data, 8)
    for layer in task.network.modules():  # it is to be learnt by heart
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.p = 0.0
    optimizer = torch.optim.Adam(task.network.parameters(), lr=3e-3)
    task.train()
    # thousands of pixels or tokens to an example take longer to the last of them
    bar = 0.02 if batch["target"].ndim == 1 else 0.1
    start = None
    for _ in range(200):
        optimizer.zero_grad()
        loss = loss_of(task, batch)
        loss.backward()
        optimizer.step()
        start = start or loss.item()
        if loss.item() < bar * start:
            return
    raise AssertionError(f"the loss on eight examples is still {loss.item():.3f} after 200 steps, from {start:.3f}")


@pytest.mark.parametrize("model", TRAINED)
def test_short_run_evaluates_to_what_it_printed(model: str, small_run) -> None:
    from zoo.evaluation import evaluate

    words = [f"model={model}", "trainer.max_steps=3"]
    if has_images(model):
        words += ["model.width=0.25"] if "width" in to_plain(compose_config(words))["model"] else []
    else:
        words += [f"data={COUNTED[model]['data']}", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1"]
        words += ["data.batch_size=8", "data.eval_batch_size=8"]
    folder, scores = small_run(*words)
    assert evaluate(ckpt_path=folder).items() <= scores.items()


def test_every_config_was_found() -> None:
    walk = [(root, names) for root, _, names in os.walk(CONFIGS) if Path(root, "..").resolve().name != "hydra"]
    files = [Path(root) / name for root, names in walk for name in names if name.endswith(".yaml")]
    assert len(files) == len(MODELS) + len(OPTIONS) + len([file for file in files if file.parent == CONFIGS])
    assert {"softmax_regression", "mlp", "lenet5", "lenet5_1998"} <= set(MODELS)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_every_target_is_there(group: str, option: str) -> None:
    overrides = [f"{group}={option}"]
    if group == "data" and option in READERS:
        overrides += [f"model={READERS[option]}"]
    cfg = compose_config(overrides)
    values = OmegaConf.to_container(cfg, resolve=option not in NEED_A_FILE)
    for key, target in targets(values):
        if not key.endswith("_target_"):
            continue  # a reference that only a file of the person's can resolve
        module, _, name = target.rpartition(".")
        assert hasattr(__import__(module, fromlist=[name]), name), key
    if group in ("init", "scheduler"):
        build(values[group], group)()
    elif group == "optimizer":
        build(values[group], group)([nn.Parameter(torch.zeros(1))])
    elif group == "data" and option not in NEED_A_FILE:
        build(values[group], group)()


@pytest.mark.parametrize(
    ("group", "option"), [pair for pair in OPTIONS if pair[0] in ("optimizer", "scheduler", "init")]
)
def test_every_optimizer_schedule_and_initialiser_trains(group: str, option: str, small_run) -> None:
    folder, scores = small_run(f"{group}={option}", "model=mlp", "trainer.max_epochs=3", "data.kind=images")
    rates = [line.split(",")[3] for line in (folder / "metrics.csv").read_text().splitlines() if ",lr," in line]
    assert len(rates) == 3
    assert 0 <= scores["test/loss"] < 10


def test_the_two_entry_points_are_thin() -> None:
    for name in ("train.py", "evaluate.py"):
        path = Path(__file__).parents[1] / name
        assert len(path.read_text().splitlines()) <= 100
        done = subprocess.run([sys.executable, str(path), "--help"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert name in done.stdout
