"""XOR with 2-4-1 sigmoid units: twenty starts from U(−10, 10), twenty from N(0, 1/√fan_in), failures counted.

Rumelhart, Hinton, Williams 1986, "Learning internal representations by error propagation", section "XOR". Full-batch
gradient descent on the squared error; all starts are trained at once as one batch of networks. A start fails when one
of the four answers is on the wrong side of one half at the end.

    python -m studies.xor
"""

import math

import torch
from torch import Tensor

from studies.running import COLOURS, figure, write

INPUT = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
TARGET = torch.tensor([0.0, 1.0, 1.0, 0.0])


SHAPES = ((2, 4), (1, 4), (4, 1), (1, 1))  # weights and biases of the hidden layer, then of the output


def draw(kind: str, starts: int, generator: torch.Generator) -> list[Tensor]:
    """Weights and biases of `starts` networks, (S, *shape) each; with `normal` the biases are 0."""
    parameters = [torch.zeros(starts, *shape) for shape in SHAPES]
    for number, parameter in enumerate(parameters):
        if kind == "uniform":
            parameter.uniform_(-10, 10, generator=generator)
        elif number in (0, 2):
            parameter.normal_(0, 1 / math.sqrt(SHAPES[number][0]), generator=generator)
    return parameters


def train(kind: str, *, starts: int, steps: int, rate: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Losses (steps, S) and final outputs (S, 4) of plain gradient descent."""
    weights = [w.requires_grad_() for w in draw(kind, starts, torch.Generator().manual_seed(seed))]
    losses = []
    for _ in range(steps):
        hidden = torch.sigmoid(INPUT @ weights[0] + weights[1])  # (S, 4, 4)
        output = torch.sigmoid(hidden @ weights[2] + weights[3]).squeeze(2)  # (S, 4)
        loss = (output - TARGET).square().mean(1)  # (S,)
        gradients = torch.autograd.grad(loss.sum(), weights)
        with torch.no_grad():
            for weight, gradient in zip(weights, gradients, strict=True):
                weight -= rate * gradient
        losses.append(loss.detach())
    return torch.stack(losses), output.detach()


def main(starts: int = 20, steps: int = 10_000, rate: float = 2.0) -> dict[str, dict[str, float]]:
    picture, axes = figure(9, 3.6, "XOR, 2-4-1: squared error of twenty starts each", 2)
    numbers = {}
    titles = {"uniform": "U(−10, 10)", "normal": "N(0, 1/√fan_in), biases 0"}
    for (kind, title), axis in zip(titles.items(), axes, strict=True):
        losses, output = train(kind, starts=starts, steps=steps, rate=rate)
        failed = ((output > 0.5) != (TARGET > 0.5)).any(1)
        for number in range(starts):
            axis.plot(losses[:, number], color=COLOURS[1] if failed[number] else COLOURS[0], linewidth=0.8, alpha=0.8)
        axis.set(
            xlabel="step",
            ylabel="squared error",
            xscale="log",
            yscale="log",
            title=f"{title}: {int(failed.sum())} fail",
        )
        solved = (losses < 0.01).float().argmax(0)[(losses[-1] < 0.01)]
        numbers[title] = {
            "failures": int(failed.sum()),
            "starts": starts,
            "median steps to error 0.01, of those that reach it": float(solved.float().median())
            if len(solved)
            else math.nan,
        }
    write("xor", picture, numbers)
    return numbers


if __name__ == "__main__":
    main()
