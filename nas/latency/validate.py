"""How far predictions are from whole networks that had no part in them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.architecture import Architecture
from nas.inputs import InputError
from nas.latency.predict import CALIBRATION, distinct_layers, latency_of, members
from nas.latency.table import Bench
from nas.space import Space

_RESAMPLES = 2_000


def validate(space: Space, bench: Bench, count: int = 40, everything: bool = False) -> dict[str, Any]:
    """Predicts and measures `count` random members that were not used for calibration; plain values.

    Measures the layers of these members and of the calibration, or (`everything`) all of the space.
    """
    begin = time.monotonic()
    calibration = {each.id for each in members(space, CALIBRATION, "calibration")}
    drawn = members(space, count + CALIBRATION, "validation")
    fresh = [each for each in drawn if each.id not in calibration][:count]
    _check_enough(fresh, space, "members")
    all_layers = distinct_layers(space)
    latency = latency_of(space, bench, all_layers if everything else [x for each in fresh for x in each.layers])
    built = time.monotonic() - begin
    fresh = [each for each in fresh if latency.problem(each) is None]
    _check_enough(fresh, space, f"members that {bench.manifest['runtime']} runs")
    bench.on_progress("networks that had no part in it", 0, len(fresh))
    timings = bench.again(fresh)
    found = map(bench.table.ms, timings)
    rows = [
        {
            "id": each.id,
            "predicted_ms": latency.predict(each),
            "measured_ms": ms["ms"],
            "interval_ms": [ms["low_ms"], ms["high_ms"]],
        }
        for each, ms in zip(fresh, found, strict=True)
    ]
    predicted, measured = (np.array([row[key] for row in rows]) for key in ("predicted_ms", "measured_ms"))
    return {
        "space": space.name,
        **agreement(predicted, measured),
        "networks": len(rows),
        "calibration": dict(latency.fitted),
        "layers": len(latency.shares),
        "layers_of_space": len(all_layers),
        "table_seconds": round(built, 1),
        "quiet": {
            "networks": sum(timing.quiet > 0 for timing in timings) / len(timings),
            "layers": sum(bench.table.layers[name].quiet > 0 for name in latency.shares) / len(latency.shares),
        },
        "reference_ms": bench.table.reference_ms,
        "reference_interval_ms": list(bench.table.reference_interval_ms),
        "manifest": bench.manifest,
        "rows": rows,
    }


def _check_enough(fresh: list[Architecture], space: Space, what: str) -> None:
    if len(fresh) < 2:
        raise InputError(f"space {space.name}: has too few {what} to keep some from the calibration")


def agreement(predicted: NDArray[np.float64], measured: NDArray[np.float64]) -> dict[str, Any]:
    """Kendall's tau, mean absolute percentage error (a fraction) and share within 10 %, with 95 % intervals.

    Intervals are percentiles of 2,000 resamples of the networks (Efron 1979).
    """
    rng = np.random.default_rng(0)
    numbers = {"kendall_tau": _tau, "mape": _mape, "within_10_percent": _within}
    found: dict[str, Any] = {name: of(predicted, measured) for name, of in numbers.items()}
    picks = rng.integers(len(measured), size=(_RESAMPLES, len(measured)))
    for name, of in numbers.items():
        values = [of(predicted[pick], measured[pick]) for pick in picks]
        found[f"{name}_interval"] = [float(x) for x in np.nanquantile(values, [0.025, 0.975])]
    return found


def _tau(predicted: NDArray[np.float64], measured: NDArray[np.float64]) -> float:
    """Kendall's tau-b: copies of one network, which resampling makes, are ties in both."""
    from scipy.stats import kendalltau

    return float(kendalltau(predicted, measured).statistic)


def _mape(predicted: NDArray[np.float64], measured: NDArray[np.float64]) -> float:
    return float(np.abs(predicted / measured - 1).mean())


def _within(predicted: NDArray[np.float64], measured: NDArray[np.float64]) -> float:
    return float((np.abs(predicted / measured - 1) <= 0.1).mean())
