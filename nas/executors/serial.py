"""This process."""

from __future__ import annotations

import torch

from nas.evaluation import Evaluator, Job, Measurement, measure
from nas.executors.executor import Executor
from nas.inputs import InputError, first_line


class Serial(Executor):
    """One job at a time, in the process that asks, with all its threads."""

    def __init__(self, evaluator: Evaluator, workers: int = 1) -> None:
        self.evaluator, self.workers = evaluator, 1
        self.waiting: list[Job] = []

    def submit(self, job: Job) -> None:
        self.waiting.append(job)

    def wait(self) -> tuple[Job, Measurement]:
        job = self.waiting.pop(0)
        try:
            return job, measure(self.evaluator, job)
        except torch.AcceleratorError as error:
            raise InputError(
                f"candidate {job.number}: its GPU failed: {first_line(error)}; only a new process can use it again: "
                "search on, or with the executor processes, which starts one by itself"
            ) from None

    def close(self) -> None:
        self.waiting.clear()
