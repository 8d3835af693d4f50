"""The loggers of a run, and the winding back that lets every step stand once in them after a restart."""

import csv
import os
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning.loggers import Logger, TensorBoardLogger

from zoo.errors import ZooError
from zoo.processes import is_first_process
from zoo.signatures import class_value

METRICS = "metrics.csv"
HEADER = ["step", "epoch", "name", "value"]


class MetricsCSV(Logger):
    """`metrics.csv`, append-only: one line a number, flushed as it is written."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / METRICS if is_first_process() else Path(os.devnull)
        self.open()

    def open(self) -> None:
        is_new = not self.path.exists() or self.path.stat().st_size == 0
        self.file = self.path.open("a", newline="", encoding="utf-8")
        self.writer = csv.writer(self.file, lineterminator="\n")
        if is_new:
            self.writer.writerow(HEADER)
            self.file.flush()

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: config.yaml holds them."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if not self.path.exists():  # removed while the run goes on
            if not self.path.parent.is_dir():
                raise ZooError(
                    f"{self.path.parent} is gone: it was moved or removed while the run trained in it.\n"
                    "Training was stopped. Where it lies now, it can be continued with resume=…"
                )
            print(f"{self.path} is gone, and the steps in it: a new one begins.")
            self.file.close()
            self.open()
        epoch = int(metrics.get("epoch", 0))
        self.writer.writerows([step, epoch, name, repr(value)] for name, value in metrics.items() if name != "epoch")
        self.file.flush()

    def close(self) -> None:
        self.file.close()


class TensorBoard(TensorBoardLogger):
    """TensorBoard events directly in the run folder, arranged for a person who looks at them.

    TensorBoard makes a section of all names with the same beginning, in the order of the alphabet, and opens the first
    two. `lr` and `grad_norm` therefore stand under `train/`, the epoch, a straight line, is left out, and pictures are
    called `visual/…`: while a run trains, its curves come first. Its tab of custom scalars has each number of training
    and validation in one chart.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(save_dir=folder, name="", version="", default_hp_metric=False)
        self.of_training: list[str] = []  # names without `train/`
        events = folder.glob("events.out.tfevents.*")  # of a run that is continued
        self.laid_out = any(b"custom_scalars" in file.read_bytes() for file in events)

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        named = {name if "/" in name else f"train/{name}": value for name, value in metrics.items() if name != "epoch"}
        super().log_metrics(named, step)
        if "val/loss" in named and not self.laid_out:
            both = [name for name in self.of_training if f"val/{name}" in named]
            charts = {name: ["Multiline", [f"^train/{name}$", f"^val/{name}$"]] for name in both}
            if charts:
                self.laid_out = True
                self.experiment.add_custom_scalars({"training and validation": charts})
        elif not self.laid_out:
            self.of_training = [name.removeprefix("train/") for name in named if name.startswith("train/")]

    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:
        """A line of TensorBoard's table of runs: what was chosen, and of the scores the loss and the task's own.

        A score of the end is a chart of one dot, and the section `test` is the first: more of them would hide the
        curves. All scores stand in scores.json. Without the description of an experiment, of which TensorBoard would
        read one run's for all, it shows the keys of all runs, those that differ first.
        """
        from torch.utils.tensorboard.summary import hparams

        shown = ("loss", self.judged_by())
        metrics = {name: value for name, value in metrics.items() if name.partition("/")[2] in shown}
        self.log_metrics(metrics, step)
        words = {name: str(value).lower() if isinstance(value, bool) else value for name, value in params.items()}
        writer = self.experiment._get_file_writer()
        for summary in hparams(words, metrics)[1:]:
            writer.add_summary(summary, step)

    def judged_by(self) -> str:
        """What the run's task watches on validation, without `val/`."""
        try:
            config = yaml.safe_load((Path(self.save_dir) / "config.yaml").read_text(encoding="utf-8"))
            return str(class_value(config["task"]["_target_"], "monitor")).removeprefix("val/")
        except (OSError, yaml.YAMLError, KeyError, TypeError):  # moved away while the run went on
            return ""

    def save(self) -> None:
        self.experiment.flush()

    def finalize(self, status: str) -> None:
        """Lightning finalises after `fit`; the final scores are still to come, so only flush."""
        self.save()

    def close(self) -> None:
        self.experiment.close()


def log_files(folder: Path) -> list[Path]:
    return [path for path in [folder / METRICS, *sorted(folder.glob("events.out.tfevents.*"))] if path.exists()]


def log_sizes(folder: Path) -> dict[str, int]:
    """The length in bytes of every log now; a checkpoint stores it."""
    return {path.name: path.stat().st_size for path in log_files(folder)}


def rewind_logs(folder: Path, sizes: dict[str, int]) -> None:
    """Cut every log back to its stored length, and remove those that did not exist then.

    A metrics.csv that has lost what it had then is cut to its last whole line.
    """
    for path in log_files(folder):
        if path.name not in sizes:
            path.unlink()
        elif sizes[path.name] < path.stat().st_size:
            os.truncate(path, sizes[path.name])
    metrics = folder / METRICS
    whole = metrics.read_bytes().rfind(b"\n") + 1 if metrics.exists() else 0
    if whole < sizes.get(METRICS, 0):
        print(f"{metrics} has lost lines since the checkpoint was written: the steps in them are missing from now on.")
        if metrics.exists():
            os.truncate(metrics, whole)
