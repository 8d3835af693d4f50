"""Pictures of networks that make pictures: what stands in them, when, and that drawing changes nothing in a run."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from torch import Tensor, nn

from zoo.generative_pictures import (
    DiffusionPictures,
    Reconstructions,
    SampleGrid,
    VaePictures,
    even_columns,
    film,
    grids,
    kl_bars,
    quick,
    stacked,
    tiled,
)
from zoo.models.autoencoder import DenseAutoencoder
from zoo.models.ddpm import DDPMUNet
from zoo.models.mlp_gan import MLPGAN
from zoo.models.vae import VAE
from zoo.pictures import COLOURS, Pictures
from zoo.tasks.diffusion import Diffusion
from zoo.tasks.gan import Gan
from zoo.tasks.reconstruction import Reconstruction
from zoo.tasks.vae import Vae

FACTS: dict[str, Any] = {"channels": 1, "image_size": 8, "num_classes": 3, "class_names": ["cat", "dog", "owl"]}
ZERO, HALF = {"mean": [0.0], "std": [1.0]}, {"mean": [0.5], "std": [0.5]}


def vae(conditional: bool = False) -> Vae:
    torch.manual_seed(0)
    network = VAE(image_size=8, hidden=[8], latent_size=4, num_classes=3, conditional=conditional)
    return Vae(network, facts=FACTS | ZERO)


def gan(conditional: bool = False) -> Gan:
    torch.manual_seed(0)
    widths = {"generator_hidden": [8], "discriminator_hidden": [8]}
    return Gan(MLPGAN(image_size=8, num_classes=3, conditional=conditional, latent=5, **widths), facts=FACTS | HALF)


def diffusion(conditional: bool = False) -> Diffusion:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"width": 4, "multipliers": [1], "blocks": 1, "attention": [], "groups": 2}
    network = DDPMUNet(in_channels=1, image_size=8, num_classes=3, conditional=conditional, **sizes)
    return Diffusion(network, timesteps=50, sampler="ddpm", steps=30, eta=1.0, facts=FACTS | HALF)


def autoencoder(**settings: Any) -> Reconstruction:
    torch.manual_seed(0)
    return Reconstruction(DenseAutoencoder(image_size=8, widths=[8], code=3), facts=FACTS | ZERO, **settings)


class Writer:
    """Stands in for TensorBoard's."""

    def __init__(self) -> None:
        self.written: list[tuple[str, int]] = []
        self.images: list[Tensor] = []

    def add_image(self, name: str, image: Tensor, step: int) -> None:
        assert image.dtype == torch.uint8
        assert name.startswith("visual/")  # TensorBoard's section of pictures
        name = name.removeprefix("visual/")
        self.written.append((name, step))
        self.images.append(image)


def batches(task: Any, count: int = 2) -> list[dict[str, Tensor]]:
    draw = torch.Generator().manual_seed(0)
    low, high = (-1.0, 2.0) if task.facts["mean"] == [0.5] else (0.0, 1.0)
    positions = torch.arange(12 * count).split(12)
    return [
        {"input": low + high * torch.rand(12, 1, 8, 8, generator=draw), "target": part % 3, "position": part}
        for part in positions
    ]


def a_run(callback: Pictures, task: Any, epochs: int = 1, *, images: bool = True) -> Writer:
    """A trainer that only answers what it is asked; `task` is validated after every epoch."""
    writer = Writer()
    trainer: Any = SimpleNamespace(
        loggers=[SimpleNamespace(), SimpleNamespace(experiment=writer if images else object())],
        sanity_checking=False,
        is_global_zero=True,
        max_epochs=epochs,
        should_stop=False,
        train_dataloader=None,
    )
    task.engine = SimpleNamespace(step_count=0)
    callback.on_train_start(trainer, task)
    for epoch in range(epochs):
        trainer.current_epoch, task.engine.step_count = epoch, 10 * (epoch + 1)
        callback.on_validation_epoch_start(trainer, task)
        task.network.eval()
        with torch.inference_mode():
            for number, batch in enumerate(batches(task)):
                outputs = task.loss(task.network, batch)[1]
                callback.on_validation_batch_end(trainer, task, outputs, batch, number)
            task.network.train()
            callback.on_validation_epoch_end(trainer, task)
    return writer


