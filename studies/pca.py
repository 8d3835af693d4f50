"""An autoencoder against principal components of the same number: squared error, and the subspace of a linear one.

A linear autoencoder at its least squared error spans the subspace of the first principal components (Bourlard & Kamp
1988; Baldi & Hornik 1989); one with hidden layers does better with the same width (Hinton & Salakhutdinov 2006: 3.00
against 13.87 at 30 on all of MNIST). Everything is fitted to the training digits and measured on the test digits, in
the units of task=reconstruction: means over images, of pixels clipped to [0, 1].

    python -m studies.pca
"""

import sys
from collections.abc import Sequence

import numpy as np
import torch
from scipy.linalg import subspace_angles
from torch import Tensor

from studies.running import COLOURS, Run, figure, train, write
from zoo.checkpoint import find_checkpoint, read_checkpoint
from zoo.data.embedded import Digits
from zoo.ssim import ssim
from zoo.transfer import evaluated_weights

WIDTHS = (2, 4, 8, 16, 30, 64)
MODELS = {"linear_autoencoder": 16, "autoencoder_2006": 30, "autoencoder": 30}  # with the width of each code


def principal_components(images: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The mean (D,) and the first `width` principal components (D, width), orthonormal, of images (N, D), in float64.

    Raises ValueError for a width that is not from 1 to D.
    """
    if not 1 <= width <= images.shape[1]:
        raise ValueError(f"width={width}: must be from 1 to {images.shape[1]}, the numbers of an image")
    mean = images.double().mean(0)
    centred = images.double() - mean
    vectors = torch.linalg.eigh(centred.T @ centred).eigenvectors  # by rising eigenvalue
    return mean, vectors.flip(1)[:, :width]


def reconstructed(images: Tensor, mean: Tensor, components: Tensor) -> Tensor:
    """Images (N, D) projected on the plane through `mean` that `components` (D, width) span."""
    return mean + (images.double() - mean) @ components @ components.T


def scores(made: Tensor, images: Tensor) -> dict[str, float]:
    """squared_error and ssim as in task=reconstruction, and the squared error without clipping; (N, 1, H, W) twice."""
    clipped = made.clamp(0, 1)
    return {
        "squared_error": float((clipped - images).square().flatten(1).sum(1).mean()),
        "squared_error_not_clipped": float((made - images).square().flatten(1).sum(1).mean()),
        "ssim": float(ssim(clipped, images).mean()),
    }


def angles(first: Tensor, second: Tensor) -> list[float]:
    """The principal angles between the subspaces that the columns of (D, k) matrices span, degrees, largest first."""
    return np.degrees(subspace_angles(first.double().numpy(), second.double().numpy())).tolist()


def decoder_weights(run: Run) -> Tensor:
    """(D, width): what each unit of a linear autoencoder's code adds to the image.

    The encoder's rows would not do: where a pixel is black in all digits, its weights stay as they were drawn.
    """
    return evaluated_weights(read_checkpoint(find_checkpoint(run.folder))["state_dict"])["decoder.0.weight"]


def digits() -> dict[str, Tensor]:
    """Training and test digits (N, 1, 28, 28), pixels from 0 to 1."""
    data = Digits(channels=1, image_size=28, mean=[0.0], std=[1.0])
    data.setup()
    return {split: torch.cat([batch["input"] for batch in data.loader(split)]) for split in ("train", "test")}


def main(widths: Sequence[int] = WIDTHS, *words: str) -> dict[str, dict[str, float]]:
    """`words` are added to every run's."""
    images = digits()
    flat, test = images["train"].flatten(1), images["test"]
    numbers: dict[str, dict[str, float]] = {}
    mean, components = principal_components(flat, max(*widths, *MODELS.values()))
    for width in widths:
        made = reconstructed(test.flatten(1), mean, components[:, :width]).view(test.shape)
        numbers[f"PCA, {width}"] = scores(made, test.double())
    picture, (axis,) = figure(6, 3.8, "Squared error of a test digit by width of the code")
    errors = [numbers[f"PCA, {width}"]["squared_error"] for width in widths]
    axis.plot(widths, errors, "o-", color=COLOURS[0], label="PCA")
    for (model, width), colour in zip(MODELS.items(), COLOURS[1:], strict=False):
        run = train(f"model={model}", f"model.code={width}", "task.loss=mse", *words)
        found = {name: run.scores[f"test/{name}"] for name in ("squared_error", "ssim")}
        if model == "linear_autoencoder":
            between = angles(decoder_weights(run), components[:, :width])
            found |= {"largest principal angle with PCA, degrees": between[0]}
        numbers[f"{model}, {width}"] = found
        axis.plot(width, found["squared_error"], "s", color=colour, label=model)
    axis.set(xlabel="width", ylabel="squared error of an image", xscale="log", yscale="log")
    axis.set_xticks(WIDTHS, [str(width) for width in WIDTHS])
    axis.set_yticks([5, 10, 20, 40], ["5", "10", "20", "40"])
    axis.minorticks_off()
    axis.legend(frameon=False, fontsize=8)
    write("pca", picture, numbers)
    return numbers


if __name__ == "__main__":
    main(WIDTHS, *sys.argv[1:])
