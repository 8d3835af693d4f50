"""`zoo inspect`: look inside a trained or a fresh network.

zoo inspect ckpt_path=runs/lenet5-digits/2026-01-31_12-00-00 [data.key=…]
zoo inspect model=resnet18 data=earth model.width=0.25              anything that train takes; nothing is trained

Keys: out (folder; default: inspect/ in the run folder, runs/inspect/<model>-<data> for a fresh network), split (test),
n (16 images for Grad-CAM), layer (for Grad-CAM; default: the last one whose output is a map), seed (0, of the choice of
examples), trust (false). Written are filters.png, statistics.csv and .png, receptive_field.csv, grad_cam.png.
"""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zoo.build import build, refuse_untrusted
from zoo.checkpoint import find_checkpoint, folder_of, read_checkpoint
from zoo.checks import check, check_saved, known_keys, name_of
from zoo.conditions import check_facts, check_known, check_ranges, check_reads
from zoo.errors import ZooError
from zoo.evaluation import load_weights, refuse_other_shapes, with_other_data
from zoo.grad_cam import default_layer, grad_cam
from zoo.inspection_pictures import grad_cam_grid, statistics_curves
from zoo.keys import MOST, Key, read, whole
from zoo.layer_calls import maps
from zoo.layer_statistics import COLUMNS, layer_statistics
from zoo.listing import columns
from zoo.network import construct, initialise, needs_inputs
from zoo.pictures import filters, first_filters
from zoo.randomness import key, permutation
from zoo.receptive_field import COLUMNS as FIELD_COLUMNS
from zoo.receptive_field import Row, receptive_fields
from zoo.report import quieten_lightning, to_plain
from zoo.run import class_weights, fill_facts, first_inputs, make_task
from zoo.suggest import nearest
from zoo.tasks.base import Task
from zoo.tasks.classification import Classification
from zoo.transfer import prepare_inputs, put_weights, read_weights

KEYS = {"ckpt_path": "", "out": "", "split": "test", "n": "16", "layer": "", "seed": "0", "trust": "false"}


class Subject(NamedTuple):
    network: nn.Module
    config: dict[str, Any]
    choices: dict[str, str]
    data: Any
    folder: Path  # where to write, unless out= says otherwise
    is_untrained: bool


def main(args: Sequence[str]) -> int:
    """Inspect one network, write what was seen, and print the receptive fields and the names of the files."""
    quieten_lightning()
    own, rest = parse(args)
    subject = trained(own, rest) if own["ckpt_path"] else fresh(rest)
    network, config, choices, data, *_ = subject
    if own["split"] not in data.splits:
        raise ZooError(f"split={own['split']}: this data has {', '.join(data.splits)}")
    balancing = config["task"].get("class_weights")
    if isinstance(balancing, str):
        config = {**config, "task": {**config["task"], "class_weights": class_weights(balancing, data)}}
    task = make_task(config, network, data)
    check_reads(task, data, choices, own["split"])
    folder = Path(own["out"]) if own["out"] else subject.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ZooError(f"{folder}: is a file or below one; name a folder with out=…") from None
    options: Any = {"split": own["split"], "count": int(own["n"]), "layer": own["layer"], "seed": own["seed"]}
    for line in inspect(task, data, folder, is_untrained=subject.is_untrained, **options):
        print(line, flush=True)
    return 0


