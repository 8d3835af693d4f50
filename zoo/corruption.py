"""What a denoising autoencoder has to undo: noise that is a function of the example's position.

P. Vincent et al. 2008, "Extracting and composing robust features with denoising autoencoders", ICML (masking); P.
Vincent et al. 2010, "Stacked denoising autoencoders", JMLR 11, section 3.3 (all three). Deliberate deviation: each
value is hit with a probability, where the papers hit an exact share of an example's values.
"""

from typing import Literal

import torch
from torch import Tensor

from zoo.randomness import normal, uniform

Corruption = Literal["none", "gaussian", "masking", "salt_pepper"]
CORRUPTIONS = ("none", "gaussian", "masking", "salt_pepper")


def check_corruption(corruption: str, level: float) -> None:
    """Raises ValueError for an unknown name and for a level that it cannot have."""
    if corruption not in CORRUPTIONS:
        raise ValueError(f"corruption={corruption}: must be one of {', '.join(CORRUPTIONS)}")
    if corruption == "gaussian" and not 0 < level < float("inf"):
        raise ValueError(f"corruption_level={level}: must be a standard deviation above 0, or choose corruption=none")
    if corruption in ("masking", "salt_pepper") and not 0 < level < 1:
        raise ValueError(f"corruption_level={level}: must lie between 0 and 1, the share of the values that are hit")


def corrupt(images: Tensor, positions: Tensor, *, seed: int, corruption: Corruption, level: float) -> Tensor:
    """Images (B, C, H, W) of pixels from 0 to 1, each hit as (`seed`, its position) says; a new tensor, unless none.

    gaussian adds N(0, level²) and does not clip; masking makes each value 0 with probability `level`, salt_pepper 0 or
    1 with half of it each. `positions` (B,) int64. Raises ValueError as `check_corruption`.
    """
    check_corruption(corruption, level)
    if corruption == "none":
        return images
    draws = images[0].numel()
    if corruption == "gaussian":
        return images + level * normal(seed, positions, draws).view_as(images).to(images.dtype)
    u = uniform(seed, positions, draws).view_as(images)
    hit = images.new_zeros(()) if corruption == "masking" else (u >= level / 2).to(images.dtype)
    return torch.where(u < level, hit, images)
