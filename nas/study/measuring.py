"""The members of a front, measured as whole networks where they will run."""

from __future__ import annotations

from nas.architecture import Architecture
from nas.config import LatencyConfig
from nas.files import write_json
from nas.latency import RUNTIMES, Bench
from nas.latency.table import Progress
from nas.run import Run


def bench_of(config: LatencyConfig, on_progress: Progress) -> Bench:
    """What a study measures latencies on. Raises InputError if the runtime is not installed."""
    return Bench.kept(config.runtime, RUNTIMES[config.runtime], config.threads, on_progress)


def measure_front(run: Run, on_progress: Progress) -> None:
    """Writes measured.json: the whole networks of the front, those that were measured before as they are."""
    assert run.config.latency is not None
    front, known = run.front(), run.measured()
    new = [Architecture.from_json(text) for text in front["architecture"]]
    new = [each for each in new if each.id not in known]
    if not new:
        return
    on_progress("members of the front", 0, len(new))
    unit = run.latency.reference_ms if run.latency else 1.0
    for member, timing in zip(new, bench_of(run.config.latency, on_progress).again(new), strict=True):
        known[member.id] = {"ms": timing.ratio * unit, "low_ms": timing.low * unit, "high_ms": timing.high * unit}
    write_json(run.measured_file, known)
