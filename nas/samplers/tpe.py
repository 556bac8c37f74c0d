"""Tree-structured Parzen estimator (Bergstra et al. 2011)."""

from __future__ import annotations

from typing import Annotated

import optuna
from annotated_types import Ge

from nas.space import Space


def tpe(
    *, seed: int, space: Space, startup: Annotated[int, Ge(1)] = 10, multivariate: bool = False
) -> optuna.samplers.BaseSampler:
    """Optuna's default. `startup`: proposals drawn uniformly first; `multivariate`: models the choices that exist
    everywhere jointly (always so with one objective)."""
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup, multivariate=multivariate or None)
