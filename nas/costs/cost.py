"""What a cost is: a number per traced layer, and how layers combine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from nas.trace import Trace


@dataclass(frozen=True)
class Cost:
    """A number known without training. `of` gives a layer's share; a network's is their sum or their maximum."""

    help: str
    of: Callable[[Trace], int]
    combine: Literal["sum", "max"] = "sum"
