"""The families of networks: which page tells of them, which model files and experiments belong to it.

A model belongs to the family of the module that its `_target_` lives in, an experiment to that of its model. A module
that no family names is listed under "Further networks", until somebody writes its page.
"""

from functools import cache
from typing import NamedTuple

from zoo.checks import CONFIGS, options, read_yaml


class Family(NamedTuple):
    page: str
    title: str
    modules: tuple[str, ...]  # in zoo.models
    shown: str  # the experiment that README tells of
    parity: tuple[str, ...] = ()  # beginnings of further rows of parity.json, beside its models' names
    sources: tuple[str, ...] = ()  # further files whose docstrings state deviations


FAMILIES = (
    Family("mlp", "Linear models and perceptrons", ("linear", "mlp"), "digits_mlp"),
    Family("lenet", "LeNet", ("lenet",), "digits_lenet5"),
    Family("alexnet", "AlexNet", ("alexnet",), "earth_alexnet"),
    Family("vgg", "VGG", ("vgg",), "earth_vgg11_bn"),
    Family("resnet", "Residual networks", ("resnet", "resnet_cifar", "resnet_v2", "wide_resnet"), "earth_resnet20"),
    Family("densenet", "DenseNet", ("densenet",), "earth_densenet"),
    Family("inception", "Inception", ("inception_v1", "inception_v3"), "earth_inception_v1"),
    Family("xception", "Xception", ("xception",), "earth_xception"),
    Family("unet", "U-Net, FCN and SegNet", ("unet", "fcn", "segnet"), "earth_unet"),
    Family(
        "recurrent",
        "Sequences: RNN, LSTM, GRU, attention, Transformer",
        ("recurrent", "seq2seq", "transformer", "gpt"),
        "moby_dick_lstm",
        ("cell ", "unrolled "),
        ("cells",),
    ),
    Family("autoencoder", "Autoencoders", ("autoencoder",), "digits_autoencoder", ("ssim",)),
    Family("vae", "Variational autoencoders", ("vae",), "digits_vae", ("kl ",)),
    Family("gan", "Adversarial networks", ("dcgan", "mlp_gan"), "digits_gan", ("dcgan",)),
    Family("diffusion", "Diffusion", ("ddpm",), "digits_diffusion", ("ddpm", "sampler ", "noise schedule ")),
)


@cache
def module_of(model: str) -> str:
    """The file in zoo/models that a model's config builds from: `resnet` of `resnet18`."""
    target = str(read_yaml(CONFIGS / "model" / f"{model}.yaml")["model"]["_target_"])
    return target.removeprefix("zoo.models.").rpartition(".")[0]


def models_of(family: Family) -> list[str]:
    return [model for model in options()["model"] if module_of(model) in family.modules]


def further_models() -> list[str]:
    known = {module for family in FAMILIES for module in family.modules}
    return [model for model in options()["model"] if module_of(model) not in known]
