"""Costs that are a maximum: a member is within a limit if all its stages are, so members are counted limit by limit."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate
from math import ceil

import numpy as np

from nas.census.graph import Graph


def _counts(graph: Graph, name: str, limit: float) -> list[int]:
    """For every node, how many paths from it to the end have no stage above `limit`."""
    allowed, after, found = graph.column(name) <= limit, graph.after, [0] * graph.nodes + [1]
    for node in reversed(range(graph.nodes)):
        part = graph.edges(node)
        ends, edges = np.unique(after[part][allowed[part]], return_counts=True)
        found[node] = sum(found[end] * count for end, count in zip(ends.tolist(), edges.tolist(), strict=True))
    return found


class MaxTable:
    """The members of a graph whose cost, a maximum, is at most `limit`; each has a rank."""

    exact = True

    def __init__(self, graph: Graph, name: str, limit: float) -> None:
        self.graph, self._counts = graph, _counts(graph, name, limit)
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
        self._graph, self._name = graph, name
        self._values = np.unique(graph.column(name)).tolist()
        self._known: dict[float, int] = {}
        self.size = self.within(self._values[-1])

    def within(self, limit: float) -> int:
        if limit not in self._known:
            self._known[limit] = _counts(self._graph, self._name, limit)[0]
        return self._known[limit]

    def quantiles(self, shares: Sequence[float]) -> list[int]:
        """For each share the least cost that so many of the members do not exceed."""
        ranks = [max(1, ceil(Fraction(str(share)) * self.size)) for share in shares]
        return [self._values[bisect_left(self._values, rank, key=self.within)] for rank in ranks]
