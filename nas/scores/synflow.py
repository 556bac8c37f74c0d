"""Synaptic flow (Tanaka et al. 2020, arXiv 2006.05467), summed over a network (Abdelfattah et al. 2021, 2101.08134)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from nas.blocks.block import ACTIVATIONS

_BYPASSED: tuple[type[nn.Module], ...] = (nn.BatchNorm2d, *ACTIVATIONS.values())


def synflow(network: nn.Module, batch: Tensor, seed: int) -> float:
    """log of the sum over all weights of (dR / dw) * w, where R = 1^T (product of |w| over the layers) 1.

    R is the sum of the outputs for one image of ones, all weights absolute. As in that product, batch normalisation and
    activations are left out: no activation changes what is positive, but ReLU6 and its like saturate. The sigmoid of a
    gate stays. Data-free, of `batch` the shape is read; in float64 and therefore on the CPU, as MPS has none.
    """
    _bypass(network)
    network.cpu().double()
    weights = list(network.parameters())
    with torch.no_grad():
        for weight in weights:
            weight.abs_()
    flow = network(torch.ones(1, *batch.shape[1:], dtype=torch.float64)).sum()
    gradients = torch.autograd.grad(flow, weights)
    total = sum((gradient * weight).sum().item() for gradient, weight in zip(gradients, weights, strict=True))
    return math.log(total) if total > 0 else math.nan


def _bypass(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, _BYPASSED):
            setattr(module, name, nn.Identity())
        else:
            _bypass(child)
