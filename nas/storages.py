"""Where the record of a study is kept: a journal in the run's folder, or a database, opened so that it stays whole."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages.journal import (
    JournalFileBackend,
    JournalFileOpenLock,
    JournalFileSymlinkLock,
    JournalStorage,
)

from nas.inputs import InputError, refuse

logger = logging.getLogger("nas")
_SQLITE_WAIT_SECONDS = 60
_POSTGRESQL_HINT = "pip install 'mobile-nas[postgresql]'"


# The journal


def open_journal(journal: Path, repair: bool) -> BaseStorage:
    """The record in a journal file.

    `repair` (only for its one driver) mends what a killed writer leaves: its lock, and half a last line.
    Raises InputError if it is damaged in the middle.
    """
    if repair:
        for lock in journal.parent.glob(f"{journal.name}.lock*"):
            lock.unlink(missing_ok=True)
        mend_journal(journal)
    lock_type = _lock_type(journal) if repair else JournalFileSymlinkLock
    try:
        return JournalStorage(JournalFileBackend(str(journal), lock_type(str(journal))))
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - foreign lines raise whatever replaying makes of them
        reason = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
        raise InputError(f"{journal}: is damaged in the middle ({reason}); restore it from a copy") from None


def _lock_type(journal: Path) -> type[JournalFileSymlinkLock | JournalFileOpenLock]:
    """Optuna's lock for network file systems, a symbolic link; its other one where there are none (exFAT, some SMB)."""
    probe = journal.with_name(f"{journal.name}.lock.probe")
    try:
        os.symlink(journal, probe)
        probe.unlink()
    except (OSError, NotImplementedError):
        return JournalFileOpenLock
    return JournalFileSymlinkLock


def mend_journal(journal: Path) -> None:
    """Cuts half a last line off a journal (a torn write) and keeps it beside: appending to it would spoil the file."""
    if not journal.exists():
        return
    content = journal.read_bytes()
    whole = content.rfind(b"\n") + 1
    while whole and not _is_entry(content[(before := content.rfind(b"\n", 0, whole - 1) + 1) : whole]):
        whole = before
    if whole < len(content):
        torn = journal.with_suffix(".torn")
        torn.write_bytes(content[whole:])
        logger.warning("%s: its last line was torn; it is now in %s", journal, torn.name)
        with open(journal, "r+b") as file:
            file.truncate(whole)


def _is_entry(line: bytes) -> bool:
    try:
        return "op_code" in json.loads(line)
    except (ValueError, TypeError, RecursionError):
        return False


# Databases


def open_database(url: str, where: str) -> BaseStorage:
    """The record in a database, its tables made if it is empty.

    Raises InputError, which does not show a password, if it cannot be opened; `where` is the place of the URL.
    """
    from sqlalchemy.engine import make_url  # 0.2 s that a journal does without

    try:
        options: dict[str, Any] = {"pool_pre_ping": True}  # a candidate may train longer than a connection lives
        if make_url(url).get_backend_name() == "sqlite":
            options = {"connect_args": {"timeout": _SQLITE_WAIT_SECONDS}}
        return optuna.storages.get_storage(RDBStorage(url, engine_kwargs=options))
    except Exception as error:  # noqa: BLE001 - drivers raise their own kinds
        missing = isinstance(error, ImportError) and "psycopg" in str(error)
        reason = _POSTGRESQL_HINT if missing else str(error).partition("\n")[0].replace(url, shown(url))
        rule = f"the URL of a database that can be opened, such as sqlite:///x.db ({reason or type(error).__name__})"
        raise refuse(where, shown(url), rule) from None


def shown(url: str) -> str:
    """The URL with *** for its password."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return url.rpartition("@")[2]


@contextmanager
def sole_driver(url: str, study: str) -> Iterator[None]:
    """Keeps other drivers out of a study in a database, whatever their run folders; ends with the process.

    SQLite: a lock file beside the database. PostgreSQL: an advisory lock of a connection of its own. Others have none.
    Raises InputError if another driver has it.
    """
    from sqlalchemy import create_engine, text
    from sqlalchemy.engine import make_url
    from sqlalchemy.pool import NullPool

    address, taken = make_url(url), f"storage {shown(url)!r}: study {study} is being searched by another process"
    if address.get_backend_name() == "sqlite" and address.database not in {None, "", ":memory:"}:
        lock = FileLock(f"{address.database}.{study}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(taken) from None
        try:
            yield
        finally:
            lock.release()
    elif address.get_backend_name() == "postgresql":
        key = int.from_bytes(hashlib.sha256(f"nas/{study}".encode()).digest()[:8], "big", signed=True)
        engine = create_engine(address, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            if not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}).scalar():
                raise InputError(taken)
            yield
    else:
        yield
