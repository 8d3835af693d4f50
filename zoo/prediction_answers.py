"""Classes, probabilities and numbers for a person's examples, and what follows on a person's series: rows of a table.

Shapes: B examples, K classes or numbers, T steps, F columns.
"""

from pathlib import Path
from typing import Any

import torch

from zoo.data.series import check_order, known
from zoo.errors import ZooError
from zoo.prediction_files import Table, shown, unused
from zoo.prediction_inputs import Described, Inputs, read_rows, require_columns
from zoo.tasks.classification import Classification


@torch.no_grad()
def answers_of(task: Any, described: Described, inputs: Inputs) -> Table:
    """A row for each example: what the reader says of it, then the class and all probabilities, or the number.

    Of an example in several pieces the probabilities are the mean over them, each weighing as it is long.
    """
    classifies = isinstance(task, Classification)
    outputs, owners, weights = [], [], []
    for batch in inputs:
        owners.append(batch["position"])
        weights.append(batch.get("length", torch.ones_like(batch["position"])))
        output = task.network(*task.inputs({name: value.to(task.device) for name, value in batch.items()})).float()
        outputs.append((output.softmax(1) if classifies else output).double().cpu())
    if not outputs:
        return inputs.head, []
    weight = torch.cat(weights).double()[:, None]
    summed = torch.zeros(len(inputs.rows), outputs[0].shape[1] + 1, dtype=torch.float64)
    summed.index_add_(0, torch.cat(owners), torch.cat([torch.cat(outputs) * weight, weight], 1))
    values = summed[:, :-1] / summed[:, -1:]
    if not values.isfinite().all():
        raise ZooError("The network's answers are no numbers (NaN): it has diverged.")
    if classifies:
        names = described["class_names"]
        head = ["predicted", "probability", *(f"p_{name}" for name in names)]
        best = values.argmax(1).tolist()
        rows = [[names[k], shown(row[k]), *map(shown, row)] for k, row in zip(best, values.tolist(), strict=True)]
    else:
        facts = described["preprocessing"]
        values = values * (facts.get("target_std") or 1.0) + (facts.get("target_mean") or 0.0)
        count = values.shape[1]
        head = ["predicted"] if count == 1 else [f"predicted_{k}" for k in range(count)]
        rows = [[f"{value:.8g}" for value in row] for row in values.tolist()]
    return [*inputs.head, *unused(head, inputs.head)], [
        [*before, *row] for before, row in zip(inputs.rows, rows, strict=True)
    ]


@torch.no_grad()
def forecast(
    task: Any, described: Described, source: Path, *, separator: str | None, encoding: str | None
) -> tuple[list[str], list[list[str]], list[str]]:
    """The `horizon` values behind the last row of a series: head and rows of a table, and what to tell.

    Only the last rows are looked at, as many as the network reads.
    """
    facts, data = described["preprocessing"], described["config"]["data"]
    names, window = facts.get("feature_names") or data["feature_names"], facts["sequence_length"]
    table = read_rows(source, described, separator=separator, encoding=encoding)
    require_columns(names, table, source)
    if (count := len(table.lines)) < window:
        raise ZooError(f"input={source}: has {count} rows, and this network forecasts from the last {window}.")
    table = table.pick(range(count - window, count))
    behind = f"line {table.lines[-1]}"
    if (time := data.get("time")) in table.cells:
        check_order(table.cells[time], table.lines, f"{source} column {time!r}")
        behind = f"{time} {table.cells[time][-1]}"
    columns = [known(table.cells[name], table.lines, f"{source} column {name!r}") for name in names]
    mean, std = (torch.tensor(facts[name], dtype=torch.float64) for name in ("mean", "std"))
    past = ((torch.tensor(columns, dtype=torch.float64).T - mean) / std).float()
    values = task.network(past[None].to(task.device))[0].double().cpu() * facts["target_std"] + facts["target_mean"]
    if not values.isfinite().all():
        raise ZooError("The forecast is no number: the network has diverged, or the last rows are far too large.")
    rows = [[str(step), f"{value:.8g}"] for step, value in enumerate(values.tolist(), 1)]
    said = [f"after {behind}: " + ", ".join(f"{value:.6g}" for value in values[:5].tolist()) + " …" * (len(rows) > 5)]
    return ["step", *unused([names[0]], ["step"])], rows, said
