"""What can be said of a space before anything is trained."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

import numpy as np

from nas.architecture import Architecture
from nas.census import Counted, Feasible, Graph, TooManyLayers, count, networks, used_ranges
from nas.costs import COSTS, costs
from nas.inputs import InputError
from nas.space import Space

EXAMPLES = 3
MOST_MEMBERS = 1000
"""All members are listed where there are at most so many."""
QUANTILES = {"min": 0, "5%": 0.05, "median": 0.5, "95%": 0.95, "max": 1}


def describe_space(space: Space, budget: Mapping[str, float], samples: int, seed: int) -> dict[str, Any]:
    """Size, distinct networks, costs, and what is within `budget`; all values are plain (JSON).

    `costs` has quantiles (the least cost that so large a share of the members does not exceed) and `exact` says of
    which they are exact; the others are of `samples` members drawn uniformly. `fits` is None without a budget, see
    `_fits`. `members` has all members where they are at most MOST_MEMBERS, else None.
    """
    rng = random.Random(seed)
    try:
        graph = Graph(space)
    except TooManyLayers:
        graph = None
    counted = count(graph) if graph else {}
    drawn = [] if len(counted) == len(COSTS) else [_costs(space.sample(rng), graph) for _ in range(samples)]
    fits, nothing, fitting = _fits(space, budget, graph, counted, samples, rng)
    return {
        "name": space.name,
        "size": space.size,
        "networks": networks(space),
        "choices": {name: list(values) for name, values in space.choices.items()},
        "samples": samples,
        "seed": seed,
        "costs": {name: _quantiles(name, counted, drawn) for name in COSTS},
        "exact": list(counted),
        "extremes": _extremes(graph) if graph else None,
        "budget": dict(budget),
        "fits": fits,
        "nothing": nothing,
        "values": _values(graph, budget) if graph and budget else None,
        "members": _members(space, graph) if space.size <= MOST_MEMBERS else None,
        "examples": [{"id": x.id, **_costs(x, graph), "architecture": x.to_dict()} for x in fitting],
    }


def _costs(member: Architecture, graph: Graph | None) -> dict[str, int]:
    return graph.costs_of(member) if graph else costs(member)


def _quantiles(name: str, counted: Mapping[str, Counted], drawn: Sequence[Mapping[str, int]]) -> dict[str, int]:
    shares = list(QUANTILES.values())
    if name in counted:
        found = counted[name].quantiles(shares)
    else:
        found = np.quantile([row[name] for row in drawn], shares, method="inverted_cdf").tolist()
    return dict(zip(QUANTILES, map(int, found), strict=True))


def _extremes(graph: Graph) -> list[dict[str, Any]]:
    """The cheapest and the dearest member in every cost, the first of equals."""
    found = []
    for name in COSTS:
        for which, best in (("cheapest", np.min), ("dearest", np.max)):
            path = graph.extreme(name, best)
            member = graph.member(path)
            found.append({"cost": name, "which": which, "id": member.id, **graph.costs(path)})
            found[-1]["architecture"] = member.to_dict()
    return found


def _fits(
    space: Space,
    budget: Mapping[str, float],
    graph: Graph | None,
    counted: Mapping[str, Counted],
    samples: int,
    rng: random.Random,
) -> tuple[dict[str, Any] | None, str | None, list[Architecture]]:
    """The share of the members within the budget, why there are none (if so), and a few of them.

    The share is `exact`, or has a 95 % interval (Wilson) from `samples` uniform draws of the members within the limit
    on `main` (of all members where it is None), whose own share is exact. `alone` has the exact share within each
    limit, as far as it is known.
    """
    if not budget:
        return None, None, [space.sample(rng) for _ in range(min(EXAMPLES, space.size))]
    alone = {name: counted[name].within(limit) / space.size for name, limit in budget.items() if name in counted}
    try:
        feasible = Feasible(space, budget, graph)
    except InputError as error:
        return {"share": 0.0, "low": 0.0, "high": 0.0, "exact": True, "main": None, "alone": alone}, str(error), []
    tries = [feasible.number(rng.randrange(feasible.total)) for _ in range(samples)]
    inside = [member for member in tries if member is not None]
    share, (low, high), exact = len(inside) / samples, wilson(len(inside) / samples, samples), False
    whole = feasible.total / space.size
    if len(budget) == 1 and alone:
        whole, share, low, high, exact = next(iter(alone.values())), 1.0, 1.0, 1.0, True
    elif feasible.total <= samples:
        share = low = high = sum(map(bool, map(feasible.number, range(feasible.total)))) / feasible.total
        exact = True
    fits = {"share": whole * share, "low": whole * low, "high": whole * high, "exact": exact}
    return {**fits, "main": feasible.main, "alone": alone}, None, list(dict.fromkeys(inside))[:EXAMPLES]


def _values(graph: Graph, budget: Mapping[str, float]) -> dict[str, Any] | None:
    """Values of choices that no member within some limit uses (`unused`), and whose members are all within every limit
    (`free`), as {choice: [value]}; None where there are too many combinations to say."""
    unused: dict[str, list[Any]] = {}
    worst: dict[tuple[str, Any], bool] = {}
    ranges = used_ranges(graph, budget)
    if ranges is None:
        return None
    for name, limit in budget.items():
        for (choice, value), (low, high) in ranges[name].items():
            if low > limit and value not in unused.setdefault(choice, []):
                unused[choice].append(value)
            worst[choice, value] = worst.get((choice, value), True) and -inf < high <= limit
    free: dict[str, list[Any]] = {}
    for (choice, value), within in worst.items():
        if within:
            free.setdefault(choice, []).append(value)
    return {"unused": {name: values for name, values in unused.items() if values}, "free": free}


def _members(space: Space, graph: Graph | None) -> list[dict[str, Any]]:
    return [{"id": x.id, **_costs(x, graph), "params_of_choices": space.encode(x)} for x in space.enumerate()]


def wilson(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """The interval of a share of n draws (Wilson 1927, score interval); z of 1.96 is 95 %."""
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)
