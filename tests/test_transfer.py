"""Weights from elsewhere: read, put in, frozen, slowed; refused where they do not fit."""

import copy
import re
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from zoo.checkpoint import read_checkpoint
from zoo.errors import ZooError
from zoo.evaluation import evaluate_checkpoint
from zoo.models.inception_v3 import InceptionV3
from zoo.models.lenet import LeNet5
from zoo.models.mlp import MLP
from zoo.models.resnet import ResNet
from zoo.models.vgg import VGG
from zoo.run import resume
from zoo.swaps import swap
from zoo.transfer import (
    Weights,
    blocks,
    evaluated_weights,
    freeze,
    heads,
    prepare_inputs,
    put_weights,
    rates,
    read_weights,
)


def resnet(num_classes: int = 10, depth: int = 18) -> ResNet:
    return ResNet(depth=depth, num_classes=num_classes, image_size=32, width=0.125)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_of_weights_is_the_network_again(tmp_path: Path, suffix: str, wrapped: bool) -> None:
    source, path = resnet(), tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(source.state_dict(), path)
    else:
        state = {f"module.{name}": tensor for name, tensor in source.state_dict().items()}
        torch.save({"state_dict": state, "epoch": 3} if wrapped else state, path)
    network = resnet()
    assert put_weights(network, read_weights(str(path), "resnet18")) == []
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(source.eval()(images), network.eval()(images))


def test_a_head_of_another_size_stays_fresh(tmp_path: Path) -> None:
    torch.save(resnet(7).state_dict(), tmp_path / "seven.pt")
    network = resnet(10)
    before = network.fc.weight.clone()
    assert put_weights(network, read_weights(str(tmp_path / "seven.pt"), "resnet18")) == ["fc.weight", "fc.bias"]
    assert torch.equal(network.fc.weight, before)


