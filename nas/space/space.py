"""The space itself: reading a file, and everything that can be asked of it."""

from __future__ import annotations

import html
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le

from nas.architecture import Architecture, Stage, Value, unknown
from nas.inputs import InputError, checked, read_yaml, refuse
from nas.rows import (
    WORD,
    Alternative,
    Ask,
    Row,
    Setting,
    canonical,
    every,
    follow,
    read_defaults,
    read_row,
    read_setting,
    read_shared,
    whole,
)
from nas.space.members import Members, Params, stage_problem

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

_CLASSES = Annotated[int, Ge(1), Le(100_000)]
_DIVISOR = Annotated[int, Ge(1), Le(1000)]
_SECTIONS = ("stem", "stages", "head")
_KEYS = {"name", "in_channels", "classes", "resolution", "width", "divisor", "choices", "defaults", *_SECTIONS}
# Members are counted over all combinations of the shared choices.
_MAX_SHARED = 10_000


@dataclass(frozen=True)
class Space:
    """The set of architectures that a YAML file describes (the form is described in docs/spaces.md).

    A member is named by its `params`: an answer to every choice that is asked, by key path. Several params may name
    the same member (width 0.5 of 32 channels is width 1 of 16): it is counted, enumerated and drawn as one.
    Combinations that no block accepts (groups that do not divide channels) are not members.
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
        """Reads what is in a file; `where` names its source in errors (see `load`)."""
        if "stages" not in data and isinstance(there := data.get("space"), str):
            raise InputError(f"{where}: is a study, not a space; its space is {there}")
        for key in data:
            if key not in _KEYS:
                raise unknown(f"{where}: ", key, _KEYS)
        for key in ("resolution", *_SECTIONS):
            if key not in data:
                raise InputError(f"{where}: {key} is missing")
        shared = read_shared(data, _KEYS, where)
        resolution = follow(read_setting(whole("resolution"), data["resolution"], "resolution", shared, where), shared)
        defaults = read_defaults(data, shared, where)
        _limit(shared, where)
        rows = tuple(
            read_row(item, name, shared, defaults, where)
            for section in _SECTIONS
            for item, name in _rows_of(data[section], section, where)
        )
        channels = checked(whole("in_channels"), data.get("in_channels", 3), f"{where}: in_channels")
        count = checked(_CLASSES, data.get("classes", 10), f"{where}: classes")
        space = cls(
            name=checked(WORD, data["name"], f"{where}: name") if "name" in data else Path(where).stem,
            rows=_with_classes(rows, classes or count, where),
            shared=shared,
            resolution=resolution,
            in_channels=in_channels or channels,
            divisor=checked(_DIVISOR, data.get("divisor", 8), f"{where}: divisor"),
        )
        # Counting takes long, and the first combination mostly is a member.
        if (reason := space.problem(space.form(lambda _, values: values[0]))) and not space.size:
            raise InputError(f"{where}: has no member: {reason}")
        return space

    def form(self, ask: Ask) -> Architecture:
        """The architecture that the answers lead to (it may be impossible, see `problem`)."""
        shared = {name: setting.pick(ask, {}) for name, setting in self.shared.items()}
        stages = tuple(row.form(ask, shared, self.divisor) for row in self.rows)
        return Architecture(stages, self.members.resolution(shared), self.in_channels)

    def problem(self, architecture: Architecture) -> str | None:
        """Why no network can be built from a combination of choices, or None."""
        state = architecture.in_channels, architecture.resolution
        for row, stage in zip(self.rows, architecture.stages, strict=True):
            if reason := stage_problem(stage, *state):
                return f"{row.name}: {reason}"
            state = stage.after(*state)
        return None

    def decode(self, params: Mapping[str, Value]) -> Architecture:
        """The member named by `params`. Raises InputError if a choice is missing, not legal, or not possible."""

        def ask(name: str, values: tuple[Value, ...]) -> Value:
            if name not in params:
                raise InputError(f"{self.name}: {name} is missing")
            if params[name] not in values:
                raise refuse(f"{self.name}: {name}", params[name], "one of: " + ", ".join(map(str, values)))
            return values[values.index(params[name])]

        architecture = self.form(ask)
        if reason := self.problem(architecture):
            raise InputError(f"{self.name}: {reason}")
        return architecture

    def encode(self, architecture: Architecture) -> Params:
        """The params of a member, the first where several name it. Raises InputError if it is not a member."""
        return next(self._names(architecture))

    def contains(self, architecture: Architecture) -> bool:
        try:
            self.encode(architecture)
        except InputError:
            return False
        return True

    def suggest(self, trial: optuna.trial.BaseTrial) -> Architecture:
        """Forms an architecture by asking an Optuna trial; it may be impossible, see `problem`."""
        from optuna.distributions import IntDistribution

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
        from optuna.distributions import CategoricalDistribution

        alternatives = {row.name for row in self.rows}
        return {
            name: CategoricalDistribution(values) if name in alternatives else _distribution(values)
            for name, values in self.choices.items()
        }

    @cached_property
    def size(self) -> int:
        """Exact number of members."""
        return self.members.size

    def enumerate(self) -> Iterator[Architecture]:
        """All members, each once, in a fixed order."""
        return map(self.members.member, range(self.size))

    def sample(self, rng: random.Random) -> Architecture:
        """A member; every member is equally likely."""
        return self.members.member(rng.randrange(self.size))

    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """The members that differ in one choice; choices that only then come to exist take all their values.

        Two members are neighbours if some params of theirs agree on all names that they share, but one.
        """
        seen = set()
        for params in self._names(architecture):
            seen.add(self.decode(params))
            for name, value in params.items():
                for other in (other for other in self.choices[name] if other != value):
                    fixed = params | {name: other}
                    for _, found in every(lambda ask, fixed=fixed: self.form(_first_from(fixed, ask))):  # type: ignore[misc]
                        if found not in seen and self.problem(found) is None:
                            seen.add(found)
                            yield found

    def _repr_html_(self) -> str:
        """For notebooks: its size and its choices."""
        rows = "".join(
            f"<tr><td><code>{html.escape(name)}</code></td><td>{html.escape(', '.join(map(str, values)))}</td></tr>"
            for name, values in self.choices.items()
        )
        head = f"space <b>{html.escape(self.name)}</b>: {self.size:,} architectures, {len(self.choices)} choices"
        return f"<p>{head}</p><details><summary>choices</summary><table>{rows}</table></details>"

    @cached_property
    def members(self) -> Members:
        """The members with their numbers, and what they are counted by."""
        return Members(self.rows, self.shared, self.resolution, self.in_channels, self.divisor)

    def _names(self, architecture: Architecture) -> Iterator[Params]:
        """All params that name a member. Raises InputError if it is none."""
        members = self.members
        if architecture.in_channels != self.in_channels:
            raise refuse("in_channels", architecture.in_channels, f"{self.in_channels} in space {self.name}")
        resolutions = sorted({members.resolution(shared) for _, shared in members.shared})
        if architecture.resolution not in resolutions:
            known = ", ".join(map(str, resolutions))
            raise refuse("resolution", architecture.resolution, f"one of: {known} in space {self.name}")
        if len(architecture.stages) != len(self.rows):
            raise InputError(f"architecture has {len(architecture.stages)} rows, space {self.name} {len(self.rows)}")
        stages = tuple(map(_canonical, self.rows, architecture.stages))
        if reason := self.problem(Architecture(stages, architecture.resolution, self.in_channels)):
            raise InputError(f"architecture cannot be built: {reason}")
        furthest = 0
        for answers, shared in members.shared:
            if members.resolution(shared) == architecture.resolution:
                rows = list(members.answers(stages, shared))
                furthest = max(furthest, len(rows))
                if len(rows) == len(stages):
                    yield from (_merged(answers, *row_answers) for row_answers in product(*rows))
        if furthest < len(stages):
            place, stage = self.rows[furthest].name, stages[furthest]
            raise InputError(f"architecture is not in space {self.name}: its {place} ({stage}) is no choice there")


def _canonical(row: Row, stage: Stage) -> Stage:
    try:
        return canonical(stage)
    except InputError as error:
        raise InputError(f"architecture cannot be built: {row.name}: {error}") from None


def _first_from(fixed: Params, ask: Ask) -> Ask:
    """Answers as `fixed` says, and asks what it does not say."""
    return lambda name, values: fixed[name] if name in fixed else ask(name, values)


def _merged(*parts: Params) -> Params:
    return {name: value for part in parts for name, value in part.items()}


def _distribution(values: tuple[Value, ...]) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        steps = {int(b) - int(a) for a, b in pairwise(values)}
        if len(steps) == 1 and (step := steps.pop()) > 0:
            return IntDistribution(int(values[0]), int(values[-1]), step=step)
    return CategoricalDistribution(values)


def _limit(shared: Mapping[str, Setting], where: str) -> None:
    combinations = prod(len(setting.values) for setting in shared.values())
    if combinations > _MAX_SHARED:
        names = ", ".join(shared)
        raise InputError(f"{where}: {names} have {combinations:.3g} combinations, but must have at most {_MAX_SHARED}")


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
            raise refuse(f"{where}: {row.name}.block", "classifier", "another: only the last row can be the classifier")
    blocks = [block for alternative in last.alternatives for block in alternative.settings["block"].values]
    if blocks != ["classifier"]:
        raise refuse(f"{where}: {last.name}.block", ", ".join(map(str, blocks)), "classifier, as it is the last row")
    settings = {**last.alternatives[0].settings, "c": Setting(f"{last.name}.c", (classes,))}
    return (*body, Row(last.name, (Alternative(settings, False),)))
