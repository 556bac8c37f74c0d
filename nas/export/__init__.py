"""Networks as files that other runtimes read. A new format: one file here, one line in EXPORTERS."""

from nas.export.executorch import EXECUTORCH
from nas.export.format import Card, Format
from nas.export.onnx import ONNX
from nas.export.proof import write_proven

__all__ = ["EXPORTERS", "Card", "Format", "write_proven"]

EXPORTERS: dict[str, Format] = {"onnx": ONNX, "executorch": EXECUTORCH}
