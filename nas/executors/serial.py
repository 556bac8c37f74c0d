"""This process."""

from __future__ import annotations

from nas.evaluation import Evaluator, Job, Measurement, measure
from nas.executors.executor import Executor


class Serial(Executor):
    """One job at a time, in the process that asks, with all its threads."""

    def __init__(self, evaluator: Evaluator, workers: int = 1) -> None:
        self.evaluator, self.workers = evaluator, 1
        self.waiting: list[Job] = []

    def submit(self, job: Job) -> None:
        self.waiting.append(job)

    def wait(self) -> tuple[Job, Measurement]:
        job = self.waiting.pop(0)
        return job, measure(self.evaluator, job)

    def close(self) -> None:
        self.waiting.clear()
