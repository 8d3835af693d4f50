"""`zoo judge`: its numbers are those of the features, of pictures as a file has them; a mistake gets a sentence."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, compose_config
from torch import nn

from zoo.baselines import make_baselines
from zoo.errors import ZooError
from zoo.evaluation import load
from zoo.extractors import Extractor, look, read_extractor
from zoo.frechet import class_balance, frechet_of_features, inception_style_score, kernel_distance
from zoo.generators import levels, real_pictures, samples
from zoo.judging import judge, main, nearest_training, read_generator
from zoo.run import train

CPU = torch.device("cpu")


def small_run(folder: Path, *words: str) -> Path:
    folder.mkdir()
    overrides = [*SMALL, "trainer.max_epochs=1", "data.eval_batch_size=40", *words]
    choices = {"data": "synthetic"} | dict(word.split("=", 1) for word in words if word.startswith("model="))
    train(compose_config(overrides), folder, choices=choices, command=["train.py", *overrides])
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A generator that is told the class, one that is not, and a classifier, on the same made-up pictures."""
    folder = tmp_path_factory.mktemp("runs")
    unet = ("model.width=4", "model.multipliers=[1]", "model.attention=[]")
    tiny = ("model.hidden=[16]", "model.latent_size=4")
    return {
        "cvae": small_run(folder / "cvae", "model=cvae", *tiny, "train_examples=100"),
        "vae": small_run(folder / "vae", "model=vae", *tiny),
        "lenet5": small_run(folder / "lenet5", "model=lenet5"),
        "diffusion": small_run(folder / "diffusion", "model=diffusion", *unet, "train_examples=32"),
    }


@pytest.fixture
def changed(runs: dict[str, Path], tmp_path: Path) -> Any:
    """`changed(run, change)` writes a run's checkpoint anew, after `change` has seen it."""

    def write(run: str, change: Any) -> Path:
        checkpoint = torch.load(runs[run] / "checkpoints" / "best.ckpt", weights_only=True)
        change(checkpoint)
        torch.save(checkpoint, tmp_path / "changed.ckpt")
        return tmp_path / "changed.ckpt"

    return write


def judged(out: Path, *words: str) -> dict[str, Any]:
    assert main([*words, f"out={out}"]) == 0
    return json.loads((out / "judgement.json").read_text(encoding="utf-8"))


# The numbers ----------------------------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_the_classifiers_features(runs: dict[str, Path], tmp_path: Path) -> None:
    """Recomputed from the saved network: 256 levels, its own normalisation, the input of its last layer."""
    words = (f"ckpt_path={runs['cvae']}", f"features={runs['lenet5']}", "n=45", "seed=3", "seeds=2", "split=val")
    record = judged(tmp_path / "out", *words, "baselines=false")
    classifier, preprocessing, names = load(runs["lenet5"])
    assert isinstance(classifier.classifier, nn.Sequential)
    task, data = read_generator(str(runs["cvae"]), {})
    sets = [task.sample(torch.arange(45), seed=seed, condition=torch.arange(45) % 10) for seed in (3, 4)]
    sets.append(data.splits["val"].inputs / 255)
    features, probabilities = [], []
    for pictures in sets:
        rounded = (pictures * 255).round() / 255
        with torch.no_grad():
            maps = classifier.features((rounded - preprocessing["mean"][0]) / preprocessing["std"][0])
            features.append(classifier.classifier[:-1](maps))
            probabilities.append(classifier.classifier[-1](features[-1]).softmax(1))
    found = record["samples"]
    for number in range(2):
        seen, real = features[number], features[2]
        confidence, predicted = probabilities[number].max(1)
        balance = class_balance(predicted, 10)
        expected = {
            "frechet_distance": frechet_of_features(seen, real),
            "kernel_distance": kernel_distance(seen, real, subsets=1)[0],
            "score": inception_style_score(probabilities[number])[0],
            "mean_confidence": confidence.mean(),
            "confident_share": (confidence >= 0.9).float().mean(),
            "smallest_class": balance.min(),
            "largest_class": balance.max(),
            "class_as_asked": (predicted == torch.arange(45) % 10).float().mean(),
        }
        for name, value in expected.items():
            assert found[name]["values"][number] == pytest.approx(value.item(), rel=1e-4, abs=1e-6), name
    distances = found["frechet_distance"]
    assert distances["mean"] == pytest.approx(sum(distances["values"]) / 2)
    assert distances["std"] == pytest.approx(abs(distances["values"][0] - distances["values"][1]) / 2**0.5)
    predictions = torch.cat(probabilities[:2]).argmax(1)
    assert record["class_balance"] == pytest.approx(
        dict(zip(names, class_balance(predictions, 10).tolist(), strict=True))
    )
    missing = sorted(set(range(10)) - set(predictions.tolist()))
    assert record["missing_classes"] == [names[number] for number in missing]
    assert (record["real_pictures"], record["n"], record["seeds"]) == (64, 45, [3, 4])


