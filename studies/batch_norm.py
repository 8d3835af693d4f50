"""Batch norm on and off at three learning rates.

Ioffe & Szegedy 2015, 1502.03167, sections 3.3 and 4.2: with it, rates can be much larger and training is faster.
VGG-11 in its small form at a quarter of the width on `earth`, momentum 0.9, constant rate.

    python -m studies.batch_norm
"""

from studies.running import COLOURS, by_epoch, figure, train, write

RATES = (0.003, 0.03, 0.3)


def main(epochs: int = 8) -> dict[str, dict[str, float | None]]:
    picture, axes = figure(9, 3.6, "Training loss of VGG-11 without (left) and with batch norm (right)", 2)
    numbers: dict[str, dict[str, float | None]] = {}
    recipe = ("data=earth", "fast=true", "optimizer=momentum", "scheduler=constant", "model.width=0.25")
    for model, axis in zip(("vgg11", "vgg11_bn"), axes, strict=True):
        for rate, colour in zip(RATES, COLOURS, strict=False):
            run = train(f"model={model}", *recipe, f"optimizer.lr={rate}", f"trainer.max_epochs={epochs}")
            curve = run.curves.get("train/loss", [])
            if curve:
                axis.plot(*by_epoch(curve), color=colour)
            axis.plot([], [], color=colour, label=f"rate {rate}" + ("" if run.scores else ": diverged"))
            numbers[f"{model}, rate {rate}"] = {
                "final training loss": by_epoch(curve)[1][-1] if run.scores else None,
                "test accuracy": run.scores.get("test/accuracy"),  # None: diverged
            }
        axis.set(xlabel="epoch", ylabel="training loss", ylim=(0, 2))
        axis.legend(frameon=False)
    write("batch_norm", picture, numbers)
    return numbers


if __name__ == "__main__":
    main()
