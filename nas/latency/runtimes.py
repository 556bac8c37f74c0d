"""The table of runtimes, and the devices that were imported beside them."""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from pathlib import Path
from typing import Literal

from nas.files import write_json
from nas.inputs import InputError, choices, refuse
from nas.latency.device import Device, device_file, device_names, kept_table
from nas.latency.eager import CUDA, EAGER
from nas.latency.executorch import EXECUTORCH
from nas.latency.onnx import INT8, ONNXRUNTIME
from nas.latency.probe import REFERENCE
from nas.latency.runtime import Runtime
from nas.latency.table import Bench, Progress, Table, machine_of

RUNTIMES: dict[str, Runtime] = {
    "onnxruntime": ONNXRUNTIME,
    "onnxruntime-int8": INT8,
    "executorch": EXECUTORCH,
    "eager": EAGER,
    "cuda": CUDA,
}


def check_runtime(name: str, where: str) -> None:
    """Raises InputError for what is neither in RUNTIMES nor an imported device."""
    if name not in RUNTIMES and name not in device_names():
        raise refuse(where, name, choices([*RUNTIMES, *device_names()]))


def check_int8(name: str, where: str) -> None:
    """Raises InputError for a runtime that does not stand in RUNTIMES with int8, too."""
    with_int8 = [each for each in RUNTIMES if in_int8(each) in RUNTIMES]
    if name not in with_int8:
        raise refuse(where, name, f"for int8 {choices(with_int8)}")


def in_int8(name: str) -> str:
    """The runtime that is this one with networks in int8."""
    return f"{name}-int8"


def precision_of(name: str) -> Literal["float32", "int8"]:
    """Of the networks that a runtime runs; of a device they are the files of `plan`, in float32."""
    return RUNTIMES[name].precision if name in RUNTIMES else "float32"


def open_source(name: str, threads: int, on_progress: Progress) -> Bench | Device:
    """Where latencies come from: this machine, or the table of a device. Raises InputError if it is not there."""
    check_runtime(name, "runtime")
    if name in RUNTIMES:
        return Bench(name, RUNTIMES[name], threads, on_progress)
    return Device.load(name, threads)


def import_table(file: Path, name: str) -> Path:
    """Keeps a table that time_models.py wrote as the runtime `name`. Raises InputError if it is none.

    It need not be whole: a space of which something was not timed is refused where it is wanted. It is added to what
    the same machine, threads and packages took before under this name, timed in the same way, or stands in its place.
    """
    if name in RUNTIMES:
        raise refuse("--name", name, "another one: it is a runtime of this machine")
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,39}", name):
        raise refuse("--name", name, "at most 40 small letters, digits and _ -, the first a letter")
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise InputError(f"{file}: is not JSON") from None
    table = Table.of(data, str(file))
    if table.manifest.get("reference") != REFERENCE.id:
        raise refuse(f"{file}: manifest.reference", table.manifest.get("reference"), f"{REFERENCE.id}: plan again")
    if not 0 < table.reference_ms < math.inf:
        raise refuse(f"{file}: reference_ms", table.reference_ms, "more than 0")
    kept = device_file(name)
    before = None
    with suppress(InputError):  # there is none, or one that is damaged: it is replaced
        before = kept_table(name)
    if before is not None:
        table = _added(before, table, file, name)
    write_json(kept, table.to_dict())
    return kept


def _added(before: Table, new: Table, file: Path, name: str) -> Table:
    there, here = (
        machine_of(table.manifest) | {key: table.manifest.get(key) for key in ("threads", "reference", "method")}
        for table in (before, new)
    )
    if there == here:
        return before.joined(new)
    if not new.layers and before.layers:
        other = ", ".join(f"{key} {here.get(key)}" for key in {**there, **here} if there.get(key) != here.get(key))
        raise InputError(f"{file}: has whole networks alone, and {other}, other than {name} had: time its space again")
    return new
