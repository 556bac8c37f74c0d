"""ExecuTorch with XNNPACK on the CPU: what `nas export --format executorch` writes, run through its Python bindings."""

from __future__ import annotations

from torch import nn

from nas.export.executorch import lowered, needed, opened
from nas.latency.eager import with_values
from nas.latency.measure import RunOnce
from nas.latency.runtime import Runtime


def _open(module: nn.Module, shape: tuple[int, int, int], threads: int) -> RunOnce:
    module, image = with_values(module, shape, "cpu")
    run = opened(lowered(module, shape, {}), threads)
    return lambda: run([image])


EXECUTORCH = Runtime(("executorch",), needed, True, _open)
