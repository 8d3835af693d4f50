"""One run of a proof: trained, scored again from its checkpoint, and judged if it makes pictures; each in a process.

What is finished is not done again, what was interrupted is continued: a run's `prove.json` says how far it is.
"""

import json
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

from zoo.children import Children, last_line
from zoo.errors import ZooError
from zoo.inputs import inputs_hash, judged_hash
from zoo.layout import composed
from zoo.results import Json

FOLDER = Path("runs/prove")
RECORD = "prove.json"  # in each run folder: the training's seconds, what `examine` found, by whom it was judged and how
TRAIN = [sys.executable, "-m", "zoo", "train"]
EXAMINE = [sys.executable, "-c", "import sys; from zoo.proof_runs import examine; examine(sys.argv[1], sys.argv[2])"]
JUDGE = [sys.executable, "-c", "import sys; from zoo.proof_runs import judged; judged(sys.argv[1], sys.argv[2])"]
_COMPOSING = threading.Lock()  # Hydra has one state for all threads
TOLD = ("command", "commit", "versions", "hardware", "started", "choices")  # what a row repeats of run.json


class Proof(NamedTuple):
    """One seed of one experiment, with today's hash of its inputs."""

    experiment: str
    seed: int
    inputs: str

    def __str__(self) -> str:
        return f"{self.experiment} seed {self.seed}"

    @property
    def folder(self) -> Path:
        return FOLDER / self.experiment / f"seed{self.seed}-{self.inputs}"


def compose(experiment: str, seed: int) -> Json:
    """The resolved config that `train experiment=… seed=…` composes."""
    from omegaconf import OmegaConf

    config = composed((f"experiment={experiment}",))[0].copy()
    config.seed = seed
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]


def proof_of(experiment: str, seed: int, *, anew: bool = False) -> Proof:
    """A proof with its hash; `anew`: as the files are now, not as they were when this process first read them."""
    with _COMPOSING:
        if anew:
            composed.cache_clear()
        return Proof(experiment, seed, inputs_hash(compose(experiment, seed)))


def is_finished(proof: Proof) -> bool:
    """Whether a former call trained it, with the code and the data that its hash is of."""
    return (proof.folder / "scores.json").exists() and not read_record(proof.folder).get("changed")


def prove(proof: Proof, children: Children, *, split: str) -> Json:
    """Train and examine, or take what a former call left: the scores of both, seconds, what the run says of itself.

    Of a run during which code or data changed nobody knows what its scores depend on: its `inputs` are None, and it is
    trained again when it is asked for again.
    """
    folder = proof.folder
    if not is_finished(proof):
        seconds = train(proof, children)
        changed = proof_of(proof.experiment, proof.seed, anew=True) != proof
        if changed:
            children.say(f"{proof}: code or data changed while it trained; it counts as one of unknown inputs")
        write_record(folder, {"seconds": seconds, "changed": changed})
    record = read_record(folder)
    if "examined" not in record:
        record["examined"] = children.answer_of([*EXAMINE, str(folder), split], f"Evaluating {folder}")
        write_record(folder, record)
    about = read(folder / "run.json")
    return {
        "seed": proof.seed,
        "inputs": None if record.get("changed") else proof.inputs,
        "scores": read(folder / "scores.json"),
        "evaluated": record["examined"]["scores"],
        "seconds": record["seconds"],
        "folder": folder.as_posix(),
        "about": {name: about.get(name) for name in TOLD},
        "counts": {name: value for name, value in record["examined"].items() if name != "scores"},
    }


def train(proof: Proof, children: Children) -> float | None:
    """Train in a process of its own; its seconds, or None for a run that was continued: its first part is not known."""
    folder = proof.folder
    resumed = any(folder.glob("checkpoints/*.ckpt")) and not read_record(folder).get("changed")
    if resumed:
        words = [f"resume={folder}"]
    else:
        shutil.rmtree(folder, ignore_errors=True)  # nothing to continue
        words = [f"experiment={proof.experiment}", f"seed={proof.seed}", f"run_dir={folder}"]
    log = folder.parent / f"{folder.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    children.say(f"{proof}: {'continuing' if resumed else 'training'} → {log}")
    started = time.monotonic()
    code = children.log_of([*TRAIN, *words], log, str(proof))
    if code:
        raise ZooError(
            f"{proof}: training stopped with exit code {code}: {last_line(log.read_text('utf-8'))}\n"
            f"Its output is in {log}; the same command continues."
        )
    return None if resumed else round(time.monotonic() - started, 1)


def judge(proof: Proof, run: Json, classifier: Proof, children: Children) -> Json:
    """A run with what a classifier's run finds in its samples; another classifier, or one retrained, judges anew."""
    record = read_record(proof.folder)
    known = not read_record(classifier.folder).get("changed")
    by = judged_hash(proof.inputs, classifier.inputs) if known else None
    judged_by = [by, read(classifier.folder / "run.json").get("started")]
    if record.get("judge") != judged_by:
        children.say(f"{proof}: judging by {classifier.experiment}")
        command = [*JUDGE, str(proof.folder), str(classifier.folder)]
        record["judged"] = children.answer_of(command, f"Judging {proof.folder}")
        record["judge"] = judged_by
        write_record(proof.folder, record)
    return {**run, "scores": run["scores"] | record["judged"], "judged_by": by}


def read(file: Path) -> Json:
    return json.loads(file.read_text(encoding="utf-8"))


def read_record(folder: Path) -> Json:
    return read(folder / RECORD) if (folder / RECORD).exists() else {"seconds": None}


def write_record(folder: Path, record: Json) -> None:
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


# In processes of their own --------------------------------------------------------------------------------------------


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
