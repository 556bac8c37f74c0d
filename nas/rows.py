"""One row of a search space: a stage in which a scalar is fixed and a list is a choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Le

from nas.architecture import Stage, Value
from nas.blocks import BLOCKS, complete, options_of
from nas.inputs import InputError, checked, choices, refuse

Ask = Callable[[str, tuple[Value, ...]], Value]
"""Answers a choice: its name and its values to one of the values."""

Shared = Mapping[str, Value]
"""The value of every shared choice by name."""

T = TypeVar("T")
ABSENT = Stage("identity", 1, 0)
_KEYS: dict[str, Any] = {
    "c": Annotated[int, Ge(1), Le(100_000)],
    "n": Annotated[int, Ge(0), Le(100)],
    "s": Annotated[int, Ge(1), Le(4)],
}


@dataclass(frozen=True, slots=True)
class Setting:
    """What a key may be: one value, a choice of several, or one value for each value of the shared choice `by`."""

    name: str
    values: tuple[Value, ...]
    by: str | None = None
    keys: tuple[Value, ...] = ()

    def pick(self, ask: Ask, shared: Shared) -> Value:
        if self.by is not None:
            return self.values[self.keys.index(shared[self.by])]
        return self.values[0] if len(self.values) == 1 else ask(self.name, self.values)

    @property
    def is_choice(self) -> bool:
        return self.by is None and len(self.values) > 1


@dataclass(frozen=True)
class Alternative:
    """One mapping of a row. `scale` says how the width multiplier acts on c: yes, not at all, or only above 1."""

    settings: Mapping[str, Setting]
    scale: bool | Literal["up"]

    def form(self, ask: Ask, shared: Shared, divisor: int) -> Stage:
        """The stage that the answers lead to; only the choices that make a difference are asked, in a fixed order."""
        picked = {name: setting.pick(ask, shared) for name, setting in self.settings.items() if name == "n"}
        if picked.get("n") == 0:
            return ABSENT
        for name in ("block", "c", "s"):
            if name in self.settings:
                picked[name] = self.settings[name].pick(ask, shared)
        block = str(picked["block"])
        chosen: dict[str, Value] = {}
        for name, option in options_of(block).items():
            if BLOCKS[block].used(name, complete(block, chosen)):
                setting = self.settings.get(name)
                value = option.default if setting is None else setting.pick(ask, shared)
                if value != option.default:
                    chosen[name] = value
        channels = scaled(int(picked["c"]), self.scale, shared.get("width", 1), divisor)
        return Stage.of(block, channels, int(picked.get("n", 1)), int(picked.get("s", 1)), **chosen)


@dataclass(frozen=True)
class Row:
    """A row of the space: one mapping, or a choice between several."""

    name: str
    alternatives: tuple[Alternative, ...]

    def form(self, ask: Ask, shared: Shared, divisor: int) -> Stage:
        index = 0
        if len(self.alternatives) > 1:
            index = int(ask(self.name, tuple(range(len(self.alternatives)))))
        return self.alternatives[index].form(ask, shared, divisor)

    def settings(self) -> Iterator[Setting]:
        if len(self.alternatives) > 1:
            yield Setting(self.name, tuple(range(len(self.alternatives))))
        for alternative in self.alternatives:
            yield from alternative.settings.values()

    def depends(self) -> frozenset[str]:
        """The shared choices that this row follows."""
        scales = {"width"} if any(alternative.scale is not False for alternative in self.alternatives) else set()
        return frozenset({setting.by for setting in self.settings() if setting.by is not None} | scales)


def scaled(c: int, scale: bool | str, width: Value, divisor: int) -> int:
    """c times the width multiplier, to the nearest multiple of `divisor` but never below 90 % (MobileNetV2's rule).

    A width of 1 leaves c as it is; `scale` "up" ignores widths below 1, False all.
    """
    factor = max(1.0, float(width)) if scale == "up" else float(width) if scale else 1.0
    if factor == 1.0:
        return c
    wanted = c * factor
    rounded = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * wanted else rounded


def canonical(stage: Stage) -> Stage:
    """The stage without the options that are the block's defaults or make no difference.

    Raises InputError for an unknown block or option, a missing option, or an illegal value.
    """
    if stage.n == 0:
        return ABSENT
    if stage.block not in BLOCKS:
        raise refuse("block", stage.block, choices(BLOCKS))
    known, given = options_of(stage.block), {name: plain(value) for name, value in stage.options}
    chosen: dict[str, Value] = {}
    for name, value in given.items():
        if name not in known:
            raise InputError(f"{name} is not an option of {stage.block}; its options are: {', '.join(known)}")
        checked(known[name].kind, value, f"{stage.block}.{name}")
    for name, option in known.items():
        value = given.get(name, option.default)
        if value is None:
            raise InputError(f"{name} is missing: {stage.block} needs it")
        if BLOCKS[stage.block].used(name, complete(stage.block, chosen)) and value != option.default:
            chosen[name] = value
    return Stage.of(stage.block, stage.c, stage.n, stage.s, **chosen)


def every(form: Callable[[Ask], T]) -> Iterator[tuple[dict[str, Value], T]]:
    """All outcomes of `form` over all answers to what it asks, each with the answers that led to it."""
    script: list[tuple[str, tuple[Value, ...], int]] = []
    while True:
        asked: list[tuple[str, tuple[Value, ...], int]] = []
        place = iter(script)

        def ask(name: str, values: tuple[Value, ...], asked: Any = asked, place: Any = place) -> Value:
            index = next(place, (name, values, 0))[2]
            asked.append((name, values, index))
            return values[index]

        outcome = form(ask)
        yield {name: values[index] for name, values, index in asked}, outcome
        while asked and asked[-1][2] + 1 == len(asked[-1][1]):
            asked.pop()
        if not asked:
            return
        name, values, index = asked.pop()
        script = [*asked, (name, values, index + 1)]


def plain(value: Any) -> Any:
    """One spelling for one value: 6.0 is 6."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def read_setting(kind: Any, data: object, name: str, shared: Mapping[str, Setting], where: str) -> Setting:
    """A scalar, a list, `{by: choice}` or `{by: choice, table: {value: ...}}`, every value checked against `kind`."""
    place = f"{where}: {name}"
    if isinstance(data, dict):
        if not {"by"} <= set(data) <= {"by", "table"}:
            raise refuse(place, data, "a value, a list of values, or {by: choice, table: {...}}")
        if not isinstance(data["by"], str) or data["by"] not in shared:
            raise refuse(f"{place}.by", data["by"], "a shared choice, " + (choices(shared) if shared else "none here"))
        keys = shared[data["by"]].values
        table = data.get("table", {key: key for key in keys})
        if not isinstance(table, dict) or set(table) != set(keys):
            given = list(table) if isinstance(table, dict) else table
            raise refuse(f"{place}.table", given, f"a value for each of: {', '.join(map(str, keys))}")
        return Setting(
            name, tuple(plain(checked(kind, table[key], f"{place}.table")) for key in keys), data["by"], keys
        )
    values: list[Any] = data if isinstance(data, list) else [data]
    if not values:
        raise refuse(place, data, "a value or a list of at least one value")
    values = [plain(checked(kind, value, place)) for value in values]
    if len({(type(value), value) for value in values}) < len(values):
        raise refuse(place, data, "a list without repetitions")
    return Setting(name, tuple(values))


def read_row(
    data: object, name: str, shared: Mapping[str, Setting], defaults: Mapping[str, Setting], where: str
) -> Row:
    """A mapping or a list of alternative mappings. Raises InputError that names the key path."""
    if isinstance(data, list) and data:
        alternatives = [_alternative(item, f"{name}[{i}]", shared, defaults, where) for i, item in enumerate(data)]
    else:
        alternatives = [_alternative(data, name, shared, defaults, where)]
    return Row(name, tuple(alternatives))


def _alternative(
    data: object, name: str, shared: Mapping[str, Setting], defaults: Mapping[str, Setting], where: str
) -> Alternative:
    place = f"{where}: {name}"
    if not isinstance(data, dict):
        raise refuse(place, data, "a mapping with block, c and the block's options, or a list of such mappings")
    if "block" not in data:
        raise InputError(f"{place}.block is missing; the blocks are: {', '.join(BLOCKS)}")
    block_kind = Literal[tuple(BLOCKS)]  # type: ignore[valid-type]
    blocks = read_setting(block_kind, data["block"], f"{name}.block", shared, where)
    settings = {"block": blocks}
    classifies = "classifier" in blocks.values
    if not classifies and "c" not in data:
        raise InputError(f"{place}.c is missing")
    known = {option for block in blocks.values for option in options_of(str(block))}
    own = {"block", "scale"} | (set() if classifies else set(_KEYS))
    for key in data:
        if key not in own | known:
            names = ", ".join(sorted(own | known))
            raise InputError(f"{place}.{key} is not known for {'/'.join(map(str, blocks.values))}; known are: {names}")
    for key, kind in _KEYS.items():
        if key in data:
            settings[key] = read_setting(kind, data[key], f"{name}.{key}", shared, where)
    for block in blocks.values:
        for key, option in options_of(str(block)).items():
            if key in data:
                settings[key] = read_setting(option.kind, data[key], f"{name}.{key}", shared, where)
            elif key in defaults:
                settings[key] = defaults[key]
            elif option.default is None:
                raise InputError(f"{place}.{key} is missing: {block} needs it")
    scale = checked(bool | Literal["up"], data.get("scale", not classifies), f"{place}.scale")
    return Alternative(settings, scale)
