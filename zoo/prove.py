"""`zoo prove [pattern …] [seeds=3] [out=RESULTS.md]`: train what the experiments promise, and write down what came out.

Every experiment with an `expect` is trained by the command a person would type, in a process of its own for each seed,
and scored a second time from its checkpoint in another process: the difference must be zero. The scores go to a JSON
file, and the table is written from that file alone.

An experiment whose `expect` names a `judge` makes pictures: the judge, an experiment that trains a classifier, is run
first, then `zoo judge` looks at the samples, and what it measures are scores called `judged/…`. A judge with another
config judges anew.

A run lives in `runs/prove/<experiment>/seed<S>-<hash of the config>/`. What is finished there is not run again, what
was interrupted is continued. A changed config has another hash, so another folder; after a change of the code that
matters, remove the folder.
"""

import fnmatch
import hashlib
import json
import math
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zoo.checks import CONFIGS, options, read_yaml
from zoo.errors import ZooError
from zoo.suggest import nearest

FOLDER = Path("runs/prove")
RECORD = "prove.json"  # in each run folder: the training's wall time, and what `examine` found
TRAIN = [sys.executable, "-m", "zoo", "train"]
JUDGE = [sys.executable, "-c", "import sys; from zoo.prove import judged; judged(sys.argv[1], sys.argv[2])"]
EXAMINE = [sys.executable, "-c", "import sys; from zoo.prove import examine; examine(sys.argv[1], sys.argv[2])"]
Json = dict[str, Any]


class Proof(NamedTuple):
    """One seed of one experiment."""

    experiment: str
    seed: int
    folder: Path


def main(args: Sequence[str]) -> int:
    """Prove the experiments whose names fit a pattern; ZooError if one stays below its floor or does not reproduce."""
    patterns, seeds, out = parse(args)
    chosen = select(patterns)
    results_file = out.with_name(out.stem.lower() + ".json")
    results = {name: entry for name, entry in read_results(results_file).items() if name in select([])}
    for experiment, expect in chosen.items():
        judge = None
        if expect.get("judge"):
            judge = proof_of(expect["judge"], 0)
            prove(judge, split="test")
        split = "test" if judge else expect["metric"].partition("/")[0]
        runs = [
            prove(proof_of(experiment, seed), split=split, judge=judge)
            for seed in (expect["seeds"] if seeds is None else seeds)
        ]
        entry = summary(expect, runs)
        print(f"{experiment}: {verdict(entry)}", flush=True)
        results[experiment] = entry
        write_results(results, results_file, out)
    print(f"wrote {out} and {results_file}")
    failed = [f"{name} ({verdict(results[name])})" for name in chosen if not passes(results[name])]
    if failed:
        raise ZooError("Not proved: " + "; ".join(failed) + ".")
    return 0


def parse(args: Sequence[str]) -> tuple[list[str], list[int] | None, Path]:
    """Patterns, seeds (`3`: 0, 1, 2; `4,7` or `[4,7]`: these; None: the experiment's own) and the table's file."""
    patterns, seeds, out = [], None, Path("RESULTS.md")
    for word in args:
        key, equals, value = word.partition("=")
        if not equals:
            patterns.append(word)
        elif key == "out" and value.endswith(".md"):
            out = Path(value)
        elif key == "out":
            raise ZooError(f"out={value}: must be a file name that ends in .md")
        elif key == "seeds":
            numbers = value.strip("[]").split(",")
            if not all(number.strip().isdigit() for number in numbers) or value == "0":
                raise ZooError(f"seeds={value}: must be how many seeds, such as 3, or which, such as [4,7]")
            seeds = [int(n) for n in numbers] if "," in value or "[" in value else list(range(int(value)))
        else:
            raise ZooError(f"zoo prove {word}: the keys are seeds and out; other words choose experiments by name.")
    return patterns, seeds, out


def select(patterns: Sequence[str]) -> dict[str, Json]:
    """The `expect` of every experiment that has one and that a pattern names: whole, in part, or as a glob."""
    found = {name: read_yaml(CONFIGS / "experiment" / f"{name}.yaml").get("expect") for name in options()["experiment"]}
    experiments: dict[str, Json] = {name: expect for name, expect in found.items() if expect}
    chosen: set[str] = set()
    for pattern in patterns or ["*"]:
        fitting = {name for name in experiments if pattern in name or fnmatch.fnmatchcase(name, pattern)}
        fitting = {pattern} if pattern in experiments else fitting
        if not fitting:
            near = nearest(pattern, sorted(experiments))
            hint = f"Did you mean {near}?" if near else f"There are {', '.join(sorted(experiments))}."
            raise ZooError(f"No experiment with an expected score is called like {pattern}. {hint}")
        chosen |= fitting
    return {name: expect for name, expect in experiments.items() if name in chosen}


