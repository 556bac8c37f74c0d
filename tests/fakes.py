"""Evaluators that do not train, small spaces, and a search to kill (`python fakes.py STUDY RUN CALLS STALL_AFTER`)."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nas.evaluation import Evaluator, Job, Measurement
from nas.files import write_text

if TYPE_CHECKING:
    from nas.run import Run
    from nas.study import Study

# Heavy imports are inside the functions: worker processes import this module.

TOY = """
name: toy
in_channels: 1
resolution: 8
stem: {block: conv, k: 3, c: [8, 12, 16]}
stages:
  - - {block: bottleneck, t: [1, 2, 3], c: [8, 12, 16], k: 3, groups: [1, 3], shuffle: [true, false]}
    - {block: separable, c: [8, 16, 24], n: [1, 2]}
  - {block: separable, c: [16, 24, 32], s: 2}
head: {block: classifier}
"""
"""153 members of 674 to 3,450 parameters; a quarter of all combinations is impossible (groups 3 of 8 channels)."""

SIX = """
name: six
in_channels: 1
resolution: 8
stem: {block: conv, k: 3, c: [8, 16]}
stages:
  - {block: separable, c: [8, 16, 24], s: 2}
head: {block: classifier}
"""


def accuracy(name: str) -> float:
    """What a fake finds for an architecture's id, with four digits."""
    return int(name, 16) % 10_000 / 10_000


@dataclass(frozen=True)
class Tabular(Evaluator):
    """Pretends to train: an epoch takes `seconds`, then is a line in `calls` and in the job's checkpoint.

    A line is: number, id, epoch, process, threads. Ctrl-C is pressed when this object has trained `stop_after` epochs.
    Where there are `stall_after` lines, the next takes a minute.
    """

    calls: Path
    seconds: float = 0.0
    stop_after: int | None = None
    stall_after: int | None = None
    done: list[str] = field(default_factory=list)

    def evaluate(self, job: Job) -> Measurement:
        checkpoint = job.folder / "epochs"
        trained = int(checkpoint.read_text()) if checkpoint.exists() else 0
        for epoch in range(trained + 1, job.rung.epochs + 1):
            if len(self.done) == self.stop_after:
                raise KeyboardInterrupt
            stalls = self.stall_after is not None and len(lines(self.calls)) >= self.stall_after
            time.sleep(60 if stalls else self.seconds)
            with open(self.calls, "a", encoding="utf-8") as file:
                file.write(f"{job.number} {job.architecture.id} {epoch} {os.getpid()} {torch.get_num_threads()}\n")
            self.done.append(job.architecture.id)
            write_text(checkpoint, str(epoch))
        found = accuracy(job.architecture.id) * (1 - 0.5**job.rung.epochs)
        return Measurement(accuracy=found, loss=1 - found, epochs=job.rung.epochs, seconds=self.seconds)


@dataclass(frozen=True)
class Failing(Tabular):
    """Fails on purpose: `how` says which trial numbers (-1: all others), and in which way."""

    how: Mapping[int, str] = field(default_factory=dict)

    def evaluate(self, job: Job) -> Measurement:
        how = self.how.get(job.number, self.how.get(-1))
        if how == "raises":
            raise RuntimeError("boom\nand more")
        if how == "memory":
            raise MemoryError
        if how == "says":
            return Measurement(failure="would not")
        if how == "nan":
            return Measurement(accuracy=float("nan"))
        if how == "interrupts":
            raise KeyboardInterrupt
        if how == "exits":
            os._exit(3)
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().evaluate(job)


def lines(calls: Path) -> list[list[str]]:
    """What was trained, in order: [number, id, epoch, process, threads]."""
    return [line.split() for line in calls.read_text().splitlines()] if calls.exists() else []


def epochs(calls: Path) -> Counter[tuple[str, str]]:
    """How often each epoch of each architecture was trained."""
    return Counter((line[1], line[2]) for line in lines(calls))


