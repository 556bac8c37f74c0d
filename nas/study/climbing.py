"""What comes next for a candidate: its next rung, or its end; and which of those that ended are measured again."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.evaluation import Job
from nas.run import Run
from nas.rungs import Halving, Verdict
from nas.study.confirming import Confirming
from nas.study.record import Candidate, Told


@dataclass(frozen=True)
class Step:
    """Either a job or an outcome. `audited_at`: the rung (from 1) from which it only goes on for the audit."""

    job: Job | None = None
    told: Told | None = None
    audited_at: int | None = None


class Climbing:
    """Follows from what was noted and told of candidates, and the seed, alone; so a search that is taken up goes on."""

    def __init__(self, run: Run) -> None:
        self.run, self.config = run, run.config
        self.rungs = self.config.proxy.ladder()
        self._halving = Halving(len(self.rungs), self.config.proxy.keep)
        self._confirming = Confirming(self.config.proxy.confirm)

    def note(self, candidate: Candidate | Told, rungs: Sequence[Mapping[str, Any]]) -> None:
        """Takes what is on record of a candidate, with its measurements, into account for others."""
        self._halving.note(candidate.number, self._rivalry(candidate.costs), [rung["accuracy"] for rung in rungs])

    def begin_again(self, number: int, time: int) -> None:
        """A trained candidate is about to be measured again, for the so-many-eth time, or was."""
        self._confirming.begin(number, time)

    def count(self, told: Told) -> None:
        """Takes an outcome into account."""
        if told.outcome == "confirmation" and told.accuracy is not None and told.confirms is not None:
            self._confirming.measured_again(told.confirms, told.accuracy)
        elif told.outcome == "trained" and told.accuracy is not None:
            self._confirming.trained(told.number, self._rivalry(told.costs), told.accuracy)

    def again(self) -> tuple[int, int] | None:
        """The number of a candidate to measure again, and for which time."""
        return self._confirming.next()

    def step(self, candidate: Candidate) -> Step:
        """What comes next for a candidate that was noted."""
        measured, times, top = len(candidate.rungs), 0, len(self.rungs)
        if candidate.confirms is not None:
            measured, times = top - 1 + measured, candidate.confirms[1]
        if measured == top:
            outcome = "trained" if candidate.confirms is None else "confirmation"
            return Step(told=candidate.told(outcome, candidate.rungs[-1]["accuracy"]))
        audited_at = None
        waits = candidate.confirms is None and measured > candidate.sent_on
        if waits and not (verdict := self._halving.judge(candidate.number)).goes_on:
            if not self._is_audited(candidate):
                return Step(told=self._cut(candidate, verdict))
            audited_at = verdict.rung + 1
        seed = self.config.sampler.seed + times * self.config.proxy.seeds
        folder = self.run.candidate_folder(candidate.number)
        job = Job(candidate.number, candidate.architecture, self.rungs[: measured + 1], seed, folder)
        return Step(job, audited_at=audited_at)

    def _rivalry(self, costs: Mapping[str, float]) -> list[float]:
        """The costs in which candidates are compared."""
        return [costs[name] for name in self.config.objectives if name != "accuracy"]

    def _is_audited(self, candidate: Candidate) -> bool:
        """Whether a candidate that should be cut goes on all the same."""
        rng = random.Random(f"{self.config.sampler.seed}/audit/{candidate.architecture.id}")
        return rng.random() < self.config.proxy.audit

    def _cut(self, candidate: Candidate, verdict: Verdict) -> Told:
        accuracy, rung = candidate.rungs[-1]["accuracy"], verdict.rung + 1
        reason = f"{accuracy:.4f} at rung {rung}, less than {verdict.floor:.4f}: behind {verdict.leader}"
        return candidate.told("cut", self._halving.expected(candidate.number), reason)
