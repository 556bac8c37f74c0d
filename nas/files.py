"""Files that are whole or not there: written under a temporary name, synced, then renamed. And where caches are."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from uuid import uuid4

_STALE_SECONDS = 3600
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")
FOLDER_NAME = "the name of a folder: at most 80 letters, digits and . _ -, the first a letter or digit"


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Calls `write(temporary)` and renames its file to `path`: a reader, or a kill, never meets half a file.

    The temporary name is of this call alone, so several processes, threads and machines may write one path; the last
    one's file stays. Makes the folder. Raises OSError, with `path` as it was, if it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:12]}.tmp")
    try:
        write(temporary)
        with open(temporary, "r+b") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def is_folder_name(value: str) -> bool:
    """As `FOLDER_NAME` says: it cannot leave the folder it is meant for."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", value) is not None


def write_text(path: Path, text: str) -> None:
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, data: Any) -> None:
    """Plain JSON, which has no NaN: raises ValueError for one."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n")


def sweep(folder: Path, seconds: float = _STALE_SECONDS) -> None:
    """Removes the temporary files that writers killed in `folder` left behind: those older than so many `seconds`."""
    for file in folder.glob(".*.tmp"):
        if not _TEMPORARY.fullmatch(file.name):
            continue
        try:
            if time.time() - file.stat().st_mtime > seconds or not seconds:
                file.unlink()
        except FileNotFoundError:
            continue


def code_digest(files: Iterable[Path], classes: Iterable[type], *facts: object) -> str | None:
    """Of what is in code files, and of other facts: another one where a number that is kept may be another.

    None if the code of one of the `classes`, such as a block of the user's own, is not in these files.
    """
    files = sorted(files)
    known = {str(file) for file in files}
    if any(str(getattr(sys.modules[each.__module__], "__file__", "")) not in known for each in classes):
        return None
    code = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for file in files:
        code.update(file.read_bytes())
    return code.hexdigest()[:16]


def data_folder() -> Path:
    """$XDG_DATA_HOME/nas, else ~/.local/share/nas: what the user gave us to keep."""
    return Path(os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share"), "nas").absolute()


def cache_folder() -> Path:
    """$NAS_CACHE, else $XDG_CACHE_HOME/nas, else ~/.cache/nas. All in it can be deleted: it is made anew."""
    if named := os.environ.get("NAS_CACHE"):
        return Path(os.path.abspath(os.path.expanduser(named)))
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "nas").absolute()
