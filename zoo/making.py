"""Pictures from a trained network, for `zoo sample`: a grid to look at (.png) and arrays to go on with (.npz)."""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from zoo.checkpoint import folder_of
from zoo.data.image_files import SUFFIXES
from zoo.errors import ZooError
from zoo.generative_pictures import as_bytes, tiled
from zoo.generators import SAMPLING, trained
from zoo.sample_pictures import MAKERS, Made
from zoo.suggest import nearest
from zoo.tasks.base import Task
from zoo.tasks.diffusion import Diffusion
from zoo.tasks.gan import Gan
from zoo.tasks.reconstruction import Reconstruction
from zoo.tasks.vae import Vae

CHOSEN = ("n", "seed", "class")
OTHER_FORMATS = {*(SUFFIXES - {".png"}), ".svg", ".pdf", ".npy"}
# what a task can make, the first unless another is asked for, and the keys that it takes for that
MAKES: dict[type[Task], dict[str, tuple[str, ...]]] = {
    Reconstruction: {"reconstructions": CHOSEN},
    Vae: {"samples": CHOSEN, "reconstructions": CHOSEN, "traversal": CHOSEN, "interpolation": CHOSEN},
    Gan: {"samples": CHOSEN, "interpolation": CHOSEN},
    Diffusion: {
        "samples": (*CHOSEN, *SAMPLING),
        "interpolation": (*CHOSEN, "steps", "guidance"),
        "film": (*CHOSEN, *SAMPLING),
    },
}
ROWS = {"samples": 64, "reconstructions": 32, "traversal": 10, "interpolation": 8, "film": 3}  # `n`, when not given


def make(own: dict[str, Any], checkpoint: dict[str, Any], path: Path, kind: type[Task]) -> None:
    """Make what the keys `own` ask of a checkpoint of task `kind`, write it and print where."""
    what = chosen_what(own, kind)
    settings = {name: own[name] for name in SAMPLING if name in own}
    if what == "interpolation" and issubclass(kind, Diffusion):
        settings |= {"sampler": "ddim", "eta": 0.0}
    shows_data = what in ("reconstructions", "traversal", "film") or (what == "interpolation" and issubclass(kind, Vae))
    task, data = trained(checkpoint, path, settings, reads_data=shows_data)
    n, seed = own.get("n", ROWS[what]), own.get("seed", 0)
    classes = asked_classes(own["class"], task.facts) if own.get("class") is not None else []
    with torch.no_grad():
        made = MAKERS[what](task, data, n=n, seed=seed, classes=classes)
    if not made.grid.isfinite().all():
        raise ZooError("The pictures are no numbers (NaN): this network has diverged.")
    effective = {name: getattr(task, name) for name in SAMPLING if isinstance(task, Diffusion)}
    asked = {"what": what, "checkpoint": str(path), "n": n, "class": own.get("class"), **effective}
    write(stem(own, path, what), made, seed=seed, settings=asked)


def chosen_what(own: dict[str, Any], kind: type[Task]) -> str:
    """What is to be made; refuses what the task cannot, and keys that are for something else."""
    makes = MAKES[kind]
    what = own.get("what") or next(iter(makes))
    if what not in makes:
        raise ZooError(f"what={what}: a network of task {kind.__name__} makes {', '.join(makes)}.")
    for name in own:
        if name in (*CHOSEN, *SAMPLING) and name not in makes[what]:
            raise ZooError(f"{name}={own[name]}: what={what} takes {', '.join(makes[what])}.")
    return what


def asked_classes(text: str, facts: dict[str, Any]) -> list[int]:
    """The classes of `class=3`, `class=sandal` or a list of such with commas."""
    count, names = facts.get("num_classes"), [str(name) for name in facts.get("class_names") or []]
    if not count:
        raise ZooError(f"class={text}: the data that this network was trained on have no classes.")
    found = []
    for word in [text] if text in names else [part.strip() for part in text.split(",")]:
        if word in names:
            found.append(names.index(word))
        elif word.isdecimal() and int(word) < count:
            found.append(int(word))
        else:
            near = None if word.isdecimal() or not word else nearest(word, names)
            hint = f"did you mean {near}?" if near else f"there are 0 to {count - 1}."
            raise ZooError(f"class={word}: there is no such class; {hint}")
    return found


# Files --------------------------------------------------------------------------------------------------------------


def stem(own: dict[str, Any], path: Path, what: str) -> Path:
    """Where to write, without ending: `out`, or a name by what was asked for in `out` or the run's folder `samples`."""
    given = [f"{name}{str(own[name]).replace(',', '-')}" for name in (*CHOSEN, *SAMPLING) if own.get(name) is not None]
    name = "_".join([what, *given]).replace("/", "-").replace(" ", "-")
    out = own.get("out")
    if out is None:
        return folder_of(path) / "samples" / name
    if out.endswith("/") or Path(out).is_dir():
        return Path(out) / name
    if Path(out).suffix.lower() in OTHER_FORMATS:
        raise ZooError(f"out={out}: pictures are written as .png, beside arrays as .npz; leave the ending out.")
    return Path(out.removesuffix(".png").removesuffix(".npz"))


def write(stem: Path, made: Made, *, seed: int, settings: dict[str, Any]) -> None:
    """Write and name grid and arrays; pictures are uint8 (…, H, W, C), `settings` is JSON."""
    picture, archive = io.BytesIO(), io.BytesIO()
    Image.fromarray(tiled(made.grid, made.columns).numpy()).save(picture, "png")
    arrays: dict[str, Any] = {
        name: (as_bytes(value) if value.ndim >= 4 else value.cpu()).numpy() for name, value in made.arrays.items()
    }
    np.savez_compressed(archive, **arrays, seed=np.array(seed), settings=np.array(json.dumps(settings)))
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        for ending, content in ((".png", picture), (".npz", archive)):
            target = stem.with_name(stem.name + ending)
            aside = target.with_name(f".{target.name}.tmp")
            aside.write_bytes(content.getvalue())
            os.replace(aside, target)
            print(f"wrote {target}")
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise ZooError(f"out={stem}: is a folder, or below a file; name a folder or a file to write.") from None
    except FileNotFoundError:
        raise ZooError(f"out={stem}: no file can be made there; choose another folder.") from None
    if made.said:
        print(made.said)
