"""Costs that are a maximum: a member is within a limit if all its stages are, so members are counted limit by limit."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate
from math import ceil

import numpy as np

from nas.census.graph import Graph


class _Counter:
    """How many paths of a graph have no stage above a limit: the edges between two nodes are looked at together."""

    def __init__(self, graph: Graph, name: str) -> None:
        node = np.repeat(np.arange(graph.nodes), np.diff(graph.begin))
        order = np.lexsort([graph.after, node])
        ends = np.column_stack([node, graph.after])[order]
        self._first = np.flatnonzero((np.diff(ends, axis=0, prepend=-1) != 0).any(axis=1))
        self._ends: list[list[int]] = ends[self._first].tolist()
        self._costs, self._nodes = graph.column(name)[order], graph.nodes

    def counts(self, limit: float) -> list[int]:
        """For every node, how many such paths lead from it to the end."""
        found = [0] * self._nodes + [1]
        edges = np.add.reduceat(self._costs <= limit, self._first, dtype=np.int64).tolist()
        for (node, after), count in zip(reversed(self._ends), reversed(edges), strict=True):
            found[node] += count * found[after]
        return found


class MaxTable:
    """The members of a graph whose cost, a maximum, is at most `limit`; each has a rank."""

    exact = True

    def __init__(self, graph: Graph, name: str, limit: float) -> None:
        self.graph, self._counts = graph, _Counter(graph, name).counts(limit)
        self._allowed = graph.column(name) <= limit

    @property
    def total(self) -> int:
        return self._counts[0]

    def unrank(self, rank: int) -> list[int]:
        """The path (see `Graph.member`) of member number `rank`, from 0."""
        graph, node, path = self.graph, 0, []
        while node < graph.nodes:
            part = graph.edges(node)
            pairs = zip(graph.after[part].tolist(), self._allowed[part].tolist(), strict=True)
            totals = list(accumulate(self._counts[end] if allowed else 0 for end, allowed in pairs))
            place = bisect_left(totals, rank + 1)
            rank -= totals[place - 1] if place else 0
            path.append(part.start + place)
            node = int(graph.after[path[-1]])
        return path


class Maxima:
    """How many members of a graph cost at most so much."""

    def __init__(self, graph: Graph, name: str) -> None:
        self._counter = _Counter(graph, name)
        self._values = np.unique(graph.column(name)).tolist()
        self._known: dict[float, int] = {}
        self.size = self.within(self._values[-1])

    def within(self, limit: float) -> int:
        if limit not in self._known:
            self._known[limit] = self._counter.counts(limit)[0]
        return self._known[limit]

    def quantiles(self, shares: Sequence[float]) -> list[int]:
        """For each share the least cost that so many of the members do not exceed."""
        ranks = [max(1, ceil(Fraction(str(share)) * self.size)) for share in shares]
        return [self._values[bisect_left(self._values, rank, key=self.within)] for rank in ranks]
