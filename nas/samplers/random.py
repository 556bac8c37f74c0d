"""Independent uniform draws of every choice: the baseline that every other sampler must beat."""

from __future__ import annotations

import optuna

from nas.space import Space


def random(*, seed: int, space: Space) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)
