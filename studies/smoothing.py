"""Label smoothing 0 against 0.1: accuracy, and whether a confidence means what it says.

Szegedy et al. 2015, 1512.00567, section 7; Müller et al. 2019, 1906.02629, sections 2 and 3, who find better
calibration on CIFAR-100 and ImageNet. Calibration error: Guo et al. 2017, 1706.04599, 15 bins.

    python -m studies.smoothing
"""

from studies.running import COLOURS, figure, mean_std, train, write


def main(seeds: int = 3, epochs: int = 40) -> dict[str, dict[str, str]]:
    picture, axes = figure(8, 3.4, "Label smoothing on Fashion-MNIST (6,000): each dot a seed", 2)
    numbers = {}
    for place, smoothing in enumerate((0.0, 0.1)):
        words = ("model=lenet5", "data=fashion", f"task.label_smoothing={smoothing}", f"trainer.max_epochs={epochs}")
        runs = [train(*words, f"seed={seed}") for seed in range(seeds)]
        numbers[f"smoothing {smoothing}"] = {}
        for axis, name in zip(axes, ("accuracy", "calibration_error"), strict=True):
            values = [run.scores[f"test/{name}"] for run in runs]
            axis.plot([place] * seeds, values, "o", color=COLOURS[place], alpha=0.8)
            axis.set(
                xticks=[0, 1], xticklabels=["0", "0.1"], xlim=(-0.5, 1.5), xlabel="smoothing", ylabel=f"test {name}"
            )
            numbers[f"smoothing {smoothing}"][name] = mean_std(values)
    write("smoothing", picture, numbers)
    return numbers


if __name__ == "__main__":
    main()
