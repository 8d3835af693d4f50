"""Step, cosine, one-cycle and warm restarts from the same start, against a constant rate.

Loshchilov & Hutter 2017, 1608.03983 (cosine, warm restarts); Smith & Topin 2018, 1708.07120 (one-cycle). LeNet-5 on
Fashion-MNIST (6,000) with momentum; the first weights and the order of the data are the same for a seed.

    python -m studies.schedules
"""

from studies.running import COLOURS, by_epoch, figure, mean_std, train, write

SCHEDULES = {
    "constant": ("scheduler=constant",),
    "step": ("scheduler=step", "scheduler.every=10"),
    "cosine": ("scheduler=cosine",),
    "one-cycle": ("scheduler=one_cycle",),
    "warm restarts": ("scheduler=warm_restarts", "scheduler.period=2"),
}


def main(epochs: int = 30, seeds: int = 3, rate: float = 0.05) -> dict[str, dict[str, str]]:
    picture, axes = figure(9, 3.6, "Rate (left) and validation accuracy, mean of the seeds (right)", 2)
    numbers = {}
    for (name, schedule), colour in zip(SCHEDULES.items(), COLOURS, strict=False):
        words = ("model=lenet5", "data=fashion", "optimizer=momentum", f"optimizer.lr={rate}", *schedule)
        runs = [train(*words, f"trainer.max_epochs={epochs}", f"seed={seed}") for seed in range(seeds)]
        axes[0].plot(*by_epoch(runs[0].curves["lr"]), color=colour, label=name)
        curves = [by_epoch(run.curves["val/accuracy"]) for run in runs]
        axes[1].plot(curves[0][0], [sum(at) / seeds for at in zip(*(c[1] for c in curves), strict=True)], color=colour)
        numbers[name] = {
            "test accuracy": mean_std([run.scores["test/accuracy"] for run in runs]),
            "final training loss": mean_std([by_epoch(run.curves["train/loss"])[1][-1] for run in runs]),
        }
    axes[0].set(xlabel="epoch", ylabel="rate")
    axes[1].set(xlabel="epoch", ylabel="validation accuracy")
    axes[0].legend(frameon=False, fontsize=8)
    write("schedules", picture, numbers)
    return numbers


if __name__ == "__main__":
    main()
