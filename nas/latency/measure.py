"""Ratios of running times, as they are while nothing disturbs the machine.

Where a machine is shared, others take the processor away in the middle of a run, or share its core and slow it down by
a factor of 1.7 for milliseconds at a time. So nothing is timed by itself: runs of a model alternate with runs of a
fixed reference network, and rounds pass through all models in an order of their own. Each run that is timed comes
behind another of the same model, which warms the caches up: what must be fetched from a cache that others use, too,
takes more or less from moment to moment (two of seven occasions differed by 1.3 % in the mean, so by 0.7 %).

Outliers. A run counts if both runs of the reference beside it took at most 4 % more than the least 5th percentile of a
thousand of its runs in a row that was seen, also earlier, and if its thread had the processor for all but 2 % of it and
5 microseconds (that can be seen of one thread only). Rounds go on until enough runs of each model count; where a
machine is never so quiet, the quietest do, and the model's `quiet` runs say so. What still disturbs the runs that count
makes them only slower: their 5th percentile is taken.

Drift. For seconds at a time all networks are slower by up to 3 %, against the reference, too. So everything is measured
in six sittings. A ratio is the median of the model's times in them over that of the reference's, and its interval goes
from the model's least over the reference's largest to the opposite: between the least and the largest of six lies the
median they are drawn around with 97 % (David and Nagaraja 2003, 7.1), so both medians with at least 94 %.

This file goes to other devices as it is (see device): it needs numpy alone.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

RunOnce = Callable[[], object]
"""One inference, from the image in memory to the logits."""
IN_A_ROW = 4
"""Runs of a model in a round, each between two of the reference."""
SITTINGS = 6
_QUIET, _WINDOW, _LOW = 1.04, 1_000, 0.05


@dataclass(frozen=True)
class Timing:
    """A running time as a multiple of the reference's, and its 94 % interval.

    `quiet`: how many undisturbed runs there were; 0 where most sittings had none.
    """

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
    """Of models in the order given; all runs of the reference, and its time, the unit, in seconds."""

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
    if not models:
        return Timings([], [unit], unit)
    stopwatch = _Stopwatch(reference, one_thread, unit)
    begin, sittings, units = time.perf_counter(), [], []
    for sitting in range(SITTINGS):
        time.sleep(max(0.0, begin + sitting * effort.apart - time.perf_counter()))
        before = len(stopwatch.reference)
        stopwatch.warm_up()
        sittings.append(_sit(models, stopwatch, effort, random.Random(sitting)))
        units.append(_low(stopwatch.reference[before:]))
    quiet = stopwatch.quiet()
    found = [settle([runs[number] for runs in sittings], units, quiet, effort.least) for number in range(len(models))]
    return Timings(found, stopwatch.reference, float(np.median(units)))


def _sit(models: Sequence[RunOnce], stopwatch: _Stopwatch, effort: Effort, rng: random.Random) -> list[list[Sample]]:
    found: list[list[Sample]] = [[] for _ in models]
    for _ in range(effort.most):
        quiet = stopwatch.quiet()
        left = [i for i, runs in enumerate(found) if sum(is_quiet(run, quiet) for run in runs) < effort.least]
        if not left:
            break
        rng.shuffle(left)
        for number in left:
            found[number] += stopwatch.take(models[number])
    return found


def doubted(timing: Timing, before: float, now: float) -> Timing:
    """As it is in hindsight: undisturbed by the unit there was before, perhaps not by the one seen since."""
    return replace(timing, quiet=0) if before > _QUIET * now else timing


def is_quiet(sample: Sample, quiet: float) -> bool:
    return sample.beside <= _QUIET * quiet and not sample.interrupted


def settle(sittings: Sequence[Sequence[Sample]], units: Sequence[float], quiet: float, least: int) -> Timing:
    """A model's times over the reference's; each the 5th percentile of its quiet runs, or of the quietest."""
    times, counts = [], []
    for runs in sittings:
        counted = [run for run in runs if is_quiet(run, quiet)]
        counts.append(len(counted))
        if len(counted) < least:
            counted = sorted(runs, key=lambda run: (run.interrupted, run.beside))[:least]
        times.append(_low([run.seconds for run in counted]))
    ratio = float(np.median(times) / np.median(units))
    quiet_runs = sum(counts) if np.median(counts) > 0 else 0  # else the medians are of disturbed sittings
    return Timing(ratio, min(times) / max(units), max(times) / min(units), quiet_runs)


def _low(seconds: Sequence[float]) -> float:
    return float(np.quantile(seconds, _LOW))


class _Stopwatch:
    """Times runs between runs of the reference."""

    def __init__(self, reference: RunOnce, one_thread: bool, quiet: float) -> None:
        self._run, self._one_thread, self._quiet = reference, one_thread, quiet
        self.reference: list[float] = []

    def warm_up(self) -> None:
        for _ in range(100):
            self._beside()

    def quiet(self) -> float:
        """What the reference takes undisturbed: the least so far."""
        self._quiet = min(self._quiet, _low(self.reference[-_WINDOW:]))
        return self._quiet

    def take(self, model: RunOnce) -> list[Sample]:
        samples, before = [], self._beside()
        for _ in range(IN_A_ROW):
            model()
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
