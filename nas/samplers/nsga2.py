"""Elitist genetic algorithm (NSGA-II), the budget handled by constrained domination."""

from __future__ import annotations

from typing import Annotated

import optuna
from annotated_types import Ge


def nsga2(*, seed: int, population: Annotated[int, Ge(2)] = 20) -> optuna.samplers.BaseSampler:
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=population)