def test_a_head_of_as_many_other_classes_stays_fresh() -> None:
    trained, names = resnet(2), ["cat", "dog"]
    for classes, expected in ((names, []), (["car", "bus"], ["fc.weight", "fc.bias"]), ([], [])):
        network = resnet(2)
        weights = Weights(trained.state_dict(), {}, "elsewhere", names)
        assert put_weights(network, weights, class_names=classes) == expected
        assert torch.equal(network.fc.weight, trained.fc.weight) == (not expected)
        assert torch.equal(network.conv1.weight, trained.conv1.weight)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"not weights at all", "cannot be read as weights"),
        (b"PK\x03\x04 half a file", "cannot be read as weights"),
        (None, "there is no such file"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_missing_or_damaged_file_gets_a_sentence(
    tmp_path: Path, content: bytes | None, sentence: str, suffix: str
) -> None:
    path = tmp_path / f"weights{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ZooError, match=sentence):
        read_weights(str(path), "resnet18")


def test_a_file_that_would_run_code_is_not_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return (Path.touch, (tmp_path / "ran",))

    torch.save(Evil(), tmp_path / "evil.pth")
    with pytest.raises(ZooError, match="cannot be read as weights"):
        read_weights(str(tmp_path / "evil.pth"), "resnet18")
    assert not (tmp_path / "ran").exists()


def test_a_file_of_something_else_and_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({"lr": 0.1}, tmp_path / "settings.pt")
    with pytest.raises(ZooError, match="holds no weights"):
        read_weights(str(tmp_path / "settings.pt"), "resnet18")
    torch.save(resnet(depth=34).state_dict(), tmp_path / "deeper.pt")
    with pytest.raises(ZooError, match=r"deeper.pt does not fit .*: the network has no layer1.2.conv1.weight, and"):
        put_weights(resnet(), read_weights(str(tmp_path / "deeper.pt"), "resnet18"))
    torch.save(LeNet5(in_channels=3).state_dict(), tmp_path / "colour.pt")
    with pytest.raises(ZooError, match=r"features.0.weight is 6×3×5×5 in it and 6×1×5×5 in the network"):
        put_weights(LeNet5(), read_weights(str(tmp_path / "colour.pt"), "lenet5"))


def test_of_a_run_with_other_sizes_its_sizes_are_told(small_run) -> None:
    folder, _ = small_run("model=mlp", "model.hidden=[8,4]", "trainer.max_epochs=1")
    with pytest.raises(ZooError, match=r"\nThat run has model\.hidden=\[8, 4\], model\.activation=relu"):
        put_weights(MLP(in_features=784, num_classes=10), read_weights(str(folder), "mlp"))


def test_a_flipped_bit_of_weights_is_told(tmp_path: Path) -> None:
    torch.save(resnet().state_dict(), tmp_path / "weights.pth")
    content = bytearray((tmp_path / "weights.pth").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(ZooError, match="its checksums are wrong"):
        read_weights(str(tmp_path / "weights.pth"), "resnet18")


def test_torchvision_has_no_weights_for_every_model() -> None:
    with pytest.raises(ZooError, match="torchvision has no weights for model=xception"):
        read_weights("torchvision", "xception")
    with pytest.raises(ZooError, match="torchvision:IMAGENET1K_V1"):
        read_weights("torchvision:V9", "resnet50")


@pytest.mark.parametrize(
    ("model", "mean"), [("resnet18", [0.485, 0.456, 0.406]), ("googlenet", [0.5, 0.5, 0.5]), ("vgg16", None)]
)
def test_torchvisions_weights_bring_their_preprocessing(
    model: str, mean: list[float] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a network: the file lies where torch.hub would put it, or the sentence says where that is."""
    from torchvision.models import get_model_weights

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", _no_network)
    entry = get_model_weights(model)["DEFAULT"]
    if mean is None:
        with pytest.raises(
            ZooError, match=rf"the download failed.*\nFetch {entry.url} elsewhere and put it into {tmp_path}"
        ):
            read_weights("torchvision", model)
        return
    file = tmp_path / "hub" / "checkpoints" / entry.url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.save({"fc.bias": torch.zeros(1000)}, file)
    weights = read_weights("torchvision", model)
    assert weights.preparation["mean"] == mean
    assert list(weights.state) == ["fc.bias"]


def test_densenets_file_has_older_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision renames them in its own loader: `_load_state_dict` of torchvision/models/densenet.py."""
    from torchvision.models import get_model_weights

    from zoo.models.densenet import densenet121

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with torch.device("meta"):
        names = list(densenet121().state_dict())
    old = [re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name) for name in names]
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    file = tmp_path / "hub" / "checkpoints" / get_model_weights("densenet121")["DEFAULT"].url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.save({name: torch.zeros(1) for name in old}, file)
    assert list(read_weights("torchvision", "densenet121").state) == names


def _no_network(*args: object, **kwargs: object) -> None:
    from urllib.error import URLError

    raise URLError("no network")


def test_blocks_hold_every_parameter_once_in_the_order_of_layers() -> None:
    network = resnet()
    order = blocks(network)
    assert sorted(name for block in order for name in block) == sorted(name for name, _ in network.named_parameters())
    assert [block[0] for block in order[:3]] == ["conv1.weight", "layer1.0.conv1.weight", "layer1.1.conv1.weight"]
    assert "bn1.weight" in order[0]
    assert len(order) == 10
    assert order[-1] == ["fc.weight", "fc.bias"]


def test_auxiliary_heads_belong_to_the_head() -> None:
    network = InceptionV3(num_classes=5, image_size=160, width=0.125)
    assert heads(network) == ["fc", "AuxLogits.fc"]
    last = blocks(network)[-1]
    assert {"AuxLogits.conv0.conv.weight", "AuxLogits.fc.bias", "fc.weight"} <= set(last)
    freeze(network, "body")
    assert {name for name, p in network.named_parameters() if p.requires_grad} == set(last)


def test_a_learning_activation_is_no_block_of_its_own() -> None:
    network = swap(VGG(depth=11, image_size=32, width=0.125, num_classes=5), activation="prelu")
    order = blocks(network)
    assert len(order) == 8 + 1
    assert order[0] == ["features.0.weight", "features.0.bias", "features.1.weight"]


def test_nothing_below_the_head_cannot_be_frozen() -> None:
    with pytest.raises(ZooError, match=r"transfer\.freeze=body: must be nothing"):
        freeze(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)), "body")


@pytest.mark.parametrize("channels", [None, 3, 1])
def test_weights_prepare_the_inputs_of_data_that_do_not_say_how_many_channels(channels: int | None) -> None:
    data = {"channels": channels, "mean": None, "std": [0.1]}
    prepare_inputs(data, Weights({}, {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.2]}, "torchvision"))
    prepared = {"channels": 3, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.2]}
    assert data == ({"channels": 1, "mean": None, "std": [0.1]} if channels == 1 else prepared)


def test_how_much_is_frozen() -> None:
    def trained(what: str | int) -> set[str]:
        network = resnet()
        freeze(network, what)
        return {name.split(".conv")[0].split(".bn")[0] for name, p in network.named_parameters() if p.requires_grad}

    assert trained("body") == trained(0) == {"fc.weight", "fc.bias"}
    assert trained(1) == {"layer4.1", "fc.weight", "fc.bias"}
    assert "conv1.weight" in trained("nothing")
    for wrong in (-1, 10, "some"):
        with pytest.raises(ZooError, match=f"transfer.freeze={wrong}: must be"):
            freeze(resnet(), wrong)


def test_rates_fall_from_the_head_down() -> None:
    factors = rates(resnet(), body_lr=0.1, layer_decay=0.5)
    assert factors["fc.weight"] == 1
    assert factors["layer4.1.conv1.weight"] == 0.1 * 0.5
    assert factors["bn1.bias"] == factors["conv1.weight"] == pytest.approx(0.1 * 0.5**9)


