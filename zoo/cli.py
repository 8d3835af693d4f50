"""The command line: `zoo VERB key=value …`. Reads and refuses (zoo/checks.py), then hands over to the part that works.

Neither torch nor Lightning is imported before a command is known to be right. Exit codes: 0 done, 1 a bug (traceback),
2 a mistake or an obstacle (one sentence), 130 Ctrl-C, 143 SIGTERM.
"""

import ast
import atexit
import errno
import importlib
import io
import logging
import os
import re
import shlex
import signal
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo.folders import MAY_CHANGE, run_folder
from zoo.processes import is_first_process, let_the_first_tell, place

VERBS = {
    "train": "train a model, continue a run, or sweep",
    "evaluate": "score a run folder or a checkpoint file",
    "list": "show what there is to choose from: zoo list [pattern]",
    "inspect": "look inside a network: filters, statistics by layer, receptive fields, Grad-CAM",
    "sample": "let a trained network write or make pictures: zoo sample ckpt_path=… prompt=… or n=…",
    "predict": "what a network says of your files: zoo predict ckpt_path=… input=…",
    "export": "a network for other programs, verified: zoo export ckpt_path=… format=onnx",
    "judge": "let a classifier judge what a generator makes: zoo judge ckpt_path=… features=…",
    "lr": "which learning rate: the range test: zoo lr model=… data=…",
    "report": "all runs on one page for a browser: zoo report [folder]",
    "prove": "train experiments and compare them with what they promise: zoo prove [pattern]",
    "completion": 'what Tab offers, for bash: eval "$(zoo completion bash)"',
}
# verbs that read their own words; the module's docstring is the help
MODULES = {"list": "zoo.listing", "inspect": "zoo.inspection", "sample": "zoo.sampling", "judge": "zoo.judging"}
MODULES |= {"prove": "zoo.prove", "lr": "zoo.lr_range", "report": "zoo.run_pages"}
MODULES |= {"predict": "zoo.predicting", "export": "zoo.exporting", "completion": "zoo.completion"}
EXAMPLES = {
    "train": """\
python train.py                                              LeNet-5 on real digits
python train.py model=lenet5 data=fashion                    another data set
python train.py optimizer.lr=0.001 trainer.max_epochs=10     change what an option says
python train.py +optimizer.amsgrad=true                      + adds an argument the config does not set
python train.py experiment=digits_lenet5 seed=1              a recipe with a promised score
python train.py -m model=lenet5,mlp seed=0,1,2               a sweep: six runs; docs/sweeps.md says more
python train.py -m sweep=random sweep.trials=20 'optimizer.lr=tag(log,interval(1e-4,1e-1))'
python train.py resume=runs/lenet5-digits/2026-01-31_12-00-00
python train.py model=mlp --cfg job                          show the config, train nothing""",
    "evaluate": """\
python evaluate.py ckpt_path=runs/lenet5-digits/2026-01-31_12-00-00
python evaluate.py ckpt_path=best.ckpt split=val
python evaluate.py ckpt_path=best.ckpt data=fashion          on other data
python evaluate.py ckpt_path=best.ckpt data.eval_batch_size=100 trainer.accelerator=cpu""",
}
FLAGS = {
    "--help": "this page (-h)",
    "--cfg job": "print the config and stop (-c); with --resolve, references are filled in",
    "--multirun": "a sweep (-m): train once for each combination of values, or at points drawn from ranges",
    "--info": "what Hydra knows: --info defaults, --info searchpath (-i)",
    "--shell-completion": "tab completion: -sc install=bash prints what to eval; then -sc uninstall=bash",
}
_SHORT = {
    "-h": "--help",
    "-c": "--cfg",
    "-p": "--package",
    "-m": "--multirun",
    "-i": "--info",
    "-sc": "--shell-completion",
}
_OBSTACLES = {
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room on the disk",
    errno.EROFS: "choose a folder that can be written, with run_dir=…",
    errno.EACCES: "change its permissions or choose another folder",
    errno.EPERM: "change its permissions or choose another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.EISDIR), "move what is in the way, or choose another name"),
}
_DEVICE = ("accelerator", "devices", "strategy")  # what resume= takes of a trainer=option


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. Only a bug leaves as an exception."""
    words = list(sys.argv[1:] if argv is None else argv)
    if os.getcwd() not in sys.path:  # a person's own modules are found, as with `python -m`
        sys.path.append(os.getcwd())
    if sys.stdout is None or not is_first_process():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if place().world_size > 1:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # of its own doing, as in zoo/launching.py
    if sys.stderr is None:  # closed by the shell, as in 2>&-
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without × or → shows ? in their place
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except BaseException as error:
        let_the_first_tell(error)
        told = _told(error)
        if told is None:
            raise
        code, sentence = told
        if sentence and (code < 128 or is_first_process()):
            lines = [line if len(line) < 2000 else f"{line[:900]} … {line[-900:]}" for line in sentence.splitlines()]
            print("\n".join(lines[:3]), file=sys.stderr)
        return code
    finally:  # Ctrl-C from here on: no traceback of what Python does at its exit
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)


def _told(error: BaseException) -> tuple[int, str] | None:
    """The exit code and the sentence for what is no bug; None for a bug."""
    if isinstance(error, ZooError):
        return 2, str(error)
    if isinstance(error, BrokenPipeError):  # `… | head`: nobody reads on, and flushing at exit must not complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE, ""
    signum = signal.SIGINT if isinstance(error, KeyboardInterrupt) else getattr(error, "signum", None)
    if signum is not None:
        folder = getattr(error, "folder", None)
        goes_on = folder is not None and any((folder / name).exists() for name in ("config.yaml", "sweep.json"))
        command = f" Continue with: python train.py resume={shlex.quote(str(folder))}" if goes_on else ""
        return 128 + signum, f"Stopped.{command}"
    if isinstance(error, OSError) and error.errno in _OBSTACLES:
        return 2, f"{error.filename or 'writing'}: {(error.strerror or '').lower()}; {_OBSTACLES[error.errno]}."
    if isinstance(error, MemoryError) or ("torch" in sys.modules and _is_out_of_memory(error)):
        return 2, (
            "There is not enough memory: lower data.batch_size, for an evaluation data.eval_batch_size, "
            "for zoo predict batch_size."
        )
    if isinstance(error, ValueError) and re.match(r"[\w.]+=.*: must ", str(error)):  # the form of our own
        return 2, str(error)
    from hydra.errors import HydraException

    return (2, " ".join(str(error).split())[:300]) if isinstance(error, HydraException) else None


def _is_out_of_memory(error: BaseException) -> bool:
    from zoo.memory import is_out_of_memory

    return is_out_of_memory(error)


def _run(words: list[str]) -> int:
    verb, arguments = (words[0], words[1:]) if words else ("--help", [])
    if verb in ("-h", "--help"):
        print(_help_all())
        return 0
    if verb not in VERBS:
        from zoo.suggest import nearest

        meant = "train" if "=" in verb else nearest(verb, list(VERBS))
        hint = f" Did you mean {meant}?" if meant else ""
        raise ZooError(f"{verb}: there is no such verb.{hint}\nThere is: {', '.join(VERBS)}.")
    if verb in MODULES:
        if {"-h", "--help"} & set(arguments):
            source = Path(__file__).with_name(f"{MODULES[verb].rpartition('.')[2]}.py")  # read, as importing is slow
            print(ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))))
            return 0
        return importlib.import_module(MODULES[verb]).main(arguments)
    flags, overrides = _split(arguments)
    if "--help" in flags:
        print(_help(verb))
        return 0
    from zoo.checks import check_form

    check_form(overrides)
    return (_train if verb == "train" else _evaluate)(arguments, flags, overrides)


def _split(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Flags with their values, and everything else."""
    flags: dict[str, str] = {}
    overrides: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        name = _SHORT.get(name, name)
        if not word.startswith("-") or name == "-":
            overrides.append(word)
        elif name in ("--cfg", "--package", "--info"):
            if not equals and rest and "=" not in rest[0] and not rest[0].startswith("-"):
                value = rest.pop(0)
            if name == "--cfg" and value not in ("job", "hydra", "all"):
                raise ZooError(f"{word} {value}".strip() + ": write --cfg job, --cfg hydra or --cfg all.")
            flags[name] = value
        elif name in ("--help", "--multirun", "--resolve", "--shell-completion") and not equals:
            flags[name] = ""
        else:
            from zoo.checks import known_keys
            from zoo.suggest import nearest, nearest_key

            meant = nearest(name, [flag.split()[0] for flag in FLAGS]) if not equals else None
            if meant is None and (key := nearest_key(name.strip("-"), known_keys())):
                meant = f"{key}={value or '…'}"
            hint = f" Did you mean {meant}?" if meant else ""
            raise ZooError(f"{word}: there is no such flag.{hint}\nValues are set without dashes: key=value.")
    return flags, overrides


