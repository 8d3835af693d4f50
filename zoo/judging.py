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

import hashlib
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from hydra.utils import get_class
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchvision.utils import make_grid

from zoo.build import build, refuse_untrusted
from zoo.checkpoint import find_checkpoint, read_checkpoint
from zoo.errors import ZooError
from zoo.evaluation import load_weights
from zoo.frechet import (
    class_balance,
    frechet_of_features,
    inception_style_score,
    kernel_distance,
    nearest_neighbours,
)
from zoo.models.inception_v3 import InceptionV3
from zoo.network import construct
from zoo.pictures import new_figure, show
from zoo.randomness import key, normal, permutation, uniform
from zoo.report import quieten_lightning, versions, write_whole
from zoo.run import make_task
from zoo.suggest import nearest
from zoo.tasks.classification import Classification
from zoo.tasks.generative import Generative, pixels
from zoo.transfer import heads, put_weights, read_weights

KEYS: dict[str, Any] = {"ckpt_path": None, "features": None, "n": 2000, "seed": 0, "seeds": 1, "split": "test"}
KEYS |= {"steps": None, "sampler": None, "guidance": None, "eta": None, "baselines": True, "out": None, "trust": False}
LEAST = {"n": 2, "seed": 0, "seeds": 1, "steps": 2}  # the whole numbers
MOST = {"n": 1_000_000, "seeds": 100}
SAMPLING = ("steps", "sampler", "guidance", "eta")  # keys of a task that make other pictures of the same network
BATCH = 250  # pictures at a time
FITTED = 5000  # training pictures that the baselines are made of, at most
SHOWN = 10  # pictures in a row of nearest_neighbours.png


class Extractor(NamedTuple):
    """A classifier whose penultimate features are looked at, and what it takes."""

    name: str
    network: nn.Module
    head: str  # the layer whose input the features are
    shape: tuple[int, int]  # channels and size of its pictures
    mean: Sequence[float]
    std: Sequence[float]
    class_names: Sequence[str]


class Seen(NamedTuple):
    features: Tensor  # (N, D)
    probabilities: Tensor  # (N, K)


def main(args: Sequence[str]) -> int:
    """Judge one generator, write what was found, and print it."""
    quieten_lightning()
    own = parse(args)
    sampling = {name: own[name] for name in SAMPLING if own[name] is not None}
    folder = Path(own["out"]) if own["out"] else run_folder(Path(own["ckpt_path"]))
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
    folder = out or run_folder(Path(run))
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
    own = dict(KEYS)
    for word in args:
        name, equals, value = word.partition("=")
        if not equals and Path(word).exists():
            raise ZooError(f"{word}: write key=value. Did you mean ckpt_path={word}?")
        if name not in KEYS:
            near = nearest(name, list(KEYS))
            hint = f"Did you mean {near}?" if near else f"There is {', '.join(KEYS)}."
            raise ZooError(f"{word}: there is no key {name}. {hint}")
        if not value:
            raise ZooError(f"{word}: write {name}=value, or leave it out.")
        if value == "null" and KEYS[name] is None:
            continue
        if name in LEAST:
            if not value.isdecimal() or int(value) < LEAST[name]:
                raise ZooError(f"{name}={value}: must be a whole number, at least {LEAST[name]}.")
            own[name] = int(value)
            if name in MOST and own[name] > MOST[name]:
                raise ZooError(f"{name}={value}: must be at most {MOST[name]}.")
        elif name in ("baselines", "trust"):
            if value not in ("true", "false"):
                raise ZooError(f"{name}={value}: must be true or false.")
            own[name] = value == "true"
        elif name in ("guidance", "eta"):
            try:
                own[name] = float(value)
            except ValueError:
                raise ZooError(f"{name}={value}: must be a number.") from None
        else:
            own[name] = value
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


