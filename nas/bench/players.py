"""Who is compared: samplers with their usual settings, and walks that learn nothing. A player is one line in PLAYERS.

The surrogate's features are the logarithms of the table's costs, and the table's own features. It is not told the
reference point. Withheld, it has no features; shuffled, each is dealt to other rows: it must not believe them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.samplers import BaseSampler

from nas.bench.table import Array
from nas.bench.task import MAXIMISE, Task
from nas.inputs import InputError, choices, refuse
from nas.pareto import front
from nas.samplers.surrogate import SurrogateSampler

Sampler = Callable[[Task, int], BaseSampler]
Walk = Callable[[Task, int], Iterator[int]]


def _surrogate(features: str) -> Sampler:
    def make(task: Task, seed: int) -> BaseSampler:
        table = task.table
        columns = {name: np.log(np.maximum(values, 1e-12)) for name, values in table.costs.items()} | dict(
            table.features
        )
        if features == "shuffled":
            rng = np.random.default_rng([seed, 1])
            columns = {name: rng.permutation(values) for name, values in columns.items()}
        if features == "withheld":
            columns = {}

        def costs(params: dict[str, Any]) -> Mapping[str, float]:
            place = table.place(params)
            return {name: float(values[place]) for name, values in table.costs.items()}

        def known(params: dict[str, Any]) -> Mapping[str, float]:
            place = table.place(params)
            return {name: float(values[place]) for name, values in columns.items()}

        objectives = ["accuracy", task.cost]
        return SurrogateSampler(table.distributions, costs, task.budget, seed, objectives=objectives, features=known)

    return make


def _walk(by: str | None) -> Walk:
    """The front of the rows with the most of a number and the least cost, then that of the rest, and so on.

    Of two with as much of the number, the one with more of the other cost counts as more; of those that are equal in
    all, one goes at a time. The order within a front, and which of the equal goes first, is random. Raises InputError,
    before the first step, if the table does not have the number.
    """

    def walk(task: Task, seed: int) -> Iterator[int]:
        rng, table = np.random.default_rng(seed), task.table
        other = next((name for name in table.costs if name != task.cost), task.cost)
        numbers = dict(table.costs) | dict(table.features)
        if (by or other) not in numbers:
            raise InputError(f"{table.name}: has no column for feature.{by}, which walk-{by} goes by")
        keys = np.column_stack([numbers[by or other], numbers[other]])
        rank = np.unique(keys, axis=0, return_inverse=True)[1].ravel()
        points = np.column_stack([rank, table.costs[task.cost]])
        return _fronts(points, rng.permutation(np.flatnonzero(task.fits)))

    return walk


def _fronts(points: Array, left: NDArray[np.intp]) -> Iterator[int]:
    while len(left):
        on = np.flatnonzero(front(points[left], MAXIMISE))
        firsts = np.sort(on[np.unique(points[left[on]], axis=0, return_index=True)[1]])
        yield from map(int, left[firsts])
        left = np.delete(left, firsts)


PLAYERS: dict[str, Sampler] = {
    "surrogate": _surrogate("given"),
    "surrogate-withheld": _surrogate("withheld"),
    "surrogate-shuffled": _surrogate("shuffled"),
    "random": lambda task, seed: optuna.samplers.RandomSampler(seed=seed),
    "tpe": lambda task, seed: optuna.samplers.TPESampler(seed=seed),
    "tpe-multivariate": lambda task, seed: optuna.samplers.TPESampler(seed=seed, multivariate=True),
    "nsga2": lambda task, seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=20),
    "nsga2-50": lambda task, seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=50),
    "gp": lambda task, seed: optuna.samplers.GPSampler(seed=seed),
}
WALKS: dict[str, Walk] = {"walk": _walk(None), "walk-depth": _walk("depth")}
"""By the other cost, and by the depth: no learning, no evaluation is looked at."""


def check_players(names: Iterable[str], where: str) -> list[str]:
    """Each once. Raises InputError for a name that no player has."""
    found = list(dict.fromkeys(name.strip() for name in names))
    for name in found:
        if name not in PLAYERS and name not in WALKS:
            raise refuse(where, name, choices([*PLAYERS, *WALKS]))
    return found
