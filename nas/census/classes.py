"""Nodes of a graph behind which one cost is distributed alike, merged: a class needs one table for all its nodes."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np

from nas.census.graph import Graph, Ints


@dataclass(frozen=True)
class Class:
    """What can follow a node, edges with the same cost and class behind taken together, `counts` of them."""

    after: Ints
    costs: Ints
    counts: Ints


class Classes:
    """The classes of a graph for one cost, by number: class 0 is the end, an edge leads to a lower one."""

    def __init__(self, graph: Graph, name: str) -> None:
        column = graph.column(name)
        self.of = np.zeros(graph.nodes + 1, dtype=np.int64)
        """The class of every node."""
        empty = np.zeros(0, dtype=np.int64)
        self.all = [Class(empty, empty, empty)]
        known: dict[tuple[bytes, bytes], int] = {}
        for node in reversed(range(graph.nodes)):
            part = graph.edges(node)
            pairs = np.column_stack([self.of[graph.after[part]], column[part]])
            pairs = pairs[np.lexsort(pairs.T)]
            first = np.flatnonzero(np.r_[True, (pairs[1:] != pairs[:-1]).any(axis=1)])
            counts = np.diff(np.r_[first, len(pairs)])
            key = pairs[first].tobytes(), counts.tobytes()
            if key not in known:
                known[key] = len(self.all)
                self.all.append(Class(pairs[first, 0].copy(), pairs[first, 1].copy(), counts))
            self.of[node] = known[key]

    @property
    def root(self) -> int:
        return int(self.of[0])

    def sizes(self) -> list[int]:
        """How many paths lead from every class to the end."""
        found = [1]
        for each in self.all[1:]:
            found.append(sum(found[a] * n for a, n in zip(each.after.tolist(), each.counts.tolist(), strict=True)))
        return found

    def spans(self) -> tuple[Ints, Ints, Ints]:
        """(least, most) sum of costs from every class to the end, and the least from the root to it."""
        low, high = np.zeros(len(self.all), dtype=np.int64), np.zeros(len(self.all), dtype=np.int64)
        for number, each in enumerate(self.all[1:], 1):
            low[number] = (each.costs + low[each.after]).min()
            high[number] = (each.costs + high[each.after]).max()
        before = np.full(len(self.all), np.iinfo(np.int64).max)
        before[self.root] = 0
        for number in range(self.root, 0, -1):
            each = self.all[number]
            np.minimum.at(before, each.after, before[number] + each.costs)
        return low, high, before

    def step(self, low: Ints) -> int:
        """The largest unit in which all sums from a class differ; 1 if none do."""
        found = 0
        for number, each in enumerate(self.all[1:], 1):
            found = gcd(found, int(np.gcd.reduce(each.costs + low[each.after] - low[number])))
        return found or 1
