"""Reference models and a training harness for PyTorch. Importing this package imports neither torch nor Lightning."""

__version__ = "0.1.0"
