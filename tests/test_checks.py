"""Stage 1: what is refused before torch is imported, what is suggested first, and that right commands pass."""

import importlib
import inspect
import re
import shutil
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cli_mutations as made
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo import checks, layout
from zoo.cli import _split
from zoo.errors import ZooError
from zoo.fitting import is_foreign
from zoo.signatures import fits, parse, signature, words

CHOICES = [[]] + [[f"{group}={name}"] for group, names in made.options().items() for name in names]


def refusal(*arguments: str) -> str | None:
    """The sentence that refuses a command, or None."""
    try:
        checks.check(_split(arguments)[1])
    except ZooError as error:
        return str(error)
    return None


def suggestion(sentence: str) -> str | None:
    """What `Did you mean …?` proposes."""
    _, found, rest = sentence.partition("Did you mean ")
    return rest.partition("?")[0] if found else None


def runnable() -> list[list[str]]:
    """The choices that make a run with the default model; tables and folders need a path."""
    return [chosen for chosen in CHOICES if refusal(*chosen) is None]


def test_every_option_composes_and_passes_its_own_checks() -> None:
    refused = {" ".join(chosen): sentence for chosen in CHOICES if (sentence := refusal(*chosen))}
    # data of other kinds and other tasks do not fit the default model and data, and say so; a person's own need a path
    told = ("does not have", "is for task=", "needs a value")
    assert all(any(part in sentence for part in told) for sentence in refused.values()), refused
    foreign = {f"data={n}" for n in made.options()["data"] if is_foreign("lenet5", layout.read_option("data", n).tree)}
    tasks = {f"task={name}" for name in made.options()["task"] if name != "classification"}
    assert foreign | tasks == refused.keys() - {"data=image_folder"}


def test_mutations_are_refused_and_the_right_name_comes_first() -> None:
    cases = made.mutations(500, seed=0)
    missed, accepted = [], []
    for case in cases:
        sentence = refusal(*case.words)
        if sentence is None:
            accepted.append(case)
            continue
        assert case.wrong in sentence, sentence
        assert len(sentence.splitlines()) <= 3, sentence
        if (suggestion(sentence) or "").removesuffix("=…").lstrip("+") != case.meant:
            missed.append((case.wrong, case.meant, suggestion(sentence)))
    assert not accepted
    assert len(missed) <= 25, missed


@pytest.mark.parametrize(("typed", "meant"), made.GUESSES.items())
def test_what_people_guess(typed: str, meant: str) -> None:
    sentence = refusal(typed)
    assert sentence is not None
    assert suggestion(sentence) == meant, sentence


def test_right_commands_pass() -> None:
    lines = made.right(200, 0, runnable())
    refused = {" ".join(line): sentence for line in lines if (sentence := refusal(*line))}
    assert not refused


