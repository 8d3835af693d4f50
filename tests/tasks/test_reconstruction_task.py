"""The reconstruction task: its losses by hand, its penalties against exact ones, its metrics over uneven batches."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.functional.image import peak_signal_noise_ratio

from zoo.corruption import corrupt
from zoo.models.autoencoder import ConvAutoencoder, DenseAutoencoder
from zoo.randomness import key
from zoo.ssim import ssim
from zoo.tasks.reconstruction import Reconstruction, encode_and_contract, kl_sparsity

FACTS = {"channels": 1, "image_size": 8, "mean": [0.0], "std": [1.0]}


def network(**options: Any) -> DenseAutoencoder:
    torch.manual_seed(0)
    return DenseAutoencoder(image_size=8, **{"widths": [12], "code": 5, "activation": "tanh", **options})


def batch(count: int = 6, seed: int = 0) -> dict[str, Tensor]:
    """As the loader gives it, but without a target."""
    images = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return {"input": images, "position": torch.arange(count) + 10 * seed}


def by_hand(loss: str, made: np.ndarray, images: np.ndarray) -> float:
    if loss == "bce":
        errors = -(images * np.log(made) + (1 - images) * np.log(1 - made))
    else:
        errors = np.abs(made - images) ** (2 if loss == "mse" else 1)
    return float(errors.sum((1, 2, 3)).mean())


@pytest.mark.parametrize("loss", ["mse", "l1", "bce", "ssim"])
def test_losses_are_sums_over_an_image(loss: str) -> None:
    task, data = Reconstruction(network(), loss=loss, facts=FACTS), batch()
    assert task.loss(task.network, data)[1] == {}  # pictures are made of whole splits only
    found, outputs = task.eval().loss(task.network, data)
    made = task.network(data["input"]).detach()
    expected = (
        1 - ssim(made, data["input"]).mean().item()
        if loss == "ssim"
        else by_hand(loss, made.double().numpy(), data["input"].double().numpy())
    )
    assert found.item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(outputs["reconstruction"], made)
    assert torch.equal(outputs["code"], task.network.encode(data["input"]))
    assert not any(value.requires_grad for value in outputs.values())
    found.backward()
    assert all(p.grad is not None and p.grad.any() for p in task.network.parameters())


def test_what_is_shown_of_a_linear_output_is_clipped_and_what_is_learnt_is_not() -> None:
    task, data = Reconstruction(network(output="linear"), facts=FACTS), batch()
    with torch.no_grad():
        task.network.decoder[-2].bias.fill_(3.0)
    loss, outputs = task.eval().loss(task.network, data)
    assert (outputs["reconstruction"] <= 1).all()
    made = task.network(data["input"])
    assert made.max() > 2
    assert loss.item() == pytest.approx((made - data["input"]).square().sum().item() / 6, rel=1e-6)


def test_kl_sparsity_is_the_sum_over_units() -> None:
    code = torch.tensor([[0.1, 0.5, 0.0], [0.3, 0.7, 0.0]])
    terms = [0.05 * math.log(0.05 / m) + 0.95 * math.log(0.95 / (1 - m)) for m in (0.2, 0.6, 1e-6)]
    assert kl_sparsity(code, 0.05).item() == pytest.approx(sum(terms), rel=1e-5)
    assert kl_sparsity(torch.full((2, 3), 0.05), 0.05).item() == pytest.approx(0, abs=1e-6)


def test_sparsity_is_added_with_its_weight() -> None:
    model, data = network(code_activation="sigmoid"), batch()
    losses = {
        options.get("sparsity", "none"): Reconstruction(model, **options, facts=FACTS).loss(model, data)[0].item()
        for options in (
            {},
            {"sparsity": "kl", "sparsity_weight": 2.0, "sparsity_target": 0.1},
            {"sparsity": "l1", "sparsity_weight": 2.0},
        )
    }
    code = model.encode(data["input"])
    assert losses["kl"] - losses["none"] == pytest.approx(2 * kl_sparsity(code, 0.1).item(), rel=1e-4)
    assert losses["l1"] - losses["none"] == pytest.approx(2 * code.abs().sum().item() / 6, rel=1e-4)


def exact_jacobian_norms(encode: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """‖J‖²_F at each image, differentiable: every derivative of every unit."""
    rows = [torch.autograd.functional.jacobian(encode, image[None], create_graph=True) for image in images]
    return torch.stack([row.square().sum() for row in rows])


def test_the_contraction_of_all_signs_is_the_exact_one_and_so_is_its_gradient() -> None:
    """Over all 2^Z sign vectors the estimate's mean is exact, Z = 3."""
    model = network(code=3, code_activation="sigmoid").double()
    images = batch(4)["input"].double()
    expected = exact_jacobian_norms(model.encode, images)
    gradients = torch.autograd.grad(expected.sum(), list(model.encoder.parameters()))
    total, sums = torch.zeros(4, dtype=torch.float64), [torch.zeros_like(g) for g in gradients]
    for number in range(8):
        v = torch.tensor([1.0 if number >> bit & 1 else -1.0 for bit in range(3)])
        code, norms = encode_and_contract(model.encode, images, lambda code, v=v: v.expand(len(code), -1))
        torch.testing.assert_close(code, model.encode(images))
        total += norms.detach() / 8
        for kept, part in zip(
            sums, torch.autograd.grad(norms.sum(), list(model.encoder.parameters()), allow_unused=True), strict=True
        ):
            kept += 0 if part is None else part / 8
    torch.testing.assert_close(total, expected.detach(), rtol=1e-6, atol=0)
    for found, wanted in zip(sums, gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)


