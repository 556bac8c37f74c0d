"""One process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from nas.inputs import InputError


@contextmanager
def locked(file: Path, done: str, what: str = "") -> Iterator[None]:
    """Makes the file's folder and keeps other processes out; the lock ends with its process.

    Raises InputError if another process has it (`what`, or its folder, is being `done`), or the folder cannot be
    written.
    """
    folder, lock = file.parent, FileLock(file)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        rule = "wait for it, or stop it"
        raise InputError(f"{what or f'{folder}:'} is being {done} by another process; {rule}") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from None
    except NotImplementedError:
        raise InputError(f"{folder}: is on a file system without locks; choose a folder on another") from None
    try:
        yield
    finally:
        lock.release()
