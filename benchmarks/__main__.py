"""`python -m benchmarks [part …] [rounds=N] [data=FOLDER] [peers=FOLDER] [python=PATH] [out=FOLDER] [quick=true]`."""

import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from benchmarks.page import PARTS, read, write
from benchmarks.record import ROOT, Options, circumstances, is_busy
from zoo.errors import ZooError
from zoo.suggest import nearest

KEYS = ("rounds", "data", "peers", "python", "out", "quick")


def main(words: Sequence[str]) -> None:
    """Measure the parts, one after the other; each is written when it is done. `page` writes without measuring."""
    chosen = [word for word in words if "=" not in word]
    values = dict(word.split("=", 1) for word in words if "=" in word)
    for word in (*chosen, *values):
        known = (*KEYS,) if word in values else (*PARTS, "page")
        if word not in known:
            meant = nearest(word, list(known))
            hint = f" Did you mean {meant}?" if meant else ""
            raise ZooError(
                f"{word}: there are the parts {', '.join(PARTS)}, page, and the keys {', '.join(KEYS)}.{hint}"
            )
    if not values.get("rounds", "1").isdigit() or values.get("rounds") == "0":
        raise ZooError(f"rounds={values['rounds']}: must be a whole number of at least 1")
    if values.get("quick", "false") not in ("true", "false"):
        raise ZooError(f"quick={values['quick']}: must be true or false")
    options = Options(
        rounds=int(values["rounds"]) if "rounds" in values else None,
        quick=values.get("quick") == "true",
        data=Path(values.get("data", "downloads")),
        peers=Path(values["peers"]) if "peers" in values else None,
        python=values.get("python", sys.executable),
    )
    if options.quick and "out" not in values:
        raise ZooError("quick=true: its times mean nothing; say out=FOLDER, elsewhere than in docs.")
    if options.peers is not None and not options.peers.is_dir():
        raise ZooError(f"peers={options.peers}: there is no such folder; docs/benchmarks.md says what belongs into it.")
    out = Path(values.get("out", ROOT / "docs"))
    from zoo.report import quieten_lightning

    quieten_lightning()
    there = circumstances(options)
    there["busy"] = is_busy(there)
    if there["busy"]:
        print(f"The machine is busy (load average {there['load_average']}): times will not be right.", flush=True)
    for name in chosen or PARTS:
        if name == "page":
            continue
        about = {**there, "date": time.strftime("%Y-%m-%d %H:%M:%S")}
        print(f"{name}: {PARTS[name]}", flush=True)
        start = time.perf_counter()
        part = import_module(f"benchmarks.{name}").measure(options)
        about["seconds"] = round(time.perf_counter() - start)
        for bar in part.bars:
            if not bar.met:
                print(f"  not met: {bar.name}: {bar.measured}, {'≥' if bar.at_least else '≤'} {bar.limit} {bar.unit}")
        write({**read(out), name: part.plain(about)}, out)
        print(f"  {about['seconds']} s", flush=True)
    if "page" in chosen:
        write(read(out), out)
    print(f"wrote {out / 'benchmarks.md'}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ZooError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
