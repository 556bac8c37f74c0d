"""How well one number ranks candidates as another does. On plain values: nothing here trains or reads a file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 2_000
CONFIDENCE = 0.95
FACTOR = 3
"""Between neighbouring rungs of a recommended ladder, about."""


@dataclass(frozen=True)
class Candidate:
    """What was measured of a candidate. Accuracies are fractions of the validation split, seconds are wall time.

    `accuracies` and `seconds`: of the short training behind epoch 1, 2 ..., the seconds from its start on.
    `scores`: (value, or None where there is none; seconds) of every zero-cost score.
    """

    id: str
    costs: Mapping[str, int]
    accuracies: Sequence[float]
    seconds: Sequence[float]
    long_accuracy: float
    long_seconds: float
    scores: Mapping[str, tuple[float | None, float]]


@dataclass(frozen=True)
class Ranking:
    """How a signal (the accuracy behind `epochs` epochs, or the zero-cost score `name`) ranks candidates.

    Kendall's tau-b with the long training's accuracy, its bootstrap interval `low` to `high`, and `tau_top`, of those
    better than the median alone. None: not defined, as where all are alike or one has no value. `seconds` a candidate.
    """

    name: str
    epochs: int
    tau: float | None
    low: float | None
    high: float | None
    tau_top: float | None
    seconds: float

    def above(self, tau: float) -> bool:
        return self.low is not None and self.low > tau


def tau_b(x: ArrayLike, y: ArrayLike, counts: ArrayLike = 1) -> NDArray[np.float64]:
    """Kendall's tau-b (Kendall 1945) of x and y (n,), where candidate i is there counts[..., i] times.

    The shape is that of counts without its last axis; NaN where all x or all y are tied, or one is NaN.
    """
    s, t = (np.sign(np.subtract.outer(values, values)) for values in (np.asarray(x, float), np.asarray(y, float)))
    times = np.broadcast_to(counts, np.shape(x)) if np.ndim(counts) == 0 else np.asarray(counts)

    def pairs(each: NDArray[np.float64]) -> Any:
        return ((times @ each) * times).sum(axis=-1)

    with np.errstate(invalid="ignore"):
        return np.asarray(pairs(s * t) / np.sqrt(pairs(s * s) * pairs(t * t)))


def interval(x: Sequence[float], y: Sequence[float], seed: int) -> tuple[float, float]:
    """Percentile bootstrap of tau-b over candidates: RESAMPLES draws of n of n; one that ranks nothing counts as 0.

    Equal seeds draw the same candidates, so rows of a table are compared on the same draws.
    """
    n = len(x)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.nan_to_num(tau_b(x, y, counts)), [tail, 1 - tail])
    return float(low), float(high)


def rank(name: str, epochs: int, x: Sequence[float], y: Sequence[float], seconds: float, seed: int) -> Ranking:
    """The ranking of candidates with signal `x` (NaN: none) and long training's accuracy `y`."""
    tau = _defined(tau_b(x, y))
    low, high = (None, None) if tau is None else interval(x, y, seed)
    best = np.asarray(y) > np.median(y)
    return Ranking(name, epochs, tau, low, high, _defined(tau_b(np.asarray(x)[best], np.asarray(y)[best])), seconds)


def _defined(value: ArrayLike) -> float | None:
    number = float(np.asarray(value))
    return number if math.isfinite(number) else None


def rankings(candidates: Sequence[Candidate], seed: int) -> tuple[list[Ranking], list[Ranking]]:
    """(of every epoch of the short training, of every zero-cost score)."""
    truth = [each.long_accuracy for each in candidates]
    rungs = [
        rank(
            f"epoch {epoch}",
            epoch,
            [each.accuracies[epoch - 1] for each in candidates],
            truth,
            fmean(each.seconds[epoch - 1] for each in candidates),
            seed,
        )
        for epoch in range(1, len(candidates[0].accuracies) + 1)
    ]
    scores = []
    for name in candidates[0].scores:
        found = [each.scores[name] for each in candidates]
        values = [math.nan if value is None else value for value, _ in found]
        scores.append(rank(name, 0, values, truth, fmean(seconds for _, seconds in found), seed))
    return rungs, scores


def ladder(first: int, last: int) -> list[int]:
    """Rungs from `first` to `last` epochs, each about FACTOR times the one before."""
    steps = max(1, round(math.log(last / first, FACTOR)))
    return sorted({round(first * (last / first) ** (step / steps)) for step in range(steps + 1)})


def verdict(candidates: Sequence[Candidate], tau: float, seed: int) -> dict[str, Any]:
    """What follows from the candidates, as plain values for JSON.

    `trusted` is the shortest rung whose interval lies above `tau`, `recommended` such rungs from it on, and the last;
    both None where there is no such rung, and `advice` then says what to try.
    """
    rungs, scores = rankings(candidates, seed)
    trusted, last = next((rung.epochs for rung in rungs if rung.above(tau)), None), rungs[-1].epochs
    steps = ladder(trusted or last, last)
    return {
        "rungs": [asdict(rung) for rung in rungs],
        "scores": [asdict(score) for score in scores],
        "required_tau": tau,
        "trusted": trusted,
        "recommended": None if trusted is None else [x for x in steps if x == last or rungs[x - 1].above(tau)],
        "trusted_scores": [score.name for score in scores if score.above(tau)],
        "advice": None if trusted else _advice(rungs, tau),
    }


def _advice(rungs: Sequence[Ranking], tau: float) -> str:
    best = max(rungs, key=lambda rung: -math.inf if rung.tau is None else rung.tau)
    if best.tau is None:
        return "the short training tells no two candidates apart; try more epochs, a larger share, or another recipe"
    if best.tau > tau:
        return f"{best.name} may be good enough: more --candidates, in a new folder, narrow its interval"
    return "try more epochs (proxy.rungs), more images (share) or several seeds (proxy.seeds) in the short training"
