"""A space as the surrogate looks at it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from nas.architecture import Architecture
from nas.space import Space
from nas.surrogate.domain import Params


class Same:
    """Equal to itself alone: a Space has no hash, and what is known of its members is kept between proposals."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value


def member(space: Space, params: Params) -> Architecture:
    """`space.decode`; the last members are remembered, of which identity, costs and features are asked in turn."""
    return _decoded(Same(space), tuple(params.items()))


@lru_cache(maxsize=64)
def _decoded(space: Same, params: tuple[tuple[str, Any], ...]) -> Architecture:
    architecture: Architecture = space.value.decode(dict(params))
    return architecture


def shape(architecture: Architecture) -> dict[str, float]:
    """How deep and how wide a network is."""
    layers = [(stage.n, stage.c) for stage in architecture.stages if stage.n]
    depth = sum(count for count, _ in layers)
    width = sum(count * math.log(channels) for count, channels in layers) / max(1, depth)
    return {"depth": math.log(max(1, depth)), "width": width, "resolution": math.log(architecture.resolution)}


def asked_names(space: Space) -> Callable[[Params], Iterable[str]]:
    """Of answers to all choices of a space, the names of those that are asked."""

    def names(answers: Params) -> Iterable[str]:
        asked = []

        def ask(name: str, values: tuple[Any, ...]) -> Any:
            asked.append(name)
            return answers[name]

        space.form(ask)
        return asked

    return names


def identity(space: Space) -> Callable[[Params], str]:
    """What two params have in common that name the same member. Raises InputError for those that name none."""
    return lambda params: member(space, params).id
