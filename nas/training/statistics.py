"""The running statistics of batch normalisation after a short training."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

SETTLED = 200
"""Batches after which running statistics, and their moving average, have caught up with the weights."""


def is_young(network: nn.Module) -> bool:
    """Whether some of its running statistics are of fewer batches."""
    return any(int(norm.num_batches_tracked or 0) < SETTLED for norm in _norms(network))


def recalibrated(network: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """A copy, in eval mode, whose running statistics are the mean of those of `batches` (input to the network).

    Running statistics are of earlier weights, and at first of none: with torch's momentum of 0.1 their initial mean 0
    and variance 1 are in them for some fifty batches. Layer upon layer, a network that has learnt then reads at chance.
    (Wu and Johnson 2021, Rethinking "Batch" in BatchNorm, section 3: "precise BatchNorm".)
    """
    network = copy.deepcopy(network).eval()
    norms = _norms(network)
    before = [(norm.momentum, copy.deepcopy(norm.num_batches_tracked)) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # all batches count the same
        norm.train()
    with torch.no_grad():
        for x in batches:
            network(x)
    for norm, (norm.momentum, norm.num_batches_tracked) in zip(norms, before, strict=True):
        norm.eval()
    return network


def _norms(network: nn.Module) -> list[_BatchNorm]:
    return [each for each in network.modules() if isinstance(each, _BatchNorm) and each.track_running_stats]
