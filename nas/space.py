"""Search spaces: a YAML file read into typed, validated choices, and what can be asked of them."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Annotated, Any

import optuna
from annotated_types import Ge, Gt, Le
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from nas import blocks
from nas.architecture import Architecture, Stage, Value
from nas.inputs import InputError, checked, read_yaml, refuse
from nas.rows import Alternative, Ask, Row, Setting, canonical, every, read_row, read_setting

_Whole = Annotated[int, Ge(1), Le(100_000)]
_SECTIONS = ("stem", "stages", "head")
_KEYS = {"name", "in_channels", "classes", "resolution", "width", "divisor", "choices", "defaults", *_SECTIONS}
Params = dict[str, Value]
_State = tuple[int, int]


@lru_cache(maxsize=2**18)
def stage_problem(stage: Stage, channels: int, resolution: int) -> str | None:
    """Why a stage cannot stand behind `channels` x `resolution`^2, or None."""
    seen = set()
    for layer in stage.layers(channels, resolution):
        place = (layer.in_channels, layer.stride, layer.resolution)
        if place not in seen:
            seen.add(place)
            options = dict(layer.options)
            reason = blocks.problem(
                layer.block, layer.in_channels, layer.out_channels, layer.stride, layer.resolution, options
            )
            if reason:
                return f"{layer.block}{layer.out_channels}: {reason}"
    return None


@dataclass(frozen=True)
class Space:
    """The set of architectures that a YAML file describes (the form is described in the README).

    A member is named by its `params`: the value of every choice that makes a difference, by key path. Combinations
    that no block accepts (groups that do not divide channels) are not members: they are neither counted nor sampled.
    """

    name: str
    rows: tuple[Row, ...]
    shared: Mapping[str, Setting]
    resolution: Setting
    in_channels: int
    divisor: int

    @classmethod
    def load(cls, path: Path | str, in_channels: int | None = None, classes: int | None = None) -> Space:
        """Reads a file; `in_channels` and `classes`, known from the data, replace those in the file.

        Raises InputError naming the key path, the value, the rule and the valid choices.
        """
        return cls.from_dict(read_yaml(path), str(path), in_channels, classes)

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], where: str = "space", in_channels: int | None = None, classes: int | None = None
    ) -> Space:
        for key in sorted(set(data) - _KEYS):
            raise InputError(f"{where}: {key} is not known; the keys here are: {', '.join(sorted(_KEYS))}")
        for key in sorted({"resolution", *_SECTIONS} - set(data)):
            raise InputError(f"{where}: {key} is missing")
        channels = in_channels or checked(_Whole, data.get("in_channels", 3), f"{where}: in_channels")
        count = classes or checked(_Whole, data.get("classes", 10), f"{where}: classes")
        shared = _read_shared(data, where)
        resolution = read_setting(Annotated[int, Ge(1), Le(4096)], data["resolution"], "resolution", shared, where)
        if resolution.is_choice:
            shared["resolution"] = resolution
            resolution = Setting("resolution", resolution.values, "resolution", resolution.values)
        defaults = _read_defaults(data, shared, where)
        rows = tuple(
            read_row(item, name, shared, defaults, where)
            for section in _SECTIONS
            for item, name in _rows_of(data[section], section, where)
        )
        space = cls(
            name=checked(str, data.get("name", Path(where).stem), f"{where}: name"),
            rows=_with_classes(rows, count, where),
            shared=shared,
            resolution=resolution,
            in_channels=channels,
            divisor=checked(_Whole, data.get("divisor", 8), f"{where}: divisor"),
        )
        if space.size == 0:
            raise InputError(f"{where}: has no member: {space.problem(space.form(lambda _, values: values[0]))}")
        return space

    def form(self, ask: Ask) -> Architecture:
        """The architecture that the answers lead to (it may be impossible, see `problem`)."""
        shared = {name: setting.pick(ask, {}) for name, setting in self.shared.items()}
        resolution = int(self.resolution.pick(ask, shared))
        return Architecture(
            tuple(row.form(ask, shared, self.divisor) for row in self.rows), resolution, self.in_channels
        )

    def problem(self, architecture: Architecture) -> str | None:
        """Why no network can be built from a combination of choices, or None."""
        rows = iter(self.rows)
        channels, resolution = architecture.in_channels, architecture.resolution
        for row, stage in zip(rows, architecture.stages, strict=True):
            if stage.n:
                if reason := stage_problem(stage, channels, resolution):
                    return f"{row.name}: {reason}"
                channels, resolution = stage.after(channels, resolution)
        return None

    def decode(self, params: Mapping[str, Value]) -> Architecture:
        """The member named by `params`. Raises InputError if a choice is missing, not legal, or not possible."""

        def ask(name: str, values: tuple[Value, ...]) -> Value:
            if name not in params:
                raise InputError(f"{self.name}: {name} is missing")
            if params[name] not in values:
                raise refuse(f"{self.name}: {name}", params[name], "one of: " + ", ".join(map(str, values)))
            return params[name]

        architecture = self.form(ask)
        if reason := self.problem(architecture):
            raise InputError(f"{self.name}: {reason}")
        return architecture

    def encode(self, architecture: Architecture) -> Params:
        """The params of a member, the first where several name it. Raises InputError if it is not a member."""
        if architecture.in_channels != self.in_channels:
            raise refuse("in_channels", architecture.in_channels, f"{self.in_channels} in space {self.name}")
        if len(architecture.stages) != len(self.rows):
            raise InputError(f"architecture has {len(architecture.stages)} rows, space {self.name} {len(self.rows)}")
        stages = [canonical(stage) for stage in architecture.stages]
        furthest = -1
        for answers, shared in self._shared_values():
            if self.resolution.pick(_none, shared) != architecture.resolution:
                continue
            params = dict(answers)
            for index, stage in enumerate(stages):
                found = self._options(index, shared).get(stage)
                if found is None:
                    furthest = max(furthest, index)
                    break
                params |= found
            else:
                if self.problem(architecture) is None:
                    return params
        if furthest < 0:
            raise refuse(
                "resolution", architecture.resolution, "one of: " + ", ".join(map(str, self.resolution.values))
            )
        row = self.rows[furthest].name
        raise InputError(f"architecture is not in space {self.name}: its {row} ({stages[furthest]}) is no choice there")

    def contains(self, architecture: Architecture) -> bool:
        try:
            self.encode(architecture)
        except InputError:
            return False
        return True

    def suggest(self, trial: optuna.trial.BaseTrial) -> Architecture:
        """Forms an architecture by asking an Optuna trial; it may be impossible, see `problem`."""

        def ask(name: str, values: tuple[Value, ...]) -> Value:
            distribution = self.distributions[name]
            if isinstance(distribution, IntDistribution):
                return trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step)
            return trial.suggest_categorical(name, values)  # type: ignore[return-value]

        return self.form(ask)

    @cached_property
    def choices(self) -> dict[str, tuple[Value, ...]]:
        """All choices by name, also those that exist only under others."""
        settings = [*self.shared.values(), *(setting for row in self.rows for setting in row.settings())]
        return {setting.name: setting.values for setting in settings if setting.is_choice}

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's view: whole numbers in equal steps are ordered, everything else is categorical."""
        alternatives = {row.name for row in self.rows}
        return {
            name: CategoricalDistribution(values) if name in alternatives else _distribution(values)
            for name, values in self.choices.items()
        }

    @cached_property
    def size(self) -> int:
        """Exact number of members (assignments of the choices that make a difference)."""
        return sum(count for _, _, count in self._starts)

    def enumerate(self) -> Iterator[Architecture]:
        """All members, in a fixed order."""
        for _, shared, count in self._starts:
            if count:
                resolution = int(self.resolution.pick(_none, shared))
                for stages in self._tails(0, shared, (self.in_channels, resolution)):
                    yield Architecture(stages, resolution, self.in_channels)

    def sample(self, rng: random.Random) -> Architecture:
        """A member, uniformly: every row is drawn by the number of members behind each of its stages."""
        starts, below = self._starts, self._starts_below
        shared = starts[bisect_right(below, rng.randrange(self.size))][1]
        state = (self.in_channels, int(self.resolution.pick(_none, shared)))
        resolution, stages = state[1], []
        for index in range(len(self.rows)):
            options, totals = self._ways(index, shared, state)
            stage = options[bisect_right(totals, rng.randrange(totals[-1]))]
            stages.append(stage)
            state = stage.after(*state)
        return Architecture(tuple(stages), resolution, self.in_channels)

    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """The members that differ in one choice; choices that only then come to exist take all their values."""
        params = self.encode(architecture)
        for name, value in params.items():
            for other in self.choices[name]:
                if other != value:
                    fixed = params | {name: other}
                    yield from (
                        found
                        for _, found in every(
                            lambda ask, fixed=fixed: self.form(  # type: ignore[misc]
                                lambda key, values: fixed[key] if key in fixed else ask(key, values)
                            )
                        )
                        if self.problem(found) is None
                    )

    # Counting: a row's stage is possible or not given the channels and resolution in front of it, and hands on its
    # own. So the members behind a row are a function of that state alone, and are counted from the last row back.

    @cached_property
    def _memo(self) -> dict[Any, Any]:
        return {}

    @cached_property
    def _depends(self) -> list[frozenset[str]]:
        return [row.depends() for row in self.rows]

    @cached_property
    def _starts(self) -> list[tuple[Params, Params, int]]:
        """(answers, values, members) of every combination of the shared choices."""
        return [
            (answers, shared, self._count(0, shared, (self.in_channels, int(self.resolution.pick(_none, shared)))))
            for answers, shared in self._shared_values()
        ]

    @cached_property
    def _starts_below(self) -> list[int]:
        return list(accumulate(count for _, _, count in self._starts))

    def _shared_values(self) -> Iterator[tuple[Params, Params]]:
        return every(lambda ask: {name: setting.pick(ask, {}) for name, setting in self.shared.items()})

    def _tails(self, index: int, shared: Params, state: _State) -> Iterator[tuple[Stage, ...]]:
        if index == len(self.rows):
            yield ()
            return
        for stage in self._ways(index, shared, state)[0]:
            for tail in self._tails(index + 1, shared, stage.after(*state)):
                yield (stage, *tail)

    def _key(self, index: int, shared: Params) -> Any:
        return tuple((name, shared[name]) for name in sorted(self._depends[index]) if name in shared)

    def _options(self, index: int, shared: Params) -> dict[Stage, Params]:
        """The stages that a row can be, each with the answers that lead to it."""
        key = ("options", index, self._key(index, shared))
        if key not in self._memo:
            row = self.rows[index]
            found: dict[Stage, Params] = {}
            for answers, stage in every(lambda ask: row.form(ask, shared, self.divisor)):
                found.setdefault(stage, answers)
            self._memo[key] = found
        return self._memo[key]  # type: ignore[no-any-return]

    def _count(self, index: int, shared: Params, state: _State) -> int:
        """Members from row `index` on."""
        if index == len(self.rows):
            return 1
        return self._ways(index, shared, state)[1][-1] if self._ways(index, shared, state)[1] else 0

    def _ways(self, index: int, shared: Params, state: _State) -> tuple[list[Stage], list[int]]:
        """The possible stages of a row with members behind them, and the running total of those members."""
        rest = tuple(self._key(i, shared) for i in range(index, len(self.rows)))
        key = ("ways", index, rest, state)
        if key not in self._memo:
            stages, counts = [], []
            behind: dict[_State, int] = {}
            for stage in self._options(index, shared):
                if stage_problem(stage, *state) is None:
                    after = stage.after(*state)
                    if after not in behind:
                        behind[after] = self._count(index + 1, shared, after)
                    if behind[after]:
                        stages.append(stage)
                        counts.append(behind[after])
            self._memo[key] = (stages, list(accumulate(counts)))
        return self._memo[key]  # type: ignore[no-any-return]


