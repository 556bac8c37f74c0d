"""A front in the characters of a terminal, to see at a glance where a search stands."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nas.pareto import front
from nas.report.plot import short_number

TRAINED, MEMBER = "·", "◆"


def sketch(cost: Sequence[float], accuracy: Sequence[float], name: str, width: int, height: int = 8) -> list[str]:
    """Lines of at most `width` characters: accuracy up, the cost `name` across on a log scale; empty for fewer than two
    different costs and accuracies, or where there is no room."""
    room = width - 9
    if len(set(cost)) < 2 or len(set(accuracy)) < 2 or room < 20:
        return []
    across = _cells([math.log(value) for value in cost], room)
    up = _cells(accuracy, height)
    members = front(np.column_stack([accuracy, cost]), [True, False])
    grid = [[" "] * room for _ in range(height)]
    for mark, chosen in ((TRAINED, ~members), (MEMBER, members)):
        for place in np.flatnonzero(chosen):
            grid[height - 1 - up[place]][across[place]] = mark
    labels = [f"{max(accuracy):.4f}", *[""] * (height - 2), f"{min(accuracy):.4f}"]
    lines = [f"{label:>7} │{''.join(row).rstrip()}" for label, row in zip(labels, grid, strict=True)]
    low, high = short_number(min(cost)), f"{short_number(max(cost))} {name}"
    return [*lines, f"{'':7} └{'─' * room}", f"{'':9}{low}{high:>{room - len(low)}}"]


def _cells(values: Sequence[float], count: int) -> list[int]:
    low, high = min(values), max(values)
    return [min(count - 1, int((value - low) / (high - low) * count)) for value in values]
