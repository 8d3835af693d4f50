"""Evaluation from a checkpoint repeats what training printed, wherever the file lies."""

import shutil
from pathlib import Path

import pytest
import torch

import zoo
from zoo.checkpoint import read_checkpoint
from zoo.errors import ZooError
from zoo.evaluation import evaluate, override
from zoo.randomness import key, uniform

# overrides that change what evaluation must rebuild
CHOICES = {
    "model": ["lenet5", "mlp", "softmax_regression", "lenet5_1998"],
    "optimizer": ["sgd", "adam", "rmsprop", "adagrad"],
    "scheduler": ["constant", "step", "plateau", "warm_restarts"],
    "init": ["default", "he_in_normal", "glorot_uniform"],
    "ema_decay": ["null", "0.9"],
    "seed": ["0", "7"],
    "data.batch_size": ["16", "48"],
    "data.split_seed": ["0", "3"],
    "task.label_smoothing": ["0.0", "0.1"],
    "trainer.accumulate_grad_batches": ["1", "2"],
}


@pytest.mark.parametrize("draw", range(4))
def test_evaluation_repeats_training_to_the_last_digit_after_ten_random_overrides(
    draw: int, small_run, tmp_path
) -> None:
    numbers = uniform(key("choices", draw), torch.arange(len(CHOICES)), 1)[:, 0].tolist()
    chosen = [
        f"{name}={options[int(u * len(options))]}" for (name, options), u in zip(CHOICES.items(), numbers, strict=True)
    ]
    folder, scores = small_run(*chosen)
    trained = {name: score for name, score in scores.items() if name.startswith("test/")}
    assert evaluate(ckpt_path=folder) == trained
    elsewhere = tmp_path / "copied elsewhere.ckpt"
    shutil.copy(folder / "checkpoints" / "best.ckpt", elsewhere)
    assert evaluate(ckpt_path=elsewhere) == trained
    moved = folder.rename(tmp_path / "moved")
    assert evaluate(ckpt_path=moved) == trained


PICTURES = {
    "autoencoder": ["model.width=0.25", "task.corruption=gaussian", "task.contractive_weight=0.1"],
    "cvae": ["model.hidden=[16]", "task.binarize=dynamic", "task.kl_warmup_epochs=5", "task.importance_samples=2"],
    "cgan": ["model.width=0.125", "task.gradient_penalty=1"],
    "mlp_gan": ["model.generator_hidden=[16]", "model.discriminator_hidden=[16]", "model.conditional=true"],
    "diffusion": ["model.width=16", "model.multipliers=[1]", "model.attention=[]", "model.dropout=0.1"],
}


@pytest.mark.parametrize("is_fast", [False, True], ids=["exact", "fast, averaged"])
@pytest.mark.parametrize("model", PICTURES)
def test_what_makes_pictures_is_evaluated_to_the_last_digit(model: str, is_fast: bool, small_run) -> None:
    """What is drawn (corruption, latents, noise, times) is the same in training's validation and in any evaluation."""
    words = [
        "data.image_size=16",
        "data.eval_batch_size=48",
        f"fast={is_fast}",
        f"ema_decay={0.9 if is_fast else 'null'}",
    ]
    folder, scores = small_run(f"model={model}", "checkpoint.keep_best=false", *PICTURES[model], *words)
    assert evaluate(ckpt_path=folder) == {name: score for name, score in scores.items() if name.startswith("test/")}
    rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    validated = {name: float(value) for _, _, name, value in rows if name.startswith("val/")}  # of the last epoch
    again = evaluate(ckpt_path=folder, split="val")
    assert len(validated) > 1
    assert again.items() >= validated.items()
    assert again.keys() - validated.keys() == ({"val/nll"} if model == "cvae" else set()), "nll is of the end alone"


def test_averaged_weights_are_the_ones_evaluated(small_run) -> None:
    folder, _ = small_run("ema_decay=0.9")
    state = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    network, _, _ = zoo.load(folder)
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, state[f"ema.{name}"])
        assert not torch.equal(weight, state[f"network.{name}"])


def test_other_splits_other_data_and_other_sizes(small_run) -> None:
    folder, scores = small_run()
    assert evaluate(ckpt_path=folder, split="val")["val/accuracy"] == scores["val/accuracy"]
    assert "train/accuracy" in evaluate(ckpt_path=folder, split="train")
    elsewhere = evaluate(ckpt_path=folder, overrides=["data=digits"])
    assert elsewhere["test/accuracy"] < scores["test/accuracy"], "digits are not what it was trained on"
    stored = read_checkpoint(folder / "checkpoints" / "best.ckpt")["zoo"]["config"]
    other = override(stored, ["data=digits", "data.eval_batch_size=50", "task.loss=["])
    assert (other["data"]["mean"], other["data"]["std"]) == (stored["data"]["mean"], stored["data"]["std"])
    assert (other["data"]["eval_batch_size"], other["task"]["loss"]) == (50, "[")
    with pytest.raises(ZooError, match=r"no key data\.eval_size"):
        override(stored, ["data.eval_size=50"])
    with pytest.raises(ZooError, match="channels=1 and this data has channels=3"):
        evaluate(ckpt_path=folder, overrides=["data=earth"])
    with pytest.raises(ZooError, match="split=holdout: this data has train, val, test"):
        evaluate(ckpt_path=folder, split="holdout")


