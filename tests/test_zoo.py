"""Every model there is a config for, enrolled by that config alone.

Every one is built and traced at full size on the `meta` device. What computes is done by the smallest of each class,
a quarter as wide where it takes a `width`: variants of a class differ in their tables only, which its own tests count.
"""

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import compose_config
from omegaconf import OmegaConf
from torch import nn

import zoo
from zoo.build import build, targets
from zoo.checks import CONFIGS
from zoo.network import construct, initialise
from zoo.report import to_plain

MODELS = sorted(path.stem for path in (CONFIGS / "model").rglob("*.yaml"))
OPTIONS = sorted(
    (path.parent.relative_to(CONFIGS).as_posix(), path.stem)
    for path in CONFIGS.rglob("*.yaml")
    if path.parent != CONFIGS and path.parent.name != "model"
)
ONE_DIGIT = "needs ten classes: its outputs are pictures of the digits"
COUNTED = json.loads((Path(zoo.__file__).parent / "listing.json").read_text())


def target(model: str) -> str:
    return re.search(r"_target_: (\S+)", (CONFIGS / "model" / f"{model}.yaml").read_text())[1]


SMALLEST = {target(model): model for model in sorted(MODELS, key=lambda m: -COUNTED.get(m, {}).get("multiply_adds", 0))}
TRAINED = sorted(SMALLEST.values())
# the few that cannot do what every model does, each with its reason
EXCEPTIONS = {("lenet5_1998", "other classes"): ONE_DIGIT}
NEED_A_FILE = {"image_folder", "csv_table"}  # data that only a person has: composed, not instantiated


def plain(*overrides: str) -> dict:
    config = to_plain(compose_config(list(overrides)))
    if "width" in config["model"]:
        config["model"]["width"] = 0.25
    return config


def make_network(config: dict) -> nn.Module:
    network = construct(config)
    initialise(network, config)
    return network


def example(config: dict, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    data = config["data"]
    generator = torch.Generator().manual_seed(1)
    shape = (data["channels"], data["image_size"], data["image_size"])
    return torch.randn(batch, *shape, generator=generator), torch.arange(batch) % data["num_classes"]


def loss_of(network: nn.Module, config: dict, batch: int = 4) -> torch.Tensor:
    inputs, targets = example(config, batch)
    output = network(inputs)
    heads = [output] if isinstance(output, torch.Tensor) else [output["logits"], *output["aux"]]
    return torch.stack([F.cross_entropy(logits, targets) for logits in heads]).mean()


@pytest.mark.parametrize("model", MODELS)
def test_every_model_is_built_and_gives_logits(model: str) -> None:
    config = to_plain(compose_config([f"model={model}"]))
    with torch.device("meta"):
        network = construct(config).eval()
    data = config["data"]
    images = torch.empty(2, data["channels"], data["image_size"], data["image_size"], device="meta")
    assert network(images).shape == (2, data["num_classes"])


@pytest.mark.parametrize("model", TRAINED)
def test_output_shape_finite_values_and_a_gradient_for_every_parameter(model: str) -> None:
    config = plain(f"model={model}")
    network = make_network(config)
    inputs, _ = example(config, 4)
    with torch.no_grad():
        logits = copy.deepcopy(network).eval()(inputs)
    assert logits.shape == (4, config["data"]["num_classes"])
    assert torch.isfinite(logits).all()
    loss_of(network, config).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("model", TRAINED)
def test_batch_of_one_in_eval_mode_and_independence_of_the_batch(model: str) -> None:
    config = plain(f"model={model}")
    network = make_network(config).eval()
    inputs, _ = example(config, 3)
    with torch.no_grad():
        together, alone = network(inputs), torch.cat([network(one[None]) for one in inputs])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", TRAINED)
def test_state_dict_round_trip(model: str) -> None:
    first, second = make_network(plain(f"model={model}")), make_network(plain(f"model={model}", "seed=1"))
    assert any(not torch.equal(p, q) for p, q in zip(first.parameters(), second.parameters(), strict=True)), "seed"
    second.load_state_dict(first.state_dict())
    inputs, _ = example(plain(f"model={model}"), 2)
    assert torch.equal(first.eval()(inputs), second.eval()(inputs))


@pytest.mark.parametrize("model", TRAINED)
def test_colour_and_another_number_of_classes(model: str) -> None:
    shown = "digits" if plain(f"model={model}")["data"]["channels"] == 3 else "earth"
    config = plain(f"model={model}", f"data={shown}", "data.num_classes=7")
    if (model, "other classes") in EXCEPTIONS:
        with pytest.raises(Exception, match="num_classes=7"):
            make_network(config)
        return
    network = make_network(config)
    assert network.eval()(example(config, 2)[0]).shape == (2, config["data"]["num_classes"])


@pytest.mark.parametrize("model", TRAINED)
def test_overfits_one_small_batch(model: str) -> None:
    config = plain(f"model={model}")
    network = make_network(config).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(200):
        optimizer.zero_grad()
        loss = loss_of(network, config, 8)
        loss.backward()
        optimizer.step()
        if loss.item() < 0.02:
            return
    raise AssertionError(f"the loss on eight examples is still {loss.item():.3f} after 200 steps")


@pytest.mark.parametrize("model", TRAINED)
def test_short_run_evaluates_to_what_it_printed(model: str, small_run) -> None:
    from zoo.evaluation import evaluate

    narrow = ["model.width=0.25"] if "width" in plain(f"model={model}")["model"] else []
    folder, scores = small_run(f"model={model}", *narrow, "trainer.max_steps=3")
    assert evaluate(ckpt_path=folder).items() <= scores.items()


def test_every_config_was_found() -> None:
    files = [Path(root) / name for root, _, names in os.walk(CONFIGS) for name in names if name.endswith(".yaml")]
    assert len(files) == len(MODELS) + len(OPTIONS) + len([file for file in files if file.parent == CONFIGS])
    assert {"softmax_regression", "mlp", "lenet5", "lenet5_1998"} <= set(MODELS)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_every_target_is_there(group: str, option: str) -> None:
    overrides = [f"{group}={option}"]
    if option == "csv_table":
        overrides += ["model=mlp"]
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
