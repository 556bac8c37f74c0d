"""What a candidate is worth before it is trained: the hypervolume that it is expected to add to the front.

Its costs are known, its score is not: Gaussian on the scale of the model. Of the expected hypervolume improvement
(Emmerich et al. 2011, CEC 2147-2154) this leaves an integral over cost space alone: a candidate at costs c adds, at
each point t >= c below the reference, what its score is above the best that the front has for costs <= t. The
expectation of that is the expected improvement of one score (Jones et al. 1998, J. Global Optim. 13:455, eq. 15).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Array = NDArray[np.float64]
Gain = Callable[[Array, Array, Array], Array]
NODES = 15
"""Of the quadrature."""
POINTS = 512
"""Of cost space, where there are several costs: the integral is then a mean over these."""


def plain_gain(mean: Array, deviation: Array, level: Array) -> Array:
    """E max(s - level, 0) of a score s ~ N(mean, deviation^2)."""
    z = (mean - level) / deviation
    value: Array = deviation * (z * ndtr(z) + np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi))
    return value


def error_gain(mean: Array, deviation: Array, level: Array) -> Array:
    """E max(exp(-level) - exp(-s), 0): the same in the error exp(-s), which is lognormal (a put's value,
    Black and Scholes 1973)."""
    z = (mean - level) / deviation
    value: Array = np.exp(-level) * ndtr(z) - np.exp(-mean + 0.5 * deviation**2) * ndtr(z - deviation)
    return np.maximum(value, 0.0)


def power_gain(power: float) -> Gain:
    """The same where the scale is (1 - error^power) / power: by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)

    def error(score: Array) -> Array:
        # Beyond the end of the scale the error is nothing (power > 0) or without bound; scores do not get near.
        value: Array = np.maximum(1.0 - power * score, 1e-6) ** (1.0 / power)
        return value

    def gain(mean: Array, deviation: Array, level: Array) -> Array:
        total, best = np.zeros(np.broadcast_shapes(mean.shape, level.shape)), error(level)
        for node, weight in zip(nodes, weights / weights.sum(), strict=True):
            total += weight * np.maximum(best - error(mean + node * deviation), 0.0)
        return total

    return gain


def expected_improvement(
    mean: Array, deviation: Array, costs: Array, front: tuple[Array, Array], reference: tuple[float, Array], gain: Gain
) -> Array:
    """(n,) of candidates with scores N(mean, deviation^2), larger is better, and known `costs` (n, k).

    `front` holds the scores (m,) and costs (m, k) of the points to improve on, dominated ones may be among them;
    `reference` the worst score and costs that count. Exact for no cost and for one.
    """
    scores, known = front
    if costs.shape[1] == 0:
        best = max([reference[0], *scores])
        return gain(mean, deviation, np.full_like(mean, best))
    if costs.shape[1] == 1:
        return _one_cost(mean, deviation, costs[:, 0], (scores, known[:, 0]), (reference[0], reference[1][0]), gain)
    return _many_costs(mean, deviation, costs, front, reference, gain)


def _one_cost(
    mean: Array, deviation: Array, costs: Array, front: tuple[Array, Array], reference: tuple[float, float], gain: Gain
) -> Array:
    order = np.lexsort((-front[0], front[1]))
    scores = np.maximum.accumulate(np.concatenate([[reference[0]], front[0][order]]))
    starts = np.concatenate([[-np.inf], front[1][order]])
    rises = np.concatenate([[True], np.diff(scores) > 0])
    levels, starts = scores[rises], np.minimum(starts[rises], reference[1])
    ends = np.concatenate([starts[1:], [reference[1]]])
    lengths = np.maximum(ends - np.maximum(starts, costs[:, None]), 0.0)
    value: Array = (lengths * gain(mean[:, None], deviation[:, None], levels[None, :])).sum(axis=1)
    return value


def _many_costs(
    mean: Array, deviation: Array, costs: Array, front: tuple[Array, Array], reference: tuple[float, Array], gain: Gain
) -> Array:
    """By quasi-random points t between the least costs and the reference (Sobol's, the same for all candidates)."""
    from scipy.stats import qmc  # 0.8 s that other samplers and commands do without

    scores, known = front
    least = np.minimum(costs.min(axis=0), reference[1])
    sobol = qmc.Sobol(costs.shape[1], scramble=True, rng=0).random(POINTS)
    points = least + sobol * (reference[1] - least)
    within = (known[None, :, :] <= points[:, None, :]).all(axis=2)
    best = np.where(within, scores[None, :], -np.inf).max(axis=1, initial=reference[0])
    levels, place = np.unique(best, return_inverse=True)
    covered = (costs[:, None, :] <= points[None, :, :]).all(axis=2)
    share = covered.astype(np.float64) @ np.eye(len(levels))[place] / POINTS
    gains = gain(mean[:, None], deviation[:, None], levels[None, :])
    value: Array = (share * gains).sum(axis=1) * np.prod(reference[1] - least)
    return value
