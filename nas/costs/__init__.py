"""What a network costs before it is trained. A new cost: one file here, one line in COSTS."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from nas.architecture import Architecture, Stage
from nas.costs.block_memory import BLOCK_MEMORY_BYTES
from nas.costs.cost import Cost
from nas.costs.macs import FLOPS, MACS
from nas.costs.params import PARAMS
from nas.costs.peak_memory import PEAK_MEMORY_BYTES, PEAK_MEMORY_INT8_BYTES
from nas.trace import trace_stage

COSTS: dict[str, Cost] = {
    "params": PARAMS,
    "macs": MACS,
    "flops": FLOPS,
    "peak_memory_bytes": PEAK_MEMORY_BYTES,
    "peak_memory_int8_bytes": PEAK_MEMORY_INT8_BYTES,
    "block_memory_bytes": BLOCK_MEMORY_BYTES,
}


@cache
def stage_cost(name: str, stage: Stage, channels: int, resolution: int) -> int:
    """One cost of the layers of a stage on an input of `channels` x `resolution`^2 (0 where it has none)."""
    return combine(name, (COSTS[name].of(trace) for trace in trace_stage(stage, channels, resolution)))


def cost(architecture: Architecture, name: str) -> int:
    """One cost of an architecture. Raises KeyError for a name not in COSTS."""
    return combine(name, (stage_cost(name, *row) for row in architecture.walk()))


def combine(name: str, shares: Iterable[int]) -> int:
    """A cost of several parts, from those of each."""
    return sum(shares) if COSTS[name].combine == "sum" else max(shares, default=0)


def costs(architecture: Architecture, names: Iterable[str] = COSTS) -> dict[str, int]:
    """Several costs of an architecture by name."""
    return {name: cost(architecture, name) for name in names}
