"""Initialisations of a whole network, to compare what the first weights do.

Each is called once on the built network with a generator. It fills the weights of every linear, convolutional and
recurrent layer and of attention's projections, and makes their biases zero. Normalisation layers, embeddings, frozen
parameters and buffers are left alone.
"""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class Default:
    """The model's own initialisation, as its file or PyTorch has it: nothing is changed."""

    def __call__(self, network: nn.Module, generator: torch.Generator) -> None:
        return
