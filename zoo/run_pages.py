"""`zoo report`: all runs on one page, which opens in a browser without a network and without a server.

zoo report                                          everything below runs/, written to runs/report.html
zoo report runs/lenet5-digits runs/mlp-digits       these folders; a run, a sweep or a folder of such
zoo report runs out=report.html pictures=20         another file, with up to 20 MB of pictures

The page has a table of the runs to sort and search, and of the runs chosen in it the curves, pictures and differences
of their configs; scores against parameters, multiply-adds and time; and the sweeps. Every number is one of the runs'
files: scores.json, metrics.csv, model.txt, run.json, and for time the clock of the TensorBoard events. Runs that are
under way, stopped or damaged are shown as such.

Keys: out (a file; default: report.html in the first folder), pictures (8; megabytes for pictures, 0 for none: the most
telling of each run come first, and what finds no room is counted on the page).
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.keys import Key, defaults, read, whole
from zoo.run_pages_events import Album, in_turns
from zoo.run_pages_folders import Run, find, read_run, read_sweep

KEYS = {"out": Key(), "pictures": Key(whole(0, 1000), 8)}
PARTS = ("run_pages.css", "run_pages_charts.js", "run_pages.js")  # put into run_pages.html
Json = dict[str, Any]


def main(args: Sequence[str]) -> int:
    """Read the runs, write the page, say how many there are and where it lies."""
    own = {**defaults(KEYS), **read([word for word in args if "=" in word], KEYS)}
    roots = [Path(word) for word in args if "=" not in word] or [Path("runs")]
    for root in roots:
        if not root.is_dir():
            raise ZooError(f"{root}: is no folder. zoo report <folder>, of a run, a sweep or many; without one: runs")
    out = Path(own["out"]) if own["out"] else roots[0] / "report.html"
    if out.is_dir():
        raise ZooError(f"out={out}: is a folder; name a file, such as out={out / 'report.html'}")
    if out.suffix.lower() not in (".html", ".htm"):  # above all not a file of something else
        raise ZooError(f"out={out}: must end in .html")
    runs, sweeps = gather(roots)
    if not runs:
        raise ZooError(f"There is no run in {', '.join(map(str, roots))}: no folder there holds a config.yaml.")
    record = contents(runs, sweeps, room=own["pictures"] * 10**6)
    page = render(record)
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.tmp")
    try:
        aside.write_text(page, encoding="utf-8")
        os.replace(aside, out)
    finally:
        aside.unlink(missing_ok=True)
    states = dict.fromkeys(sorted((run.state for run in runs), key=lambda state: (state != "done", state)), 0)
    for run in runs:
        states[run.state] += 1
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    print(f"wrote {out} ({len(page.encode()) / 1e6:.1f} MB): {counts}")
    if record["left_out"]:
        print(f"{record['left_out']} pictures found no room in it: pictures={own['pictures']} says how many megabytes.")
    return 0


def gather(roots: Sequence[Path]) -> tuple[list[Run], list[Json]]:
    """All runs and sweeps at and below the folders, each once; on a terminal a line says how far it is."""
    runs: dict[Path, Run] = {}
    sweeps: dict[Path, Json] = {}
    for root in roots:
        folders, of_sweeps = find(root)
        for number, folder in enumerate(folders):
            if sys.stderr.isatty():
                print(f"\rreading run {number + 1} of {len(folders)}", end="", file=sys.stderr, flush=True)
            place = folder.resolve()
            if place not in runs:
                runs[place] = read_run(folder, _name(folder, root))
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        for folder in of_sweeps:
            sweeps.setdefault(folder.resolve(), {"folder": folder, "name": _name(folder, root)})
    known = list(runs.values())
    told = [read_sweep(sweep["folder"], sweep["name"], i, known) for i, sweep in enumerate(sweeps.values())]
    return sorted(known, key=lambda run: (run.started or "", run.name), reverse=True), told


def _name(folder: Path, root: Path) -> str:
    if folder == root:
        return "/".join(folder.resolve().parts[-2:])
    return folder.relative_to(root).as_posix()


def contents(runs: Sequence[Run], sweeps: list[Json], *, room: int) -> Json:
    """What the page knows, as plain data: the runs, and beside them what they share."""
    album = Album(room)
    shown: list[list[Json]] = [[] for _ in runs]
    for number, place in in_turns([run.pictures for run in runs]):
        picture = runs[number].pictures[place]
        if (image := album.put(picture)) is not None:
            shown[number].append({"tag": picture.tag, "caption": picture.caption, "image": image})
    plain = []
    for run, pictures in zip(runs, shown, strict=True):
        run.pictures = []
        told = {name: value for name, value in asdict(run).items() if name != "settings"}
        plain.append(told | {"pictures": pictures})
    return {
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "runs": plain,
        "settings": columns([run.settings for run in runs]),
        "sweeps": sweeps,
        "images": album.images,
        "sizes": album.sizes,
        "left_out": album.left_out,
    }


def columns(settings: Sequence[dict[str, str]]) -> Json:
    """For each key the values there are, and which of them each run has (-1: the run has no such key)."""
    keys = dict.fromkeys(key for of_run in settings for key in of_run)
    table: Json = {}
    for key in keys:
        values = list(dict.fromkeys(of_run[key] for of_run in settings if key in of_run))
        places = {value: place for place, value in enumerate(values)}
        table[key] = {"values": values, "of": [places[run[key]] if key in run else -1 for run in settings]}
    return table


def render(record: Json) -> str:
    """The page: one HTML file with its style, its scripts and the data; nothing of a run is ever read as HTML."""
    folder = Path(__file__).parent
    page = (folder / "run_pages.html").read_text(encoding="utf-8")
    for part in PARTS:
        page = page.replace(f"/* {part} */", (folder / part).read_text(encoding="utf-8"))
    data = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # inside <script> only "<" could begin something else; lone surrogates of odd file names cannot be written
    data = data.replace("<", "\\u003c").encode("utf-8", errors="replace").decode("utf-8")
    return page.replace('"the data"', data)
