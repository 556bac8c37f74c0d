"""Activation memory of inference in both readings of MobileNetV2, section 5.1, for any element type."""

from __future__ import annotations

from nas.architecture import Architecture
from nas.costs.block_memory import block_elements
from nas.costs.peak_memory import ELEMENT_BYTES, operator_elements
from nas.inputs import choices, refuse
from nas.trace import trace


def memory_bytes(
    architecture: Architecture, reading: str = "operator", dtype: str = "float32", splits: int | None = None
) -> int:
    """Bytes of activations at the worst moment of an inference on one image; weights and workspace not counted.

    `reading` "operator": every operator materialises its output beside its inputs. "block": a block is one operator,
    whose inner tensors are computed in `splits` pieces (1: at once; None: one channel at a time). Layers follow each
    other, so that besides a layer's own tensors nothing is alive: the network needs what its worst layer needs.
    `dtype` "float32", "float16" or "int8" is that of all tensors; an int8 runtime that adds up pieces in 32 bits needs
    more for the output. Raises InputError for another reading or dtype, or splits below 1 or not of the block reading.
    """
    if reading not in ("operator", "block"):
        raise refuse("reading", reading, choices(("operator", "block")))
    if dtype not in ELEMENT_BYTES:
        raise refuse("dtype", dtype, choices(ELEMENT_BYTES))
    if splits is not None and (reading != "block" or splits < 1):
        raise refuse("splits", splits, "at least 1, and only of the reading block")
    traces = set(trace(architecture))
    elements: list[int] = [block_elements(x, splits) if reading == "block" else operator_elements(x) for x in traces]
    return ELEMENT_BYTES[dtype] * max(elements, default=0)
