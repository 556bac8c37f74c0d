"""How long one image takes, where it will be deployed. A new runtime: one file here, one line in RUNTIMES."""

from nas.latency.device import Device, plan
from nas.latency.predict import LATENCY, Latency, latency_of
from nas.latency.runtime import Runtime
from nas.latency.runtimes import (
    RUNTIMES,
    check_int8,
    check_runtime,
    import_table,
    in_int8,
    open_source,
    precision_of,
)
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
    "in_int8",
    "latency_of",
    "open_source",
    "plan",
    "precision_of",
    "validate",
]
