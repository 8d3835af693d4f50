"""Nonsense on the command line and in files: each time one sentence or a right run, never a traceback, silence or code.

The default suite draws a few examples, always the same; `-m slow` draws thousands, others each time. Training stops
where it would begin, so that all that is checked before it is, and nothing trains.
"""

import copy
import io
import pickle
import random
import resource
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import cli_mutations as made
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import zoo.evaluation
import zoo.launching
import zoo.run
from zoo import cli
from zoo.checks import known_keys

WITNESS = Path("executed")  # made by whatever runs what it should not
TOUCH = f"touch {WITNESS}"
TINY = ["trainer.accelerator=cpu", "logger=csv", "run_dir=fuzzed"]


class Fitting(BaseException):
    """Training would begin now."""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder, no training, and memory that ends before the machine's."""

    def fit(*args: Any, **kwargs: Any) -> None:
        raise Fitting

    monkeypatch.chdir(tmp_path_factory.mktemp("fuzz"))
    monkeypatch.setattr(pl.Trainer, "fit", fit)
    for place in (zoo.launching, zoo.run, zoo.evaluation):  # where several processes are started
        monkeypatch.setattr(place, "launch", fit)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    if (statm := Path("/proc/self/statm")).exists():
        taken = int(statm.read_text().split()[0]) * resource.getpagesize()  # of addresses
        resource.setrlimit(resource.RLIMIT_AS, (taken + 8 * 2**30, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


def answer(*words: str) -> str:
    """What a command says; "" where it would train. Fails on a bug, on silence, and where something was executed."""
    shutil.rmtree("fuzzed", ignore_errors=True)  # of the example before
    out, err = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of what is then refused
            code = cli.main(words)
    except Fitting:
        return ""
    finally:
        assert not WITNESS.exists()
    assert code in (0, 2)
    said = err.getvalue() if code else out.getvalue()
    assert said.strip()
    assert "Traceback" not in said
    return said


def fuzzed(prove: Callable[..., None], *strategies: st.SearchStrategy[Any], examples: int) -> None:
    """Let a property hold for drawn arguments."""
    few = examples < 1000
    health = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    options = settings(
        max_examples=examples, derandomize=few, database=None, deadline=None, suppress_health_check=health
    )
    options(given(*strategies)(prove))()


def examples(few: int, many: int) -> Any:
    return pytest.mark.parametrize("examples", [few, pytest.param(many, marks=pytest.mark.slow)], ids=["few", "many"])


# Words ----------------------------------------------------------------------------------------------------------------

HOSTILE = [
    *(
        "os.system",
        "builtins.eval",
        "builtins.exec",
        "subprocess.run",
        "torch.os.system",
        "pickle.load",
        "zoo.cli.main",
    ),
    *("torch.load", "torch.nn.Identity", "torch.nn.Linear", "functools.partial", "nowhere.at.all", "a b.c", ".", "é.é"),
    f"{{_target_: os.system, command: '{TOUCH}'}}",
    f"[{{_target_: torch.os.system, command: '{TOUCH}'}}]",
    f"'!!python/object/apply:os.system [{TOUCH}]'",
    f"!!python/object/apply:os.system [{TOUCH}]",
]
REFERENCES = [
    *("${seed}", "'${seed}'", "${oc.env:HOME}", "${oc.env:NOWHERE}", "${oc.env:NOWHERE,1}", "${oc.decode:'[1]'}"),
    *(
        "${oc.create:{a:1}}",
        "${eval:1}",
        "${nope}",
        "${model}",
        "${.lr}",
        "${..}",
        "${",
        "$",
        "${${seed}}",
        "???",
        "'???'",
    ),
]
NUMBERS = [
    *("0", "-1", "1", "2", "0.5", "nan", "inf", "-inf", "1e400", "1e-320", "1e30", "1000000000000", "9" * 5000, "0x10"),
    *("9223372036854775808", "1_000", ".nan"),
]
OTHERS = [
    *("null", "true", "[]", "{}", "[[]]", "[1,2]", "[0.5,0.9]", "[a]", "[null]", "{a:1}", "{a:{b:[1]}}", "1,2", "a,b"),
    *(
        "range(1,3)",
        "choice(1,2)",
        "interval(0,1)",
        "glob(*)",
        "int(x)",
        "a b",
        "'",
        '"',
        "\\",
        "é",
        "日本",
        "😀",
        "\0",
        "\n",
    ),
    *(
        "",
        " ",
        "=",
        "[" * 200 + "]" * 200,
        "{" * 60 + "a:1" + "}" * 60,
        "x" * 3000,
        "auto",
        "none",
        "cpu",
        "relu",
        "batch",
    ),
]
VALUES = st.sampled_from([*HOSTILE, *REFERENCES, *NUMBERS, *OTHERS]) | st.text(max_size=12)
ROUND = st.sampled_from([*NUMBERS, "null", "true", "[1]", "[]", "x", "[0.5,0.9]", "{a:1}"])


@st.composite
def words(draw: st.DrawFn) -> str:
    """A word for a verb that takes configs: keys right, mutated or made up, values of any kind."""
    keys = [*known_keys(), "model._target_", "data._target_", "optimizer._target_", "task._target_", "hydra.run.dir"]
    keys += ["model._args_", "model._partial_", "_target_", "trainer.profiler._target_", "defaults", "data@x", "..", ""]
    key = draw(st.sampled_from(keys))
    if key and draw(st.integers(0, 4)) == 0:
        key = made.mutated(key, random.Random(draw(st.integers(0, 10**6))))
    key = draw(st.text(max_size=8)) if draw(st.integers(0, 9)) == 0 else key
    sign = draw(st.sampled_from(["", "", "", "+", "++", "~", "--"]))
    return sign + key + draw(st.sampled_from(["=", "=", "=", "=", "", ":"])) + draw(VALUES)


@examples(60, 1500)
def test_words_of_a_config(examples: int) -> None:
    def prove(more: list[str], choice: str, resolve: bool) -> None:
        line = [*choice.split(), *more]
        said = answer("train", *line, "--cfg", "job", *(["--resolve"] if resolve else []))
        assert "\n".join(said.splitlines()[:3]) == said.strip("\n") or said.startswith(("seed:", "# ")) or ":" in said
        answer("evaluate", "ckpt_path=nowhere", *more)

    options = st.sampled_from(["", "", "", *(f"{g}={o}" for g, names in made.options().items() for o in names[:2])])
    fuzzed(prove, st.lists(words(), min_size=1, max_size=3), options, st.booleans(), examples=examples)


@examples(50, 3000)
def test_words_of_the_other_verbs(examples: int) -> None:
    names = (
        "ckpt_path features n seed seeds split steps sampler guidance eta baselines out trust prompt length beam what"
    )
    names += " temperature top_k top_p class layer write data.root model jobs changed"
    keys = st.sampled_from([*names.split(), ""]) | st.text(max_size=6)

    def prove(verb: str, pairs: list[tuple[str, str, str]]) -> None:
        line = ["".join(pair) for pair in pairs]
        needed = {"sample": ["ckpt_path=nowhere"], "judge": ["ckpt_path=nowhere", "features=nowhere"]}
        needed |= {"inspect": ["ckpt_path=nowhere"], "prove": ["no_such_experiment"], "list": []}
        line = [word for word in line if not (verb == "list" and word == "write=true")]
        answer(verb, *line, *needed[verb])

    pairs = st.lists(st.tuples(keys, st.sampled_from(["=", "=", ""]), VALUES), max_size=3)
    fuzzed(prove, st.sampled_from(["sample", "judge", "inspect", "list", "prove"]), pairs, examples=examples)


TINIEST = [
    "model=mlp data=synthetic model.hidden=[8]",
    "model=lenet5 data=synthetic",
    "model=resnet20 data=synthetic model.width=0.25",
    "model=inception_v3 data=synthetic model.width=0.0625",
    "model=lstm_forecaster",
    "model=vae train_examples=20",
    "model=mlp_gan train_examples=20",
    "model=diffusion train_examples=20 model.width=0.25",
    "model=seq2seq data=reversal data.train_size=20 data.val_size=16 data.test_size=16",
    "model=lstm data=text_file data.path=text.txt data.sequence_length=8 data.batch_size=2",
]


@examples(20, 400)
def test_values_up_to_the_first_step(examples: int) -> None:
    Path("text.txt").write_text("the quick brown fox. " * 200, encoding="utf-8")
    by_name = {line: made.every_key() for line in TINIEST}

    def prove(line: str, seed: int, values: list[str]) -> None:
        chosen = random.Random(seed)
        more = []
        for value in values:
            groups = {word.split("=")[0]: word.split("=")[1] for word in line.split() if "." not in word}
            mine = [key for c, key, _ in by_name[line] if not c or c == [f"model={groups['model']}"]]
            key = chosen.choice([key for key in mine if key not in ("resume", "run_dir", "fast", "data.num_workers")])
            more.append(f"{key}={value}")
        answer("train", *line.split(), *more, *TINY)

    fuzzed(
        prove,
        st.sampled_from(TINIEST),
        st.integers(0, 10**9),
        st.lists(ROUND, min_size=1, max_size=2),
        examples=examples,
    )


# Checkpoints ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    small = ["model=mlp", "data=synthetic", "model.hidden=[4]", "trainer.max_epochs=1", "trainer.accelerator=cpu"]
    with redirect_stdout(io.StringIO()):
        assert cli.main(["train", *small, "logger=csv", f"run_dir={folder}"]) == 0
    return folder


def reader(verb: str, path: Path) -> list[str]:
    """A command that reads a checkpoint."""
    return {
        "evaluate": ["evaluate", f"ckpt_path={path}", "trainer.accelerator=cpu"],
        "inspect": ["inspect", f"ckpt_path={path}", "n=2", "out=seen"],
        "sample": ["sample", f"ckpt_path={path}", "prompt=a"],
        "weights": ["train", *TINIEST[0].split(), *TINY, f"model.weights={path}"],
        "resume": ["train", f"resume={path.parent.parent}"],
    }[verb]


def placed(content: bytes, run: Path) -> Path:
    """A run folder whose one checkpoint holds this."""
    path = Path("damaged/checkpoints/last.ckpt")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    Path("damaged/config.yaml").write_bytes((run / "config.yaml").read_bytes())
    return path


def bent(content: bytes, draw: random.Random) -> bytes:
    """The content with bits flipped, cut off, taken out, put in, or doubled."""
    kind, place, other = (
        draw.choice(["flip", "flip", "cut", "out", "in", "twice"]),
        draw.randrange(len(content)),
        draw.randrange(99),
    )
    if kind == "flip":
        return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]
    pieces = {"cut": b"", "out": content[place + other :], "in": draw.randbytes(other) + content[place:]}
    return content[:place] + pieces.get(kind, content[max(0, place - other) :])


VERBS = st.sampled_from(["evaluate", "inspect", "sample", "weights", "resume"])


@examples(25, 1500)
def test_bent_checkpoints(examples: int, run: Path) -> None:
    whole = (run / "checkpoints" / "best.ckpt").read_bytes()
    tensors = torch.load(io.BytesIO(whole), weights_only=True)["state_dict"]

    def prove(seed: int, verb: str) -> None:
        path = placed(content := bent(whole, random.Random(seed)), run)
        said = answer(*reader(verb, path))
        if verb != "sample" and "damaged" not in said and "refused" not in said:  # then what counts is as it was
            read = torch.load(io.BytesIO(content), weights_only=True)["state_dict"]
            assert all(torch.equal(tensor, read[name]) for name, tensor in tensors.items())

    fuzzed(prove, st.integers(0, 10**9), VERBS, examples=examples)


@examples(20, 1000)
def test_archives_of_other_members(examples: int, run: Path) -> None:
    """Members that are doubled, missing, renamed, swapped, cut, compressed; a pickle with other bytes, sums right."""
    source = zipfile.ZipFile(run / "checkpoints" / "best.ckpt")
    members = {name: source.read(name) for name in source.namelist()}
    pickled = next(name for name in members if name.endswith("data.pkl"))

    def prove(seed: int, kind: str, verb: str) -> None:
        draw, archive = random.Random(seed), io.BytesIO()
        victim = pickled if kind == "bent" else draw.choice(list(members))
        with zipfile.ZipFile(archive, "w") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile's, of a doubled name
            for name, content in members.items():
                if name == victim and kind in ("double", "outside"):
                    file.writestr(name if kind == "double" else f"../../{WITNESS}", content)
                if name == victim and kind == "missing":
                    continue
                changes = {"swap": members[draw.choice(list(members))], "cut": content[: len(content) // 2]}
                changes |= {"bent": bent(content, draw), "empty": b""}
                content = changes.get(kind, content) if name == victim else content
                name = f"{name}2" if name == victim and kind == "renamed" else name
                file.writestr(name, content, zipfile.ZIP_DEFLATED if kind == "packed" else None)
        answer(*reader(verb, placed(archive.getvalue(), run)))

    kinds = st.sampled_from(
        ["double", "outside", "missing", "renamed", "swap", "cut", "empty", "packed", "bent", "bent"]
    )
    fuzzed(prove, st.integers(0, 10**9), kinds, VERBS, examples=examples)


ODD: list[Any] = [
    *(None, 0, -1, 3, 2**70, 0.5, float("nan"), "", "x", "é😀", "os.system", "torch.nn.Identity", "${oc.env:HOME}"),
    *("${eval:1}", [], [1], ["a"], {}, {"a": 1}, (1, 2), True, torch.zeros(3), {1: 2}),
    {"_target_": "os.system", "command": TOUCH},
    [{"_target_": "torch.os.system", "command": TOUCH}],
]


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for name, value in node.items() if isinstance(node, dict) else ():
        yield (*path, name)
        yield from places(value, (*path, name))


@pytest.mark.parametrize("node", ["model", "data", "task", "optimizer", "trainer", "init", "scheduler"])
@pytest.mark.parametrize(
    "hostile", [{"_target_": "os.system", "command": TOUCH}, "${oc.env:HOME}"], ids=["call", "env"]
)
def test_hostile_configs_in_checkpoints(node: str, hostile: Any, run: Path) -> None:
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["zoo"]["config"][node]["extra"] = hostile
    content = io.BytesIO()
    torch.save(checkpoint, content)
    path = placed(content.getvalue(), run)
    assert "nothing was run" in answer(*reader("evaluate", path))
    assert "nothing was run" in answer(*reader("inspect", path))
    assert "nothing was run" in answer(*reader("sample", path))


@examples(12, 600)
def test_odd_values_in_what_a_checkpoint_says_of_itself(examples: int, run: Path) -> None:
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    # not the values inside nodes: a file that was made by hand, or by someone with trust, may hold anything there
    where = [
        place for place in places(checkpoint["zoo"]) if len(place) == 1 or (len(place) == 2 and place[0] == "config")
    ]

    def prove(place: tuple[Any, ...], odd: Any, verb: str) -> None:
        changed = copy.deepcopy(checkpoint)
        node = changed["zoo"]
        for name in place[:-1]:
            node = node[name]
        node[place[-1]] = odd
        content = io.BytesIO()
        torch.save(changed, content)
        answer(*reader(verb, placed(content.getvalue(), run)))

    fuzzed(prove, st.sampled_from(where), st.sampled_from(ODD), VERBS, examples=examples)


class Touch:
    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (str(WITNESS), "w")


@pytest.mark.parametrize("suffix", ["pth", "pt", "safetensors", "ckpt"])
@pytest.mark.parametrize("wrap", ["pickle", "torch"])
def test_pickles_are_not_run(suffix: str, wrap: str, run: Path) -> None:
    path = Path(f"evil.{suffix}")
    with path.open("wb") as file:
        (pickle.dump if wrap == "pickle" else torch.save)({"state_dict": {"fc.weight": Touch()}}, file)
    assert "evil" in answer(*reader("weights", path))
    if suffix == "ckpt":
        assert "refused" in answer(*reader("evaluate", path))


@examples(15, 1000)
def test_bent_weights(examples: int, run: Path) -> None:
    from safetensors.torch import save

    state = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    state = {name.removeprefix("network."): value for name, value in state.items()}
    archive, legacy = io.BytesIO(), io.BytesIO()
    torch.save(state, archive)
    torch.save(state, legacy, _use_new_zipfile_serialization=False)
    whole = {"pth": archive.getvalue(), "pt": legacy.getvalue(), "safetensors": save(state)}

    def prove(seed: int, suffix: str) -> None:
        path = Path(f"weights.{suffix}")
        path.write_bytes(bent(whole[suffix], random.Random(seed)))
        answer(*reader("weights", path))

    fuzzed(prove, st.integers(0, 10**9), st.sampled_from(list(whole)), examples=examples)


# Data -----------------------------------------------------------------------------------------------------------------


def tables_and_texts() -> dict[str, bytes]:
    rows = "".join(f"{i * 0.5},{i % 7},{'xyz'[i % 3]},2020-01-{i % 28 + 1:02},{'pq'[i % 2]}\n" for i in range(60))
    return {
        "csv_table data.target=y model=mlp model.hidden=[4] data.path=": f"a,b,c,day,y\n{rows}".encode(),
        "csv_series data.target=b model=gru_forecaster data.window=4 data.path=": f"a,b,c,day,y\n{rows}".encode(),
        "text_file model=lstm data.sequence_length=8 data.batch_size=2 data.path=": (
            "Ein Käse, ein Wörtchen. " * 80
        ).encode(),
    }


@examples(12, 600)
def test_bent_tables_and_texts(examples: int) -> None:
    whole = tables_and_texts()

    def prove(seed: int, kind: str, times: int) -> None:
        draw, content = random.Random(seed), whole[kind]
        for _ in range(times):
            content = bent(content, draw) or b"x"
        path = Path("data.txt")
        path.write_bytes(content)
        answer("train", *f"data={kind}{path}".split(), *TINY)

    fuzzed(
        prove, st.integers(0, 10**9), st.sampled_from(list(whole)), st.sampled_from([1, 1, 3, 30]), examples=examples
    )


@examples(12, 600)
def test_bent_pictures(examples: int) -> None:
    draws = np.random.default_rng(0)
    for name in "ab":
        Path("pictures", name).mkdir(parents=True)
        for number in range(6):
            pixels = draws.integers(0, 255, (28, 28), dtype=np.uint8)
            Image.fromarray(pixels).save(Path("pictures", name, f"{number}.png"))
    whole = {}
    for suffix in ("png", "jpg", "gif", "bmp", "tiff", "webp"):
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, {"jpg": "jpeg"}.get(suffix, suffix))
        whole[suffix] = content.getvalue()

    def prove(seed: int, suffix: str) -> None:
        path = Path("pictures", "b", f"bent.{suffix}")
        path.write_bytes(bent(whole[suffix], random.Random(seed)))
        line = "model=lenet5 data=image_folder data.root=pictures data.image_size=28 data.val_fraction=0.2"
        said = answer("train", *line.split(), *TINY)
        assert not said or path.name in said
        path.unlink()

    fuzzed(prove, st.integers(0, 10**9), st.sampled_from(list(whole)), examples=examples)
