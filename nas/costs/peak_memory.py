"""Activation memory of inference, operator by operator (MobileNetV2, section 5.1, equation 4)."""

from __future__ import annotations

from nas.costs.cost import Cost
from nas.trace import Trace

ELEMENT_BYTES = {"float32": 4, "float16": 2, "int8": 1}


def operator_elements(trace: Trace) -> int:
    """Elements at the worst operator of a layer: one image, weights not counted.

    Every operator materialises its output beside its inputs; a tensor is freed behind its last reader (the input of
    a shortcut lives until the addition), one that nobody reads is the layer's output. Normalisation and activation
    work in place, as a runtime folds them. Operators run in the order of the module's code.
    """
    last = {number: step for step, operator in enumerate(trace.operators) for number in operator.reads}
    live, peak = {0}, trace.elements[0]
    for step, operator in enumerate(trace.operators):
        live.add(operator.writes)
        peak = max(peak, sum(trace.elements[number] for number in live))
        live = {number for number in live if last.get(number, len(trace.operators)) > step}
    return peak


def _bytes(dtype: str) -> Cost:
    text = f"activation memory at the worst operator, {dtype}, one image"
    return Cost(text, lambda trace: ELEMENT_BYTES[dtype] * operator_elements(trace), "max")


PEAK_MEMORY_BYTES = _bytes("float32")
PEAK_MEMORY_INT8_BYTES = _bytes("int8")
