"""What can be said of a space before anything is trained."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pandas as pd

from nas.costs import COSTS, costs
from nas.space import Space


def describe_space(space: Space, budget: Mapping[str, float], samples: int, seed: int) -> dict[str, Any]:
    """Exact size and choices; costs and the share within `budget` from uniform samples (all members where fewer).

    `fits` has the share and its 95 % interval (Wilson; the interval is the share itself where all were counted).
    """
    rng = random.Random(seed)
    counted = space.size <= samples
    members = list(space.enumerate()) if counted else [space.sample(rng) for _ in range(samples)]
    table = pd.DataFrame([costs(member) for member in members])
    fitting = pd.Series(True, index=table.index)
    for name, limit in budget.items():
        fitting &= table[name] <= limit
    share = float(fitting.mean())
    low, high = (share, share) if counted else _wilson(share, len(members))
    quantiles = table.quantile([0, 0.05, 0.5, 0.95, 1]).set_axis(["min", "5%", "median", "95%", "max"])
    examples = [members[i] for i in fitting[fitting].index[:3]]
    return {
        "name": space.name,
        "size": space.size,
        "choices": {name: list(values) for name, values in space.choices.items()},
        "counted": counted,
        "samples": len(members),
        "costs": {name: {key: float(value) for key, value in quantiles[name].items()} for name in COSTS},
        "budget": dict(budget),
        "fits": {"share": share, "low": low, "high": high},
        "examples": [{"id": example.id, **costs(example), "table": example.table()} for example in examples],
    }


def _wilson(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)
