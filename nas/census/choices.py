"""What the members cost that use a value of a choice: so, which values a budget leaves unused, which it never hurts.

Params name a member, and each agrees with one combination of the shared choices: for each the least and most cost of a
path through every stage is known from what stands in front of it and behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Value
from nas.census.graph import NAMES, Graph, Ints, State, joined

MOST_STAGES = 1_000_000
"""Stages that are looked at, those of each combination of the shared choices; beyond, nothing is said of choices."""
Item = tuple[str, Value]
"""A choice and one of its values."""
Range = tuple[float, float]
"""Least and most; (inf, -inf) of nothing."""
Ranges = NDArray[np.float64]
"""Least (row 0) and most (row 1) of many."""


class _Row(NamedTuple):
    """All stages that can stand in a row, wherever they can stand, under one combination of the shared choices."""

    before: Ints
    """The state in front, by number."""
    after: Ints
    costs: Ints
    """Row by row as `before`, every cost in the order of COSTS (column)."""
    stages: Ints
    uses: Ints
    """(stage, item) by number: the items that lead to a stage."""


def used_ranges(graph: Graph, names: Iterable[str]) -> dict[str, dict[Item, Range]] | None:
    """For each cost the least and most of the members that use each value of each choice; (inf, -inf) where none does.

    None if there are more than MOST_STAGES stages to look at.
    """
    space, members = graph.space, graph.space.members
    items = [(choice, value) for choice, values in space.choices.items() for value in values]
    numbers = {item: number for number, item in enumerate(items)}
    found = {name: _nothing(len(items)) for name in names}
    known: dict[tuple[object, ...], dict[str, Ranges]] = {}
    left = MOST_STAGES
    for answers, shared in members.shared:
        keys = members.keys(shared)
        place = (members.resolution(shared), *keys)
        if place not in known:
            rows = list(_rows(graph, place[0], keys, numbers))  # type: ignore[arg-type]
            left -= sum(len(row.before) for row in rows)
            if left < 0:
                return None
            known[place] = {name: _through(rows, name, found[name]) for name in found}
        for name, whole in known[place].items():
            _widen(found[name], np.array([numbers[item] for item in answers.items()], dtype=np.int64), whole)
    return {name: dict(zip(items, zip(*ranges.tolist(), strict=True), strict=True)) for name, ranges in found.items()}


def _rows(
    graph: Graph, resolution: int, keys: tuple[tuple[Value, ...], ...], numbers: dict[Item, int]
) -> Iterator[_Row]:
    members, states = graph.space.members, {(graph.space.in_channels, resolution): 0}
    for index, key in enumerate(keys):
        options = members.options(index, key)
        places = {stage: place for place, stage in enumerate(options)}
        after: dict[State, int] = {}
        edges = [
            (states[state], after.setdefault(group.after, len(after)), places[stage], *graph.costs_at[stage, state])
            for state in states
            for group in members.groups(index, state, (key,))
            for stage in group.stages
            if (stage, state) in graph.costs_at  # nothing can follow the others
        ]
        uses = [
            (places[stage], numbers[item])
            for stage, answers in options.items()
            for item in {item for params in answers for item in params.items()}
        ]
        columns = np.array(edges, dtype=np.int64).reshape(-1, 3 + len(NAMES)).T
        states = after
        yield _Row(columns[0], columns[1], columns[3:].T, columns[2], np.array(uses, dtype=np.int64).reshape(-1, 2))


def _through(rows: list[_Row], name: str, found: Ranges) -> Ranges:
    """The range of all members of these rows (one column); widens those of the items in `found`."""
    join, column = joined(name), NAMES.index(name)
    own = [np.tile(row.costs[:, column].astype(float), (2, 1)) for row in rows]
    ends = [_nothing(count) for count in (1, *(_count(row.after) for row in rows))]
    ends[-1][:] = 0
    for row, costs, here, there in reversed(list(zip(rows, own, ends[:-1], ends[1:], strict=True))):
        _widen(here, row.before, _joined(join, costs, there[:, row.after]))
    before = np.zeros((2, 1))
    for row, costs, there in zip(rows, own, ends[1:], strict=True):
        part = _joined(join, before[:, row.before], costs)
        stages = _nothing(_count(np.r_[row.stages, row.uses[:, 0]]))
        _widen(stages, row.stages, _joined(join, part, there[:, row.after]))
        _widen(found, row.uses[:, 1], stages[:, row.uses[:, 0]])
        before = _nothing(there.shape[1])
        _widen(before, row.after, part)
    return ends[0]


def _count(numbers: Ints) -> int:
    return int(numbers.max(initial=0)) + 1


def _nothing(count: int) -> Ranges:
    return np.tile([[inf], [-inf]], count)


def _widen(ranges: Ranges, places: Ints, others: Ranges) -> None:
    """Each of `others` (or the one) at its place."""
    np.minimum.at(ranges[0], places, others[0])
    np.maximum.at(ranges[1], places, others[1])


def _joined(join: Any, one: Ranges, other: Ranges) -> Ranges:
    """The ranges of two parts together; nothing if one is."""
    found: Ranges = join(one, other)
    found[1, np.isinf(found[0])] = -inf
    return found
