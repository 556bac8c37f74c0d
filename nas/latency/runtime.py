"""What a runtime is: how a network is made ready to run there, once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from nas.latency.measure import RunOnce


@dataclass(frozen=True)
class Runtime:
    """`open(module, shape, threads)` makes a module that was built without values (nas.meta.Blank) run, on random
    weights and one random image of `shape` (channels, height, width).

    It raises `nas.inputs.InputError`, with the operator's name, if the runtime cannot run the module. `check` raises
    one that says what to install; `packages` are those whose versions a latency depends on.
    """

    packages: tuple[str, ...]
    check: Callable[[], object]
    on_caller: bool
    """Whether a run with one thread is all in the thread that calls it."""
    open: Callable[[nn.Module, tuple[int, int, int], int], RunOnce]
    precision: Literal["float32", "int8"] = "float32"
    """int8: a network runs quantised, see `nas.export.int8`."""
