"""One of the processes of several runs, one after the other: a start-up for all of them. Used by test_processes.py.

    RANK=0 WORLD_SIZE=2 … python shared_runs.py JOBS.json

A job is {"folder", "overrides"} to train or {"ckpt_path", "split"} to evaluate; each gets a port of its own.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from zoo.checks import CONFIGS
from zoo.evaluation import evaluate
from zoo.run import train


def do(job: dict[str, Any]) -> dict[str, float]:
    if "ckpt_path" in job:
        return evaluate(ckpt_path=Path(job["ckpt_path"]), split=job["split"])
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", overrides=job["overrides"])
    folder = Path(job["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    return train(cfg, folder, choices={"model": "test", "data": "test"}, command=[])


if __name__ == "__main__":
    torch.set_num_threads(1)
    first_port = int(os.environ["MASTER_PORT"])
    for number, job in enumerate(json.loads(Path(sys.argv[1]).read_text())):
        os.environ["MASTER_PORT"] = str(first_port + number)
        do(job)
