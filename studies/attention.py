"""Exact match by length with and without attention: where one fixed vector for the whole source falls behind.

Bahdanau, Cho & Bengio 2015, 1409.0473, section 5.2.2 and figure 2: BLEU of the network without attention drops with the
length of the sentence. Here strings of 4 to 16 letters are to be reversed; sources up to 20 letters are in the test
split, four longer than any in training.

    python -m studies.attention
"""

from pathlib import Path

import torch

from studies.running import COLOURS, figure, mean_std, train, write

NETWORKS = {
    "additive attention": "seq2seq",
    "dot-product attention": "seq2seq_dot",
    "one fixed vector": "seq2seq_plain",
    "Transformer": "transformer",
}
TRAINED_UP_TO = 16


def exact_by_length(folder: Path) -> dict[int, float]:
    """The share of a run's test sources of each length (letters) whose greedy output is right to the last letter."""
    from zoo import load
    from zoo.build import build
    from zoo.checkpoint import find_checkpoint, read_checkpoint
    from zoo.data.pairs import Pairs
    from zoo.decoding import greedy

    config = read_checkpoint(find_checkpoint(folder))["zoo"]["config"]["data"]
    data: Pairs = build(config, "data")()
    data.setup("test")
    network, _, _ = load(folder)
    lengths, right = [], []
    with torch.no_grad():
        for batch in data.loader("test"):
            wanted = batch["target"][:, 1:]  # without <start>
            said = greedy(network, batch["input"], batch["length"], max_length=2 * wanted.shape[1])
            width = max(said.shape[1], wanted.shape[1])
            said, wanted = (torch.nn.functional.pad(x, (0, width - x.shape[1])) for x in (said, wanted))
            lengths.append(batch["length"])
            right.append((said == wanted).all(1))
    length, hit = torch.cat(lengths), torch.cat(right).float()
    return {int(n): hit[length == n].mean().item() for n in length.unique()}


def main(seeds: int = 1, epochs: int = 7) -> dict[str, dict[str, str]]:
    picture, (axis,) = figure(7, 3.6, f"Reversing strings (n = {seeds}); trained on up to {TRAINED_UP_TO} letters")
    numbers: dict[str, dict[str, str]] = {}
    for colour, (name, model) in zip(COLOURS, NETWORKS.items(), strict=False):
        words = (f"model={model}", "data=reversal", "data.test_max_length=20", "optimizer.lr=0.002")
        runs = [train(*words, f"trainer.max_epochs={epochs}", f"seed={seed}") for seed in range(seeds)]
        shares = [exact_by_length(run.folder) for run in runs]
        lengths = sorted(shares[0])
        means = [sum(share[n] for share in shares) / seeds for n in lengths]
        axis.plot(lengths, means, "o-", color=colour, markersize=4, label=name)
        numbers[name] = {f"{n} letters": mean_std([share[n] for share in shares]) for n in lengths}
    axis.axvline(TRAINED_UP_TO + 0.5, color="#595959", linewidth=1, linestyle="--")
    axis.set(xlabel="letters of the source (right of the line: longer than in training)", ylabel="exact match")
    axis.set_ylim(-0.03, 1.05)
    axis.legend(fontsize=8, frameon=False, loc="lower left")
    write("attention", picture, numbers)
    return numbers


if __name__ == "__main__":
    main()
