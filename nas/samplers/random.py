"""The baseline that every other sampler must beat: a study draws its proposals uniformly from what fits the budget."""

from __future__ import annotations

import optuna

from nas.space import Space


def random(*, seed: int, space: Space) -> optuna.samplers.BaseSampler:
    """Where it is asked itself: independent uniform draws of every choice."""
    return optuna.samplers.RandomSampler(seed=seed)
