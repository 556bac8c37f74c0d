"""A space as a graph with the costs on its edges: every path from its root to its end is a member.

A node is what lies between two rows: all that may decide what can follow (see `nas.space.members`). An edge is one
stage of the row behind it. The edges of node i are those numbered begin[i] to begin[i + 1]; nodes are numbered so that
an edge leads to a higher one. The root, 0, has an edge without cost for each resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Architecture, Stage
from nas.census.ledger import layer_costs
from nas.costs import COSTS, combine
from nas.space import Space

Ints = NDArray[np.int64]
NAMES = tuple(COSTS)
State = tuple[int, int]


class Graph:
    """Of a space. Raises TooManyLayers if it has more distinct layers than are traced for one space."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.stages: list[Stage] = []
        """Of every edge behind the root's."""
        self.resolutions: list[int] = []
        """Of the root's edges."""
        self.states: list[State] = []
        """(channels, resolution) of the nodes behind the root."""
        begin, after = self._unfold()
        self.begin: Ints = np.array(begin, dtype=np.int64)
        self.after: Ints = np.array(after, dtype=np.int64)
        places = self._places()
        costs = _stage_costs(places)
        self.values: Ints = np.concatenate([np.zeros((len(self.resolutions), len(NAMES)), dtype=np.int64), costs])
        """Of every edge (row), every cost in the order of COSTS (column)."""
        self.costs_at: dict[tuple[Stage, State], list[int]] = dict(zip(places, costs.tolist(), strict=True))

    @property
    def nodes(self) -> int:
        """All but the end, which is numbered so."""
        return len(self.begin) - 1

    def edges(self, node: int) -> slice:
        return slice(int(self.begin[node]), int(self.begin[node + 1]))

    def column(self, name: str) -> Ints:
        return np.ascontiguousarray(self.values[:, NAMES.index(name)])

    def member(self, edges: Sequence[int]) -> Architecture:
        """The member on the path of these edges."""
        first = len(self.resolutions)
        stages = tuple(self.stages[edge - first] for edge in edges[1:])
        return Architecture(stages, self.resolutions[edges[0]], self.space.in_channels)

    def costs(self, edges: Sequence[int]) -> dict[str, int]:
        """All costs of the member on the path of these edges."""
        return _together(self.values[list(edges)].tolist())

    def costs_of(self, architecture: Architecture) -> dict[str, int]:
        """All costs of a member: `nas.costs.costs`, without a trace for every activation."""
        state, rows = (architecture.in_channels, architecture.resolution), []
        for stage in architecture.stages:
            rows.append(self.costs_at[stage, state])
            state = stage.after(*state)
        return _together(rows)

    def behind(self, name: str, best: Callable[[Ints], Any]) -> Ints:
        """The least or most cost (`best` is np.min or np.max) of all paths from every node to the end."""
        add, column = joined(name), self.column(name)
        found = np.zeros(self.nodes + 1, dtype=np.int64)
        for node in reversed(range(self.nodes)):
            part = self.edges(node)
            found[node] = best(add(column[part], found[self.after[part]]))
        return found

    def extreme(self, name: str, best: Callable[[Ints], Any]) -> list[int]:
        """The edges of the member of least or most cost (`best` is np.min or np.max), the first of equals."""
        add, column, behind = joined(name), self.column(name), self.behind(name, best)
        wanted, node, spent, path = behind[0], 0, np.int64(0), []
        while node < self.nodes:
            part = self.edges(node)
            ends = add(spent, add(column[part], behind[self.after[part]]))
            edge = part.start + int(np.flatnonzero(ends == wanted)[0])
            spent, node = add(spent, column[edge]), int(self.after[edge])
            path.append(edge)
        return path

    def _unfold(self) -> tuple[list[int], list[int]]:
        """Lists nodes row by row, with their edges; (where each node's edges begin, where each edge leads to)."""
        members = self.space.members
        numbers: dict[Any, int] = {}
        for resolution, alive in members.starts[0]:
            state = (self.space.in_channels, resolution)
            if members.branches(0, state, alive)[0]:
                self.resolutions.append(resolution)
                numbers[state, alive] = len(numbers) + 1
        begin, after = [0, len(numbers)], list(numbers.values())
        rows = len(members.rows)
        for index in range(rows):
            first = max(numbers.values()) + 1
            behind: dict[Any, int] = {}
            for state, alive in numbers:
                self.states.append(state)
                for branch in members.branches(index, state, alive)[0]:
                    place = 0 if index + 1 == rows else (branch.after, branch.alive)
                    number = behind.setdefault(place, first + len(behind))
                    self.stages += branch.stages
                    after += [number] * len(branch.stages)
                begin.append(len(after))
            numbers = behind
        return begin, after

    def _places(self) -> list[tuple[Stage, State]]:
        """(stage, state in front of it) of every edge behind the root's."""
        first = len(self.resolutions)
        return [
            (self.stages[edge - first], state)
            for state, (low, high) in zip(self.states, pairwise(self.begin[1:].tolist()), strict=True)
            for edge in range(low, high)
        ]


def joined(name: str) -> Callable[[Any, Any], Any]:
    """How the costs of two parts of a network make that of both."""
    return np.add if COSTS[name].combine == "sum" else np.maximum


def _stage_costs(places: Sequence[tuple[Stage, State]]) -> Ints:
    """Of the stage at every place (row), every cost in the order of COSTS (column)."""
    stages = [stage.runs(*state) for stage, state in places]
    numbers = {layer: number for number, layer in enumerate({layer for runs in stages for layer, _ in runs})}
    known, none = layer_costs(numbers), (len(numbers), 0)
    costs = np.array([*(known[layer] for layer in numbers), (0,) * len(NAMES)], dtype=np.int64)
    # Two runs at most: a stage that has fewer is filled up with no layer, which costs nothing.
    runs = [[*((numbers[layer], n) for layer, n in runs), none, none][:2] for runs in stages]
    number, times = np.moveaxis(np.array(runs), 2, 0)
    total, most = (times[..., None] * costs[number]).sum(axis=1), costs[number].max(axis=1)
    found: Ints = np.where([joined(name) is np.add for name in NAMES], total, most)
    return found


def _together(rows: Sequence[Sequence[int]]) -> dict[str, int]:
    """All costs of several parts (rows, at least one)."""
    return {name: combine(name, column) for name, column in zip(NAMES, zip(*rows, strict=True), strict=True)}
