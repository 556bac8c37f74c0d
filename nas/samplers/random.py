"""Independent uniform draws of every choice: the baseline that every other sampler must beat."""

import optuna


def random(*, seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)
