"""What the family has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from nas.evaluation import Job, Measurement


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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
