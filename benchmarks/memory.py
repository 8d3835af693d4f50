"""How much memory a training step takes, by model.

Every model on its own data with its own batch, float32, Adam: forward, backward and two optimizer steps in a process of
its own. Parameters, then gradients with the optimizer's two averages, then what the forward pass keeps for the backward
one (activations, counted where autograd saves them, each storage once), then by how much the process grew at its peak.
Some 14 MB of that is code that a first step loads. The process itself, with torch, Lightning and the zoo imported,
stands in the remarks.
"""

import ctypes
import gc
import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from benchmarks.record import ROOT, Options, Part

MODELS = (
    *("softmax_regression", "mlp", "lenet5", "alexnet", "vgg16", "vgg16_bn", "resnet18", "resnet50", "resnet20"),
    *("wide_resnet16_4", "inception_v1", "inception_v3", "xception", "unet", "fcn", "segnet", "rnn", "gru", "lstm"),
    *("seq2seq", "transformer", "autoencoder", "vae", "gan", "diffusion"),
)
MB = 1e6


def measure(options: Options) -> Part:
    part = Part(
        ("model", "batch", "parameters, MB", "gradients and optimizer, MB", "kept for backward, MB", "at the peak, MB")
    )
    models = ("mlp",) if options.quick else MODELS
    command = [sys.executable, "-m", "benchmarks.memory", *models]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    *lines, idle = (json.loads(line) for line in done.stdout.splitlines())
    for line in lines:
        part.add(*line)
    part.notes.append(f"The process before a model is built: {idle:.0f} MB.")
    return part


# In the process that measures ----------------------------------------------------------------------------------------


def status(name: str) -> float:
    """A line of /proc/self/status, such as VmRSS and VmHWM, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) * 1024 / MB for line in lines if line.startswith(name))


def trim() -> None:
    """Give freed memory back, and begin a new peak."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def a_model(model: str) -> list[Any]:
    """The row of a model."""
    import torch

    from zoo.build import build
    from zoo.checks import check
    from zoo.network import construct
    from zoo.report import to_plain
    from zoo.run import fill_facts, make_task

    cfg = check([f"model={model}"]).config
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        data: Any = build(to_plain(cfg.data), "data")()
        fill_facts(cfg, data)
        data.setup("fit")
    batch = next(iter(data.loader("train", training=True)))
    config, facts = to_plain(cfg), data.facts
    data.splits.clear()
    getattr(data, "tokens", {}).clear()
    trim()
    before = status("VmRSS")
    task = make_task(config, construct(config), data)
    parameters = [parameter for parameter in task.network.parameters() if parameter.requires_grad]
    del data, facts
    optimizer = torch.optim.Adam(parameters)
    own = {parameter.untyped_storage().data_ptr() for parameter in (*parameters, *task.network.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    task.train()
    trim()
    for _ in range(2):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss, _ = task.loss(task.network, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    size = sum(parameter.nbytes for parameter in parameters) / MB
    return [model, len(batch["input"]), size, 3 * size, sum(kept.values()) / MB, status("VmHWM") - before]


def main(models: list[str]) -> None:
    """Print a JSON line for each model and one for the idle process; a model's work is done in a child of this one."""
    import torch  # noqa: F401

    import zoo.run  # noqa: F401

    trim()
    idle = status("VmRSS")
    for model in models:
        sys.stdout.flush()
        child = os.fork()
        if not child:
            code = 1
            try:
                print(json.dumps(a_model(model)), flush=True)
                code = 0
            finally:
                os._exit(code)
        if os.waitpid(child, 0)[1]:
            raise SystemExit(f"{model} could not be measured")
    print(json.dumps(idle))


if __name__ == "__main__":
    main(sys.argv[1:])
