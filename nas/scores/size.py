"""Larger networks are more accurate: the baselines that any other score must beat."""

from __future__ import annotations

from torch import Tensor

from nas.costs import cost
from nas.network import Network


def params(network: Network, batch: Tensor, seed: int) -> float:
    """Trainable parameters, as in COSTS."""
    return float(cost(network.architecture, "params"))


def macs(network: Network, batch: Tensor, seed: int) -> float:
    """Multiply-adds of one image, as in COSTS."""
    return float(cost(network.architecture, "macs"))


def depth(network: Network, batch: Tensor, seed: int) -> float:
    """Blocks in a row, stem and classifier among them."""
    return float(len(network.architecture.layers))