def test_other_texts_are_read_as_in_training(small_run, tmp_path) -> None:
    text = "So it was, and so it goes on. " * 40
    for name, content in (("small.txt", text.lower()), ("other.txt", text)):
        (tmp_path / name).write_text(content, encoding="utf-8")
    reading = [f"data.path={tmp_path / 'small.txt'}", "data.lower=true", "data.sequence_length=8", "data.batch_size=4"]
    model = ["model=gpt", "model.layers=1", "model.d_model=8", "model.heads=1", "task=language_model"]
    folder, scores = small_run("data=text_file", *reading, *model)
    other = ["data=text_file", f"data.path={tmp_path / 'other.txt'}"]
    assert evaluate(ckpt_path=folder, overrides=other)["test/loss"] == scores["test/loss"]  # its capitals read as small
    with pytest.raises(ZooError, match=r"model=gpt cannot read data=text_file: .*context=8"):
        evaluate(ckpt_path=folder, overrides=["data.sequence_length=16"])
    with pytest.raises(
        ZooError, match="data=languages is for task=classification, and model=gpt for task=language_model"
    ):
        evaluate(ckpt_path=folder, overrides=["data=languages"])
    longer = override({"data": {"length": 20, "sequence_length": 20}}, ["data.length=30"])
    assert longer["data"] == {"length": 30, "sequence_length": None}  # which the data will tell
    folder, _ = small_run(name="pictures")
    with pytest.raises(ZooError, match=r"image_size=28 and .* choose other data, or data\.image_size=28"):
        evaluate(ckpt_path=folder, overrides=["data.image_size=32"])
    folder, _ = small_run("model=lstm_forecaster", "data=sunspots", "task=forecasting", "model.hidden=4", name="series")
    assert "test/rmse" in evaluate(ckpt_path=folder, overrides=["data.window=12"])
    with pytest.raises(ZooError, match=r"horizon=1 and .* choose other data, or data\.horizon=1"):
        evaluate(ckpt_path=folder, overrides=["data.horizon=3"])


@pytest.mark.parametrize("limit", [0, 0.01])
def test_a_limit_that_leaves_no_batch_is_refused(limit: float, small_run) -> None:
    folder, _ = small_run()
    with pytest.raises(ZooError, match=rf"limit_test_batches={limit}: must leave at least one of the 1 batches"):
        evaluate(ckpt_path=folder, overrides=[f"trainer.limit_test_batches={limit}"])
    for split in ("train", "val", "test"):
        name = f"limit_{split}_batches"
        with pytest.raises(ZooError, match=rf"trainer\.{name}=0\.01: must leave"):
            small_run(f"trainer.{name}=0.01", name=f"{split} {limit}")


def test_weights_that_are_not_numbers_are_not_scored(small_run) -> None:
    folder, _ = small_run()
    best = folder / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(best, weights_only=True)
    name = next(name for name in checkpoint["state_dict"] if name.startswith("network."))
    checkpoint["state_dict"][name].view(-1)[0] = float("nan")
    torch.save(checkpoint, best)
    for refusing in (lambda: evaluate(ckpt_path=folder), lambda: zoo.load(folder)):
        with pytest.raises(ZooError, match=rf"best\.ckpt .*{name.removeprefix('network.')} is not a number"):
            refusing()


def test_few_training_examples_are_scored_as_they_are_evaluated(small_run) -> None:
    folder, scores = small_run("train_examples=20")
    learnt = evaluate(ckpt_path=folder, split="train")
    assert {name: score for name, score in scores.items() if name.startswith("train/")} == {
        name: learnt[name] for name in ("train/loss", "train/accuracy")
    }
    assert round(learnt["train/accuracy"] * 20, 4) % 1 == 0
    assert not any(name.startswith("train/") for name in small_run(name="all")[1])


def test_load_gives_a_network_its_preprocessing_and_its_classes(small_run) -> None:
    folder, _ = small_run()
    network, preprocessing, class_names = zoo.load(folder)
    assert not network.training
    assert network(torch.zeros(1, 1, 28, 28)).shape == (1, 10)
    assert set(preprocessing) >= {"channels", "image_size", "mean", "std"}
    assert len(class_names) == 10


def test_importing_zoo_imports_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, zoo; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
