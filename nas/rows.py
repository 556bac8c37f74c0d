"""What a space file says: shared choices, and rows, which are stages where a scalar is fixed and a list is a choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator

from nas.architecture import LIMITS, Stage, Value, is_scalar, is_word, plain, unknown
from nas.blocks import BLOCKS, check_options, defaults_of, options_of
from nas.blocks.block import divisible
from nas.inputs import InputError, checked, choices, refuse

Ask = Callable[[str, tuple[Value, ...]], Value]
"""Answers a choice: its name and its values to one of the values."""

Shared = Mapping[str, Value]
"""The value of every shared choice by name."""

T = TypeVar("T")
ABSENT = Stage("identity", 1, 0)


def whole(key: str) -> Any:
    """The annotation of a whole number within its limits."""
    least, most = LIMITS[key]
    return Annotated[int, Ge(least), Le(most)]


def _scalar(value: object) -> object:
    if not is_scalar(value):
        raise ValueError("a number, true, false or a word")
    return value


def _word(value: str) -> str:
    if not is_word(value):
        raise ValueError("at most 60 letters, digits and . _ + -")
    return value


WORD = Annotated[str, AfterValidator(_word)]
_BLOCK = Literal[tuple(BLOCKS)]  # type: ignore[valid-type]
_SCALAR = Annotated[Any, AfterValidator(_scalar)]
_SCALE = Literal[True, False, "up"]
_WIDTH = Annotated[float, Gt(0), Le(10)]
_OWN = {"c": Annotated[int, Ge(1), Le(100_000)], "n": whole("n"), "s": whole("s")}
# All combinations of a row are listed, so that members can be counted: beyond this, that takes minutes.
MAX_COMBINATIONS = 1_000_000


@dataclass(frozen=True, slots=True)
class Setting:
    """One value, a choice of several, or one for each of `keys`: what the shared choices `by` are."""

    name: str
    values: tuple[Value, ...]
    by: tuple[str, ...] = ()
    keys: tuple[tuple[Value, ...], ...] = ()

    def pick(self, ask: Ask, shared: Shared) -> Value:
        if self.by:
            return self.values[self.keys.index(tuple(shared[name] for name in self.by))]
        return self.values[0] if len(self.values) == 1 else ask(self.name, self.values)

    @property
    def is_choice(self) -> bool:
        return not self.by and len(self.values) > 1


@dataclass(frozen=True)
class Alternative:
    """One mapping of a row. `scale` says how the width multiplier acts on c: yes, not at all, or only above 1."""

    settings: Mapping[str, Setting]
    scale: bool | Literal["up"]

    def form(self, ask: Ask, shared: Shared, divisor: int) -> Stage:
        """The stage that the answers lead to; only the choices that make a difference are asked, in a fixed order."""

        def pick(key: str, default: Value) -> Value:
            return self.settings[key].pick(ask, shared) if key in self.settings else default

        n = int(pick("n", 1))
        if n == 0:
            return ABSENT
        block, c, s = str(pick("block", "")), int(pick("c", 0)), int(pick("s", 1))
        channels = scaled(c, self.scale, shared.get("width", 1), divisor)
        return Stage(block, channels, n, s, _essential(block, pick))


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

    def follows(self) -> set[str]:
        """The shared choices that this row depends on (`width` also where the space has none)."""
        scales = {"width"} if any(alternative.scale is not False for alternative in self.alternatives) else set()
        return {name for setting in self.settings() for name in setting.by} | scales

    def combinations(self) -> int:
        """At most as many different outcomes has `form` for one value of the shared choices."""
        return sum(
            prod(len(setting.values) for setting in alternative.settings.values() if setting.is_choice)
            for alternative in self.alternatives
        )


def scaled(c: int, scale: bool | str, width: Value, divisor: int) -> int:
    """c times the width multiplier, to the nearest multiple of `divisor` but never below 90 % (MobileNetV2's rule).

    A width of 1 leaves c as it is; `scale` "up" ignores widths below 1, False all.
    """
    factor = max(1.0, float(width)) if scale == "up" else float(width) if scale else 1.0
    if factor == 1.0:
        return c
    return divisible(c * factor, divisor)


def _essential(block: str, pick: Callable[[str, Value], Value]) -> tuple[tuple[str, Value], ...]:
    """Sorted, the options of a block that make a difference and are not its defaults; `pick` is asked for no others."""
    defaults = defaults_of(block)
    options = dict(defaults)
    for name, default in defaults.items():
        if BLOCKS[block].used(name, options):
            options[name] = pick(name, default)
    return tuple(sorted((name, value) for name, value in options.items() if value != defaults[name]))


def canonical(stage: Stage) -> Stage:
    """The stage without the options that are the block's defaults or make no difference.

    Raises InputError for an unknown block or option, a missing option, or an illegal value.
    """
    if stage.n == 0:
        return ABSENT
    given = {name: plain(value) for name, value in stage.options}
    check_options(stage.block, given)
    return Stage(stage.block, stage.c, stage.n, stage.s, _essential(stage.block, given.get))


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


def read_setting(kind: Any, data: object, name: str, shared: Mapping[str, Setting], where: str) -> Setting:
    """A scalar, a list, `{by: choice}` or `{by: choices, table: {value: ...}}`, every value checked against `kind`."""
    place = f"{where}: {name}"
    if isinstance(data, dict):
        return _read_followed(kind, data, name, shared, place)
    if data == []:
        raise refuse(place, data, "a value or a list of at least one value")
    if not isinstance(data, list):
        return Setting(name, (plain(checked(kind, data, place)),))
    values = tuple(plain(checked(kind, value, f"{place}[{i}]")) for i, value in enumerate(data))
    if len(set(values)) < len(values):
        raise refuse(place, data, "a list without repetitions")
    return Setting(name, values)


def _read_followed(kind: Any, data: Mapping[Any, Any], name: str, shared: Mapping[str, Setting], place: str) -> Setting:
    if not {"by"} <= set(data) <= {"by", "table"}:
        raise refuse(place, data, "a value, a list of values, or {by: choice, table: {...}}")
    by = tuple(data["by"]) if isinstance(data["by"], list) else (data["by"],)
    if not all(isinstance(each, str) and each in shared for each in by) or not 0 < len(set(by)) == len(by):
        known = choices(shared) if shared else "the name of a shared choice, and there is none here"
        raise refuse(f"{place}.by", data["by"], known + (", or a list of these, each once" if len(shared) > 1 else ""))
    levels = [shared[each].values for each in by]
    table = data.get("table", {key: key for key in levels[0]} if len(by) == 1 else None)
    entries = _entries(table, levels, f"{place}.table")
    return Setting(name, tuple(plain(checked(kind, *entry)) for entry in entries), by, tuple(product(*levels)))


def _entries(table: object, levels: list[tuple[Value, ...]], place: str) -> Iterator[tuple[object, str]]:
    """What a table of tables holds, one level for each of the choices it goes by, and where."""
    if not levels:
        return iter([(table, place)])
    if not isinstance(table, dict) or set(table) != set(levels[0]):
        given = list(table) if isinstance(table, dict) else table
        raise refuse(place, given, f"a mapping with a value for each of: {', '.join(map(str, levels[0]))}")
    return (entry for key in levels[0] for entry in _entries(table[key], levels[1:], f"{place}.{key}"))


def read_shared(data: Mapping[str, Any], reserved: set[str], where: str) -> dict[str, Setting]:
    """The shared choices that a space file names: its `choices`, and its `width`."""
    section = data.get("choices", {})
    if not isinstance(section, dict):
        raise refuse(f"{where}: choices", section, "a mapping of names to lists")
    shared: dict[str, Setting] = {}
    for name, values in section.items():
        if not isinstance(name, str) or not name.isidentifier() or name in reserved:
            raise refuse(f"{where}: choices: a name", name, f"a word, and none of: {', '.join(sorted(reserved))}")
        read = read_setting(_SCALAR, values, f"choices.{name}", {}, where)
        shared[name] = Setting(name, read.values)
    if "width" in data:
        shared["width"] = read_setting(_WIDTH, data["width"], "width", {}, where)
    return shared


def follow(setting: Setting, shared: dict[str, Setting]) -> Setting:
    """Makes a choice a shared one, and returns the setting that follows it; any other is returned as it is."""
    if not setting.is_choice:
        return setting
    shared[setting.name] = setting
    return Setting(setting.name, setting.values, (setting.name,), tuple((value,) for value in setting.values))


def read_defaults(data: Mapping[str, Any], shared: dict[str, Setting], where: str) -> dict[str, Setting]:
    """Options for all rows whose block takes them; a list is one choice that all those rows share."""
    section = data.get("defaults", {})
    if not isinstance(section, dict):
        raise refuse(f"{where}: defaults", section, "a mapping of block options to values")
    kinds = {name: option.kind for block in BLOCKS for name, option in options_of(block).items()}
    defaults = {}
    for name, values in section.items():
        if name not in kinds:
            raise unknown(f"{where}: defaults.", name, kinds)
        defaults[name] = follow(read_setting(kinds[name], values, f"defaults.{name}", shared, where), shared)
    return defaults


def read_row(
    data: object, name: str, shared: Mapping[str, Setting], defaults: Mapping[str, Setting], where: str
) -> Row:
    """A mapping or a list of alternative mappings. Raises InputError that names the key path."""
    items = {f"{name}[{i}]": item for i, item in enumerate(data)} if isinstance(data, list) and data else {name: data}
    row = Row(name, tuple(_alternative(item, place, shared, defaults, where) for place, item in items.items()))
    if (count := row.combinations()) > MAX_COMBINATIONS:
        raise InputError(f"{where}: {name} has {count:.3g} combinations, but must have at most {MAX_COMBINATIONS}")
    return row


def _alternative(
    data: object, name: str, shared: Mapping[str, Setting], defaults: Mapping[str, Setting], where: str
) -> Alternative:
    place = f"{where}: {name}"
    if not isinstance(data, dict):
        raise refuse(place, data, "a mapping with block, c and the block's options, or a list of such mappings")
    if "block" not in data:
        raise InputError(f"{place}.block is missing; the blocks are: {', '.join(BLOCKS)}")
    settings = {"block": read_setting(_BLOCK, data["block"], f"{name}.block", shared, where)}
    blocks = [str(block) for block in settings["block"].values]
    classifies = "classifier" in blocks
    own = {} if classifies else _OWN
    kinds = {key: option.kind for block in blocks for key, option in options_of(block).items()}
    for key in data:
        if key not in {"block", "scale", *own, *kinds}:
            raise unknown(f"{place}.", key, {"block", "scale", *own, *kinds})
    if "c" in own and "c" not in data:
        raise InputError(f"{place}.c is missing")
    for key, kind in (own | kinds).items():
        if key in data:
            settings[key] = read_setting(kind, data[key], f"{name}.{key}", shared, where)
        elif key in defaults and key in kinds:
            settings[key] = defaults[key]
    for block in blocks:
        for key, default in defaults_of(block).items():
            if default is None and key not in settings:
                raise InputError(f"{place}.{key} is missing: {block} needs it")
    return Alternative(settings, checked(_SCALE, data.get("scale", not classifies), f"{place}.scale"))