@settings(max_examples=60, deadline=None)
@given(st.text(string.printable, max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    for word in (text, f"model={text}", f"trainer.max_epochs={text}", f"{text}=1"):
        refusal(word)  # raises nothing but ZooError


WRONG = {
    "trainer.max_epochs=ten": "trainer.max_epochs=ten: must be a whole number",
    "trainer.max_epochs=2.5": "whole number",
    "trainer.max_epochs=true": "whole number",
    "trainer.max_epochs=0": "1 or more",
    "trainer.deterministic=yes": "true or false",
    "fast=1": "true or false",
    "seed=null": "whole number",
    "seed=-1": "0 or more",
    "seed=": "something on both sides of the =",
    "optimizer.lr=fast": "a number",
    "optimizer.lr=0": "more than 0",
    "optimizer.betas=[0.9]": "[a number, a number]",
    "optimizer.betas=[0.9,x]": "[a number, a number]",
    "data.batch_size=0": "1 or more",
    "data.num_workers=-1": "0 or more",
    "data.btach_size=3": "Did you mean data.batch_size?",  # inherited from a base of the data set's class
    "data.seed=x": "whole number",
    "data.class_names=3": "a list",
    "penalty={l3: 1}": "there is no key penalty.l3. Did you mean penalty.l1?",
    "augment.shift=x": "whole number",
    "augment.shft=1": "Did you mean augment.shift?",
    "task.loss=focl": "Did you mean task.loss=focal?",
    "task.label_smoothing=1": "less than 1",
    "task.class_weights=balanse": "Did you mean task.class_weights=balanced?",
    "trainer.precision=bf17": "bf16-mixed",
    "swap.norm=grupo": "must be batch, layer, instance, group, none or null. Did you mean swap.norm=group?",
    "swap.dropout=1": "less than 1",
    "swap.stochastic_depth=half": "a number",
    "swap.drop_block_size=0": "1 or more",
    "transfer.freeze=boddy": "Did you mean transfer.freeze=body?",
    "weight_decay_on=weigths": "Did you mean weight_decay_on=weights?",
    "ema_decay=1": "less than 1",
    "ema_decay=x": "a number or null",
    "early_stopping.patience=0": "1 or more",
    "+trainer.foo=1": "there is no key trainer.foo",
    "+foo=1": "there is no key foo",
    "+trainer.logger=true": "there is no key trainer.logger",
    "+seed=1": "without +. Did you mean seed?",
    "optimizer.amsgrad=true": "Did you mean +optimizer.amsgrad?",
    "optimizer.nesterov=true": "Other options have it: optimizer=",
    "~seed": "is needed",
    "~trainer.max_epochs": "is needed",
    "~model": "cannot be taken away",
    "+model=lenet5": "Did you mean model=lenet5?",
    "model=null": "there is no model null.\nThere is: ",
    "model=": "something on both sides of the =",
    "model=[": "there is no model",
    "model=lenet5,mlp": "needs -m",
    "seed=1,2": "needs -m",
    "model.num_classes=${data.nope}": "needs data.nope, which data=digits does not have",
    "data.image_size=0": "data.image_size=0: must be 1 or more",
    "model.num_classes=${nope}": "the config does not have",
    "run_dir=a=b": "Did you mean run_dir='\"a=b\"'?",
    "trainer": "write group=option or key=value. Did you mean trainer=…?",
    "trainer.limit_test_batches=0": "more than 0",
    "=3": "something on both sides of the =",
    "=": "something on both sides of the =",
    "optimizer.lr": "Did you mean optimizer.lr=…?",
    "model": "Did you mean model=…?",
    "resume": "Did you mean resume=…?",
    "model@x=lenet5": "Did you mean model?",
    "model._target_=my.Net": "there is no module my",
    "model._target_=zoo.models.lenet.LeNet6": "zoo.models.lenet has no LeNet6",
    "model._target_=torch.nn.Linear": "torch.nn.Linear needs in_features",
    "model._target_=Net": "no module and name",
    "model._target_=os.system": "this is of Python's standard library",
    "init._target_=builtins.exec": "this is of Python's standard library",
    "trainer.profiler={_target_: os.system, command: x}": "must be a name",
    "trainer.devices=0": "from 1 to 4096, or -1",
    "seed=" + "9" * 5000: "the value cannot be read",
    "data.mean=" + "[" * 21 + "]" * 21: "more than 20 brackets inside each other",
    "early_stopping=[]": "Cannot merge DictConfig with ListConfig.",
    "init._target_=${..}": "extraneous input",
    "~optimizer.lr=7": "optimizer.lr is 0.005. Did you mean ~optimizer.lr?",
}


@pytest.mark.parametrize(("argument", "part"), WRONG.items())
def test_wrong_argument(argument: str, part: str) -> None:
    sentence = refusal(argument)
    assert sentence is not None
    assert sentence.startswith(argument)
    assert part in sentence, sentence


def test_a_key_of_another_option_is_no_slip_of_the_pen() -> None:
    sentence = refusal("task.beta=4")
    assert sentence is not None
    assert "Other options have it: task=vae." in sentence
    assert suggestion(sentence) is None  # not optimizer.betas


@pytest.mark.parametrize("line", [["model=mlp", "model=lenet5"], ["run_dir=a", "run_dir=b"], ["resume=a", "resume=a"]])
def test_what_is_chosen_once(line: list[str]) -> None:
    assert (refusal(*line) or "").startswith(f"{line[1]}: {line[0]} was given already")
    assert refusal("seed=1", "seed=2") is None  # the last holds, as everywhere with Hydra


NO_ARGUMENTS = [
    f"~{key}" for key in made.keys_of(made.CONFIGS / "model" / "lenet5.yaml") if re.fullmatch(r"model\.[a-z]\w+", key)
]
RIGHT = [
    ["+optimizer.amsgrad=true"],
    ["+trainer.val_check_interval=0.5"],
    ["++trainer.max_epochs=3"],
    ["++optimizer.amsgrad=true"],
    ["trainer.max_epochs=-1"],
    ["trainer.devices=[0,1]"],
    ["trainer.deterministic=warn"],
    ["optimizer.lr=1"],
    ["optimizer.betas.0=0.8"],
    ["augment=none"],
    ["augment=flip_crop"],
    ["data=synthetic", "augment.shift=1", "augment.flip=0.5"],
    ["task.class_weights=[1,1,1,1,1,1,1,1,1,1]"],
    ["task.class_weights=balanced"],
    ["model='lenet5'"],
    ["model.num_classes=${data.num_features}"],
    ["model._target_=torch.nn.Identity"],  # takes **kwargs
    ["model._target_=torch.nn.Flatten", *NO_ARGUMENTS],
]


@pytest.mark.parametrize("line", RIGHT, ids=" ".join)
def test_right_argument(line: list[str]) -> None:
    assert refusal(*line) is None


def test_values_and_choices_arrive() -> None:
    job = checks.check(["optimizer=sgd", "optimizer.lr=0.5", "+optimizer.momentum=0.9"])
    assert job.config.optimizer.lr == 0.5
    assert job.config.optimizer.momentum == 0.9
    assert job.choices["optimizer"] == "sgd"
    assert "experiment" not in job.choices
    assert checks.check(["optimizer=sgd"]).config.optimizer.lr != 0.5  # the cached config is not written to
    job.config.data.another_fact = 3  # open for facts that the run fills in


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of configs/ to put a person's files into."""
    folder = tmp_path / "configs"
    shutil.copytree(made.CONFIGS, folder)
    monkeypatch.setattr(layout, "CONFIGS", folder)
    for cached in (layout.options, layout.composed, layout.read_option):
        cached.cache_clear()
    yield folder
    for cached in (layout.options, layout.composed, layout.read_option):
        cached.cache_clear()


@pytest.mark.parametrize(
    ("group", "text", "part"),
    [
        ("experiment", "sed: 9", "sed: 9: there is no key sed. Did you mean seed?"),
        ("experiment", "trainer: {max_epoch: 3}", "Did you mean trainer.max_epochs?"),
        ("experiment", "trainer: {max_epochs: ten}", "trainer.max_epochs: ten: must be a whole number"),
        ("experiment", "penalty: {l3: 3}", "there is no key penalty.l3"),
        ("debug", "checkpoint: {every_n_step: 3}", "Did you mean checkpoint.every_n_steps?"),
        ("model", "optimizer: {learning_rate: 3}", "Did you mean optimizer.lr?"),
        ("model", "model: {_target_: zoo.models.lenet.LeNet5, clases: 3}", "LeNet5 takes no clases"),
    ],
)
def test_mistake_in_a_file_is_named_with_it(configs: Path, group: str, text: str, part: str) -> None:
    base = "" if text.startswith("model") or group != "model" else "model: {_target_: zoo.models.lenet.LeNet5}\n"
    (configs / group / "mine.yaml").write_text(f"# @package _global_\n{base}{text}\n", encoding="utf-8")
    sentence = refusal(f"{group}=mine")
    assert sentence is not None
    assert sentence.startswith(f"configs/{group}/mine.yaml: ")
    assert part in sentence, sentence


def test_experiment_may_promise_and_change(configs: Path) -> None:
    text = (
        "# @package _global_\ndefaults: [override /model: mlp]\nseed: 3\nexpect: {metric: test/accuracy, floor: 0.9}\n"
    )
    (configs / "experiment" / "mine.yaml").write_text(text, encoding="utf-8")
    job = checks.check(["experiment=mine"])
    assert job.config.seed == 3
    assert job.choices["model"] == "mlp"


def test_unreadable_file_is_named(configs: Path) -> None:
    (configs / "optimizer" / "mine.yaml").write_text("lr: [", encoding="utf-8")
    assert "mine.yaml" in (refusal("optimizer=mine") or "")


def test_an_own_class_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    source = (
        "from dataclasses import dataclass\n\nclass Net:\n    def __init__(self, *, width: int | None = None): ...\n"
    )
    (tmp_path / "my_nets.py").write_text(source, encoding="utf-8")
    line = ["model._target_=my_nets.Net", *NO_ARGUMENTS]
    assert "my_nets.Net takes no in_channels" in (refusal(line[0]) or "")
    assert refusal(*line, "+model.width=3") is None
    assert "whole number or null" in (refusal(*line, "+model.width=x") or "")
    assert "there is no key model.height" in (refusal(*line, "+model.height=3") or "")
    assert "my_nets" not in sys.modules


@pytest.mark.parametrize(
    ("line", "part"),
    [
        (["model=lenet5,mlp", "seed=0,1"], None),
        (["seed=range(0,3)", "model=glob(l*)"], None),
        (["optimizer.lr=choice(0.1,0.2)"], None),
        (["model=lenet5,lenet"], "model=lenet: there is no model lenet"),
        (["seed=0,x"], "seed=x: must be a whole number"),
        (["optimizer=adamw,sgd", "optimizer.betas=[0.9,0.9]"], "there is no key optimizer.betas"),
        (["seed=range(-2,1)"], "seed=-2: must be 0 or more"),
        (["optimizer.lr=interval(0,1)"], "optimizer.lr=0.0: must be more than 0"),
        (["model=glob(zzz*)"], "chooses nothing"),
        (["run_dir=a,b"], "hydra.sweep.dir"),
        (["seed=0,1", "trainer.max_epochs="], "both sides of the ="),
    ],
)
def test_sweep_is_checked_whole(line: list[str], part: str | None) -> None:
    if part is None:
        checks.check_sweep(line)
    else:
        with pytest.raises(ZooError) as caught:
            checks.check_sweep(line)
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        ("int", [1], [1.0, True, "1", None]),
        ("float", [1, 1.5], [True, "x", None]),
        ("float | None", [1, None], ["x"]),
        ("bool", [True], [1, "true"]),
        ("str", ["x"], [1, None]),
        ("Literal['a', 1]", ["a", 1], ["b", True, 2]),
        ("Optional[Union[int, str]]", [1, "x", None], [1.5]),
        ("list[int]", [[], [1, 2]], [[1.5], 1, "12"]),
        ("tuple[float, float]", [[1, 2]], [[1], [1, 2, 3]]),
        ("tuple[int, ...]", [[], [1, 2, 3]], [["x"]]),
        ("Sequence[str] | Literal['auto']", [["a"], "auto"], ["other", [1]]),
        ("dict[str, int]", [{}], [[]]),
        ("Any", [1, None, "x"], []),
    ],
)
def test_annotations(annotation: str, good: list[object], bad: list[object]) -> None:
    kinds = parse(annotation)
    assert all(fits(value, kinds) for value in good)
    assert not any(fits(value, kinds) for value in bad)
    assert annotation == "Any" or words(kinds)


