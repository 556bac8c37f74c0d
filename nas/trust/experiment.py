"""The experiment: candidates trained short and long, and scored without training. What is on file is not done again."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nas.architecture import Architecture
from nas.augment import Batches
from nas.config import StudyConfig
from nas.costs import cost, costs
from nas.evaluation import Job, Measurement, ProxyTraining, Rung
from nas.executors import EXECUTORS
from nas.executors.pace import Pace
from nas.files import sweep, write_json
from nas.inputs import InputError
from nas.network import build
from nas.run import refuse_changes
from nas.scores import SCORES, score
from nas.training import Normalisation
from nas.trust.ranking import Candidate

KINDS = ("short", "long")
LEAST = 4
"""Candidates that are needed: fewer have no order to speak of."""
IMAGES = 32
"""A batch for the zero-cost scores: fewer than an image of 8 x 8 has pixels, see `jacobian_covariance`."""


@dataclass(frozen=True)
class Training:
    """One of the two: how, up to the last of which rungs, from which seed."""

    evaluator: ProxyTraining
    rungs: tuple[Rung, ...]
    seed: int


@dataclass(frozen=True)
class Step:
    """A training that has ended, one of KINDS; `done` of `total` have. `epochs_left` are those of all the others."""

    id: str
    kind: str
    measurement: Measurement
    done: int
    total: int
    epochs_left: int


class Experiment:
    """In a folder: settings.json, and a file for each candidate in short/, long/ and scores/. Belongs under a lock."""

    def __init__(
        self,
        folder: Path,
        members: Sequence[Architecture],
        trainings: dict[str, Training],
        config: StudyConfig,
        on_step: Callable[[Step], None],
    ) -> None:
        self.folder, self.members, self.trainings = folder, members, trainings
        self.workers, self.on_step = config.workers, on_step
        # Not on a cluster, whose nodes need not see this folder.
        self.executor = "serial" if config.executor.name == "serial" else "processes"
        self.pace = Pace(config.time_limit)
        self.found: dict[str, dict[str, Measurement]] = {kind: {} for kind in KINDS}

    def begin(self, settings: dict[str, Any]) -> None:
        """Reads what is on file, or writes settings.json.

        Raises InputError if the folder was begun with other settings, or a file is damaged.
        """
        file = self.folder / "settings.json"
        if not file.exists():
            write_json(file, settings)
        refuse_changes(self.folder, "other settings", _read(file), json.loads(json.dumps(settings)))
        sweep(self.folder)
        for kind in KINDS:
            for job in self._waiting(kind):
                if (record := self._file(kind, job.architecture)).exists():
                    self._note(kind, job, _measurement(record))

    @property
    def done(self) -> int:
        return sum(len(found) for found in self.found.values())

    @property
    def failed(self) -> dict[str, str]:
        """Why, by id."""
        both = [item for found in self.found.values() for item in found.items()]
        return {id_: measurement.failure for id_, measurement in both if measurement.failure is not None}

    def run(self) -> list[Candidate]:
        """Trains and scores what is not on file; the candidates that did not fail.

        Raises InputError if fewer than LEAST are left.
        """
        self._check_left()
        for kind in KINDS:
            self._train(kind)
        return [self._candidate(member) for member in self.members if member.id not in self.failed]

    def _waiting(self, kind: str) -> list[Job]:
        """The trainings that have not ended, those that run among them."""
        training, over = self.trainings[kind], self.failed.keys() | self.found[kind]
        return [
            Job(number, member, training.rungs, training.seed, self.folder / kind / member.id)
            for number, member in enumerate(self.members)
            if member.id not in over
        ]

    def _train(self, kind: str) -> None:
        jobs = self._waiting(kind)
        workers = max(1, min(self.workers, len(jobs)))
        with EXECUTORS[self.executor](self.trainings[kind].evaluator, workers) as executor:
            for job in jobs[: executor.workers]:
                executor.submit(self._limited(kind, job))
            queue = iter(jobs[executor.workers :])
            for _ in jobs:
                job, measurement = executor.wait()
                if measurement.failure is None:
                    self.pace.note(self._work(kind, job), measurement.seconds)
                self._keep(kind, job, measurement)
                if following := next(queue, None):
                    executor.submit(self._limited(kind, following))

    def _work(self, kind: str, job: Job) -> float:
        evaluator, macs = self.trainings[kind].evaluator, cost(job.architecture, "macs")
        return sum(evaluator.work(macs, job.rungs[: last + 1]) for last in range(len(job.rungs)))

    def _limited(self, kind: str, job: Job) -> Job:
        return replace(job, limit_seconds=self.pace.limit_seconds(self._work(kind, job)))

    def _keep(self, kind: str, job: Job, measurement: Measurement) -> None:
        write_json(self._file(kind, job.architecture), asdict(measurement))
        self._note(kind, job, measurement)
        waiting = [job for each in KINDS for job in self._waiting(each)]
        left = sum(job.rung.epochs for job in waiting)
        self.on_step(Step(job.architecture.id, kind, measurement, self.done, self.done + len(waiting), left))
        self._check_left()

    def _note(self, kind: str, job: Job, measurement: Measurement) -> None:
        """What is on file needs no checkpoint any more; the traceback of a failure stays."""
        self.found[kind][job.architecture.id] = measurement
        if measurement.failure is None:
            shutil.rmtree(job.folder, ignore_errors=True)

    def _check_left(self) -> None:
        left = len(self.members) - len(self.failed)
        if left < LEAST:
            reason = list(self.failed.values())[-1]
            failed = f"{len(self.failed)} of {len(self.members)} candidates failed, the last: {reason}"
            raise InputError(f"{self.folder}: {failed}; {left} are left, but there must be {LEAST}")

    def _candidate(self, member: Architecture) -> Candidate:
        short, long = (self.found[kind][member.id] for kind in KINDS)
        assert long.accuracy is not None
        epochs = range(1, short.epochs + 1)
        by_epoch = [[row for row in short.curve if row["epoch"] == epoch] for epoch in epochs]
        return Candidate(
            id=member.id,
            costs=costs(member),
            accuracies=[fmean(row["validation_accuracy"] for row in rows) for rows in by_epoch],
            seconds=list(accumulate(sum(row["seconds"] for row in rows) for rows in by_epoch)),
            long_accuracy=long.accuracy,
            long_seconds=sum(row["seconds"] for row in long.curve),
            scores=self._scores(member),
        )

    def _scores(self, member: Architecture) -> dict[str, tuple[float | None, float]]:
        file = self._file("scores", member)
        if not file.exists() or _read(file).keys() != SCORES.keys():
            write_json(file, self._scored(member))
        return {name: (value, seconds) for name, (value, seconds) in _read(file).items()}

    def _scored(self, member: Architecture) -> dict[str, tuple[float | None, float]]:
        """Of the weights that the short training starts from; the seconds are without making them."""
        seed, batch = self.trainings["short"].seed, self._batch(member.resolution)
        network, scores = build(member, seed), {}
        for name in SCORES:
            start = time.perf_counter()
            value = score(name, network, batch, seed)
            scores[name] = (None if math.isnan(value) else value, time.perf_counter() - start)
        return scores

    def _batch(self, resolution: int) -> Tensor:
        """Training images, the same for all candidates: (IMAGES, channels, resolution, resolution)."""
        training = self.trainings["short"]
        splits, count = training.evaluator.splits, min(IMAGES, len(training.evaluator.splits.train))
        images = splits.train.take(np.random.default_rng(training.seed).permutation(len(splits.train))[:count])
        device, normalisation = torch.device(training.evaluator.device), Normalisation(splits.mean, splits.std)
        return Batches(images, normalisation, resolution, device).plain(0, count)[0]

    def _file(self, folder: str, member: Architecture) -> Path:
        return self.folder / folder / f"{member.id}.json"


def _read(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        return {**data}
    except (ValueError, TypeError):
        raise InputError(f"{file}: is damaged; delete it to have it made again") from None


def _measurement(file: Path) -> Measurement:
    try:
        return Measurement(**_read(file))
    except TypeError:
        raise InputError(f"{file}: is damaged; delete it to have it made again") from None
