"""Answers to choices as points between which a distance means something. Values in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

Array = NDArray[np.float64]
LEVELS = 64
"""Numbers with more values than this are told apart by rank, and by so many groups of neighbouring values."""


@dataclass(frozen=True)
class Choice:
    """One choice: the code of a value is its place among `values`; that of a choice that is not asked is the last.

    `place` is where each value lies between the least (0) and the greatest (1), by rank, if they are all numbers.
    """

    name: str
    values: tuple[Any, ...]
    place: tuple[float, ...] | None

    @classmethod
    def of(cls, name: str, distribution: BaseDistribution) -> Choice:
        """Raises ValueError for a distribution of real numbers."""
        if isinstance(distribution, IntDistribution):
            values: tuple[Any, ...] = tuple(range(distribution.low, distribution.high + 1, distribution.step))
        elif isinstance(distribution, CategoricalDistribution):
            values = tuple(distribution.choices)
        else:
            rule = "a categorical or an integer one"
            raise ValueError(f"the distribution of {name} is {distribution}, but must be {rule}")
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        if not numbers:
            return cls(name, values, None)
        ranks = np.argsort(np.argsort(np.array(values, dtype=float)))
        return cls(name, values, tuple(float(rank) / max(1, len(values) - 1) for rank in ranks))

    @property
    def is_ordered(self) -> bool:
        """Of two values, order says nothing."""
        return self.place is not None and len(self.values) > 2

    def code(self, params: Mapping[str, Any]) -> int:
        """The place of its value among `values`; -1 if it is not asked."""
        return self.values.index(params[self.name]) if self.name in params else -1


class Encoding:
    """Embeds answers so that squared distances within the columns of a choice are its kernel's distances.

    Each choice has one-hot columns (distance 0 or 1: Hamming; "not asked" is a value of its own), and, if its values
    are numbers, one of ranks from 0 to 1 (distance: the square of that between the ranks). `choice` says whose a column
    is, `ordered` whether it is of ranks, `mixed` which choices have both.
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        self.choices = [Choice.of(name, distribution) for name, distribution in distributions.items()]
        tables, choice, ordered = [], [], []
        for number, each in enumerate(self.choices):
            parts = [_levels(len(each.values), LEVELS if each.is_ordered else len(each.values))]
            if each.place is not None and each.is_ordered:
                parts.append(_ranks(each.place))
            table = np.hstack(parts)
            choice += [number] * table.shape[1]
            ordered += [False] * parts[0].shape[1] + [True] * (table.shape[1] - parts[0].shape[1])
            tables.append(table)
        self._tables = tables
        self.choice = np.array(choice, dtype=np.intp)
        self.ordered = np.array(ordered, dtype=np.bool_)
        self.mixed = np.array([each.is_ordered for each in self.choices], dtype=np.bool_)

    def codes(self, params: Mapping[str, Any]) -> tuple[int, ...]:
        """(choices,) of places among the values, -1 where a choice is not asked."""
        return tuple(choice.code(params) for choice in self.choices)

    def embed(self, codes: NDArray[np.intp]) -> Array:
        """(n, columns) of codes (n, choices)."""
        if not self.choices:
            return np.empty((len(codes), 0))
        return np.hstack([table[codes[:, number]] for number, table in enumerate(self._tables)])


def _levels(count: int, most: int) -> Array:
    """(values + 1, min(count, most) + 1): one-hot, neighbouring values together where there are more than `most`."""
    groups = np.append(np.arange(count) * min(count, most) // count, min(count, most))
    table: Array = np.eye(min(count, most) + 1)[groups] / np.sqrt(2.0)
    return table


def _ranks(place: Sequence[float]) -> Array:
    """(values + 1, 1): a choice that is not asked is in the middle."""
    return np.array([*place, float(np.mean(place))])[:, None]
