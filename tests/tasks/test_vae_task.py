"""The task of variational autoencoders: the bound by hand, one objective, what is drawn, scores of a split, making."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from zoo.errors import ZooError
from zoo.evaluation import evaluate
from zoo.models.vae import VAE
from zoo.randomness import key, normal
from zoo.tasks import vae
from zoo.tasks.vae import Vae

FACTS = {"channels": 1, "image_size": 4, "num_classes": 3, "mean": [0.0], "std": [1.0]}


def network(**settings: Any) -> VAE:
    torch.manual_seed(1)
    return VAE(**{"image_size": 4, "hidden": [8], "latent_size": 3, **settings})


def make(*, facts: dict[str, Any] | None = None, net: VAE | None = None, **settings: Any) -> Vae:
    return Vae(net or network(), facts=FACTS | (facts or {}), **settings).eval()


def batches(sizes: tuple[int, ...] = (4, 3), seed: int = 0) -> list[dict[str, Tensor]]:
    generator, found, start = torch.Generator().manual_seed(seed), [], 0
    for size in sizes:
        images = torch.randint(0, 256, (size, 1, 4, 4), generator=generator) / 255
        target = torch.randint(0, 3, (size,), generator=generator)
        found.append({"input": images, "target": target, "position": torch.arange(start, start + size)})
        start += size
    return found


def evaluated(task: Vae, given: list[dict[str, Tensor]], *, test: bool = False) -> dict[str, float]:
    task.start_split()
    with torch.no_grad():
        for number, batch in enumerate(given):
            (task.test_step if test else task.evaluation_step)(batch, number)
    return task.split_scores("test" if test else "val")


def test_the_loss_is_reconstruction_plus_beta_times_kl_summed_over_pixels() -> None:
    task, (batch, _) = make(beta=0.5), batches()
    task.draws = 7
    loss, outputs = task.loss(task.network, batch)
    noise = normal(key(7, "noise"), batch["position"], 3)
    logits, mean, log_variance = task.network(batch["input"], noise)
    cost = F.binary_cross_entropy_with_logits(logits, batch["input"], reduction="sum") / 4
    kl = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(loss, cost + 0.5 * kl.sum() / 4)
    torch.testing.assert_close(outputs["kl"], kl.detach())
    torch.testing.assert_close(outputs["nats"].mean(), (cost + kl.sum() / 4).detach())
    torch.testing.assert_close(outputs["reconstruction"], torch.sigmoid(logits).detach())
    assert not any(tensor.requires_grad for tensor in outputs.values())


def test_a_gaussian_decoder_learns_its_sigma() -> None:
    task, (batch, _) = make(net=network(likelihood="gaussian")), batches()
    loss, outputs = task.loss(task.network, batch)
    loss.backward()
    assert task.network.log_scale.grad != 0
    means, _, _ = task.network(*task.inputs(batch))
    torch.testing.assert_close(outputs["reconstruction"], means.detach())  # not squashed once more


def engine_at(step: int) -> Any:
    return SimpleNamespace(step_count=step, steps_per_epoch=10, network_for_evaluation=lambda: task_network)


task_network = network()


@pytest.mark.parametrize(("step", "share"), [(0, 1 / 20), (9, 0.5), (19, 1.0), (50, 1.0)])
def test_warm_up_weighs_the_kl_in_training_only(step: int, share: float) -> None:
    task, (batch, _) = make(net=task_network, beta=4.0, kl_warmup_epochs=2), batches()
    plain, outputs = make(net=task_network, beta=0.0).loss(task_network.eval(), batch)
    kl = outputs["kl"].sum(1).mean()
    task.engine = engine_at(step)
    torch.testing.assert_close(task.loss(task_network.train(), batch)[0], plain + share * 4 * kl)
    torch.testing.assert_close(task.loss(task_network.eval(), batch)[0], plain + 4 * kl)


def test_noise_and_binary_pixels_are_functions_of_key_and_position() -> None:
    task, (batch, _) = make(binarize="dynamic"), batches()
    task.draws = 5
    together = task.inputs(batch)
    torch.manual_seed(99)
    alone = task.inputs({name: tensor[2:3] for name, tensor in batch.items()})
    for whole, part in zip(together, alone, strict=True):
        torch.testing.assert_close(whole[2:3], part)
    task.draws = 6  # another epoch
    for before, now in zip(together, task.inputs(batch), strict=True):
        assert not torch.equal(before, now)


def test_evaluation_always_draws_the_same() -> None:
    task = make(binarize="dynamic")
    first = evaluated(task, batches())
    task.draws = 123  # a training epoch in between
    assert evaluated(task, batches()) == first


def test_binarize() -> None:
    many = {"input": torch.full((1, 1, 100, 100), 0.3), "position": torch.zeros(1, dtype=torch.int64)}
    many["input"][..., 50:] = 0.8
    net = network(image_size=100)
    assert torch.equal(make(net=net).images(many), many["input"])
    assert torch.equal(make(net=net, binarize="threshold").images(many), (many["input"] > 0.5).float())
    drawn = make(net=net, binarize="dynamic").images(many)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert drawn[..., :50].mean().item() == pytest.approx(0.3, abs=0.03)
    assert drawn[..., 50:].mean().item() == pytest.approx(0.8, abs=0.03)


def test_scores_are_of_the_whole_split_whatever_the_batches() -> None:
    task = make(beta=0.5)
    scores = evaluated(task, batches((4, 3)))
    whole = {name: torch.cat([b[name] for b in batches((4, 3))]) for name in batches()[0]}
    _, outputs = task.loss(task.network, whole)  # with evaluation's key still set
    nelbo, kl = outputs["nats"].mean().item(), outputs["kl"].mean(0)
    expected = {
        "val/loss": nelbo - 0.5 * kl.sum().item(),
        "val/nelbo": nelbo,
        "val/reconstruction": nelbo - kl.sum().item(),
        "val/kl": kl.sum().item(),
        "val/bits_per_dimension": nelbo / 16 / math.log(2),
        "val/active_units": (outputs["mean"].var(0, correction=0) > 0.01).sum().item(),
    }
    assert scores == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(task.kl_per_dimension, kl)


def test_a_collapsed_latent_is_no_active_unit_and_has_no_kl() -> None:
    net = network()
    with torch.no_grad():
        net.mean.weight *= 10
        for head in (net.mean, net.log_variance):
            head.weight[1], head.bias[1] = 0, 0
        net.mean.bias[1] = 2  # the same for every picture: it says nothing, though it costs
    task = make(net=net)
    assert evaluated(task, batches((50,)))["val/active_units"] == 2
    assert task.kl_per_dimension is not None
    assert task.kl_per_dimension[1].item() == pytest.approx(2.0)


def test_nll_comes_with_the_test_only_and_is_the_bound_of_k_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make(importance_samples=7, binarize="dynamic")
    assert "val/nll" not in evaluated(task, batches())
    scores = evaluated(task, batches(), test=True)
    network_, expected = task.network, []
    for batch in batches():
        images = task.images(batch)
        mean, log_variance = network_.encode(images)
        posterior, weights = Normal(mean, (log_variance / 2).exp()), []
        for sample in range(7):
            z = mean + posterior.scale * normal(key(task.draws, "importance", sample), batch["position"], 3)
            likelihood = torch.distributions.Bernoulli(logits=network_.decode(z)).log_prob(images).sum((1, 2, 3))
            weights.append(likelihood + Normal(0.0, 1.0).log_prob(z).sum(1) - posterior.log_prob(z).sum(1))
        expected.append(math.log(7) - torch.stack(weights).logsumexp(0))
    assert scores["test/nll"] == pytest.approx(torch.cat(expected).mean().item(), rel=1e-5)
    monkeypatch.setattr(vae, "PIXELS_AT_ONCE", 2 * 4 * 16)  # two samples of four pictures at once
    assert evaluated(task, batches(), test=True) == pytest.approx(scores, rel=1e-5)
    assert "val/nll" not in evaluated(task, batches())  # none is left from the test


def test_nll_of_a_conditional_network_tells_each_sample_its_own_class() -> None:
    task = make(net=network(num_classes=3, conditional=True), importance_samples=4)
    batch = batches()[0]
    together = task.importance_weighted(task.network, batch)
    alone = [
        task.importance_weighted(task.network, {name: t[i : i + 1] for name, t in batch.items()}) for i in range(4)
    ]
    torch.testing.assert_close(together, torch.cat(alone))


def test_step_metrics_are_the_bound_with_weight_one() -> None:
    task, kept, nats, kl = make(beta=4.0), [], [], []
    for batch in batches():
        _, outputs = task.loss(task.network, batch)
        kept.append(task.step_values(outputs, batch))
        nats.append(outputs["nats"])
        kl.append(outputs["kl"].sum(1))
    values = task.step_metrics(kept)
    assert values == pytest.approx(
        {"train/nelbo": torch.cat(nats).mean().item(), "train/kl": torch.cat(kl).mean().item()}
    )


def test_samples_are_functions_of_seed_number_and_class() -> None:
    task = make(net=network(num_classes=3, conditional=True))
    numbers = torch.tensor([4, 0, 9])
    before = torch.get_rng_state()
    drawn = task.sample(numbers, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert drawn.shape == (3, 1, 4, 4)
    assert 0 <= drawn.min() <= drawn.max() <= 1
    torch.testing.assert_close(task.sample(numbers[1:2], seed=3), drawn[1:2])
    torch.testing.assert_close(task.sample(numbers, seed=3, condition=numbers % 3), drawn)
    assert not torch.allclose(task.sample(numbers, seed=4), drawn)
    assert not torch.allclose(task.sample(numbers, seed=3, condition=torch.tensor([2, 2, 2])), drawn)


def test_reconstructions_are_decoded_from_the_posterior_mean() -> None:
    task, (batch, _) = make(net=network(num_classes=3, conditional=True)), batches()
    images, target = batch["input"], batch["target"]
    mean = task.encode_mean(images, target)
    torch.testing.assert_close(mean, task.network.encode(images, target)[0].detach())
    pixels = torch.sigmoid(task.network.decode(mean, target)).detach()
    torch.testing.assert_close(task.decode_latent(mean, target), pixels)
    torch.testing.assert_close(task.reconstruct(images, target), pixels)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"beta": -1.0}, "beta=-1.0"),
        ({"kl_warmup_epochs": -1}, "kl_warmup_epochs=-1"),
        ({"binarize": "round"}, "binarize=round"),
        ({"importance_samples": -1}, "importance_samples=-1"),
        ({"net": network(likelihood="gaussian"), "binarize": "dynamic"}, "binarize=dynamic"),
        ({"facts": {"mean": [0.5]}}, r"data.mean=\[0.5\]"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}: must be"):
        make(**settings)


def test_a_conditional_network_needs_classes() -> None:
    with pytest.raises(ValueError, match=r"model.conditional=true: must be false here, as this data has no classes"):
        make(net=network(num_classes=3, conditional=True), facts={"num_classes": None})


@pytest.mark.parametrize(
    "words",
    [
        ["model=vae", "model.likelihood=gaussian", "ema_decay=0.9", "task.importance_samples=0"],
        ["model=cvae", "task.binarize=dynamic", "task.kl_warmup_epochs=1"],
        ["model=conv_vae", "model.width=0.1", "task.importance_samples=3"],
    ],
)
def test_a_run_trains_and_its_checkpoint_scores_the_same(
    small_run: Callable[..., tuple[Path, dict[str, float]]], words: list[str]
) -> None:
    from zoo.evaluation import evaluate_checkpoint

    folder, scores = small_run(
        "data.mean=[0.0]", "data.std=[1.0]", *words, "task=vae", "logger.pictures=false", "trainer.log_every_n_steps=1"
    )
    again = evaluate_checkpoint(folder / "checkpoints" / "best.ckpt")
    assert again == {name: scores[name] for name in again}
    logged = {line.split(",")[2] for line in (folder / "metrics.csv").read_text().splitlines()[1:]}
    assert {"train/nelbo", "train/kl", "val/nelbo", "val/kl", "val/active_units"} <= logged
    assert ("test/nll" in scores) == ("task.importance_samples=0" not in words)


@pytest.mark.parametrize("model", ["vae", "gan"])
def test_a_precision_that_latents_are_not_drawn_in_is_refused(model: str, small_run: Any, tmp_path: Path) -> None:
    refused = r"trainer\.precision=64-true: must be 32-true, bf16-mixed"
    with pytest.raises(ZooError, match=refused):
        small_run(f"model={model}", "trainer.precision=64-true")
    assert not [file for file in (tmp_path / "run").iterdir() if file.name != ".lock"]
    width = "model.hidden=[9]" if model == "vae" else "model.width=0.1"
    folder, _ = small_run(f"model={model}", f"task={model}", width, "trainer.max_steps=1", name="trained")
    with pytest.raises(ZooError, match=refused):
        evaluate(ckpt_path=folder, overrides=["trainer.precision=64-true"])
