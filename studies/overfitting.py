"""Six remedies against overfitting on 1,000 images: what each does to the gap between training and test.

Decay (L2), L1, dropout (Srivastava et al. 2014), augmentation, early stopping (Prechelt 1998), and all but L1 at once.
An MLP of two layers of 512 on 1,000 pictures of `fashion`, 100 a class, Adam at a constant rate.

    python -m studies.overfitting
"""

from studies.running import COLOURS, by_epoch, figure, mean_std, train, write

REMEDIES: dict[str, tuple[str, ...]] = {
    "none": (),
    "L2": ("penalty.l2=1e-2",),
    "L1": ("penalty.l1=1e-4",),
    "dropout": ("model.dropout=0.5",),
    "augmentation": ("augment=flip_shift",),
    "early stopping": ("early_stopping.patience=5",),
    "dropout, L2, augmentation": ("model.dropout=0.5", "penalty.l2=1e-3", "augment=flip_shift"),
}
BASE = ("model=mlp", "model.hidden=[512,512]", "data=fashion", "train_examples=1000", "optimizer=adam")


def main(epochs: int = 60, seeds: int = 3) -> dict[str, dict[str, str]]:
    picture, axes = figure(10, 3.8, "1,000 pictures: training loss (left), validation loss (right), seed 0", 2)
    numbers = {}
    for (name, remedy), colour in zip(REMEDIES.items(), (*COLOURS, "#595959"), strict=True):
        words = (*BASE, "scheduler=constant", f"trainer.max_epochs={epochs}")
        words += remedy if any(word.startswith("augment") for word in remedy) else ("augment=none", *remedy)
        runs = [train(*words, f"seed={seed}") for seed in range(seeds)]
        for axis, metric in zip(axes, ("train/loss", "val/loss"), strict=True):
            epoch, values = by_epoch(runs[0].curves[metric])
            axis.plot(epoch, values, color=colour, label=name, linewidth=1.3)
        numbers[name] = {
            "final training loss": mean_std([by_epoch(run.curves["train/loss"])[1][-1] for run in runs]),
            "final validation loss": mean_std([run.last("val/loss") for run in runs]),
            "final validation accuracy": mean_std([run.last("val/accuracy") for run in runs]),
            "test accuracy of the best epoch": mean_std([run.scores["test/accuracy"] for run in runs]),
            "epochs": mean_std([float(run.curves["val/loss"][-1][0]) for run in runs]),
        }
    axes[0].set(xlabel="epoch", ylabel="training loss", yscale="log")
    axes[1].set(xlabel="epoch", ylabel="validation loss", ylim=(0.3, 2))
    axes[0].legend(frameon=False, fontsize=7)
    write("overfitting", picture, numbers)
    return numbers


if __name__ == "__main__":
    main()
