"""What kind of data a set holds, and which tasks and models take it: for sentences about what does not go together.

A kind is told by the facts that a data config states; one that states none of these, a person's own, is never refused.
What a model of ours takes is known from its own data set and task (zoo/listing.json). Imports no torch.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.layout import options, read_option

TABLE = Path(__file__).with_name("listing.json")
_ONE_ANSWER = ("classification", "regression", "forecasting")  # the networks of one serve the others
_MAKING = ("reconstruction", "vae", "gan", "diffusion")  # of pictures, whether or not they have classes
# The first of these facts that data have tells their kind; with it, the tasks that take them.
_KINDS = {
    "num_source_tokens": ("pairs", ("seq2seq",)),
    "ignore_index": ("masks", ("segmentation",)),
    "horizon": ("series", ("forecasting", "regression")),
    "vocabulary": ("text", ("language_model",)),
    "sequence_length": ("sequences", ("classification", "regression")),
    "channels": ("pictures", ("classification", "regression", *_MAKING)),
    "num_features": ("tables", ("classification", "regression")),
}
_READ_TABLES = ("mlp", "softmax_regression")  # though their own data are pictures


def _kind(data: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The kind of data that a config or facts describe, and the tasks that take it; neither where they do not say."""
    has_classes = bool(data.get("class_names"))
    for fact, (kind, tasks) in _KINDS.items():
        if fact in data and not (fact == "vocabulary" and has_classes):  # languages: texts that have a class
            if "classification" in tasks and (has_classes or data.get("num_classes") == 1):
                answer = "classification" if has_classes else "regression"
                return kind, (answer, *(task for task in tasks if task in _MAKING))
            return kind, tasks
    return "", ()


@cache
def _models() -> dict[str, dict[str, Any]]:
    return json.loads(TABLE.read_text(encoding="utf-8"))


def _own_kind(model: str) -> str:
    """The kind of a model's own data set."""
    own = _models().get(model, {}).get("data")
    return _kind(read_option("data", own).tree)[0] if own in options()["data"] else ""


def is_foreign(model: str, data: Mapping[str, Any]) -> bool:
    """Whether data are of another kind than those that a model of ours was made for."""
    own, kind = _own_kind(model), _kind(data)[0]
    return bool(own and kind) and own != kind


def readers(data: Mapping[str, Any], name: str = "") -> str:
    """A line that names models for such data, those of the data set `name` first; empty where none is known."""
    kind = _kind(data)[0]
    names = [model for model in _models() if kind and _own_kind(model) == kind]
    names.sort(key=lambda model: (_models()[model]["task"] in _MAKING, _models()[model]["data"] != name))
    if kind == "tables":
        names = [*_READ_TABLES]
    return f"\nFor such data there is model={', '.join(names[:6])}{', …' if len(names) > 6 else ''}." if names else ""


def check_task(choices: Mapping[str, str], data: Mapping[str, Any]) -> None:
    """Refuse a task that the network or the data is not made for; `data` is the config of the chosen data set."""
    model, task, name = (choices.get(group, "") for group in ("model", "task", "data"))
    own = _models().get(model, {}).get("task", task)
    takes = _kind(data)[1] or (task,)
    advice = readers(data, name)
    if task != own and not {task, own} <= {*_ONE_ANSWER}:
        mend = " Leave the task out." if own in takes else advice
        raise ZooError(f"task={task}: model={model} is for task={own}.{mend}")
    if task in takes or not any(
        task in tasks for _, tasks in _KINDS.values()
    ):  # a person's own task takes what it takes
        return
    if own in _ONE_ANSWER:
        takes = tuple(t for t in takes if t in _ONE_ANSWER) or takes
    right = " or ".join(takes)
    if not is_foreign(model, data) and {task, *takes} <= {*_ONE_ANSWER}:
        raise ZooError(f"data={name} is for task={right}, and this is task={task}: choose task={right}.")
    if task != own:
        raise ZooError(f"task={task}: data={name} is for task={right}.{advice}")
    mend = f" For such a model there is data={_models()[model]['data']}." if model in _models() else ""
    raise ZooError(f"data={name} is for task={right}, and model={model} for task={task}.{advice}{mend}")
