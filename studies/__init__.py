"""Textbook claims put to the test, one module each: `python -m studies.depth`."""
