"""`zoo judge`: how good is what a generator makes? A classifier of this zoo looks at its samples and at real pictures.

zoo train model=lenet5 data=digits                          the classifier: 84 features of digits, in a minute
zoo judge ckpt_path=runs/diffusion-digits/2026-01-31_12-00-00 features=runs/lenet5-digits/2026-01-31_11-00-00 seeds=3

Keys: features (a classifier's run on pictures of the same size, whose last layer's input they are; or inception:
torchvision's Inception v3, if its weights can be had), n (2000 samples), seed (0), seeds (1: how many sets of samples;
with more, mean ± standard deviation), split (test; the real pictures), baselines (true: the same numbers of noise, of
Gaussians and of training pictures), out (folder; default: the run folder), trust (false). For a diffusion model also
steps, sampler, guidance and eta. Written are judgement.json and nearest_neighbours.png.

Distances are of the features, which they depend on: the numbers of one classifier compare with each other only, and
none is the FID of the literature. Lower is better; `training` among the baselines, real pictures, is the bound.
"""

import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import make_grid

from zoo.baselines import make_baselines
from zoo.build import task_class
from zoo.checkpoint import find_checkpoint, folder_of, read_checkpoint
from zoo.errors import ZooError
from zoo.extractors import Seen, look, read_extractor
from zoo.frechet import (
    class_balance,
    frechet_of_features,
    inception_style_score,
    kernel_distance,
    nearest_neighbours,
)
from zoo.generators import SAMPLING, real_pictures, samples, trained
from zoo.keys import MOST, Key, defaults, read, real, truth, whole
from zoo.pictures import new_figure, show
from zoo.report import quieten_lightning, versions, write_whole
from zoo.tasks.generative import Generative

KEYS = {
    "ckpt_path": Key(),
    "features": Key(),
    "n": Key(whole(2, MOST), 2000),
    "seed": Key(whole(0), 0),
    "seeds": Key(whole(1, 100), 1),
    "split": Key(default="test"),
    "steps": Key(whole(2)),
    "sampler": Key(),
    "guidance": Key(real),
    "eta": Key(real),
    "baselines": Key(truth, True),
    "out": Key(),
    "trust": Key(truth, False),
}
SHOWN = 10  # pictures in a row of nearest_neighbours.png


def main(args: Sequence[str]) -> int:
    """Judge one generator, write what was found, and print it."""
    quieten_lightning()
    own = parse(args)
    sampling = {name: own[name] for name in SAMPLING if own[name] is not None}
    folder = Path(own["out"]) if own["out"] else run_folder(own["ckpt_path"])
    options = {name: own[name] for name in ("n", "seed", "seeds", "split", "baselines", "trust")}
    record = judgement(own["ckpt_path"], own["features"], out=folder, sampling=sampling, **options)
    for line in lines(record):
        print(line)
    print(f"wrote {folder / 'judgement.json'} and nearest_neighbours.png")
    return 0


def judge(
    run: str | Path,
    classifier: str | Path,
    *,
    n: int = 2000,
    seeds: int = 3,
    sampling: Mapping[str, Any] | None = None,
    out: Path | None = None,
) -> dict[str, float]:
    """`zoo judge` of two run folders; what came out, by flat names.

    `judged/frechet_distance` and with several seeds `judged/frechet_distance_std`; of a baseline
    `judged/pca_gaussian/frechet_distance`. The files are written into the generator's folder, or to `out`.
    """
    folder = out or run_folder(run)
    record = judgement(str(run), str(classifier), n=n, seeds=seeds, sampling=sampling, out=folder)
    flat: dict[str, float] = {}
    for part, measured in (("", record["samples"]), *((f"{name}/", m) for name, m in record["baselines"].items())):
        for name, value in measured.items():
            flat[f"judged/{part}{name}"] = value["mean"]
            if "std" in value:
                flat[f"judged/{part}{name}_std"] = value["std"]
    if record["class_balance"]:
        flat["judged/missing_classes"] = float(len(record["missing_classes"]))
    return flat | {"judged/nearest_distance_of_held_out": record["nearest_distance_of_held_out"]}


def parse(args: Sequence[str]) -> dict[str, Any]:
    """All keys with their values."""
    own = {**defaults(KEYS), **read(args, KEYS)}
    if own["ckpt_path"] is None:
        raise ZooError(
            "Which generator? zoo judge ckpt_path=<run folder or checkpoint file> features=<classifier's run>"
        )
    if own["features"] is None:
        raise ZooError(
            "Seen by which classifier? features=<run folder>, trained on the generator's data, such as that of "
            "python train.py model=lenet5 data=digits; or features=inception."
        )
    return own


