"""The record in a file: every write is a line at its end."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from optuna.storages import BaseStorage
from optuna.storages.journal import (
    JournalFileBackend,
    JournalFileOpenLock,
    JournalFileSymlinkLock,
    JournalStorage,
)

from nas.inputs import InputError, first_line

logger = logging.getLogger("nas")


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
        reason = first_line(f"{type(error).__name__}: {error}")[:200]
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
