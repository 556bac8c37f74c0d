"""Tree-structured Parzen estimator."""

from __future__ import annotations

from typing import Annotated

import optuna
from annotated_types import Ge


def tpe(*, seed: int, startup: Annotated[int, Ge(1)] = 10, multivariate: bool = False) -> optuna.samplers.BaseSampler:
    """Optuna's default for several objectives; `multivariate` models the choices that exist everywhere jointly."""
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup, multivariate=multivariate or None)