# Training ------------------------------------------------------------------------------------------------------------


def _train(arguments: Sequence[str], flags: dict[str, str], overrides: list[str]) -> int:
    from omegaconf import OmegaConf

    from zoo.checks import check, name_of, raw_value

    if "--shell-completion" in flags or "--info" in flags:
        return _through_hydra(flags, overrides)
    if any(name_of(word) == "resume" and raw_value(word) not in ("", "null") for word in overrides):
        if flags:
            raise ZooError(f"{next(iter(flags))}: resume= continues a run or a sweep and takes no flags.")
        return _resume(overrides)
    if "--multirun" in flags:
        if place().world_size > 1:
            raise ZooError(
                "-m: torchrun and srun start the processes of one run. Start a sweep without them, with trainer=ddp: "
                "each of its runs starts its own."
            )
        if len(flags) > 1:
            raise ZooError(f"{' '.join(flags)}: a sweep takes no other flag; --cfg job shows the config of one run.")
        from zoo.sweeps import start

        return start(overrides, command=_command("train", arguments))
    for word in overrides:
        if name_of(word).partition(".")[0] == "sweep":
            raise ZooError(f"{word}: this says how to sweep, and a sweep is asked for with -m.")
    if "--cfg" in flags and (flags["--cfg"] != "job" or "--package" in flags):
        check([word for word in overrides if not name_of(word).startswith("hydra")])
        return _through_hydra(flags, overrides)
    for word in overrides:
        if name_of(word).startswith("hydra"):
            raise ZooError(f"{word}: only sweeps (-m) and --cfg hydra read this. The run folder is set by run_dir=…")
    job = check(overrides)
    if "--cfg" in flags:
        print(OmegaConf.to_yaml(job.config, resolve="--resolve" in flags), end="")
        return 0
    with run_folder(job.config.run_dir, job.choices) as folder:
        from zoo.launching import train

        train(job.config, folder, choices=job.choices, command=_command("train", arguments))
    return 0


