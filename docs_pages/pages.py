"""What is generated: sections of pages between `<!-- generated: name -->` and `<!-- end -->`, and whole pages."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from docs_pages.families import FAMILIES
from docs_pages.messages import messages
from docs_pages.notebooks import notebooks
from docs_pages.reference import reference
from docs_pages.tables import deviations, experiments, models, overview, parity, results, task, tasks_table
from zoo.checks import options

ROOT = Path(__file__).resolve().parent.parent
SECTION = re.compile(r"<!-- generated: (\S+) -->\n.*?<!-- end -->", re.S)


def fill(text: str, sections: Mapping[str, str]) -> str:
    """The text with its generated sections written again. KeyError: it asks for one that there is not."""
    return SECTION.sub(lambda found: f"<!-- generated: {found[1]} -->\n{sections[found[1]]}\n<!-- end -->", text)


def generated() -> Iterator[tuple[Path, str]]:
    """Every page with a generated part, and what it should hold."""
    found, proofs = _read("results.json")["rows"], _read("parity.json")
    whole = {"overview": overview(found, proofs, "docs/families/"), "tasks": tasks_table()}
    yield ROOT / "README.md", fill((ROOT / "README.md").read_text(encoding="utf-8"), whole)
    docs = ROOT / "docs"
    index = {"overview": overview(found, proofs, "families/"), "tasks": tasks_table()}
    yield docs / "index.md", fill((docs / "index.md").read_text(encoding="utf-8"), index)
    for family in FAMILIES:
        path = docs / "families" / f"{family.page}.md"
        sections = {
            "models": models(family),
            "results": results(family, found),
            "parity": parity(family, proofs),
            "deviations": deviations(family),
        }
        yield path, fill(path.read_text(encoding="utf-8"), sections)
    for name in options()["task"]:
        path = docs / "tasks" / f"{name}.md"
        if path.exists():
            yield path, fill(path.read_text(encoding="utf-8"), {"task": task(name)})
    yield docs / "results.md", experiments(found, proofs)
    yield docs / "reference.md", reference()
    yield docs / "messages.md", messages()
    yield docs / "notebooks.md", notebooks()


@cache
def _read(name: str) -> dict:
    return json.loads((ROOT / name).read_text(encoding="utf-8"))


def write_pages() -> list[Path]:
    """Write what is stale; the paths."""
    written = []
    for path, text in generated():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            written.append(path)
    return written
