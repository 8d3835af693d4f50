"""What `zoo sample` makes of a network for pictures, each a function of the task, its data, a seed and classes.

Test pictures, where they are shown, are chosen by the seed. A picture is a function of seed, number and class; asked
for among others it may differ by rounding, which is at most one of 256 levels here and there.

Shapes: N pictures, C channels, H×W pixels, Z latent dimensions. Pictures are float tensors in [0, 1].
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.generative_pictures import even_columns, stacked
from zoo.progress import told
from zoo.randomness import key, permutation
from zoo.samplers import slerp
from zoo.tasks.base import Batch
from zoo.tasks.diffusion import Diffusion
from zoo.tasks.generative import condition_of, pixels
from zoo.tasks.vae import Vae

CHUNK = 256  # pictures at a time
STEPS = 11  # pictures of a traversal, of an interpolation, of a film


class Made(NamedTuple):
    """A grid (rows · columns, C, H, W), what goes to the .npz by name, and a line for the screen."""

    grid: Tensor
    columns: int
    arrays: dict[str, Tensor]
    said: str = ""


# What is made ---------------------------------------------------------------------------------------------------------


def make_samples(task: Any, data: Any, *, n: int, seed: int, classes: Sequence[int]) -> Made:
    """Pictures of nothing but noise; a conditional network's are of the classes in turn."""
    condition = turns(task, torch.arange(n), classes)
    images = in_chunks(task, n, lambda part: task.sample(part, seed=seed, condition=of_part(condition, part)))
    among = len(classes) or (task.facts["num_classes"] if task.conditional else 1)
    columns = even_columns(n, among)
    return Made(images, columns, {"images": images, **labels(condition)})


def make_reconstructions(task: Any, data: Any, *, n: int, seed: int, classes: Sequence[int]) -> Made:
    """Test pictures over what the network makes of them; of a denoising one, the corrupted ones between."""
    batch = chosen_batch(task, data, n, seed=seed, classes=classes)
    task.draws = key(task.seed, "draws", "evaluation")  # the same corruption as in every evaluation
    if isinstance(task, Vae):
        shown = {"originals": task.images(batch)}
        condition = condition_of(batch, task.conditional)
        shown["images"] = task.reconstruct(shown["originals"], condition)
    else:
        outputs = task.loss(task.network, batch)[1]
        shown = {"originals": pixels(batch["input"], task.facts)}
        if "corrupted" in outputs:
            shown["corrupted"] = pixels(outputs["corrupted"], task.facts)
        shown["images"] = outputs.get("denoised", outputs["reconstruction"])
    columns = min(n, 16)
    return Made(stacked(list(shown.values()), columns), columns, shown | described(batch))


def make_traversal(task: Any, data: Any, *, n: int, seed: int, classes: Sequence[int]) -> Made:
    """Each of the `n` latent dimensions that carry most, from −3 to 3, the others as they are for one test picture."""
    sample = chosen_batch(task, data, min(test_split(data)[1], 1000), seed=0, classes=())
    task.draws = key(task.seed, "draws", "evaluation")
    kl = task.loss(task.network, sample)[1]["kl"].mean(0)  # (Z,)
    if n > len(kl):
        raise ZooError(f"n={n}: must be at most {len(kl)}, the latent dimensions of this network.")
    dimensions = kl.argsort(descending=True)[:n]
    batch = chosen_batch(task, data, 1, seed=seed, classes=classes)
    original, condition = task.images(batch), condition_of(batch, task.conditional)
    values = torch.linspace(-3, 3, STEPS, device=kl.device)
    mean = task.encode_mean(original, condition)

    def draw(part: Tensor) -> Tensor:
        latent = mean.repeat(len(part), STEPS, 1)  # (B, STEPS, Z)
        latent[torch.arange(len(part)), :, dimensions[part]] = values
        return decoded(task, latent, None if condition is None else condition.repeat(len(part)))

    images = in_chunks(task, n, draw, pictures=STEPS)
    carried = ", ".join(f"{d} ({kl[d]:.2f})" for d in dimensions.tolist())
    arrays = {"images": images, "original": original, "dimensions": dimensions}
    arrays |= {"kl": kl[dimensions], "values": values, **described(batch)}
    return Made(images.flatten(0, 1), STEPS, arrays, f"rows: latent dimensions {carried}; in brackets their KL in nats")


def make_interpolation(task: Any, data: Any, *, n: int, seed: int, classes: Sequence[int]) -> Made:
    """`n` rows from one picture to another, in equal steps through the latents; of a conditional network of one class.

    A VAE's latents are encodings of test pictures, which stand at both ends; the others' are noises, on a sphere's arc.
    """
    weights = torch.linspace(0, 1, STEPS).tolist()
    if isinstance(task, Vae):
        among = classes or (range(task.facts["num_classes"]) if task.conditional else ())
        batch = chosen_batch(task, data, n, seed=seed, classes=among, each=2)
        originals, condition = task.images(batch), condition_of(batch, task.conditional)
        first, second = task.encode_mean(originals, condition).unflatten(0, (n, 2)).unbind(1)  # (n, Z)
        condition = None if condition is None else condition[::2]

        def draw(part: Tensor) -> Tensor:
            latent = torch.stack([first[part].lerp(second[part], weight) for weight in weights], 1)
            return decoded(task, latent, of_part(condition, part))

        images, ends = in_chunks(task, n, draw, pictures=STEPS), originals.unflatten(0, (n, 2))
        grid = torch.cat([ends[:, :1], images, ends[:, 1:]], 1).flatten(0, 1)
        return Made(grid, STEPS + 2, {"images": images, "originals": ends, **described(batch)})
    condition = turns(task, torch.arange(n), classes)

    def draw_between(part: Tensor) -> Tensor:
        ends, classes_told = (2 * part, 2 * part + 1), of_part(condition, part)
        if isinstance(task, Diffusion):
            return task.interpolate(*ends, weights=weights, seed=seed, condition=classes_told).transpose(0, 1)
        first, second = (task.latents(numbers, seed=seed) for numbers in ends)
        return decoded(task, torch.stack([slerp(first, second, weight) for weight in weights], 1), classes_told)

    images = in_chunks(task, n, draw_between, pictures=STEPS)
    return Made(images.flatten(0, 1), STEPS, {"images": images, **labels(condition)})


