"""From an architecture to a fresh torch module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nas import blocks
from nas.inputs import InputError

if TYPE_CHECKING:
    from nas.architecture import Architecture


class Network(nn.Module):
    """(batch, in_channels, h, w) -> (batch, classes) logits; `layers[i]` is built from `architecture.layers[i]`."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.layers = nn.Sequential(
            *(
                blocks.make(x.block, x.in_channels, x.out_channels, x.stride, x.resolution, dict(x.options))
                for x in architecture.layers
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def build(architecture: Architecture, seed: int | None = None) -> Network:
    """A new network with new weights, those of `seed` where one is given (the global generator is left as it was).

    Convolutions: normal, variance 2 / fan-out; linear layers: normal, standard deviation 0.01; biases 0; normalisation
    1 and 0.
    Raises InputError for an unknown block or option, an illegal value, a block that cannot stand where the
    architecture puts it, or if not just the last layer is a classifier.
    """
    classifiers = [i for i, layer in enumerate(architecture.layers) if layer.block == "classifier"]
    if classifiers != [len(architecture.layers) - 1]:
        raise InputError(f"architecture {architecture.id}: its last layer, and only that, must be a classifier")
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        try:
            network = Network(architecture)
        except InputError as error:
            raise InputError(f"architecture {architecture.id}: {error}") from None
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
    return network
