"""A new member within a budget, drawn uniformly: what a search begins with, and what it falls back on."""

from __future__ import annotations

import random
from collections.abc import Collection

from nas.architecture import Architecture
from nas.census import DRAWS, Feasible


class Exhausted(Exception):  # noqa: N818 - an outcome of a search, not a fault
    """There is (as far as can be known) no new architecture within the budget."""


def draw(feasible: Feasible, rng: random.Random, seen: Collection[str] = frozenset()) -> Architecture:
    """A member within the budget whose id is not `seen`, uniformly.

    Raises InputError if nothing within the budget is found, and Exhausted if all that is has been seen: of all that
    the main limit leaves where it leaves at most DRAWS, else of DRAWS draws.
    """
    fitting = 0
    for member in feasible.tries(rng):
        if member is not None:
            if member.id not in seen:
                return member
            fitting += 1
    if not fitting:
        raise feasible.nothing()
    space, total = feasible.space, feasible.total
    which = "members" if total == space.size or not feasible.main else f"members within the limit of {feasible.main}"
    counted = f"the {total:,} {which}" if total <= DRAWS else f"{DRAWS:,} {which} drawn"
    raise Exhausted(f"{counted} of space {space.name} hold no new candidate within the budget: it is exhausted")
