"""Who goes on to the next rung: successive halving for several objectives, on plain values.

As in ASHA (Li et al. 2020, MLSys, arXiv:1810.05934) a candidate is judged as soon as it is measured, against those
measured at the same rung so far, and trains on from its checkpoint. It is not ranked by its accuracy, which would cut
every cheap network, but by its shortfall: how far its accuracy is behind the best of the candidates that cost no more
in any objective, nor much less (a cheap network learns faster at first). Without costs that is ASHA's ranking.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
SPAN = 2.0
"""Candidates are compared where no cost of one is more than so many times that of the other."""
RISK = 0.05
"""The chance, for one comparison, that a candidate is cut that would have overtaken the other."""
RECENT = 500
"""Candidates at the top that say what a rung is worth: no more, so that the time for it does not grow."""
LEAST = 4
"""Candidates at the top before anything is cut: before that it is not known what a rung is worth."""


@dataclass(frozen=True)
class Verdict:
    """Of a candidate at `rung` (from 0): it is behind `leader`; with `floor` or more, or by rank, it goes on."""

    rung: int
    goes_on: bool
    leader: int | None
    floor: float


class Halving:
    """What is measured of the candidates, rung by rung, and who goes on.

    A candidate is cut if its shortfall exceeds the margin and it is not among the share `keep` of its rung with the
    least shortfalls. The margin is learnt from what became of the differences between neighbours at the top. Accuracies
    (fractions) are compared as angles, arcsin(sqrt(a)): there, counts of few and of many errors are as noisy.
    """

    def __init__(self, rungs: int, keep: float) -> None:
        self.keep = keep
        self._rungs = [_Rung() for _ in range(rungs)]
        self._lines: dict[int, tuple[float, float]] = {}

    def note(self, number: int, costs: Sequence[float], accuracies: Sequence[float]) -> None:
        """The accuracies of a candidate at its rungs so far; what is noted of it already stays."""
        for index, accuracy in enumerate(accuracies):
            if self._rungs[index].add(number, costs, float(angle(accuracy))) and index == len(self._rungs) - 1:
                self._lines.clear()

    def judge(self, number: int) -> Verdict:
        """Whether a candidate goes on from the highest rung that is noted of it, which is not the last."""
        index = self._reached(number)
        rung, (_, margin) = self._rungs[index], self._line(index)
        place = rung.places[number]
        shortfall = rung.shortfalls[place]
        ahead = int((rung.shortfalls < shortfall).sum())
        goes_on = bool(shortfall <= margin) or ahead < math.ceil(self.keep * len(rung.places))
        floor = math.sin(max(0.0, rung.angles[place] + shortfall - margin)) ** 2
        return Verdict(index, goes_on, rung.leaders[place], floor)

    def expected(self, number: int) -> float:
        """The accuracy that a candidate would have at the top: not less than now, nor more than the best there."""
        index, top = self._reached(number), self._rungs[-1]
        now = float(self._rungs[index].angles[self._rungs[index].places[number]])
        if top.places:
            below = self._rungs[index].of(top.places)
            then = float(top.angles.mean() + self._line(index)[0] * (now - below.mean()))
            now = min(max(then, now), float(top.angles.max()))
        return math.sin(now) ** 2

    def _reached(self, number: int) -> int:
        return max(index for index, rung in enumerate(self._rungs) if number in rung.places)

    def _line(self, index: int) -> tuple[float, float]:
        """What is left at the top of a difference of 1 at a rung, and the difference that hides no overtaking.

        Over all pairs of neighbours that have both, differences at the top are regressed on those at the rung. The
        margin is the difference that this makes as large as the one-sided bound, at RISK, of a t distribution of the
        residuals; its degrees of freedom are the candidates less two. It is infinite for fewer candidates than LEAST.
        """
        if index not in self._lines:
            self._lines[index] = self._fit(index)
        return self._lines[index]

    def _fit(self, index: int) -> tuple[float, float]:
        top = self._rungs[-1]
        below, above = self._rungs[index].of(top.places)[-RECENT:], top.angles[-RECENT:]
        one, other = np.nonzero(np.triu(_neighbours(top.costs[-RECENT:], top.costs[-RECENT:]), 1))
        now, then = below[one] - below[other], above[one] - above[other]
        if len(below) < LEAST or not now.any():
            return 1.0, math.inf
        from scipy.special import stdtrit  # not needed where there is one rung

        slope = float(now @ then / (now @ now))
        spread = math.sqrt(float(np.mean((then - slope * now) ** 2)))
        bound = spread * float(stdtrit(len(below) - 2, 1 - RISK))
        return slope, bound / slope if slope > 0 else math.inf


class _Rung:
    """The candidates measured at one rung: costs (n, k), angles, shortfalls, and behind whom they are."""

    def __init__(self) -> None:
        self.places: dict[int, int] = {}
        self.leaders: list[int | None] = []
        self.costs, self.angles, self.shortfalls = np.empty((0, 0)), np.empty(0), np.empty(0)

    def add(self, number: int, costs: Sequence[float], score: float) -> bool:
        """False if it is here already."""
        if number in self.places:
            return False
        new = np.array(costs, dtype=np.float64)[None]
        known = self.costs.reshape(len(self.places), len(costs))
        near = _neighbours(new, known)[0]
        behind = near & (known >= new).all(axis=1)
        for place in np.flatnonzero(behind & (score - self.angles > self.shortfalls)):
            self.shortfalls[place], self.leaders[place] = score - self.angles[place], number
        before = np.flatnonzero(near & (known <= new).all(axis=1))
        best = before[np.argmax(self.angles[before])] if len(before) else None
        shortfall = 0.0 if best is None else max(0.0, self.angles[best] - score)
        self.leaders.append(list(self.places)[best] if best is not None and shortfall > 0 else None)
        self.places[number] = len(self.places)
        self.costs = np.vstack([known, new])
        self.angles = np.append(self.angles, score)
        self.shortfalls = np.append(self.shortfalls, shortfall)
        return True

    def of(self, numbers: Iterable[int]) -> Array:
        """The angles of some candidates."""
        return self.angles[[self.places[number] for number in numbers]]


def angle(accuracy: ArrayLike) -> Array:
    """arcsin(sqrt(a)) of accuracies, which are fractions."""
    value: Array = np.arcsin(np.sqrt(np.asarray(accuracy, dtype=np.float64)))
    return value


def _neighbours(one: Array, other: Array) -> NDArray[np.bool_]:
    """(n, m): whether no cost (n, k) and (m, k) differs by more than SPAN."""
    ratios = np.abs(np.log(np.maximum(one, 1e-12))[:, None, :] - np.log(np.maximum(other, 1e-12))[None, :, :])
    near: NDArray[np.bool_] = (ratios <= math.log(SPAN) + 1e-9).all(axis=2)
    return near


def shortfalls(costs: Sequence[Sequence[float]], scores: Array) -> Array:
    """(n,) by how much each of the points is behind the best score of those that cost no more in any objective."""
    known = np.array(costs, dtype=np.float64)  # (n, k); without any cost (n, 0)
    best = [scores[(known <= cost).all(axis=1)].max() for cost in known]
    return np.array(best) - scores
