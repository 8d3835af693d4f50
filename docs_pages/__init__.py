"""The generated parts of README.md and docs/: `python -m docs_pages` writes them, a test holds them.

Prose is written by hand; tables come from results.json, parity.json, zoo/listing.json, the configs and the docstrings
of the model files; pictures of architectures come from the networks themselves.
"""
