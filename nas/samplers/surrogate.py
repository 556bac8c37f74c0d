"""Bayesian optimisation of one noisy score against costs that are known: see nas/surrogate for the parts."""

from __future__ import annotations

import contextlib
import copy
import math
import random
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nas.architecture import Architecture
from nas.samplers.views import Same, asked_names, identity, member, shape
from nas.space import Space
from nas.surrogate.domain import Candidate, Domain, Params, log_costs
from nas.surrogate.process import Kernel, Process
from nas.surrogate.worth import Goal, Record, Worth

Costs = Callable[[Params], Mapping[str, float]]
SpaceCosts = Callable[[Architecture, Iterable[str]], Mapping[str, float]]
Draw = Callable[[random.Random], Architecture]
ALWAYS = ("params", "macs")
"""Costs that are looked at whether they are objectives or not."""
TRIES = 10
"""Pools that are drawn before it is said that nothing is unseen."""
CLIMBS, TOPS = 3, 4
"""Steps from the best of a pool to their neighbours, and how many are the best."""


class SurrogateSampler(BaseSampler):
    """Proposes the candidate that is expected to add most hypervolume, of those within the budget and not yet seen.

    A Gaussian process over the choices learns one objective, the score. The other objectives are costs, which `costs`
    gives for any candidate without training it; it raises ValueError for answers that lead to no candidate. They, and
    `features` (by default their logarithms), are what its prior mean is a regression on; how far that is
    believed is learnt. A proposal follows from the seed, its number and the record alone. The measured trials of other
    workers are taken to be as predicted. Trials that failed, or violate a constraint, are not learnt from.

    search_space: all choices, as distributions (categorical or integer), or a Space.
    costs: of the answers to the choices that are asked (of a Space: of any of its params).
    budget: upper bounds of costs; nothing else is ever proposed.
    objectives: which value of a trial is which cost; the one that is no cost is the score. By default the score is the
        first, and the others are the costs in the order in which `costs` gives them.
    ideal: the perfect score, 1 or (if it is minimised) 0 by default. The model's scale is the logarithm of the
        distance to it; if scores lie beyond it, the scale is that of the score.
    reference: the worst values, by objective, that count as hypervolume; by default the worst score told, and the
        greatest cost told, or in a sample of what is within the budget, with a tenth of the costs' range more.
    active: which names are asked, given answers to all; all by default. A Space knows.
    draw: a random candidate within the budget, or None; by default answers are drawn until they fit.
    startup: first proposals, which are spread over choices and features.
    pool: candidates that a proposal is chosen from, about.
    """

    def __init__(
        self,
        search_space: Mapping[str, BaseDistribution] | Space,
        costs: Costs,
        budget: Mapping[str, float] | None = None,
        seed: int = 0,
        *,
        objectives: Sequence[str] | None = None,
        ideal: float | None = None,
        reference: Mapping[str, float] | None = None,
        features: Costs | None = None,
        active: Callable[[Params], Iterable[str]] | None = None,
        draw: Callable[[random.Random], Params | None] | None = None,
        startup: int = 4,
        pool: int = 384,
    ) -> None:
        key = None
        if isinstance(search_space, Space):
            key, active = identity(search_space), active or asked_names(search_space)
            search_space = search_space.distributions
        self._distributions = dict(search_space)
        self._domain = Domain(self._distributions, costs, budget, features, active, key, draw)
        self._reference = dict(reference or {})
        self._seed, self._objectives, self._ideal = seed, objectives, ideal
        self._numbered = True  # a sampler for a single proposal has its number in the seed
        self._startup, self._pool = startup, pool
        self._independent = RandomSampler(seed=seed)

    def reseed_rng(self) -> None:
        """Nothing to do: every proposal has a seed of its own."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._distributions

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """What is not in the search space is drawn uniformly."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        fixed = trial.system_attrs.get("fixed_params", {})
        if fixed and self._domain.read(fixed):
            return {}
        rng = random.Random(f"{self._seed}/{trial.number if self._numbered else ''}")
        trials = [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
        record = self._read(trials)
        pool = self._unseen(record, rng)
        if not pool:
            warnings.warn("every candidate of the search space within the budget has been proposed", stacklevel=2)
            with contextlib.suppress(RuntimeError):  # outside Study.optimize there is nothing to stop
                study.stop()
            return next((each.params for each in self._domain.draws(rng, 1)), {})
        if len(record.told) + len(record.pending) < self._startup or not record.told:
            return self._spread(pool, record, rng).params
        return self._best(pool, record, study.directions, rng).params

    # The record

    def _read(self, trials: Sequence[FrozenTrial]) -> Record:
        record, told = Record(), set()
        columns: tuple[int, list[str]] | None = None
        for trial in trials:
            given = trial.system_attrs.get("fixed_params", {}) if trial.state == TrialState.WAITING else trial.params
            if trial.user_attrs.get("outcome") == "interrupted":  # a search was stopped while it was proposed
                continue
            # What another worker has not answered in full yet cannot be avoided, nor what is of another search space.
            found = self._domain.read(given)
            if found is None:
                continue
            record.seen.add(found.key)
            if trial.state in (TrialState.RUNNING, TrialState.WAITING):
                record.pending.append(found)
            elif trial.state == TrialState.COMPLETE and not any(value > 0 for value in trial.constraints.values()):
                columns = columns or self._columns(len(trial.values), found.costs)
                value = _score(trial, found.costs, *columns)
                # What was answered from the record is no second measurement.
                if math.isfinite(value) and (found.key, value) not in told:
                    told.add((found.key, value))
                    record.told.append(found)
                    record.values.append(value)
        return record

    def _columns(self, count: int, costs: Mapping[str, float]) -> tuple[int, list[str]]:
        """Which of the objectives is the score, and the names of the others."""
        names = list(self._objectives or ["", *list(costs)[: count - 1]])
        scores = [place for place, name in enumerate(names) if name not in costs]
        if len(names) != count or len(scores) != 1:
            rule = f"one score and costs ({', '.join(costs)})"
            raise ValueError(f"a study has {count} objectives, named {names}, but must have {rule}")
        return scores[0], [name for name in names if name in costs]

    def _goal(self, record: Record, directions: Sequence[StudyDirection]) -> Goal:
        known = record.told[0].costs
        place, names = self._columns(len(directions), known)
        minimise = [direction == StudyDirection.MINIMIZE for direction in directions]
        signs = [1.0 if least else -1.0 for number, least in enumerate(minimise) if number != place]
        ideal = float(not minimise[place]) if self._ideal is None else self._ideal
        return Goal(
            maximise=not minimise[place],
            ideal=ideal,
            costs=names,
            signs=np.array(signs),
            worst_score=next((value for name, value in self._reference.items() if name not in known), None),
            worst_costs={name: self._reference[name] for name in names if name in self._reference},
        )

    # Candidates

    def _unseen(self, record: Record, rng: random.Random) -> list[Candidate]:
        """Members within the budget that are not seen: all in a small space, else those drawn."""
        domain = self._domain
        if domain.everything is not None:
            return _new(domain.everything, record)
        pool = _new([*domain.sample, *domain.draws(rng, max(0, self._pool - len(domain.sample)))], record)
        for _ in range(TRIES):
            if pool:
                break
            pool = _new([*domain.draws(rng, self._pool), *self._around(record.told, rng)], record)
        return pool

    def _around(self, centres: Iterable[Candidate], rng: random.Random) -> Iterator[Candidate]:
        """Neighbours, at most a quarter of a pool."""
        return islice(self._domain.neighbours(centres, rng), self._pool // 4)

    # Choosing

    def _spread(self, pool: list[Candidate], record: Record, rng: random.Random) -> Candidate:
        """Of a part of the pool, so that seeds differ, where the least is known before anything is learnt; the first
        in the middle."""
        part = rng.sample(pool, math.ceil(len(pool) / 4))
        inputs = self._domain.inputs(part)
        if not record.told and not record.pending:
            return part[int(np.argmin((inputs.features**2).sum(axis=1)))]
        encoding = self._domain.encoding
        kernel = Kernel(encoding.choice, encoding.ordered, encoding.mixed, inputs.features.shape[1])
        around = self._domain.inputs([*record.told, *record.pending])
        process = Process(kernel, kernel.means, around, np.zeros(len(around)))
        return part[int(np.argmax(process.predict(inputs)[1]))]

    def _best(
        self, pool: list[Candidate], record: Record, directions: Sequence[StudyDirection], rng: random.Random
    ) -> Candidate:
        """The most expected improvement in the pool, then among the neighbours of its best, while that rises."""
        worth_of = Worth(self._domain, record, self._goal(record, directions))
        whole = self._domain.everything is not None
        if not whole:
            pool = _new([*pool, *self._around(worth_of.front(), rng)], record)
        worth = worth_of(pool)
        best, most = pool[int(np.argmax(worth))], worth.max()
        for _ in range(0 if whole else CLIMBS):
            tops = [pool[place] for place in np.argsort(-worth, kind="stable")[:TOPS]]
            pool = _new(self._around(tops, rng), record)
            worth = worth_of(pool) if pool else np.array([-np.inf])
            if worth.max() <= most:
                break
            best, most = pool[int(np.argmax(worth))], worth.max()
        return best


def _score(trial: FrozenTrial, costs: Mapping[str, float], place: int, names: Sequence[str]) -> float:
    """The value at `place`. Raises ValueError if the others are not the costs of these names."""
    others = [value for number, value in enumerate(trial.values) if number != place]
    for name, value in zip(names, others, strict=True):
        if not math.isclose(value, costs[name], rel_tol=1e-6, abs_tol=1e-9):
            text = f"trial {trial.number} was told a {name} of {value}, but it costs {costs[name]}"
            raise ValueError(f"{text}; say with `objectives` which value is which")
    return float(trial.values[place])


def _new(candidates: Iterable[Candidate], record: Record) -> list[Candidate]:
    """Each once, without those seen or over the budget."""
    found: dict[Hashable, Candidate] = {}
    for each in candidates:
        if each.fits and each.key not in record.seen:
            found.setdefault(each.key, each)
    return list(found.values())


def surrogate(
    *,
    seed: int,
    space: Space,
    costs: SpaceCosts,
    draw: Draw,
    budget: Mapping[str, float],
    objectives: Sequence[str],
    startup: Annotated[int, Ge(1)] = 4,
    pool: Annotated[int, Ge(16)] = 384,
) -> BaseSampler:
    """`startup`: proposals that are spread over the space first; `pool`: candidates to choose each other one from."""
    limits = tuple(sorted(budget.items())), tuple(objectives)
    known = _template(Same(space), Same(costs), Same(draw), *limits, startup, pool)
    sampler = copy.copy(known)
    sampler._seed, sampler._numbered = seed, False
    return sampler


@lru_cache(maxsize=4)
def _template(
    space: Same,
    costs: Same,
    draw: Same,
    budget: tuple[tuple[str, float], ...],
    objectives: tuple[str, ...],
    *sizes: int,
) -> SurrogateSampler:
    names = [name for name in objectives if name != "accuracy"]
    names = list(dict.fromkeys([*names, *dict(budget), *ALWAYS]))

    def known(params: Params) -> Mapping[str, float]:
        return dict(costs.value(member(space.value, params), names))

    def features(params: Params) -> Mapping[str, float]:
        return {**log_costs(known(params)), **shape(member(space.value, params))}

    def drawn(rng: random.Random) -> Params:
        return dict(space.value.encode(draw.value(rng)))

    startup, pool = sizes
    return SurrogateSampler(
        space.value,
        known,
        dict(budget),
        objectives=objectives,
        features=features,
        draw=drawn,
        startup=startup,
        pool=pool,
    )
