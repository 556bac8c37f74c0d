"""A member of a space within a budget, drawn uniformly: what a search falls back on, and begins by proving."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping

from nas.architecture import Architecture
from nas.costs import costs
from nas.inputs import InputError
from nas.space import Space

DRAWS = 10_000
"""Uniform draws from the space before it is said that nothing (or nothing new) fits the budget."""


class Exhausted(Exception):  # noqa: N818 - an outcome of a search, not a fault
    """There is (as far as can be known) no new architecture within the budget."""


def draw(
    space: Space, budget: Mapping[str, float], rng: random.Random, seen: Collection[str] = frozenset()
) -> Architecture:
    """A member within the budget whose id is not `seen`, uniformly.

    Raises InputError, with the nearest miss, if nothing fits the budget, and Exhausted if all that fits has been
    seen: of all members where there are at most DRAWS, else of DRAWS draws.
    """
    nearest: tuple[float, dict[str, int]] = (float("inf"), {})
    tried = fitting = 0
    for architecture in _members(space, rng):
        known = costs(architecture, budget)
        excess = max((known[name] / limit for name, limit in budget.items()), default=0.0)
        if excess <= 1 and architecture.id not in seen:
            return architecture
        tried, fitting = tried + 1, fitting + (excess <= 1)
        nearest = min(nearest, (excess, known), key=lambda miss: miss[0])
    counted = f"the {space.size:,} members" if space.size <= DRAWS else f"{tried:,} members drawn"
    if fitting:
        raise Exhausted(f"{counted} of space {space.name} hold no new candidate within the budget: it is exhausted")
    limits = ", ".join(f"{name} {limit:,.0f}" for name, limit in budget.items())
    miss = ", ".join(f"{name} {value:,}" for name, value in nearest[1].items())
    raise InputError(f"budget ({limits}): nothing fits: 0 of {counted} of space {space.name}; the nearest has {miss}")


def _members(space: Space, rng: random.Random) -> Iterator[Architecture]:
    """All members in random order; of a space larger than DRAWS so many draws."""
    if space.size > DRAWS:
        return (space.sample(rng) for _ in range(DRAWS))
    members = list(space.enumerate())
    rng.shuffle(members)
    return iter(members)
