"""`zoo prove`: train what the experiments promise, and write down what came out.

zoo prove                                   every experiment that promises a score, as many seeds as it says
zoo prove digits_lenet5 'earth_*' seeds=1   these, one seed each; or seeds=[4,7]
zoo prove families seeds=1 jobs=2           one experiment of every family of networks, two processes side by side
zoo prove --changed                         what has no row yet, or whose row is of another config, code or data
zoo prove --changed dry=true                only say which these are, and how long they may take

Keys: seeds, jobs (1; the processes share the cores), out (RESULTS.md; the JSON beside it has the same name), changed
(false; the same as --changed), dry (false).

An experiment is trained by the command a person would type, in a process of its own for each seed, and scored a second
time from its checkpoint in another process: the difference must be zero. Scores go to a JSON file, and the table is
written from that file alone. One whose `expect` names a `judge` makes pictures: the judge, an experiment that trains a
classifier, is trained first, then `zoo judge` looks at the samples, and what it finds are scores called `judged/…`.

A run lives in `runs/prove/<experiment>/seed<S>-<hash>/`, the hash being of all that its numbers depend on: the config,
the code it runs, the data it reads. What is finished there is not run again, what was interrupted is continued: the
same command goes on after Ctrl-C. A run that fails does not hide the others; it is said at the end, with exit code 2.
"""

import fnmatch
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from zoo.checks import CONFIGS, options, read_yaml
from zoo.children import Children, Terminated, side_by_side
from zoo.errors import ZooError
from zoo.inputs import judged_hash
from zoo.keys import Key, defaults, read, truth, whole
from zoo.proof_runs import Proof, is_finished, judge, proof_of, prove
from zoo.results import Json, paper_of, passes, read_results, row, verdict
from zoo.suggest import nearest
from zoo.tables import results_table

FAMILIES = "families"  # the word that chooses one experiment of each


class Plan(NamedTuple):
    """What is to be done for one experiment: which seeds are run, and which runs of a former call are kept."""

    expect: Json
    split: str
    proofs: list[Proof]
    kept: list[Json]


def main(args: Sequence[str]) -> int:
    """Prove the chosen experiments; ZooError if one fails, stays below its floor or does not reproduce."""
    patterns, own = parse(args)
    chosen = select(patterns)
    out: Path = own["out"]
    file = out.with_name(out.stem.lower() + ".json")
    rows = read_results(file)["rows"]
    plans = {name: plan(name, chosen[name], rows.get(name), own["seeds"], own["changed"]) for name in chosen}
    if own["dry"]:
        tell(plans, own["jobs"])
        return 0
    started, stamp = time.monotonic(), time.strftime("%Y-%m-%d %H:%M")
    children = Children(own["jobs"])
    try:
        failed, runs, trained = carry_out(plans, children, file, out)
    except (KeyboardInterrupt, Terminated):
        command = shlex.join(["python", "-m", "zoo", "prove", *args])
        print(f"What is finished is kept, what was begun is continued: {command}", file=sys.stderr)
        raise
    seconds = round(time.monotonic() - started, 1)
    took = {"started": stamp, "seconds": seconds, "runs": runs, "trained": trained}
    command = shlex.join(["zoo", "prove", *(word for word in args if not word.startswith("out="))])
    results = write_results(file, out, calls={command: took | {"jobs": children.jobs, "cores": children.cores}})
    print(f"{trained} of {runs} runs trained now, in {seconds / 60:.1f} min; wrote {out} and {file}")
    for name in plans:
        if name not in failed and not passes(results["rows"][name]):
            failed[name] = verdict(results["rows"][name])
    if failed:
        raise ZooError(f"Not proved: {'; '.join(f'{name} ({why})' for name, why in failed.items())}.")
    return 0


# What to do -----------------------------------------------------------------------------------------------------------


