"""What networks are made of. A new block: one file here, one line in BLOCKS."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from nas.blocks.block import Block
from nas.blocks.bottleneck import Bottleneck
from nas.blocks.classifier import Classifier
from nas.blocks.conv import Conv
from nas.blocks.cse import CSE
from nas.blocks.identity import Identity
from nas.blocks.separable import Separable
from nas.blocks.shuffle import Shuffle

BLOCKS: dict[str, type[Block]] = {
    "bottleneck": Bottleneck,
    "classifier": Classifier,
    "conv": Conv,
    "cse": CSE,
    "identity": Identity,
    "separable": Separable,
    "shuffle": Shuffle,
}


@dataclass(frozen=True)
class Option:
    """A keyword argument of a block: `kind` is its annotation, `default` None where it must be given."""

    kind: Any
    default: Any


@cache
def options_of(block: str) -> dict[str, Option]:
    """The options of a block by name, in the order of its signature."""
    constructor = BLOCKS[block].__init__
    kinds = typing.get_type_hints(constructor, include_extras=True)
    return {
        name: Option(kinds[name], None if parameter.default is inspect.Parameter.empty else parameter.default)
        for name, parameter in inspect.signature(constructor).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def complete(block: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` with the block's defaults for those not given."""
    return {name: options.get(name, option.default) for name, option in options_of(block).items()}


def problem(
    block: str, in_channels: int, out_channels: int, stride: int, resolution: int, options: Mapping[str, Any]
) -> str | None:
    """Why this block cannot stand at this place, or None."""
    try:
        BLOCKS[block].check(in_channels, out_channels, stride, resolution, **complete(block, options))
    except ValueError as error:
        return str(error)
    return None


def make(
    block: str, in_channels: int, out_channels: int, stride: int, resolution: int, options: Mapping[str, Any]
) -> Block:
    """A new module. Raises ValueError if the block cannot stand at this place."""
    if reason := problem(block, in_channels, out_channels, stride, resolution, options):
        raise ValueError(f"{block}: {reason}")
    return BLOCKS[block](in_channels, out_channels, stride, resolution, **options)
