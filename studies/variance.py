"""How the first weights decide whether a signal survives: variance by depth, against theory, and after training.

For a layer of n inputs and weights of variance v, without biases, the mean square q of the units before the
activation φ follows q' = n·v·E[φ(√q·z)²], z standard normal: He et al. 2015, 1502.01852, equation 8, for ReLU, where
the expectation is q/2; Poole et al. 2016, 1606.05340, equation 3, in general. LSUV (Mishkin & Matas 2015, 1511.06422)
sets q to 1 in each layer by measurement.

    python -m studies.variance
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from studies.running import COLOURS, figure, train, write
from zoo.init import LSUV, Glorot, He, Init, Normal

DEPTH, WIDTH, EXAMPLES = 10, 1024, 64
INITS: dict[str, Init] = {"N(0, 0.01²)": Normal(std=0.01), "Glorot": Glorot(distribution="normal")}
INITS |= {"He": He(distribution="normal"), "LSUV": LSUV()}
WEIGHT_VARIANCE = {"N(0, 0.01²)": 1e-4, "Glorot": 1 / WIDTH, "He": 2 / WIDTH}
ACTIVATIONS = {"ReLU": nn.ReLU, "tanh": nn.Tanh}


def theory(init: str, activation: str) -> list[float]:
    """q of layers 1 to DEPTH for inputs of mean square 1. The expectation by 200-point Gauss-Hermite quadrature."""
    if init == "LSUV":
        return [1.0] * DEPTH
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    phi = np.tanh if activation == "tanh" else lambda x: np.maximum(x, 0)
    q = [WIDTH * WEIGHT_VARIANCE[init]]
    while len(q) < DEPTH:
        expectation = float((weights * phi(math.sqrt(q[-1]) * nodes) ** 2).sum() / math.sqrt(2 * math.pi))
        q.append(WIDTH * WEIGHT_VARIANCE[init] * expectation)
    return q


def measure(init: str, activation: str, networks: int) -> list[float]:
    """The mean square before the activation in layers 1 to DEPTH, over examples, units and networks."""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(DEPTH, dtype=torch.float64)
    layers: list[nn.Module] = []
    for _ in range(DEPTH):
        layers += [nn.Linear(WIDTH, WIDTH, bias=False), ACTIVATIONS[activation]()]
    network = nn.Sequential(*layers)
    for _ in range(networks):
        inputs = torch.randn(EXAMPLES, WIDTH, generator=generator)
        x: Tensor = inputs / inputs.square().mean(1, keepdim=True).sqrt()  # mean square 1 in every example
        INITS[init](network, generator, x)
        with torch.no_grad():
            for number in range(DEPTH):
                x = network[2 * number](x)
                total[number] += x.square().mean()
                x = network[2 * number + 1](x)
    return (total / networks).tolist()


def trained(option: str, activation: str, epochs: int) -> float:
    """Test accuracy of ten layers of 256 on the digits, by the same schedule from each initialisation."""
    words = ("model=mlp", f"model.hidden={[256] * DEPTH}".replace(" ", ""), f"model.activation={activation}")
    words += (f"init={option}", f"trainer.max_epochs={epochs}", "optimizer=adamw", "augment=none")
    return train(*words).scores.get("test/accuracy", math.nan)


OPTIONS = {"N(0, 0.01²)": "normal", "Glorot": "glorot_normal", "He": "he_in_normal", "LSUV": "lsuv"}


def main(networks: int = 64, epochs: int = 10) -> dict[str, dict[str, float]]:
    picture, axes = figure(9, 3.8, "Mean square before the activation by depth: dots measured, lines theory", 2)
    numbers: dict[str, dict[str, float]] = {}
    for (activation, _), axis in zip(ACTIVATIONS.items(), axes, strict=True):
        for init, colour in zip(INITS, COLOURS, strict=False):
            expected, found = theory(init, activation), measure(init, activation, networks)
            depth = range(1, DEPTH + 1)
            axis.plot(depth, expected, color=colour, linewidth=1)
            axis.plot(depth, found, "o", color=colour, markersize=4, label=init)
            numbers[f"{activation}, {init}"] = {
                "theory at the last layer": expected[-1],
                "measured at the last layer": found[-1],
                "largest relative difference": max(abs(f / e - 1) for f, e in zip(found, expected, strict=True)),
                "test accuracy after training": trained(OPTIONS[init], activation.lower(), epochs),
            }
        axis.set(xlabel="layer", ylabel="mean square", yscale="log", title=activation)
        axis.legend(frameon=False, fontsize=8)
    write("variance", picture, numbers)
    return numbers


if __name__ == "__main__":
    main()