def parse(args: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The patterns, and all keys with their values; `seeds` is None for the experiments' own."""
    keys = {
        "seeds": Key(read_seeds),
        "jobs": Key(whole(1, 256), 1),
        "out": Key(read_table, Path("RESULTS.md")),
        "changed": Key(truth, False),
        "dry": Key(truth, False),
    }
    words = ["changed=true" if word == "--changed" else word for word in args]
    for word in words:
        if word.startswith("-"):
            raise ZooError(f"{word}: there is no such flag. The only one is --changed.")
    given = read([word for word in words if "=" in word], keys)
    return [word for word in words if "=" not in word], {**defaults(keys), **given}


def read_seeds(value: str) -> list[int]:
    """`3`: 0, 1, 2; `4,7` or `[4,7]`: these."""
    numbers = [number.strip() for number in value.strip("[]").split(",")]
    if not all(number.isdecimal() for number in numbers) or value == "0":
        raise ValueError("must be how many seeds, such as 3, or which, such as [4,7].")
    return sorted({int(n) for n in numbers}) if "," in value or "[" in value else list(range(int(value)))


def read_table(value: str) -> Path:
    if not value.endswith(".md"):
        raise ValueError("must be a file name that ends in .md.")
    return Path(value)


def select(patterns: Sequence[str]) -> dict[str, Json]:
    """The `expect` of every experiment that has one and that a pattern names: whole, in part, or as a glob.

    The pattern `families` names those whose `expect` says that they stand for a family.
    """
    found = {name: read_yaml(CONFIGS / "experiment" / f"{name}.yaml").get("expect") for name in options()["experiment"]}
    experiments: dict[str, Json] = {name: expect for name, expect in found.items() if expect}
    chosen: set[str] = set()
    for pattern in patterns or ["*"]:
        fitting = {name for name in experiments if pattern in name or fnmatch.fnmatchcase(name, pattern)}
        fitting = {pattern} if pattern in experiments else fitting
        if pattern == FAMILIES:
            fitting = {name for name, expect in experiments.items() if expect.get("family")}
        if not fitting:
            near = nearest(pattern, [FAMILIES, *sorted(experiments)])
            hint = f"Did you mean {near}?" if near else f"There are {', '.join(sorted(experiments))}."
            raise ZooError(f"No experiment with an expected score is called like {pattern}. {hint}")
        chosen |= fitting
    return {name: expect for name, expect in experiments.items() if name in chosen}


def plan(name: str, expect: Json, entry: Json | None, seeds: Sequence[int] | None, changed: bool) -> Plan:
    """What is to be run, and what of the former row stays: runs of today's inputs, where they are not run again.

    Without `seeds` the row is of the experiment's own seeds and no others; with them what it has besides stays.
    """
    wanted = expect["seeds"] if seeds is None else seeds
    former = {run["seed"]: run for run in (entry["runs"] if entry else [])}
    today = {seed: proof_of(name, seed) for seed in dict.fromkeys([*wanted, *former])}
    judge = proof_of(expect["judge"], 0).inputs if expect.get("judge") else None
    current = {
        seed: run
        for seed, run in former.items()
        if run.get("inputs") == today[seed].inputs
        and run.get("judged_by") == (judged_hash(today[seed].inputs, judge) if judge else None)
    }
    kept = {seed: run for seed, run in current.items() if (changed if seed in wanted else seeds is not None)}
    split = "test" if judge else expect["metric"].partition("/")[0]
    return Plan(expect, split, [today[seed] for seed in wanted if seed not in kept], list(kept.values()))


def tell(plans: dict[str, Plan], jobs: int) -> None:
    """Print what would be run, and how long it may take."""
    runs, minutes = 0, 0.0
    for name, each in plans.items():
        if each.proofs:
            own = each.expect["minutes"] * sum(not is_finished(proof) for proof in each.proofs)
            print(f"{name}: seed {', '.join(str(proof.seed) for proof in each.proofs)}; about {own:g} min")
            runs, minutes = runs + len(each.proofs), minutes + own
    print(f"{runs} runs to do, about {minutes / jobs:.0f} min with jobs={jobs}")


# Doing it -------------------------------------------------------------------------------------------------------------


def carry_out(plans: dict[str, Plan], children: Children, file: Path, out: Path) -> tuple[dict[str, str], int, int]:
    """Run what is planned; a row is written when its last run is there.

    Returns what failed and why, how many runs there were, judges included, and how many of them were trained.
    """
    judges = {each.expect["judge"] for each in plans.values() if each.proofs and each.expect.get("judge")}
    ready: dict[str, Future[Proof]] = {name: Future() for name in sorted(judges)}
    splits = {(name, 0): "test" for name in ready}  # first, as generators wait for them
    splits |= {(name, proof.seed): each.split for name, each in plans.items() for proof in each.proofs}
    runs = {name: list(each.kept) for name, each in plans.items()}
    keys = list(splits)
    failed: dict[str, str] = {}
    trained = 0

    def work(name: str, seed: int) -> tuple[Json, bool]:
        proof = proof_of(name, seed, anew=True)
        is_judge = name in ready and seed == 0
        try:
            is_new = not is_finished(proof)
            run = prove(proof, children, split=splits[name, seed])
            if is_judge:
                ready[name].set_result(proof)
        except BaseException as error:
            if is_judge:
                ready[name].set_exception(error)
            raise
        if name in plans and (by := plans[name].expect.get("judge")):
            run = judge(proof, run, ready[by].result(), children)
        return run, is_new

    def done(place: int, future: "Future[tuple[Json, bool]]") -> None:
        nonlocal trained
        name, seed = keys[place]
        try:
            run, is_new = future.result()
        except ZooError as error:
            children.say(str(error))
            failed.setdefault(name, str(error).splitlines()[0])
            return
        trained += is_new
        if name in plans and any(proof.seed == seed for proof in plans[name].proofs):  # else a judge nobody asked for
            metric = plans[name].expect["metric"]
            took = "" if run["seconds"] is None else f", {run['seconds']:.0f} s"
            children.say(f"{name} seed {seed}: {metric} {run['scores'][metric]:.4g}{took}")
            runs[name].append(run)
            finish(name)

    def finish(name: str) -> None:
        if len(runs[name]) == len(plans[name].kept) + len(plans[name].proofs):
            entry = row(plans[name].expect, runs[name], paper=paper_of(runs[name][-1]["about"]["choices"].get("model")))
            write_results(file, out, rows={name: entry})
            if plans[name].proofs:
                children.say(f"{name}: {verdict(entry)}")

    for name in plans:
        if not plans[name].proofs:
            finish(name)
    side_by_side([partial(work, *key) for key in keys], children, done=done)
    return failed, len(keys), trained


def write_results(file: Path, out: Path, *, rows: Json | None = None, calls: Json | None = None) -> Json:
    """Put rows and calls into the results as they are in the file now, which the table is written from; both by name.

    What was proved before stays, but for experiments that are no more. Of a command that call is kept which trained
    most: what it takes from nothing, not what was left to do after an interruption.
    """
    results = read_results(file)
    all_rows = results["rows"] | (rows or {})
    for command, took in (calls or {}).items():
        if took["trained"] and took["trained"] >= results["calls"].get(command, took)["trained"]:
            results["calls"][command] = took
    there = select([])
    results = {
        "rows": {name: all_rows[name] for name in sorted(all_rows) if name in there},
        "calls": dict(sorted(results["calls"].items())),
    }
    for path, text in ((file, json.dumps(results, indent=1, ensure_ascii=False) + "\n"), (out, results_table(results))):
        aside = path.with_name(f".{path.name}.tmp")
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    return results