def _none(name: str, values: tuple[Value, ...]) -> Value:
    raise AssertionError(f"{name} is asked, but is a shared choice or fixed")


def _distribution(values: tuple[Value, ...]) -> BaseDistribution:
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        steps = {int(b) - int(a) for a, b in pairwise(values)}
        if len(steps) == 1 and (step := steps.pop()) > 0:
            return IntDistribution(int(values[0]), int(values[-1]), step=step)
    return CategoricalDistribution(values)


def _read_shared(data: Mapping[str, Any], where: str) -> dict[str, Setting]:
    section = data.get("choices", {})
    if not isinstance(section, dict):
        raise refuse(f"{where}: choices", section, "a mapping of names to lists")
    shared: dict[str, Setting] = {}
    for name, values in section.items():
        if not isinstance(name, str) or not name.isidentifier() or name in _KEYS:
            raise refuse(f"{where}: choices: name", name, f"a word, and none of: {', '.join(sorted(_KEYS))}")
        shared[name] = replace(read_setting(bool | int | float | str, values, f"choices.{name}", {}, where), name=name)
    if "width" in data:
        width = read_setting(Annotated[float, Gt(0), Le(100)], data["width"], "width", {}, where)
        shared["width"] = width
    return shared


def _read_defaults(data: Mapping[str, Any], shared: dict[str, Setting], where: str) -> dict[str, Setting]:
    """Options for all rows whose block takes them; a list is one choice that all those rows share."""
    section = data.get("defaults", {})
    if not isinstance(section, dict):
        raise refuse(f"{where}: defaults", section, "a mapping of block options to values")
    kinds = {name: option.kind for block in blocks.BLOCKS for name, option in blocks.options_of(block).items()}
    defaults = {}
    for name, values in section.items():
        if name not in kinds:
            raise InputError(f"{where}: defaults.{name} is not known; the options are: {', '.join(sorted(kinds))}")
        setting = read_setting(kinds[name], values, f"defaults.{name}", shared, where)
        if setting.is_choice:
            shared[setting.name] = setting
            setting = Setting(setting.name, setting.values, setting.name, setting.values)
        defaults[name] = setting
    return defaults


def _rows_of(section: object, name: str, where: str) -> list[tuple[object, str]]:
    if isinstance(section, list) and section:
        return [(item, f"{name}[{i}]") for i, item in enumerate(section)]
    if isinstance(section, dict) and name != "stages":
        return [(section, name)]
    raise refuse(f"{where}: {name}", section, "a list of rows" + ("" if name == "stages" else " or one row"))


def _with_classes(rows: tuple[Row, ...], classes: int, where: str) -> tuple[Row, ...]:
    """The last row, and only the last, is the classifier; its channels are the classes."""
    *body, last = rows
    for row in body:
        if any("classifier" in alternative.settings["block"].values for alternative in row.alternatives):
            raise InputError(f"{where}: {row.name}.block is 'classifier', but only the last row can be the classifier")
    if len(last.alternatives) != 1 or last.alternatives[0].settings["block"].values != ("classifier",):
        raise InputError(f"{where}: {last.name} is the last row, but must be one with block: classifier")
    settings = {**last.alternatives[0].settings, "c": Setting(f"{last.name}.c", (classes,))}
    return (*body, Row(last.name, (Alternative(settings, False),)))
