"""The study of PCA: components, errors and angles against what is known of them."""

import json
from pathlib import Path

import pytest
import torch

from studies import pca, running


def test_components_are_the_directions_of_most_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))[0]
    images = torch.randn(400, 6, generator=generator, dtype=torch.float64) * torch.tensor([9, 5, 3, 1, 1, 0.5])
    images = images @ basis.T + 7
    mean, components = pca.principal_components(images, 3)
    torch.testing.assert_close(mean, images.mean(0))
    torch.testing.assert_close(components.T @ components, torch.eye(3, dtype=torch.float64))
    _, singular, right = torch.linalg.svd(images - mean, full_matrices=False)
    torch.testing.assert_close((components * right[:3].T).sum(0).abs(), torch.ones(3, dtype=torch.float64))
    error = (pca.reconstructed(images, mean, components) - images).square().sum()
    assert error.item() == pytest.approx(singular[3:].square().sum().item())
    with pytest.raises(ValueError, match="width=7: must be from 1 to 6"):
        pca.principal_components(images, 7)


def test_scores_are_those_of_the_task_and_clip() -> None:
    images = torch.zeros(2, 1, 12, 12)
    made = images.clone()
    made[0, 0, 0, 0], made[1, 0, 3, 3] = 3.0, -2.0
    found = pca.scores(made, images)
    assert found["squared_error"] == pytest.approx(0.5)
    assert found["squared_error_not_clipped"] == pytest.approx((9 + 4) / 2)
    assert found["ssim"] < 1
    assert pca.scores(images, images)["ssim"] == pytest.approx(1)


def test_angles_between_planes() -> None:
    first = torch.eye(3)[:, :2]
    turned = torch.tensor([[1.0, 0.0], [0.0, 3**0.5 / 2], [0.0, 0.5]]) @ torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert pca.angles(first, turned) == pytest.approx([30, 0], abs=1e-4)


def test_the_digits_of_the_study_are_the_task_s() -> None:
    digits = pca.digits()
    assert {name: len(images) for name, images in digits.items()} == {"train": 3600, "test": 1000}
    assert digits["train"].min() == 0
    assert digits["train"].max() == 1


def test_the_study_writes_its_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(running, "OUT", tmp_path / "docs")
    monkeypatch.setattr(pca, "MODELS", {"linear_autoencoder": 4})
    numbers = pca.main((2, 4), "trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.limit_train_batches=4")
    assert json.loads((tmp_path / "docs" / "pca.json").read_text()) == numbers
    assert (tmp_path / "docs" / "pca.png").exists()
    linear, of_two, of_four = (numbers[name] for name in ("linear_autoencoder, 4", "PCA, 2", "PCA, 4"))
    assert linear["squared_error"] > of_four["squared_error"]  # after four steps
    assert 1 < linear["largest principal angle with PCA, degrees"] <= 90
    assert of_two["squared_error"] > of_four["squared_error"]
