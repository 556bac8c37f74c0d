"""One question to a table: accuracy against one cost, perhaps within a budget; and how good an answer is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from nas.bench.table import Array, Table
from nas.inputs import InputError, choices, refuse
from nas.pareto import hypervolume, hypervolumes

MAXIMISE = (True, False)


@dataclass(frozen=True)
class Task:
    """A candidate is observed with the accuracy of the first seed, and counts with the mean of all."""

    table: Table
    cost: str
    budget: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (self.cost, *self.budget):
            if name not in self.table.costs:
                raise refuse("a cost", name, choices(self.table.costs))
        if not self.fits.any():
            limits = ", ".join(f"{name} {limit:,.0f}" for name, limit in self.budget.items())
            raise refuse("the budget", limits, f"one that a row of {self.table.name} is within")
        if not self.whole:
            accuracy, cost = self.reference
            within = " within the budget" if self.budget else ""
            rule = f"better than the reference, accuracy {accuracy:.4f} and {self.cost} {cost:,.0f}"
            raise InputError(f"{self.table.name}: has no row{within} that is {rule}")

    @cached_property
    def fits(self) -> NDArray[np.bool_]:
        """(n,) whether within the budget."""
        mask = np.ones(len(self.table), dtype=np.bool_)
        for name, limit in self.budget.items():
            mask &= self.table.costs[name] <= limit
        return mask

    @cached_property
    def reference(self) -> tuple[float, float]:
        """Worst accuracy and cost that count: the table's own; else the median accuracy within the budget, and its
        greatest cost."""
        own = self.table.reference
        accuracy = own.get("accuracy", float(np.median(self.true[self.fits])))
        cost = own.get(self.cost, float(self.table.costs[self.cost].max()))
        return accuracy, min(cost, self.budget.get(self.cost, cost))

    @cached_property
    def true(self) -> Array:
        """(n,) mean accuracy over the seeds."""
        value: Array = self.table.accuracy.mean(axis=1)
        return value

    @cached_property
    def points(self) -> Array:
        """(n, 2) of mean accuracy and cost; a row over the budget is worth nothing."""
        return np.column_stack([np.where(self.fits, self.true, 0.0), self.table.costs[self.cost]])

    @cached_property
    def whole(self) -> float:
        """Hypervolume of all rows."""
        return hypervolume(self.points, self.reference, MAXIMISE)

    def volumes(self, places: Sequence[int]) -> Array:
        """(n,) hypervolume after each of the rows in this order, as a share of that of all rows."""
        value: Array = hypervolumes(self.points[list(places)], self.reference, MAXIMISE) / self.whole
        return value

    def regrets(self, places: Sequence[int]) -> Array:
        """(n,) how much the best row within the budget is better than the best of those so far, in accuracy."""
        best = np.maximum.accumulate(self.points[np.array(places, dtype=np.intp), 0])
        value: Array = self.points[:, 0].max() - best
        return value