def compose(experiment: str, seed: int) -> Json:
    """The resolved config that `train experiment=… seed=…` composes."""
    import hydra
    from omegaconf import OmegaConf

    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = hydra.compose("train", overrides=[f"experiment={experiment}", f"seed={seed}"])
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def config_hash(config: Json) -> str:
    """Eight hexadecimal digits of what the run depends on; what is expected of it is no part of that."""
    kept = {name: value for name, value in config.items() if name != "expect"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]


def proof_of(experiment: str, seed: int) -> Proof:
    return Proof(experiment, seed, FOLDER / experiment / f"seed{seed}-{config_hash(compose(experiment, seed))}")


# One run --------------------------------------------------------------------------------------------------------------


def prove(proof: Proof, *, split: str, judge: Proof | None = None) -> Json:
    """Train and examine, or take what a former call left: the scores of both, seconds, what the run says of itself."""
    folder = proof.folder
    record_file = folder / RECORD
    if not (folder / "scores.json").exists():
        seconds = train(proof)
        record_file.write_text(json.dumps({"seconds": seconds}) + "\n", encoding="utf-8")
    record: Json = json.loads(record_file.read_text(encoding="utf-8")) if record_file.exists() else {"seconds": None}
    if "examined" not in record:
        record["examined"] = answer([*EXAMINE, str(folder), split], f"Evaluating {folder}")
        record_file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    found: Json = {}
    if judge is not None:
        if record.get("judge") != judge.folder.as_posix():
            print(f"{proof.experiment} seed {proof.seed}: judging by {judge.experiment}", flush=True)
            record["judged"] = answer([*JUDGE, str(folder), str(judge.folder)], f"Judging {folder}")
            record["judge"] = judge.folder.as_posix()
            record_file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        found = record["judged"]
    about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return {
        "seed": proof.seed,
        "scores": json.loads((folder / "scores.json").read_text(encoding="utf-8")) | found,
        "evaluated": record["examined"]["scores"],
        "seconds": record["seconds"],
        "folder": folder.as_posix(),
        "about": {
            name: about.get(name) for name in ("command", "commit", "versions", "hardware", "started", "choices")
        },
        "counts": {name: value for name, value in record["examined"].items() if name != "scores"},
    }


