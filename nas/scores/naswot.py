"""Neural architecture search without training (Mellor et al. 2021, arXiv 2006.04647v3, section 3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def naswot(network: nn.Module, batch: Tensor, seed: int) -> float:
    """log |K_H|, see `log_determinant`, of the images' binary codes: which of all ReLU units are on.

    ReLU6 counts as ReLU: a unit is on where its output is positive. NaN if the network has neither (hard swish and
    SiLU have no code), or if two images have the same code.
    """
    codes: list[Tensor] = []

    def note(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        codes.append((output > 0).flatten(1).cpu())

    for module in network.modules():
        if isinstance(module, nn.ReLU | nn.ReLU6):
            module.register_forward_hook(note)
    with torch.no_grad():
        network(batch)
    return log_determinant(torch.cat(codes, dim=1)) if codes else math.nan


def log_determinant(codes: Tensor) -> float:
    """log |K_H| of bool (images, units), where K_H[i, j] = units - Hamming distance of codes i and j; -inf at |K_H| 0.

    The logarithm of the absolute value, as the authors' `slogdet` has it.
    """
    on = codes.float()
    # Sums of zeros and ones: float32 is exact up to 16.7 million units.
    kernel = on @ on.T + (1 - on) @ (1 - on).T
    return float(torch.linalg.slogdet(kernel.double()).logabsdet)