def make_film(task: Any, data: Any, *, n: int, seed: int, classes: Sequence[int]) -> Made:
    """A test picture that turns to noise; below, for each of `n` samples, x_t and the x₀ that is predicted from it."""
    frames = min(STEPS, task.timesteps if task.sampler == "ddpm" else task.steps)
    condition = turns(task, torch.arange(n), classes)
    forward_times = torch.linspace(-1, task.timesteps - 1, frames).round().long()
    batch = chosen_batch(task, data, 1, seed=seed, classes=classes)
    forward = task.forward_film(batch["input"], forward_times.tolist(), seed=seed)[:, 0]  # (F, C, H, W)
    times: list[int] = []

    def draw(part: Tensor) -> Tensor:
        film = task.film(part, seed=seed, condition=of_part(condition, part), frames=frames)
        times[:] = film.times
        return torch.stack([film.noisy, film.predicted]).permute(2, 0, 1, 3, 4, 5)  # (B, 2, F, C, H, W)

    shown = in_chunks(task, n, draw)
    grid = torch.cat([forward, shown.flatten(0, 2)])
    arrays = {"images": shown[:, 0], "predicted": shown[:, 1], "times": torch.tensor(times), **labels(condition)}
    arrays |= {"forward": forward, "forward_times": forward_times}
    said = f"first row: a test picture at times {', '.join(map(str, forward_times.tolist()))} (-1: as it is)\n"
    said += f"then of each sample x_t at times {', '.join(map(str, times))}, and the picture predicted there"
    return Made(grid, frames, arrays, said)


MAKERS: dict[str, Callable[..., Made]] = {
    "samples": make_samples,
    "reconstructions": make_reconstructions,
    "traversal": make_traversal,
    "interpolation": make_interpolation,
    "film": make_film,
}


# Which pictures -------------------------------------------------------------------------------------------------------


def turns(task: Any, numbers: Tensor, classes: Sequence[int]) -> Tensor | None:
    """The class of each number: those asked for in turn, or all."""
    if not classes:
        return task.classes(numbers)
    if not task.conditional:
        raise ZooError(
            f"class={','.join(map(str, classes))}: this network was not told classes, it draws from all of them; "
            "train one with model.conditional=true."
        )
    return torch.tensor(classes)[numbers % len(classes)]


def test_split(data: Any) -> tuple[str, int]:
    """The split of which pictures are shown, and its size."""
    name = "test" if "test" in data.splits else "val"
    return name, len(data.splits[name])


def chosen_batch(task: Any, data: Any, n: int, *, seed: int, classes: Sequence[int], each: int = 1) -> Batch:
    """`n` groups of `each` test pictures, chosen by the seed; group k is of class `classes[k % len(classes)]`."""
    name, size = test_split(data)
    split = data.splits[name]
    order = permutation(key(seed, "pictures"), size)
    pools = [order[split.targets[order] == label] for label in classes] if classes else [order]
    most = len(pools) * min(len(pool) // each for pool in pools)
    if n > most:
        of = f" of {'these classes' if len(classes) > 1 else 'this class'}" if classes else ""
        raise ZooError(f"n={n}: must be at most {most}, as many as the {name} pictures{of} are enough for.")
    places = [(k % len(pools), k // len(pools) * each) for k in range(n)]
    indices = torch.cat([pools[pool][place : place + each] for pool, place in places])
    batch = split.batch(0, indices, indices)
    return {name: value.to(task.device) for name, value in batch.items()}


def labels(condition: Tensor | None) -> dict[str, Tensor]:
    return {} if condition is None else {"classes": condition}


def described(batch: Batch) -> dict[str, Tensor]:
    """Which test pictures these are: their places in the split and, where they have classes, these."""
    target = batch.get("target")
    known = target is not None and target.ndim == 1 and not target.is_floating_point()
    return {"positions": batch["position"], **(labels(target) if known else {})}


def of_part(condition: Tensor | None, part: Tensor) -> Tensor | None:
    return None if condition is None else condition.to(part.device)[part]


def decoded(task: Any, latents: Tensor, condition: Tensor | None) -> Tensor:
    """Pictures (B, F, C, H, W) of latents (B, F, Z), those of a row of one class."""
    condition = None if condition is None else condition.repeat_interleave(latents.shape[1])
    decode = task.decode_latent if isinstance(task, Vae) else task.decode
    return decode(latents.flatten(0, 1), condition).unflatten(0, latents.shape[:2])


def in_chunks(task: Any, count: int, draw: Callable[[Tensor], Tensor], *, pictures: int = 1) -> Tensor:
    """What `draw` makes of the numbers 0 … count − 1, each `pictures`, at most `CHUNK` at a time."""
    numbers = torch.arange(count).split(max(1, CHUNK // pictures))
    return torch.cat([draw(part.to(task.device)) for part in told(numbers, task.network)])
