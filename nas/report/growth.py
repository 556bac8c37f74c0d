"""How the hypervolume of a search grew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from nas.inputs import InputError

Array = NDArray[np.float64]
BEYOND = 0.1
"""Of the range of an objective, how far the reference is beyond the worst: so the ends of a front count, too."""


def measured(folder: Path, trials: list[FrozenTrial], sittings: list[float]) -> tuple[Array, Array]:
    """Of the trained candidates in the order in which they ended: seconds (n,) of search, and objectives (n, k).

    Raises InputError if there is none.
    """
    ended = [trial for trial in trials if trial.datetime_start and trial.datetime_complete]
    trained = sorted((trial for trial in ended if trial.user_attrs.get("outcome") == "trained"), key=_end)
    if not trained:
        raise InputError(f"{folder}: has no trained candidate yet")
    events = np.sort([when for trial in ended for when in (_begin(trial), _end(trial))])
    ends = np.array([_end(trial) for trial in trained])
    seconds = ends - events[0]
    for sitting in sittings:
        # Between two sittings nothing happens: what was in training when the first ended counts to its last event.
        place = int(np.searchsorted(events, sitting))
        if place:
            seconds[ends >= sitting] -= sitting - events[place - 1]
    return seconds, np.array([trial.values for trial in trained], dtype=np.float64)


def _begin(trial: FrozenTrial) -> float:
    assert trial.datetime_start is not None
    return trial.datetime_start.timestamp()


def _end(trial: FrozenTrial) -> float:
    assert trial.datetime_complete is not None
    return trial.datetime_complete.timestamp()


def reference(points: Array, maximise: Sequence[bool]) -> Array:
    """(k,) a tenth of its range beyond the worst of `points` (n, k) in each objective."""
    beyond = BEYOND * np.where(np.ptp(points, axis=0) > 0, np.ptp(points, axis=0), 1.0)
    worst: Array = np.where(maximise, points.min(axis=0) - beyond, points.max(axis=0) + beyond)
    return worst


def rises(shares: Array) -> NDArray[np.int64]:
    """The places at which the shares (n,) rise."""
    return np.flatnonzero(np.diff(shares, prepend=-1.0) > 0)