def titles(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


# Grids ----------------------------------------------------------------------------------------------------------------


def test_a_grid_is_read_row_by_row() -> None:
    images = torch.arange(1, 6).view(5, 1, 1, 1).expand(5, 1, 32, 32) / 255
    grid = tiled(images, 3)
    assert grid.shape == (2 * 66 + 2, 3 * 66 + 2, 3)
    corners = [int(grid[66 * row + 2, 66 * column + 2, 0]) for row in range(2) for column in range(3)]
    assert corners == [1, 2, 3, 4, 5, 255]
    assert (grid[:2] == 255).all()
    assert (grid[:, -2:] == 255).all()
    assert (grid[2:66, 2:66] == 1).all()


def test_colours_stay_and_other_channels_are_averaged() -> None:
    colour = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1).expand(1, 3, 64, 64)
    assert tiled(colour, 1)[10, 10].tolist() == [51, 102, 153]
    assert tiled(colour[:, [0, 1]], 1)[10, 10].tolist() == [76, 76, 76]


def test_layers_stand_over_each_other() -> None:
    first, second = torch.arange(3).view(3, 1, 1, 1) / 10, torch.arange(3).view(3, 1, 1, 1) / 10 + 0.5
    grid = stacked([first, second], 2).flatten()
    torch.testing.assert_close(grid, torch.tensor([0, 0.1, 0.5, 0.6, 0.2, 1, 0.7, 1]))


@pytest.mark.parametrize(
    ("n", "among", "columns"), [(64, 1, 8), (1, 1, 1), (50, 1, 8), (64, 10, 10), (100, 3, 9), (4, 10, 2), (30, 5, 5)]
)
def test_columns_are_of_one_class(n: int, among: int, columns: int) -> None:
    assert even_columns(n, among) == columns


def test_kl_bars_show_what_has_collapsed() -> None:
    kl, variance = torch.tensor([0.5, 0.0, 2.0]), torch.tensor([0.4, 0.001, 0.9])
    figure = kl_bars(kl, variance)
    bars = figure.axes[0].patches
    assert [bar.get_height() for bar in bars] == [2.0, 0.5, 0.0]
    assert [to_hex(bar.get_facecolor()).upper() for bar in bars] == [COLOURS[0], COLOURS[0], "#B8B8B8"]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["2", "0", "1"]
    assert "2.5 nats · 2 of 3" in figure.get_suptitle()


def test_a_film_has_two_rows_a_sample() -> None:
    noisy = torch.rand(5, 2, 1, 32, 32)
    figure = film(noisy, noisy * 0, [9, 7, 5, 3, 0])
    shown = figure.axes[0].get_images()[0].get_array()
    assert shown.shape[:2] == (4 * 66 + 2, 5 * 66 + 2)
    expected = (noisy[3, 1, 0, 0, 0] * 255).round()
    assert shown[2 * 66 + 2, 3 * 66 + 2, 0] == int(expected)
    assert (shown[66 + 2 : 66 + 66, 2:66] == 0).all()
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["x_t", "x₀", "x_t", "x₀"]


# Callbacks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "callback", "names"),
    [
        (autoencoder(), Reconstructions, ["reconstructions"]),
        (vae(), VaePictures, ["reconstructions", "samples", "kl"]),
        (gan(conditional=True), SampleGrid, ["samples"]),
        (diffusion(conditional=True), DiffusionPictures, ["samples"]),
    ],
)
def test_drawn_after_epochs_1_2_and_the_last_and_the_run_does_not_notice(
    task: Any, callback: Any, names: list[str]
) -> None:
    task.network.train()
    modes = [module.training for module in task.network.modules()]
    before = torch.get_rng_state()
    writer = a_run(callback(facts=task.facts), task, 3)
    written = [(name, step) for step in (10, 20, 30) for name in names]
    assert writer.written == written + ([("film", 30)] if callback is DiffusionPictures else [])
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in task.network.modules()] == modes
    again = [image for (name, _), image in zip(writer.written, writer.images, strict=True) if name == names[-1]]
    assert torch.equal(again[0], again[2]), "the same network makes the same"
    task.loss(task.network, batches(task)[0])[0].backward()  # nothing of inference mode is left behind
    assert any(parameter.grad is not None for parameter in task.network.parameters())


def test_modes_are_put_back_one_by_one() -> None:
    task = gan()
    layer = next(module for module in task.network.modules() if isinstance(module, nn.Linear))
    callback = SampleGrid(facts=task.facts)
    trainer: Any = SimpleNamespace(loggers=[SimpleNamespace(experiment=Writer())], sanity_checking=False)
    trainer.is_global_zero, task.engine = True, SimpleNamespace(step_count=1)
    task.network.train()
    layer.eval()
    callback._draw(trainer, task)
    assert task.network.generator.training
    assert not layer.training


