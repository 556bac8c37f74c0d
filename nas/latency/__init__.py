"""How long one image takes, where it will be deployed. A new runtime: one file here, one line in RUNTIMES."""

from nas.latency.device import Device, plan
from nas.latency.predict import LATENCY, Latency, latency_of
from nas.latency.runtime import Runtime
from nas.latency.runtimes import RUNTIMES, check_int8, check_runtime, import_table, open_source
from nas.latency.table import Bench, Table
from nas.latency.validate import validate

__all__ = [
    "LATENCY",
    "RUNTIMES",
    "Bench",
    "Device",
    "Latency",
    "Runtime",
    "Table",
    "check_int8",
    "check_runtime",
    "import_table",
    "latency_of",
    "open_source",
    "plan",
    "validate",
]
