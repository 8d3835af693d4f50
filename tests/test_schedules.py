"""Every schedule against its counterpart in torch.optim.lr_scheduler over a whole run; warm-up and the rest by hand."""

from collections.abc import Callable

import pytest
import torch
from torch.optim import lr_scheduler as torch_schedules

from zoo import schedules
from zoo.schedules import Schedule

EPOCHS, STEPS = 12, 7  # epochs, and steps in each
TOTAL = EPOCHS * STEPS
LR = 0.3


def ours(schedule: Schedule, total: int = TOTAL, steps_per_epoch: int = STEPS) -> list[float]:
    return [schedule.multiplier(step, total, steps_per_epoch) for step in range(total)]


def twin(make: Callable, *, each: int = 1, total: int = TOTAL) -> list[float]:
    """The factors of a torch scheduler that is stepped after every `each` optimisation steps."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler = make(optimizer)
    factors = []
    for step in range(1, total + 1):
        factors.append(optimizer.param_groups[0]["lr"] / LR)
        optimizer.step()
        if step % each == 0 and step < total:
            scheduler.step()
    return factors


TWINS = {
    "constant": (schedules.Constant(), lambda o: torch_schedules.ConstantLR(o, factor=1.0), 1),
    "step": (schedules.Step(every=3, factor=0.3), lambda o: torch_schedules.StepLR(o, 3, 0.3), STEPS),
    "step in steps": (
        schedules.Step(every=10, factor=0.5, unit="step"),
        lambda o: torch_schedules.StepLR(o, 10, 0.5),
        1,
    ),
    "multi_step": (
        schedules.MultiStep(milestones=(2, 3, 9), factor=0.2),
        lambda o: torch_schedules.MultiStepLR(o, [2, 3, 9], 0.2),
        STEPS,
    ),
    "multi_step in steps": (
        schedules.MultiStep(milestones=[5, 50], factor=0.2, unit="step"),
        lambda o: torch_schedules.MultiStepLR(o, [5, 50], 0.2),
        1,
    ),
    "exponential": (schedules.Exponential(factor=0.8), lambda o: torch_schedules.ExponentialLR(o, 0.8), STEPS),
    "exponential in steps": (
        schedules.Exponential(factor=0.98, unit="step"),
        lambda o: torch_schedules.ExponentialLR(o, 0.98),
        1,
    ),
    "inverse_time": (
        schedules.InverseTime(decay=0.4),
        lambda o: torch_schedules.LambdaLR(o, lambda n: 1 / (1 + 0.4 * n)),
        STEPS,
    ),
    "inverse_time in steps": (
        schedules.InverseTime(decay=0.4, unit="step"),
        lambda o: torch_schedules.LambdaLR(o, lambda n: 1 / (1 + 0.4 * n)),
        1,
    ),
    "polynomial": (schedules.Polynomial(power=0.9), lambda o: torch_schedules.PolynomialLR(o, TOTAL, 0.9), 1),
    "linear to an end": (
        schedules.Polynomial(end=0.2),
        lambda o: torch_schedules.LinearLR(o, 1.0, 0.2, TOTAL),
        1,
    ),
    "cosine": (
        schedules.Cosine(end=0.1),
        lambda o: torch_schedules.CosineAnnealingLR(o, TOTAL, eta_min=0.1 * LR),
        1,
    ),
    "warm_restarts": (
        schedules.CosineRestarts(period=2, growth=2, end=0.05),
        lambda o: torch_schedules.CosineAnnealingWarmRestarts(o, 2 * STEPS, 2, eta_min=0.05 * LR),
        1,
    ),
    "warm_restarts of one length": (
        schedules.CosineRestarts(period=9, growth=1, unit="step"),
        lambda o: torch_schedules.CosineAnnealingWarmRestarts(o, 9),
        1,
    ),
    "one_cycle": (
        schedules.OneCycle(warmup_fraction=0.25, start=0.1, end=0.001),
        lambda o: torch_schedules.OneCycleLR(
            o, LR, TOTAL, pct_start=0.25, div_factor=10, final_div_factor=100, cycle_momentum=False
        ),
        1,
    ),
    "cyclic": (
        schedules.Cyclic(period=4, low=0.2),
        lambda o: torch_schedules.CyclicLR(o, 0.2 * LR, LR, 2 * STEPS, cycle_momentum=False),
        1,
    ),
    "triangular2": (
        schedules.Cyclic(period=12, low=0.2, shrink=0.5, unit="step"),
        lambda o: torch_schedules.CyclicLR(o, 0.2 * LR, LR, 6, mode="triangular2", cycle_momentum=False),
        1,
    ),
}


@pytest.mark.parametrize("name", TWINS)
def test_schedule_is_torchs(name: str) -> None:
    schedule, make, each = TWINS[name]
    assert ours(schedule) == pytest.approx(twin(make, each=each), abs=1e-9)


@pytest.mark.parametrize("total", [4, 5, 57, 1000])
def test_one_cycle_is_torchs_at_any_length(total: int) -> None:
    def make(optimizer):
        return torch_schedules.OneCycleLR(optimizer, LR, total, cycle_momentum=False)  # its defaults are ours

    assert ours(schedules.OneCycle(), total) == pytest.approx(twin(make, total=total), abs=1e-9)


def test_one_cycle_of_one_step_learns() -> None:
    assert ours(schedules.OneCycle(), 1) == [1.0]


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize(
    ("patience", "cooldown", "min_delta", "minimum"), [(0, 0, 0.0, 0.0), (2, 0, 0.05, 0.0), (1, 3, 0.0, 0.02)]
)
def test_plateau_is_torchs(mode: str, patience: int, cooldown: int, min_delta: float, minimum: float) -> None:
    plateau = schedules.Plateau(factor=0.5, patience=patience, cooldown=cooldown, min_delta=min_delta, minimum=minimum)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler = torch_schedules.ReduceLROnPlateau(
        optimizer, mode, 0.5, patience, min_delta, "abs", cooldown, minimum * LR, eps=0.0
    )  # fmt: skip
    generator = torch.Generator().manual_seed(3)
    sign = 1 if mode == "max" else -1
    scores = [sign * min(0.1 * n, 1.0) + 0.2 * torch.rand(1, generator=generator).item() for n in range(60)]
    factors = []
    for score in scores:
        factors.append(plateau.multiplier(17, TOTAL, STEPS))
        assert factors[-1] == pytest.approx(optimizer.param_groups[0]["lr"] / LR, abs=1e-9)
        plateau.observe(score, mode)
        scheduler.step(score)
    assert len(set(factors)) > 3


def test_plateau_counts_a_score_that_is_no_number_as_no_improvement() -> None:
    plateau = schedules.Plateau(patience=1)
    for score in (float("nan"), float("nan")):
        plateau.observe(score, "min")
    assert plateau.multiplier(0, TOTAL, STEPS) == pytest.approx(0.1)


def test_plateau_continues_from_its_state() -> None:
    whole = schedules.Plateau(patience=1, cooldown=1)
    scores = [0.5, 0.4, 0.4, 0.6, 0.1, 0.2, 0.3, 0.3, 0.3, 0.2, 0.2]
    for score in scores:
        whole.observe(score, "max")
    for cut in range(len(scores)):
        first, second = schedules.Plateau(patience=1, cooldown=1), schedules.Plateau(patience=1, cooldown=1)
        for score in scores[:cut]:
            first.observe(score, "max")
        state = first.state_dict()
        second.load_state_dict(state)
        for score in scores[cut:]:
            second.observe(score, "max")
        assert second.state_dict() == whole.state_dict()
        assert state == first.state_dict()  # a copy, which the second does not write to
    assert all(isinstance(value, int | float) for value in whole.state_dict().values())


def test_warmup_in_steps_by_hand() -> None:
    factors = ours(schedules.Constant(warmup_steps=4), 8)
    assert factors == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1])


@pytest.mark.parametrize("schedule", [schedules.Cosine, schedules.OneCycle, schedules.MultiStep])
def test_warmup_in_epochs_leads_to_the_schedule_of_what_is_left(schedule: type[Schedule]) -> None:
    alone = ours(schedule(), TOTAL - 14)
    factors = ours(schedule(warmup_epochs=2))
    assert factors[14:] == alone
    assert factors[:14] == pytest.approx([alone[0] * (n + 1) / 15 for n in range(14)])
    assert ours(schedule(warmup_epochs=0.5))[4:] == ours(schedule(), TOTAL - 4)  # 3.5 steps are 4


def test_plateau_warms_up_from_its_current_factor() -> None:
    plateau = schedules.Plateau(warmup_steps=3, patience=0)
    assert plateau.multiplier(1, 10, 5) == pytest.approx(0.5)
    plateau.observe(1.0, "min")
    plateau.observe(1.0, "min")
    assert plateau.multiplier(1, 10, 5) == pytest.approx(0.05)


def test_a_warmup_as_long_as_the_run_is_refused() -> None:
    with pytest.raises(ValueError, match=r"warmup_epochs=12: must be shorter than the run, which has 84 steps"):
        ours(schedules.Cosine(warmup_epochs=12))
    with pytest.raises(ValueError, match=r"warmup_steps=84: must be shorter"):
        ours(schedules.Cosine(warmup_steps=84))
    assert len(ours(schedules.Cosine(warmup_steps=83))) == 84


WRONG = [
    (schedules.Constant, {"warmup_steps": -1}),
    (schedules.Constant, {"warmup_epochs": -1.0}),
    (schedules.Constant, {"warmup_epochs": 1, "warmup_steps": 1}),
    (schedules.Step, {"every": 0}),
    (schedules.Step, {"factor": 0.0}),
    (schedules.Step, {"unit": "epochs"}),
    (schedules.MultiStep, {"milestones": [3, 2]}),
    (schedules.MultiStep, {"milestones": [0, 2]}),
    (schedules.MultiStep, {"factor": -1}),
    (schedules.MultiStep, {"unit": "batch"}),
    (schedules.Exponential, {"factor": 1.1}),
    (schedules.Exponential, {"unit": "s"}),
    (schedules.InverseTime, {"decay": -0.1}),
    (schedules.InverseTime, {"unit": "s"}),
    (schedules.Polynomial, {"power": 0}),
    (schedules.Polynomial, {"end": 2}),
    (schedules.Cosine, {"end": -0.1}),
    (schedules.CosineRestarts, {"period": 0}),
    (schedules.CosineRestarts, {"growth": 0.5}),
    (schedules.CosineRestarts, {"end": 1.5}),
    (schedules.CosineRestarts, {"unit": "s"}),
    (schedules.OneCycle, {"warmup_fraction": 1.0}),
    (schedules.OneCycle, {"start": 0.0}),
    (schedules.OneCycle, {"end": -1.0}),
    (schedules.Cyclic, {"period": 0}),
    (schedules.Cyclic, {"low": 1.2}),
    (schedules.Cyclic, {"shrink": 0}),
    (schedules.Cyclic, {"unit": "s"}),
    (schedules.Plateau, {"factor": 1.0}),
    (schedules.Plateau, {"patience": -1}),
    (schedules.Plateau, {"min_delta": -1.0}),
    (schedules.Plateau, {"cooldown": -1}),
    (schedules.Plateau, {"minimum": 2.0}),
]


@pytest.mark.parametrize(("schedule", "arguments"), WRONG)
def test_wrong_values_are_refused(schedule: type[Schedule], arguments: dict) -> None:
    argument = next(iter(arguments))
    with pytest.raises(ValueError, match=f"^{argument}=.*must be"):
        schedule(**arguments)


def test_values_at_the_border_are_accepted() -> None:
    schedules.Step(every=1)
    schedules.Cosine(end=1.0)
    schedules.CosineRestarts(period=0.5, growth=1)
    schedules.Cyclic(period=0.5, low=0.0, shrink=1.0)
    schedules.OneCycle(warmup_fraction=0.0, start=1.0, end=0.0)
    schedules.Plateau(patience=0, minimum=1.0)
    with pytest.raises(ValueError, match=r"end=1\.5"):
        schedules.Cosine(end=1.5)
