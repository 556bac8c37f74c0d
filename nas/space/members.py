"""The members of a space, counted, so that each has a number.

A member is a path through the rows. What can follow a stage depends on the channels and resolution that it hands on,
and on the shared choices that allow all stages so far: on nothing else. So paths are counted from the last row back,
once for each of these, and a path that several shared choices allow counts once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import NamedTuple, TypeVar

from nas import blocks
from nas.architecture import Architecture, Options, Stage, Value
from nas.rows import Row, Setting, every

Params = dict[str, Value]
"""Answers to choices, by name."""
_State = tuple[int, int]
"""Channels and resolution between two rows."""
_Key = tuple[Value, ...]
"""The values of the shared choices that a row follows."""
_Alive = tuple[tuple[_Key, ...], ...]
"""In front of a row, the shared choices that allow all stages so far, each as its keys for that row and all behind."""
T = TypeVar("T")


class _Group(NamedTuple):
    """Stages that hand on the same channels and resolution and are allowed by the same keys."""

    stages: list[Stage]
    after: _State
    keys: set[_Key]


class _Branch(NamedTuple):
    """Stages of a row behind which the same can follow: `behind` members for each of them."""

    stages: list[Stage]
    after: _State
    alive: _Alive
    behind: int


@lru_cache(maxsize=2**16)
def _problem(
    block: str, in_channels: int, out_channels: int, stride: int, resolution: int, options: Options
) -> str | None:
    reason = blocks.problem(block, in_channels, out_channels, stride, resolution, dict(options))
    return f"{block}{out_channels}: {reason}" if reason else None


def stage_problem(stage: Stage, channels: int, resolution: int) -> str | None:
    """Why a stage cannot stand behind `channels` x `resolution`^2, or None.

    Of its layers, without making them: a space asks for every stage in every place.
    """
    if not stage.n:
        return None
    reason = _problem(stage.block, channels, stage.c, stage.s, resolution, stage.options)
    if reason or stage.n == 1:
        return reason
    return _problem(stage.block, stage.c, stage.c, 1, -(-resolution // stage.s), stage.options)


class Members:
    """What can be formed from rows and shared choices, and counted. The work is done when it is first asked for."""

    def __init__(
        self,
        rows: tuple[Row, ...],
        shared: Mapping[str, Setting],
        resolution: Setting,
        in_channels: int,
        divisor: int,
    ) -> None:
        self.rows, self.in_channels, self.divisor, self._resolution = rows, in_channels, divisor, resolution
        self.shared = list(every(lambda ask: {name: setting.pick(ask, {}) for name, setting in shared.items()}))
        """(answers, values) of every combination of the shared choices."""
        self._follows = [sorted(row.follows() & set(shared)) for row in rows]
        self._options: dict[tuple[int, _Key], dict[Stage, list[Params]]] = {}
        self._groups: dict[tuple[int, _State, tuple[_Key, ...]], list[_Group]] = {}
        self._branches: dict[tuple[int, _State, _Alive], tuple[list[_Branch], list[int]]] = {}

    @property
    def size(self) -> int:
        return self.starts[1][-1]

    def member(self, rank: int) -> Architecture:
        """The member number `rank`, from 0."""
        (resolution, alive), rank = _pick(*self.starts, rank)
        state, stages = (self.in_channels, resolution), []
        for index in range(len(self.rows)):
            branch, rank = _pick(*self.branches(index, state, alive), rank)
            place, rank = divmod(rank, branch.behind)
            stages.append(branch.stages[place])
            state, alive = branch.after, branch.alive
        return Architecture(tuple(stages), resolution, self.in_channels)

    def resolution(self, shared: Mapping[str, Value]) -> int:
        return int(self._resolution.pick(_none, shared))

    def answers(self, stages: tuple[Stage, ...], shared: Params) -> Iterator[list[Params]]:
        """Row by row, all answers that lead to its stage; ends in front of the first row that has none."""
        for index, stage in enumerate(stages):
            found = self.options(index, self._key(index, shared)).get(stage)
            if found is None:
                return
            yield found

    def options(self, index: int, key: _Key) -> dict[Stage, list[Params]]:
        """The stages that a row can be, each with all answers that lead to it."""
        if (index, key) not in self._options:
            row, shared = self.rows[index], dict(zip(self._follows[index], key, strict=True))
            found: dict[Stage, list[Params]] = {}
            for answers, stage in every(lambda ask: row.form(ask, shared, self.divisor)):
                found.setdefault(stage, []).append(answers)
            self._options[index, key] = found
        return self._options[index, key]

    def groups(self, index: int, state: _State, keys: tuple[_Key, ...]) -> list[_Group]:
        """The stages that a row can be behind `state`, for any of `keys`."""
        place = (index, state, keys)
        if place not in self._groups:
            allowing: dict[Stage, list[_Key]] = {}
            for key in keys:
                for stage in self.options(index, key):
                    allowing.setdefault(stage, []).append(key)
            found: dict[tuple[_State, tuple[_Key, ...]], list[Stage]] = {}
            for stage, by in allowing.items():
                if stage_problem(stage, *state) is None:
                    found.setdefault((stage.after(*state), tuple(by)), []).append(stage)
            self._groups[place] = [_Group(stages, after, set(by)) for (after, by), stages in found.items()]
        return self._groups[place]

    def branches(self, index: int, state: _State, alive: _Alive) -> tuple[list[_Branch], list[int]]:
        """The stages that a row can be with members behind them, and the running total of those members."""
        place = (index, state, alive)
        if place not in self._branches:
            branches = []
            for group in self.groups(index, state, tuple(dict.fromkeys(keys[0] for keys in alive))):
                left = tuple(dict.fromkeys(keys[1:] for keys in alive if keys[0] in group.keys))
                if behind := self._count(index + 1, group.after, left):
                    branches.append(_Branch(group.stages, group.after, left, behind))
            totals = list(accumulate(len(branch.stages) * branch.behind for branch in branches))
            self._branches[place] = branches, totals
        return self._branches[place]

    def _count(self, index: int, state: _State, alive: _Alive) -> int:
        """Members from row `index` on."""
        if index == len(self.rows):
            return 1
        totals = self.branches(index, state, alive)[1]
        return totals[-1] if totals else 0

    @cached_property
    def starts(self) -> tuple[list[tuple[int, _Alive]], list[int]]:
        """Every resolution with the shared choices that lead to it, and the running total of its members."""
        found: dict[int, dict[tuple[_Key, ...], None]] = {}
        for _, shared in self.shared:
            keys = self.keys(shared)
            found.setdefault(self.resolution(shared), {})[keys] = None
        starts = [(resolution, tuple(keys)) for resolution, keys in found.items()]
        return starts, list(accumulate(self._count(0, (self.in_channels, side), alive) for side, alive in starts))

    def keys(self, shared: Params) -> tuple[_Key, ...]:
        """The values of the shared choices that each row follows."""
        return tuple(self._key(index, shared) for index in range(len(self.rows)))

    def _key(self, index: int, shared: Params) -> _Key:
        return tuple(shared[name] for name in self._follows[index])


def _pick(items: Sequence[T], totals: Sequence[int], rank: int) -> tuple[T, int]:
    """The item in whose share of the running totals `rank` falls, and its rank in there."""
    place = bisect_right(totals, rank)
    return items[place], rank - (totals[place - 1] if place else 0)


def _none(name: str, values: tuple[Value, ...]) -> Value:
    raise AssertionError(f"{name} is asked, but is a shared choice or fixed")
