"""Activation memory of inference, operator by operator (MobileNetV2, section 5.1, equation 3)."""

from __future__ import annotations

from nas.costs.cost import Cost
from nas.trace import Trace

FLOAT32_BYTES = 4


def peak_memory_bytes(trace: Trace) -> int:
    """Bytes at the worst operator of a layer: float32, one image, weights not counted.

    Every operator materialises its output beside its inputs; a tensor is freed behind its last reader (the input of
    a shortcut lives until the addition), one that nobody reads is the layer's output. Normalisation and activation
    work in place, as a runtime folds them.
    """
    last = {number: step for step, operator in enumerate(trace.operators) for number in operator.reads}
    live, peak = {0}, trace.elements[0]
    for step, operator in enumerate(trace.operators):
        live.add(operator.writes)
        peak = max(peak, sum(trace.elements[number] for number in live))
        live = {number for number in live if last.get(number, len(trace.operators)) > step}
    return FLOAT32_BYTES * peak


PEAK_MEMORY_BYTES = Cost("activation memory at the worst operator, float32, one image", peak_memory_bytes, "max")
