"""Classifiers whose features `zoo judge` compares pictures by: a run of this zoo, or Inception v3.

Shapes: N pictures, C channels, H×W pixels, D features, K classes. Pictures are uint8.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.build import task_class
from zoo.checkpoint import find_checkpoint, read_checkpoint
from zoo.errors import ZooError
from zoo.evaluation import load_weights
from zoo.models.inception_v3 import InceptionV3
from zoo.network import construct
from zoo.tasks.classification import Classification
from zoo.transfer import heads, put_weights, read_weights

BATCH = 250  # pictures at a time


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


def read_extractor(features: str, shape: tuple[int, int, int], device: torch.device, *, trust: bool) -> Extractor:
    """The classifier of a run, or Inception v3; it must take pictures (C, H, W) of this `shape`."""
    if features == "inception":
        return inception(device)
    path = find_checkpoint(Path(features))
    checkpoint = read_checkpoint(path)
    described = checkpoint["zoo"]
    kind, facts = task_class(described["config"], str(path), trust=trust), described["preprocessing"]
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
