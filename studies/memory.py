"""Why plain recurrent networks forget, and what clipping does to a gradient that explodes.

How far back does the loss of the last step reach? ‖∂L_T/∂s_{T−k}‖ against the lag k, s being all that a cell hands to
its next step (of an LSTM hidden state and cell), on the adding problem: S. Hochreiter & J. Schmidhuber 1997, section 3;
R. Pascanu, T. Mikolov, Y. Bengio 2013, 1211.5063, section 2. Measured before training and after a short one. Then an
identity RNN on rows of digits, by plain gradient descent with and without clipping to norm 1 (there, section 3.2).

    python -m studies.memory
"""

import math
import statistics
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from studies.running import COLOURS, figure, write
from zoo.data.sequences import AddingTask, SequentialDigits
from zoo.models.cells import CellName, State, gru_step, lstm_step, rnn_relu_step, rnn_step
from zoo.models.recurrent import RecurrentInit, RecurrentPredictor

STEPS = {"rnn": rnn_step, "rnn_relu": rnn_relu_step, "gru": gru_step, "lstm": lstm_step}
BATCH, HIDDEN = 64, 32
LAGS = (1, 10, 30, 99)  # of the first picture, whose sequences have 100 steps


class Kind(NamedTuple):
    cell: CellName
    init: RecurrentInit = "orthogonal"
    forget_bias: float = 1.0


KINDS = {
    "RNN, U(±1/√H)": Kind("rnn", "uniform"),
    "RNN, orthogonal": Kind("rnn"),
    "identity RNN": Kind("rnn_relu", "identity"),
    "GRU": Kind("gru"),
    "LSTM, forget bias 0": Kind("lstm", forget_bias=0.0),
    "LSTM, forget bias 1": Kind("lstm"),
}
TRAINED = ("RNN, orthogonal", "identity RNN", "GRU", "LSTM, forget bias 1")
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
SHOWN = {("no clipping", 0.1): 1, ("no clipping", 0.03): 4, ("clipped to norm 1", 0.1): 0}  # runs drawn, colours


def network(kind: Kind, seed: int, *, features: int = 2, classes: int = 1, hidden: int = HIDDEN) -> RecurrentPredictor:
    torch.manual_seed(seed)
    return RecurrentPredictor(
        cell=kind.cell,
        num_features=features,
        num_classes=classes,
        hidden=hidden,
        recurrent_init=kind.init,
        forget_bias=kind.forget_bias,
    )


