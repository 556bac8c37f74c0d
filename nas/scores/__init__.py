"""What an untrained network promises, as one number: zero-cost proxies. A new score: one file here, one line in SCORES.

More is better, in the belief of each; `nas trust` says how far that is so. A score of the table is handed a network of
its own (in training mode, so that batch normalisation sees the batch; dropout off), which it may spoil.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

from torch import Tensor, nn

from nas.architecture import Architecture
from nas.network import Network, build
from nas.scores.jacobian import jacobian_covariance
from nas.scores.naswot import naswot
from nas.scores.size import depth, macs, params
from nas.scores.synflow import synflow
from nas.scores.zen import zen

__all__ = ["SCORES", "score"]

SCORES: dict[str, Callable[[Network, Tensor, int], float]] = {
    "params": params,
    "macs": macs,
    "depth": depth,
    "synflow": synflow,
    "naswot": naswot,
    "jacob_cov": jacobian_covariance,
    "zen": zen,
}


def score(name: str, candidate: Architecture | Network, batch: Tensor, seed: int = 0) -> float:
    """One score of a network as it is, or of an architecture with the weights that `seed` draws.

    `batch`: normalised images, float32 (batch, in_channels, resolution, resolution), on the device to compute on.
    Equal arguments give equal scores; neither the network nor a global generator changes. NaN where the score is not
    finite or not defined. Raises KeyError for a name not in SCORES.
    """
    network = build(candidate, seed) if isinstance(candidate, Architecture) else copy.deepcopy(candidate)
    network.to(batch.device).train()
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    value = SCORES[name](network, batch, seed)
    return value if math.isfinite(value) else math.nan
