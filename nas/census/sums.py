"""Costs that add up: how many members cost how much, by dynamic programming from the last row back.

Counts are exact however large: 32-bit digits in 64-bit integers, carried once for each class.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.census.classes import Class, Classes
from nas.census.graph import Graph, Ints

MOST_WORK = 600_000_000
"""Additions for one table; a second."""
MOST_CELLS = 32_000_000
"""Numbers in one table; 256 MB."""
_DIGIT = 32
_SPARSE = 20
"""Where no more than one number in so many is not 0, these are added one by one."""
Counts = NDArray[np.uint64]


class SumTable:
    """The members of a graph whose cost, a sum, is at most `limit`; each has a rank.

    Where the table would be too large, costs are rounded down to a coarser `unit`, stage by stage: `exact` is then
    False, and the table has some members above the limit, too, but still all within.
    """

    def __init__(self, graph: Graph, name: str, limit: float, most_work: int = MOST_WORK) -> None:
        self.graph, classes = graph, Classes(graph, name)
        low, high, before = classes.spans()
        self.least, self.step = int(low[classes.root]), classes.step(low)
        room = np.minimum(high.astype(float) - low, np.floor(limit) - before - low)
        self._digits = max(1, -(-max(classes.sizes()).bit_length() // _DIGIT))
        if max(classes.sizes()) < 2**63:
            self._digits = 1
        self.coarse = 1
        while True:
            self.unit = self.step * self.coarse
            self._last: Ints = np.where(room < 0, -1, room // self.unit).astype(np.int64)
            work, cells = self._effort(classes, low)
            if (work <= most_work and cells <= MOST_CELLS) or self._last.max() <= 0:
                break
            self.coarse *= 2
        self._fill(classes, low)
        ends = low[classes.of[graph.after]] - np.repeat(low[classes.of[:-1]], np.diff(graph.begin))
        self._shift: Ints = (graph.column(name) + ends) // self.unit
        behind: Ints = classes.of[graph.after]
        self._columns, self._most = self._base[behind], self._last[behind]
        """For every edge, where in the table the counts behind it begin, and the last of them."""
        self._root = classes.root

    @property
    def exact(self) -> bool:
        return self.coarse == 1

    @property
    def total(self) -> int:
        """Members in the table."""
        last = int(self._last[self._root])
        return int(self._at(self._base[[self._root]] + last)[0]) if last >= 0 else 0

    def unrank(self, rank: int) -> list[int]:
        """The path (see `Graph.member`) of member number `rank` of the table, from 0."""
        graph, node, path = self.graph, 0, []
        left = int(self._last[self._root])
        while node < graph.nodes:
            part = graph.edges(node)
            rest = np.minimum(left - self._shift[part], self._most[part])
            counts = np.where(rest >= 0, self._at(self._columns[part] + rest), 0)
            totals: Any = np.cumsum(counts) if self._digits == 1 else list(accumulate(counts.tolist()))
            # Both are numbers of 64 bits, or both Python's.
            place = (
                int(totals.searchsorted(np.uint64(rank), "right")) if self._digits == 1 else bisect_right(totals, rank)
            )
            rank -= int(totals[place - 1]) if place else 0
            left, edge = int(rest[place]), part.start + place
            path.append(edge)
            node = int(graph.after[edge])
        assert rank == 0, "the end is reached in one way"
        return path

    def _at(self, places: Ints) -> NDArray[np.generic]:
        """The counts in these columns of the table: numbers of 64 bits, or Python's where they would not do."""
        found = self._table.take(places, axis=1, mode="clip")
        return found[0] if self._digits == 1 else np.array([*_whole(found), None], dtype=object)[:-1]

    def _effort(self, classes: Classes, low: Ints) -> tuple[int, int]:
        """(additions, numbers) of the table."""
        work = 0
        for number, each in enumerate(classes.all[1:], 1):
            cells = np.minimum(self._last[each.after], self._last[number] - self._shifts(low, number, each)) + 1
            work += int(np.maximum(cells, 0).sum())
        return work * self._digits, int((self._last + 1).sum()) * self._digits

    def _shifts(self, low: Ints, number: int, each: Class) -> Ints:
        """By how many units the costs behind are more than the least here."""
        shifts: Ints = (each.costs + low[each.after] - low[number]) // self.unit
        return shifts

    def _fill(self, classes: Classes, low: Ints) -> None:
        """Counts for every class and cost, then those of at most that cost."""
        sizes = self._last + 1
        self._base: Ints = np.cumsum(sizes) - sizes
        self._table: Counts = np.zeros((self._digits, max(1, int(sizes.sum()))), dtype=np.uint64)
        parts = [self._table[:, b : b + n] for b, n in zip(self._base.tolist(), sizes.tolist(), strict=True)]
        if sizes[0]:
            parts[0][0, 0] = 1
        filled = [np.flatnonzero(parts[0][0])]
        for number, each in enumerate(classes.all[1:], 1):
            here = parts[number]
            shifts = self._shifts(low, number, each).tolist()
            for after, shift, count in zip(each.after.tolist(), shifts, each.counts.tolist(), strict=True):
                behind = parts[after][:, : max(0, here.shape[1] - shift)]
                few = filled[after]
                if len(few) * _SPARSE < behind.shape[1]:
                    few = few[: few.searchsorted(behind.shape[1])]
                    here[:, few + shift] += behind[:, few] * np.uint64(count)
                elif behind.shape[1]:
                    part = here[:, shift : shift + behind.shape[1]]
                    part += behind if count == 1 else behind * np.uint64(count)
            self._carry(here)
            filled.append(np.flatnonzero(here.any(axis=0)))
        for here in parts:
            np.cumsum(here, axis=1, out=here)
            self._carry(here)

    def _carry(self, counts: Counts) -> None:
        for low, high in pairwise(counts):
            high += low >> np.uint64(_DIGIT)
            low &= np.uint64(2**_DIGIT - 1)


def _whole(counts: Counts) -> list[int]:
    """Digits (row 0 the lowest) as Python's integers."""
    found: list[int] = counts[-1].tolist()
    for row in counts[-2::-1]:
        found = [(high << _DIGIT) + low for high, low in zip(found, row.tolist(), strict=True)]
    return found
