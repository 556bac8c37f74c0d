"""What the members cost that use a value of a choice: so, which values a budget leaves unused, which it never hurts.

Params name a member, and each agrees with one combination of the shared choices: for each the least and most cost of a
path through every stage is known from what stands in front of it and behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from math import inf
from typing import NamedTuple

from nas.architecture import Stage, Value
from nas.census.graph import NAMES, Graph, State
from nas.costs import COSTS
from nas.space import Params

MOST_STAGES = 1_000_000
"""Stages that are looked at, those of each combination of the shared choices; beyond, nothing is said of choices."""
Range = tuple[float, float]
"""Least and most."""
_NONE: Range = (inf, -inf)


class _Edge(NamedTuple):
    stage: Stage
    state: State
    after: State
    cost: int


def used_ranges(graph: Graph, name: str) -> dict[tuple[str, Value], Range] | None:
    """The least and most cost of the members that use each value of each choice; (inf, -inf) where none does.

    None if there are more than MOST_STAGES stages to look at.
    """
    space, members = graph.space, graph.space.members
    found: dict[tuple[str, Value], Range] = {
        (choice, value): _NONE for choice, values in space.choices.items() for value in values
    }
    known: dict[tuple[object, ...], Range] = {}
    left = MOST_STAGES
    for answers, shared in members.shared:
        keys = members.keys(shared)
        place = (members.resolution(shared), *keys)
        if place not in known:
            rows = list(_rows(graph, name, place[0], keys))  # type: ignore[arg-type]
            left -= sum(map(len, rows))
            if left < 0:
                return None
            known[place] = _through(graph, name, rows, keys, found)
        for item in answers.items():
            found[item] = _union(found[item], known[place])
    return found


def _rows(graph: Graph, name: str, resolution: int, keys: tuple[tuple[Value, ...], ...]) -> Iterator[list[_Edge]]:
    """Row by row, all stages that can stand there under one combination of the shared choices."""
    column, states = NAMES.index(name), {(graph.space.in_channels, resolution): None}
    for index, key in enumerate(keys):
        edges = [
            _Edge(stage, state, group.after, graph.costs_at[stage, state][column])
            for state in states
            for group in graph.space.members.groups(index, state, (key,))
            for stage in group.stages
            if (stage, state) in graph.costs_at  # nothing can follow the others
        ]
        states = dict.fromkeys(edge.after for edge in edges)
        yield edges


def _through(
    graph: Graph,
    name: str,
    rows: list[list[_Edge]],
    keys: tuple[tuple[Value, ...], ...],
    found: dict[tuple[str, Value], Range],
) -> Range:
    """The range of all members of these rows; widens those of the values in `found` that lead to a stage."""
    join = _sum if COSTS[name].combine == "sum" else _max
    behind: list[dict[State, Range]] = [{edge.after: (0, 0) for edge in rows[-1]}]
    for row in reversed(rows):
        here: dict[State, Range] = {}
        for edge in row:
            part = join((edge.cost, edge.cost), behind[-1].get(edge.after, _NONE))
            here[edge.state] = _union(here.get(edge.state, _NONE), part)
        behind.append(here)
    behind.reverse()
    before: dict[State, Range] = dict.fromkeys(behind[0], (0, 0))
    for index, row in enumerate(rows):
        stages: dict[Stage, Range] = {}
        reached: dict[State, Range] = {}
        for edge in row:
            part = join(before.get(edge.state, _NONE), (edge.cost, edge.cost))
            reached[edge.after] = _union(reached.get(edge.after, _NONE), part)
            whole = join(part, behind[index + 1].get(edge.after, _NONE))
            stages[edge.stage] = _union(stages.get(edge.stage, _NONE), whole)
        options = graph.space.members.options(index, keys[index])
        for stage, part in stages.items():
            for item in _items(options[stage]):
                found[item] = _union(found[item], part)
        before = reached
    return reduce(_union, behind[0].values(), _NONE)


def _items(answers: list[Params]) -> set[tuple[str, Value]]:
    return {item for params in answers for item in params.items()}


def _union(one: Range, other: Range) -> Range:
    return one[0] if one[0] < other[0] else other[0], one[1] if one[1] > other[1] else other[1]


def _sum(one: Range, other: Range) -> Range:
    """The range of two parts together; of nothing if one is."""
    return one[0] + other[0], one[1] + other[1]


def _max(one: Range, other: Range) -> Range:
    return _NONE if _NONE in (one, other) else (max(one[0], other[0]), max(one[1], other[1]))
