"""`zoo predict`: what a trained network says of your own files.

zoo predict ckpt_path=runs/resnet18-image_folder/2026-01-31_12-00-00 input=photos
zoo predict ckpt_path=runs/unet-mask_folder/2026-01-31_12-00-00 input=photos out=masks
zoo predict ckpt_path=runs/mlp-csv_table/2026-01-31_12-00-00 input=new.csv out=answers.csv

What goes in and what comes out follows from the network's task:
- classification, regression: pictures (a folder or a file), a table (CSV) or the lines of a text file → a CSV file with
  a row for each, the class and all probabilities, or the number;
- segmentation: pictures → masks of the same size (PNG; pixels are class numbers, coloured by a palette), shares.csv;
- forecasting: a series (CSV, oldest row first) → the steps that follow its last row, CSV;
- language models: a text file → bits of each line, CSV, and of the whole on the screen;
- sequence to sequence: a text file, a question a line → a text file, an answer a line;
- autoencoders, VAE: pictures → reconstructions (PNG) and the error of each, errors.csv;
- GAN, diffusion: these make pictures of nothing, with `zoo sample`.

Files are prepared as in training. What cannot be read is listed with the reason and skipped; then the exit code is 2,
and what could be read is written all the same.

Keys: ckpt_path (a run folder or a checkpoint file), input, out (a file or, for pictures, a folder; default: a new name
in the run's folder predictions; nothing is ever overwritten), batch_size (64; how many go through the network at once),
trust (false); of tables separator and encoding, of text encoding (default: as in training); beam (1; how many answers
a sequence-to-sequence network follows at a time).
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zoo.build import task_class
from zoo.checkpoint import find_checkpoint, folder_of, read_checkpoint
from zoo.data.tables import SEPARATORS
from zoo.errors import ZooError
from zoo.generators import trained
from zoo.keys import Key, defaults, read, truth, whole
from zoo.prediction_answers import answers_of, forecast
from zoo.prediction_files import target_of, write_csv, written_whole
from zoo.prediction_inputs import Described, Inputs, Pictures, Rows, Snippets
from zoo.prediction_pictures import write_masks, write_reconstructions
from zoo.prediction_texts import answer_lines, score_text
from zoo.report import quieten_lightning
from zoo.signals import stop_signals
from zoo.tasks.classification import Classification
from zoo.tasks.diffusion import Diffusion
from zoo.tasks.forecasting import Forecasting
from zoo.tasks.gan import Gan
from zoo.tasks.language_model import LanguageModel
from zoo.tasks.reconstruction import Reconstruction
from zoo.tasks.regression import Regression
from zoo.tasks.segmentation import Segmentation
from zoo.tasks.seq2seq import Seq2Seq
from zoo.tasks.vae import Vae


def mark(value: str) -> str:
    """A separator of columns, as data.separator takes it."""
    if value not in ("auto", *SEPARATORS, *SEPARATORS.values()):
        raise ValueError(f"must be auto, {', '.join(SEPARATORS)} or the character itself.")
    return value


KEYS = {
    "ckpt_path": Key(),
    "input": Key(),
    "out": Key(),
    "batch_size": Key(whole(1), 64),
    "separator": Key(mark),
    "encoding": Key(),
    "beam": Key(whole(1, 1000), 1),
    "trust": Key(truth, False),
}
ALWAYS = ("ckpt_path", "input", "out", "trust", "batch_size")
# what a network reads, with the further keys that this takes
READS = {
    "pictures": (),
    "table": ("separator", "encoding"),
    "series": ("separator", "encoding"),
    "text": ("encoding",),
    "questions": ("encoding", "beam"),
}
# the ending of what is written of a task; "" is a folder
ENDINGS: dict[type, str] = {Segmentation: "", Reconstruction: "", Vae: "", Seq2Seq: ".txt"}
ENDINGS |= dict.fromkeys((Classification, Regression, LanguageModel), ".csv")


class Done(NamedTuple):
    """How many of how many inputs were predicted, those that were not and why, and what to tell."""

    predicted: int
    skipped: list[tuple[str, str]]
    said: list[str]


def main(args: Sequence[str]) -> int:
    """Predict, write, and say what was written and what was skipped: 0, or 2 where something was."""
    quieten_lightning()
    own = parse(args)
    path = find_checkpoint(Path(own["ckpt_path"]))
    checkpoint = read_checkpoint(path)
    described = checkpoint["zoo"]
    kind = task_class(described["config"], str(path), trust=own["trust"])
    reads, ending = what_it_reads(kind, described, path), ending_of(kind)
    for name in ("separator", "encoding", "beam"):
        if own[name] != KEYS[name].default and name not in READS[reads]:
            takes = ", ".join((*ALWAYS, *READS[reads]))
            raise ZooError(f"{name}={own[name]}: this network reads {reads}, and so takes {takes}.")
    source = Path(own["input"]).expanduser()
    if not source.exists():
        raise ZooError(f"input={own['input']}: there is no such file or folder.")
    name = source.stem if source.is_file() else source.resolve().name
    target = target_of(own["out"], folder_of(path) / "predictions" / f"{name}{ending}", ending)
    with stop_signals(), written_whole(target) as aside:
        task, _ = trained(checkpoint, path, {}, reads_data=False)
        done = predict(task, described, source, aside, reads=reads, options=own)
        for name, why in done.skipped:
            print(f"skipped {name}: {why}", file=sys.stderr)
        if not done.predicted:
            raise ZooError(f"input={own['input']}: nothing in it could be read, so nothing was written.")
    for line in done.said:
        print(line)
    print(f"wrote {target}")
    if done.skipped:
        total = done.predicted + len(done.skipped)
        print(f"{len(done.skipped):,} of {total:,} inputs were skipped; the others are written.", file=sys.stderr)
    return 2 if done.skipped else 0


def parse(args: Sequence[str]) -> dict[str, Any]:
    """All keys with their values."""
    own = {**defaults(KEYS), **read(args, KEYS)}
    if own["ckpt_path"] is None:
        raise ZooError("Which network? zoo predict ckpt_path=<run folder or checkpoint file> input=<your files>")
    if own["input"] is None:
        raise ZooError("Of what? input=<a folder of pictures, a picture, a CSV file or a text file>")
    return own


def what_it_reads(kind: type, described: Described, path: Path) -> str:
    """What files a network of this task reads: a key of READS. Refuses one that reads none."""
    facts, data = described["preprocessing"], described["config"]["data"]
    if issubclass(kind, Gan | Diffusion):
        raise ZooError(
            f"{path}: a network of task {kind.__name__} predicts nothing of a file, it makes pictures: "
            f"zoo sample ckpt_path={path}"
        )
    if not issubclass(kind, tuple(ENDINGS)):
        raise ZooError(f"{path}: zoo predict does not know what a network of task {kind.__name__} says.")
    if issubclass(kind, Forecasting):
        return "series"
    if "source_vocabulary" in facts:
        return "questions"
    if facts.get("columns"):
        return "table"
    if "vocabulary" in facts and not data.get("recall"):
        return "text"
    if facts.get("image_size") or data.get("by"):
        return "pictures"
    raise ZooError(f"{path} was trained on made-up examples that no file holds: there is nothing to predict from.")


def ending_of(kind: type) -> str:
    return next(ending for task, ending in ENDINGS.items() if issubclass(kind, task))


def predict(task: Any, described: Described, source: Path, aside: Path, *, reads: str, options: dict[str, Any]) -> Done:
    """Write what the task's network says of `source` into the file or folder `aside`."""
    size, encoding = options["batch_size"], options["encoding"]
    if isinstance(task, LanguageModel):
        head, rows, said = score_text(task, described, source, encoding=encoding)
        write_csv(aside, head, rows)
        return Done(len(rows), [], said)
    if isinstance(task, Seq2Seq):
        answers, skipped = answer_lines(
            task, described, source, encoding=encoding, batch_size=size, beam=options["beam"]
        )
        aside.write_text("".join(f"{answer}\n" for answer in answers), encoding="utf-8")
        return Done(len(answers) - len(skipped), skipped, [])
    if isinstance(task, Forecasting):
        head, rows, said = forecast(task, described, source, separator=options["separator"], encoding=encoding)
        write_csv(aside, head, rows)
        return Done(len(rows), [], said)
    if isinstance(task, Segmentation | Reconstruction | Vae):
        write = write_masks if isinstance(task, Segmentation) else write_reconstructions
        written, skipped = write(task, described, source, aside, batch_size=size)
        for name, (head, rows) in written.items():
            write_csv(aside / name, head, rows)
        return Done(len(next(iter(written.values()))[1]), skipped, [])
    inputs: Inputs
    if reads == "table":
        inputs = Rows(source, described, size, separator=options["separator"], encoding=encoding)
    else:
        text = reads == "text"
        inputs = Snippets(source, described, size, encoding=encoding) if text else Pictures(source, described, size)
    head, rows = answers_of(task, described, inputs)
    write_csv(aside, head, rows)
    return Done(len(rows), inputs.skipped, [])
