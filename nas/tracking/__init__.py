"""Searches in the trackers that a team has already. A new one: one file here, one line in TRACKERS.

A tracker is called with the run's folder and the study's name, and gives what takes each outcome and what closes it.
The Optuna storage stays the record: a tracker only looks on, and one that was left off misses what came before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nas.inputs import choices, refuse
from nas.study import Told
from nas.tracking.mlflow import mlflow
from nas.tracking.tensorboard import tensorboard
from nas.tracking.tracker import Tracker

TRACKERS: Mapping[str, Callable[[Path, str], Tracker]] = {"tensorboard": tensorboard, "mlflow": mlflow}


@contextmanager
def tracking(names: Sequence[str], folder: Path, study: str) -> Iterator[Callable[[Told], None]]:
    """What tells all named trackers; they are closed at the end.

    Raises InputError for a name that is not in TRACKERS, or whose package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise refuse("--track", name, choices(TRACKERS))
    with ExitStack() as stack:
        trackers = [TRACKERS[name](folder, study) for name in dict.fromkeys(names)]
        for tracker in trackers:
            stack.callback(tracker.close)

        def tell(told: Told) -> None:
            for tracker in trackers:
                tracker.tell(told)

        yield tell
