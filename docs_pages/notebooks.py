"""docs/notebooks.md: what each lesson shows, in the words of its first cells."""

import json
import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
HEAD = """\
# Notebooks

<!-- written by `python -m docs_pages`: change nothing here -->

Lessons to run and to change, in `notebooks/` of the repository. Each takes less than a minute on one core and trains on
the data that ship with the zoo. They are stored with their outputs, so they can be read without being run.

```bash
python -m pip install -e ".[notebooks]"
jupyter lab notebooks
```
"""


def notebooks() -> str:
    """The page."""
    parts = [HEAD]
    for path in sorted(FOLDER.glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        opening = "".join(next(cell["source"] for cell in cells if cell["cell_type"] == "markdown"))
        title, _, rest = opening.strip().lstrip("# ").partition("\n")
        shown = re.split(r"\n## (?!What you should see)", rest)[0].replace(
            "## What you should see", "**What you should see**"
        )
        parts += ["", f"## {title}", "", f"`notebooks/{path.name}`", "", shown.strip().replace("](../docs/", "](")]
    return "\n".join(parts) + "\n"
