"""The climate of every pixel of NASA's Blue Marble. Provenance, licence, split and baseline: docs/data.md."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from zoo.data.embedded import MAIN_GROUPS, shipped
from zoo.data.tiles import MaskData, Scene
from zoo.errors import ZooError
from zoo.randomness import key, permutation

_STRIPE, _SOUTH = 180, 2250  # pixels, 15 to a degree: 12° of longitude, and 60° S
_CLASSES = ("tropical", "arid", "temperate", "continental", "polar", "ocean")


@dataclass(kw_only=True, eq=False)
class EarthSegmentation(MaskData):
    """Tiles of the Earth seen from space, each pixel tropical, arid, temperate, continental, polar or ocean.

    The map is cut into stripes of 12° of longitude that no tile crosses, nor its context, so that the splits share no
    pixel. Every fifth stripe is test; three others are validation, drawn by `split_seed` so that each class gives it
    about a tenth. The background is ocean.
    """

    background = _CLASSES.index("ocean")

    def read(self) -> None:
        if self.side > _STRIPE:
            raise ZooError(
                f"data.image_size={self.image_size}: must leave at most {_STRIPE} pixels, the width of a stripe, "
                f"beside a context of {self.context} on either side."
            )
        self.state({"channels": 3, "num_classes": len(_CLASSES), "class_names": list(_CLASSES)})
        self.state({"num_features": 3 * self.image_size**2})
        scenes = earth_stripes()
        test = torch.arange(len(scenes)) % 5 == 4
        others = torch.nonzero(~test)[:, 0]
        counts = [np.bincount(scenes[stripe][1].ravel(), minlength=len(_CLASSES)) for stripe in others.tolist()]
        sizes = torch.from_numpy(np.stack(counts)).double()
        draws = torch.stack([permutation(key(self.split_seed, "split", draw), len(others))[:3] for draw in range(200)])
        shares = sizes[draws].sum(1) / sizes.sum(0)  # of each class in validation, (200, 6)
        val = torch.isin(torch.arange(len(scenes)), others[draws[(shares - 0.1).abs().amax(1).argmin()]])
        parts = {"train": ~test & ~val, "val": val, "test": test}
        self.keep({name: [scenes[stripe] for stripe in torch.nonzero(part)[:, 0]] for name, part in parts.items()})


def earth_stripes() -> list[Scene]:
    """The 30 stripes of 12° from west to east, north of 60° S: uint8 (3, 2250, 180) and classes (2250, 180)."""
    with Image.open(shipped("earth.jpg", "10f5389b365d7ece")) as file:
        picture = np.asarray(file).transpose(2, 0, 1)[:, :_SOUTH]
    with Image.open(shipped("earth_climate.png", "d1e36bae98382a56")) as file:
        climate = np.asarray(file)[:_SOUTH]
    ocean = len(MAIN_GROUPS) - 1
    group_of = np.array([ocean, *np.repeat(np.arange(len(MAIN_GROUPS)), list(MAIN_GROUPS.values()))], np.uint8)
    stripes = [slice(left, left + _STRIPE) for left in range(0, climate.shape[1], _STRIPE)]
    return [(picture[..., stripe], group_of[climate[:, stripe]]) for stripe in stripes]
