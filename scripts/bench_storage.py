"""What keeping the record costs: studies of tabular trials, which take no time themselves, on each storage.

The space has 8 choices; on a database every choice of a trial costs some milliseconds more.

    python scripts/bench_storage.py                                      journal and SQLite
    scripts/postgres python scripts/bench_storage.py --trials 10000      and PostgreSQL

Prints a line of JSON for each: milliseconds per trial (proposal, costs, record; medians of 100 trials) about trial 100
and at the end, and their ratio; the record's megabytes; seconds to open it for a look, and to go on with the search;
megabytes of the driver before the first trial and at the end. Each storage has a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import optuna

from nas.config import StudyConfig
from nas.evaluation import Evaluator, Job, Measurement
from nas.run import Run
from nas.study import Study, Told

SPACE = """
in_channels: 1
resolution: 8
stem: {block: conv, k: 3, c: [8, 12, 16, 20, 24, 28]}
stages:
  - {block: bottleneck, t: [1, 2, 3, 4, 5, 6], c: [8, 16, 24, 32], n: [1, 2, 3], k: [3, 5, 7], s: 2}
  - {block: separable, c: [16, 24, 32, 40], n: [1, 2, 3], k: [3, 5, 7], s: 2}
head: {block: classifier}
"""
AROUND = 100


class Tabular(Evaluator):
    """An accuracy that follows from the architecture's id, at once."""

    def evaluate(self, job: Job) -> Measurement:
        found = int(job.architecture.id, 16) % 10_000 / 10_000
        epoch = {"seed": job.seed, "epoch": job.rung.epochs, "lr": 0.1, "train_loss": 1.0, "validation_accuracy": found}
        return Measurement(accuracy=found, loss=1 - found, epochs=job.rung.epochs, seconds=0.0, curve=[epoch])


def megabytes() -> float:
    """Resident memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1000
    raise AssertionError("no VmRSS in /proc/self/status")


def opened(run: Run, told: Any = lambda told: None) -> Study:
    return Study(run, run.space(), Tabular(), told)


def bench(folder: Path, url: str | None, trials: int, sampler: str) -> dict[str, Any]:
    (folder / "space.yaml").write_text(SPACE)
    study = {
        "name": f"bench-{os.getpid()}",
        "space": str(folder / "space.yaml"),
        "data": {"source": "digits"},
        "sampler": {"name": sampler},
        "proxy": {"rungs": [1], "confirm": 0},
        "executor": {"name": "serial"},
        "trials": trials,
        "storage": url,
    }
    config = StudyConfig.of(study, "bench")
    run = Run.create(folder / "run", config)
    ends: list[float] = []

    def told(told: Told) -> None:
        if told.outcome == "trained":
            ends.append(time.perf_counter())

    search = opened(run, told)
    before = megabytes()
    search.search()
    after = megabytes()
    steps = [1000 * (end - start) for start, end in pairwise(ends)]
    early, late = statistics.median(steps[AROUND // 2 : 3 * AROUND // 2]), statistics.median(steps[-AROUND:])
    start = time.perf_counter()
    counted = len(run.all_trials())
    look = time.perf_counter() - start
    start = time.perf_counter()
    again = opened(run)
    again.search()
    return {
        "trials": len(ends),
        "proposals": counted,
        "sampler": sampler,
        "ms_at_100": round(early, 2),
        "ms_at_end": round(late, 2),
        "ratio": round(late / early, 2),
        "record_mb": round(size(folder, run, search, url) / 1e6, 1),
        "open_seconds": round(look, 2),
        "resume_seconds": round(time.perf_counter() - start, 2),
        "driver_mb": [round(before), round(after)],
    }


def size(folder: Path, run: Run, search: Study, url: str | None) -> int:
    """Bytes of the journal, of SQLite's file, of PostgreSQL's database."""
    if url is None:
        return (run.folder / "journal.log").stat().st_size
    if url.startswith("sqlite"):
        return (folder / "bench.db").stat().st_size
    from sqlalchemy import create_engine, text

    with create_engine(url).connect() as connection:
        return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--storages", help="of journal, sqlite, postgresql, with commas (default: all that are there)")
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    server = os.environ.get("NAS_POSTGRESQL")
    if options.alone:
        with tempfile.TemporaryDirectory(prefix="nas-bench-") as name:
            folder = Path(name)
            url = {"journal": None, "sqlite": f"sqlite:///{folder}/bench.db", "postgresql": server}[options.alone]
            print(json.dumps(bench(folder, url, options.trials, options.sampler)))
        return
    for storage in (options.storages or ("journal,sqlite" + ",postgresql" * bool(server))).split(","):
        words = ["--alone", storage, "--trials", str(options.trials), "--sampler", options.sampler]
        done = subprocess.run(  # noqa: S603 - this file
            [sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=True
        )
        print(json.dumps({"storage": storage, **json.loads(done.stdout)}), flush=True)


if __name__ == "__main__":
    main()
