"""What candidates are worth to a study, given its record: the model, the front and the acquisition put together."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nas.pareto import front
from nas.surrogate.domain import Candidate, Domain
from nas.surrogate.improvement import expected_improvement
from nas.surrogate.process import Array
from nas.surrogate.score import Belief, Scale

BEYOND = 0.1
"""Of the range of a cost, how far the reference point is beyond it (Ishibuchi et al. 2018, Evol. Comput. 26:411)."""


@dataclass(frozen=True)
class Record:
    """What a study holds: scores that were told, with their candidates, and what is still being measured."""

    seen: set[Hashable] = field(default_factory=set)
    told: list[Candidate] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    pending: list[Candidate] = field(default_factory=list)


@dataclass(frozen=True)
class Goal:
    """What a study wants: of the score (see Scale), and of the named costs, whose sign is -1 where more is better.

    What is not said of the worst values that count is taken from the record and from a sample of the domain.
    """

    maximise: bool
    ideal: float
    costs: Sequence[str]
    signs: Array
    worst_score: float | None
    worst_costs: Mapping[str, float]


class Worth:
    """Expected hypervolume improvement, after a record that holds at least one score. A function of the two alone."""

    def __init__(self, domain: Domain, record: Record, goal: Goal) -> None:
        self._domain, self._goal = domain, goal
        self._scale = Scale.of(record.values, goal.maximise, goal.ideal)
        belief = Belief.after(domain.encoding, domain.inputs(record.told), self._scale(np.array(record.values)))
        self._belief = belief.expecting(domain.inputs(record.pending))
        self._members = [*record.told, *record.pending]
        # What was observed is noisy: the front is that of what is believed of it.
        self._scores = self._belief.fitted
        self._costs = self._of(self._members)
        self._reference = self._worst()

    def front(self) -> list[Candidate]:
        """The members of the record, and of what is being measured, that are believed to be on the front."""
        mask = front(np.column_stack([self._scores, self._costs]), [True] + [False] * self._costs.shape[1])
        return [each for each, on in zip(self._members, mask, strict=True) if on]

    def __call__(self, candidates: Sequence[Candidate]) -> Array:
        """(n,) in the product of the objectives' units."""
        mean, deviation = self._belief.predict(self._domain.inputs(candidates))
        known = self._scores, self._costs
        worth = expected_improvement(mean, deviation, self._of(candidates), known, self._reference, self._scale.gain)
        # Where no improvement can be told from none, the least known is left.
        return worth if worth.max() > 0 else deviation * 1e-300

    def _of(self, candidates: Sequence[Candidate]) -> Array:
        """(n, costs), smaller is better."""
        rows = [[each.costs[name] for name in self._goal.costs] for each in candidates]
        return np.array(rows, dtype=np.float64).reshape(len(candidates), len(self._goal.costs)) * self._goal.signs

    def _worst(self) -> tuple[float, Array]:
        """What the goal says; else the worst score that is believed of the record, and somewhat more than the greatest
        cost of the record and a sample."""
        worst, goal = float(self._scores.min()), self._goal
        if goal.worst_score is not None:
            worst = float(self._scale(np.array([goal.worst_score]))[0])
        known = np.vstack([self._costs, self._of(self._domain.sample)])
        ranges = np.ptp(known, axis=0)
        # A cost that is always the same must not take the volume away.
        limits = known.max(axis=0) + BEYOND * np.where(ranges > 0, ranges, 1.0)
        for place, name in enumerate(goal.costs):
            limits[place] = goal.signs[place] * goal.worst_costs[name] if name in goal.worst_costs else limits[place]
        return worst, limits