def _command(verb: str, arguments: Sequence[str]) -> list[str]:
    """What to type to run this again."""
    script = Path(sys.argv[0]).name
    return ["python", script, *arguments] if script == f"{verb}.py" else ["zoo", verb, *arguments]


def _through_hydra(flags: dict[str, str], overrides: Sequence[str]) -> int:
    """What only Hydra can tell about itself; its errors come out as they are."""
    import hydra

    from zoo.checks import CONFIGS

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    logging.raiseExceptions = False  # `--info | head`: Hydra shows its tables through logging
    words = [f"{flag}={value}" if value else flag for flag, value in flags.items()]
    typed, sys.argv = sys.argv, [sys.argv[0], *words, *overrides]
    try:
        hydra.main(config_path=str(CONFIGS), config_name="train", version_base="1.3")(lambda config: None)()
    finally:
        sys.argv = typed
    return 0


def _resume(overrides: list[str]) -> int:
    from zoo.checks import check_saved, name_of, raw_value, read_choice

    folder = Path(next(raw_value(word) for word in overrides if name_of(word) == "resume"))
    if folder.suffix == ".ckpt":
        raise ZooError(f"resume={folder}: give the run folder, not the checkpoint: resume={folder.parent.parent}")
    if (folder / "sweep.json").exists():
        from zoo.sweeps import resume as resume_sweep

        return resume_sweep(folder, overrides)
    if not (folder / "config.yaml").exists() and any(folder.glob("checkpoints/*.ckpt")):
        from zoo.run import restore_config

        restore_config(folder)
    if not (folder / "config.yaml").exists():
        lack = "is no run folder: it has no config.yaml" if folder.is_dir() else "there is no such folder"
        raise ZooError(f"resume={folder}: {lack}. A run folder is called like runs/lenet5-digits/2026-01-31_12-00-00.")
    changes: dict[str, object] = {}
    values: list[str] = []
    for word in overrides:
        name = name_of(word)
        if name == "trainer" and "=" in word:
            changes |= {f"trainer.{key}": value for key, value in read_choice(word).items() if key in _DEVICE}
        elif name == "logger" and "=" in word:
            changes |= {f"logger.{key}": value for key, value in read_choice(word).items()}
        elif name.startswith(MAY_CHANGE) or name == "trust":
            values.append(word)
        elif name != "resume":
            allowed = f"{', '.join(MAY_CHANGE)}, trainer=… and trust"
            raise ZooError(f"{word}: a continued run keeps its config. Beside resume= may stand {allowed}.")
    changes |= check_saved(folder / "config.yaml", values)
    from zoo.run import resume

    resume(folder, changes)
    return 0


