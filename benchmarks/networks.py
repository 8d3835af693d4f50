"""What the networks themselves cost.

A training step (forward and backward, 8 images) of our network against torchvision's of the same architecture;
`fast=true` against the default on ResNet-18 at 32×32, both with everything on; and how long Inception v3 takes to
build, torchvision's with its initialiser beside it. All alternating, medians.
"""

import statistics
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from benchmarks.harness import CASES
from benchmarks.record import Bar, Options, Part, alternate, ratio, seconds
from benchmarks.running import Workload
from zoo.models.alexnet import AlexNet
from zoo.models.inception_v1 import googlenet
from zoo.models.inception_v3 import InceptionV3
from zoo.models.resnet import resnet18, resnet50
from zoo.models.vgg import vgg11_bn

Make = Callable[..., nn.Module]
TWINS: dict[str, tuple[Make, Make, int]] = {  # ours, torchvision's, pixels
    "alexnet": (AlexNet, torchvision.models.alexnet, 128),
    "vgg11_bn": (vgg11_bn, torchvision.models.vgg11_bn, 64),
    "resnet18": (resnet18, torchvision.models.resnet18, 128),
    "resnet50": (resnet50, torchvision.models.resnet50, 96),
    "googlenet": (googlenet, lambda: torchvision.models.googlenet(init_weights=False), 128),
    "inception_v3": (InceptionV3, lambda: torchvision.models.inception_v3(init_weights=False), 299),
}
RESNET = "ResNet-18, 32×32, batch 64"


def training_step(network: nn.Module, images: Tensor, targets: Tensor) -> None:
    """One forward and backward pass, auxiliary heads included."""
    output = network(images)
    if isinstance(output, dict):
        output = (output["logits"], *output["aux"])
    heads = (output,) if isinstance(output, Tensor) else [logits for logits in output if logits is not None]
    torch.stack([F.cross_entropy(logits, targets) for logits in heads]).sum().backward()


def against_torchvision(part: Part, options: Options) -> None:
    batch = 2 if options.quick else 8
    for name in ("resnet18",) if options.quick else TWINS:
        make_ours, make_theirs, size = TWINS[name]
        images, targets = torch.randn(batch, 3, size, size), torch.arange(batch)
        networks = (make_ours(image_size=max(size, 75)), make_theirs())
        timed = [partial(seconds, partial(training_step, network, images, targets)) for network in networks]
        for warm_up in timed:
            warm_up()
        mine, other = ([second * 1e3 for second in column] for column in alternate(*timed, rounds=options.repeat(5)))
        between = ratio(mine, other)
        what = f"{name}, {size}×{size}: a step, torchvision beside it"
        part.add(what, statistics.median(mine), statistics.median(other), between)
        part.hold(Bar(f"{name}: a step over torchvision's", between, 1.05))


def fast(part: Part, options: Options) -> None:
    case = CASES[RESNET]
    words = dict(word.split("=", 1) for word in f"{case.words} {case.quick if options.quick else ''}".split())

    def a_step(workload: Workload) -> float:
        workload.harness(max_epochs=2)
        times = workload.times(1)
        return (times[-1] - times[0]) / (len(times) - 1) * 1e3

    plain, quick = (Workload([f"{key}={value}" for key, value in words.items()] + more) for more in ([], ["fast=true"]))
    columns = alternate(lambda: a_step(quick), lambda: a_step(plain), rounds=options.repeat(3))
    part.add(f"{RESNET}: fast=true, the default beside it", *map(statistics.median, columns), ratio(*columns))
    part.hold(Bar("ResNet-18: fast=true, times as fast as the default", ratio(*columns[::-1]), 2, at_least=True))


def construction(part: Part, options: Options) -> None:
    theirs = torchvision.models.inception_v3
    if options.quick:
        return
    columns = alternate(
        lambda: seconds(InceptionV3) * 1e3,
        lambda: seconds(lambda: theirs(init_weights=True)) * 1e3,
        rounds=options.repeat(5),
    )
    what = "inception_v3: built, torchvision's with its initialiser beside it"
    part.add(what, *map(statistics.median, columns), ratio(*columns))
    part.hold(Bar("inception_v3: built, over torchvision's with its initialiser", ratio(*columns), 1.0))


def measure(options: Options) -> Part:
    part = Part(("what", "ours, ms", "beside it, ms", "ratio"))
    against_torchvision(part, options)
    fast(part, options)
    construction(part, options)
    return part
