"""A hundred labels: an encoder that has seen the other digits without labels, against the same classifier from scratch.

G. Hinton, R. Salakhutdinov 2006, "Reducing the dimensionality of data with neural networks", Science 313; P. Vincent
et al. 2010, "Stacked denoising autoencoders". The convolutional autoencoder and its denoising form learn all training
digits without their labels; a classifier with that encoder then learns ten labelled digits of each class, the encoder
frozen or trained with it; with shifts and rotations of the labelled digits, and without. Each way is tried at two
rates, and the better one on validation stands. (The validation split has more labels than the training split here: it
stands for knowledge of which rate is good, not for a budget.)

    python -m studies.few_labels
"""

import statistics

from studies.running import COLOURS, Run, figure, mean_std, train, write

RATES = (0.001, 0.005)
FEW = ("train_examples=100", "data.batch_size=20", "trainer.check_val_every_n_epoch=5", "trainer.log_every_n_steps=10")
CODE = "model.code=128"
BODIES = {  # of the same layers: the encoder is the classifier's
    "autoencoder": ("model=autoencoder", CODE),
    "denoising autoencoder": ("model=autoencoder", CODE, "task.corruption=masking", "task.corruption_level=0.5"),
}
SHOWN: dict[str, tuple[str, ...]] = {"digits as they are": ("augment=none",), "shifted and rotated": ()}


def main(seeds: int = 5, epochs: int = 60, first: tuple[str, ...] = ()) -> dict[str, dict[str, str]]:
    """`first` are further words for the autoencoders' own training."""
    picture, panels = figure(9.5, 3.2, "Test accuracy with a hundred labels: each dot a seed", 2)
    ways: dict[str, tuple[str, ...]] = {"from scratch": ()}
    for body, unlabelled in BODIES.items():
        weights = f"model.weights={train(*unlabelled, *first).folder}"
        ways[f"{body}, encoder frozen"] = (weights, "transfer.freeze=body")
        ways[f"{body}, encoder trained on"] = (weights,)
    numbers: dict[str, dict[str, str]] = {}
    for (shown, augment), axes in zip(SHOWN.items(), panels, strict=True):
        for place, (way, words) in enumerate(ways.items()):
            recipe = ("model=encoder_classifier", CODE, *FEW, *augment, *words, f"trainer.max_epochs={epochs}")
            tried = {
                rate: [train(*recipe, f"optimizer.lr={rate}", f"seed={s}") for s in range(seeds)] for rate in RATES
            }
            rate = max(RATES, key=lambda rate: statistics.fmean(map(validation, tried[rate])))
            scores = [run.scores["test/accuracy"] for run in tried[rate]]
            axes.plot(scores, [place] * seeds, "o", color=COLOURS[place], alpha=0.8)
            numbers[f"{shown}, {way}"] = {
                "rate": str(rate),
                "validation accuracy": mean_std([validation(run) for run in tried[rate]]),
                "test accuracy": mean_std(scores),
            }
        axes.set(yticks=range(len(ways)), yticklabels=list(ways) if axes is panels[0] else [""] * len(ways))
        axes.set(xlabel="test accuracy", title=shown)
        axes.invert_yaxis()
    write("few_labels", picture, numbers)
    return numbers


def validation(run: Run) -> float:
    """The best validation accuracy of a run, by which its checkpoint was chosen."""
    return max(value for _, value in run.curves["val/accuracy"])


if __name__ == "__main__":
    main()
