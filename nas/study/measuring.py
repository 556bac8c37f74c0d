"""Whole networks, such as the members of a front, measured where they will run."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nas.architecture import Architecture
from nas.config import LatencyConfig
from nas.files import write_json
from nas.inputs import InputError
from nas.latency import RUNTIMES, Bench, in_int8, open_source
from nas.latency.table import Progress, machine_of
from nas.run import Run

logger = logging.getLogger("nas")


def measure_front(run: Run, on_progress: Progress) -> None:
    """Writes measured.json: the whole networks of the front, those that were measured before as they are.

    Where the study wants int8, their times in it, too, with int8_ in front of their names. On another device nothing
    can be measured from here: what its table has now is taken. What another machine than that of the predictions takes
    does not belong beside them: then it writes nothing.
    """
    assert run.config.latency is not None
    front, known = run.front(), run.measured() if run.config.latency.runtime in RUNTIMES else {}
    new = [Architecture.from_json(text) for text in front["architecture"]]
    new = [each for each in new if each.id not in known]
    if not new:
        return
    runtimes = {"": run.config.latency.runtime}
    if run.config.latency.int8:
        runtimes["int8_"] = in_int8(run.config.latency.runtime)
    found: dict[str, dict[str, float]] = {member.id: {} for member in new}
    for prefix, runtime in runtimes.items():
        source = open_source(runtime, run.config.latency.threads, on_progress)
        if other := _other_machine(run, source.manifest):
            logger.warning("%s: its front is not measured here: its latencies are predicted for %s", run.folder, other)
            return
        if isinstance(source, Bench):
            on_progress("members of the front" + " in int8" * bool(prefix), 0, len(new))
            timings = dict(zip(found, source.again(new), strict=True))
        else:
            timings = {name: source.table.networks[name] for name in found if name in source.table.networks}
            refused = {name: why for name, why in source.table.refused.items() if name in found.keys() - timings}
            for name, why in refused.items():
                logger.warning("%s: %s cannot run on %s: %s", run.folder, name, source.name, why)
            if missing := len(found) - len(timings) - len(refused):
                todo = f"nas latency plan {run.folder} --out DIR, time and import that, search again"
                logger.warning("%s: %d of its front were not timed on %s: %s", run.folder, missing, source.name, todo)
        for name, timing in timings.items():
            found[name] |= {f"{prefix}{key}": value for key, value in source.table.ms(timing).items()}
    write_json(run.measured_file, known | {name: ms for name, ms in found.items() if ms})


def measure_places(
    places: Iterable[Path | str], runtime: str | None, threads: int | None, on_progress: Progress
) -> dict[str, Any]:
    """Whole networks in ms: of files (YAML), and of the fronts of runs; plain values, with what they were measured on.

    Where `runtime` and `threads` are not given they are those of the runs, else ONNX Runtime and 1. What was measured
    before is taken from the cache; of a device it is what was timed there. `predicted_ms` is what a run with the same
    runtime and threads predicts of its members, if it is for the same hardware and packages, else None.
    Raises InputError if a place is neither, a run has nothing yet, the runs say different things, or the runtime cannot
    run a network.
    """
    found = [(str(place), *members_of(Path(place))) for place in places]
    said = {run.config.latency for _, _, run in found if run is not None and run.config.latency is not None}
    runtime = runtime or _agreed("--runtime", [each.runtime for each in said], LatencyConfig().runtime)
    threads = threads or _agreed("--threads", [each.threads for each in said], LatencyConfig().threads)
    source = open_source(runtime, threads, on_progress)
    table = source.networks({each.id: each for _, members, _ in found for each in members}.values())
    rows = []
    for place, members, run in found:
        latency = None
        if run is not None and (there := run.config.latency) and (there.runtime, there.threads) == (runtime, threads):
            latency = None if _other_machine(run, source.manifest) else run.latency
        for member in members:
            if member.id not in table.networks:
                raise InputError(f"{place}: {member.id}: {table.refused[member.id]}")
            timing = table.networks[member.id]
            predicted = latency and latency.predict(member)
            rows.append(
                {"id": member.id, "place": place, **table.ms(timing), "quiet": timing.quiet, "predicted_ms": predicted}
            )
    reference = {"reference_ms": table.reference_ms, "reference_interval_ms": list(table.reference_interval_ms)}
    return {"networks": rows, **reference, "manifest": source.manifest}


def _other_machine(run: Run, manifest: dict[str, Any]) -> str | None:
    """The processor and packages that a run predicts latencies for, or None where a manifest has the same."""
    assert run.latency is not None
    there, here = machine_of(run.latency.manifest), machine_of(manifest)
    return None if there == here else ", ".join(f"{name} {value}" for name, value in there.items())


def members_of(place: Path) -> tuple[list[Architecture], Run | None]:
    """The network of a file or of a retraining's folder; or those of a run's front, and the run."""
    file = place / "architecture.yaml" if (place / "architecture.yaml").is_file() else place
    if file.suffix in {".yaml", ".yml"}:
        return [Architecture.load(file)], None
    run = Run.open(place)
    front = [Architecture.from_json(text) for text in run.front()["architecture"]]
    if not front:
        raise InputError(f"{place}: has no trained candidate yet")
    return front, run


def _agreed(option: str, said: list[Any], default: Any) -> Any:
    if len(set(said)) > 1:
        raise InputError(f"{option} is missing: the runs have {' and '.join(sorted(map(str, set(said))))}")
    return said[0] if said else default
