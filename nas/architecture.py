"""Architectures as data: frozen, hashable, without tensors. A network is the list of layers it expands into."""

from __future__ import annotations

import hashlib
import html
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import repeat
from pathlib import Path
from typing import Any

import yaml

from nas.inputs import InputError, parse_yaml, read_yaml, refuse

Value = bool | int | float | str
Options = tuple[tuple[str, Value], ...]

# Least and most of every whole number; `c` leaves a space, which has c up to 100,000, a width multiplier of 10.
LIMITS = {"resolution": (1, 4096), "in_channels": (1, 100_000), "c": (1, 1_000_000), "n": (0, 100), "s": (1, 4)}
_WORD = re.compile(r"[A-Za-z0-9_.+-]{1,60}")


@dataclass(frozen=True, slots=True)
class Layer:
    """One block at one place: square input of `resolution` pixels a side, `in_channels` deep."""

    block: str
    in_channels: int
    out_channels: int
    stride: int
    resolution: int
    options: Options = ()

    @property
    def out_resolution(self) -> int:
        """Side of the output: all blocks pad by k // 2, so it is ceil(resolution / stride)."""
        return -(-self.resolution // self.stride)

    @property
    def changes_nothing(self) -> bool:
        return self.block == "identity" and self.stride == 1 and self.in_channels == self.out_channels


@dataclass(frozen=True, slots=True)
class Stage:
    """One row of a paper's table (MobileNetV2, Table 2): `n` layers of `c` channels, the first with stride `s`.

    `options` are the block's other keyword arguments, sorted; one that is not named takes the block's default.
    `n` may be 0: the row is then not in the network.
    """

    block: str
    c: int
    n: int = 1
    s: int = 1
    options: Options = ()

    @classmethod
    def of(cls, block: str, c: int, n: int = 1, s: int = 1, **options: Value) -> Stage:
        return cls(block, c, n, s, tuple(sorted((name, plain(value)) for name, value in options.items())))

    def layers(self, channels: int, resolution: int) -> Iterator[Layer]:
        """The stage's layers on an input of `channels` x `resolution` x `resolution`, no-operations left out."""
        for layer, times in self.runs(channels, resolution):
            yield from repeat(layer, times)

    def runs(self, channels: int, resolution: int) -> list[tuple[Layer, int]]:
        """The stage's `layers`, and how often each stands there: all behind the first are alike."""
        pair = _first_and_next(self.block, channels, self.c, self.s, resolution, self.options)
        times = (min(self.n, 1), self.n - 1)
        return [(layer, n) for layer, n in zip(pair, times, strict=True) if n > 0 and not layer.changes_nothing]

    def after(self, channels: int, resolution: int) -> tuple[int, int]:
        """(channels, resolution) behind the stage."""
        return (self.c, -(-resolution // self.s)) if self.n else (channels, resolution)

    def to_dict(self) -> dict[str, Value]:
        return {"block": self.block, "c": self.c, "n": self.n, "s": self.s, **dict(self.options)}

    def __str__(self) -> str:
        """Short form, `bottleneck24x2/2 t6 k5 groups=2`: channels, x repeats, / stride, options (t and k first)."""
        text = f"{self.block}{self.c}" + (f"x{self.n}" if self.n != 1 else "") + (f"/{self.s}" if self.s != 1 else "")
        options = sorted(self.options, key=lambda item: ({"t": 0, "k": 1}.get(item[0], 2), item[0]))
        return " ".join([text, *(_short(name, value) for name, value in options)])


@lru_cache(maxsize=2**16)
def _first_and_next(*stage: Any) -> tuple[Layer, Layer]:
    """The first layer of a stage of these fields, and what follows it."""
    first = Layer(*stage)
    return first, Layer(first.block, first.out_channels, first.out_channels, 1, first.out_resolution, first.options)


@dataclass(frozen=True)
class Architecture:
    """One fully determined network: an image of `in_channels` x `resolution`^2 through `stages`, then classified."""

    stages: tuple[Stage, ...]
    resolution: int
    in_channels: int = 3

    @property
    def classes(self) -> int:
        return self.stages[-1].c

    def walk(self) -> Iterator[tuple[Stage, int, int]]:
        """(stage, input channels, input resolution) from the image to the classes; rows with n = 0 left out."""
        channels, resolution = self.in_channels, self.resolution
        for stage in self.stages:
            if stage.n:
                yield stage, channels, resolution
                channels, resolution = stage.after(channels, resolution)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(layer for row in self.walk() for layer in row[0].layers(*row[1:]))

    @cached_property
    def id(self) -> str:
        """Canonical short id, 12 hexadecimal digits: equal if and only if the layers are.

        How the rows are cut and where layers that change nothing stand makes no difference.
        """
        layers = [
            (x.block, x.in_channels, x.out_channels, x.stride, x.resolution, [(k, plain(v)) for k, v in x.options])
            for x in self.layers
        ]
        return hashlib.sha256(json.dumps(layers, separators=(",", ":")).encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `from_dict` gives an equal architecture back."""
        return {
            "in_channels": self.in_channels,
            "resolution": self.resolution,
            "stages": [stage.to_dict() for stage in self.stages],
        }

    @classmethod
    def from_dict(cls, data: object, where: str = "architecture") -> Architecture:
        """Raises InputError if a key is missing, unknown or of another type."""
        keys = ("in_channels", "resolution", "stages")
        if not isinstance(data, Mapping):
            raise refuse(where, data, f"a mapping with {', '.join(keys)}")
        for key in keys:
            if key not in data:
                raise InputError(f"{where}: {key} is missing")
        for key in data:
            if key not in keys:
                raise unknown(f"{where}: ", key, keys)
        rows = data["stages"]
        if not isinstance(rows, list) or not rows:
            raise refuse(f"{where}: stages", rows, "a list of stages")
        return cls(
            tuple(_stage(row, f"{where}: stages[{i}]") for i, row in enumerate(rows)),
            _whole("resolution", data["resolution"], f"{where}: "),
            _whole("in_channels", data["in_channels"], f"{where}: "),
        )

    def to_yaml(self) -> str:
        head = f"in_channels: {self.in_channels}\nresolution: {self.resolution}\nstages:\n"
        rows = (yaml.safe_dump(s.to_dict(), default_flow_style=True, sort_keys=False, width=10**6) for s in self.stages)
        return f"# architecture {self.id}\n" + head + "".join(f"  - {row}" for row in rows)

    @classmethod
    def from_json(cls, text: str, where: str = "architecture") -> Architecture:
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: is not valid JSON: {error}") from None
        return cls.from_dict(data, where)

    @classmethod
    def from_yaml(cls, text: str, where: str = "architecture") -> Architecture:
        return cls.from_dict(parse_yaml(text, where), where)

    @classmethod
    def load(cls, path: Path | str) -> Architecture:
        return cls.from_dict(read_yaml(path), str(path))

    def table(self) -> str:
        """The network in the form of the papers' tables: input, operator, t, c, n, s, then what else is set."""
        names = sorted({name for stage in self.stages for name, _ in stage.options} - {"t"})
        rows = [["input", "operator", "t", "c", "n", "s", *names]]
        for stage, channels, resolution in self.walk():
            options = dict(stage.options)
            cells = [options.get("t", "-"), stage.c, stage.n, stage.s, *(options.get(name, "-") for name in names)]
            rows.append([f"{resolution}^2 x {channels}", stage.block, *map(spelled, cells)])
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)

    def _repr_html_(self) -> str:
        """For notebooks."""
        return f"<p>architecture <code>{self.id}</code></p><pre>{html.escape(self.table())}</pre>"

    def __str__(self) -> str:
        return f"{self.resolution}px: " + " | ".join(str(stage) for stage in self.stages if stage.n)


def _short(name: str, value: Value) -> str:
    if isinstance(value, bool):
        return name if value else f"no-{name}"
    return f"{name}{value}" if len(name) == 1 else f"{name}={value}"


def _stage(data: object, where: str) -> Stage:
    if not isinstance(data, Mapping):
        raise refuse(where, data, "a mapping with block, c, n, s and the block's options")
    for key in ("block", "c"):
        if key not in data:
            raise InputError(f"{where}.{key} is missing")
    if not is_word(data["block"]):
        raise refuse(f"{where}.block", data["block"], "the name of a block")
    options = {}
    for key, value in data.items():
        if not isinstance(key, str) or not re.fullmatch(r"[a-z_][a-z0-9_]*", key):
            raise refuse(f"{where}: a key", key, "block, c, n, s or an option of the block")
        if not is_scalar(value):
            raise refuse(f"{where}.{key}", value, "a number, true, false or a word")
        if key not in {"block", "c", "n", "s"}:
            options[key] = plain(value)
    c, n, s = (_whole(key, data.get(key, 1), f"{where}.") for key in ("c", "n", "s"))
    return Stage(data["block"], c, n, s, tuple(sorted(options.items())))


def _whole(key: str, value: object, place: str) -> int:
    least, most = LIMITS[key]
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise refuse(f"{place}{key}", value, f"a whole number from {least} to {most}")
    return value


def plain(value: Any) -> Any:
    """One spelling for one value: 6.0 is 6."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def spelled(value: object) -> str:
    """As YAML has it: true, not True."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def is_word(value: object) -> bool:
    """Text that may stand in a file and in an error line as it is."""
    return isinstance(value, str) and _WORD.fullmatch(value) is not None


def is_scalar(value: object) -> bool:
    """What an option may be, whatever the block: true, false, a finite number or a word."""
    return is_word(value) or isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def unknown(place: str, key: object, known: Iterable[str]) -> InputError:
    """The error line for a key that is not one of those `known`; `place` is all that stands in front of the key."""
    name = key if is_word(key) else ascii(key)[:60]
    return InputError(f"{place}{name} is not known; the keys here are: {', '.join(sorted(known))}")