def test_the_task_s_signs_are_fair_and_belong_to_the_position() -> None:
    task = Reconstruction(network(), contractive_weight=0.1, facts=FACTS)
    positions = torch.arange(4000)
    signs = task.signs(positions)(torch.zeros(4000, 5))
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    torch.testing.assert_close(signs.T @ signs / 4000, torch.eye(5), rtol=0, atol=0.06)
    assert torch.equal(task.signs(positions[7:9])(torch.zeros(2, 5)), signs[7:9])
    task.draws = 1
    assert not torch.equal(task.signs(positions)(torch.zeros(4000, 5)), signs)


@pytest.mark.parametrize("make", [network, lambda: ConvAutoencoder(image_size=8, width=0.25, code=5)])
def test_contraction_is_added_with_its_weight_in_training_and_evaluation(make: Callable[[], nn.Module]) -> None:
    model, data = make(), batch()
    plain, task = (Reconstruction(model, contractive_weight=w, facts=FACTS) for w in (0.0, 0.5))
    loss, outputs = task.loss(model, data)
    assert loss.item() == pytest.approx(
        plain.loss(model, data)[0].item() + 0.5 * outputs["jacobian"].mean().item(), rel=1e-5
    )
    before = [p.detach().clone() for p in model.encoder.parameters()]
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    with torch.inference_mode():  # as Lightning validates; the batch is made in there, too
        inside = {name: value.clone() for name, value in data.items()}
        evaluated, outputs = task.eval().loss(model, inside)
        assert evaluated.item() == pytest.approx(loss.item(), rel=1e-6)
        assert not outputs["code"].requires_grad
    assert all(torch.equal(old, new) for old, new in zip(before, model.encoder.parameters(), strict=True))


@pytest.mark.parametrize("corruption", ["gaussian", "masking", "salt_pepper"])
def test_a_denoising_loss_sees_the_corrupted_and_compares_with_the_clean(corruption: str) -> None:
    model, data = network(), batch()
    task = Reconstruction(model, corruption=corruption, corruption_level=0.4, facts=FACTS, seed=3)
    task.draws = 17
    seen = corrupt(data["input"], data["position"], seed=key(17, "corruption"), corruption=corruption, level=0.4)
    denoised = model(seen)
    expected = (denoised - data["input"]).square().sum().item() / 6
    loss, outputs = task.loss(model, data)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert "corrupted" not in outputs  # training has no use for a second pass
    model.eval()
    loss, outputs = task.loss(model, data)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert torch.equal(outputs["corrupted"], seen)
    torch.testing.assert_close(outputs["denoised"], denoised.detach())
    torch.testing.assert_close(outputs["reconstruction"], model(data["input"]).detach())
    torch.testing.assert_close(outputs["code"], model.encode(data["input"]).detach())


def evaluated(task: Reconstruction, batches: list[dict[str, Tensor]]) -> dict[str, float]:
    task.eval()
    task.start_split()
    with torch.inference_mode():
        for number, data in enumerate(batches):
            task.evaluation_step(data, number)
    return task.split_scores("val")


