"""`zoo export`: a trained network as a file that other programs read, verified against the network itself.

zoo export ckpt_path=runs/lenet5-digits/2026-01-31_12-00-00 format=onnx
zoo export ckpt_path=runs/unet-mask_folder/2026-01-31_12-00-00 format=torch_export out=unet.pt2
zoo export ckpt_path=runs/gpt-text_file/2026-01-31_12-00-00 format=safetensors

Formats: torch_export (.pt2; PyTorch alone runs it, without this package), onnx (.onnx; ONNX Runtime and many others run
it; needs the packages of the extra `onnx`), safetensors (weights by name; this package or any code with the same names
builds the network). The batch may be of any size, and so may sequences be of any length where the network's code can be
recorded so. The evaluated weights are written (the averaged ones, where there are), in float32.

Preprocessing, class names and what goes in and comes out stand inside the file and, with the largest difference from
the live network, in a file beside it that ends in .json. The file is read again and run on inputs of several sizes;
where it differs by more than 1e-4 (of outputs above 1: that share of the largest) it is refused, and nothing is left.
docs/export.md shows how to load each format.

Keys: ckpt_path (a run folder or a checkpoint file), format, out (a file or a folder; default: a new name in the run's
folder export; nothing is ever overwritten), trust (false).
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zoo import __version__
from zoo.build import task_class
from zoo.checkpoint import find_checkpoint, folder_of, read_checkpoint
from zoo.errors import ZooError
from zoo.evaluation import load_weights
from zoo.export_calls import Config, Signature, signature, tensors
from zoo.export_recording import record, recording
from zoo.keys import Key, defaults, read, truth
from zoo.layout import one_line
from zoo.network import construct
from zoo.prediction_files import target_of, written_whole
from zoo.report import quieten_lightning, versions, write_whole
from zoo.signals import stop_signals
from zoo.suggest import nearest
from zoo.tasks.seq2seq import Seq2Seq

KEYS = {"ckpt_path": Key(), "format": Key(), "out": Key(), "trust": Key(truth, False)}
ENDINGS = {"torch_export": ".pt2", "onnx": ".onnx", "safetensors": ".safetensors"}
BAR = 1e-4  # the largest difference, in float32; of outputs above 1 that share of the largest
BATCHES = (3, 1, 4)  # a network is recorded with the first, and its file tried with all
Run = Callable[[tuple[Any, ...]], list[Tensor]]  # arguments to the tensors that a file gives


def main(args: Sequence[str]) -> int:
    """Write the file and the JSON beside it, and print how far it is from the network."""
    quieten_lightning()
    own = parse(args)
    path = find_checkpoint(Path(own["ckpt_path"]))
    checkpoint = read_checkpoint(path)
    described = checkpoint["zoo"]
    config, form = described["config"], own["format"]
    kind = task_class(config, str(path), trust=own["trust"])
    network = construct(config)
    load_weights(network, checkpoint["state_dict"], path)
    name = described["choices"].get("model") or type(network).__name__
    usual = folder_of(path) / "export" / f"{Path(name).name}{ENDINGS[form]}"  # a checkpoint names no folders
    target = target_of(own["out"], usual, ENDINGS[form])
    beside = target.with_name(f"{target.name}.json")
    if beside.exists():
        raise ZooError(f"{beside} is there already, though {target.name} is not; name another with out=…")
    about = {name: described[name] for name in ("preprocessing", "class_names")} | {"model": name}
    with stop_signals(), written_whole(target) as aside:
        about = export(network.eval(), kind, config, form=form, path=aside, about=about)
    write_whole(beside, json.dumps(about, indent=2, ensure_ascii=False) + "\n")
    difference, largest = about["largest_difference"], about["largest_output"]
    print(f"largest difference from the live network: {difference:.2g}, of outputs up to {largest:.2g}")
    for put in ("inputs", "outputs"):
        print(f"{put}: " + ", ".join(f"{each['name']} {each['shape']} {each['dtype']}" for each in about[put]))
    print(f"wrote {target} and {beside.name}")
    return 0


def parse(args: Sequence[str]) -> dict[str, Any]:
    """All keys with their values."""
    own = {**defaults(KEYS), **read(args, KEYS)}
    if own["ckpt_path"] is None:
        raise ZooError("Which network? zoo export ckpt_path=<run folder or checkpoint file> format=…")
    if own["format"] not in ENDINGS:
        given = "Into what?" if own["format"] is None else f"format={own['format']}: there is no such format."
        if meant := nearest((own["format"] or "").lower(), list(ENDINGS)):
            raise ZooError(f"{given} Did you mean format={meant}?")
        raise ZooError(f"{given} format=torch_export, format=onnx or format=safetensors.")
    if own["format"] == "onnx" and (lacking := [name for name in ("onnx", "onnxscript") if not find_spec(name)]):
        raise ZooError(f"format=onnx: {' and '.join(lacking)} must be installed: python -m pip install -e '.[onnx]'")
    if own["format"] == "onnx" and not find_spec("onnxruntime"):
        raise ZooError("format=onnx: onnxruntime must be installed, to verify: python -m pip install -e '.[onnx]'")
    return own


# Writing and verifying ------------------------------------------------------------------------------------------------


def export(network: Any, kind: type, config: Config, *, form: str, path: Path, about: Config) -> Config:
    """Write a network in evaluation mode to `path`; `about` with what goes in and out and the largest difference.

    Raises ZooError, in one sentence, where the format cannot express the network or the file says something else.
    """
    prepared = about.get("preprocessing", {})  # which knows what holds where a config says more than it means
    sizes = {n: prepared.get(n) for n in ("channels", "image_size", "num_features", "sequence_length")}
    called = signature(network, kind, config["data"] | (sizes if prepared else {}))
    attempts = (called, called.fixed()) if len(called.lengths) > 1 and form != "safetensors" else (called,)
    path.touch()  # where nothing can be written the system says so, before anything is recorded
    for attempt in attempts:
        try:
            with recording(), torch.no_grad():
                found = describe(attempt, about | {"format": form, "task": kind.__name__})
                run = write(attempt, network, config, form=form, path=path, about=found)
                difference, largest = largest_difference(attempt, run)
            if difference <= BAR * max(1, largest):
                return {**found, "largest_difference": difference, "largest_output": largest}
            reason = f"what was written differs from the live network by {difference:.2g}, more than {BAR:g}"
            reason += f" of outputs up to {largest:.2g}." if largest > 1 else "."
        except OSError:
            path.unlink(missing_ok=True)
            raise
        except Exception as error:  # what recording an arbitrary network raises may be anything
            said = re.sub(r"\x1b\[\d+m", "", one_line(error))[:160]  # without colours
            reason = f"this network cannot be recorded ({type(error).__name__}: {said})."
        path.unlink(missing_ok=True)
    instead = "Nothing is left." if form == "safetensors" else "format=safetensors holds its weights."
    raise ZooError(f"format={form}: {why_not(network, kind) or reason} {instead}")


def why_not(network: nn.Module, kind: type) -> str | None:
    """The reason known beforehand why a network cannot be recorded."""
    if issubclass(kind, Seq2Seq) and any(isinstance(module, nn.RNNBase) for module in network.modules()):
        return "its encoder packs sequences by their lengths, which are numbers of Python that cannot be recorded."
    return None


def describe(called: Signature, about: Config) -> Config:
    """What stands inside the file and beside it."""
    batch = next(size for size in (3, 5, 7) if size not in (called.steps, called.steps + 1))  # to be told from steps
    args, names = called.example(batch, called.steps), [argument.name for argument in called.arguments]
    shapes = [list(argument.shape) for argument in called.arguments]
    given = tensors(called.module(*args))
    kinds = [str(value.dtype).removeprefix("torch.") for value in tensors(args)]
    inputs = [{"name": n, "shape": s, "dtype": d} for n, s, d in zip(names, shapes, kinds, strict=True)]
    outputs = [
        {"name": name, "shape": [*value.shape], "dtype": str(value.dtype).removeprefix("torch.")}
        for name, value in zip(called.outputs, given, strict=True)
    ]
    other = tensors(called.module(*called.example(BATCHES[1], called.lengths[-1])))
    has_targets = any("targets" in argument.shape for argument in called.arguments)
    free = {batch: "batch"} | ({called.steps + 1: "targets"} if has_targets else {})
    for row, one, two in zip(outputs, given, other, strict=True):  # what changes from call to call has no number
        row["shape"] = [n if n == m else free.get(n, "steps") for n, m in zip(one.shape, two.shape, strict=True)]
    return {**about, "inputs": inputs, "outputs": outputs, "zoo": __version__, "versions": versions()}


def write(called: Signature, network: Any, config: Config, *, form: str, path: Path, about: Config) -> Run:
    """Write the file and read it again; what runs it."""
    if form == "safetensors":
        about |= {"config": {name: config[name] for name in ("seed", "model", "swap") if name in config}}
        weights = {name: value.clone().contiguous() for name, value in network.state_dict().items()}  # tied ones twice
        save_file(weights, path, metadata={"zoo": json.dumps(about)})
        again: Any = construct(config)
        again.load_state_dict(load_file(path))
        module = again.eval() if called.module is network else again.generator.eval()
        return lambda args: tensors(module(*args))
    program = record(called, batch=BATCHES[0])
    if form == "onnx":
        from zoo.export_onnx import write_onnx

        return write_onnx(program, called, path, json.dumps(about))
    torch.export.save(program, path, extra_files={"zoo.json": json.dumps(about)})
    recorded = torch.export.load(path).module()
    return lambda args: tensors(recorded(*args))


def largest_difference(called: Signature, run: Run) -> tuple[float, float]:
    """Between the live module and a file, over all outputs and inputs of several sizes; and the largest output."""
    difference = largest = 0.0
    for steps in called.lengths:
        for batch in BATCHES:
            args = called.example(batch, steps)
            live, found = tensors(called.module(*args)), run(args)
            for one, two in zip(live, found, strict=True):
                if one.shape != two.shape:
                    raise ValueError(f"outputs of shape {tuple(two.shape)}: must be {tuple(one.shape)}")
                gap, size = (one - two).abs().max().item(), one.abs().max().item()
                if not math.isfinite(gap + size):
                    raise ValueError("outputs are no numbers (NaN or infinite), in the network or in the file")
                difference, largest = max(difference, gap), max(largest, size)
    return difference, largest