def run_folder(run: str | Path) -> Path:
    """The run that a folder or a checkpoint file in it stands for."""
    path = Path(run)
    return folder_of(path) if path.suffix == ".ckpt" else path


def read_generator(run: str, sampling: Mapping[str, Any], *, trust: bool = False) -> tuple[Any, Any]:
    """The task of a run that makes pictures, with `sampling` in place of its own values, and its data."""
    path = find_checkpoint(Path(run))
    checkpoint = read_checkpoint(path)
    config = checkpoint["zoo"]["config"]
    kind = task_class(config, str(path), trust=trust)
    if not issubclass(kind, Generative) or kind.sample is Generative.sample:
        raise ZooError(
            f"{path} makes no pictures: its task is {kind.__name__}. zoo judge takes generators, such as model=vae, "
            "model=gan and model=diffusion."
        )
    for name, value in sampling.items():
        if name not in config["task"]:
            raise ZooError(f"{name}={value}: this network is of task {kind.__name__}, which takes no {name}.")
    return trained(checkpoint, path, sampling)


# Judging --------------------------------------------------------------------------------------------------------------


def judgement(
    run: str,
    features: str,
    *,
    out: Path,
    n: int = 2000,
    seed: int = 0,
    seeds: int = 1,
    split: str = "test",
    sampling: Mapping[str, Any] | None = None,
    baselines: bool = True,
    trust: bool = False,
) -> dict[str, Any]:
    """What judgement.json holds, which is written to the folder `out` together with the picture."""
    task, data = read_generator(run, sampling or {}, trust=trust)
    device = task.device
    if split not in data.splits or split == "train":
        there = " or ".join(name for name in data.splits if name != "train")
        raise ZooError(f"split={split}: must be {there}: pictures that the generator has not learnt from.")
    extractor = read_extractor(features, task.shape, device, trust=trust)
    if (names := data.facts.get("class_names")) and list(names) != list(extractor.class_names):
        extractor = extractor._replace(class_names=())  # what it says of other classes means nothing
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ZooError(f"{out}: is a file or below one; name a folder with out=…") from None
    real, training = real_pictures(data, split), real_pictures(data, "train")
    seen_real = look(extractor, real, device)
    width = seen_real.features.shape[1]
    warn_of_few(min(n, len(real)), width)
    if baselines and n > len(training):
        print(f"note: the baseline `training` is of all {len(training):,} training pictures: there are no {n:,}.")
    rows: dict[str, list[dict[str, float]]] = {"samples": []}
    numbers, predictions = torch.arange(n), []
    for current in range(seed, seed + seeds):
        start = time.perf_counter()
        made = samples(task, numbers, current)
        seconds = time.perf_counter() - start
        print(f"seed {current}: {n:,} samples in {seconds:.1f} s", flush=True)
        seen = look(extractor, made, device)
        predictions.append(seen.probabilities.argmax(1))
        distances, where = nearest_training(made, training)
        found = measure(seen, seen_real, extractor.class_names)
        if extractor.class_names and (asked := task.classes(numbers)) is not None:
            found["class_as_asked"] = share(predictions[-1] == asked)
        found |= {"seconds": seconds}
        found |= {"nearest_distance": distances.median().item(), "closest_distance": distances.min().item()}
        rows["samples"].append(found)
        if current == seed:
            neighbours(made, training, distances, where).savefig(out / "nearest_neighbours.png")
        for name, pictures in make_baselines(training, n, current) if baselines else ():
            found = measure(look(extractor, pictures, device), seen_real, extractor.class_names)
            rows.setdefault(name, []).append(found)
    balance: dict[str, float] = {}
    if extractor.class_names:
        shares = class_balance(torch.cat(predictions), len(extractor.class_names))
        balance = dict(zip(extractor.class_names, shares.tolist(), strict=True))
    summaries = {name: summary(found) for name, found in rows.items()}
    record = {
        "generator": {
            "run": run,
            "task": type(task).__name__,
            "sampling": {name: getattr(task, name) for name in SAMPLING if hasattr(task, name)},
        },
        "features": extractor.name,
        "feature_count": width,
        "split": split,
        "real_pictures": len(real),
        "n": n,
        "seeds": list(range(seed, seed + seeds)),
        "samples": summaries.pop("samples"),
        "class_balance": balance,  # of all samples; 1 is an even share; empty where the classifier has other classes
        "missing_classes": [name for name, found in balance.items() if found == 0],
        "nearest_distance_of_held_out": nearest_training(real, training)[0].median().item(),
        "baselines": summaries,
        "versions": versions(),
    }
    write_whole(out / "judgement.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return record


def warn_of_few(pictures: int, features: int) -> None:
    if pictures <= features:
        print(
            f"warning: {pictures:,} pictures are few for the covariance of {features:,} features: frechet_distance "
            "comes out too large, and compares only with those of as many. kernel_distance is not biased."
        )


def measure(seen: Seen, real: Seen, class_names: Sequence[str]) -> dict[str, float]:
    """The numbers of one set of pictures beside the real ones; those of classes where the classifier's have a name."""
    kernel, _ = kernel_distance(seen.features, real.features, subsets=20)
    found = {
        "frechet_distance": frechet_of_features(seen.features, real.features).item(),
        "kernel_distance": kernel.item(),
        "score": inception_style_score(seen.probabilities)[0].item(),
    }
    if class_names:
        confidence, predictions = seen.probabilities.max(1)
        balance = class_balance(predictions, seen.probabilities.shape[1])
        found |= {"mean_confidence": confidence.mean().item(), "confident_share": share(confidence >= 0.9)}
        found |= {"smallest_class": balance.min().item(), "largest_class": balance.max().item()}
    return found


def summary(rows: Sequence[dict[str, float]]) -> dict[str, dict[str, Any]]:
    """Mean, standard deviation and values over the seeds."""
    found: dict[str, dict[str, Any]] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        spread = {"std": statistics.stdev(values)} if len(values) > 1 else {}
        found[name] = {"mean": statistics.fmean(values), **spread, "values": values}
    return found


def lines(record: dict[str, Any]) -> Iterator[str]:
    """The record as plain lines."""
    yield f"features: {record['features']}, {record['feature_count']:,} numbers a picture"
    settings = "".join(f", {name} {value}" for name, value in record["generator"]["sampling"].items())
    beside = f"{record['real_pictures']:,} pictures of {record['split']}"
    yield f"{record['n']:,} samples of each seed against {beside}{settings}"
    for name, value in record["samples"].items():
        yield f"{name} {_with_spread(value)}"
    if record["class_balance"]:
        yield f"missing_classes {', '.join(record['missing_classes']) or 'none'}"
    yield f"nearest_distance of held-out pictures {record['nearest_distance_of_held_out']:.4g}"
    for name, measured in record["baselines"].items():
        yield f"{name}: " + ", ".join(f"{n} {_with_spread(measured[n])}" for n in list(measured)[:3])


def _with_spread(value: dict[str, Any]) -> str:
    return f"{value['mean']:.4g}" + (f" ± {value['std']:.2g}" if "std" in value else "")


def share(which: Tensor) -> float:
    return which.double().mean().item()


# Pictures, uint8 (N, C, H, W) -----------------------------------------------------------------------------------------


def nearest_training(pictures: Tensor, training: Tensor) -> tuple[Tensor, Tensor]:
    """How far the nearest training picture is, (N,), over pixels from 0 to 1, and which one it is, (N,)."""
    distances, where = nearest_neighbours(pictures, training)
    return distances / 255, where


def neighbours(made: Tensor, training: Tensor, distances: Tensor, where: Tensor) -> Figure:
    """The first samples over their nearest training pictures, and below those samples that are nearest to one."""
    count, size = min(SHOWN, len(made)), made.shape[-1]
    figure = new_figure(0.9 * count + 1.2, 4.6, "Samples over their nearest training pictures, and how far those are")
    chosen = {"samples": torch.arange(count), "closest": distances.argsort()[:count]}
    middles = [2 + size / 2 + (size + 2) * place for place in range(max(2, count))]
    for axes, (name, numbers) in zip(figure.subplots(2, 1), chosen.items(), strict=True):
        show(axes, make_grid(torch.cat([made[numbers], training[where[numbers]]]) / 255, nrow=count, pad_value=1))
        axes.set_xticks(middles[:count], [f"{distance:.2f}" for distance in distances[numbers]], fontsize=8)
        axes.set_yticks(middles[:2], [name, "training"], fontsize=8)
        axes.tick_params(length=0)
    return figure
