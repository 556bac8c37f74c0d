"""Which candidates are measured again, so that good luck does not choose the front."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

import numpy as np

from nas.rungs import angle, shortfalls


class Confirming:
    """The accuracies of trained candidates at the top rung, by number, and who needs another one.

    That are, until each was measured `times` again, the members of the front by mean accuracy, and the near misses:
    those that one standard deviation of a measurement would bring there, the nearest, at most as many as members. The
    deviation is pooled over all that were measured again; accuracies are compared as angles, see `nas.rungs`.
    """

    def __init__(self, times: int) -> None:
        self.times = times
        self.begun: defaultdict[int, set[int]] = defaultdict(set)  # times, from 1
        self._costs: dict[int, tuple[float, ...]] = {}
        self._accuracies: dict[int, list[float]] = {}

    def trained(self, number: int, costs: Sequence[float], accuracy: float) -> None:
        self._costs[number], self._accuracies[number] = tuple(costs), [accuracy]

    def begin(self, number: int, time: int) -> None:
        """Raises KeyError if there is no such trained candidate."""
        if number not in self._accuracies:
            raise KeyError(f"candidate {number} was not trained")
        self.begun[number].add(time)

    def measured_again(self, number: int, accuracy: float) -> None:
        self._accuracies[number].append(accuracy)

    def next(self) -> tuple[int, int] | None:
        """The candidate to measure again, and for which time: the first that has not begun, or failed."""
        if not self.times or not self._accuracies:
            return None
        numbers, means = list(self._accuracies), [fmean(each) for each in self._accuracies.values()]
        behind, slack = shortfalls(list(self._costs.values()), angle(means)), self._deviation()
        members = int((behind == 0).sum())
        nearest = np.argsort(behind, kind="stable")[: 2 * members]
        wanted = [numbers[place] for place in nearest if behind[place] <= slack]
        wanted = [number for number in wanted if len(self.begun[number]) < self.times]
        number = min(wanted, key=lambda number: (len(self.begun[number]), number), default=None)
        return None if number is None else (number, min({*range(1, self.times + 1)} - self.begun[number]))

    def _deviation(self) -> float:
        """Of one measurement; 0 before there are two of one candidate."""
        again = [angle(each) for each in self._accuracies.values() if len(each) > 1]
        squares = sum(float(np.var(angles)) * len(angles) for angles in again)
        freedom = sum(len(angles) - 1 for angles in again)
        return float(np.sqrt(squares / freedom)) if freedom else 0.0
