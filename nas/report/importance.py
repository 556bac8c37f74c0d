"""Which choices matter, and what the members of a front have in common."""

from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, create_trial

LEAST = 10
"""Trained candidates below which nothing can be said."""
HALVES, SHUFFLES, MOST = 20, 20, 300


def importances(trials: Sequence[FrozenTrial], maximise: Sequence[bool], seed: int = 0) -> list[dict[str, Any]]:
    """How much each choice decides whether a candidate comes near the front: PED-ANOVA (Watanabe et al. 2023, IJCAI)
    for choices that are put only after others (arXiv:2601.20800), as shares of the sum over all choices, the largest
    first; plain values.

    `low` and `high` hold nine tenths of the shares over random halves of the candidates. `chance` is what 95 % of
    shufflings, after which no choice can matter, stay below. Of more than MOST candidates, as many drawn from them.
    Empty below LEAST.
    """
    if len(trials) < LEAST:
        return []
    rng = random.Random(seed)
    pool = list(trials) if len(trials) <= MOST else rng.sample(list(trials), MOST)
    whole = _shares(pool, maximise)
    halves = [_shares(rng.sample(pool, len(pool) // 2), maximise) for _ in range(HALVES)]
    shuffled = [_shares(_shuffled(pool, rng), maximise) for _ in range(SHUFFLES)]
    found = []
    for name, share in whole.items():
        low, high = np.quantile([half.get(name, 0.0) for half in halves], [0.05, 0.95])
        chance = np.quantile([each.get(name, 0.0) for each in shuffled], 0.95)
        found.append({"choice": name, "share": share, "low": float(low), "high": float(high), "chance": float(chance)})
    return sorted(found, key=lambda each: -each["share"])


def _shares(trials: Sequence[FrozenTrial], maximise: Sequence[bool]) -> dict[str, float]:
    directions = [StudyDirection.MAXIMIZE if up else StudyDirection.MINIMIZE for up in maximise]
    study = optuna.create_study(directions=directions, storage=optuna.storages.InMemoryStorage())
    study.add_trials(trials)
    with warnings.catch_warnings():
        # It says of each choice that few candidates have that it leaves it out; that is what a share of 0 says here.
        warnings.filterwarnings("ignore", category=UserWarning, module="optuna")
        found = PedAnovaImportanceEvaluator().evaluate(study)
    whole = sum(found.values())
    return {name: value / whole for name, value in found.items()} if whole else dict.fromkeys(found, 0.0)


def _shuffled(trials: Sequence[FrozenTrial], rng: random.Random) -> list[FrozenTrial]:
    values = [trial.values for trial in trials]
    rng.shuffle(values)
    return [_plain(trial, value) for trial, value in zip(trials, values, strict=True)]


def plain_trials(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Their choices and values alone: copies that are cheap to add to a study."""
    return [_plain(trial, trial.values) for trial in trials]


def _plain(trial: FrozenTrial, values: Sequence[float]) -> FrozenTrial:
    return create_trial(values=values, params=trial.params, distributions=trial.distributions)


def in_common(trials: Sequence[FrozenTrial], front: Collection[int]) -> list[dict[str, Any]]:
    """The values of choices that are more frequent on the front than among all `trials`, the least likely first.

    `front` has numbers of trials. A value counts `with_it` of the `asked` members to which its choice was put at all,
    and `share` of all such candidates; `probability` is that of so many or more if the members were drawn from them at
    random (hypergeometric). Many values are looked at: a small probability of one is no proof.
    """
    from scipy.stats import hypergeom

    every: dict[str, Counter[Any]] = {}
    members: dict[str, Counter[Any]] = {}
    for trial in trials:
        for name, value in trial.params.items():
            every.setdefault(name, Counter())[value] += 1
            if trial.number in front:
                members.setdefault(name, Counter())[value] += 1
    found = []
    for name, counts in members.items():
        total, asked = every[name].total(), counts.total()
        for value, count in counts.items():
            share = every[name][value] / total
            if count / asked > share:
                probability = float(hypergeom.sf(count - 1, total, every[name][value], asked))
                found.append(
                    {"choice": name, "value": value, "with_it": count, "asked": asked}
                    | {"share": share, "probability": probability}
                )
    return sorted(found, key=lambda each: (each["probability"], each["choice"]))
