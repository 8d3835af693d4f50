"""Train a model; `python train.py --help` shows every group and key.

python train.py
python train.py model=mlp data=fashion optimizer.lr=0.001 trainer.max_epochs=10
python train.py resume=runs/lenet5-digits/2026-01-31_12-00-00
"""

import sys

from zoo.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
