"""U-Net's border weight map, which makes a network learn the thin gaps between cells that touch.

Ronneberger, Fischer, Brox 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation", 1505.04597,
equation 2: w(x) = w_c(x) + w_0 exp(-(d_1(x) + d_2(x))² / 2σ²), with w_c the weight of the pixel's class, d_1 and d_2
its distances to the border of the nearest and of the second nearest cell, here to their outermost pixels. So within a
cell the distance counts from its own rim, and what faces another cell weighs more there too. A cell is a connected
region (8 neighbours) of one class that is not background. Two cells of one class that touch are one cell, as classes
cannot tell them apart: leave a gap of background between them, as the paper does.
"""

import numpy as np
from scipy import ndimage

_REACH = 6.0  # in σ: beyond it the border term is below exp(-18), which float32 does not add to a weight of 1


def border_weights(
    mask: np.ndarray, class_weights: np.ndarray, *, weight: float, sigma: float, background: int = 0
) -> np.ndarray:
    """The weight of every pixel, float32 (H, W), for a `mask` of classes (H, W); `weight` is w_0, `sigma` in pixels.

    A class from len(`class_weights`) on is ignored: it weighs 0 and is no cell.
    """
    reach = int(np.ceil(_REACH * sigma))
    nearest = np.full(mask.shape, np.inf, np.float32)
    second = nearest.copy()
    for label in range(len(class_weights)):
        if label == background:
            continue
        cells, _ = ndimage.label(mask == label, structure=np.ones((3, 3)))
        for cell, (rows, columns) in enumerate(ndimage.find_objects(cells), start=1):
            # Distances only as far as they count: a picture of many cells would else take minutes.
            around = (
                slice(max(rows.start - reach, 0), rows.stop + reach),
                slice(max(columns.start - reach, 0), columns.stop + reach),
            )
            inside = cells[around] == cell
            border = inside & ~ndimage.binary_erosion(inside)
            distance = ndimage.distance_transform_edt(~border).astype(np.float32)
            second[around] = np.minimum(second[around], np.maximum(nearest[around], distance))
            nearest[around] = np.minimum(nearest[around], distance)
    gap = weight * np.exp(-((nearest + second) ** 2) / (2 * sigma**2))
    table = np.zeros(256, np.float32)
    table[: len(class_weights)] = class_weights
    return np.where(mask < len(class_weights), table[mask] + gap, 0).astype(np.float32)


def class_balance(counts: np.ndarray) -> np.ndarray:
    """w_c for classes of so many pixels (K,): inversely proportional to them, 1 for the mean pixel; 1 where none is."""
    present = counts > 0
    return np.where(present, counts.sum() / (present.sum() * np.maximum(counts, 1)), 1.0)
