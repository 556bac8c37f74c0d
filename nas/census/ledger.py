"""The costs of many layers: each distinct layer is traced once, and what was seen is kept on disk for the next time.

A trace takes some 2 ms, and a large space has thousands of layers.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

from nas.architecture import Layer
from nas.blocks import block_type
from nas.costs import COSTS
from nas.files import cache_folder, code_digest, write_json
from nas.machine import cores
from nas.trace import trace_layer

WITHOUT_COST = frozenset({"activation"})
"""Options that change no cost (a test holds them to it): layers that differ in nothing else are traced once."""
MOST_LAYERS = 6_000
"""Distinct layers that are traced for one space; beyond, its costs are sampled. A bound in layers and not in seconds:
what is drawn must not depend on the machine."""

WORTH_KEEPING = 100
"""Layers, if not fewer were traced anew, that are written to disk."""

WORTH_FORKING = 300
"""New layers that are traced by more than one process; half a second's work."""


class TooManyLayers(Exception):  # noqa: N818 - a bound, not a fault
    """A space has more distinct layers than are traced for it."""


def layer_costs(layers: Iterable[Layer]) -> dict[Layer, tuple[int, ...]]:
    """The costs of every layer in the order of COSTS. Raises TooManyLayers."""
    plain = {layer: _plain(layer) for layer in layers}
    needed = set(plain.values())
    if len(needed) > MOST_LAYERS:
        raise TooManyLayers(f"{len(needed):,} distinct layers")
    file = _file({layer.block for layer in needed})
    kept = _read(file) if file else {}
    names = {layer: _name(layer) for layer in needed}
    # In a fixed order: a set of layers has another in every process.
    unknown = sorted(((name, layer) for layer, name in names.items() if name not in kept), key=lambda item: item[0])
    new = dict(zip((name for name, _ in unknown), _traced([layer for _, layer in unknown]), strict=True))
    kept |= new
    if len(new) >= WORTH_KEEPING and file:
        # It is a convenience: a disk that is full or read-only must not stop anyone.
        with suppress(OSError):
            write_json(file, _read(file) | kept)
    return {layer: tuple(kept[names[same]]) for layer, same in plain.items()}


def _traced(layers: list[Layer]) -> list[list[int]]:
    """The costs of new layers; of many, each core takes some, where processes are cheap to fork and no thread runs."""
    forks = sys.platform == "linux" and threading.active_count() == 1  # elsewhere it is not safe
    if len(layers) < WORTH_FORKING or not forks or cores() == 1:
        return list(map(_costs, layers))
    with multiprocessing.get_context("fork").Pool(cores()) as pool:
        return pool.map(_costs, layers, chunksize=WORTH_FORKING // 10)


def _costs(layer: Layer) -> list[int]:
    trace = trace_layer(layer)
    return [cost.of(trace) for cost in COSTS.values()]


def _plain(layer: Layer) -> Layer:
    options = tuple(item for item in layer.options if item[0] not in WITHOUT_COST)
    return Layer(layer.block, layer.in_channels, layer.out_channels, layer.stride, layer.resolution, options)


def _name(layer: Layer) -> str:
    return json.dumps(
        [layer.block, layer.in_channels, layer.out_channels, layer.stride, layer.resolution, layer.options]
    )


def _file(blocks: Iterable[str]) -> Path | None:
    """Where costs of these blocks are kept: in a file for this very code and torch. None where the package's files do
    not tell."""
    code = _fingerprint(tuple(block_type(name) for name in sorted(blocks)), tuple(COSTS.items()))
    return cache_folder() / f"costs-{code}.json" if code else None


@cache
def _fingerprint(blocks: tuple[type, ...], costs: tuple[tuple[str, object], ...]) -> str | None:
    """Of the code that says what a layer costs; None if some of it is not in the files of this package."""
    package = Path(__file__).parents[1]
    files = [
        *package.glob("blocks/*.py"),
        *package.glob("costs/*.py"),
        *(package / f"{name}.py" for name in ("trace", "meta", "architecture")),
    ]
    return code_digest(files, blocks, str(torch.__version__), [name for name, _ in costs])


def _read(file: Path) -> dict[str, list[int]]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    good = isinstance(data, dict) and all(isinstance(x, list) and len(x) == len(COSTS) for x in data.values())
    return data if good else {}
