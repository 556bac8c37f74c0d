"""The search: ask, check the budget, evaluate rung by rung, tell. What it knows is in the storage; so it can resume."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nas.architecture import Architecture
from nas.config import StudyConfig
from nas.costs import COSTS, costs
from nas.evaluation import Evaluator, Job, Measurement, ProxyTraining
from nas.executors import EXECUTORS, Executor
from nas.inputs import InputError
from nas.run import Run
from nas.samplers import make_sampler
from nas.space import Params, Space
from nas.training import pick_device

DRAWS = 10_000
"""Uniform draws from the space before it is said that nothing fits the budget."""
PATIENCE = 50
"""Proposals in a row that cannot be trained before a candidate is drawn from the space instead."""
FAILURES = 5
"""If so many candidates fail before any succeeds, the study stops: the fault is not theirs."""


@dataclass(frozen=True)
class Told:
    """A proposal with its outcome: trained, failed, over budget, impossible, repeated or interrupted."""

    number: int
    id: str
    outcome: str
    accuracy: float | None
    costs: dict[str, int]
    seconds: float
    reason: str


def draw(
    space: Space, budget: Mapping[str, float], rng: random.Random, seen: Collection[str] = ()
) -> Architecture | None:
    """A member within the budget whose id is not `seen`, uniformly; None if (as far as can be known) all have been.

    Raises InputError, with the nearest miss, if none of DRAWS draws fits the budget.
    """
    nearest: dict[str, int] = {}
    fitting = 0
    everything = space.enumerate() if space.size <= DRAWS else iter(())
    for architecture in chain((space.sample(rng) for _ in range(min(DRAWS, 20 * space.size))), everything):
        known = costs(architecture, budget)
        if all(known[name] <= limit for name, limit in budget.items()):
            fitting += 1
            if architecture.id not in seen:
                return architecture
        nearest = {name: min(value, nearest.get(name, value)) for name, value in known.items()}
    if not fitting:
        limits = ", ".join(f"{name} {limit:.0f}" for name, limit in budget.items())
        least = ", ".join(f"{name} {value}" for name, value in nearest.items())
        raise InputError(
            f"budget ({limits}): nothing fits: 0 of {min(DRAWS, 20 * space.size)} architectures drawn from the "
            f"{space.size:.4g} of space {space.name}; the least of each cost among them: {least}"
        )
    return None


def search(
    study_file: Path | str,
    folder: Path | str | None = None,
    overrides: Iterable[str] = (),
    on_start: Callable[[Study], None] = lambda study: None,
    on_told: Callable[[Told], None] = lambda told: None,
) -> tuple[Run, str | None]:
    """Runs a study file, or goes on with it. Returns its run, and why it stopped before `trials`, if it did.

    `folder` is runs/NAME by default. Nothing is written before everything that the user gave has been checked.
    """
    config = StudyConfig.load(study_file, overrides)
    config = config.model_copy(update={"device": config.device or str(pick_device())})
    evaluator = ProxyTraining(config.data, config.proxy_recipe(str(study_file)), str(config.device))
    splits = evaluator.splits
    space = config.load_space(splits.shape[0], len(splits.classes))
    draw(space, config.budget, random.Random(config.sampler.seed))
    first = []
    for path in config.enqueue:
        try:
            first.append(space.encode(Architecture.load(path)))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    run = Run.create(Path(folder) if folder else Path("runs") / config.name, config)
    with run.lock():
        study = Study(run, space, evaluator, on_told)
        on_start(study)
        return run, study.search(first)


class Study:
    """Searches a space for a run. Only one process may, see `Run.lock`."""

    def __init__(
        self, run: Run, space: Space, evaluator: Evaluator, on_told: Callable[[Told], None] = lambda told: None
    ) -> None:
        self.run, self.space, self.evaluator, self.on_told = run, space, evaluator, on_told
        self.config = run.config
        self.rungs = self.config.proxy.ladder()
        self.storage: BaseStorage = run.open_storage(repair=True)
        directions = [
            StudyDirection.MAXIMIZE if name == "accuracy" else StudyDirection.MINIMIZE
            for name in self.config.objectives
        ]
        self.study = optuna.create_study(
            study_name=self.config.name, storage=self.storage, directions=directions, load_if_exists=True
        )
        self.study_id = self.storage.get_study_id_from_name(self.config.name)
        self.record: dict[str, Told] = {}
        self.told = 0
        self.trained = 0
        self.failed = 0
        self.pending: dict[int, Architecture] = {}

    def search(self, first: Iterable[Params] = ()) -> str | None:
        """Trains candidates until there are `trials` of them, `first` first. Returns why it stopped earlier, if so."""
        waiting = self._take_up()
        if not self.told:
            for params in first:
                self.study.enqueue_trial(params)
        workers = min(self.config.workers, self.config.trials)
        executor = EXECUTORS["serial" if workers == 1 else "processes"](self.evaluator, workers)
        exhausted = None
        with executor:
            for job in waiting:
                self.pending[job.number] = job.architecture
            while True:
                while waiting and self._running(waiting) < executor.workers:
                    executor.submit(waiting.pop(0))
                while exhausted is None and not waiting and self._free(executor):
                    if (proposed := self._propose()) is None:
                        exhausted = f"all candidates of {self.space.name} within the budget have been trained"
                        break
                    executor.submit(proposed)
                if not self.pending:
                    return exhausted
                self._finish(executor, *executor.wait())

    def _running(self, waiting: list[Job]) -> int:
        return len(self.pending) - len(waiting)

    def _free(self, executor: Executor) -> bool:
        wanted = self.config.trials - self.trained - len(self.pending)
        return wanted > 0 and len(self.pending) < executor.workers

    # Resuming

    def _take_up(self) -> list[Job]:
        """Reads the record; returns the jobs that a stopped driver left, where they were left."""
        jobs = []
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state.is_finished():
                self._remember(_told(trial))
                self.told = trial.number + 1
            elif trial.state == TrialState.RUNNING:
                self.told = max(self.told, trial.number + 1)
                if "candidate" not in trial.user_attrs:
                    self._tell(trial.number, "interrupted", reason="the search was stopped before it was formed")
                    continue
                architecture = Architecture.from_dict(trial.user_attrs["candidate"]["architecture"])
                job = self._judge(trial.number, architecture, trial.user_attrs["candidate"], len(_rungs(trial)))
                if job is not None:
                    jobs.append(job)
        return jobs

    # Proposing

    def _propose(self) -> Job | None:
        """The next candidate to train, or None if there is none left. Everything else is told on the way."""
        for attempt in range(2 * PATIENCE):
            if attempt >= PATIENCE:
                drawn = self._draw()
                if drawn is None:
                    return None
                self.study.enqueue_trial(self.space.encode(drawn))
            if job := self._ask():
                return job
        raise AssertionError("a candidate that was drawn unseen and within the budget was refused")

    def _ask(self) -> Job | None:
        sampler = self.config.sampler
        self.study.sampler = make_sampler(sampler.name, sampler.options, sampler.seed, self.told)
        trial = self.study.ask()
        self.told = trial.number + 1
        architecture = self.space.suggest(trial)
        if reason := self.space.problem(architecture):
            trial.set_constraint("possible", 1.0)
            self._tell(trial.number, "impossible", reason=reason)
            return None
        known = costs(architecture)
        for name, limit in self.config.budget.items():
            trial.set_constraint(name, known[name] / limit - 1)
        candidate = {"id": architecture.id, "costs": known, "architecture": architecture.to_dict()}
        trial.set_user_attr("candidate", candidate)
        return self._judge(trial.number, architecture, candidate, 0)

    def _judge(self, number: int, architecture: Architecture, candidate: dict[str, Any], rungs: int) -> Job | None:
        """A job for a candidate that deserves training; any other is told at once."""
        over = [name for name, limit in self.config.budget.items() if candidate["costs"][name] > limit]
        if over:
            limits = ", ".join(f"{name} {candidate['costs'][name]} > {self.config.budget[name]:.0f}" for name in over)
            self._tell(number, "over budget", candidate, reason=limits)
        elif known := self.record.get(architecture.id):
            self._tell(number, "repeated", candidate, known.accuracy, reason=f"the same network as {known.number}")
        elif any(other.id == architecture.id for other in self.pending.values()):
            self._tell(number, "repeated", candidate, reason="the same network as one in training")
        elif rungs == len(self.rungs):
            trial = self.study.get_trials(deepcopy=False)[number]
            self._tell(number, "trained", candidate, _rungs(trial)[-1]["accuracy"])
        else:
            self.pending[number] = architecture
            return self._job(number, architecture, rungs)
        return None

    def _job(self, number: int, architecture: Architecture, index: int) -> Job:
        folder = self.run.candidate_folder(number)
        return Job(number, architecture, index, self.rungs[index], self.config.sampler.seed, folder)

    def _draw(self) -> Architecture | None:
        busy = {architecture.id for architecture in self.pending.values()}
        rng = random.Random(f"{self.config.sampler.seed}/{self.told}")
        return draw(self.space, self.config.budget, rng, self.record.keys() | busy)

    # Telling

    def _finish(self, executor: Executor, job: Job, measurement: Measurement) -> None:
        if measurement.failure is not None:
            candidate = self._attrs(job.number)["candidate"]
            self._tell(job.number, "failed", candidate, reason=measurement.failure, seconds=measurement.seconds)
            if self.failed >= FAILURES and not self.trained:
                raise InputError(f"the first {self.failed} candidates all failed, the last: {measurement.failure}")
            return
        attrs = self._attrs(job.number)
        rungs = [*attrs.get("rungs", []), asdict(measurement)]
        self._set(job.number, "rungs", rungs)
        if job.index + 1 < len(self.rungs):
            executor.submit(self._job(job.number, job.architecture, job.index + 1))
            return
        seconds = sum(rung["seconds"] for rung in rungs)
        self._tell(job.number, "trained", attrs["candidate"], measurement.accuracy, seconds=seconds)

    def _tell(
        self,
        number: int,
        outcome: str,
        candidate: dict[str, Any] | None = None,
        accuracy: float | None = None,
        reason: str = "",
        seconds: float = 0.0,
    ) -> None:
        """Ends a trial. Over-budget proposals are complete (accuracy 0) and violate a constraint, so samplers learn."""
        self._set(number, "outcome", outcome)
        if reason:
            self._set(number, "reason", reason)
        known = candidate["costs"] if candidate else {}
        values = None
        if candidate and (accuracy is not None or outcome == "over budget"):
            values = [accuracy or 0.0 if name == "accuracy" else known[name] for name in self.config.objectives]
        self.study.tell(number, values, state=TrialState.COMPLETE if values else TrialState.FAIL)
        self.pending.pop(number, None)
        if outcome != "failed":
            self.run.forget_candidate(number)
        told = Told(number, candidate["id"] if candidate else "", outcome, accuracy, known, seconds, reason)
        self._remember(told)
        self.on_told(told)

    def _remember(self, told: Told) -> None:
        if told.outcome in {"trained", "failed"}:
            self.record[told.id] = told
            self.trained += told.outcome == "trained"
            self.failed += told.outcome == "failed"

    def _attrs(self, number: int) -> dict[str, Any]:
        return self.storage.get_trial_user_attrs(self._trial_id(number))

    def _set(self, number: int, key: str, value: Any) -> None:
        self.storage.set_trial_user_attr(self._trial_id(number), key, value)

    def _trial_id(self, number: int) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self.study_id, number)


def _rungs(trial: FrozenTrial) -> list[dict[str, Any]]:
    rungs: list[dict[str, Any]] = trial.user_attrs.get("rungs", [])
    return rungs


def _told(trial: FrozenTrial) -> Told:
    attrs = trial.user_attrs
    candidate = attrs.get("candidate", {"id": "", "costs": {}})
    rungs = _rungs(trial)
    accuracy = rungs[-1]["accuracy"] if rungs and attrs.get("outcome") == "trained" else None
    seconds = sum(rung["seconds"] for rung in rungs)
    return Told(
        trial.number,
        candidate["id"],
        attrs.get("outcome", ""),
        accuracy,
        {name: candidate["costs"][name] for name in COSTS if name in candidate["costs"]},
        seconds,
        attrs.get("reason", ""),
    )
