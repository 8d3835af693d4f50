"""What networks make of a person's pictures: a mask of each, or a reconstruction and how far it is from the picture.

Shapes: B pictures, C channels, H×W pixels, S the side of a tile, K classes.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from zoo.data.arrays import ArraySplit
from zoo.data.image_files import reason, traits
from zoo.data.mask_files import read_picture
from zoo.generators import levels
from zoo.mask_pictures import class_colours
from zoo.prediction_files import Table, shown
from zoo.prediction_inputs import Described, Pictures, find_pictures, told
from zoo.randomness import key
from zoo.ssim import ssim
from zoo.tasks.segmentation import predicted_classes
from zoo.tasks.vae import Vae
from zoo.tiling import predict_tiled

OVERLAP = 8  # a part of a tile: how wide the border is that a larger picture's tiles share and none is taken from


def png_names(names: Sequence[str]) -> dict[str, str]:
    """A name for the PNG of each picture: with another ending, or with one more where two would be alike."""
    changed = {name: Path(name).with_suffix(".png").as_posix() for name in names}
    count = Counter(changed.values())
    found = {name: new for name, new in changed.items() if count[new] == 1}
    taken = set(found.values())
    for name in names:
        if name not in found:
            found[name] = f"{name}.png"
            while found[name] in taken:
                found[name] += ".png"
            taken.add(found[name])
    return found


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "png")


# Masks ----------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def borders(network: nn.Module, tile: Tensor, *, context: int) -> tuple[int, int]:
    """How many pixels are dropped around the prediction of a tile (C, S, S), so that it has the `context` of training,
    and the side of what is left."""
    size = tile.shape[-1]
    side = network(tile[None]).shape[-1]
    overlap = max(0, context - (size - side) // 2)
    return overlap, side - 2 * overlap


@torch.no_grad()
def mask_of(network: nn.Module, image: Tensor, *, size: int, kept: tuple[int, int], batch_size: int) -> Tensor:
    """The classes (H, W) of an image (C, H, W) as the network sees it; `kept` is what `borders` says.

    One that fits into a tile is predicted as in an evaluation, mirrored where it is smaller. A larger one by tiles,
    whose borders overlap where the network pads, since there it sees the padding.
    """
    overlap, side = kept
    if max(image.shape[1:]) > side == size:
        overlap = size // OVERLAP
    logits = predict_tiled(network, image, tile=size, overlap=overlap, batch_size=batch_size)
    return predicted_classes(logits[None].float())[0].cpu()


def write_masks(
    task: Any, described: Described, source: Path, folder: Path, *, batch_size: int
) -> tuple[dict[str, Table], list[tuple[str, str]]]:
    """Masks of the pictures into `folder`: the tables of shares and of classes, and what could not be read.

    A mask is as large as its picture, turned as its EXIF says; its pixels are class numbers, in colour by a palette.
    """
    facts, data = described["preprocessing"], described["config"]["data"]
    names = described["class_names"]
    palette = (class_colours(len(names)) * 255).round().astype(np.uint8)
    found, rows, skipped = find_pictures(source), [], []
    called, size = png_names([name for name, _ in found]), facts["image_size"]
    tile = torch.zeros(facts["channels"], size, size, device=task.device)
    kept = borders(task.network, tile, context=data.get("context") or 0)
    for part in told([[each] for each in found]):
        name, path = part[0]
        try:
            if isinstance(why := traits(path), str):
                raise ValueError(why)
            picture = torch.from_numpy(read_picture(path, channels=facts["channels"]))
        except Exception as error:  # decoders of damaged files raise nearly anything
            skipped.append((name, reason(error)))
            continue
        one = torch.zeros(1, dtype=torch.int64)
        whole = ArraySplit(picture[None], one, mean=facts["mean"], std=facts["std"])
        image = whole.batch(0, one, one)["input"][0].to(task.device)
        mask = mask_of(task.network, image, size=size, kept=kept, batch_size=batch_size)
        drawn = Image.fromarray(mask.to(torch.uint8).numpy())
        drawn.putpalette(palette.tobytes())
        save(drawn, folder / called[name])
        shares = torch.bincount(mask.flatten(), minlength=len(names)) / mask.numel()
        rows.append([name, called[name], *(f"{share:.6g}" for share in shares.tolist())])
    colours = ["#" + colour.tobytes().hex() for colour in palette]
    classes = [[str(k), name, colour] for k, (name, colour) in enumerate(zip(names, colours, strict=True))]
    shares_table = (["file", "mask", *names], rows)
    return {"shares.csv": shares_table, "classes.csv": (["number", "name", "colour"], classes)}, skipped


# Reconstructions ------------------------------------------------------------------------------------------------------


def write_reconstructions(
    task: Any, described: Described, source: Path, folder: Path, *, batch_size: int
) -> tuple[dict[str, Table], list[tuple[str, str]]]:
    """Reconstructions into `folder`; the table of errors, named as an evaluation names its metrics; the unread."""
    inputs = Pictures(source, described, batch_size)
    called = png_names([name for name, _ in inputs.found])
    rows: list[list[str]] = []
    errors: dict[str, Tensor] = {}
    with torch.no_grad():
        for batch in inputs:
            batch = {name: value.to(task.device) for name, value in batch.items()}
            images, made, errors = reconstruct(task, batch)
            mse = (made - images).square().flatten(1).mean(1)
            errors |= {"squared_error": mse * images[0].numel(), "mse": mse}
            errors |= {"mae": (made - images).abs().flatten(1).mean(1)}
            errors |= {"psnr": -10 * torch.log10(mse.clamp(min=1e-10)), "ssim": ssim(made, images)}
            values = [column.tolist() for column in errors.values()]
            for place, picture in zip(batch["position"].tolist(), levels(made).cpu(), strict=True):
                name = inputs.rows[place][0]
                array = picture.permute(1, 2, 0).numpy()
                save(Image.fromarray(array[..., 0] if array.shape[2] == 1 else array), folder / called[name])
            cells = [list(map(shown, column)) for column in values]
            if "class" in errors:
                cells[0] = [described["class_names"][int(label)] for label in values[0]]
            for row, numbers in zip(inputs.rows[-len(mse) :], zip(*cells, strict=True), strict=True):
                rows.append([row[0], called[row[0]], *numbers])
    return {"errors.csv": (["file", "picture", *errors], rows)}, inputs.skipped


def reconstruct(task: Any, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Pixels (B, C, S, S) from 0 to 1 of a batch and of what the network makes of them; of a VAE also its nats.

    A VAE decodes the mean of what it believes. One that is told the class tries all, and takes the likeliest.
    """
    if not isinstance(task, Vae):
        return batch["input"], task.network(batch["input"]).float().clamp(0, 1), {}
    task.draws = key(task.seed, "draws", "evaluation")  # noise is a function of this and of the position
    tried = range(task.facts["num_classes"]) if task.conditional else [None]
    trials = []
    for told_class in tried:
        condition = None if told_class is None else torch.full_like(batch["position"], told_class)
        asked = batch if condition is None else {**batch, "target": condition}
        outputs = task.loss(task.network, asked)[1]
        kl = outputs["kl"].sum(1)
        trials.append((outputs["nats"], kl, task.reconstruct(task.images(batch), condition)))
    nats, kl, made = (torch.stack(parts) for parts in zip(*trials, strict=True))  # (trials, B, …)
    best, every = nats.argmin(0), torch.arange(nats.shape[1], device=nats.device)
    nats, kl = nats[best, every], kl[best, every]
    errors: dict[str, Tensor] = {"nelbo": nats, "reconstruction": nats - kl, "kl": kl}
    if task.conditional:
        errors = {"class": best, **errors}
    return batch["input"], made[best, every].clamp(0, 1), errors
