"""What can be said of a space before anything is trained."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pandas as pd

from nas.costs import COSTS, costs
from nas.space import Space

EXAMPLES = 3
QUANTILES = {"min": 0, "5%": 0.05, "median": 0.5, "95%": 0.95, "max": 1}


def describe_space(space: Space, budget: Mapping[str, float], samples: int, seed: int) -> dict[str, Any]:
    """Exact size and choices; costs and the share within `budget` from uniform samples (all members where fewer).

    `fits` has the share and its 95 % interval (Wilson; the interval is the share itself where all were counted);
    None without a budget. All values are plain (JSON).
    """
    rng = random.Random(seed)
    counted = space.size <= samples
    members = list(space.enumerate()) if counted else [space.sample(rng) for _ in range(samples)]
    table = pd.DataFrame([costs(member) for member in members])
    fitting = pd.Series(True, index=table.index)
    for name, limit in budget.items():
        fitting &= table[name] <= limit
    share = float(fitting.mean())
    low, high = (share, share) if counted else wilson(share, len(members))
    quantiles = table.quantile(list(QUANTILES.values())).set_axis(list(QUANTILES))
    examples = [members[i] for i in fitting[fitting].index[:EXAMPLES]]
    return {
        "name": space.name,
        "size": space.size,
        "choices": {name: list(values) for name, values in space.choices.items()},
        "counted": counted,
        "samples": len(members),
        "seed": seed,
        "costs": {name: {key: float(value) for key, value in quantiles[name].items()} for name in COSTS},
        "budget": dict(budget),
        "fits": {"share": share, "low": low, "high": high} if budget else None,
        "examples": [{"id": x.id, **costs(x), "architecture": x.to_dict()} for x in examples],
    }


def wilson(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """The interval of a share of n draws (Wilson 1927, score interval); z of 1.96 is 95 %."""
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)