def write_study(folder: Path, space: str = TOY, **changes: Any) -> Path:
    """A study file (and its space) in `folder`; `changes` replace its keys."""
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "space.yaml").write_text(space, encoding="utf-8")
    study = {
        "name": "toy",
        "space": "space.yaml",
        "data": {"source": "digits"},
        "proxy": {"rungs": [1], "confirm": 0},
        "sampler": {"name": "random"},
        "executor": {"name": "serial" if changes.get("workers", 1) == 1 else "processes"},
        "trials": 8,
    }
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(study | changes), encoding="utf-8")
    return file


def open_study(
    file: Path, folder: Path, evaluator: Evaluator, on_told: Callable[[Any], None] = lambda told: None
) -> tuple[Run, Study]:
    from nas.config import StudyConfig
    from nas.run import Run
    from nas.study import Study

    run = Run.create(folder, StudyConfig.load(file))
    return run, Study(run, run.space(), evaluator, on_told)


def search(file: Path, folder: Path, evaluator: Evaluator, trials: int | None = None) -> Run:
    """As nas.study.search, with another evaluator. `trials` instead of those of the file."""
    import yaml

    from nas.run import Run

    if trials is not None:
        file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"trials": trials}))
    with Run(folder).lock():
        run, study = open_study(file, folder, evaluator)
        study.search()
    return run


def recorded(file: Path, folder: Path, count: int, seed: int = 0, reason: str = "boom") -> Run:
    """A run with a record that no search made: `count` candidates drawn from the space, most of them trained, with
    accuracies that follow their parameters, at three rungs; some were cut or failed, for a `reason`. Where
    the study has milliseconds, they are made up."""
    import datetime
    import json
    import math
    import random

    import optuna
    from optuna.trial import TrialState, create_trial

    from nas.config import StudyConfig
    from nas.costs import costs
    from nas.run import Run

    rng, begun = random.Random(seed), datetime.datetime(2026, 1, 1)
    run = Run.create(folder, StudyConfig.load(file))
    space, config = run.space(), run.config
    trials = []
    for number in range(count):
        member = space.sample(rng)
        params = space.encode(member)
        known: dict[str, Any] = dict(costs(member))
        if config.latency is not None:
            known["latency_ms"] = round(known["macs"] ** 0.5 / 5000, 6)
        share = rng.random()
        outcome = "trained" if share < 0.7 else "cut" if share < 0.9 else "failed" if share < 0.95 else "over budget"
        top = min(0.99, 0.08 * math.log(known["params"]) + rng.gauss(0, 0.03))
        measured = {"trained": 3, "cut": rng.choice([1, 2])}.get(outcome, 0)
        rungs = [
            {"accuracy": top * (0.5 + rung / 6), "epochs": 3**rung, "seconds": 2.0 * rung, "curve": []}
            for rung in range(1, measured + 1)
        ]
        attrs = {
            "candidate": {"id": member.id, "costs": known, "architecture": member.to_dict()},
            "rungs": rungs,
            "outcome": outcome,
            "reason": reason if outcome == "failed" else "",
        }
        failed = outcome == "failed"
        values = [top if name == "accuracy" else known[name] for name in config.objectives]
        trial = create_trial(
            state=TrialState.FAIL if failed else TrialState.COMPLETE,
            values=None if failed else values,
            params=params,
            distributions={name: space.distributions[name] for name in params},
            user_attrs=json.loads(json.dumps(attrs)),
        )
        trial.datetime_start = begun + datetime.timedelta(seconds=10 * number)
        trial.datetime_complete = trial.datetime_start + datetime.timedelta(seconds=8)
        trials.append(trial)
    (folder / "journal.log").touch()
    directions = ["maximize" if name == "accuracy" else "minimize" for name in config.objectives]
    study = optuna.create_study(study_name=config.name, storage=run.open_storage(), directions=directions)
    study.add_trials(trials)
    return run


if __name__ == "__main__":
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sys.modules["fakes"] = sys.modules["__main__"]
    try:
        search(Path(sys.argv[1]), Path(sys.argv[2]), Tabular(Path(sys.argv[3]), stall_after=int(sys.argv[4])))
    except KeyboardInterrupt:
        sys.exit(130)
