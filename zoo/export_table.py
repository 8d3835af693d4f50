"""Which models can be written in which format: `python -m zoo.export_table [name …]` tries them and writes the table.

Every model of `zoo list model` is built by its config with fresh weights and exported in all formats, as `zoo export`
does it. The table in docs/export.md is written anew; with names only the rows of these models are. All take about half
an hour on two cores.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import open_dict
from torch import nn

from zoo.build import build, task_class
from zoo.checks import CONFIGS, options
from zoo.errors import ZooError
from zoo.export_calls import Config, signature, tensors
from zoo.exporting import BAR, ENDINGS, export
from zoo.network import construct
from zoo.report import quieten_lightning, to_plain, write_whole
from zoo.run import fill_facts

PAGE = Path(__file__).parents[1] / "docs" / "export.md"
BEGIN, END = "<!-- table: python -m zoo.export_table -->\n", "<!-- end of table -->"


def main(args: Sequence[str]) -> int:
    quieten_lightning()
    names = list(args) or options()["model"]
    read: dict[str, Any] = {}
    for name in names:
        row = try_model(name, read)
        print(f"{name}: " + ", ".join(row.values()), flush=True)
        write_row(name, row)
    return 0


def fresh(name: str, overrides: Sequence[str] = (), read: dict[str, Any] | None = None) -> tuple[nn.Module, type, Any]:
    """An untrained network of a model's config, its task and the whole config; `read` keeps data, by their option."""
    read = {} if read is None else read
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", overrides=[f"model={name}", *overrides], return_hydra_config=True)
    chosen = str(cfg.hydra.runtime.choices["data"])
    with open_dict(cfg):
        del cfg["hydra"]
    if chosen not in read:
        read[chosen] = build(to_plain(cfg.data), "data")()
        read[chosen].setup("fit")
    fill_facts(cfg, read[chosen])
    config = to_plain(cfg)
    network = construct(config).eval()
    for parameter in network.parameters():
        if parameter.ndim > 1 and parameter.std() < 0.01:  # what starts near 0 would hide what lies before it
            nn.init.normal_(parameter, std=0.02)
    kind = task_class(config, name, trust=False)
    called = signature(network, kind, config["data"])
    with torch.no_grad():
        if not all(value.isfinite().all() for value in tensors(called.module(*called.example(2, called.steps)))):
            for norm in network.modules():  # a thousand layers whose norms have seen nothing: let them see a batch
                if isinstance(norm, nn.modules.batchnorm._BatchNorm):
                    norm.momentum = 1.0
                    norm.train()
            called.module(*called.example(16, called.steps))
    return network.eval(), kind, config


def try_model(name: str, read: dict[str, Any]) -> dict[str, str]:
    """What came of each format: the largest difference, or the sentence why not."""
    network, kind, config = fresh(name, read=read)
    row = {}
    for form, ending in ENDINGS.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                about = export(network, kind, config, form=form, path=Path(folder) / f"{name}{ending}", about={})
            except ZooError as error:
                row[form] = str(error).removeprefix(f"format={form}: ")
            else:
                row[form] = cell_of(about, config["data"].get("sequence_length"))
    return row


def cell_of(about: Config, steps: int | None) -> str:
    """The largest difference, above the bar as a share of the largest output; the number of steps where it is fixed."""
    difference, largest = about["largest_difference"], about["largest_output"]
    if difference > BAR:
        cell = f"{difference / largest:.0e} of {largest:.0e}"
    else:
        cell = f"{difference:.0e}" if difference else "0"
    is_free = not steps or any("steps" in put["shape"] for put in about["inputs"])
    return cell if is_free else f"{cell}, {steps} steps"


def read_rows(page: str) -> dict[str, dict[str, str]]:
    """The rows of the table in the page, by model."""
    rows: dict[str, dict[str, str]] = {}
    for line in page.partition(BEGIN)[2].partition(END)[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 1 + len(ENDINGS) and cells[0].startswith("`"):
            rows[cells[0].strip("`")] = dict(zip(ENDINGS, cells[1:], strict=True))
    return rows


def write_row(name: str, row: dict[str, str]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    rows = read_rows(page) | {name: {form: cell.replace("|", "/") for form, cell in row.items()}}
    there = options()["model"]
    lines = [f"| model | {' | '.join(ENDINGS)} |", "|---" * (1 + len(ENDINGS)) + "|"]
    lines += [f"| `{name}` | {' | '.join(rows[name].values())} |" for name in sorted(rows) if name in there]
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    write_whole(PAGE, before + BEGIN + "\n" + "\n".join(lines) + "\n\n" + END + after)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
