"""Elitist genetic algorithm (Deb et al. 2002, NSGA-II), the budget handled by constrained domination."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Annotated, Any

import optuna
from annotated_types import Ge
from optuna.distributions import BaseDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial

from nas.space import Space

CROSSOVER = 0.9


def nsga2(*, seed: int, space: Space, population: Annotated[int, Ge(2)] = 20) -> optuna.samplers.BaseSampler:
    """`population`: parents of a generation, and proposals in it (those over the budget count)."""
    return _Nsga2(seed, population, space.distributions)


class _Nsga2(optuna.samplers.NSGAIISampler):
    """Optuna's generations and selection, with children that inherit choices that exist only under others.

    Optuna crosses the choices that all trials have and draws all others anew for each child. Where the rows of a space
    have alternatives these are most: NSGA-II would search little more than random. It also compares the distributions
    of all trials for each proposal (1.4 s at 2,500 trials), which a known space makes needless.
    """

    def __init__(self, seed: int, population: int, distributions: Mapping[str, BaseDistribution]) -> None:
        super().__init__(population_size=population, seed=seed)
        self._distributions = distributions
        self._random = random.Random(f"{seed}/children")
        self._generation = 0  # that of the trial being asked for

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Gives what was enqueued a generation, too: Optuna asks for it only when a choice is left to the sampler."""
        super().before_trial(study, trial)
        self._generation = self.get_trial_generation(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return dict(self._distributions)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A child of two parents: each choice is that of either (0.9: else of the first) that has it.

        Each is left out, to be drawn uniformly, with the probability of one per child.
        """
        # Optuna gives them in one order when it selects them, and in another when it has noted which they were.
        parents = sorted(self.get_parent_population(study, self._generation), key=lambda parent: parent.number)
        if not parents:
            return {}
        one, other = (self._winner(parents, study.directions).params for _ in range(2))
        crossed = self._random.random() < CROSSOVER
        child = {}
        for name in search_space:
            values = [params[name] for params in (one, other) if name in params]
            value = self._random.choice(values) if crossed and values else one.get(name)
            if value is not None and self._random.random() >= 1 / len(one):
                child[name] = value
        return child

    def _winner(self, parents: list[FrozenTrial], directions: list[StudyDirection]) -> FrozenTrial:
        """The better of two, by violation of the budget, then dominance; the first if neither is."""
        first, second = self._random.choice(parents), self._random.choice(parents)
        return second if _beats(second, first, directions) else first


def _beats(one: FrozenTrial, other: FrozenTrial, directions: list[StudyDirection]) -> bool:
    excess, limit = (sum(max(0.0, value) for value in trial.constraints.values()) for trial in (one, other))
    if excess or limit:
        return excess < limit
    signs = [-1 if direction == StudyDirection.MAXIMIZE else 1 for direction in directions]
    losses = [[sign * value for sign, value in zip(signs, trial.values, strict=True)] for trial in (one, other)]
    return losses[0] != losses[1] and all(a <= b for a, b in zip(*losses, strict=True))