def batches(length: int, count: int, *, seed: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of the adding problem, each new: (B, T, 2) and (B, 1)."""
    data = AddingTask(length=length, train_size=BATCH * count, seed=seed)
    data.setup()
    for numbers in torch.arange(BATCH * count).split(BATCH):
        batch = data.splits["train"].batch(0, numbers, numbers)
        yield batch["input"], batch["target"]


def gradient_norms(model: RecurrentPredictor, cell: str, inputs: Tensor, targets: Tensor) -> Tensor:
    """‖∂L/∂s‖ of each example after every step, (B, T), L being its squared error; in float64, as it may get small.

    Each part of a state is copied before it is used, so that a derivative by the LSTM's cell leaves the hidden state
    that was computed from it as it is.
    """
    model = model.double()
    weight_ih, weight_hh, bias_ih, bias_hh = model.recurrent.all_weights[0]
    projected = F.linear(inputs.double(), weight_ih, bias_ih)  # (B, T, G·H)
    zeros = torch.zeros(len(inputs), model.recurrent.hidden_size, dtype=torch.float64)
    state: State = (zeros, zeros) if cell == "lstm" else (zeros,)
    states = []
    for x in projected.unbind(1):
        state = tuple(part.clone() for part in STEPS[cell](x, state, weight_hh, bias_hh))
        states.append(state)
    loss = (model.head(state[0]) - targets.double()).square().sum()
    flat = [part for state in states for part in state]
    gradients = torch.autograd.grad(loss, flat, allow_unused=True)  # the last cell of an LSTM leads nowhere
    squares = torch.stack([torch.zeros(len(inputs)) if g is None else g.square().sum(1) for g in gradients], 1)
    return squares.unflatten(1, (len(states), -1)).sum(2).sqrt()


def by_lag(model: RecurrentPredictor, cell: str, length: int, *, seed: int = 0) -> Tensor:
    """The mean norm at lag 0 … T − 1 over a batch, relative to that at lag 0: (T,)."""
    norms = gradient_norms(model, cell, *next(batches(length, 1, seed=seed))).mean(0).flip(0)
    return norms / norms[0]


def train(kind: Kind, length: int, steps: int) -> tuple[RecurrentPredictor, float]:
    """Adam at 0.005, clipped to norm 1; the network and the mean squared error of the last tenth."""
    model, losses = network(kind, 0), []
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    for inputs, targets in batches(length, steps):
        loss = F.mse_loss(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return model, statistics.fmean(losses[-max(1, steps // 10) :])


def descend(data: SequentialDigits, rate: float, clip: float, steps: int) -> tuple[list[float], list[float]]:
    """Loss and gradient norm before clipping at each step of an identity RNN; ends where one is no longer finite."""
    model = network(KINDS["identity RNN"], 0, features=28, classes=10, hidden=64)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    losses: list[float] = []
    norms: list[float] = []
    loader, epoch = data.train_dataloader(), 0
    while True:
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            loss = F.cross_entropy(model(batch["input"]), batch["target"])
            optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip).item()
            if not (math.isfinite(loss.item()) and math.isfinite(norm)):
                return losses, norms
            losses.append(loss.item())
            norms.append(norm)
            if len(losses) == steps:
                return losses, norms
            optimizer.step()
        epoch += 1


def vanishing(networks: int, length: int, steps: int) -> dict[str, dict[str, float]]:
    """The picture of gradient norms by lag, and their numbers."""
    title = "The adding problem: how much of the last step's gradient reaches the state k steps before"
    picture, axes = figure(11, 4.2, title, 2)
    numbers: dict[str, dict[str, float]] = {}
    colours = dict(zip(KINDS, COLOURS, strict=True))
    for name, kind in KINDS.items():
        curves = [by_lag(network(kind, seed), kind.cell, 100, seed=seed) for seed in range(networks)]
        curve = torch.stack(curves).mean(0)
        axes[0].plot(curve, color=colours[name], linewidth=1.6, label=name)
        numbers[name] = {f"untrained, lag {lag}": float(curve[lag]) for lag in LAGS}
    for name in TRAINED:
        model, error = train(KINDS[name], length, steps)
        curve = by_lag(model, KINDS[name].cell, length, seed=1)
        axes[1].plot(curve, color=colours[name], linewidth=1.6, label=f"{name}: error {error:.4f}")
        numbers[name] |= {"squared error": error, f"trained, lag {length - 1}": float(curve[-1])}
    axes[0].set(ylabel="‖∂L/∂s‖, relative to lag 0", ylim=(1e-16, 30), title="before training, sequences of 100")
    axes[1].set(ylim=(1e-5, 10), title=f"after {steps} steps of training on {length} (without memory: 0.1667)")
    for axis in axes:
        axis.set(xlabel="lag k", yscale="log")
        axis.title.set_fontsize(10)
        axis.legend(frameon=False, fontsize=8, loc="lower left")
    write("memory", picture, numbers)
    return numbers


def exploding(steps: int) -> dict[str, Any]:
    """The picture of runs with and without clipping, and their numbers."""
    data = SequentialDigits(augment=None)
    data.setup()
    picture, axes = figure(13, 3.9, "An identity RNN on rows of digits, by plain gradient descent", 3)
    numbers: dict[str, Any] = {}
    for name, clip in (("no clipping", math.inf), ("clipped to norm 1", 1.0)):
        final = []
        for rate in RATES:
            losses, norms = descend(data, rate, clip, steps)
            ended = len(losses) < steps
            final.append(math.nan if ended else statistics.fmean(losses[-steps // 10 :]))
            numbers[f"{name}, rate {rate:g}"] = {
                "steps until not finite": len(losses) if ended else None,
                "loss of the last tenth": None if ended else final[-1],
                "median gradient norm": statistics.median(norms),
                "largest gradient norm": max(norms),
            }
            if (name, rate) in SHOWN:
                colour = COLOURS[SHOWN[name, rate]]
                for axis, curve in zip(axes, (losses, norms), strict=False):
                    axis.plot(range(1, len(curve) + 1), curve, color=colour, linewidth=1, label=f"{name}, rate {rate}")
                    if ended:
                        axis.plot(len(curve), curve[-1], "x", color=colour, markersize=8, label="then not finite")
        colour = COLOURS[SHOWN[name, 0.1]]
        axes[2].plot(RATES, final, "o-", color=colour, label=name)
        lost = [rate for rate, loss in zip(RATES, final, strict=True) if math.isnan(loss)]
        if lost:
            axes[2].plot(lost, [2.0] * len(lost), "x", color=colour, markersize=8, label="not finite")
    axes[0].set(ylabel="training loss", xlabel="step", xscale="log", yscale="log", title="loss")
    axes[1].set(ylabel="norm before clipping", xlabel="step", xscale="log", yscale="log", title="gradient norm")
    axes[2].set(ylabel=f"loss of the last tenth of {steps} steps", xlabel="rate", xscale="log", title="by rate")
    for axis in axes:
        axis.title.set_fontsize(10)
    for axis in axes[1:]:
        axis.legend(frameon=False, fontsize=8)
    write("clipping", picture, numbers)
    return numbers


def main(networks: int = 8, length: int = 40, steps: int = 600, descent: int = 400) -> dict[str, dict[str, float]]:
    torch.set_num_threads(1)  # small matrices: more threads only wait for each other
    return vanishing(networks, length, steps) | exploding(descent)


if __name__ == "__main__":
    main()
