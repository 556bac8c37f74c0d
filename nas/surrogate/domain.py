"""The candidates: drawing them, their neighbours, and what is known of each without training it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution

from nas.surrogate.encoding import Array, Encoding
from nas.surrogate.process import Inputs

Params = dict[str, Any]
Numbers = Callable[[Params], Mapping[str, float]]
SAMPLE = 256
"""Members that say how features and costs are spread."""
SMALL = 2048
"""Members that are all looked at in each proposal."""
TRIES = 10_000
"""Draws before it is said that nothing new fits the budget."""
MANY = 16
"""Values of one choice that are looked at; of more, so many drawn."""
PATIENCE = 4
"""Draws for each member wanted; if these do not do, others are made from those found."""
_REMEMBERED = 100_000


@dataclass(frozen=True)
class Known:
    """What is known of a candidate for free. `fits`: within the budget."""

    key: Hashable
    costs: Mapping[str, float]
    features: tuple[float, ...]
    fits: bool


class Domain:
    """Choices, of which not all need be asked, and what their answers cost.

    `costs` raises ValueError for answers that lead to no candidate. `active` says which names are asked, given answers
    to all of them (all, by default); `key` what makes two candidates the same; `draw` returns a random candidate within
    the budget, or None if it found none (uniform answers, by default, kept if they fit).
    """

    def __init__(
        self,
        distributions: Mapping[str, BaseDistribution],
        costs: Numbers,
        budget: Mapping[str, float] | None = None,
        features: Numbers | None = None,
        active: Callable[[Params], Iterable[str]] | None = None,
        key: Callable[[Params], Hashable] | None = None,
        draw: Callable[[random.Random], Params | None] | None = None,
    ) -> None:
        self.encoding = Encoding(distributions)
        self._costs, self._budget, self._features = costs, dict(budget or {}), features
        self._active, self._key, self._draw = active, key, draw
        self._known: dict[Hashable, Known | None] = {}
        self._sample: list[Params] | None = None
        self._all: list[Params] | None = None
        self._counted = False
        self._centre: tuple[Array, Array] | None = None

    def known(self, params: Params) -> Known | None:
        """None if there is no such candidate."""
        name = _name(params)
        if name not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[name] = self._find(params)
        return self._known[name]

    def _find(self, params: Params) -> Known | None:
        try:
            costs = self._costs(params)
        except ValueError:
            return None
        fits = all(costs[name] <= limit for name, limit in self._budget.items())
        features = log_costs(costs) if self._features is None else self._features(params)
        key = _name(params) if self._key is None else self._key(params)
        return Known(key, dict(costs), tuple(map(float, features.values())), fits)

    def fits(self, params: Params) -> bool:
        known = self.known(params)
        return known is not None and known.fits

    def inputs(self, candidates: Sequence[Params]) -> Inputs:
        """Features are standardised by a sample that is always the same."""
        if self._centre is None:
            table = self._table(self.sample)
            spread = table.std(axis=0) if len(table) else np.ones(0)
            self._centre = (table.mean(axis=0) if len(table) else np.zeros(0)), np.where(spread > 1e-9, spread, np.inf)
        features = self._table(candidates)
        middle, spread = self._centre
        if not len(candidates):
            features = np.empty((0, len(middle)))
        features = (features - middle) / spread if len(middle) else np.empty((len(candidates), 0))
        # A candidate far out of the sample must not outweigh all others in a regression with squares.
        return Inputs(self.encoding.embed(self.encoding.codes(candidates)), np.clip(features, -4.0, 4.0))

    def _table(self, candidates: Sequence[Params]) -> Array:
        rows = [known.features for params in candidates if (known := self.known(params)) is not None]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(rows[0]) if rows else 0)

    # Drawing

    @property
    def sample(self) -> list[Params]:
        """Members within the budget, the same at any time."""
        if self._sample is None:
            self._sample = list(self.draws(random.Random("sample"), SAMPLE))
        return self._sample

    def draws(self, rng: random.Random, count: int) -> Iterator[Params]:
        """Up to so many members within the budget. Where they are rare, most are some steps away from those drawn."""
        found: list[Params] = []
        left = TRIES
        while len(found) < count and (left > TRIES - PATIENCE * count or not found):
            params, left = self._one(rng, left)
            if params is None:
                break
            found.append(params)
            yield params
        for number in range(count - len(found) if found else 0):
            params = next(self.neighbours(found[number % len(found)], rng), None)
            if params is not None:
                found[number % len(found)] = params
                yield params

    def _one(self, rng: random.Random, tries: int) -> tuple[Params | None, int]:
        """A member within the budget, and how many tries are left."""
        while tries > 0:
            tries -= 1
            if self._draw is not None:
                return self._draw(rng), tries
            params = self.asked({choice.name: rng.choice(choice.values) for choice in self.encoding.choices})
            if self.fits(params):
                return params, tries
        return None, 0

    def asked(self, answers: Params) -> Params:
        """Of answers to all choices, those that are asked."""
        return answers if self._active is None else {name: answers[name] for name in self._active(answers)}

    def everything(self) -> list[Params] | None:
        """All members within the budget, if there are few; else None."""
        if not self._counted:
            self._counted, names = True, [choice.name for choice in self.encoding.choices]
            if math.prod(len(choice.values) for choice in self.encoding.choices) <= (4 if self._active else 1) * SMALL:
                answers = product(*(choice.values for choice in self.encoding.choices))
                asked = (self.asked(dict(zip(names, values, strict=True))) for values in answers)
                found = {_name(params): params for params in asked}
                if len(found) <= SMALL:
                    self._all = [params for params in found.values() if self.fits(params)]
        return self._all

    def neighbours(self, params: Params, rng: random.Random) -> Iterator[Params]:
        """Members within the budget that differ in one choice; choices that only then are asked are drawn."""
        for choice in rng.sample(self.encoding.choices, len(self.encoding.choices)):
            if choice.name not in params:
                continue
            for value in rng.sample(choice.values, min(len(choice.values), MANY)):
                if value != params[choice.name]:
                    rest = {each.name: rng.choice(each.values) for each in self.encoding.choices}
                    found = self.asked({**rest, **params, choice.name: value})
                    if self.fits(found):
                        yield found


def log_costs(costs: Mapping[str, float]) -> dict[str, float]:
    """The features where no others are given."""
    return {name: math.log(max(value, 1e-12)) for name, value in costs.items()}


def _name(params: Params) -> Hashable:
    return tuple(sorted(params.items()))