def test_metrics_are_means_over_all_images_of_a_split() -> None:
    model, batches = network(output="linear"), [batch(5, 1), batch(5, 2), batch(2, 3)]
    task = Reconstruction(
        model, corruption="masking", corruption_level=0.4, contractive_weight=0.1, facts=FACTS, seed=5
    )
    scores = evaluated(task, batches)
    images, positions = (torch.cat([b[name] for b in batches]) for name in ("input", "position"))
    draws = key(5, "draws", "evaluation")
    seen = corrupt(images, positions, seed=key(draws, "corruption"), corruption="masking", level=0.4)
    made, restored = (model(x).detach().clamp(0, 1) for x in (images, seen))
    error = made - images
    task.draws = draws
    jacobian = encode_and_contract(model.encode, seen, task.signs(positions))[1].mean().item()
    code = model.encode(images).detach()
    expected = {
        "val/loss": (model(seen) - images).square().sum().item() / 12 + 0.1 * jacobian,
        "val/mse": error.square().mean().item(),
        "val/squared_error": error.square().sum().item() / 12,
        "val/mae": error.abs().mean().item(),
        "val/psnr": peak_signal_noise_ratio(
            made, images, data_range=1.0, reduction="elementwise_mean", dim=(1, 2, 3)
        ).item(),
        "val/ssim": ssim(made, images).mean().item(),
        "val/denoised_squared_error": (restored - images).square().sum().item() / 12,
        "val/corrupted_squared_error": (seen - images).square().sum().item() / 12,
        "val/jacobian": jacobian,
        "val/code_mean": code.mean().item(),
        "val/active_units": 1.0,
    }
    assert scores == pytest.approx(expected, rel=1e-5)
    assert evaluated(task, batches) == scores  # the same draws each time


def test_units_that_do_not_vary_are_not_active() -> None:
    model = network()
    with torch.no_grad():
        model.encoder[-1].weight[0] = 0  # constant,
        model.encoder[-1].bias[0] = 5
        model.encoder[-1].weight[1] *= 1e-4  # nearly so
    scores = evaluated(Reconstruction(model, facts=FACTS), [batch(20)])
    assert scores["val/active_units"] == pytest.approx(3 / 5)
    with torch.no_grad():
        model.encoder[-1].weight.zero_()
    assert evaluated(Reconstruction(model, facts=FACTS), [batch(20)])["val/active_units"] == 0


def test_a_perfect_reconstruction_has_100_decibels() -> None:
    task, data = Reconstruction(network(), facts=FACTS), batch()
    task.update_metrics({"reconstruction": data["input"], "code": torch.zeros(6, 5)}, data)
    scores = task.split_metrics.compute()
    assert scores["psnr"].item() == pytest.approx(100)
    assert scores["ssim"].item() == pytest.approx(1)


def test_a_loss_that_is_no_number_stays_one() -> None:
    model = network()
    with torch.no_grad():
        model.decoder[0].bias[0] = math.nan
    scores = evaluated(Reconstruction(model, facts=FACTS), [batch()])
    assert math.isnan(scores["val/loss"])
    assert math.isnan(scores["val/mse"])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"loss": "mae"}, "loss=mae: must be one of mse, l1, bce, ssim"),
        ({"corruption": "blur"}, "corruption=blur: must be one of"),
        ({"corruption": "masking", "corruption_level": 1.0}, r"corruption_level=1\.0: must"),
        ({"sparsity": "l2"}, "sparsity=l2: must be one of none, kl, l1"),
        ({"sparsity": "kl"}, r"sparsity=kl: must be .*model\.code_activation=sigmoid"),
        ({"corruption_level": 0.5}, r"corruption_level=0\.5: must be left out without corruption"),
        ({"sparsity": "l1", "sparsity_target": 0.1}, r"sparsity_target=0\.1: must be left out without sparsity=kl"),
        ({"sparsity_weight": 1.0}, r"sparsity_weight=1\.0: must be left out without sparsity"),
        ({"sparsity_target": 1.0}, r"sparsity_target=1\.0: must"),
        ({"sparsity_target": 0.0}, r"sparsity_target=0\.0: must"),
        ({"sparsity_weight": -1.0}, r"sparsity_weight=-1\.0: must"),
        ({"contractive_weight": -0.1}, r"contractive_weight=-0\.1: must"),
        ({"contractive_weight": math.nan}, "contractive_weight=nan: must"),
        ({"facts": {**FACTS, "mean": [0.5], "std": [0.5]}}, r"data\.mean=\[0\.5\]: must be \[0\]"),
    ],
)
def test_what_is_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Reconstruction(network(), **{"facts": FACTS, **options})


def test_a_cross_entropy_of_a_linear_output_is_refused() -> None:
    with pytest.raises(ValueError, match="loss=bce: must be mse, l1 or ssim with a network of output=linear"):
        Reconstruction(network(output="linear"), loss="bce", facts=FACTS)


@pytest.mark.parametrize("model", ["contractive_autoencoder", "denoising_autoencoder", "sparse_autoencoder"])
def test_a_run_trains_validates_and_tests(model: str, small_run: Callable[..., tuple[Path, dict[str, float]]]) -> None:
    _, scores = small_run(f"model={model}", "task=reconstruction", "model.code=8", "data.mean=[0.0]", "data.std=[1.0]")
    assert scores["test/squared_error"] == pytest.approx(scores["test/mse"] * 784, rel=1e-5)
