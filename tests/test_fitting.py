"""What goes together: every model with its own data and task, and a way out for pairs that do not."""

import json

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from zoo.conditions import check_known, check_reads
from zoo.data.series import Sunspots
from zoo.data.synthetic import Synthetic
from zoo.errors import ZooError
from zoo.fitting import TABLE, check_task, is_foreign, readers
from zoo.layout import options, read_option
from zoo.models.mlp import MLP
from zoo.tasks.forecasting import Forecasting
from zoo.tasks.regression import Regression

MODELS = json.loads(TABLE.read_text(encoding="utf-8"))


def config(data: str) -> dict[str, object]:
    return read_option("data", data).tree


def refusal(model: str, data: str, task: str | None = None) -> str:
    with pytest.raises(ZooError) as raised:
        check_task({"model": model, "data": data, "task": task or MODELS[model]["task"]}, config(data))
    assert str(raised.value).count("\n") < 3
    return str(raised.value)


@pytest.mark.parametrize("model", options()["model"])
def test_every_model_takes_its_own_data(model: str) -> None:
    data, task = MODELS[model]["data"], MODELS[model]["task"]
    check_task({"model": model, "data": data, "task": task}, config(data))
    assert not is_foreign(model, config(data))
    assert "model=" in readers(config(data), data)


@pytest.mark.parametrize("data", options()["data"])
def test_all_data_name_models_that_take_their_task(data: str) -> None:
    named = readers(config(data), data).removeprefix("\nFor such data there is model=").strip(".…, ").split(", ")
    named = [name for name in named if name != "…"]
    for name in named:
        if (task := MODELS[name]["task"]) != "classification":  # also of data to regress, with task=regression
            check_task({"model": name, "data": data, "task": task}, config(data))
    assert named


def test_a_pair_that_does_not_fit_is_told_both_ways_out() -> None:
    text = refusal("lstm_classifier", "moby_dick")
    assert "data=moby_dick is for task=language_model, and model=lstm_classifier for task=classification.\n" in text
    assert "model=gpt, gru, irnn, lstm, rnn." in text
    assert "data=languages." in text
    assert "model=bilstm_classifier, gru_classifier" in refusal("lstm", "languages")
    assert "model=fcn, fcn16s" in refusal("lenet5", "earth_segmentation")
    assert "lenet5, lenet5_1998, mlp" in refusal("unet", "digits")  # those made for the set first


def test_a_task_of_another_kind() -> None:
    assert refusal("lstm", "moby_dick", "classification").endswith("is for task=language_model. Leave the task out.")
    assert "model=bilstm_classifier" in refusal("lstm", "languages", "classification")
    assert "task=regression: data=moby_dick is for task=language_model.\n" in refusal(
        "lenet5", "moby_dick", "regression"
    )
    assert "choose task=classification" in refusal("lenet5", "digits", "regression")
    assert "choose task=regression" in refusal("lstm_classifier", "adding_task")
    for data, task in (("adding_task", "regression"), ("sunspots", "forecasting"), ("digits_rows", "classification")):
        check_task({"model": "lstm_classifier", "data": data, "task": task}, config(data))


def test_a_series_of_one_step_is_forecast() -> None:
    stored = {**config("sunspots"), "num_classes": 1, "class_names": None}
    check_task({"model": "lstm_forecaster", "data": "sunspots", "task": "forecasting"}, stored)


def test_what_is_not_ours_is_not_judged() -> None:
    check_task({"model": "mine", "data": "mine", "task": "language_model"}, {"batch_size": 3})
    check_task({"model": "lenet5", "data": "mine", "task": "classification"}, {"batch_size": 3})
    check_task({"model": "mine", "data": "digits", "task": "mine"}, config("digits"))
    check_task({}, config("digits"))
    assert readers({"batch_size": 3}) == ""
    assert not is_foreign("mine", config("digits"))


def test_fewer_tokens_than_there_are(small_run, tmp_path) -> None:
    (tmp_path / "a.txt").write_text("abcde" * 99, encoding="utf-8")
    words = ["data=text_file", f"data.path={tmp_path / 'a.txt'}", "model=gru", "task=language_model"]
    words += ["data.batch_size=2", "data.sequence_length=4", "model.num_tokens=5"]
    with pytest.raises(ZooError, match="num_tokens=5: must be at least 6, the number of tokens in the data"):
        small_run(*words)


def test_a_fact_that_not_even_the_files_tell() -> None:
    model = {
        "_target_": "zoo.models.mlp.MLP",
        "in_features": "${data.num_features}",
        "num_classes": "${data.num_classes}",
    }
    cfg = OmegaConf.create({"model": model, "data": {**config("languages"), "length": 20}})
    with pytest.raises(ZooError, match=r"needs data\.num_features, which data=languages does not have\.\nFor"):
        check_known(cfg, {"model": "mlp", "data": "languages"})
    cfg.data.num_features = 3
    check_known(cfg, {"model": "mlp", "data": "languages"})
    reader = {"_target_": "zoo.models.recurrent.RecurrentPredictor", "num_features": "${data.num_features}"}
    check_known(OmegaConf.create({"model": reader, "data": config("languages")}), {})  # which may be None


def test_a_network_that_cannot_read_an_example() -> None:
    data = Sunspots(batch_size=4)
    data.setup("fit")
    task = Forecasting(MLP(in_features=1, num_classes=1), facts=data.facts)
    with pytest.raises(ZooError, match=r"(?s)data=sunspots: input of shape .*model=gru_forecaster"):
        check_reads(task, data, {"model": "mlp", "data": "sunspots"})
    task = Forecasting(MLP(in_features=11, num_classes=1), facts=data.facts)
    assert check_reads(task, data, {"model": "mlp", "data": "sunspots"}).parameters


def test_a_bug_in_a_network_stays_one() -> None:
    class Buggy(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("a bug")

    data = Synthetic(kind="regression", train_size=4)
    data.setup("fit")
    with pytest.raises(RuntimeError, match="a bug"):
        check_reads(Regression(Buggy(), facts=data.facts), data, {"model": "mine", "data": "synthetic"})
    with pytest.raises(ZooError, match="model=resnet18 cannot read data=synthetic: a bug"):  # of tables
        check_reads(Regression(Buggy(), facts=data.facts), data, {"model": "resnet18", "data": "synthetic"})


@pytest.mark.parametrize("facts", [{"class_names": ["a", "b"], "num_classes": 2}, {"class_names": None}])
@pytest.mark.parametrize("task", ["reconstruction", "vae", "gan", "diffusion"])
def test_pictures_can_be_made_with_and_without_classes(task: str, facts: dict) -> None:
    own = {"autoencoder": "reconstruction"}
    model = {"reconstruction": "autoencoder"}.get(task, task)
    check_task({"model": model, "task": task, "data": "own"}, {"channels": 1, "image_size": 28, **facts})
    with pytest.raises(ZooError, match=f"model={model} is for task={own.get(model, task)}"):
        check_task({"model": model, "task": "classification", "data": "own"}, {"channels": 1, **facts})
