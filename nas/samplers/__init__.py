"""Who proposes candidates. A new sampler: one file here, one line in SAMPLERS.

A sampler is made anew, from its seed and the number of the trial, in front of every proposal: all that it knows is
in the Optuna storage, so a study that was stopped goes on exactly as it would have gone on.
"""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna.samplers import BaseSampler

from nas.inputs import check_options, choices, refuse
from nas.samplers.nsga2 import nsga2
from nas.samplers.random import random
from nas.samplers.surrogate import Draw, SpaceCosts, SurrogateSampler, surrogate
from nas.samplers.tpe import tpe
from nas.space import Space

__all__ = ["SAMPLERS", "SurrogateSampler", "check_sampler", "make_sampler", "uniform_proposals"]

SAMPLERS: dict[str, Callable[..., BaseSampler]] = {"random": random, "tpe": tpe, "nsga2": nsga2, "surrogate": surrogate}
"""A sampler is a function of what it asks for of _GIVEN, and of keyword arguments with defaults: its options."""
UNIFORM = {"random": None, "tpe": "startup", "nsga2": "population"}
"""Whose first proposals are to be members within the budget, drawn uniformly by the study, and the option that says
how many (None: all). The others are asked from the first proposal on."""
_GIVEN = {"seed", "space", "costs", "draw", "budget", "objectives"}


def check_sampler(name: str, options: Mapping[str, Any], where: str) -> None:
    """Raises InputError for an unknown sampler, or an option that it does not have or that is not legal."""
    if name not in SAMPLERS:
        raise refuse(f"{where}.name", name, choices(SAMPLERS))
    check_options(SAMPLERS[name], _GIVEN, options, where, name)


def uniform_proposals(name: str, options: Mapping[str, Any]) -> float:
    """How many proposals the study draws uniformly from what is within the budget before it asks the sampler."""
    if name not in UNIFORM:
        return 0
    option = UNIFORM[name]
    if option is None:
        return math.inf
    return float(options.get(option, inspect.signature(SAMPLERS[name]).parameters[option].default))


def make_sampler(
    name: str,
    options: Mapping[str, Any],
    seed: int,
    trial: int,
    space: Space,
    costs: SpaceCosts,
    draw: Draw,
    budget: Mapping[str, float],
    objectives: Sequence[str],
) -> BaseSampler:
    """The sampler that makes proposal number `trial` of a study of `space` for `objectives` within `budget`.

    `costs` is of a member, `draw` a member within the budget, uniformly.
    """
    given = {"seed": (seed * 1_000_003 + trial) % 2**31, "space": space}
    given |= {"costs": costs, "draw": draw, "budget": budget, "objectives": objectives}
    known = typing.get_type_hints(SAMPLERS[name])
    return SAMPLERS[name](**{key: value for key, value in given.items() if key in known}, **options)
