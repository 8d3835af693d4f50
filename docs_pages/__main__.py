"""`python -m docs_pages`: write every generated part again; `python -m docs_pages pictures`: the drawings, too.

The drawings ask the networks themselves, which takes half a minute; the rest is text and takes a second.
"""

import sys
from pathlib import Path

from docs_pages.pages import ROOT, write_pages


def main(words: list[str]) -> int:
    if unknown := set(words) - {"pictures"}:
        print(f"{' '.join(unknown)}: the only word is pictures.", file=sys.stderr)
        return 2
    if "pictures" in words:
        from docs_pages.pictures import PICTURES, draw

        for name in PICTURES:
            (ROOT / "docs" / "pictures" / f"architecture_{name}.svg").write_text(draw(name), encoding="utf-8")
            print(f"drew {name}")
    for path in write_pages():
        print(f"wrote {Path(path).relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
