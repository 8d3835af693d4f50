"""Ten labels a class: a body that has learnt another data set, frozen, in part or not, against training from scratch.

Yosinski et al. 2014, 1411.1792, section 4. ResNet-20 at half the width learns all of `fashion`; its body then starts
on 100 digits, ten of each class, and the other way round. Each way, from scratch too, is tried at two rates, and the
better one on validation stands; which way is best is read off validation, too. All are shown. (The validation split has
more labels than the training split here: it stands for knowledge of which way is best, not for a real budget.)

    python -m studies.transfer
"""

import statistics

from studies.running import COLOURS, Run, figure, mean_std, train, write

RATES = (0.001, 0.01)
NETWORK = ("model=resnet20", "model.width=0.5", "model.image_size=28")
FEW = ("train_examples=100", "data.batch_size=20", "trainer.check_val_every_n_epoch=5", "trainer.log_every_n_steps=10")
WAYS: dict[str, tuple[str, ...]] = {
    "from scratch": (),
    "body frozen": ("transfer.freeze=body",),
    "last 3 of 10 blocks trained": ("transfer.freeze=3",),
    "all trained": (),
    "all trained, body at a tenth of the rate": ("transfer.body_lr=0.1",),
}


def main(seeds: int = 5, epochs: int = 40, first_epochs: int = 12) -> dict[str, dict[str, str]]:
    picture, axes = figure(9, 3.6, "Test accuracy with ten labels a class: each dot a seed", 2)
    numbers: dict[str, dict[str, str]] = {}
    for (source, target), axis in zip((("fashion", "digits"), ("digits", "fashion")), axes, strict=True):
        body = train(*NETWORK, f"data={source}", f"trainer.max_epochs={first_epochs}").folder
        scratch: list[float] = []
        for place, (way, words) in enumerate(WAYS.items()):
            weights = () if way == "from scratch" else (f"model.weights={body}",)
            recipe = (*NETWORK, f"data={target}", *FEW, *words, *weights, f"trainer.max_epochs={epochs}")
            tried = {
                rate: [train(*recipe, f"optimizer.lr={rate}", f"seed={seed}") for seed in range(seeds)]
                for rate in RATES
            }
            rate = max(RATES, key=lambda rate: statistics.fmean(map(validation, tried[rate])))
            runs = tried[rate]
            scores = [run.scores["test/accuracy"] for run in runs]
            scratch = scratch or scores  # the first way
            axis.plot(scores, [place] * seeds, "o", color=COLOURS[place], alpha=0.8)
            numbers[f"{source} to {target}, {way}"] = {
                "rate": str(rate),
                "validation accuracy": mean_std([validation(run) for run in runs]),
                "test accuracy": mean_std(scores),
                "standard deviations above scratch": f"{above_scratch(scores, scratch):.1f}",
            }
        axis.set(yticks=range(len(WAYS)), yticklabels=list(WAYS) if source == "fashion" else [""] * len(WAYS))
        axis.set(xlabel="test accuracy", title=f"{source} → {target}")
        axis.invert_yaxis()
    write("transfer", picture, numbers)
    return numbers


def validation(run: Run) -> float:
    """The best validation accuracy of a run, by which its checkpoint was chosen."""
    return max(value for _, value in run.curves["val/accuracy"])


def above_scratch(scores: list[float], scratch: list[float]) -> float:
    """The difference of the means in units of the larger of the two sample standard deviations."""
    spread = max(statistics.stdev(scores), statistics.stdev(scratch))
    return (statistics.fmean(scores) - statistics.fmean(scratch)) / spread


if __name__ == "__main__":
    main()
