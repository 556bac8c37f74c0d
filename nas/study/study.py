"""The search: ask, check the budget, evaluate rung by rung, tell. What it knows is in the storage; so it can resume."""

from __future__ import annotations

import json
import logging
import math
import random
import time
import warnings
from collections import ChainMap
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from nas.architecture import Architecture
from nas.census import Feasible, shown
from nas.evaluation import Evaluator, Job, Measurement
from nas.executors import EXECUTORS, Executor
from nas.executors.pace import Pace
from nas.inputs import InputError, damaged, read_yaml
from nas.machine import versions
from nas.run import Run
from nas.samplers import make_sampler, uniform_proposals
from nas.space import Space
from nas.storages import Gathered, sole_driver, without_password
from nas.study.climbing import Climbing
from nas.study.drawing import Exhausted, draw
from nas.study.record import Candidate, Told, confirmed_by, told_of

logger = logging.getLogger("nas")
PATIENCE = 20
"""Proposals in a row that cannot be trained before a candidate is drawn from the space instead."""
FAILURES = 5
"""If so many candidates fail before any succeeds, or four times as many in a row, the fault is not theirs."""


class Study:
    """Searches a space for a run. Only one process may, see `Run.lock`."""

    def __init__(
        self,
        run: Run,
        space: Space,
        evaluator: Evaluator,
        on_told: Callable[[Told], None] = lambda told: None,
        feasible: Feasible | None = None,
    ) -> None:
        """Opens the record, or begins it; `feasible` is what is in the budget, if it is known already.

        Raises InputError if the storage holds another study of this name, or nothing is within the budget.
        """
        self.run, self.space, self.evaluator, self.on_told = run, space, evaluator, on_told
        self.config = run.config
        self.feasible = feasible or Feasible(space, self.config.budget, latency=run.latency)
        self.uniform = uniform_proposals(self.config.sampler.name, self.config.sampler.options)
        # Made once: samplers keep what they have worked out of the same objects.
        limits = self.config.budget, self.config.objectives
        self.task = (space, self.feasible.costs_of, self.feasible.draw, *limits)
        self.climbing, self.pace = Climbing(run), Pace(self.config.time_limit)
        self.storage = Gathered(run.open_storage(repair=True))
        self.study = optuna.create_study(
            study_name=self.config.name,
            storage=self.storage,
            directions=[_direction(name) for name in self.config.objectives],
            load_if_exists=True,
        )
        self._claim()
        if self.study.metric_names is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self.study.set_metric_names(self.config.objectives)  # as Optuna's dashboard shows them
        self.study_id = self.storage.get_study_id_from_name(self.config.name)
        self.record: dict[str, Told] = {}  # by id: trained, cut and failed
        self.trained = 0  # the candidates that did not fail, also those that were cut
        self.failures = 0  # in a row
        self.asked = 0  # proposals that were formed: the sampler is seeded by it
        self.misses = 0  # of them, since the last that could be trained
        self.first: list[Architecture] = []  # to propose before the sampler is asked
        self.queued = 0  # enqueued by a search of an earlier version, and not yet asked for
        self.pending: dict[int, Candidate] = {}  # by number: in training, or left by a stopped driver
        self.left: list[Job] = []
        self.deadline = self.hours = math.inf
        self.exhausted: str | None = None
        self.executor: Executor | None = None

    def search(self, first: Iterable[Architecture] = (), hours: float = math.inf) -> str | None:
        """Trains candidates until there are `trials` of them, `first` first, and those on the front and near it again.

        After so many hours no new candidate is begun. Returns why it stopped before `trials`, if so.

        Raises InputError if candidates fail one after the other, or for a reason that is not theirs; and if another
        process searches the study, in a database.
        """
        storage = self.config.storage
        with sole_driver(storage, self.config.name) if storage else nullcontext():
            return self._search(first, hours)

    def _search(self, first: Iterable[Architecture], hours: float) -> str | None:
        sittings = self.study.user_attrs.get("sittings", [])
        self.study.set_user_attr("sittings", [*sittings, time.time()])
        self.study.set_user_attr("ended", "")
        self._note_versions()
        self._take_up(first)
        self.deadline, self.hours = time.monotonic() + 3600 * hours, hours
        workers = min(self.config.workers, self.config.trials)
        where = self.config.executor
        with EXECUTORS[where.name](self.evaluator, workers, **where.options) as self.executor:
            executor = self.executor
            while True:
                while len(self.pending) - len(self.left) < executor.workers and (job := self._next()):
                    executor.submit(job)
                if not self.pending:
                    return self.exhausted and self._stopped(self.exhausted)
                self._finish(executor, *executor.wait())

    def _next(self) -> Job | None:
        if self.left:
            return self.left.pop(0)
        candidates = sum(candidate.confirms is None for candidate in self.pending.values())
        missing = self.trained + candidates < self.config.trials
        if missing and self.exhausted is None:
            if time.monotonic() <= self.deadline and (job := self._propose()):
                return job
            self.exhausted = self.exhausted or f"{self.hours:g} hours are over"
        return None if candidates else self._confirm()

    def _stopped(self, reason: str) -> str:
        return f"stopped at {self.trained} of {self.config.trials} candidates: {reason}"

    # The record

    def _note_versions(self) -> None:
        """A search may go on with other versions: what they change in an accuracy is said, once."""
        now, before = versions(), self.study.user_attrs.get("versions")
        known = now if before is None else before
        changed = [f"{name} {known.get(name)}, now {now[name]}" for name in now if known.get(name) != now[name]]
        if changed:
            differ = "accuracies may differ a little"
            logger.warning("%s: was searched with %s; %s", self.run.folder, "; ".join(changed), differ)
        if before != now:
            self.study.set_user_attr("versions", now)

    def _claim(self) -> None:
        """Several runs may share a storage, but not a name in it."""
        if self.config.storage is None:
            return
        study, space = self.config.fixed(), json.loads(json.dumps(read_yaml(self.run.space_file)))
        claim = self.study.user_attrs.get("claim", {"study": study, "space": space})
        claim["study"]["storage"] = study["storage"]  # it is this one, whatever it was called
        # A key that a later version has and the claim has not yet is no difference.
        changed = any(claim["study"].get(key, value) != value for key, value in study.items())
        if claim["space"] != space or changed or self._is_foreign():
            where = f"{self.run.folder}: storage {without_password(self.config.storage)!r}"
            rule = "choose another name or storage"
            raise InputError(f"{where} holds another study named {self.config.name}; {rule}")
        self.study.set_user_attr("claim", claim)

    def _is_foreign(self) -> bool:
        """Whether another program made the study."""
        if "claim" in self.study.user_attrs:
            return False
        ours = [_direction(name) for name in self.config.objectives]
        study = self.study
        return bool(study.directions != ours or study.user_attrs or study.get_trials(deepcopy=False))

    def _take_up(self, first: Iterable[Architecture]) -> None:
        """Reads the record, ends what a stopped driver left unended, notes its jobs, and what of `first` is new."""
        seen: set[str] = set()
        queue: list[dict[str, Any]] = []
        left: list[Candidate] = []
        for trial in self.study.get_trials(deepcopy=False):
            with damaged(f"{self.run.folder}: trial {trial.number} on record"):
                self._take_up_trial(trial, seen, queue, left)
        self.left = [job for candidate in left if (job := self._judge(candidate))]
        self.run.clear_candidates(self.pending)
        self.queued = len(queue)
        for architecture in first:
            if architecture.id not in seen and self.space.encode(architecture) not in queue:
                self.first.append(architecture)
            seen.add(architecture.id)

    def _take_up_trial(
        self, trial: FrozenTrial, seen: set[str], queue: list[dict[str, Any]], left: list[Candidate]
    ) -> None:
        """Adds to what was `seen`, is to be proposed, and is `left` in training."""
        if trial.state == TrialState.WAITING:
            queue.append(trial.system_attrs.get("fixed_params", {}))
            return
        told = told_of(trial)
        if not told.outcome and not told.id:
            told = replace(told, outcome="interrupted", reason="the search was stopped while it was proposed")
            self._tell(told)
            return
        self.asked += told.outcome != "interrupted" and told.confirms is None
        seen.add(told.id)
        if told.id and told.confirms is None:
            self.climbing.note(told, trial.user_attrs.get("rungs", []))
        elif told.id and (again := confirmed_by(trial)) and told.outcome != "failed":  # that is tried again
            self.climbing.begin_again(*again)
        if trial.state.is_finished():
            self._count(told)
        elif told.outcome:
            self._end(told)
        else:
            left.append(Candidate.of(trial))

    def _count(self, told: Told) -> None:
        """Keeps the counters: a search that goes on has those of one that was never stopped."""
        self.climbing.count(told)
        if told.confirms is not None:
            self.failures = self.failures + 1 if told.outcome == "failed" else 0
        elif told.outcome in {"trained", "cut", "failed"}:
            self.record[told.id] = told
            self.trained += told.outcome != "failed"
            self.failures = self.failures + 1 if told.outcome == "failed" else 0
            self.misses = 0
        elif told.outcome != "interrupted":
            self.misses += 1

    # Proposing

    def _propose(self) -> Job | None:
        """The next candidate to train, everything else told on the way; None if there is none, see `exhausted`."""
        while self.misses < 100 * PATIENCE:
            wanted = None
            if not self.queued and self.first:
                wanted = self.first.pop(0)
            elif not self.queued and (self.asked < self.uniform or self.misses >= PATIENCE):
                try:
                    wanted = self._draw()
                except Exhausted as reason:
                    self.exhausted = str(reason)
                    return None
            if job := self._ask(wanted):
                return job
        raise AssertionError("candidates that were drawn unseen and within the budget were refused")

    def _draw(self) -> Architecture:
        busy = {candidate.architecture.id: None for candidate in self.pending.values()}
        rng = random.Random(f"{self.config.sampler.seed}/{self.asked}")
        return draw(self.feasible, rng, ChainMap[str, Any](busy, self.record))

    def _confirm(self) -> Job | None:
        """A candidate to measure again, once nothing else is left to train."""
        while (again := self.climbing.again()) is not None:
            wanted = None
            if not self.queued:  # else a search of an earlier version had come so far
                wanted = Candidate.of(self.study.get_trials(deepcopy=False)[again[0]]).architecture
            if job := self._ask(wanted, again):
                return job
        return None

    def _ask(self, wanted: Architecture | None, again: tuple[int, int] | None = None) -> Job | None:
        """A proposal, the `wanted` one or the sampler's, to a job; None if it is told at once."""
        with self.storage.gathering():
            if wanted is not None:
                self.study.enqueue_trial(self.space.encode(wanted), again and {"confirms": again})
            return self._asked()

    def _asked(self) -> Job | None:
        sampler = self.config.sampler
        self.study.sampler = make_sampler(sampler.name, sampler.options, sampler.seed, self.asked, *self.task)
        with warnings.catch_warnings():
            # The search says so itself, when what is drawn instead is exhausted, too.
            warnings.filterwarnings("ignore", "every candidate of the search space within the budget has been proposed")
            trial = self.study.ask()
            architecture = self.space.suggest(trial)
        self.queued = max(0, self.queued - 1)
        confirms = confirmed_by(trial)
        self.asked += confirms is None
        if reason := self.space.problem(architecture) or self.feasible.problem(architecture):
            trial.set_constraint("possible", 1.0)
            self._tell(Told(trial.number, "", "impossible", None, {}, 0.0, reason))
            return None
        known = self.feasible.costs_of(architecture)
        candidate = Candidate(trial.number, architecture, known, [], confirms)
        for name, limit in self.config.budget.items():
            trial.set_constraint(name, candidate.costs[name] / limit - 1)
        trial.set_user_attr("candidate", candidate.to_dict())
        if confirms is not None:
            self.climbing.begin_again(*confirms)
        return self._judge(candidate)

    def _judge(self, candidate: Candidate) -> Job | None:
        """A job for a candidate that deserves training; any other is told at once."""
        if candidate.confirms is not None:
            return self._train(candidate)
        limits = self.config.budget.items()
        over = [
            f"{name} {shown(name, candidate.costs[name])} > {shown(name, most)}".replace(",", "")
            for name, most in limits
            if candidate.costs[name] > most
        ]
        if over:
            self._tell(candidate.told("over budget", reason=", ".join(over)))
        elif twin := self.record.get(candidate.architecture.id):
            self._tell(candidate.told("repeated", twin.accuracy, reason=f"the same network as {twin.number}"))
        elif any(other.architecture.id == candidate.architecture.id for other in self.pending.values()):
            self._tell(candidate.told("repeated", reason="the same network as one in training"))
        else:
            return self._train(candidate)
        return None

    def _train(self, candidate: Candidate) -> Job | None:
        self.pending[candidate.number] = candidate
        self.misses = 0
        return self._advance(candidate)

    def _advance(self, candidate: Candidate) -> Job | None:
        """The candidate's next rung; it is told if there is none, or it does not deserve it."""
        step = self.climbing.step(candidate)
        if step.told is not None:
            self._tell(step.told)
        if step.audited_at is not None:
            self._set(candidate.number, "audited_at", step.audited_at)
        if step.job is not None and len(candidate.rungs) > candidate.sent_on:
            # A search that is taken up has seen more by then, and might think otherwise.
            self._set(candidate.number, "sent_on", len(candidate.rungs))
        return step.job and replace(step.job, limit_seconds=self.pace.limit_seconds(self._work(step.job)))

    def _work(self, job: Job) -> float:
        candidate = self.pending[job.number]
        rungs = job.rungs if candidate.confirms is None else job.rungs[-1:]  # that is trained from its start
        return self.evaluator.work(candidate.costs["macs"], rungs)

    # Telling

    def _finish(self, executor: Executor, job: Job, measurement: Measurement) -> None:
        candidate = self.pending[job.number]
        if measurement.failure is not None:
            self._set(job.number, "seconds", measurement.seconds)
            self._tell(candidate.told("failed", reason=measurement.failure, seconds=measurement.seconds))
            if self.failures >= (4 * FAILURES if self.trained else FAILURES):
                which = "last" if self.trained else "first"
                raise InputError(f"the {which} {self.failures} candidates all failed, the last: {measurement.failure}")
            return
        self.pace.note(self._work(job), measurement.seconds)
        candidate.rungs.append(asdict(measurement))
        self._set(job.number, "rungs", candidate.rungs)
        if candidate.confirms is None:
            self.climbing.note(candidate, candidate.rungs)
        if further := self._advance(candidate):
            executor.submit(further)

    def _tell(self, told: Told) -> None:
        if told.outcome == "cut":
            self._set(told.number, "expected", told.accuracy)
        if told.reason:
            self._set(told.number, "reason", told.reason)
        self._set(told.number, "outcome", told.outcome)
        self._end(told)

    def _end(self, told: Told) -> None:
        """Ends a trial. Samplers learn from all that was formed: what cannot be trained is complete, with accuracy 0
        (and costs 0 if it cannot even be built), and violates a constraint; one that repeats another counts like it."""
        known = self.record.get(told.id) if told.outcome == "repeated" else told
        accuracy = 0.0 if told.outcome in {"over budget", "impossible"} else known.accuracy if known else None
        values = None
        if accuracy is not None:
            values = [accuracy if name == "accuracy" else told.costs.get(name, 0) for name in self.config.objectives]
        self.study.tell(told.number, values, state=TrialState.FAIL if values is None else TrialState.COMPLETE)
        was_training = self.pending.pop(told.number, None) is not None
        self.run.clear_candidate(told.number)
        if was_training and self.executor is not None:
            self.executor.forget(self.run.candidate_folder(told.number))
        self._count(told)
        self.on_told(told)

    def _set(self, number: int, key: str, value: Any) -> None:
        trial_id = self.storage.get_trial_id_from_study_id_trial_number(self.study_id, number)
        self.storage.set_trial_user_attr(trial_id, key, value)


def _direction(objective: str) -> StudyDirection:
    return StudyDirection.MAXIMIZE if objective == "accuracy" else StudyDirection.MINIMIZE
