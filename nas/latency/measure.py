"""Ratios of running times, as they are while nothing disturbs the machine.

Where a machine is shared, others take the processor away in the middle of a run, or share its core and slow it down by
a factor of 1.7 for milliseconds at a time. So nothing is timed by itself: runs of a model alternate with runs of a
fixed reference network, and rounds pass through all models in an order of their own. The unit is the reference's
undisturbed time: the least 2nd percentile of a thousand of its runs in a row that was seen, also earlier. Each of them
comes behind another, which warms the caches up: behind the run of a model it took 6 % longer.

Outliers. A run counts if both runs of the reference beside it took at most 4 % more than the unit, and if its thread
had the processor for all but 2 % of it and 5 microseconds (that can be seen of one thread only). Rounds go on until
enough runs of each model count; where a machine is never so quiet, the quietest do, and the model's `quiet` runs say
so. What still disturbs the runs that count makes them only slower: their lower decile is taken.

Drift. For seconds at a time all networks are slower by up to 3 %, against the reference, too. So everything is measured
in six sittings. A ratio is the median of theirs, and its interval all that they found: between the least and the
largest of six lies the median they are drawn around with 97 % (David and Nagaraja 2003, 7.1).

This file goes to other devices as it is (see device): it needs numpy alone.
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
SITTINGS = 6
_QUIET, _UNIT, _WINDOW, _COUNTED = 1.04, 0.02, 1_000, 0.1


@dataclass(frozen=True)
class Timing:
    """A running time as a multiple of the reference's, its 97 % interval, and how many undisturbed runs there were."""

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
    """So many runs of each model must count in a sitting, in so many rounds at most; seconds from one to the next."""

    least: int
    most: int
    apart: float = 0.0


def measure(
    models: Sequence[RunOnce], reference: RunOnce, effort: Effort, one_thread: bool, unit: float = math.inf
) -> Timings:
    """Times all models, see above. `one_thread`: the caller's does all the work; `unit`: what it was before."""
    stopwatch = _Stopwatch(reference, one_thread, unit)
    begin, sittings = time.perf_counter(), []
    for sitting in range(SITTINGS):
        time.sleep(max(0.0, begin + sitting * effort.apart - time.perf_counter()))
        sittings.append(_sit(models, stopwatch, effort, random.Random(sitting)))
    now = stopwatch.unit()
    found = [settle([runs[number] for runs in sittings], now, effort.least) for number in range(len(models))]
    return Timings(found, stopwatch.reference, now)


def _sit(models: Sequence[RunOnce], stopwatch: _Stopwatch, effort: Effort, rng: random.Random) -> list[list[Sample]]:
    found: list[list[Sample]] = [[] for _ in models]
    for _ in range(effort.most):
        now = stopwatch.unit()
        left = [i for i, runs in enumerate(found) if sum(is_quiet(run, now) for run in runs) < effort.least]
        if not left:
            break
        rng.shuffle(left)
        for number in left:
            found[number] += stopwatch.take(models[number])
    return found


def rebased(timing: Timing, factor: float) -> Timing:
    """The same in a unit that is so many times smaller: runs that were undisturbed by the old one may not have been."""
    still = timing.quiet if factor <= _QUIET else 0
    return Timing(timing.ratio * factor, timing.low * factor, timing.high * factor, still)


def is_quiet(sample: Sample, unit: float) -> bool:
    return sample.beside <= _QUIET * unit and not sample.interrupted


def settle(sittings: Sequence[Sequence[Sample]], unit: float, least: int) -> Timing:
    """The median of the sittings and their extremes; each the lower decile of its quiet runs, or of the quietest."""
    ratios, quiet = [], 0
    for runs in sittings:
        counted = [run for run in runs if is_quiet(run, unit)]
        quiet += len(counted)
        if len(counted) < least:
            counted = sorted(runs, key=lambda run: (run.interrupted, run.beside))[:least]
        ratios.append(float(np.quantile([run.seconds for run in counted], _COUNTED)) / unit)
    return Timing(float(np.median(ratios)), min(ratios), max(ratios), quiet)


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
        self._run()
        self.reference.append(self._time(self._run)[0])
        return self.reference[-1]

    def _time(self, run: RunOnce) -> tuple[float, bool]:
        worked, begin = time.thread_time(), time.perf_counter()
        run()
        seconds = time.perf_counter() - begin
        away = seconds - (time.thread_time() - worked)
        return seconds, self._one_thread and away > 0.02 * seconds + 5e-6
