"""A Ray cluster: other processes, and other machines."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le

from nas.evaluation import ERROR_FILE, Evaluator, Job, Measurement, measure
from nas.executors.executor import Deaths, Executor
from nas.files import write_text
from nas.inputs import InputError, first_line

logger = logging.getLogger("nas")
_PUSH_SECONDS = 1.0
_NAME_FILE = "checkpoints-name.txt"
_evaluators: dict[str, Evaluator] = {}  # in a worker: the last one, with what it keeps between jobs


class Ray(Executor):
    """Up to `workers` tasks at a time on a Ray cluster, whose nodes have this package installed.

    address: of the cluster, `auto` for the one that this machine belongs to, `ray://HOST:10001` from outside; by
        default one on this machine alone, which ends with the search.
    cpus, gpus: that a candidate gets; fractions of a GPU share it.
    checkpoints: where nodes keep what they have of a candidate, any path that fsspec knows (s3://..., gs://..., a
        mounted folder); by default the run's own folder, which all nodes must then see under the same path.

    The images are put into Ray's object store: they come to each node once, and its tasks share that memory. A task
    that dies is begun again from its checkpoint, see `Deaths`; the end of its node is nobody's fault.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        workers: int,
        *,
        address: str | None = None,
        cpus: Annotated[float, Gt(0), Le(1024)] = 1.0,
        gpus: Annotated[float, Ge(0), Le(64)] = 0.0,
        checkpoints: str | None = None,
    ) -> None:
        self.ray, self.workers, self.checkpoints, self.deaths = _ray(), workers, checkpoints, Deaths()
        self.threads = max(1, int(cpus))
        self.busy: dict[Any, Job] = {}
        self.started = not self.ray.is_initialized()
        if self.started:
            try:
                _knock(address)
                self.ray.init(
                    address=address, log_to_driver=False, include_dashboard=False if address is None else None
                )
            except (OSError, ValueError, RuntimeError) as error:
                reason = first_line(error)
                raise InputError(f"executor.address is {address!r}, where no Ray cluster answers: {reason}") from None
        self.task = self.ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(_work)
        self.shared = uuid.uuid4().hex, self.ray.put(evaluator), self.ray.put(evaluator.images())

    def submit(self, job: Job) -> None:
        name, evaluator, images = self.shared
        place, sent = self._place(job.folder), replace(job, folder=job.folder.absolute())  # nodes run elsewhere
        self.busy[self.task.remote(name, evaluator, images, sent, place, self.threads)] = job

    def wait(self) -> tuple[Job, Measurement]:
        while True:
            (done, *_), _ = self.ray.wait(list(self.busy), num_returns=1)
            job = self.busy.pop(done)
            try:
                outcome = self.ray.get(done)
            except self.ray.exceptions.RayError as error:
                if failure := self._blamed(job, error):
                    return job, failure
                self.submit(job)
                continue
            if isinstance(outcome, BaseException):
                raise outcome
            return job, outcome

    def _blamed(self, job: Job, error: Exception) -> Measurement | None:
        reason = f"its Ray task died: {type(error).__name__}, or took longer than {job.limit_seconds:.0f} s"
        if place := self._place(job.folder):
            job.folder.mkdir(parents=True, exist_ok=True)
            Mirror(place, job.folder).pull()  # what the dead one left says whose fault it is
        lost = isinstance(error, self.ray.exceptions.NodeDiedError | self.ray.exceptions.ObjectLostError)
        failure = None if lost else self.deaths.blamed(job, reason)
        if failure is None:
            logger.warning("candidate %d is gone on with in a new task: %s", job.number, reason)
        return failure

    def forget(self, folder: Path) -> None:
        if place := self._place(folder):
            Mirror(place, folder).remove()

    def _place(self, folder: Path) -> str | None:
        """Where the nodes keep a job's folder. Its run's part of the name is drawn once and lies beside it: runs of
        the same name, on other machines, may share `checkpoints`."""
        if self.checkpoints is None:
            return None
        name = folder.parent / _NAME_FILE
        if not name.exists():
            name.parent.mkdir(parents=True, exist_ok=True)
            write_text(name, f"{folder.absolute().parent.parent.name}-{uuid.uuid4().hex[:12]}")
        return f"{self.checkpoints.rstrip('/')}/{name.read_text(encoding='utf-8')}/{folder.name}"

    def close(self) -> None:
        for task in self.busy:
            self.ray.cancel(task, force=True)
        self.busy.clear()
        if self.started:
            self.ray.shutdown()


