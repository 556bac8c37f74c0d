"""Jacobian covariance (Mellor et al. 2020, arXiv 2006.04647v1, section 3; Abdelfattah et al. 2021, 2101.08134)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

K = 1e-5


def jacobian_covariance(network: nn.Module, batch: Tensor, seed: int) -> float:
    """The score of the Jacobian: for every image the gradient of the sum of all outputs; see `correlation_score`.

    Wants fewer images than an image has values: else an eigenvalue is 0 whatever the network, and outweighs the others.
    """
    x = batch.detach().clone().requires_grad_()
    (jacobian,) = torch.autograd.grad(network(x).sum(), x)
    return correlation_score(jacobian.flatten(1).cpu().double())


def correlation_score(jacobian: Tensor) -> float:
    """S = -sum(log(s + k) + 1 / (s + k)) over the eigenvalues s of the correlation matrix of the rows, k = 1e-5.

    `jacobian`: float64 (images, values). At most -images, where no two rows are correlated; NaN if a row is constant.
    """
    correlation = torch.corrcoef(jacobian)
    if not correlation.isfinite().all():
        return math.nan
    eigenvalues = torch.linalg.eigvalsh(correlation).clamp_min(0) + K
    return -float((eigenvalues.log() + 1 / eigenvalues).sum())
