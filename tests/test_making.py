"""`zoo sample` of networks that make pictures: the files hold what the network makes, the same for the same seed."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from zoo import making, progress, sample_pictures
from zoo.build import build
from zoo.cli import main as zoo
from zoo.randomness import key
from zoo.run import make_task
from zoo.tasks.base import Task

NAMES = ["cat", "dog", "7"]
DATA = {
    "_target_": "zoo.data.synthetic.Synthetic",
    "kind": "images",
    "train_size": 8,
    "val_size": 4,
    "test_size": 30,
    "channels": 1,
    "image_size": 8,
    "num_features": 64,
    "num_classes": 3,
    "class_names": NAMES,
}
ZERO, HALF = {"mean": [0.0], "std": [1.0]}, {"mean": [0.5], "std": [0.5]}
SMALL = {"in_channels": 1, "image_size": 8}
AUTOENCODER = {"_target_": "zoo.models.autoencoder.DenseAutoencoder", **SMALL, "widths": [8], "code": 3}
VAE = {"_target_": "zoo.models.vae.VAE", **SMALL, "hidden": [8], "latent_size": 4, "num_classes": 3}
GAN = {"_target_": "zoo.models.mlp_gan.MLPGAN", **SMALL, "num_classes": 3, "latent": 5}
GAN |= {"generator_hidden": [8], "discriminator_hidden": [8]}
DDPM = {"_target_": "zoo.models.ddpm.DDPMUNet", **SMALL, "num_classes": 3, "width": 4, "multipliers": [1, 1]}
DDPM |= {"blocks": 1, "attention": [], "groups": 2}
DIFFUSION = {"_target_": "zoo.tasks.diffusion.Diffusion", "timesteps": 40, "steps": 4}
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {  # task, model, range
    "autoencoder": ({"_target_": "zoo.tasks.reconstruction.Reconstruction"}, AUTOENCODER, ZERO),
    "denoising": (
        {"_target_": "zoo.tasks.reconstruction.Reconstruction", "corruption": "masking", "corruption_level": 0.5},
        AUTOENCODER,
        ZERO,
    ),
    "vae": ({"_target_": "zoo.tasks.vae.Vae"}, VAE, ZERO),
    "cvae": ({"_target_": "zoo.tasks.vae.Vae"}, {**VAE, "conditional": True}, ZERO),
    "gan": ({"_target_": "zoo.tasks.gan.Gan"}, GAN, HALF),
    "cgan": ({"_target_": "zoo.tasks.gan.Gan"}, {**GAN, "conditional": True}, HALF),
    "diffusion": (DIFFUSION, DDPM, HALF),
    "conditional": (DIFFUSION, {**DDPM, "conditional": True}, HALF),
    "ddpm": ({**DIFFUSION, "sampler": "ddpm"}, DDPM, HALF),
}


def network_of(model: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    network = build(model, "model")()
    for parameter in network.parameters():  # opinionated, so that noise and class show
        nn.init.normal_(parameter, std=0.4)
    return network


def config_of(kind: str) -> dict[str, Any]:
    task, model, pixels = KINDS[kind]
    trainer = {"accelerator": "cpu", "log_every_n_steps": 50}
    return {"seed": 0, "fast": False, "data": DATA | pixels, "task": task, "model": model, "trainer": trainer}


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """`run(kind)` writes a checkpoint of an untrained network into a run folder and returns the folder."""

    def write(kind: str) -> Path:
        path = tmp_path / kind / "checkpoints" / "best.ckpt"
        path.parent.mkdir(parents=True)
        config = config_of(kind)
        described = {"format_version": 1, "config": config, "choices": {}, "class_names": NAMES, "logs": {}}
        state = {f"network.{name}": value for name, value in network_of(config["model"]).state_dict().items()}
        torch.save({"zoo": {**described, "preprocessing": {}}, "state_dict": state}, path)
        return tmp_path / kind

    return write


def task_of(kind: str, **settings: Any) -> Any:
    config = config_of(kind)
    config["task"] = {**config["task"], **settings}
    return make_task(config, network_of(config["model"]), SimpleNamespace(facts=config["data"])).eval()


def made(capsys: Any, folder: Path, *words: str) -> tuple[dict[str, np.ndarray], tuple[int, int], Path]:
    """The arrays, the grid's width and height, and the stem of what `zoo sample` wrote."""
    capsys.readouterr()
    assert zoo(["sample", f"ckpt_path={folder}", *words]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    picture, arrays = (Path(line.removeprefix("wrote ")) for line in said.out.splitlines()[:2])
    with Image.open(picture) as image, np.load(arrays) as file:
        return dict(file), image.size, picture.with_suffix("")


def levels(images: torch.Tensor) -> np.ndarray:
    return (images.clamp(0, 1) * 255).round().to(torch.uint8).movedim(-3, -1).numpy()


def test_images() -> dict[str, torch.Tensor]:
    data = build(DATA | ZERO, "data")()
    data.setup("test")
    everything = torch.arange(30)
    return data.splits["test"].batch(0, everything, everything)


test_images.__test__ = False  # type: ignore[attr-defined]


# Samples --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vae", "gan", "diffusion", "ddpm", "cvae", "cgan", "conditional"])
def test_samples_are_the_tasks_and_each_is_what_it_is_among_any_number(kind: str, run, capsys, monkeypatch) -> None:
    task, numbers = task_of(kind), torch.arange(5)
    condition = numbers % 3 if kind in ("cvae", "cgan", "conditional") else None
    expected = levels(task.sample(numbers, seed=3, condition=condition)).astype(int)
    monkeypatch.setattr(sample_pictures, "CHUNK", 4)
    five, _, stem = made(capsys, folder := run(kind), "n=5", "seed=3")
    assert five["images"].dtype == np.uint8
    assert five["images"].shape == (5, 8, 8, 1)
    assert abs(five["images"].astype(int) - expected).max() <= 1
    two = made(capsys, folder, "n=2", "seed=3")[0]["images"].astype(int)
    assert abs(two - expected[:2]).max() <= 1
    other = made(capsys, folder, "n=2", "seed=4")[0]["images"].astype(int)
    assert abs(other - two).max() > 10
    assert stem == folder / "samples" / "samples_n5_seed3"
    assert five["seed"] == 3
    assert json.loads(str(five["settings"]))["what"] == "samples"
    assert ("classes" in five) == (condition is not None)
    if condition is not None:
        np.testing.assert_array_equal(five["classes"], condition)


def test_no_data_are_read_for_samples(run, capsys, monkeypatch) -> None:
    monkeypatch.setattr("zoo.data.synthetic.Synthetic.read", lambda self: pytest.fail("read"))
    made(capsys, run("gan"), "n=1")


def test_the_same_seed_writes_the_same_files_without_torchs_generator(run, capsys) -> None:
    folder = run("conditional")
    files = []
    for _ in range(2):
        stem = made(capsys, folder, "n=3", "eta=1.0")[2]
        files.append([stem.with_name(stem.name + end).read_bytes() for end in (".png",)])
    assert stem.name == "samples_n3_eta1.0"
    assert files[0] == files[1]
    assert sorted(path.name for path in stem.parent.iterdir()) == [f"{stem.name}.npz", f"{stem.name}.png"]


@pytest.mark.parametrize(
    ("asked", "classes"), [("dog", [1, 1, 1, 1]), ("7", [2, 2, 2, 2]), ("2,cat", [2, 0, 2, 0]), ("0", [0, 0, 0, 0])]
)
def test_classes_by_name_or_number(asked: str, classes: list[int], run, capsys) -> None:
    folder = run("cvae")
    arrays, size, _ = made(capsys, folder, "n=4", f"class={asked}")
    assert arrays["classes"].tolist() == classes
    expected = levels(task_of("cvae").sample(torch.arange(4), seed=0, condition=torch.tensor(classes)))
    assert abs(arrays["images"].astype(int) - expected).max() <= 1
    assert size == (2 * 66 + 2, 2 * 66 + 2)


def test_options_of_diffusion_are_those_of_the_task(run, capsys) -> None:
    folder, numbers = run("conditional"), torch.arange(2)
    words = {"steps": 7, "eta": 0.5, "guidance": 3.0}
    arrays = made(capsys, folder, "n=2", *(f"{name}={value}" for name, value in words.items()))[0]
    expected = task_of("conditional", **words).sample(numbers, seed=0, condition=numbers)
    assert abs(arrays["images"].astype(int) - levels(expected)).max() <= 1
    assert words.items() <= json.loads(str(arrays["settings"])).items()
    arrays = made(capsys, folder, "n=2", "sampler=ddpm")[0]
    expected = task_of("conditional", sampler="ddpm").sample(numbers, seed=0, condition=numbers)
    assert abs(arrays["images"].astype(int) - levels(expected)).max() <= 1


def test_where_files_go(run, capsys, tmp_path, monkeypatch) -> None:
    folder = run("gan")
    out = tmp_path / "out"
    assert made(capsys, folder, "n=1", f"out={out}/")[2] == out / "samples_n1"
    assert made(capsys, folder, "n=2", f"out={out}")[2] == out / "samples_n2"
    for given in ("mine", "mine.png", "mine.npz"):
        assert made(capsys, folder, "n=1", f"out={out / given}")[2] == out / "mine"
    alone = tmp_path / "alone.ckpt"
    alone.write_bytes((folder / "checkpoints" / "best.ckpt").read_bytes())
    assert made(capsys, alone, "n=1")[2] == tmp_path / "samples" / "samples_n1"
    assert zoo(["sample", f"ckpt_path={alone}", "n=1", f"out={alone}/x"]) == 2
    assert "below a file" in capsys.readouterr().err


def test_a_terminal_is_told_how_far_it_is(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    network = nn.Identity()
    clock = iter(range(1, 100))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    for part in progress.told(torch.arange(6).split(4), network):
        network(part)
    said = capsys.readouterr().err
    assert "1 of 6, call 1 of the network" in said
    assert "5 of 6, call 2 of the network" in said
    assert said.endswith("\r\033[K")
    assert not network._forward_hooks


# Others ---------------------------------------------------------------------------------------------------------------


def test_reconstructions_of_test_pictures(run, capsys) -> None:
    batch, task = test_images(), task_of("autoencoder")
    folder = run("autoencoder")
    arrays, size, stem = made(capsys, folder, "n=3")
    assert stem.name == "reconstructions_n3"
    chosen = batch["input"][arrays["positions"]]
    np.testing.assert_array_equal(arrays["originals"], levels(chosen))
    assert abs(arrays["images"].astype(int) - levels(task.network(chosen).detach())).max() <= 1
    assert size == (3 * 66 + 2, 2 * 66 + 2)
    more = made(capsys, folder, "n=6")[0]
    np.testing.assert_array_equal(more["positions"][:3], arrays["positions"])
    other = made(capsys, folder, "n=6", "seed=1")[0]
    assert other["positions"].tolist() != more["positions"].tolist()
    of_two = made(capsys, folder, "n=4", "class=7,cat")[0]
    assert of_two["classes"].tolist() == [2, 0, 2, 0]
    np.testing.assert_array_equal(batch["target"][of_two["positions"]], of_two["classes"])


def test_a_denoising_one_shows_what_it_saw(run, capsys) -> None:
    arrays, size, _ = made(capsys, run("denoising"), "n=20")
    assert size == (16 * 66 + 2, 6 * 66 + 2)
    originals, corrupted = arrays["originals"], arrays["corrupted"]
    hit = corrupted != originals
    assert (corrupted[hit] == 0).all()
    assert 0.2 < hit.mean() < 0.6
    task = task_of("denoising")
    task.draws = key(0, "draws", "evaluation")
    batch = {name: value[arrays["positions"]] for name, value in test_images().items()}
    outputs = task.loss(task.network, batch)[1]
    np.testing.assert_array_equal(corrupted, levels(outputs["corrupted"]))
    assert abs(arrays["images"].astype(int) - levels(outputs["denoised"])).max() <= 1


@pytest.mark.parametrize("kind", ["vae", "cvae"])
def test_traversal_moves_one_latent_at_a_time(kind: str, run, capsys) -> None:
    batch, task, folder = test_images(), task_of(kind), run(kind)
    arrays, size, _ = made(capsys, folder, "what=traversal", "n=2", "seed=5")
    assert arrays["images"].shape == (2, 11, 8, 8, 1)
    assert size == (11 * 66 + 2, 2 * 66 + 2)
    task.draws = key(0, "draws", "evaluation")
    kl = task.loss(task.network, batch)[1]["kl"].mean(0)
    best = kl.topk(2)
    assert arrays["dimensions"].tolist() == best.indices.tolist()
    np.testing.assert_allclose(arrays["kl"], best.values, rtol=1e-5)
    one = arrays["positions"]
    condition = batch["target"][one] if kind == "cvae" else None
    latent = task.encode_mean(batch["input"][one], condition)
    latent[0, best.indices[1]] = -3 + 0.6 * 2
    expected = levels(task.decode_latent(latent, condition))[0].astype(int)
    assert abs(arrays["images"][1, 2] - expected).max() <= 1


@pytest.mark.parametrize("kind", ["vae", "cvae"])
def test_a_vae_interpolates_between_encodings_of_test_pictures(kind: str, run, capsys) -> None:
    batch, task = test_images(), task_of(kind)
    arrays, size, _ = made(capsys, run(kind), "what=interpolation", "n=4")
    assert size == (13 * 66 + 2, 4 * 66 + 2)
    pairs = batch["target"][arrays["positions"]].view(4, 2)
    if kind == "cvae":
        assert pairs.tolist() == [[0, 0], [1, 1], [2, 2], [0, 0]]
    assert len(set(arrays["positions"].tolist())) == 8
    ends = arrays["positions"][2:4]
    condition = pairs[1] if kind == "cvae" else None
    latent = task.encode_mean(batch["input"][ends], condition)
    mixed = torch.stack([latent[0], 0.7 * latent[0] + 0.3 * latent[1], latent[1]])
    told = None if condition is None else condition[:1].repeat(3)
    expected = levels(task.decode_latent(mixed, told)).astype(int)
    assert abs(arrays["images"][1, [0, 3, 10]] - expected).max() <= 1
    np.testing.assert_array_equal(arrays["originals"][1], levels(batch["input"][ends]))


@pytest.mark.parametrize("kind", ["gan", "cgan", "diffusion", "conditional"])
def test_others_interpolate_between_their_own_samples(kind: str, run, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sample_pictures, "CHUNK", 22)
    settings = {"eta": 0.0} if kind in ("diffusion", "conditional") else {}
    task = task_of(kind, **settings)
    words = ["n=3", "seed=2", *(["class=2,1"] if task.conditional else [])]
    arrays = made(capsys, run(kind), "what=interpolation", *words)[0]
    told = torch.tensor([2, 1, 2]) if task.conditional else None
    for end, offset in ((0, 0), (-1, 1)):
        expected = levels(task.sample(2 * torch.arange(3) + offset, seed=2, condition=told))
        assert abs(arrays["images"][:, end].astype(int) - expected).max() <= 1
    steps = np.abs(np.diff(arrays["images"].astype(float), axis=1)).mean((2, 3, 4))  # (3, 10)
    assert (steps > 0).all()
    if task.conditional:
        assert arrays["classes"].tolist() == [2, 1, 2]


def test_interpolation_is_by_ddim_whatever_the_run_samples_by(run, capsys) -> None:
    arrays = made(capsys, run("ddpm"), "what=interpolation", "n=1", "steps=5")[0]
    expected = task_of("diffusion", steps=5, eta=0.0).sample(torch.arange(1), seed=0)
    assert abs(arrays["images"][:, 0].astype(int) - levels(expected)).max() <= 1


@pytest.mark.parametrize(("kind", "frames"), [("conditional", 4), ("ddpm", 11)])
def test_a_film_ends_in_the_sample(kind: str, frames: int, run, capsys) -> None:
    arrays, size, _ = made(capsys, run(kind), "what=film", "n=2")
    assert size == (frames * 66 + 2, 5 * 66 + 2)
    assert arrays["images"].shape == arrays["predicted"].shape == (2, frames, 8, 8, 1)
    expected = levels(task_of(kind).sample(torch.arange(2), seed=0))
    assert abs(arrays["predicted"][:, -1].astype(int) - expected).max() <= 1
    assert (np.diff(arrays["times"]) < 0).all()
    assert arrays["forward_times"].tolist() == np.linspace(-1, 39, frames).round().astype(int).tolist()
    assert any((arrays["forward"][0] == levels(image)).all() for image in test_images()["input"])


# Mistakes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "words", "sentence"),
    [
        ("autoencoder", ["what=samples"], "what=samples: a network of task Reconstruction makes reconstructions."),
        ("gan", ["what=film"], "what=film: a network of task Gan makes samples, interpolation."),
        ("vae", ["what=moon"], "makes samples, reconstructions, traversal, interpolation."),
        ("gan", ["steps=3"], "steps=3: this network is of task Gan, which takes what, n, seed, class."),
        ("gan", ["prompt=a"], "prompt=a: this network is of task Gan"),
        ("diffusion", ["what=interpolation", "eta=1"], "eta=1.0: what=interpolation takes n, seed, class, steps"),
        ("gan", ["n=0"], "n=0: must be a whole number, at least 1."),
        ("gan", ["n=9999999"], "n=9999999: must be at most 1000000."),
        pytest.param(
            *("gan", ["n=1", "out=/proc/x.png"], "out=/proc/x: no file can be made there; choose another folder."),
            marks=pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's"),
        ),
        ("gan", ["n=1", "out=foo.jpg"], "out=foo.jpg: pictures are written as .png, beside arrays as .npz; leave the"),
        ("cvae", ["class=1,,2"], "class=: there is no such class; there are 0 to"),
        ("gan", ["class=1"], "class=1: this network was not told classes"),
        ("cgan", ["class=3"], "class=3: there is no such class; there are 0 to 2."),
        ("cgan", ["class=dgo"], "class=dgo: there is no such class; did you mean dog?"),
        ("diffusion", ["steps=41"], "steps=41: must be 2 to 40"),
        ("diffusion", ["eta=2"], "eta=2.0: must be 0"),
        ("diffusion", ["eta=x"], "eta=x: must be a number"),
        ("diffusion", ["guidance=2"], "guidance=2.0: must be 1"),
        ("diffusion", ["sampler=euler"], "sampler=euler: must be ddim or ddpm"),
        ("ddpm", ["steps=5"], "steps=5: sampler=ddpm goes through all 40 steps; add sampler=ddim."),
        ("vae", ["what=traversal", "n=5"], "n=5: must be at most 4, the latent dimensions"),
        ("vae", ["what=reconstructions", "n=31"], "n=31: must be at most 30, as many as the test pictures"),
        ("vae", ["what=interpolation", "n=16"], "n=16: must be at most 15"),
    ],
)
def test_a_mistake_gets_a_sentence(kind: str, words: list[str], sentence: str, run, capsys) -> None:
    folder = run(kind)
    assert zoo(["sample", f"ckpt_path={folder}", *words]) == 2
    said = capsys.readouterr()
    assert sentence in said.err
    assert said.out == ""
    assert not (folder / "samples").exists()


def test_pictures_that_are_no_numbers_are_not_written(run, capsys) -> None:
    path = run("gan") / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    for value in content["state_dict"].values():
        value.fill_(torch.inf)
    torch.save(content, path)
    assert zoo(["sample", f"ckpt_path={path}", "n=1"]) == 2
    assert "The pictures are no numbers (NaN): this network has diverged." in capsys.readouterr().err
    assert not (path.parents[1] / "samples").exists()


def test_every_task_that_makes_something_has_its_numbers() -> None:
    for task, makes in making.MAKES.items():
        assert issubclass(task, Task)
        for what in makes:
            assert what in making.ROWS
            assert what in sample_pictures.MAKERS
