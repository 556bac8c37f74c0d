"""How many members cost at most so much, for every cost."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import floor
from typing import Protocol

from nas.census.graph import NAMES, Graph
from nas.census.halves import Halves, TooMuchWork
from nas.census.maxima import Maxima
from nas.costs import COSTS
from nas.space import Space

MOST_NETWORKS = 20_000
"""Members that are formed to count the distinct networks among them."""


class Counted(Protocol):
    """The exact distribution of a cost over all members."""

    def within(self, limit: float) -> int:
        """How many members cost at most `limit`."""

    def quantiles(self, shares: Sequence[float]) -> list[int]:
        """For each share the least cost that so many of the members do not exceed."""


class _Multiple:
    """The distribution of a cost that is `factor` times another in every stage, as FLOPs are of MACs."""

    def __init__(self, other: Counted, factor: Fraction) -> None:
        self._other, self._factor = other, factor

    def within(self, limit: float) -> int:
        return self._other.within(floor(floor(limit) / self._factor))

    def quantiles(self, shares: Sequence[float]) -> list[int]:
        return [int(self._factor * value) for value in self._other.quantiles(shares)]


def count(graph: Graph) -> dict[str, Counted]:
    """The distribution of every cost; one that would take too long is left out."""
    found: dict[str, Counted] = {}
    for name in NAMES:
        try:
            found[name] = _multiple(graph, name, found) or (
                Halves(graph, name) if COSTS[name].combine == "sum" else Maxima(graph, name)
            )
        except TooMuchWork:
            continue
    return found


def _multiple(graph: Graph, name: str, found: dict[str, Counted]) -> Counted | None:
    column = graph.column(name)
    for other, counted in found.items():
        base = graph.column(other)
        factor = Fraction(int(column.max()), max(1, int(base.max())))
        same = (column * factor.denominator == factor.numerator * base).all()
        if COSTS[other].combine == COSTS[name].combine and factor and same:
            return _Multiple(counted, factor)
    return None


def networks(space: Space) -> int | None:
    """How many distinct networks the members are: layers that change nothing, and how rows are cut, make no difference.

    None (not known) beyond MOST_NETWORKS members.
    """
    return len({member.id for member in space.enumerate()}) if space.size <= MOST_NETWORKS else None
