"""Searches in the trackers that a team has already. A new one: one file here, one line in TRACKERS.

A tracker is called with the run's folder and the study's name, and gives what takes each outcome and what closes it.
The Optuna storage stays the record: a tracker only looks on. One that was left off misses what came before, and one
that fails an outcome; that is logged, and the search goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nas.inputs import choices, first_line, refuse
from nas.study import Told
from nas.tracking.mlflow import mlflow
from nas.tracking.tensorboard import tensorboard
from nas.tracking.tracker import Tracker

TRACKERS: Mapping[str, Callable[[Path, str], Tracker]] = {"tensorboard": tensorboard, "mlflow": mlflow}

logger = logging.getLogger("nas")


def check_trackers(names: Sequence[str]) -> None:
    """Raises InputError for a name that is not in TRACKERS."""
    for name in names:
        if name not in TRACKERS:
            raise refuse("--track", name, choices(TRACKERS))


@contextmanager
def tracking(names: Sequence[str], folder: Path, study: str) -> Iterator[Callable[[Told], None]]:
    """What tells all named trackers; they are closed at the end.

    Raises InputError for a name that is not in TRACKERS, or whose package is not installed.
    """
    check_trackers(names)
    with ExitStack() as stack:
        trackers = {name: TRACKERS[name](folder, study) for name in dict.fromkeys(names)}
        for name, tracker in trackers.items():
            stack.callback(_spared, f"{name} was not closed", tracker.close)

        def tell(told: Told) -> None:
            for name, tracker in trackers.items():
                _spared(f"{name} misses candidate {told.number} {told.id}", tracker.tell, told)

        yield tell


def _spared(what: str, call: Callable[..., None], *given: Told) -> None:
    """Calls a tracker; if that fails it is logged, for a search does without its onlookers."""
    try:
        call(*given)
    except Exception as error:  # noqa: BLE001 - servers, disks and packages fail in ways of their own
        logger.warning("%s: %s", what, first_line(f"{type(error).__name__}: {error}"))
