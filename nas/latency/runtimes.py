"""The table of runtimes, and the devices that were imported beside them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

from nas.files import write_json
from nas.inputs import InputError, choices, refuse
from nas.latency.device import Device, device_file, device_names
from nas.latency.eager import CUDA, EAGER
from nas.latency.executorch import EXECUTORCH
from nas.latency.onnx import ONNXRUNTIME
from nas.latency.probe import REFERENCE
from nas.latency.runtime import Runtime
from nas.latency.table import Bench, Progress, Table

RUNTIMES: dict[str, Runtime] = {
    "onnxruntime": ONNXRUNTIME,
    "executorch": EXECUTORCH,
    "eager": EAGER,
    "cuda": CUDA,
}


def check_runtime(name: str, where: str) -> None:
    """Raises InputError for what is neither in RUNTIMES nor an imported device."""
    if name not in RUNTIMES and name not in device_names():
        raise refuse(where, name, choices([*RUNTIMES, *device_names()]))


def check_int8(name: str, where: str) -> None:
    """Raises InputError for a runtime that has no int8."""
    with_int8 = [each for each, runtime in RUNTIMES.items() if runtime.int8 is not None]
    if name not in with_int8:
        raise refuse(where, name, f"for int8 {choices(with_int8)}")


def open_source(name: str, threads: int, on_progress: Progress) -> Bench | Device:
    """Where latencies come from: this machine, or the table of a device. Raises InputError if it is not there."""
    check_runtime(name, "runtime")
    if name in RUNTIMES:
        return Bench(name, RUNTIMES[name], threads, on_progress)
    return Device.load(name, threads)


def import_table(file: Path, name: str) -> Path:
    """Keeps a table that time_models.py wrote as the runtime `name`. Raises InputError if it is none.

    It need not be whole: a space of which something was not timed is refused where it is wanted.
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
    write_json(device_file(name), table.to_dict())
    return device_file(name)
