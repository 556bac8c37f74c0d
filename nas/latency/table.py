"""What was measured of a runtime on a machine, kept on disk: nothing is measured twice."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from nas.architecture import Architecture, Layer
from nas.blocks import BLOCKS
from nas.files import cache_folder, code_digest, write_json
from nas.inputs import InputError
from nas.latency.measure import Effort, RunOnce, Timing, Timings, doubted, measure
from nas.latency.probe import REFERENCE, Shape, frame, framed, frames, whole
from nas.latency.runtime import Runtime
from nas.machine import hardware, version_of, versions
from nas.trace import trace_layer

LAYERS, NETWORKS = Effort(least=2, most=25), Effort(least=8, most=50, apart=5.0)
"""A network has many layers, whose errors cancel; and there are so many that their sittings are seconds apart."""
_TOGETHER = 200
"""Models that are measured in one go, in turn: all are in memory."""

Progress = Callable[[str, int, int], Any]
"""(what is measured, how many are done, of how many)"""


@dataclass
class Table:
    """Running times as multiples of the reference network's, by name; `reference_ms` is the unit.

    It is the 5th percentile of the reference's runs (see measure) at the quietest time seen; `reference_interval_ms`
    goes from the 1st to the median, which says how quiet the machine was then.
    """

    manifest: dict[str, Any]
    reference_ms: float = 0.0
    reference_interval_ms: tuple[float, float] = (0.0, 0.0)
    layers: dict[str, Timing] = field(default_factory=dict)
    frames: dict[str, Timing] = field(default_factory=dict)
    networks: dict[str, Timing] = field(default_factory=dict)
    params: dict[str, int] = field(default_factory=dict)
    """Of the layers."""
    refused: dict[str, str] = field(default_factory=dict)
    """Why the runtime cannot run a layer, or a whole network, by name."""

    def layer_ms(self, layer: Layer) -> float:
        """A layer inside a network; 0 if it drowns in its frame. Raises KeyError if it was not measured."""
        around = self.frames[frame_name(layer.in_channels, layer.resolution)]
        return max(0.0, self.layers[layer_name(layer)].ratio - around.ratio) * self.reference_ms

    def ms(self, timing: Timing) -> dict[str, float]:
        """A running time (see measure) in ms, and its 94 % interval."""
        unit = self.reference_ms
        return {"ms": timing.ratio * unit, "low_ms": timing.low * unit, "high_ms": timing.high * unit}

    def take(self, found: Timings) -> list[Timing]:
        """What was found. The least unit seen is kept; what was disturbed by it is no longer quiet."""
        before, now = self.reference_ms or math.inf, found.unit * 1e3
        if now < before:
            for part in (self.layers, self.frames, self.networks):
                part |= {name: doubted(timing, before, now) for name, timing in part.items()}
            self.reference_ms, self.reference_interval_ms = now, found.interval_ms
        return found.models

    def joined(self, other: Table) -> Table:
        """With what another table of the same machine has, which counts where both have it; with the smaller unit."""
        both = self, other
        finer = min(both, key=lambda table: table.reference_ms)
        layers, frames, networks = (
            {
                name: doubted(timing, table.reference_ms, finer.reference_ms)
                for table in both
                for name, timing in getattr(table, part).items()
            }
            for part in ("layers", "frames", "networks")
        )
        still = {name: why for name, why in self.refused.items() if name not in {**other.layers, **other.networks}}
        parts = layers, frames, networks, self.params | other.params, still | other.refused
        return Table(other.manifest, finer.reference_ms, finer.reference_interval_ms, *parts)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, data: Any, where: str) -> Table:
        """Raises InputError if `data` is not what `to_dict` gives."""
        try:
            layers, frames, networks = (
                {str(name): _timing(value) for name, value in data[part].items()}
                for part in ("layers", "frames", "networks")
            )
            interval = tuple(map(float, data["reference_interval_ms"]))
            unit = float(data["reference_ms"]), (interval[0], interval[1])
            params = {str(name): int(count) for name, count in data["params"].items()}
            refused = {str(name): str(reason) for name, reason in data["refused"].items()}
            manifest = dict(data["manifest"])
            for part in ("hardware", "packages"):
                manifest[part] = dict(manifest.get(part, {}))
            return cls(manifest, *unit, layers, frames, networks, params, refused)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            raise InputError(f"{where}: is no table of latencies, or is damaged") from None


def _timing(value: Mapping[str, Any]) -> Timing:
    timing = Timing(float(value["ratio"]), float(value["low"]), float(value["high"]), int(value["quiet"]))
    if not all(0 < ratio < math.inf for ratio in (timing.ratio, timing.low, timing.high)):
        raise ValueError
    return timing


@cache
def layer_name(layer: Layer) -> str:
    return json.dumps(
        [layer.block, layer.in_channels, layer.out_channels, layer.stride, layer.resolution, layer.options]
    )


def frame_name(channels: int, resolution: int) -> str:
    return f"{channels}x{resolution}"


class Source(Protocol):
    """Where a table is measured, or was."""

    manifest: dict[str, Any]
    table: Table

    def layers(self, layers: Iterable[Layer]) -> Table:
        """The table, with all these layers and their frames in it; those that cannot run are `refused` there."""
        ...

    def networks(self, architectures: Iterable[Architecture]) -> Table:
        """The table, with all these whole networks in it."""
        ...


class Bench:
    """Measures on this machine, batch 1, `threads` threads.

    What it measured is kept in a file of the cache, for this very runtime, machine and code; `file` is None, and it is
    not kept, where blocks are from elsewhere. Raises InputError if the runtime is not there.
    """

    def __init__(self, name: str, runtime: Runtime, threads: int, on_progress: Progress) -> None:
        runtime.check()
        self.runtime, self.threads, self.on_progress = runtime, threads, on_progress
        self.manifest = manifest(name, runtime, threads)
        code = code_digest(_code(), BLOCKS.values(), self.manifest)
        self.file = cache_folder() / f"latency-{code}.json" if code else None
        self.table = self._read() or Table(self.manifest)
        self._reference: RunOnce | None = None
        self._tried: set[str] = set()
        """Measured by this object: what was never undisturbed before is measured again, once."""
        self._one_thread = threads == 1 and runtime.on_caller

    def layers(self, layers: Iterable[Layer], effort: Effort = LAYERS) -> Table:
        layers = list(layers)
        new = {frame_name(*place): place for place in frames(layers)}
        self._measure("frames", {name: partial(frame, *place) for name, place in new.items()}, effort)
        wanted = {name: layer for layer in layers if (name := layer_name(layer)) not in self.table.refused}
        makers = {name: partial(self._layer, name, layer) for name, layer in wanted.items()}
        self._measure("layers", makers, effort)
        return self.table

    def networks(self, architectures: Iterable[Architecture], effort: Effort = NETWORKS) -> Table:
        wanted = {each.id: each for each in architectures}
        self._measure("networks", {name: partial(whole, each) for name, each in wanted.items()}, effort)
        return self.table

    def again(self, architectures: Sequence[Architecture], effort: Effort = NETWORKS) -> list[Timing]:
        """These whole networks measured anew, whatever the table has; it keeps what it has."""
        timings: list[Timing] = []
        for start in range(0, len(architectures), _TOGETHER):
            some = architectures[start : start + _TOGETHER]
            models = [self.runtime.open(*whole(each), self.threads) for each in some]
            timings += self.table.take(self._timed(models, effort))
        return timings

    def _measure(self, part: str, wanted: Mapping[str, Callable[[], tuple[nn.Module, Shape]]], effort: Effort) -> None:
        known: dict[str, Timing] = getattr(self.table, part)
        new = [name for name in wanted if name not in known or (known[name].quiet == 0 and name not in self._tried)]
        self._tried.update(new)
        for start in range(0, len(new), _TOGETHER):
            names = new[start : start + _TOGETHER]
            models = {name: model for name in names if (model := self._opened(part, name, wanted[name]))}
            found = self._timed(list(models.values()), effort)
            self.on_progress(part, start + len(names), len(new))
            known |= dict(zip(models, self.table.take(found), strict=True))
            self._write()

    def _layer(self, name: str, layer: Layer) -> tuple[nn.Module, Shape]:
        self.table.params[name] = trace_layer(layer).params
        return framed(layer)

    def _opened(self, part: str, name: str, make: Callable[[], tuple[nn.Module, Shape]]) -> RunOnce | None:
        """Ready to run; None, and `refused`, if it is a layer that the runtime cannot run."""
        try:
            return self.runtime.open(*make(), self.threads)
        except InputError as error:
            if part != "layers":
                raise
            self.table.refused[name] = str(error)
            return None

    def _timed(self, models: Sequence[RunOnce], effort: Effort) -> Timings:
        unit, threads = self.table.reference_ms / 1e3 or math.inf, torch.get_num_threads()
        try:
            return measure(models, self._refer(), effort, self._one_thread, unit)
        finally:
            torch.set_num_threads(threads)  # the runs of some runtimes set it, for the process

    def _refer(self) -> RunOnce:
        self._reference = self._reference or self.runtime.open(*whole(REFERENCE), self.threads)
        return self._reference

    def _read(self) -> Table | None:
        if self.file is None:
            return None
        try:
            return Table.of(json.loads(self.file.read_text(encoding="utf-8")), str(self.file))
        except (OSError, ValueError):  # nothing kept, or not as it was: it is measured anew
            return None

    def _write(self) -> None:
        if self.file is not None:
            with suppress(OSError):  # it is a convenience: a disk that is full or read-only must not stop anyone
                write_json(self.file, self.table.to_dict())


def machine_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What times depend on: not the memory or the system, which change with an update."""
    hardware = manifest.get("hardware", {})
    lasting = {name: value for name, value in hardware.items() if name in {"processor", "cores", "gpu"}}
    return {**lasting, **manifest.get("packages", {})}


def manifest(name: str, runtime: Runtime, threads: int) -> dict[str, Any]:
    """What a latency was measured on, and how."""
    governor = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        "runtime": name,
        "threads": threads,
        "batch": 1,
        "precision": runtime.precision,
        "packages": {package: version_of(package) for package in runtime.packages},
        "reference": REFERENCE.id,
        "hardware": hardware(),
        "governor": governor.read_text(encoding="utf-8").strip() if governor.is_file() else None,
        "versions": {key: value for key, value in versions().items() if key in ("python", "mobile-nas", "torch")},
    }


def _code() -> list[Path]:
    """The files that decide what is run and how it is measured."""
    package = Path(__file__).parents[1]
    own = ("eager", "executorch", "measure", "onnx", "probe")
    names = ["architecture", "meta", "network", *(f"latency/{name}" for name in own)]
    return [*package.glob("blocks/*.py"), *package.glob("export/*.py"), *(package / f"{name}.py" for name in names)]
