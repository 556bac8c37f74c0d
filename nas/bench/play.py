"""One sampler, one seed, one table: asked and told until it has seen enough."""

from __future__ import annotations

import multiprocessing
import os
import time
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import islice

import optuna

from nas.bench.players import PLAYERS, WALKS
from nas.bench.task import Task

RAW = 2
"""Proposals per evaluation at which a sampler that repeats itself is stopped."""
LATE = 50
"""Of so many last proposals the time is taken."""


@dataclass(frozen=True)
class Played:
    """`places` are the rows in the order in which they were first proposed; `ms` the time of each ask and tell."""

    player: str
    seed: int
    places: list[int]
    proposals: int
    ms: list[float]


def play(task: Task, player: str, seed: int, evaluations: int) -> Played:
    """Until there are so many different rows; repeated ones are answered for free, but not more than as often."""
    evaluations = min(evaluations, len(task.table))
    if player in WALKS:
        walked = list(islice(WALKS[player](task, seed), evaluations))
        return Played(player, seed, walked, len(walked), [0.0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's of what is experimental, and ours of an exhausted space
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=PLAYERS[player](task, seed))
    places: dict[int, None] = {}
    ms: list[float] = []
    while len(places) < evaluations and len(ms) < RAW * evaluations:
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            place = _step(task, study)
        ms.append((time.process_time() - start) * 1e3)
        places.setdefault(place)
    return Played(player, seed, list(places), len(ms), ms[-LATE:])


def _step(task: Task, study: optuna.Study) -> int:
    trial, table = study.ask(), task.table
    place = table.place({name: trial.suggest_categorical(name, values) for name, values in table.choices.items()})
    for name, limit in task.budget.items():
        trial.set_constraint(name, float(table.costs[name][place]) / limit - 1)
    study.tell(trial, [float(table.accuracy[place, 0]), float(table.costs[task.cost][place])])
    return place


def play_all(
    task: Task,
    players: Iterable[str],
    seeds: int,
    evaluations: int,
    workers: int = 1,
    on_played: Callable[[Played], None] = lambda played: None,
) -> list[Played]:
    """Every player with the seeds from 0; `workers` processes, of one thread each.

    Raises InputError, before any has played, if a walk goes by a number that the table does not have.
    """
    players = list(players)
    for walk in WALKS.keys() & players:
        WALKS[walk](task, 0)
    games = [(player, seed) for seed in range(seeds) for player in players]
    if workers == 1:
        found = []
        for player, seed in games:
            found.append(play(task, player, seed, evaluations))
            on_played(found[-1])
        return found
    # Read by numpy's libraries when a process starts.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(play, task, player, seed, evaluations) for player, seed in games]
        for job in as_completed(jobs):
            on_played(job.result())
        return [job.result() for job in jobs]