def run_folder(path: Path) -> Path:
    """The run that a folder or a checkpoint file in it stands for."""
    if path.suffix != ".ckpt":
        return path
    return path.parent.parent if path.parent.name == "checkpoints" else path.parent


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
    task, data, device = read_generator(run, sampling or {}, trust=trust)
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
    width, fewest = seen_real.features.shape[1], min(n, len(real))
    if fewest <= width:
        print(
            f"warning: {fewest:,} pictures are few for the covariance of {width:,} features: frechet_distance comes "
            "out too large, and compares only with those of as many. kernel_distance is not biased."
        )
    settings = {name: getattr(task, name) for name in SAMPLING if hasattr(task, name)}
    rows: dict[str, list[dict[str, float]]] = {"samples": []}
    numbers, predictions = torch.arange(n), []
    for current in range(seed, seed + seeds):
        start = time.perf_counter()
        made = samples(task, numbers, current, device)
        seconds = time.perf_counter() - start
        print(f"seed {current}: {n:,} samples in {seconds:.1f} s", flush=True)
        seen = look(extractor, made, device)
        predictions.append(seen.probabilities.argmax(1))
        distances, where = nearest_training(made, training)
        found = measure(seen, seen_real, names_classes=bool(extractor.class_names))
        if extractor.class_names and (asked := task.classes(numbers)) is not None:
            found["class_as_asked"] = share(predictions[-1] == asked)
        found |= {"seconds": seconds}
        found |= {"nearest_distance": distances.median().item(), "closest_distance": distances.min().item()}
        rows["samples"].append(found)
        if current == seed:
            neighbours(made, training, distances, where).savefig(out / "nearest_neighbours.png")
        for name, pictures in make_baselines(training, n, current) if baselines else ():
            seen = look(extractor, pictures, device)
            rows.setdefault(name, []).append(measure(seen, seen_real, names_classes=bool(extractor.class_names)))
    balance: dict[str, float] = {}
    if extractor.class_names:
        shares = class_balance(torch.cat(predictions), len(extractor.class_names))
        balance = dict(zip(extractor.class_names, shares.tolist(), strict=True))
    summaries = {name: summary(found) for name, found in rows.items()}
    record = {
        "generator": {"run": run, "task": type(task).__name__, "sampling": settings},
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


def measure(seen: Seen, real: Seen, *, names_classes: bool) -> dict[str, float]:
    """The numbers of one set of pictures beside the real ones."""
    kernel, _ = kernel_distance(seen.features, real.features, subsets=20)
    found = {
        "frechet_distance": frechet_of_features(seen.features, real.features).item(),
        "kernel_distance": kernel.item(),
        "score": inception_style_score(seen.probabilities)[0].item(),
    }
    if names_classes:
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
    real = f"{record['real_pictures']:,} pictures of {record['split']}"
    yield f"{record['n']:,} samples of each seed against {real}{settings}"
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


# Pictures, all uint8 (N, C, H, W): of 256 levels, as a file has them -------------------------------------------------


def levels(images: Tensor) -> Tensor:
    return (images * 255).round().clamp(0, 255).to(torch.uint8)


def samples(task: Generative, numbers: Tensor, seed: int, device: torch.device) -> Tensor:
    """The pictures of these numbers, of the classes in turn where the network is told one."""
    made = []
    for part in numbers.to(device).split(BATCH):
        with torch.no_grad():
            images = task.sample(part, seed=seed, condition=task.classes(part))
        if not images.isfinite().all():
            raise ZooError("The samples are no numbers (NaN): this generator has diverged.")
        made.append(levels(images).cpu())
    return torch.cat(made)


def real_pictures(data: Any, split: str) -> Tensor:
    """A split's pictures, not augmented; of the training split those that are learnt from."""
    return torch.cat([levels(pixels(batch["input"], data.facts)) for batch in data.loader(split)])


def make_baselines(training: Tensor, n: int, seed: int) -> Iterator[tuple[str, Tensor]]:
    """`n` training pictures, and `n` of noise, of a Gaussian for each pixel and of one for all pixels together."""
    numbers, shape = torch.arange(n), (n, *training.shape[1:])
    fitted = training[permutation(key(seed, "fitted"), len(training))[:FITTED]].flatten(1) / 255
    mean, width = fitted.mean(0), fitted.shape[1]
    yield "training", training[permutation(key(seed, "bound"), len(training))[:n]]
    yield "uniform_noise", levels(uniform(key(seed, "uniform noise"), numbers, width).view(shape))
    draws = normal(key(seed, "pixel Gaussian"), numbers, width)
    yield "pixel_gaussian", levels((mean + fitted.std(0) * draws).view(shape))
    # a Gaussian with all principal components of the pictures: a sum of them with random weights has their covariance
    draws = normal(key(seed, "PCA Gaussian"), numbers, len(fitted))
    yield "pca_gaussian", levels((mean + draws @ (fitted - mean) / (len(fitted) - 1) ** 0.5).view(shape))


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


# Networks -------------------------------------------------------------------------------------------------------------


def read_generator(
    run: str, sampling: Mapping[str, Any], *, trust: bool = False
) -> tuple[Generative, Any, torch.device]:
    """The task of a run that makes pictures, in evaluation mode, its data, and the device to work on."""
    path = find_checkpoint(Path(run))
    checkpoint = read_checkpoint(path)
    config, kind = checkpoint["zoo"]["config"], task_of(checkpoint, path, trust=trust)
    if not issubclass(kind, Generative) or kind.sample is Generative.sample:
        raise ZooError(
            f"{path} makes no pictures: its task is {kind.__name__}. zoo judge takes generators, such as model=vae, "
            "model=gan and model=diffusion."
        )
    for name, value in sampling.items():
        if name not in config["task"]:
            raise ZooError(f"{name}={value}: this network is of task {kind.__name__}, which takes no {name}.")
        config["task"][name] = value
    network = construct(config)
    load_weights(network, checkpoint["state_dict"], path)
    data = build(config["data"], "data")()
    data.setup("test")
    data.train_examples = config["train_examples"]
    wants_gpu = torch.cuda.is_available() and config["trainer"]["accelerator"] != "cpu"
    device = torch.device("cuda" if wants_gpu else "cpu")
    task: Any = make_task(config, network, data)
    if config["task"].get("sampler") == "ddpm" and (lost := sampling.keys() & {"steps", "eta"}):
        name = min(lost)
        raise ZooError(
            f"{name}={sampling[name]}: sampler=ddpm goes through all {task.timesteps} steps; say sampler=ddim."
        )
    return task.to(device).eval(), data, device


def read_extractor(features: str, shape: tuple[int, int, int], device: torch.device, *, trust: bool) -> Extractor:
    """The classifier of a run, or Inception v3; it must take pictures (C, H, W) of this `shape`."""
    if features == "inception":
        return inception(device)
    path = find_checkpoint(Path(features))
    checkpoint = read_checkpoint(path)
    described, kind = checkpoint["zoo"], task_of(checkpoint, path, trust=trust)
    facts = described["preprocessing"]
    if not issubclass(kind, Classification):
        raise ZooError(f"features={features}: must be a classifier's run, and this one's task is {kind.__name__}.")
    if facts.get("image_size") is None:
        raise ZooError(f"features={features}: must be a classifier of pictures, and this one reads none.")
    takes = (facts["channels"], facts["image_size"])
    if takes != shape[:2]:
        text = "{}×{size}×{size}"
        raise ZooError(
            f"features={features}: this classifier takes pictures of {text.format(takes[0], size=takes[1])}, and the "
            f"generator makes {text.format(shape[0], size=shape[1])}: choose one that was trained on the same data."
        )
    network = construct(described["config"])
    load_weights(network, checkpoint["state_dict"], path)
    choices = described["choices"]
    weights = hashlib.sha256()
    for tensor in network.state_dict().values():
        weights.update(tensor.contiguous().numpy().tobytes())
    name = f"{choices.get('model', type(network).__name__)} on {choices.get('data', 'its data')}"
    return Extractor(
        f"{name} (run {features}, weights {weights.hexdigest()[:8]})",
        network.to(device).eval(),
        heads(network)[0],
        takes,
        facts["mean"],
        facts["std"],
        described["class_names"],
    )


def task_of(checkpoint: dict[str, Any], path: Path, *, trust: bool) -> type:
    """The class of a checkpoint's task, when its config may be used."""
    config = checkpoint["zoo"]["config"]
    if not trust:
        refuse_untrusted(config, str(path))
    try:
        return get_class(config["task"]["_target_"])
    except ImportError as error:  # one that trust=true lets through
        raise ZooError(f"task: {error}") from None


def inception(device: torch.device) -> Extractor:
    """torchvision's Inception v3, whose weights are others than those of the published FID."""
    try:
        weights = read_weights("torchvision", "inception_v3")
    except ZooError as error:
        raise ZooError(str(error).replace("model.weights=torchvision", "features=inception")) from None
    network = InceptionV3(num_classes=1000, in_channels=3, image_size=299, form="paper")
    put_weights(network, weights)
    name = "inception_v3 of torchvision (its weights, not those of the published FID)"
    mean, std = weights.preparation["mean"], weights.preparation["std"]
    return Extractor(name, network.to(device).eval(), heads(network)[0], (3, 299), mean, std, ())


@torch.no_grad()
def look(extractor: Extractor, pictures: Tensor, device: torch.device) -> Seen:
    """Features and class probabilities of pictures (N, C, H, W); for Inception they are made larger, and grey RGB."""
    channels, size = extractor.shape
    mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (extractor.mean, extractor.std))
    features: list[Tensor] = []
    probabilities = []
    head = extractor.network.get_submodule(extractor.head)
    hook = head.register_forward_pre_hook(lambda _, args: features.append(args[0][..., None].flatten(2).mean(2).cpu()))
    try:
        for part in pictures.split(BATCH):
            images = part.to(device).float().div(255).expand(-1, channels, -1, -1)
            if images.shape[-1] != size:
                images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
            probabilities.append(extractor.network((images - mean) / std).softmax(1).cpu())
    finally:
        hook.remove()
    return Seen(torch.cat(features), torch.cat(probabilities))
