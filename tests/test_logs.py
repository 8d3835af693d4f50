"""What a person finds in TensorBoard: sections, the charts of both splits, the table of runs."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.custom_scalar.metadata import CONFIG_SUMMARY_TAG
from tensorboard.plugins.hparams.metadata import EXPERIMENT_TAG, SESSION_START_INFO_TAG
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from zoo.logs import TensorBoard


@pytest.fixture
def events(tmp_path: Path) -> EventAccumulator:
    board = TensorBoard(tmp_path)
    for step in (10, 20):
        if step == 20:  # the run was stopped and goes on
            board.close()
            board = TensorBoard(tmp_path)
        board.log_metrics({"epoch": 0.0, "train/loss": 1.0, "train/accuracy": 0.5, "lr": 0.1, "grad_norm": 2.0}, step)
        board.log_metrics({"epoch": 0.0, "val/loss": 1.5, "val/accuracy": 0.4, "val/f1": 0.3}, step)
    (tmp_path / "config.yaml").write_text("task: {_target_: zoo.tasks.classification.Classification}")
    scores = {"test/loss": 0.5, "test/accuracy": 0.75, "test/f1": 0.25}
    board.log_hyperparams({"model": "mlp", "fast": True, "seed": 3}, scores, 20)
    board.close()
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    return read


def test_every_chart_is_in_the_section_of_its_split(events: EventAccumulator) -> None:
    train = {"train/loss", "train/accuracy", "train/lr", "train/grad_norm"}
    test = {"test/loss", "test/accuracy"}  # charts of one dot: no more of them than tell runs apart
    assert {*events.Tags()["scalars"]} == train | {"val/loss", "val/accuracy", "val/f1"} | test
    assert [(event.step, event.value) for event in events.Scalars("train/grad_norm")] == [(10, 2.0), (20, 2.0)]


def test_training_and_validation_share_a_chart_where_both_are_measured(events: EventAccumulator) -> None:
    (event,) = events.Tensors(CONFIG_SUMMARY_TAG)  # once
    layout = Layout.FromString(event.tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for chart in layout.category[0].chart}
    names = ("loss", "accuracy")
    assert charts == {name: [f"^train/{name}$", f"^val/{name}$"] for name in names}


def test_the_table_of_runs_has_choices_and_final_scores(events: EventAccumulator) -> None:
    metadata = events.SummaryMetadata(SESSION_START_INFO_TAG)
    about = HParamsPluginData.FromString(metadata.plugin_data.content).session_start_info.hparams
    told = {name: value.string_value or value.number_value for name, value in about.items()}
    assert told == {"model": "mlp", "fast": "true", "seed": 3}
    assert [event.value for event in events.Scalars("test/accuracy")] == [0.75]
    with pytest.raises(KeyError):  # TensorBoard would take one run's for all
        events.SummaryMetadata(EXPERIMENT_TAG)