def train(proof: Proof) -> float | None:
    """Train in a process of its own; its seconds, or None for a run that was continued: its first part is not known."""
    folder = proof.folder
    resumed = any(folder.glob("checkpoints/*.ckpt"))
    if resumed:
        words = [f"resume={folder}"]
    else:
        shutil.rmtree(folder, ignore_errors=True)  # stopped before its first checkpoint: nothing to continue
        words = [f"experiment={proof.experiment}", f"seed={proof.seed}", f"run_dir={folder}"]
    log = folder.parent / f"{folder.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    name = f"{proof.experiment} seed {proof.seed}: {'continuing' if resumed else 'training'}"
    print(f"{name} → {log}", flush=True)
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen([*TRAIN, *words], stdout=file, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                time.sleep(0.2)
                if sys.stdout.isatty():
                    elapsed = time.monotonic() - started
                    print(
                        f"\r\033[K{name} · {elapsed:.0f} s · {last_line(log.read_text('utf-8'))}"[:120],
                        end="",
                        flush=True,
                    )
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
            if sys.stdout.isatty():
                print("\r\033[K", end="")
    if process.returncode:
        raise ZooError(
            f"{proof.experiment} seed {proof.seed}: training stopped with exit code {process.returncode}: "
            f"{last_line(log.read_text('utf-8'))}\nIts output is in {log}; the same command continues."
        )
    return None if resumed else round(time.monotonic() - started, 1)


def answer(command: Sequence[str], what: str) -> Json:
    """The JSON that a command prints last."""
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise ZooError(f"{what} failed: {last_line(run.stderr or run.stdout)}")
    return json.loads(run.stdout.splitlines()[-1])


def last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no output")


def examine(folder: str, split: str) -> None:
    """Print as JSON the scores of a run's checkpoint, to the last digit, and the sizes of its network and data."""
    from zoo.build import build, refuse_untrusted
    from zoo.checkpoint import find_checkpoint, read_checkpoint
    from zoo.evaluation import evaluate_checkpoint
    from zoo.network import construct
    from zoo.report import quieten_lightning, summarize_example
    from zoo.run import make_task

    quieten_lightning()
    path = find_checkpoint(Path(folder))
    config = read_checkpoint(path)["zoo"]["config"]
    refuse_untrusted(config, str(path))
    data = build(config["data"], "data")()
    data.setup("test")
    network = construct(config)
    network_summary = summarize_example(make_task(config, network, data), data, split)
    found = {
        "parameters": network_summary.trainable,
        "multiply_adds": network_summary.multiply_adds,
        "form": getattr(network, "form", None),
        "splits": {name: len(part) for name, part in data.splits.items()},
        "scores": evaluate_checkpoint(path, split=split),
    }
    print(json.dumps(found))


def judged(folder: str, classifier: str) -> None:
    """Print as JSON what `zoo judge` finds of 2,000 samples, three times."""
    from zoo.judging import judge
    from zoo.report import quieten_lightning

    quieten_lightning()
    print(json.dumps(judge(Path(folder), Path(classifier))))


# From runs to results -------------------------------------------------------------------------------------------------


def summary(expect: Json, runs: Sequence[Json]) -> Json:
    """One experiment's entry in the results: what was expected, every run, mean and sample standard deviation."""
    scores = [run["scores"][expect["metric"]] for run in runs]
    differences = [abs(run["scores"][name] - value) for run in runs for name, value in run["evaluated"].items()]
    return {
        "expect": expect,
        "mean": statistics.fmean(scores),
        "std": statistics.stdev(scores) if len(scores) > 1 else None,
        "largest_difference": max(differences),
        "runs": list(runs),
    }


def reaches(entry: Json, bar: str) -> bool:
    """Whether the mean meets floor or goal; where the goal is below the floor, lower is better."""
    expect = entry["expect"]
    sign = 1 if expect["goal"] >= expect["floor"] else -1
    return sign * entry["mean"] >= sign * expect[bar]


def passes(entry: Json) -> bool:
    return reaches(entry, "floor") and entry["largest_difference"] == 0


def mean_and_std(entry: Json) -> str:
    decimals = 4 if abs(entry["mean"]) < 100 else 1
    return f"{entry['mean']:.{decimals}f}" + ("" if entry["std"] is None else f" ± {entry['std']:.{decimals}f}")


def verdict(entry: Json) -> str:
    expect = entry["expect"]
    bars = [f"{bar} {expect[bar]} {'met' if reaches(entry, bar) else 'missed'}" for bar in ("floor", "goal")]
    words = [f"{expect['metric']} {mean_and_std(entry)} (n = {len(entry['runs'])})", *bars]
    if entry["largest_difference"]:
        words.append(f"evaluation differs from training by {entry['largest_difference']:.2g}")
    return ", ".join(words)


def read_results(file: Path) -> Json:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def write_results(results: Json, file: Path, out: Path) -> None:
    """The JSON and its table, experiments by name; what was proved before stays in both."""
    ordered = dict(sorted(results.items()))
    file.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    out.write_text(table(ordered), encoding="utf-8")


def table(results: Json) -> str:
    """RESULTS.md, a function of the JSON alone."""
    head = [
        "experiment",
        "form",
        "parameters",
        "multiply-adds",
        "data: train / val / test",
        "metric",
        "mean ± std",
        "n",
    ]
    head += ["baseline", "floor", "goal", "met", "minutes", "hardware", "command"]
    lines = [
        "# Results",
        "",
        "Written by `python -m zoo prove`. Mean ± sample standard deviation over n seeds, never the best. Every score",
        "is computed a second time from its checkpoint, in another process, and must be the same to the last digit.",
        "Minutes: wall time of one run, from start to score. Multiply-adds: those of convolutions and linear layers.",
        "",
        "| " + " | ".join(head) + " |",
        "|---|---|---:|---:|---|---|---:|---:|---|---:|---:|---|---:|---|---|",
    ]
    for name, entry in results.items():
        expect, run = entry["expect"], entry["runs"][-1]
        seconds = [r["seconds"] for r in entry["runs"] if r["seconds"] is not None]
        met = "goal" if reaches(entry, "goal") else "floor" if reaches(entry, "floor") else "**no**"
        sizes = " / ".join(f"{run['counts']['splits'].get(split, 0):,}" for split in ("train", "val", "test"))
        hardware = run["about"]["hardware"]
        cells = [
            name,
            run["counts"].get("form") or "—",
            f"{run['counts']['parameters']:,}",
            f"{run['counts']['multiply_adds']:,}",
            f"{run['about']['choices']['data']}: {sizes}",
            expect["metric"],
            mean_and_std(entry),
            str(len(entry["runs"])),
            str(expect["baseline"]),
            str(expect["floor"]),
            str(expect["goal"]),
            met if entry["largest_difference"] == 0 else f"**not reproduced: {entry['largest_difference']:.2g}**",
            f"{statistics.fmean(seconds) / 60:.1f}" if seconds else "—",
            hardware.get("gpu") or f"{hardware['cores']} cores, {hardware['machine']}",
            f"`python train.py experiment={name}`",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += judged_table({name: entry for name, entry in results.items() if entry["expect"].get("judge")})
    versions = sorted(
        {f"{k} {v}" for e in results.values() for r in e["runs"] for k, v in r["about"]["versions"].items()}
    )
    commits = sorted({str(r["about"]["commit"]) for e in results.values() for r in e["runs"]})
    lines += ["", f"Versions: {', '.join(versions)}. Commits: {', '.join(commits)}.", ""]
    return "\n".join(lines)


def judged_table(results: Json) -> list[str]:
    """What pictures are to a classifier: for each judge its experiments, then the baselines on the first one's data."""
    if not results:
        return []
    columns = {
        "Fréchet": "frechet_distance",
        "kernel": "kernel_distance",
        "score": "score",
        "confident": "confident_share",
        "smallest class": "smallest_class",
        "largest class": "largest_class",
        "class as asked": "class_as_asked",
        "nearest": "nearest_distance",
        "seconds": "seconds",
    }
    lines = [
        "",
        "## Judged",
        "",
        "2,000 samples, three times for each seed of training, beside the test split, in the features of a classifier",
        "of this zoo: not the FID of the literature. Confident: the share of samples it is 90 % sure of. Classes: the",
        "shares times the number of classes. Nearest: the median distance to a training picture. Mean ± standard",
        "deviation over the seeds of training; of the baselines, in italics, over their three sets of pictures.",
        "",
        "| experiment | judge | " + " | ".join(columns) + " |",
        "|---|---|" + "---:|" * len(columns),
    ]
    for judge in dict.fromkeys(entry["expect"]["judge"] for entry in results.values()):
        judged = {name: entry["runs"] for name, entry in results.items() if entry["expect"]["judge"] == judge}
        rows = {name: [over_runs(runs, column) for column in columns.values()] for name, runs in judged.items()}
        scores = next(iter(judged.values()))[0]["scores"]
        for name in dict.fromkeys(
            key.split("/")[1] for key in scores if key.startswith("judged/") and key.count("/") == 2
        ):
            found = (
                [scores.get(f"judged/{name}/{column}{end}") for end in ("", "_std")] for column in columns.values()
            )
            rows[f"*{name.replace('_', ' ')}*"] = [with_spread(*pair) for pair in found]
        held_out = {"nearest_distance": scores.get("judged/nearest_distance_of_held_out")}
        rows["*held-out pictures*"] = [with_spread(held_out.get(column)) for column in columns.values()]
        lines += [f"| {name} | {judge} | " + " | ".join(cells) + " |" for name, cells in rows.items()]
    return lines


def over_runs(runs: Sequence[Json], name: str) -> str:
    """Mean and standard deviation of what was judged, over the seeds of training."""
    values = [run["scores"][f"judged/{name}"] for run in runs if f"judged/{name}" in run["scores"]]
    return with_spread(
        statistics.fmean(values) if values else None, statistics.stdev(values) if len(values) > 1 else None
    )


def with_spread(mean: float | None, std: float | None = None) -> str:
    return "—" if mean is None else rounded(mean, 3) + ("" if std is None else f" ± {rounded(std, 2)}")


def rounded(value: float, digits: int) -> str:
    """So many significant digits, and all before the point: 1066, 0.0123."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"
