"""The candidates: drawing them, their neighbours, and what is known of each without training it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product, repeat
from typing import Any, TypeVar

import numpy as np
from optuna.distributions import BaseDistribution

from nas.surrogate.encoding import Array, Encoding
from nas.surrogate.process import Inputs

Params = dict[str, Any]
T = TypeVar("T")
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
_NOT_ASKED = object()


@dataclass(frozen=True, eq=False)
class Candidate:
    """Answers to the choices that are asked, and what is known of them for free. `key` is equal for the same member;
    `codes`: see Encoding; `fits`: within the budget."""

    params: Params
    key: Hashable
    codes: tuple[int, ...]
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
        self._names = tuple(choice.name for choice in self.encoding.choices)
        self._found: dict[Hashable, Candidate | None] = {}
        self._read: dict[Hashable, Candidate | None] = {}

    def candidate(self, params: Params) -> Candidate | None:
        """That of answers to exactly the choices that are asked; None if there is none."""
        return _remembered(self._found, self._name(params), lambda: self._find(params))

    def read(self, given: Params) -> Candidate | None:
        """That of answers of which some may be too many; None if one is missing or there is none."""
        return _remembered(self._read, self._name(given), lambda: self._complete(given))

    def _name(self, params: Params) -> Hashable:
        return tuple(map(params.get, self._names, repeat(_NOT_ASKED)))

    def _find(self, params: Params) -> Candidate | None:
        try:
            codes, costs = self.encoding.codes(params), self._costs(params)
        except ValueError:
            return None
        fits = all(costs[name] <= limit for name, limit in self._budget.items())
        features = log_costs(costs) if self._features is None else self._features(params)
        key = self._name(params) if self._key is None else self._key(params)
        return Candidate(params, key, codes, dict(costs), tuple(map(float, features.values())), fits)

    def _complete(self, given: Params) -> Candidate | None:
        params = self.asked({**{choice.name: choice.values[0] for choice in self.encoding.choices}, **given})
        return self.candidate(params) if params and params.keys() <= given.keys() else None

    def inputs(self, candidates: Sequence[Candidate]) -> Inputs:
        """Features are standardised by a sample that is always the same."""
        middle, spread = self._centre
        width = len(candidates[0].features) if candidates else len(middle)
        codes = np.array([each.codes for each in candidates], dtype=np.intp).reshape(len(candidates), len(self._names))
        features = np.array([each.features for each in candidates], dtype=np.float64).reshape(len(candidates), width)
        # A candidate far out of the sample must not outweigh all others in a regression with squares.
        return Inputs(self.encoding.embed(codes), np.clip((features - middle) / spread, -4.0, 4.0))

    @cached_property
    def _centre(self) -> tuple[Array, Array]:
        """Mean and standard deviation (features,); 0 and 1 if no sample was found."""
        if not self.sample:
            return np.zeros(1), np.ones(1)
        table = np.array([each.features for each in self.sample], dtype=np.float64)
        spread = table.std(axis=0)
        return table.mean(axis=0), np.where(spread > 1e-9, spread, np.inf)

    # Drawing

    @cached_property
    def sample(self) -> list[Candidate]:
        """Members within the budget, the same at any time."""
        rng, everything = random.Random("sample"), self.everything
        if everything is not None:
            return rng.sample(everything, min(SAMPLE, len(everything)))
        return list(self.draws(rng, SAMPLE))

    def draws(self, rng: random.Random, count: int) -> Iterator[Candidate]:
        """Up to so many members within the budget. Where they are rare, most are some steps away from those drawn."""
        found: list[Candidate] = []
        left = TRIES
        while len(found) < count and (left > TRIES - PATIENCE * count or not found):
            drawn, left = self._one(rng, left)
            if drawn is None:
                break
            found.append(drawn)
            yield drawn
        for number in range(count - len(found) if found else 0):
            near = next(self.neighbours([found[number % len(found)]], rng), None)
            if near is not None:
                found[number % len(found)] = near
                yield near

    def _one(self, rng: random.Random, tries: int) -> tuple[Candidate | None, int]:
        """A member within the budget, and how many tries are left."""
        while tries > 0:
            tries -= 1
            if self._draw is not None:
                drawn = self._draw(rng)
                return (None if drawn is None else self.candidate(drawn)), tries
            found = self.candidate(
                self.asked({choice.name: rng.choice(choice.values) for choice in self.encoding.choices})
            )
            if found is not None and found.fits:
                return found, tries
        return None, 0

    def asked(self, answers: Params) -> Params:
        """Of answers to all choices, those that are asked."""
        return answers if self._active is None else {name: answers[name] for name in self._active(answers)}

    @cached_property
    def everything(self) -> list[Candidate] | None:
        """All members within the budget, if there are few; else None."""
        count = math.prod(len(choice.values) for choice in self.encoding.choices)
        if count > (4 if self._active else 1) * SMALL:
            return None
        answers = product(*(choice.values for choice in self.encoding.choices))
        asked = (self.asked(dict(zip(self._names, values, strict=True))) for values in answers)
        params = list({self._name(each): each for each in asked}.values())
        if len(params) > SMALL:
            return None
        found = (self.candidate(each) for each in params)
        return [each for each in found if each is not None and each.fits]

    def neighbours(self, centres: Iterable[Candidate], rng: random.Random) -> Iterator[Candidate]:
        """Members within the budget that differ from one of the centres in one choice, in random order; choices that
        only then are asked are drawn."""
        steps = [
            (centre.params, choice.name, value)
            for centre in centres
            for choice in self.encoding.choices
            if choice.name in centre.params
            for value in rng.sample(choice.values, min(len(choice.values), MANY))
            if value != centre.params[choice.name]
        ]
        rng.shuffle(steps)
        for params, name, value in steps:
            answers = {**params, name: value}
            if self._active is not None:
                missing = (each for each in self.encoding.choices if each.name not in params)
                answers = self.asked({**{each.name: rng.choice(each.values) for each in missing}, **answers})
            found = self.candidate(answers)
            if found is not None and found.fits:
                yield found


def log_costs(costs: Mapping[str, float]) -> dict[str, float]:
    """The features where no others are given."""
    return {name: math.log(max(value, 1e-12)) for name, value in costs.items()}


def _remembered(memory: dict[Hashable, T], name: Hashable, find: Callable[[], T]) -> T:
    if name not in memory:
        if len(memory) >= _REMEMBERED:
            memory.clear()
        memory[name] = find()
    return memory[name]
