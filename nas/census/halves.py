"""The exact distribution of a cost that adds up, from two halves: what can stand in front of a row, and what behind.

Either half takes far fewer values than their sums, which are never listed: how many members cost at most x is a scalar
product for every class of nodes between the halves.
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
        self._level = np.zeros(len(classes.all), dtype=np.int64)
        for number, each in enumerate(classes.all[1:], 1):
            self._level[number] = self._level[each.after[0]] + 1
        kinds: list[type[np.generic]] = [np.uint64] if self.size < 2**63 else [np.uint64, np.float64]
        plans = [self._plan(cut) for cut in range(int(self._level[classes.root]) + 1)]
        work, self._cut, self._step_before, self._step_behind = min(plans)
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

    def _plan(self, cut: int) -> tuple[int, int, int, int]:
        """(work, cut, unit of the costs before, unit of those behind) for the halves that meet at a level."""
        before = behind = 0
        for number, each in enumerate(self._classes.all[1:], 1):
            if self._level[number] > cut:
                before = gcd(before, int(np.gcd.reduce(self._more_before(number, each))))
            else:
                behind = gcd(behind, int(np.gcd.reduce(self._more_behind(number, each))))
        before = before or 1
        behind = gcd(behind, before)  # so that a step in front is whole steps behind
        sizes_before, sizes_behind = self._spread_before // before + 1, self._spread_behind // behind + 1
        work = 0
        for number, each in enumerate(self._classes.all[1:], 1):
            here = self._level[number] > cut
            work += int(sizes_before[number]) * len(each.after) if here else int(sizes_behind[each.after].sum())
        work += _COUNTED * int(sizes_before[self._level == cut].sum())
        return work, cut, before, behind

    def _more_before(self, number: int, each: Class) -> Ints:
        more: Ints = each.costs + self._before[number] - self._before[each.after]
        return more

    def _more_behind(self, number: int, each: Class) -> Ints:
        more: Ints = each.costs + self._low[each.after] - self._low[number]
        return more

    def _count_before(self, kind: type[np.generic]) -> dict[int, Counts]:
        """For every class at the cut, how many paths lead to it at each cost, and as many of at most that cost."""
        found = {self._classes.root: np.ones(1, dtype=kind)}
        for number in range(self._classes.root, 0, -1):
            if self._level[number] > self._cut and number in found:
                each, here = self._classes.all[number], found.pop(number)
                for after, shift, count in _edges(each, self._more_before(number, each) // self._step_before):
                    if after not in found:
                        found[after] = np.zeros(int(self._spread_before[after]) // self._step_before + 1, dtype=kind)
                    found[after][shift : shift + len(here)] += here * kind(count)
        return found

    def _count_behind(self, kind: type[np.generic]) -> dict[int, Counts]:
        """For every class at the cut, how many paths lead from it to the end at each cost at most."""
        found = {0: np.ones(1, dtype=kind)}
        for number, each in enumerate(self._classes.all[1:], 1):
            if self._level[number] <= self._cut:
                here = np.zeros(int(self._spread_behind[number]) // self._step_behind + 1, dtype=kind)
                for after, shift, count in _edges(each, self._more_behind(number, each) // self._step_behind):
                    part = found[after]
                    here[shift : shift + len(part)] += part * kind(count)
                found[number] = here
        return {number: np.cumsum(here) for number, here in found.items() if self._level[number] == self._cut}

    def _product(self, x: int, before: dict[int, Counts], behind: dict[int, Counts]) -> Any:
        """The paths of cost at most x; those of 64 bits modulo 2^64."""
        total: Any = next(iter(behind.values())).dtype.type(0)
        stride = self._step_before // self._step_behind
        for number, front in before.items():
            back = behind[number]
            # Entry i in front goes with entries up to first - i * stride behind.
            first = (x - int(self._before[number]) - int(self._low[number])) // self._step_behind
            if first < 0:
                continue
            full = min(len(front), max(0, -(-(first - len(back) + 1) // stride)))
            some = front[full : first // stride + 1]
            start = first - full * stride
            part = back[start::-stride][: len(some)]
            with np.errstate(over="ignore"):
                total = total + np.dot(some, part) + front[:full].sum() * back[-1]
        return total


def _edges(each: Class, shifts: Ints) -> list[tuple[int, int, int]]:
    return list(zip(each.after.tolist(), shifts.tolist(), each.counts.tolist(), strict=True))