def _knock(address: str | None) -> None:
    """Raises OSError if nobody listens at host:port, for which Ray itself would wait for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        rule = f"needs Ray, which cannot be imported ({error}): pip install 'mobile-nas[ray]'"
        raise InputError(f"executor.name is 'ray', which {rule}") from None
    return ray


def _work(
    name: str, evaluator: Evaluator, images: Any, job: Job, place: str | None, threads: int
) -> Measurement | BaseException:
    """In a worker process of any node. What a job raises is returned, and raised again in the driver."""
    if name not in _evaluators:
        _evaluators.clear()
        evaluator.give(images)
        _evaluators[name] = evaluator
    torch.set_num_threads(threads)
    try:
        with _limit(job.limit_seconds):
            if place is None:
                return measure(_evaluators[name], job)
            with Mirror.of(place) as folder:
                return measure(_evaluators[name], replace(job, folder=folder))
    except torch.AcceleratorError:  # whatever this process does on its GPU from now on, it fails again
        os._exit(1)
    except Exception as error:  # noqa: BLE001 - raised again in the driver
        return error


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """The kernel ends this process after so many seconds, whatever it hangs in."""
    if seconds < 10**9:
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


class Mirror:
    """A folder of this machine and its copy at a path of fsspec, which is brought up to date while a job runs."""

    def __init__(self, place: str, folder: Path) -> None:
        import fsspec

        self.folder = folder
        self.system, self.place = fsspec.core.url_to_fs(place)
        self._known: dict[str, tuple[int, int]] = {}

    @classmethod
    @contextmanager
    def of(cls, place: str) -> Iterator[Path]:
        """A new folder with what is at `place`; what changes in it is copied there, at the latest at the end."""
        folder = Path(tempfile.mkdtemp(prefix="nas-job-"))
        mirror, over = cls(place, folder), threading.Event()
        thread = threading.Thread(target=mirror._follow, args=(over,), daemon=True)
        try:
            mirror.pull()
            thread.start()
            yield folder
            over.set()
            thread.join()
            mirror.push()
        finally:
            over.set()
            shutil.rmtree(folder, ignore_errors=True)

    def pull(self) -> None:
        if not self.system.exists(self.place):
            return
        for path in self.system.ls(self.place, detail=False):
            name = path.rstrip("/").rpartition("/")[2]
            if not name.startswith("."):
                self.system.get_file(path, str(self.folder / name))
                status = (self.folder / name).stat()
                self._known[name] = status.st_size, status.st_mtime_ns

    def push(self) -> None:
        """Copies what is new, each file as a whole."""
        for file in self.folder.glob("[!.]*"):
            status = file.stat()
            if self._known.get(file.name) != (state := (status.st_size, status.st_mtime_ns)):
                self.system.makedirs(self.place, exist_ok=True)
                self.system.put_file(str(file), f"{self.place}/.{file.name}.tmp")
                self.system.mv(f"{self.place}/.{file.name}.tmp", f"{self.place}/{file.name}")
                self._known[file.name] = state

    def remove(self) -> None:
        """Removes what is at its place, but fetches the traceback of a failure."""
        if self.system.exists(error := f"{self.place}/{ERROR_FILE}"):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.system.get_file(error, str(self.folder / ERROR_FILE))
        if self.system.exists(self.place):
            self.system.rm(self.place, recursive=True)

    def _follow(self, over: threading.Event) -> None:
        while not over.wait(_PUSH_SECONDS):
            try:
                self.push()
            except OSError as error:  # the last push, at the end, is not forgiven
                logger.warning("%s: cannot be written: %s", self.place, error)