def test_a_baseline_of_fewer_pictures_is_said(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged(tmp_path / "out", f"ckpt_path={runs['cvae']}", f"features={runs['lenet5']}", "n=101")
    said = "note: the baseline `training` is of all 100 training pictures: there are no 101."
    assert said in capsys.readouterr().out


def test_what_is_written_and_printed_names_the_classifier(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (f"ckpt_path={runs['vae']}", f"features={runs['lenet5']}", "n=30", "seeds=2")
    record = judged(tmp_path / "out", *words)
    printed = capsys.readouterr().out
    assert re.fullmatch(rf"lenet5 on synthetic \(run {runs['lenet5']}, weights [0-9a-f]{{8}}\)", record["features"])
    assert f"features: {record['features']}, 84 numbers a picture" in printed
    assert "30 samples of each seed against 64 pictures of test" in printed
    value = record["samples"]["frechet_distance"]
    assert f"\nfrechet_distance {value['mean']:.4g} ± {value['std']:.2g}\n" in printed
    assert "warning: 30 pictures are few for the covariance of 84 features" in printed
    assert "class_as_asked" not in record["samples"]  # no class was asked for
    assert "the baseline `training`" not in printed
    assert "FID" not in json.dumps(record)
    assert (tmp_path / "out" / "nearest_neighbours.png").read_bytes().startswith(b"\x89PNG")
    assert list(record["baselines"]) == ["training", "uniform_noise", "pixel_gaussian", "pca_gaussian"]
    for name, measured in record["baselines"].items():
        assert f"\n{name}: frechet_distance {measured['frechet_distance']['mean']:.4g} ±" in printed
    again = judged(tmp_path / "again", *words)
    for other in (record, again):
        del other["samples"]["seconds"]
    assert again == record


def test_judge_gives_flat_numbers_and_writes_into_the_run(runs: dict[str, Path]) -> None:
    flat = judge(runs["cvae"], runs["lenet5"], n=20, seeds=2)
    record = json.loads((runs["cvae"] / "judgement.json").read_text(encoding="utf-8"))
    assert flat["judged/frechet_distance"] == record["samples"]["frechet_distance"]["mean"]
    assert flat["judged/frechet_distance_std"] == record["samples"]["frechet_distance"]["std"]
    assert flat["judged/pca_gaussian/score"] == record["baselines"]["pca_gaussian"]["score"]["mean"]
    assert flat["judged/missing_classes"] == len(record["missing_classes"])
    assert all(type(value) is float for value in flat.values())
    assert "judged/frechet_distance_std" not in judge(
        runs["cvae"] / "checkpoints" / "best.ckpt", runs["lenet5"], n=20, seeds=1
    )


def test_classes_the_generator_does_not_have_are_not_counted(
    runs: dict[str, Path], changed: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = changed("lenet5", lambda c: c["zoo"].update(class_names=list("abcdefghij")))
    record = judged(tmp_path / "out", f"ckpt_path={runs['cvae']}", f"features={other}", "n=20", "baselines=false")
    measured = [
        "frechet_distance",
        "kernel_distance",
        "score",
        "seconds",
        "nearest_distance",
        "closest_distance",
    ]
    assert list(record["samples"]) == measured
    assert record["class_balance"] == {}
    assert "missing_classes" not in capsys.readouterr().out


def test_diffusion_is_sampled_as_asked_and_the_record_says_how(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (f"ckpt_path={runs['diffusion']}", f"features={runs['lenet5']}", "n=4", "baselines=false")
    record = judged(tmp_path / "out", *words, "steps=2", "guidance=1.5", "eta=0.5")
    assert record["generator"]["sampling"] == {"steps": 2, "sampler": "ddim", "guidance": 1.5, "eta": 0.5}
    assert "pictures of test, steps 2, eta 0.5, guidance 1.5, sampler ddim\n" in capsys.readouterr().out
    task, _ = read_generator(str(runs["diffusion"]), {"steps": 3})
    assert task.steps == 3
    with pytest.raises(ZooError, match=r"steps=2: sampler=ddpm goes through all 1000 steps; add sampler=ddim."):
        main([*words, "steps=2", "sampler=ddpm"])
    with pytest.raises(ZooError, match="sampler=dpm"):
        main([*words, "sampler=dpm"])


# Pictures -------------------------------------------------------------------------------------------------------------


def test_real_pictures_are_the_files_bytes(runs: dict[str, Path]) -> None:
    _, data = read_generator(str(runs["vae"]), {})
    for split in ("train", "test"):
        assert torch.equal(real_pictures(data, split), data.splits[split].inputs)
    _, data = read_generator(str(runs["cvae"]), {})
    assert torch.equal(real_pictures(data, "train"), data.splits["train"].inputs[data.indices("train")])
    assert len(real_pictures(data, "train")) == 100  # those that were learnt from
    assert levels(torch.tensor([-0.1, 0.0, 0.499 / 255, 0.501 / 255, 1.0, 1.2])).tolist() == [0, 0, 0, 1, 255, 255]


def test_a_copy_of_a_training_picture_is_found_at_distance_zero(runs: dict[str, Path]) -> None:
    _, data = read_generator(str(runs["vae"]), {})
    training = real_pictures(data, "train")
    made = training[[5, 9]].clone()
    made[1, 0, :3, :4] = 255 - made[1, 0, :3, :4]
    distances, where = nearest_training(made, training)
    change = (made[1].double() - training[9].double()) / 255
    assert where.tolist() == [5, 9]
    assert distances.tolist() == pytest.approx([0, change.norm().item()])


def test_baselines_have_the_statistics_they_are_called_by() -> None:
    """Of pictures far from black and white, where nothing is cut off."""
    counter = torch.arange(300)
    level = 128 + 20 * torch.sin(counter / 7)[:, None] * torch.tensor([1.0, 1.0, -1.0, 0.0])
    training = (level + 6 * torch.cos(counter[:, None] * torch.tensor([1.0, 2.0, 3.0, 4.0]))).to(torch.uint8)
    training = training.view(-1, 1, 2, 2)
    found = {name: pictures.flatten(1).double() for name, pictures in make_baselines(training, 4000, 0)}
    real = training.flatten(1).double()
    pictures = {tuple(row) for row in real.tolist()}
    assert len(found["training"]) == 300
    assert {tuple(row) for row in found["training"].tolist()} == pictures
    assert abs(found["uniform_noise"].mean() - 127.5) < 2
    assert abs(found["uniform_noise"].std() - 255 / 12**0.5) < 2
    for name in ("pixel_gaussian", "pca_gaussian"):
        torch.testing.assert_close(found[name].mean(0), real.mean(0), atol=1.0, rtol=0)
        torch.testing.assert_close(found[name].var(0), real.var(0), rtol=0.1, atol=0)
    correlation = torch.corrcoef(real.T)
    assert correlation[0, 1] > 0.7
    torch.testing.assert_close(torch.corrcoef(found["pca_gaussian"].T), correlation, atol=0.06, rtol=0)
    torch.testing.assert_close(
        torch.corrcoef(found["pixel_gaussian"].T).double(), torch.eye(4).double(), atol=0.06, rtol=0
    )


def test_samples_do_not_depend_on_how_many_are_made_at_a_time(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    task, _ = read_generator(str(runs["cvae"]), {})
    whole = samples(task, torch.arange(25), 1)
    monkeypatch.setattr("zoo.generators.BATCH", 7)
    assert (samples(task, torch.arange(25), 1).int() - whole.int()).abs().max() <= 1  # rounding
    assert whole.shape == (25, 1, 28, 28)


# Classifiers ----------------------------------------------------------------------------------------------------------


def test_features_are_the_input_of_the_last_layer_and_maps_are_averaged() -> None:
    """Grey pictures become RGB and larger ones where the network wants these, as Inception does."""
    torch.manual_seed(0)
    body, head = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 4, 1)
    network = nn.Sequential(body, head, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    extractor = Extractor("tiny", network, "1", (3, 8), [0.5] * 3, [0.25] * 3, ())
    pictures = torch.full((300, 1, 4, 4), 51, dtype=torch.uint8)
    seen = look(extractor, pictures, CPU)
    input = torch.full((1, 3, 8, 8), (0.2 - 0.5) / 0.25)
    with torch.no_grad():
        torch.testing.assert_close(seen.features, body(input).mean((2, 3)).expand(300, -1))
        torch.testing.assert_close(seen.probabilities, network(input).softmax(1).expand(300, -1))


def test_inception_without_its_weights_is_a_sentence(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", _no_network)
    with pytest.raises(
        ZooError, match=r"features=inception: the download failed.*\nFetch https.* elsewhere and put it"
    ):
        main([f"ckpt_path={runs['vae']}", "features=inception"])


def _no_network(*args: object, **kwargs: object) -> None:
    from urllib.error import URLError

    raise URLError("no network")


# Mistakes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("features={lenet5}", "Which generator? zoo judge ckpt_path="),
        ("ckpt_path={vae}", "Seen by which classifier? features="),
        ("{vae}", "{vae}: write key=value. Did you mean ckpt_path={vae}?"),
        ("ckpt_path={vae} feature={lenet5}", "there is no key feature. Did you mean features?"),
        ("ckpt_path={vae} features={lenet5} n=", "n=: write n=value, or leave it out."),
        ("ckpt_path={vae} features={lenet5} n=1", "n=1: must be a whole number, at least 2."),
        ("ckpt_path={vae} features={lenet5} n=9999999", "n=9999999: must be at most 1000000."),
        ("ckpt_path={vae} features={lenet5} seeds=two", "seeds=two: must be a whole number, at least 1."),
        ("ckpt_path={vae} features={lenet5} baselines=1", "baselines=1: must be true or false."),
        ("ckpt_path={vae} features={lenet5} eta=all", "eta=all: must be a number."),
        ("ckpt_path={vae} features={lenet5} split=train", "split=train: must be val or test: pictures that"),
        ("ckpt_path={vae} features={lenet5} split=more", "split=more: must be val or test: pictures that"),
        ("ckpt_path={vae} features={lenet5} steps=5", "steps=5: this network is of task Vae, which takes no steps."),
        ("ckpt_path={lenet5} features={lenet5}", "best.ckpt makes no pictures: its task is Classification."),
        ("ckpt_path={vae} features={vae}", "features={vae}: must be a classifier's run, and this one's task is Vae."),
        ("ckpt_path={vae} features={lenet5} out={file}", "judgement.py: is a file or below one; name a folder"),
        ("ckpt_path={vae} features=runs/none", "There is no checkpoint runs/none."),
    ],
)
def test_a_mistake_is_a_sentence(words: str, message: str, runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "judgement.py").touch()
    places = {**runs, "file": tmp_path / "judgement.py"}
    with pytest.raises(ZooError, match=re.escape(message.format(**places))):
        main(words.format(**places).split())


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"image_size": 32}, "this classifier takes pictures of 1×32×32, and the generator makes 1×28×28"),
        ({"channels": 3}, "this classifier takes pictures of 3×28×28, and the generator makes 1×28×28"),
        ({"image_size": None}, "must be a classifier of pictures, and this one reads none."),
    ],
)
def test_a_classifier_of_other_pictures_is_refused(facts: dict[str, Any], message: str, changed: Any) -> None:
    other = changed("lenet5", lambda c: c["zoo"]["preprocessing"].update(facts))
    with pytest.raises(ZooError, match=message):
        read_extractor(str(other), (1, 28, 28), CPU, trust=False)


def test_a_generator_whose_samples_are_no_numbers_is_told(runs: dict[str, Path]) -> None:
    task, _ = read_generator(str(runs["vae"]), {})
    nn.init.constant_(next(iter(task.network.parameters())), 0)
    for parameter in task.network.parameters():
        parameter.data.fill_(torch.inf)
    with pytest.raises(ZooError, match=r"The samples are no numbers \(NaN\)"):
        samples(task, torch.arange(4), 0)
