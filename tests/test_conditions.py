"""What is refused or said before a run starts."""

from typing import Any

import pytest
import torch
from conftest import compose_config
from torch import nn

from zoo.build import build
from zoo.conditions import check_facts, check_ranges, check_reads, check_scored
from zoo.errors import ZooError
from zoo.network import construct
from zoo.report import to_plain
from zoo.run import make_task


def config_of(*words: str) -> dict[str, Any]:
    return to_plain(compose_config([*words, "trainer.accelerator=cpu"]))


def reads(*words: str) -> None:
    """What a command's network is asked before it trains."""
    config = config_of(*words)
    data = build(config["data"], "data")()
    data.setup("fit")
    data.train_examples = config["train_examples"]
    check_reads(make_task(config, construct(config), data), data, {"model": "x", "data": "y"})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task.focal_gamma=3"], "task.focal_gamma=3 has no effect with task.loss=cross_entropy."),
        (["task.hinge_margin=2"], "task.hinge_margin=2 has no effect with task.loss=cross_entropy."),
        (["task.aux_weight=0.5"], "task.aux_weight=0.5 has no effect with a network without auxiliary heads."),
        (["model=inception_v3", "model.aux_heads=false", "task.aux_weight=1"], "task.aux_weight=1 has no effect"),
        (["model=unet", "task.dice_weight=-1"], "task.dice_weight=-1 has no effect with task.loss=cross_entropy."),
        (["model=resnet18", "swap.drop_block_size=3"], "swap.drop_block_size=3 has no effect without swap.drop_block."),
    ],
)
def test_what_has_no_effect_is_said(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    check_ranges(config_of(*words))
    assert f"note: {said}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["task.loss=focal", "task.focal_gamma=3"],
        ["task.loss=hinge", "task.hinge_margin=2"],
        ["model=inception_v3", "task.aux_weight=1"],
        ["model=unet", "task.loss=cross_entropy_dice", "task.dice_weight=2"],
        ["model=resnet18", "swap.drop_block=0.1", "swap.drop_block_size=3"],
    ],
    ids=" ".join,
)
def test_what_has_an_effect_is_not(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    check_ranges(config_of(*words))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("source", ["torchvision", "torchvision:IMAGENET1K_V1"])
def test_the_strides_of_torchvisions_weights_are_those_of_v1_5(source: str) -> None:
    words = ["model=resnet50", f"model.weights='{source}'"]
    check_ranges(config_of(*words))
    with pytest.raises(ZooError, match=r"model\.stride_in=1x1: must be 3x3 with torchvision's weights"):
        check_ranges(config_of(*words, "model.stride_in=1x1"))


def test_a_task_and_an_optimizer_are_classes() -> None:
    config = config_of()
    for node in ("task", "optimizer"):
        with pytest.raises(ZooError, match=rf"{node}\._target_=torch\.relu: must be a class"):
            check_ranges({**config, node: {**config[node], "_target_": "torch.relu"}})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model=unet", "model.in_channels=28"], "model.in_channels=28: must be 3, which is data.channels"),
        (["model.image_size=64"], "model.image_size=64: must be 28, which is data.image_size"),
        (["model=mlp", "model.in_features=7"], "model.in_features=7: must be 784, which is data.num_features"),
    ],
)
def test_a_network_is_of_the_sizes_of_its_data(words: list[str], said: str) -> None:
    config = config_of(*words)
    with pytest.raises(ZooError, match=f"^{said}$"):
        check_facts(config, build(config["data"], "data")())


def test_maps_of_one_pixel_have_no_variance() -> None:
    words = ["model=inception_v3", "data=synthetic", "data.num_classes=10", "data.image_size=32", "model.width=0.0625"]
    with pytest.raises(ZooError, match=r"swap\.norm=instance: must be another for this network and these sizes"):
        reads(*words, "swap.norm=instance")
    reads(*words, "swap.norm=instance", "model.aux_heads=false")  # with the head its only ones
    reads(*words, "swap.norm=group")


def test_a_network_that_predicts_less_than_the_masks_is_refused_with_the_context_it_needs() -> None:
    words = ["model=unet_2015", "data=earth_segmentation_context"]
    reads(*words)
    with pytest.raises(ZooError, match=r"say data\.context=20 data\.image_size=104"):
        reads(*words, "data.context=0", "data.image_size=64")


def test_reading_an_example_changes_no_network() -> None:
    config = config_of("model=unet", "model.width=0.125", "swap.norm=instance")
    data = build(config["data"], "data")()
    data.setup("fit")
    network = construct(config)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    check_reads(make_task(config, network, data), data, {})
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert network.training
    assert not any(parameter.is_meta for parameter in network.parameters())
    assert any(isinstance(module, nn.InstanceNorm2d) for module in network.modules())


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_generator_that_learns_less_than_once_an_epoch_is_said(
    steps: int, capsys: pytest.CaptureFixture[str]
) -> None:
    reads("model=mlp_gan", "train_examples=40", "data.batch_size=20", f"task.n_critic={steps}")
    said = "note: task.n_critic=3: the generator steps once in 3 batches, and an epoch has 2.\n"
    assert capsys.readouterr().err == (said if steps == 3 else "")


@pytest.mark.parametrize(
    ("words", "least"),
    [
        (["model=mlp", "task=regression", "data.kind=regression", "data.num_features=16", "data.image_size=null"], 2),
        (["model=gan", "data.mean=[0.5]", "data.std=[0.5]"], 2),
        (["model=lenet5"], 1),
    ],
)
def test_a_split_that_cannot_be_scored_is_refused(words: list[str], least: int) -> None:
    classes = 1 if "task=regression" in words else 10
    config = config_of(*words, "data=synthetic", f"data.num_classes={classes}", "data.test_size=1")
    data = build(config["data"], "data")()
    data.setup("fit")
    task = make_task(config, construct(config), data)
    check_scored(task, data, "val")
    if least == 1:
        check_scored(task, data, "test")
    else:
        with pytest.raises(ZooError, match=rf"The test split has 1 example: must have at least {least}"):
            check_scored(task, data, "test")
