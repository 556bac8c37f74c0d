"""Processes on this machine."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from nas.evaluation import Evaluator, Job, Measurement, measure
from nas.executors.executor import Deaths, Executor
from nas.inputs import first_line
from nas.machine import end_with_parent

logger = logging.getLogger("nas")
_GRACE_SECONDS = 10.0
_LOOK_SECONDS = 5.0


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    place: int
    job: Job | None = None
    seconds: float = 0.0  # that it has had the job

    def end(self, grace_seconds: float = 0.0) -> int | None:
        """The status of the process; kills it if it lives on after `grace_seconds`."""
        self.process.join(grace_seconds)
        self.process.kill()
        self.process.join()
        self.pipe.close()
        return self.process.exitcode


class Processes(Executor):
    """Up to `workers` spawned processes, started when they are needed, this process' threads divided among them.

    Where there are several CUDA devices they are, too: `cuda` is to each worker the next of them.

    A job whose process dies, loses its GPU, or takes longer than its limit, is begun again on a new one, see `Deaths`.
    A worker whose driver dies ends at once, so that nobody else writes into the run that a new driver takes over.
    """

    def __init__(self, evaluator: Evaluator, workers: int) -> None:
        self.evaluator, self.workers = evaluator, workers
        self.threads = max(1, torch.get_num_threads() // workers)
        self.pool: list[_Worker] = []
        self.deaths, self.looked = Deaths(), time.monotonic()

    def submit(self, job: Job) -> None:
        worker = self._free()
        self._look()
        worker.job, worker.seconds = job, 0.0
        try:
            worker.pipe.send(job)
        except (BrokenPipeError, ConnectionResetError):  # it died on the way here: `wait` finds that out
            return

    def wait(self) -> tuple[Job, Measurement]:
        while True:
            ready = wait([worker.pipe for worker in self.pool if worker.job is not None], _LOOK_SECONDS)
            self._look()
            for worker in [worker for worker in self.pool if worker.job is not None]:
                if ended := self._ended(worker, worker.pipe in ready):
                    return ended

    def _look(self) -> None:
        """Time that this process was itself stopped for (Ctrl-Z, a machine asleep) is no worker's."""
        now = time.monotonic()
        passed = min(now - self.looked, 2 * _LOOK_SECONDS)
        self.looked = now
        for worker in self.pool:
            worker.seconds += passed

    def _ended(self, worker: _Worker, is_ready: bool) -> tuple[Job, Measurement] | None:
        """The worker's job with its outcome; None if it has none yet, or was begun again."""
        job = worker.job
        assert job is not None
        if is_ready:
            try:
                outcome = worker.pipe.recv()
            except (EOFError, OSError):  # it is dead, or about to be: its status says of what
                return self._again(worker, job, _death(worker.end(_GRACE_SECONDS)))
            if isinstance(outcome, torch.AcceleratorError):  # whatever that process does there, it fails again
                worker.end()
                return self._again(worker, job, f"its GPU failed: {first_line(outcome)}")
            worker.job = None
            if isinstance(outcome, BaseException):
                raise outcome
            return job, outcome
        if worker.seconds > job.limit_seconds:
            worker.end()
            return self._again(worker, job, f"took longer than {job.limit_seconds:.0f} s, and hangs")
        return None

    def _again(self, worker: _Worker, job: Job, reason: str) -> tuple[Job, Measurement] | None:
        self.pool.remove(worker)
        if failure := self.deaths.blamed(job, reason):
            return job, failure
        logger.warning("candidate %d is gone on with in a new process: %s", job.number, reason)
        self.submit(job)
        return None

    def close(self) -> None:
        while self.pool:
            self.pool.pop().end()

    def _free(self) -> _Worker:
        """A living worker without a job; one that died in its sleep is replaced, it costs no candidate."""
        for worker in [worker for worker in self.pool if worker.job is None]:
            if worker.process.is_alive():
                return worker
            self.pool.remove(worker)
            worker.end()
        assert len(self.pool) < self.workers, "a job was submitted, but no worker is free"
        worker = self._start()
        self.pool.append(worker)
        return worker

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        place = min(set(range(self.workers)) - {worker.place for worker in self.pool})
        process = context.Process(target=_work, args=(self.evaluator, theirs, self.threads, place), daemon=True)
        with _interrupts_held():
            process.start()
        theirs.close()
        return _Worker(process, ours, place)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """A process that is started inside never sees Ctrl-C, which is the driver's to answer; the driver sees it later."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # or the first start does it, which lets them through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _death(status: int | None) -> str:
    if status is not None and status < 0:
        name = signal.Signals(-status).name
        return f"its process was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"its process ended with status {status}"


def choose_gpu(place: int) -> None:
    """Makes `cuda` another device in each of the processes that are side by side."""
    if (count := torch.cuda.device_count()) > 1:
        torch.cuda.set_device(place % count)


def _work(evaluator: Evaluator, pipe: Connection, threads: int, place: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be held back
    end_with_parent()
    torch.set_num_threads(threads)
    if evaluator.device == "cuda":
        choose_gpu(place)
    parent = multiprocessing.parent_process()
    assert parent is not None
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        if not parent.is_alive():  # it was stopped before the kernel knew, and somebody let it go on
            return
        try:
            outcome: Measurement | BaseException = measure(evaluator, job)
        except Exception as error:  # noqa: BLE001 - raised again in the driver
            outcome = error
        pipe.send(outcome)