def parse(args: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The verb's own keys, and the words that belong to the config of the network and its data."""
    own, rest = dict(KEYS), []
    for word in args:
        name, _, value = word.partition("=")
        if name not in KEYS:
            rest.append(word)
        elif value:
            own[name] = value
        else:
            raise ZooError(f"{word}: give {name} a value, or leave it out.")
    for word in rest:
        name = name_of(word)
        if "=" not in word and Path(word).exists():
            raise ZooError(f"{word}: write key=value. Did you mean ckpt_path={word}?")
        if own["ckpt_path"] and name.partition(".")[0] != "data":
            near = nearest(name, [*KEYS, "data"])
            hint = f" Did you mean {near}?" if near else ""
            raise ZooError(f"{word}: beside ckpt_path may stand {', '.join([*list(KEYS)[1:], 'data'])}.{hint}")
        if name in ("resume", "run_dir"):
            raise ZooError(f"{word}: nothing is trained here; out=… names the folder to write to.")
        if "." not in name and name not in known_keys() and (near := nearest(name, list(KEYS))):
            raise ZooError(f"{word}: there is no key {name}. Did you mean {near}?")
    if not own["ckpt_path"] and not rest:
        raise ZooError("Which network? zoo inspect ckpt_path=<run folder or file>, or zoo inspect model=<name>.")
    read([f"n={own['n']}", f"seed={own['seed']}"], {"n": Key(whole(1, MOST), 0), "seed": Key(whole(0), 0)})
    if own["trust"] not in ("true", "false"):
        raise ZooError(f"trust={own['trust']}: must be true or false.")
    return own, rest if own["ckpt_path"] else [*rest, *(word for word in args if word.startswith("seed="))]


def trained(own: dict[str, str], changes: Sequence[str]) -> Subject:
    """The evaluated network of a run folder or a checkpoint file, with its data or other data."""
    path = find_checkpoint(Path(own["ckpt_path"]))
    checkpoint = read_checkpoint(path)
    config = checkpoint["zoo"]["config"]
    if own["trust"] != "true":
        refuse_untrusted(config, str(path))
    folder = folder_of(path)
    choices = checkpoint["zoo"]["choices"]
    if changes:
        stored = folder / "config.yaml"
        check_saved(stored if stored.is_file() else None, changes, groups=("data",), nodes=("data",))
        config, choices = with_other_data(checkpoint["zoo"], changes)
    network = construct(config)
    load_weights(network, checkpoint["state_dict"], path)
    data = build(config["data"], "data")()
    data.setup("test")
    refuse_other_shapes(checkpoint["zoo"]["config"]["data"], data.facts)
    return Subject(network.eval(), config, choices, data, folder / "inspect", False)


def fresh(overrides: Sequence[str]) -> Subject:
    """The network that `train` would start from with these words, initialised or with model.weights."""
    cfg, choices = check(overrides)
    weights = None
    if cfg.model.weights is not None:
        weights = read_weights(cfg.model.weights, choices["model"])
        prepare_inputs(cfg.data, weights)
    data = build(to_plain(cfg.data), "data")()
    data.setup("fit")
    fill_facts(cfg, data)
    check_known(cfg, choices)
    config = to_plain(cfg)
    check_ranges(config)
    check_facts(config, data)
    network = construct(config)
    initialise(network, config, *(first_inputs(config, network, data) if needs_inputs(config) else ()))
    if weights is not None:
        put_weights(network, weights, class_names=data.facts.get("class_names") or ())
    folder = Path("runs/inspect") / f"{choices['model']}-{choices['data']}".replace("/", "-")
    return Subject(network.eval(), config, choices, data, folder, weights is None)


def inspect(
    task: Task, data: Any, folder: Path, *, is_untrained: bool, split: str, count: int, layer: str, seed: str
) -> Iterable[str]:
    """Write the files, and yield what to print."""
    network, facts = task.network, data.facts
    pixels = (facts.get("image_size") or 1) ** 2
    order = permutation(key(int(seed), "inspect"), data.size(split))
    batch = examples(data, split, order[: max(2, min(64, 2**20 // pixels))])  # 64, or fewer large images
    input = batch["input"]
    inputs = task.inputs(batch)
    sees_pictures = len(inputs) == 1 and inputs[0].ndim == 4  # and no noise, time or class beside them
    sizes = maps(network, input[:1]) if sees_pictures else {}
    if layer and layer not in sizes:
        near = nearest(layer, list(sizes))
        hint = f" Did you mean {near}?" if near else ""
        raise ZooError(f"layer={layer}: no layer of this name gives maps.{hint}\nThere is: {listed(sizes)}.")
    weight = first_filters(network, facts)
    if weight is None:
        yield "filters.png is left out: the weights of the first layer are no pictures."
    else:
        filters(weight).savefig(folder / "filters.png")
        yield f"wrote {folder / 'filters.png'}"

    if is_untrained:
        take_statistics(network, inputs)
    rows = layer_statistics(network, lambda: task.loss(network, batch)[0])
    cells = [[f"{row[name]:.6g}" if isinstance(row[name], float) else row[name] for name in COLUMNS] for row in rows]
    write_csv(folder / "statistics.csv", COLUMNS, cells)
    statistics_curves(rows, examples=len(input)).savefig(folder / "statistics.png")
    layers = f"{len(rows)} layer{'s' if len(rows) > 1 else ''}"
    yield f"wrote {folder / 'statistics.csv'} and statistics.png: {layers}, {len(input)} examples of {split}"

    fields = receptive_fields(network, input[:1]) if sees_pictures else []
    if fields:
        write_csv(folder / "receptive_field.csv", FIELD_COLUMNS, [row.cells() for row in fields])
        yield columns(FIELD_COLUMNS, [row.cells() for row in changes(fields)], None)
        yield f"wrote {folder / 'receptive_field.csv'}; above, the layers that change what a unit sees"
    else:
        why = (
            "no layer's output is a map."
            if sees_pictures or input.ndim != 4
            else "noise goes in beside or for a picture."
        )
        yield f"receptive_field.csv is left out: {why}"

    chosen = layer or default_layer(sizes)
    if chosen is None or not isinstance(task, Classification):
        no_maps = chosen is None and isinstance(task, Classification)
        why = "no layer gives maps." if no_maps else "this task does not name one class for each picture."
        yield f"grad_cam.png is left out: {why}"
    else:
        shown = examples(data, split, order[:count])
        map, logits = grad_cam(network, shown["input"], layer=chosen)
        grad_cam_grid(map, logits, shown, facts, layer=chosen).savefig(folder / "grad_cam.png")
        yield f"wrote {folder / 'grad_cam.png'}: layer {chosen}, {'×'.join(str(n) for n in map.shape[1:])}"


def examples(data: Any, split: str, indices: Tensor) -> dict[str, Tensor]:
    """Examples of a split as evaluation sees them, not augmented."""
    return data.loader(split).split.batch(0, indices, indices)


def take_statistics(network: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Give batch norms the means and variances of this batch: those of an untrained network are still 0 and 1."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.train().momentum = 1.0
    with torch.no_grad():
        network(*inputs)
    network.eval()


def listed(names: Iterable[str]) -> str:
    text = ", ".join(names) or "none"
    return text if len(text) <= 400 else text[:400].rpartition(",")[0] + ", …"


def changes(rows: Sequence[Row]) -> list[Row]:
    """The rows that differ from the one before in the map or what is seen."""
    return [row for before, row in zip([None, *rows], rows, strict=False) if not before or row[2:] != before[2:]]


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *rows])
