"""The table of runtimes, and the devices that were imported beside them."""

from __future__ import annotations

from nas.inputs import choices, refuse
from nas.latency.device import Device, device_names
from nas.latency.eager import CUDA, EAGER
from nas.latency.onnx import ONNXRUNTIME
from nas.latency.runtime import Runtime
from nas.latency.table import Bench, Progress

RUNTIMES: dict[str, Runtime] = {"onnxruntime": ONNXRUNTIME, "eager": EAGER, "cuda": CUDA}


def check_runtime(name: str, where: str) -> None:
    """Raises InputError for what is neither in RUNTIMES nor an imported device."""
    if name not in RUNTIMES and name not in device_names():
        raise refuse(where, name, choices([*RUNTIMES, *device_names()]))


def open_source(name: str, threads: int, on_progress: Progress) -> Bench | Device:
    """Where latencies come from: this machine, or the table of a device. Raises InputError if it is not there."""
    check_runtime(name, "runtime")
    if name in RUNTIMES:
        return Bench.kept(name, RUNTIMES[name], threads, on_progress)
    return Device.load(name, threads)