def test_signatures_agree_with_what_is_imported() -> None:
    """The reader of sources against `inspect`, on every target the configs name."""
    targets = {value for _, key, value in made.every_key() if key.endswith("_target_")}
    assert targets
    for target in targets:
        module, _, name = target.rpartition(".")
        real = inspect.signature(getattr(importlib.import_module(module), name)).parameters.values()
        read = signature(target)
        assert read is not None
        named = [p for p in real if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        assert list(read.parameters) == [p.name for p in named], target
        assert [p.default is None for p in read.parameters.values()] == [p.default is p.empty for p in named], target


def test_signature_of_a_dataclass_is_its_fields_and_those_of_its_bases() -> None:
    read = signature("zoo.data.torchvision_sets.CIFAR10")
    assert read is not None
    assert {"root", "val_size", "mean", "batch_size"} <= set(read.parameters)  # of three classes
    assert not {"source", "instead"} & set(read.parameters)  # of the class, no arguments
    assert not read.is_open


def test_signature_follows_star_imports_and_refuses_what_is_not_there() -> None:
    resnet = signature("torchvision.models.resnet18")
    assert resnet is not None
    assert resnet.is_open
    with pytest.raises(LookupError):
        signature("torch.optim.SGDD")


@pytest.mark.slow
def test_all_mutations_over_many_seeds() -> None:
    cases = [case for seed in range(1, 11) for case in made.mutations(500, seed)]
    sentences = [(case, refusal(*case.words)) for case in cases]
    assert all(sentence is not None for _, sentence in sentences)
    found = [(suggestion(s or "") or "").removesuffix("=…").lstrip("+") == case.meant for case, s in sentences]
    assert sum(found) >= 0.95 * len(found)


@pytest.mark.slow
def test_mutations_as_commands() -> None:
    for case in made.mutations(25, seed=3):
        command = [sys.executable, "train.py", *case.words]
        done = subprocess.run(command, cwd=made.CONFIGS.parent, capture_output=True, text=True)
        assert done.returncode == 2, case
        assert len(done.stderr.splitlines()) <= 3


@pytest.mark.parametrize("data", ["moby_dick", "csv_table", "languages"])
def test_what_a_model_sets_for_its_own_data_is_no_mistake_of_other_data(data: str) -> None:
    text = refusal("model=autoencoder", f"data={data}") or ""
    assert text.startswith(f"data={data} is for task=")
    assert "and model=autoencoder for task=reconstruction." in text
    text = refusal("model=gan", "task=diffusion") or ""
    assert text.startswith("task=diffusion: model=gan is for task=gan.")


@pytest.mark.parametrize("loss", ["mse", "l1", "bce", "ssim"])
def test_every_loss_of_a_reconstruction_can_be_chosen(loss: str) -> None:
    assert refusal("model=autoencoder", f"task.loss={loss}") is None
    assert "mse, l1, bce or ssim" in (refusal("model=autoencoder", "task.loss=mae") or "")
