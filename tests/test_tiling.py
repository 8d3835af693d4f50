"""Overlap-tile prediction: equal to the prediction for the whole image wherever receptive fields allow."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.models.unet import UNet
from zoo.tiling import centre_crop, mirrored, predict_tiled


def image(height: int, width: int, channels: int = 2) -> Tensor:
    return torch.randn(channels, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def convolutions(*, padding: int) -> nn.Module:
    """Sees three pixels each way."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 5, padding=2 * padding), nn.Tanh(), nn.Conv2d(4, 3, 3, padding=padding)]
    return nn.Sequential(*layers).double().eval()


class Pooling(nn.Module):
    """Pools four by four between two convolutions: sees 1 + 4 + 3 + 1 = 9 pixels at most, on a grid of 4."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.interpolate(F.max_pool2d(self.first(x), 4), scale_factor=4))


def mirrored_image(x: Tensor, margin: int, extra: int = 0) -> Tensor:
    return F.pad(x[None], (margin, margin + extra, margin, margin + extra), mode="reflect")


def test_mirrored_counts_as_reflection_does() -> None:
    row = torch.arange(5)
    assert torch.equal(mirrored(-4, 13, 5), F.pad(row.view(1, 5).float(), (4, 4), mode="reflect")[0].long())
    assert mirrored(-3, 8, 2).tolist() == [1, 0, 1, 0, 1, 0, 1, 0]  # further than one reflection reaches
    assert mirrored(-2, 4, 1).tolist() == [0, 0, 0, 0]


def test_centre_crop() -> None:
    maps = torch.arange(42).view(6, 7)
    assert torch.equal(centre_crop(maps, (2, 3)), maps[2:4, 2:5])
    assert torch.equal(centre_crop(maps, (3, 4)), maps[1:4, 1:5])  # what is odd is taken off at the end
    assert torch.equal(centre_crop(maps, (6, 7)), maps)
    with pytest.raises(ValueError, match=r"size=\(7, 7\): must be at most that of the maps, \(6, 7\)"):
        centre_crop(maps, (7, 7))


@pytest.mark.parametrize("size", [(20, 20), (37, 23), (9, 50)])
def test_padded_tiles_equal_the_whole_image_inside(size: tuple[int, int]) -> None:
    network, x = convolutions(padding=1), image(*size)
    whole, tiled = network(x[None])[0], predict_tiled(network, x, tile=16, overlap=3)
    assert tiled.shape == whole.shape
    inside = (slice(None), slice(3, -3), slice(3, -3))  # further out the whole image sees zeros, the tiles a mirror
    torch.testing.assert_close(tiled[inside], whole[inside], rtol=1e-12, atol=1e-12)
    around = centre_crop(network(mirrored_image(x, 3)), size)[0]
    torch.testing.assert_close(tiled, around, rtol=1e-12, atol=1e-12)


def test_too_little_overlap_shows() -> None:
    network, x = convolutions(padding=1), image(30, 30)
    inside = (slice(None), slice(3, -3), slice(3, -3))
    difference = (predict_tiled(network, x, tile=16, overlap=2) - network(x[None])[0])[inside].abs()
    assert difference.max() > 1e-3


def test_pooling_networks_see_every_tile_on_one_grid() -> None:
    network, x = Pooling().double().eval(), image(44, 52)
    whole = network(x[None])[0]
    inside = (slice(None), slice(12, -12), slice(12, -12))
    tiled = predict_tiled(network, x, tile=32, overlap=12, multiple=4)
    torch.testing.assert_close(tiled[inside], whole[inside], rtol=1e-12, atol=1e-12)
    shifted = predict_tiled(network, x, tile=32, overlap=11)  # starts at multiples of 10, less 11
    assert (shifted - whole)[inside].abs().max() > 1e-3


@pytest.mark.parametrize("size", [(20, 31), (4, 5), (1, 1)])
@pytest.mark.parametrize("overlap", [0, 1])
def test_valid_tiles_equal_the_whole_image_everywhere(size: tuple[int, int], overlap: int) -> None:
    network, x = convolutions(padding=0), image(*size)
    tiled = predict_tiled(network, x, tile=13, overlap=overlap, batch_size=3)
    rows, columns = mirrored(-3, size[0] + 6, size[0]), mirrored(-3, size[1] + 6, size[1])
    torch.testing.assert_close(tiled, network(x[:, rows][:, :, columns][None])[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tile", [44, 60])
def test_valid_unet_equals_the_whole_image_everywhere(tile: int) -> None:
    torch.manual_seed(0)
    network = UNet(in_channels=2, num_classes=3, image_size=tile, width=0.125, depth=2, valid=True, batch_norm=False)
    network, x = network.double().eval(), image(56, 68)
    cut_off = tile - network.output_size(tile)
    assert cut_off == 40  # as for any size: 20 pixels of context each way
    tiled = predict_tiled(network, x, tile=tile, multiple=4)
    torch.testing.assert_close(tiled, network(mirrored_image(x, 20))[0], rtol=1e-10, atol=1e-10)


def test_padded_unet_equals_the_whole_image_inside() -> None:
    torch.manual_seed(0)
    network = UNet(in_channels=2, num_classes=3, width=0.125, depth=2).double().eval()
    x = image(72, 88)
    whole, tiled = network(x[None])[0], predict_tiled(network, x, tile=64, overlap=24, multiple=4)
    inside = (slice(None), slice(24, -24), slice(24, -24))  # it sees 22 pixels each way at most
    torch.testing.assert_close(tiled[inside], whole[inside], rtol=1e-10, atol=1e-10)


def test_tiles_go_through_the_network_a_batch_at_a_time() -> None:
    sizes: list[int] = []
    network = nn.Conv2d(2, 3, 1).double().eval()
    network.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    predict_tiled(network, image(20, 20), tile=8, batch_size=4)
    assert sizes == [1, 4, 4, 1]  # one to learn its output's size, then nine tiles
    assert not predict_tiled(network, image(8, 8), tile=8).requires_grad


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"tile": 16, "overlap": 8}, "tile=16: must be larger"),
        ({"tile": 16, "overlap": -1}, "overlap=-1: must be at least 0"),
        ({"tile": 16, "multiple": 0}, "multiple=0: must be at least 1"),
        ({"tile": 16, "batch_size": 0}, "batch_size=0: must be at least 1"),
        ({"tile": 16, "overlap": 6, "multiple": 4}, "overlap=6: must be a multiple of 4"),
    ],
)
def test_wrong_values_are_refused(arguments: dict, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        predict_tiled(convolutions(padding=1), image(20, 20), **arguments)


def test_a_network_in_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="must be in evaluation mode"):
        predict_tiled(convolutions(padding=1).train(), image(20, 20), tile=16)
