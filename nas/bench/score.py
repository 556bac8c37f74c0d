"""What came of many plays: hypervolume against evaluations, evaluations to a share of it, regret, time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nas.bench.play import Played
from nas.bench.task import Task

SHARES = (95, 98, 99)
"""Percent of the whole hypervolume."""
MARKS = (10, 25, 50, 100, 200, 400)
"""Evaluations after which the state is shown."""


def summary(task: Task, played: Sequence[Played]) -> dict[str, dict[str, Any]]:
    """By player, plain values. `evaluations_to_99` is the median over the seeds, None if half never come so far;
    `_p90` the 90th percentile, `_reached` how many seeds do. The mean of a mark is over all seeds. All players
    have the same marks: one that has come to an end before stays as it was."""
    players = dict.fromkeys(each.player for each in played)
    most = max(len(each.places) for each in played)
    marks = [mark for mark in MARKS if mark <= most]
    return {player: _summary(task, [each for each in played if each.player == player], marks) for player in players}


def _summary(task: Task, played: Sequence[Played], marks: Sequence[int]) -> dict[str, Any]:
    volumes = [task.volumes(each.places) for each in played]
    facts: dict[str, Any] = {"seeds": len(played)}
    for share in SHARES:
        counts = [_first(curve >= share / 100) for curve in volumes]
        facts[f"evaluations_to_{share}"] = _finite(float(np.median(counts)))
        # With 20 seeds, the 18th: a count that was seen, never one between two.
        facts[f"evaluations_to_{share}_p90"] = _finite(sorted(counts)[math.ceil(0.9 * len(counts)) - 1])
        facts[f"evaluations_to_{share}_reached"] = sum(map(math.isfinite, counts))
    facts["hypervolume_at"] = {str(mark): float(np.mean([_at(curve, mark) for curve in volumes])) for mark in marks}
    if task.budget:
        regrets = [task.regrets(each.places) for each in played]
        facts["regret_at"] = {str(mark): float(np.mean([_at(curve, mark) for curve in regrets])) for mark in marks}
    longest = max(map(len, volumes))
    curves = [np.pad(curve, (0, longest - len(curve)), mode="edge") for curve in volumes]
    facts["hypervolume"] = [round(float(value), 6) for value in np.mean(curves, axis=0)]
    facts["repeated"] = 1 - sum(len(each.places) for each in played) / sum(each.proposals for each in played)
    facts["ms_per_ask"] = float(np.median([np.median(each.ms) for each in played]))
    return facts


def _first(reached: np.typing.NDArray[np.bool_]) -> float:
    return float(np.argmax(reached)) + 1 if reached.any() else math.inf


def _at(curve: np.typing.NDArray[np.float64], mark: int) -> float:
    return float(curve[min(mark, len(curve)) - 1])


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
