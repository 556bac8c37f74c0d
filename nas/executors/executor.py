"""What the family has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from nas.evaluation import Job, Measurement, found

DEATHS = 3


class Executor(ABC):
    """Runs jobs somewhere, at most `workers` at a time. A context manager: leaving it ends all work at once.

    Work that is ended is not lost: what it has of a job lies in the job's folder, and the job may be submitted again.
    """

    workers: int

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Takes a job. There must be a free worker."""

    @abstractmethod
    def wait(self) -> tuple[Job, Measurement]:
        """The next finished job. Blocks; there must be a submitted one. Raises what `measure` raises."""

    @abstractmethod
    def close(self) -> None:
        """Ends all work at once; nothing is submitted afterwards."""

    def forget(self, folder: Path) -> None:
        """What else there is of the job of this folder is not needed any more."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Deaths:
    """The processes that died, or were ended because they hung, in the middle of a job: whose fault is it?

    Somebody may have killed them, a machine may have gone: the job goes on from its checkpoint on a new one. But not
    after DEATHS of them without anything new in the job's folder.
    """

    def __init__(self) -> None:
        self._seen: dict[int, tuple[object, int]] = {}  # by number: what was in the folder, at how many deaths

    def blamed(self, job: Job, reason: str) -> Measurement | None:
        """The job's failure, if it is its own fault; None if it is to be begun again."""
        now = found(job.folder)
        before, count = self._seen.get(job.number, (now, 0))
        count = count + 1 if now == before else 1
        self._seen[job.number] = now, count
        if count < DEATHS:
            return None
        return Measurement(failure=f"{reason}, {DEATHS} times and without an epoch between")
