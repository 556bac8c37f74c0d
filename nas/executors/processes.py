"""Processes on this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from nas.evaluation import Evaluator, Job, Measurement
from nas.executors.executor import Executor


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    job: Job | None = None


class Processes(Executor):
    """`workers` spawned processes, the machine's threads divided among them.

    A process that dies costs the one job that it had, which is a failed measurement; the process is replaced.
    A worker whose driver dies ends at once, so that nobody else writes into the run that a new driver takes over.
    """

    def __init__(self, evaluator: Evaluator, workers: int) -> None:
        self.evaluator, self.workers = evaluator, workers
        self.pool = [self._start() for _ in range(workers)]

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        threads = max(1, torch.get_num_threads() // self.workers)
        process = context.Process(target=_work, args=(self.evaluator, theirs, threads), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def submit(self, job: Job) -> None:
        worker = next(worker for worker in self.pool if worker.job is None)
        worker.job = job
        with suppress(OSError):  # it died idle: wait() finds that out, by the same sign as a death at work
            worker.pipe.send(job)

    def wait(self) -> tuple[Job, Measurement]:
        while True:
            ready = wait([worker.pipe for worker in self.pool if worker.job is not None])
            for index, worker in enumerate(self.pool):
                if worker.pipe in ready:
                    assert worker.job is not None
                    job = worker.job
                    try:
                        outcome = worker.pipe.recv()
                    except (EOFError, ConnectionResetError):
                        worker.process.join()
                        self.pool[index] = self._start()
                        return job, Measurement(failure=_death(worker.process.exitcode))
                    worker.job = None
                    if isinstance(outcome, BaseException):
                        raise outcome
                    return job, outcome

    def close(self) -> None:
        for worker in self.pool:
            worker.process.kill()
        for worker in self.pool:
            worker.process.join()
            worker.pipe.close()


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        return f"its process was killed by {signal.Signals(-code).name}"
    return f"its process ended with status {code}"


def _work(evaluator: Evaluator, pipe: Connection, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to answer
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            outcome: Measurement | BaseException = evaluator.evaluate(job)
        except Exception as error:  # noqa: BLE001 - raised again in the driver
            outcome = error
        pipe.send(outcome)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
