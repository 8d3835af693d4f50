"""Mixup and cutmix: training on convex mixtures of examples and of their labels.

Mixup: Zhang, Cisse, Dauphin, Lopez-Paz 2018, "mixup: beyond empirical risk minimization", 1710.09412.
Cutmix: Yun et al. 2019, "CutMix: regularization strategy to train strong classifiers", 1905.04899.
"""

import random

import torch.nn.functional as F
from torch import Tensor


def mix(
    input: Tensor, target: Tensor, *, num_classes: int, mixup_alpha: float, cutmix_alpha: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Mix every example of a batch with its neighbour (the batch rolled by one), all by one share λ ~ Beta(α, α).

    `input` is (B, …), for cutmix (B, C, H, W); `target` (B,) int64. Gives the mixed input and soft targets (B, K). With
    both alphas above 0 each batch takes one of the two, with probability ½. All randomness comes from `seed`.
    """
    for name, alpha in (("mixup_alpha", mixup_alpha), ("cutmix_alpha", cutmix_alpha)):
        if alpha < 0:
            raise ValueError(f"{name}={alpha}: must be 0 (off) or more")
    if cutmix_alpha and input.ndim != 4:
        raise ValueError(f"cutmix_alpha={cutmix_alpha}: must be 0, as cutmix needs images and the input has none")
    draw = random.Random(seed)  # on the host: a device would have to be waited for
    labels = F.one_hot(target, num_classes).to(input.dtype)
    if cutmix_alpha and (not mixup_alpha or draw.random() < 0.5):
        mixed, share = _cutmix(input, draw.betavariate(cutmix_alpha, cutmix_alpha), draw)
    elif mixup_alpha:
        share = draw.betavariate(mixup_alpha, mixup_alpha)
        mixed = input.roll(1, 0).lerp(input, share)
    else:
        return input, labels
    return mixed, labels.roll(1, 0).lerp(labels, share)


def _cutmix(input: Tensor, share: float, draw: random.Random) -> tuple[Tensor, float]:
    """Paste a box of the neighbour, of (1 − share) of the area before clipping; give the share that is truly left."""
    height, width = input.shape[2:]
    side = (1 - share) ** 0.5
    box_height, box_width = round(height * side), round(width * side)
    # The box's centre lies anywhere in the image, so that the box may be cut at the border (section 3.2).
    top, left = draw.randrange(height) - box_height // 2, draw.randrange(width) - box_width // 2
    rows = slice(max(top, 0), top + box_height)
    columns = slice(max(left, 0), left + box_width)
    mixed = input.clone()
    mixed[:, :, rows, columns] = input.roll(1, 0)[:, :, rows, columns]
    kept = 1 - mixed[0, 0, rows, columns].numel() / (height * width)
    return mixed, kept
