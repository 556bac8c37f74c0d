"""The members of a space within a budget: how many, the nearest miss if there are none, and uniform draws of them.

Those within one limit, the main one, are numbered, so one is drawn by its number; the other limits reject.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from nas.architecture import Architecture
from nas.census.graph import NAMES, Graph, joined
from nas.census.ledger import TooManyLayers
from nas.census.maxima import MaxTable
from nas.census.sums import SumTable
from nas.costs import COSTS, costs
from nas.inputs import InputError
from nas.latency import LATENCY, Latency
from nas.pareto import front
from nas.space import Space

DRAWS = 10_000
"""Uniform draws before it is said that none (or no new one) was found. No more members than these are looked at all."""
_TRIAL_DRAWS = 1_000
"""Draws from the whole space that say which of several limits is the main one."""
_ENOUGH = 20
"""Of them, within a limit, to compare it with another by them."""
_FEW = 300
"""Draws in vain before it is asked whether there can be any."""
MOST_LABELS = 20_000
"""Points on the front of the costs behind one node; beyond, whether several limits can be met together is not known."""


class Feasible:
    """The members of `space` within `budget`. What is drawn follows from the generator alone.

    A `latency` is a cost more; its limit is not counted, but rejects, and so do layers that the runtime cannot run.
    Raises InputError, with the nearest miss, if nothing can be within the budget.
    """

    def __init__(
        self,
        space: Space,
        budget: Mapping[str, float],
        graph: Graph | None = None,
        latency: Latency | None = None,
    ) -> None:
        self.space, self.budget, self.graph, self.latency = space, dict(budget), graph, latency
        self._counted = {name: limit for name, limit in budget.items() if name in COSTS}
        if budget and graph is None:
            try:
                self.graph = Graph(space)
            except TooManyLayers:
                self.graph = None
        self.table: MaxTable | SumTable | None = None
        self.main: str | None = None
        self._inhabited = False
        if self.graph and self._counted:
            for name, limit in self._counted.items():
                _check_one(self.graph, name, limit)
            self.main, self.table = self._most_restrictive(self.graph)
            self._check_all()
        elif budget or latency:
            self.draw(random.Random("whether there is any"))
        self._inhabited = True

    @property
    def total(self) -> int:
        """The members that are drawn from: within the main limit, or (where `exact` is not) hardly beyond it."""
        return self.table.total if self.table else self.space.size

    @property
    def exact(self) -> bool:
        """Whether all `total` members are within the main limit."""
        return self.table is not None and self.table.exact

    def number(self, rank: int) -> Architecture | None:
        """The member number `rank` of `total`; None if it is not within the budget."""
        if self.table is None or self.graph is None:
            member = self.space.members.member(rank)
            return member if self.fits(costs(member, self._counted)) and self._fast(member) else None
        path = self.table.unrank(rank)
        if not self.fits(self.graph.costs(path)):
            return None
        member = self.graph.member(path)
        return member if self._fast(member) else None

    def costs_of(self, architecture: Architecture, names: Iterable[str] = COSTS) -> dict[str, float]:
        """`nas.costs.costs` of a member, looked up where the space was counted, and its latency where one is known.

        Raises InputError, naming the operator, if the runtime cannot run it.
        """
        wanted = [name for name in names if name in COSTS]
        known: dict[str, float] = dict(self.graph.costs_of(architecture) if self.graph else costs(architecture, wanted))
        return known if self.latency is None else {**known, LATENCY: self.latency.predict(architecture)}

    def fits(self, known: Mapping[str, float]) -> bool:
        """Whether the costs of COSTS are within their limits."""
        return all(known[name] <= limit for name, limit in self._counted.items())

    def problem(self, architecture: Architecture) -> str | None:
        """Why a member cannot run where it shall, or None."""
        return None if self.latency is None else self.latency.problem(architecture)

    def _fast(self, member: Architecture) -> bool:
        if self.latency is None:
            return True
        try:
            return self.latency.predict(member) <= self.budget.get(LATENCY, math.inf)
        except InputError:  # it cannot run there
            return False

    def tries(self, rng: random.Random) -> Iterator[Architecture | None]:
        """All members of the table in random order where they are at most DRAWS, else DRAWS draws; see `number`.

        As there are members within the budget, it goes on beyond DRAWS to the first.
        """
        if self.total <= DRAWS:
            yield from map(self.number, rng.sample(range(self.total), self.total))
            return
        drawn, found = 0, False
        while drawn < DRAWS or (self._inhabited and not found):
            member = self.number(rng.randrange(self.total))
            drawn, found = drawn + 1, found or member is not None
            yield member

    def draw(self, rng: random.Random) -> Architecture:
        """A member within the budget, uniformly. Raises InputError if none of `tries` is."""
        for member in self.tries(rng):
            if member is not None:
                return member
        raise self.nothing()

    def _most_restrictive(self, graph: Graph) -> tuple[str, MaxTable | SumTable]:
        """The limit that leaves the fewest members, and those: by draws where enough fit, else counted."""
        names = list(self._counted)
        if len(names) > 1:
            rng = random.Random("which limit is the main one")
            drawn = [graph.costs_of(self.space.sample(rng)) for _ in range(_TRIAL_DRAWS)]
            fitting = {name: sum(known[name] <= self._counted[name] for known in drawn) for name in names}
            names.sort(key=lambda name: fitting[name])
            names = names[:1] if fitting[names[0]] >= _ENOUGH else names
        tables = {
            name: (MaxTable if COSTS[name].combine == "max" else SumTable)(graph, name, self.budget[name])
            for name in names
        }
        return min(tables.items(), key=lambda item: item[1].total)

    def _check_all(self) -> None:
        """Each limit alone leaves something; raises InputError if it can be told that all together leave nothing."""
        rng = random.Random("whether there is any")
        if self.total <= DRAWS:
            if not any(map(self.number, range(self.total))):
                raise self.nothing()
        elif len(self.budget) > 1 and not any(self.number(rng.randrange(self.total)) for _ in range(_FEW)):
            assert self.graph
            if can_fit(self.graph, self._counted) is False:
                raise self.nothing(proven=True)
            self.draw(rng)

    def nothing(self, proven: bool = False) -> InputError:
        """What is said of a budget within which no member was found, or (`proven`) can be."""
        limits = " and ".join(f"{name} {shown(name, limit)}" for name, limit in self.budget.items())
        tried = f"{min(self.total, DRAWS):,} members"
        how = "proven" if proven else f"all {tried} tried" if self.total <= DRAWS else f"{tried} tried in vain"
        leave = "leaves" if len(self.budget) == 1 else "together leave"
        place = f"budget: {limits} {leave} nothing of space {self.space.name}"
        if self.graph is None or self.main is None:
            return InputError(f"{place} ({how})")
        path = self.graph.extreme(self.main, np.min)
        known = self.graph.costs(path)
        has = ", ".join(f"{name} {known[name]:,}" for name in self._counted)
        cheapest = f"its cheapest in {self.main} has {has} (id {self.graph.member(path).id})"
        return InputError(f"{place}, though each alone leaves some ({how}): {cheapest}")


def shown(name: str, value: float) -> str:
    """A cost or a limit for a reader: costs of COSTS are whole numbers."""
    return f"{value:,.0f}" if name in COSTS else f"{value:.4g}"


def _check_one(graph: Graph, name: str, limit: float) -> None:
    least = int(graph.behind(name, np.min)[0])
    if least > limit:
        cheapest = graph.member(graph.extreme(name, np.min)).id
        raise InputError(
            f"budget: {name} {limit:,.0f} leaves nothing of space {graph.space.name}: "
            f"its cheapest architecture has {least:,} (id {cheapest})"
        )


def can_fit(graph: Graph, budget: Mapping[str, float]) -> bool | None:
    """Whether some member is within all limits: exact, by the front of the costs behind every node.

    Points that exceed a limit together with the least cost in front of their node are left out. None (not known)
    if more than MOST_LABELS points are left at a node.
    """
    names = list(budget)
    values = graph.values[:, [NAMES.index(name) for name in names]]
    limits = np.array([budget[name] for name in names])
    before = [_least_before(graph, name) for name in names]
    labels = {graph.nodes: np.zeros((1, len(names)), dtype=np.int64)}
    for node in reversed(range(graph.nodes)):
        parts = [
            np.column_stack(
                [joined(name)(values[edge, i], labels[int(graph.after[edge])][:, i]) for i, name in enumerate(names)]
            )
            for edge in range(*graph.edges(node).indices(len(values)))
        ]
        points = np.unique(np.concatenate(parts), axis=0)
        whole = np.column_stack([joined(name)(points[:, i], before[i][node]) for i, name in enumerate(names)])
        points = points[(whole <= limits).all(axis=1)]
        points = points[front(points, [False] * len(names))] if len(points) else points
        if len(points) > MOST_LABELS:
            return None
        labels[node] = points
    return bool(len(labels[0]))


def _least_before(graph: Graph, name: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The least cost of all paths from the root to every node."""
    add, column = joined(name), graph.column(name)
    found = np.full(graph.nodes + 1, np.iinfo(np.int64).max)
    found[0] = 0
    for node in range(graph.nodes):
        part = graph.edges(node)
        np.minimum.at(found, graph.after[part], add(found[node], column[part]))
    return found