MOVED = ("model=resnet20", "data.kind=images", "model.width=0.5", "init=default")


def test_what_is_frozen_stays_frozen_with_its_statistics_also_after_a_restart(small_run) -> None:
    first, _ = small_run(*MOVED, name="first")
    words = (*MOVED, f"model.weights={first}", "transfer.freeze=1", "transfer.body_lr=0.5", "seed=3", "ema_decay=0.9")
    whole, _ = small_run(*words, "trainer.max_epochs=4", name="whole")
    part, _ = small_run(*words, "trainer.max_epochs=2", name="part")
    start = read_checkpoint(first / "checkpoints" / "best.ckpt")["state_dict"]
    first.rename(first.with_name("gone"))  # what is continued has its weights
    resume(part, {"trainer.max_epochs": 4})
    for folder in (whole, part):
        after = read_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"]
        moved = {name for name in start if not torch.equal(start[name], after[name])}
        changed = {name.split(".")[1] for name in moved}
        assert changed == {"layer3", "fc"}, moved
        assert all(name.startswith(("network.layer3.2.", "network.fc.")) for name in moved)
        assert any(name.endswith("running_mean") for name in moved), "the trained block's statistics move"
        frozen = {name for name in after if name.startswith("ema.") and ".layer1." in name}
        assert frozen
        assert all(torch.equal(after[name], after["network." + name[4:]]) for name in frozen)


def test_a_run_starts_from_a_run_with_its_preparation_of_inputs(small_run) -> None:
    first, scores = small_run("data.mean=[0.3]", "data.std=[0.4]", "trainer.max_epochs=3", name="first")
    second, _ = small_run(f"model.weights={first}", "transfer.freeze=body", "optimizer.lr=1e-9", name="second")
    described = read_checkpoint(second / "checkpoints" / "last.ckpt")["zoo"]
    assert described["preprocessing"]["mean"] == [0.3]
    assert described["config"]["model"]["weights"] == str(first)
    import json

    again = json.loads((second / "scores.json").read_text())
    assert again["test/accuracy"] == scores["test/accuracy"], "nothing was learnt, so the scores are the first run's"


def test_lower_rates_reach_the_optimizer(small_run) -> None:
    first, _ = small_run(name="first")
    folder, _ = small_run(
        f"model.weights={first}", "transfer.body_lr=0.1", "scheduler=constant", "optimizer.lr=0.01", name="second"
    )
    groups = read_checkpoint(folder / "checkpoints" / "last.ckpt")["optimizer_states"][0]["param_groups"]
    assert [group["lr"] for group in groups] == pytest.approx([0.01, 0.001])


def test_a_run_from_before_swaps_and_transfer_goes_on(small_run) -> None:
    folder, _ = small_run("trainer.max_epochs=1")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for name in ("swap", "transfer"):
        del config[name]
    del config["model"]["weights"]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    for path in (folder / "checkpoints").iterdir():
        checkpoint = torch.load(path, weights_only=True)
        checkpoint["zoo"]["config"] = config
        torch.save(checkpoint, path)
    scores = resume(folder, {"trainer.max_epochs": 2})
    assert evaluate_checkpoint(folder / "checkpoints" / "best.ckpt")["test/loss"] == scores["test/loss"]


def test_lsuv_and_weights_exclude_each_other(small_run) -> None:
    first, _ = small_run(name="first")
    with pytest.raises(ZooError, match=r"init=lsuv would overwrite model\.weights"):
        small_run(f"model.weights={first}", "init=lsuv", name="second")
    with pytest.raises(ZooError, match=r"init=lsuv does not reach what transfer\.freeze has frozen"):
        small_run("transfer.freeze=body", "init=lsuv", name="third")


def test_of_an_autoencoder_only_the_encoder_is_taken() -> None:
    body = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))
    autoencoder, classifier = nn.Module(), nn.Module()
    autoencoder.encoder, autoencoder.decoder, autoencoder.mean = body, nn.Linear(3, 6), nn.Linear(3, 3)
    classifier.encoder, classifier.head = copy.deepcopy(body), nn.Linear(3, 2)
    for parameter in classifier.parameters():
        nn.init.zeros_(parameter)
    fresh = put_weights(classifier, Weights(autoencoder.state_dict(), {}, "a run"))
    assert fresh == ["head.weight", "head.bias"]
    assert torch.equal(classifier.encoder[1].weight, body[1].weight)


def test_an_average_of_a_part_covers_that_part() -> None:
    state = {"network.generator.w": 1, "network.discriminator.w": 2, "ema.generator.w": 3, "other": 4}
    assert evaluated_weights(state) == {"generator.w": 3, "discriminator.w": 2}