# Evaluation ----------------------------------------------------------------------------------------------------------


def _evaluate(arguments: Sequence[str], flags: dict[str, str], overrides: list[str]) -> int:
    from omegaconf import OmegaConf

    from zoo.checks import CONFIGS, check_saved, name_of, raw_value, read_yaml

    if set(flags) - {"--cfg", "--resolve"}:
        raise ZooError(f"{' '.join(flags)}: evaluate.py takes --help and --cfg job only.")
    keys = read_yaml(CONFIGS / "evaluate.yaml")
    path = next((Path(raw_value(word)) for word in overrides if word.startswith("ckpt_path=")), None)
    own = [word for word in overrides if name_of(word) in keys and not word.startswith("ckpt_path=")]
    rest = [word for word in overrides if name_of(word) not in keys]
    settings: dict[str, Any] = check_saved(CONFIGS / "evaluate.yaml", own)
    for word in rest:
        if "=" not in word and Path(word).exists():
            raise ZooError(f"{word}: write key=value. Did you mean ckpt_path={word}?")
    stored = None
    if path is not None:
        places = (path / "config.yaml", path.parent.parent / "config.yaml")
        stored = next((file for file in places if file.is_file()), None)
    check_saved(stored, rest, groups=("data", "trainer"), nodes=("data", "task", "trainer"))
    settings = {"split": "test", "trust": False, **settings}
    if "--cfg" in flags:
        print(OmegaConf.to_yaml({"ckpt_path": str(path) if path else "???", **settings, "overrides": rest}), end="")
        return 0
    if path is None:
        raise ZooError("ckpt_path is needed: python evaluate.py ckpt_path=<run folder or checkpoint file>")
    if not path.exists():
        raise ZooError(f"ckpt_path={path}: there is no such file or folder.")
    from zoo.evaluation import evaluate

    evaluate(ckpt_path=path, overrides=rest, **settings)
    return 0


# Help ----------------------------------------------------------------------------------------------------------------


def _help_all() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:{width}}  {purpose}" for verb, purpose in VERBS.items())
    return f"Usage: zoo VERB [key=value …], or python -m zoo VERB …\n\n{verbs}\n\nzoo VERB --help says more."


def _help(verb: str) -> str:
    from zoo.checks import CONFIGS, options

    file = CONFIGS / ("train.yaml" if verb == "train" else "evaluate.yaml")
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    keys = "\n".join(lines[lines.index("") :]) if "defaults:" in lines else "\n".join(lines)
    groups = {group: names for group, names in options().items() if verb == "train" or group in ("data", "trainer")}
    indent = max(map(len, groups)) + 4
    listed = "\n".join(
        textwrap.fill(" ".join(names), 112, initial_indent=f"  {group:{indent - 2}}", subsequent_indent=" " * indent)
        for group, names in groups.items()
        if names
    )
    width = max(map(len, FLAGS)) + 2
    flags = "\n".join(
        f"  {flag:{width}}{text}" for flag, text in FLAGS.items() if verb == "train" or flag in ("--help", "--cfg job")
    )
    sweep = (CONFIGS / "sweep.yaml").read_text(encoding="utf-8").partition("\n")[2]
    sweeps = f"\n\nSweeps (-m; docs/sweeps.md):\n{textwrap.indent(sweep.strip(), '  ')}" if verb == "train" else ""
    more = "python train.py --cfg job" if verb == "train" else "the run's config.yaml"
    return (
        f"{VERBS[verb].capitalize()}.\n\nUsage: python {verb}.py [group=option …] [key=value …] [flags]\n\n"
        f"{textwrap.indent(EXAMPLES[verb], '  ')}\n\nGroups and their options:\n{listed}\n\n"
        f"Keys (those of the chosen options: {more}):\n{textwrap.indent(keys.strip(), '  ')}{sweeps}\n\nFlags:\n{flags}"
    )
