"""Degradation: a deeper plain network reaches a worse *training* loss than a shallower one, its residual twin does not.

He et al. 2015, 1512.03385, section 1, figures 1 and 6. Their setting, CIFAR-10 for 164 epochs, is replaced by the
climate tiles of `earth` for 12 and half the width, one seed; depths 20 and 56, option A, batch norm everywhere.

    python -m studies.depth
"""

from studies.running import COLOURS, by_epoch, figure, mean_std, train, write

RECIPE = ("data=earth", "fast=true", "optimizer=momentum", "optimizer.weight_decay=1e-4", "scheduler=cosine")


def main(epochs: int = 12, seeds: int = 1, width: float = 0.5) -> dict[str, dict[str, str]]:
    picture, axes = figure(9, 3.6, "Training loss by depth: plain (left) and residual (right)", 2)
    numbers = {}
    for kind, axis in zip(("plain", "resnet"), axes, strict=True):
        for depth, colour in ((20, COLOURS[0]), (56, COLOURS[1])):
            words = (f"model={kind}{depth}", f"model.width={width}", f"trainer.max_epochs={epochs}", *RECIPE)
            runs = [train(*words, f"seed={seed}") for seed in range(seeds)]
            for run in runs:
                axis.plot(*by_epoch(run.curves["train/loss"]), color=colour, alpha=0.8, linewidth=1.4)
            axis.plot([], [], color=colour, label=f"{kind}{depth}")
            numbers[f"{kind}{depth}"] = {
                "final training loss": mean_std([by_epoch(run.curves["train/loss"])[1][-1] for run in runs]),
                "test accuracy": mean_std([run.scores["test/accuracy"] for run in runs]),
            }
        axis.set(xlabel="epoch", ylabel="training loss", ylim=(0, 1.4))
        axis.legend(frameon=False)
    write("depth", picture, numbers)
    return numbers


if __name__ == "__main__":
    main()
