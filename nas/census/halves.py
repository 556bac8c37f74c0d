"""The exact distribution of a cost that adds up, from two halves: what can stand in front of a row, and what behind.

Either half takes far fewer values than their sums, which are never listed: how many members cost at most x is a scalar
product for every class of nodes between the halves. In front, where values are dense, there is a number for every step
of the cost; behind, where they are few, a list of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, floor, gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.census.classes import Class, Classes
from nas.census.graph import Graph, Ints

MOST_WORK = 1_500_000_000
"""Additions for one cost; some two seconds."""
_COUNTED = 75
"""About so often a distribution is asked how many members cost at most x."""
_SORTED, _LOOKED_UP = 100, 10
"""What it takes to sort a value among others, and to look one up, in additions."""
_WORD = 64
# Behind so many bits, an error of rounding could be as large as half of 2^64.
_MOST_BITS = 95
Counts = NDArray[np.generic]


class TooMuchWork(Exception):  # noqa: N818 - a bound, not a fault
    """The distribution would take longer than MOST_WORK."""


class Halves:
    """How many members of a graph cost at most so much. Raises TooMuchWork."""

    def __init__(self, graph: Graph, name: str, most_work: int = MOST_WORK) -> None:
        self._classes = classes = Classes(graph, name)
        self._low, high, self._before = classes.spans()
        self.least, self.most = int(self._low[classes.root]), int(high[classes.root])
        self.size = classes.sizes()[classes.root]
        reach = np.zeros(len(classes.all), dtype=np.int64)
        for number in range(classes.root, 0, -1):
            each = classes.all[number]
            np.maximum.at(reach, each.after, reach[number] + each.costs)
        self._spread_behind, self._spread_before = high - self._low, reach - self._before
        self._values = self._most_values(classes.step(self._low))
        self._level = np.zeros(len(classes.all), dtype=np.int64)
        for number, each in enumerate(classes.all[1:], 1):
            self._level[number] = self._level[each.after[0]] + 1
        kinds: list[type[np.generic]] = [np.uint64] if self.size < 2**63 else [np.uint64, np.float64]
        plans = [self._plan(cut) for cut in range(int(self._level[classes.root]) + 1)]
        work, self._cut, self._step = min(plans)
        if work * len(kinds) > most_work or self.size.bit_length() > _MOST_BITS:
            raise TooMuchWork(f"{work * len(kinds):.3g} additions for {name}")
        self._known: dict[int, int] = {}
        self._halves = [(self._count_before(kind), self._count_behind(kind)) for kind in kinds]

    def within(self, limit: float) -> int:
        """How many members cost at most `limit`."""
        place = floor(min(limit, self.most))
        if place not in self._known:
            self._known[place] = self._count(place)
        return self._known[place]

    def _count(self, limit: int) -> int:
        if limit == self.most:
            return self.size
        found = [self._product(limit, *half) for half in self._halves]
        rest: int = int(found[0]) % 2**_WORD
        if len(found) == 1:
            return rest
        # Exact modulo 2^64, and nearly exact: together exact.
        wraps: int = round((int(found[1]) - rest) / 2**_WORD)
        return rest + (wraps << _WORD)

    def quantiles(self, shares: Sequence[float]) -> list[int]:
        """For each share the least cost that so many of the members do not exceed."""
        return [self._quantile(max(1, ceil(Fraction(str(share)) * self.size))) for share in shares]

    def _quantile(self, rank: int) -> int:
        low, high = self.least, self.most  # the cost looked for is above low, unless it is the least, and at most high
        if self.within(low) >= rank:
            return low
        below, above = self.within(low), self.size
        turn = 0
        while high - low > 1:
            # By turns the chord, which is near at once, and the middle, which is never far.
            chord = low + round((high - low) * ((rank - below) / (above - below)))
            x = min(max(chord if turn % 3 else (low + high) // 2, low + 1), high - 1)
            count = self.within(x)
            low, below, high, above = (low, below, x, count) if count >= rank else (x, count, high, above)
            turn += 1
        return high

    def _most_values(self, step: int) -> Ints:
        """For every class, a bound on how many different costs are behind it."""
        found = np.ones(len(self._classes.all), dtype=np.int64)
        for number, each in enumerate(self._classes.all[1:], 1):
            found[number] = min(found[each.after].sum(), self._spread_behind[number] // step + 1)
        return found

    def _plan(self, cut: int) -> tuple[int, int, int]:
        """(work, cut, unit of the costs before) for the halves that meet at a level."""
        step = 0
        for number, each in enumerate(self._classes.all[1:], 1):
            if self._level[number] > cut:
                step = gcd(step, int(np.gcd.reduce(self._more_before(number, each))))
        step = step or 1
        work = _COUNTED * _LOOKED_UP * int(self._values[self._level == cut].sum())
        for number, each in enumerate(self._classes.all[1:], 1):
            if self._level[number] > cut:
                work += (int(self._spread_before[number]) // step + 1) * len(each.after)
            else:
                work += _SORTED * int(self._values[each.after].sum())
        return work, cut, step

    def _more_before(self, number: int, each: Class) -> Ints:
        more: Ints = each.costs + self._before[number] - self._before[each.after]
        return more

    def _count_before(self, kind: type[np.generic]) -> dict[int, Counts]:
        """For every class at the cut, how many paths lead to it at each cost (in steps beyond the least) at most."""
        found = {self._classes.root: np.ones(1, dtype=kind)}
        for number in range(self._classes.root, 0, -1):
            if self._level[number] > self._cut and number in found:
                each, here = self._classes.all[number], found.pop(number)
                shifts, times = self._more_before(number, each) // self._step, each.counts.tolist()
                parts = {n: here * kind(n) for n in set(times)}
                for after, shift, n in zip(each.after.tolist(), shifts.tolist(), times, strict=True):
                    if after not in found:
                        found[after] = np.zeros(int(self._spread_before[after]) // self._step + 1, dtype=kind)
                    found[after][shift : shift + len(here)] += parts[n]
        return {number: np.cumsum(here) for number, here in found.items()}

    def _count_behind(self, kind: type[np.generic]) -> dict[int, tuple[Ints, Counts]]:
        """For every class at the cut, the costs behind it in rising order, and how many paths have each."""
        found = {0: (np.zeros(1, dtype=np.int64), np.ones(1, dtype=kind))}
        for number, each in enumerate(self._classes.all[1:], 1):
            if self._level[number] <= self._cut:
                parts = [found[after] for after in each.after.tolist()]
                costs = np.concatenate([part[0] + cost for part, cost in zip(parts, each.costs, strict=True)])
                counts = np.concatenate([part[1] * kind(n) for part, n in zip(parts, each.counts, strict=True)])
                order = np.argsort(costs, kind="stable")
                first = np.flatnonzero(np.diff(costs[order], prepend=-1))
                found[number] = costs[order[first]], np.add.reduceat(counts[order], first)
        return {number: here for number, here in found.items() if self._level[number] == self._cut}

    def _product(self, x: int, before: dict[int, Counts], behind: dict[int, tuple[Ints, Counts]]) -> Any:
        """The paths of cost at most x; those of 64 bits modulo 2^64."""
        total: Any = next(iter(before.values())).dtype.type(0)
        for number, front in before.items():
            costs, counts = behind[number]
            room = x - int(self._before[number])
            some = costs[: costs.searchsorted(room, "right")]
            steps = np.minimum((room - some) // self._step, len(front) - 1)
            with np.errstate(over="ignore"):
                total = total + np.dot(front[steps], counts[: len(some)])
        return total
