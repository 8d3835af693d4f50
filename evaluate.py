"""Score a trained model, from its run folder or a checkpoint alone.

python evaluate.py ckpt_path=runs/lenet5-digits/2026-01-31_12-00-00
python evaluate.py ckpt_path=best.ckpt split=val
python evaluate.py ckpt_path=best.ckpt data=fashion trainer.accelerator=cpu
"""

import sys

from zoo.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
