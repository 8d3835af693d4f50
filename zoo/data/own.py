"""What data of a person's own have in common: a seeded split by fractions, notes, a fingerprint of the files."""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from zoo.data.module import DataModule
from zoo.data.splits import stratified
from zoo.errors import ZooError


@rank_zero_only
def note(text: str) -> None:
    """Say on stderr what was done with a person's data that they may not expect."""
    print(f"note: {text}", file=sys.stderr, flush=True)


def listed(items: Sequence[str], separator: str = ", ") -> str:
    """The first five items, and how many more there are."""
    more = [f"and {len(items) - 5} more"] if len(items) > 5 else []
    return separator.join([*items[:5], *more])


def identify(facts: dict[str, Any], source: str, content: bytes) -> None:
    """Set the fact `fingerprint`; say so where it is not the one that a stored config states."""
    found, stated = hashlib.sha256(content).hexdigest()[:16], facts["fingerprint"]
    if stated not in (None, found):
        note(
            f"{source} is not what the run was trained on (fingerprint {stated}, now {found}): "
            "its other splits may hold examples that were trained on."
        )
    facts["fingerprint"] = found


@dataclass(kw_only=True, eq=False)
class OwnData(DataModule):
    """Base of what reads files of a person's own: splits by `split_seed`, facts that a stored config may already state.

    Facts left None are filled in from the files. A config stored with a run states them all, so an evaluation encodes
    its input as the training did, even where the files have changed since; then it says so.
    """

    val_fraction: float = 0.1
    test_fraction: float = 0.2
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.fractions = {"test": self.test_fraction, "val": self.val_fraction}
        for name, fraction in self.fractions.items():
            if not 0 < fraction < 1:
                raise ValueError(f"{name}_fraction={fraction}: must be above 0 and below 1")
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"val_fraction={self.val_fraction}: must leave some for training beside {self.test_fraction} for test"
            )

    def divide(
        self, targets: Tensor, classes: Sequence[str], *, parts: Sequence[str] = ("test", "val")
    ) -> dict[str, Tensor]:
        """Indices of train and of each of `parts`, stratified by the classes `targets` (N,), by `split_seed`.

        Each part has its fraction of N and at least one of each class; a class that cannot give one is refused.
        """
        present = targets.unique()
        rest, indices = torch.arange(len(targets)), {}
        for part in parts:
            held_out = min(max(round(len(targets) * self.fractions[part]), len(present)), len(rest))
            kept, taken = stratified(targets[rest], held_out, seed=self.split_seed)
            indices[part], rest = rest[taken], rest[kept]
        indices["train"] = rest
        for label in present.tolist():
            if not all((targets[part] == label).any() for part in indices.values()):
                count = int((targets == label).sum())
                has = f"class {classes[label]!r} has" if len(classes) > 1 else "there is" if count == 1 else "there are"
                mend = "add more, remove the class," if len(classes) > 1 else "add more"
                raise ZooError(
                    f"{has} {count} example{'s' if count > 1 else ''}, too few for one in each of "
                    f"{', '.join(reversed(indices))}: {mend} or change the fractions."
                )
        return indices
