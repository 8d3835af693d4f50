"""The data sets that ship with the package. Provenance and licences: docs/data.md."""

from pathlib import Path

FILES = Path(__file__).parent / "files"
