"""docs/messages.md: every sentence that a mistake can end with, read from the code that raises it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ZOO = Path(__file__).resolve().parent.parent / "zoo"
HEAD = """\
# All messages

<!-- written by `python -m docs_pages`: change nothing here -->

Every sentence that a command of this zoo can end with, by the module that raises it; `…` stands for what differs from
case to case. They are made to be sufficient: each names what was given and says what to do. Causes and cures of the
frequent ones: [trouble](trouble.md).
"""


def template(node: ast.expr) -> str:
    """A text as it stands in the code, each `{…}` of an f-string as `…`."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(template(part) for part in parts)
        case ast.FormattedValue():
            return "…"
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return template(left) + template(right)
    return "…"


def texts(file: Path) -> Iterator[str]:
    """Every text of a file, as templates: the whole of an f-string, not its parts."""
    parsed = ast.parse(file.read_text(encoding="utf-8"))
    inner = {
        id(part)
        for node in ast.walk(parsed)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
        if part is not node
    }
    for node in ast.walk(parsed):
        if isinstance(node, ast.JoinedStr | ast.Constant) and id(node) not in inner and template(node) != "…":
            yield template(node)


def raised(file: Path) -> list[str]:
    """The sentences that a file raises, in its order."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.Raise(exc=ast.Call(func=ast.Name(id="ZooError" | "ValueError"), args=[text, *_])):
                found.append((node.lineno, " ".join(template(text).split())))
    shown = (re.sub(r"…(?:[ .]?…)+\.?|…\.(?= |$)", "…", text) for _, text in sorted(found))
    return list(dict.fromkeys(text for text in shown if len(text.replace("…", "").strip(" :.")) > 8))


def messages() -> str:
    """The page."""
    parts = [HEAD]
    for file in sorted(ZOO.rglob("*.py")):
        if sentences := raised(file):
            name = file.relative_to(ZOO.parent).as_posix()
            about = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
            parts += [
                "",
                f"## {name}",
                "",
                " ".join(about.split()),
                "",
                *(f"- {escaped(sentence)}" for sentence in sentences),
            ]
    return "\n".join(parts) + "\n"


def escaped(sentence: str) -> str:
    for character in "\\*_[]<>`|":
        sentence = sentence.replace(
            character, f"\\{character}" if character not in "<>" else {"<": "&lt;", ">": "&gt;"}[character]
        )
    return sentence
