"""How long one image takes, where it will be deployed. A new runtime: one file here, one line in RUNTIMES."""

from nas.latency.eager import CUDA, EAGER
from nas.latency.onnx import ONNXRUNTIME
from nas.latency.predict import LATENCY, Latency, latency_of
from nas.latency.runtime import Runtime
from nas.latency.table import Bench, Table
from nas.latency.validate import validate

__all__ = ["LATENCY", "RUNTIMES", "Bench", "Latency", "Runtime", "Table", "latency_of", "validate"]

RUNTIMES: dict[str, Runtime] = {"onnxruntime": ONNXRUNTIME, "eager": EAGER, "cuda": CUDA}
