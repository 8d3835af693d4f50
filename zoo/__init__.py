"""Reference models and a training harness for PyTorch. Importing this package imports neither torch nor Lightning."""

from typing import Any

__version__ = "0.1.0"


def load(path: Any, *, trust: bool = False) -> Any:
    """A trained network, its preprocessing and class names, from a run folder or checkpoint: `zoo.evaluation.load`."""
    from zoo.evaluation import load

    return load(path, trust=trust)
