"""Which candidates are trained: distinct, within the budget, spread evenly over a cost."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import islice

import numpy as np

from nas.architecture import Architecture
from nas.census import Feasible
from nas.inputs import refuse

POOL = 64
"""Draws for each candidate that is wanted."""


def spread(feasible: Feasible, cost: str, count: int, seed: int) -> list[Architecture]:
    """Members at even distances of `cost`, from the least to the most among POOL * count uniform draws; by that cost.

    Raises InputError if there are fewer distinct networks.
    """
    tries = feasible.tries(random.Random(f"{seed}/trust"))
    drawn = {member.id: member for member in islice(filter(None, tries), POOL * count)}
    if len(drawn) < count:
        raise refuse("--candidates", count, f"at most {len(drawn)}, the distinct networks found within the budget")
    pool = list(drawn.values())
    known = [feasible.costs_of(member)[cost] for member in pool]
    return [pool[index] for index in sorted(evenly(known, count), key=lambda index: known[index])]


def evenly(values: Sequence[float], count: int) -> list[int]:
    """The positions of the values nearest to `count` evenly spaced ones from the least to the most, each taken once."""
    left, chosen = dict(enumerate(values)), []
    for target in np.linspace(min(values), max(values), count):
        nearest = min(left, key=lambda index: abs(left[index] - target))
        del left[nearest]
        chosen.append(nearest)
    return chosen
