"""Ratios of running times, as they are while nothing disturbs the machine.

Where a machine is shared, others take the processor away in the middle of a run, or share its core and slow it down by
a factor of 1.7 for milliseconds at a time. So nothing is timed by itself: runs of a model alternate with runs of a
fixed reference network, and rounds pass through all models in an order of their own. The unit is the reference's
undisturbed time: the least 2nd percentile of a thousand of its runs in a row that was seen, also earlier.

Outliers. A run counts if both runs of the reference beside it took at most 8 % more than the unit, and if its thread
had the processor for all but 2 % of it and 5 microseconds (that can be seen of one thread only). Rounds go on until
enough runs of each model count; where a machine is never so quiet, the quietest do, and the model's `quiet` runs say
so. A ratio is the lower quartile of the runs that count, as what still disturbs them makes them only slower; its
interval is the 95 % interval of a quartile from order statistics.

This file goes to other devices as it is (see device): it needs numpy alone.

Measured with about five processes on two cores, 16 networks in turn for 34 s: half of the runs repeated the other half
to 1.3 % so, and to 2.9 % as medians of bursts, a tenth of them to 18 %.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

RunOnce = Callable[[], object]
"""One inference, from the image in memory to the logits."""
IN_A_ROW = 4
"""Runs of a model in a round, each between two of the reference, behind one to warm up."""
_QUIET, _UNIT, _WINDOW = 1.08, 0.02, 1_000


@dataclass(frozen=True)
class Timing:
    """A running time as a multiple of the reference's, its 95 % interval, and how many undisturbed runs there were."""

    ratio: float
    low: float
    high: float
    quiet: int


@dataclass(frozen=True)
class Sample:
    """One run: its seconds, those of the slower run of the reference beside it, and whether it was interrupted."""

    seconds: float
    beside: float
    interrupted: bool


@dataclass(frozen=True)
class Timings:
    """Of models in the order given; all runs of the reference, and the unit, in seconds."""

    models: list[Timing]
    reference: list[float]
    unit: float

    @property
    def interval_ms(self) -> tuple[float, float]:
        """From the 1st percentile of the reference's runs to the median, in ms: how quiet the machine was."""
        low, middle = np.quantile(self.reference, [0.01, 0.5]) * 1e3
        return float(low), float(middle)


@dataclass(frozen=True)
class Effort:
    """So many runs of each model must count, and so many rounds there are at most until then."""

    least: int
    most: int


def measure(
    models: Sequence[RunOnce], reference: RunOnce, effort: Effort, one_thread: bool, unit: float = math.inf
) -> Timings:
    """Times all models, see above. `one_thread`: the caller's does all the work; `unit`: what it was before."""
    stopwatch = _Stopwatch(reference, one_thread, unit)
    found: list[list[Sample]] = [[] for _ in models]
    for each in range(effort.most):
        now = stopwatch.unit()
        left = [i for i, runs in enumerate(found) if sum(is_quiet(run, now) for run in runs) < effort.least]
        random.Random(each).shuffle(left)
        for number in left:
            found[number] += stopwatch.take(models[number])
        if not left:
            break
    now = stopwatch.unit()
    return Timings([settle(runs, now, effort.least) for runs in found], stopwatch.reference, now)


def rebased(timing: Timing, factor: float) -> Timing:
    """The same in a unit that is so many times smaller: runs that were undisturbed by the old one may not have been."""
    still = timing.quiet if factor <= _QUIET else 0
    return Timing(timing.ratio * factor, timing.low * factor, timing.high * factor, still)


def is_quiet(sample: Sample, unit: float) -> bool:
    return sample.beside <= _QUIET * unit and not sample.interrupted


def settle(runs: Sequence[Sample], unit: float, least: int) -> Timing:
    """The lower quartile of the quiet runs, or of the `least` quietest."""
    quiet = [run for run in runs if is_quiet(run, unit)]
    counted = quiet
    if len(quiet) < least:
        counted = sorted(runs, key=lambda run: (run.interrupted, run.beside))[:least]
    kept = sorted(run.seconds / unit for run in counted)
    low, high = quartile_ranks(len(kept))
    return Timing(float(np.quantile(kept, 0.25)), kept[low], kept[high], len(quiet))


def quartile_ranks(count: int) -> tuple[int, int]:
    """Between which two of `count` draws, from 0, the lower quartile lies with 95 % (David and Nagaraja 2003, 7.1)."""
    below = np.cumsum([math.comb(count, k) * 0.25**k * 0.75 ** (count - k) for k in range(count + 1)])
    low = int(np.searchsorted(below, 0.025, side="right"))
    high = int(np.searchsorted(below, 0.975))
    return max(low - 1, 0), min(high, count - 1)


class _Stopwatch:
    """Times runs between runs of the reference."""

    def __init__(self, reference: RunOnce, one_thread: bool, unit: float) -> None:
        self._run, self._one_thread, self._unit = reference, one_thread, unit
        self.reference: list[float] = []
        for _ in range(100):
            self.reference.append(self._time(reference)[0])

    def unit(self) -> float:
        """The least so far."""
        self._unit = min(self._unit, float(np.quantile(self.reference[-_WINDOW:], _UNIT)))
        return self._unit

    def take(self, model: RunOnce) -> list[Sample]:
        model()
        samples, before = [], self._beside()
        for _ in range(IN_A_ROW):
            seconds, interrupted = self._time(model)
            behind = self._beside()
            samples.append(Sample(seconds, max(before, behind), interrupted))
            before = behind
        return samples

    def _beside(self) -> float:
        self.reference.append(self._time(self._run)[0])
        return self.reference[-1]

    def _time(self, run: RunOnce) -> tuple[float, bool]:
        worked, begin = time.thread_time(), time.perf_counter()
        run()
        seconds = time.perf_counter() - begin
        away = seconds - (time.thread_time() - worked)
        return seconds, self._one_thread and away > 0.02 * seconds + 5e-6
