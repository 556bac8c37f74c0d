"""Dominance between points of several objectives: the front, its hypervolume, its knee. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Sequence

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray


def front(values: ArrayLike, maximise: Sequence[bool]) -> NDArray[np.bool_]:
    """Mask (n,) of the rows of `values` (n, k) that no other row dominates.

    A row dominates another if it is at least as good in every objective and better in one: equal rows stay
    together. A row with a NaN is not on the front and dominates nothing.
    """
    points = _points(values, maximise)
    mask = np.asarray(~np.isnan(points).any(axis=1), dtype=np.bool_)
    if mask.any():
        # Dominance is a matter of order alone, and ranks are finite: moocore 0.3.2 answers wrongly on infinities from
        # four objectives on, and may crash the process.
        ranks = [np.unique(column, return_inverse=True)[1] for column in points[mask].T]
        mask[mask] = moocore.is_nondominated(np.column_stack(ranks), maximise=list(maximise), keep_weakly=True)
    return mask


def hypervolume(values: ArrayLike, reference: ArrayLike, maximise: Sequence[bool]) -> float:
    """Volume between `reference` (k,) and the rows of `values` (n, k): the part of objective space they dominate.

    A row that is not better than the reference in every objective contributes nothing, nor does one with a
    NaN; no rows have no volume. Exact up to rounding, in the product of the objectives' units.
    """
    points, corner = _points(values, maximise), np.array(reference, dtype=np.float64)
    assert corner.shape == (len(maximise),) and np.isfinite(corner).all(), f"reference {corner}"
    signs = np.where(maximise, -1.0, 1.0)
    points, corner = points * signs, corner * signs
    points = points[(points < corner).all(axis=1)]  # NaN is less than nothing
    if not np.isfinite(points).all():
        return float("inf")
    return float(moocore.hypervolume(points, ref=corner)) if len(points) else 0.0


def hypervolumes(values: ArrayLike, reference: ArrayLike, maximise: Sequence[bool]) -> NDArray[np.float64]:
    """(n,) the `hypervolume` of the first, the first two ... of the rows of `values` (n, k)."""
    points = _points(values, maximise)
    kept, volumes = points[:0], []
    for point in points:
        kept = np.vstack([kept, point])
        kept = kept[front(kept, maximise)]
        volumes.append(hypervolume(kept, reference, maximise))
    return np.array(volumes)


def knee(values: ArrayLike, maximise: Sequence[bool], log: Sequence[bool]) -> int:
    """Index of the best compromise among the rows of `values` (n, k), the points of a front.

    Every objective is scaled to 0 (its best row) .. 1 (its worst), on a logarithmic scale where `log` is true;
    the knee has the least sum. With two objectives this is the point farthest below the chord between the
    two ends of the front (Das 1999, Structural Optimization 18:107). The first of equals is taken; an
    objective that is the same everywhere counts nothing.

    Raises ValueError if there is no point, a value is not finite, or one on a logarithmic scale is not positive.
    """
    points = _points(values, maximise)
    logarithmic = np.asarray(log, dtype=bool)
    assert logarithmic.shape == (len(maximise),), f"{len(maximise)} objectives, but log is {log}"
    if not len(points):
        raise ValueError("the knee of no points was asked for, but there must be at least one")
    if not np.isfinite(points).all():
        raise ValueError("a point of the front has a value that is not finite, but the knee needs finite ones")
    if (points[:, logarithmic] <= 0).any():
        raise ValueError("an objective on a logarithmic scale has a value <= 0, but must be positive")
    points[:, logarithmic] = np.log(points[:, logarithmic])
    points *= np.where(maximise, -1.0, 1.0)
    best, worst = points.min(axis=0), points.max(axis=0)
    total = ((points - best) / np.where(worst > best, worst - best, 1.0)).sum(axis=1)
    # Sums that differ by rounding alone are equal, else the order of the columns would break the tie.
    return int(np.flatnonzero(total <= total.min() + 1e-12)[0])


def _points(values: ArrayLike, maximise: Sequence[bool]) -> NDArray[np.float64]:
    """A copy of `values` as (n, k) floats; no values at all are (0, k)."""
    points = np.array(values, dtype=np.float64)
    if points.size == 0:
        return np.empty((0, len(maximise)))
    assert points.ndim == 2 and points.shape[1] == len(maximise), f"{len(maximise)} objectives, shape {points.shape}"
    return points
