"""What a format is: how a network becomes a file, and how the file is run again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

Floats = NDArray[np.float32]
Predict = Callable[[Floats], Floats]
"""(batch, channels, height, width) normalised images to (batch, classes) logits."""


@dataclass(frozen=True)
class Card:
    """What a file says of its network: the image it wants is pixels / 255, minus `mean`, over `std`, by channel."""

    id: str
    channels: int
    resolution: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.resolution, self.resolution

    def texts(self) -> dict[str, str]:
        """Name to text, as formats keep it."""
        return {
            "id": self.id,
            "input": "float32 (batch, channels, height, width): RGB or grey pixels / 255, minus mean, over std",
            "resolution": str(self.resolution),
            "mean": json.dumps(self.mean),
            "std": json.dumps(self.std),
            "classes": json.dumps(self.classes, ensure_ascii=False),
        }


@dataclass(frozen=True)
class Format:
    """`write(network in evaluation mode, card, path)`; `load(path)` is what the runtime makes of it, `texts(path)` the
    card. `packages` are those whose versions a result depends on; `check` raises InputError if they are missing.
    `quantise(file, calibration images, path)` writes the same network in int8; None where that is not to be had.
    """

    suffix: str
    runtime: str
    packages: tuple[str, ...]
    check: Callable[[], Any]
    write: Callable[[nn.Module, Card, Path], None]
    load: Callable[[Path], Predict]
    texts: Callable[[Path], dict[str, str]]
    quantise: Callable[[Path, Floats, Path], None] | None = None
