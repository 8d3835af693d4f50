"""Which networks are drawn, and how: `draw(name)` builds the network and gives the SVG.

Rows show a whole network, by the modules on top and those inside `expand`; a graph shows one block, module by module.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from docs_pages.drawing import draw_graph, draw_rows
from docs_pages.graphs import read
from zoo.models import (
    alexnet,
    cells,
    densenet,
    fcn,
    gpt,
    inception_v1,
    lenet,
    resnet,
    segnet,
    transformer,
    unet,
    vgg,
    xception,
)
from zoo.models.autoencoder import DenseAutoencoder
from zoo.models.dcgan import DCGAN
from zoo.models.ddpm import DDPMUNet, ResidualBlock
from zoo.models.mlp import MLP
from zoo.models.recurrent import RecurrentLanguageModel
from zoo.models.vae import VAE

Built = tuple[nn.Module, list[Any]]


class Picture(NamedTuple):
    title: str
    make: Callable[[], Built]
    expand: tuple[str, ...] = ()
    is_block: bool = False
    names: tuple[str, ...] = ()
    told: str = ""


def maps(channels: int, size: int) -> Tensor:
    return torch.zeros(2, channels, size, size)


def inside(network: nn.Module, path: str, channels: int, size: int) -> Built:
    return network.get_submodule(path), [maps(channels, size)]


def lstm_cell() -> Built:
    state = torch.zeros(2, 8), torch.zeros(2, 8)
    return cells.LSTMCell(5, 8), [torch.zeros(2, 5), state]


def gpt_block() -> Built:
    return gpt.Block(128, 4, 0.0, False), [torch.zeros(2, 16, 128)]


def encoder_layer() -> Built:
    return transformer.EncoderLayer(64, 4, 256, 0.0, False, True), [
        torch.zeros(2, 9, 64),
        torch.ones(2, 1, 1, 9).bool(),
    ]


def language_model() -> Built:
    network = RecurrentLanguageModel(num_tokens=84, embedding=64, hidden=256)
    return network, [torch.zeros(2, 128, dtype=torch.int64)]


def whole_transformer() -> Built:
    network = transformer.Transformer(
        num_source_tokens=30, num_target_tokens=30, d_model=64, heads=4, layers=2, feed_forward=256
    )
    source, target = torch.ones(2, 16, dtype=torch.int64), torch.ones(2, 17, dtype=torch.int64)
    return network, [source, torch.tensor([16, 12]), target]


def small_diffusion() -> Built:
    network = DDPMUNet(
        in_channels=1, image_size=28, width=16, multipliers=(1, 2, 4), blocks=1, attention=(7,), groups=1
    )
    return network, [maps(1, 28), torch.zeros(2)]


PICTURES = {
    "mlp": Picture(
        "Multi-layer perceptron 784-300-100-10", lambda: (MLP(hidden=[300, 100]), [maps(1, 28)]), ("layers",)
    ),
    "lenet": Picture("LeNet-5", lambda: (lenet.LeNet5(), [maps(1, 28)]), ("features", "classifier")),
    "lenet_1998": Picture("LeNet-5 of 1998", lambda: (lenet.LeNet5Original(), [maps(1, 28)])),
    "alexnet": Picture(
        "AlexNet, the network of 2012",
        lambda: (alexnet.AlexNetOriginal(image_size=227), [maps(3, 227)]),
        ("features", "classifier"),
    ),
    "vgg": Picture("VGG-16", lambda: (vgg.VGG(depth=16), [maps(3, 224)]), ("features", "classifier")),
    "resnet": Picture("ResNet-18", lambda: (resnet.ResNet(depth=18), [maps(3, 224)])),
    "resnet_block": Picture(
        "The first block of stage 2 of ResNet-18",
        lambda: inside(resnet.ResNet(depth=18), "layer2.0", 64, 56),
        is_block=True,
    ),
    "resnet_bottleneck": Picture(
        "The first block of stage 2 of ResNet-50",
        lambda: inside(resnet.ResNet(depth=50), "layer2.0", 256, 56),
        is_block=True,
    ),
    "densenet": Picture("DenseNet-121", lambda: (densenet.DenseNet(depth=121), [maps(3, 224)]), ("features",)),
    "densenet_block": Picture(
        "The first layer of the first block of DenseNet-121",
        lambda: inside(densenet.DenseNet(depth=121), "features.denseblock1.denselayer1", 64, 56),
        is_block=True,
    ),
    "inception": Picture(
        "GoogLeNet, as it is evaluated", lambda: (inception_v1.InceptionV1(dropout=0.4), [maps(3, 224)])
    ),
    "inception_block": Picture(
        "Module 3a of GoogLeNet",
        lambda: inside(inception_v1.InceptionV1(), "inception3a", 192, 28),
        is_block=True,
    ),
    "xception": Picture("Xception", lambda: (xception.Xception(), [maps(3, 299)]), ("stem", "entry", "exit")),
    "xception_block": Picture(
        "The first block of Xception's entry flow",
        lambda: inside(xception.Xception(), "entry.0", 64, 147),
        is_block=True,
    ),
    "unet": Picture(
        "U-Net, padded, of full width",
        lambda: (unet.UNet(image_size=256), [maps(3, 256)]),
        ("contracting", "expanding"),
    ),
    "fcn": Picture(
        "FCN-8s, the small form",
        lambda: (fcn.FCN(stride=8, num_classes=6, image_size=64, form="small"), [maps(3, 64)]),
        ("features", "classifier"),
    ),
    "segnet": Picture(
        "SegNet-Basic",
        lambda: (segnet.SegNetBasic(num_classes=6, image_size=64), [maps(3, 64)]),
        ("features", "decoder"),
    ),
    "lstm": Picture("A language model with an LSTM", language_model),
    "lstm_cell": Picture("One step of an LSTM", lstm_cell, is_block=True, names=("x", "h", "c", "h′", "c′")),
    "transformer": Picture("A small Transformer", whole_transformer),
    "transformer_layer": Picture("One layer of the Transformer's encoder", encoder_layer, is_block=True),
    "gpt_block": Picture("One block of GPT-2", gpt_block, is_block=True),
    "autoencoder": Picture(
        "The autoencoder of 2006", lambda: (DenseAutoencoder(), [maps(1, 28)]), ("encoder", "decoder")
    ),
    "vae": Picture(
        "The VAE 784-400-20",
        lambda: (VAE(in_channels=1, image_size=28, hidden=[400], latent_size=20), [maps(1, 28), torch.zeros(2, 20)]),
        ("encoder", "decoder"),
    ),
    "gan": Picture(
        "DCGAN at 64×64: the generator, then the discriminator",
        lambda: (DCGAN(image_size=64), [torch.zeros(2, 100)]),
        ("generator", "discriminator", "generator.layers", "discriminator.body"),
    ),
    "diffusion": Picture(
        "DDPM's U-Net, small, for digits", small_diffusion, ("contracting", "middle", "expanding"), told="time"
    ),
    "diffusion_block": Picture(
        "One residual block of DDPM's U-Net",
        lambda: (ResidualBlock(16, 32, 64, groups=1, dropout=0.0), [maps(16, 14), torch.zeros(2, 64)]),
        is_block=True,
    ),
}


def draw(name: str) -> str:
    """The SVG of one picture."""
    picture = PICTURES[name]
    network, inputs = picture.make()
    nodes = read(network, inputs, expand=picture.expand, leaves=picture.is_block, names=picture.names)
    return draw_graph(picture.title, nodes) if picture.is_block else draw_rows(picture.title, nodes, picture.told)
