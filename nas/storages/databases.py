"""The record in a database, and who may write it."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, RDBStorage

from nas.inputs import InputError, first_line, refuse
from nas.storages.lock import locked

_SQLITE_WAIT_SECONDS = 60
_POSTGRESQL_HINT = "pip install 'mobile-nas[postgresql]'"


def open_database(url: str, where: str) -> BaseStorage:
    """The record in a database, its tables made if it is empty.

    Raises InputError, which does not show a password, if it cannot be opened; `where` is the place of the URL.
    """
    from sqlalchemy.engine import make_url  # 0.2 s that a journal does without

    try:
        options: dict[str, Any] = {"pool_pre_ping": True}  # a candidate may train longer than a connection lives
        if make_url(url).get_backend_name() == "sqlite":
            options = {"connect_args": {"timeout": _SQLITE_WAIT_SECONDS}}
        tables = RDBStorage(url, engine_kwargs=options)
        storage = optuna.storages.get_storage(tables)
        weakref.finalize(storage, tables.engine.dispose)  # Optuna leaves its connections open
        return storage
    except Exception as error:  # noqa: BLE001 - drivers raise their own kinds
        missing = isinstance(error, ImportError) and "psycopg" in str(error)
        reason = _POSTGRESQL_HINT if missing else first_line(error).replace(url, without_password(url))
        rule = f"the URL of a database that can be opened, such as sqlite:///x.db ({reason or type(error).__name__})"
        raise refuse(where, without_password(url), rule) from None


def absolute(url: str, base: Path, where: str) -> str:
    """The URL, with the file of an SQLite one counted from `base`. Raises InputError if SQLite would be in memory."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        address = make_url(url)
    except (ArgumentError, ValueError):
        return url  # that it cannot be opened is said where it is
    file = address.database
    if address.get_backend_name() != "sqlite" or (file or "").startswith("file:"):
        return url
    if file in {None, "", ":memory:"}:
        raise refuse(where, url, "a file, such as sqlite:///x.db: what is in memory ends with the search")
    return address.set(database=str(base / str(file))).render_as_string(hide_password=False)


def without_password(url: str) -> str:
    """The URL with *** for its password, and without one among its options."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        address = make_url(url)
        secrets = [name for name in address.query if "pass" in name.lower()]
        return address.difference_update_query(secrets).render_as_string(hide_password=True)
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

    address = make_url(url)
    what = f"storage {without_password(url)!r}: study {study}"
    if address.get_backend_name() == "sqlite" and address.database not in {None, "", ":memory:"}:
        with locked(Path(f"{address.database}.{study}.lock"), "searched", what):
            yield
    elif address.get_backend_name() == "postgresql":
        key = int.from_bytes(hashlib.sha256(f"nas/{study}".encode()).digest()[:8], "big", signed=True)
        engine = create_engine(address, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            if not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}).scalar():
                raise InputError(f"{what} is being searched by another process")
            yield
    else:
        yield