def test_nothing_is_drawn_without_a_logger_for_pictures() -> None:
    task = vae()
    callback = VaePictures(facts=task.facts)
    assert a_run(callback, task, images=False).written == []
    assert callback.worst == []


@pytest.mark.parametrize("make", [vae, gan])
def test_samples_are_those_of_the_seed_in_order_of_class(make: Any) -> None:
    task = make().eval()
    axes = SampleGrid(facts=task.facts).figures(SimpleNamespace(), task)["samples"].axes[0]
    expected = tiled(task.sample(torch.arange(64), seed=0), 8)
    np.testing.assert_array_equal(axes.get_images()[0].get_array(), expected)
    task = make(conditional=True).eval()
    axes = SampleGrid(facts=task.facts).figures(SimpleNamespace(), task)["samples"].axes[0]
    condition = torch.arange(24) // 8
    expected = tiled(task.sample(torch.arange(24), seed=0, condition=condition), 8)
    np.testing.assert_array_equal(axes.get_images()[0].get_array(), expected)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog", "owl"]


def test_a_diffusion_network_is_called_as_often_as_is_said() -> None:
    task = diffusion(conditional=True).eval()
    calls: list[int] = []
    task.network.register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    trainer: Any = SimpleNamespace(current_epoch=0, max_epochs=2, should_stop=False)
    with torch.no_grad():
        DiffusionPictures(facts=task.facts).figures(trainer, task)
    assert calls == [9] * 20
    with quick(task, 5):
        assert (task.sampler, task.steps, task.eta) == ("ddim", 5, 0.0)
    assert (task.sampler, task.steps, task.eta) == ("ddpm", 30, 1.0)


def test_the_worst_reconstructions_come_first() -> None:
    task = autoencoder()
    callback = Reconstructions(facts=task.facts, count=3)
    a_run(callback, task)
    images = torch.cat([batch["input"] for batch in batches(task)])
    made = task.network.eval()(images).detach()
    errors = (made - images).square().flatten(1).mean(1)
    worst = errors.topk(3)
    torch.testing.assert_close(callback.worst[0], worst.values)
    torch.testing.assert_close(callback.worst[1], images[worst.indices])
    torch.testing.assert_close(callback.worst[2], made[worst.indices])
    torch.testing.assert_close(callback.first[1], images[:3])
    figure = callback.reconstructions()
    shown = figure.axes[0].get_images()[0].get_array()
    np.testing.assert_array_equal(shown, tiled(torch.cat([images[worst.indices], made[worst.indices]]), 3))
    assert titles(figure) == [f"the worst, from {worst.values[0]:.3g} per value", "the first"]


def test_a_denoising_autoencoder_shows_what_it_saw() -> None:
    task = autoencoder(corruption="masking", corruption_level=0.5)
    callback = Reconstructions(facts=task.facts, count=4)
    a_run(callback, task)
    original, corrupted, restored = callback.first[1:]
    hit = corrupted != original
    assert (corrupted[hit] == 0).all()
    assert 0.2 < hit.float().mean() < 0.8
    with torch.inference_mode():
        torch.testing.assert_close(restored, task.network.eval()(corrupted))
    assert callback.reconstructions().axes[0].get_images()[0].get_array().shape[0] == 3 * 66 + 2


def test_kl_is_of_the_whole_validation() -> None:
    task = vae()
    callback = VaePictures(facts=task.facts)
    a_run(callback, task, epochs=2)
    outputs = [task.loss(task.network.eval(), batch)[1] for batch in batches(task)]
    kl = torch.cat([output["kl"] for output in outputs]).mean(0)
    variance = torch.cat([output["mean"] for output in outputs]).var(0, correction=0)
    count, total, mean, square = callback.sums
    torch.testing.assert_close((total / count).float(), kl)
    torch.testing.assert_close((square / count - (mean / count).square()).float(), variance)


def test_rows_have_their_names() -> None:
    figure = grids([("", torch.rand(4, 1, 32, 32), 2)], title="two", names=["a", "b"])
    places = figure.axes[0].get_yticks()
    assert [int(place) // 66 for place in places] == [0, 1]
    assert figure.get_suptitle() == "two"
