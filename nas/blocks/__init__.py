"""What networks are made of. A new block: one file here, one line in BLOCKS; or an entry point of another package."""

from __future__ import annotations

import inspect
import logging
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from nas.blocks.block import Block
from nas.blocks.bottleneck import Bottleneck
from nas.blocks.classifier import Classifier
from nas.blocks.conv import Conv
from nas.blocks.cse import CSE
from nas.blocks.fused_bottleneck import FusedBottleneck
from nas.blocks.identity import Identity
from nas.blocks.maxpool import MaxPool
from nas.blocks.separable import Separable
from nas.blocks.shuffle import Shuffle
from nas.inputs import InputError, checked, choices, refuse

BLOCKS: dict[str, type[Block]] = {
    "bottleneck": Bottleneck,
    "classifier": Classifier,
    "conv": Conv,
    "cse": CSE,
    "fused_bottleneck": FusedBottleneck,
    "identity": Identity,
    "maxpool": MaxPool,
    "separable": Separable,
    "shuffle": Shuffle,
}


def _add_installed() -> None:
    """The blocks that installed packages name in the entry points `nas.blocks`; what is wrong with one is a warning."""
    for point in entry_points(group="nas.blocks"):
        if reason := _refused(point):
            logging.getLogger("nas").warning("block %s (%s) is left out: it %s", point.name, point.value, reason)


def _refused(point: EntryPoint) -> str | None:
    """Adds a block, or says why not."""
    if point.name in BLOCKS:
        return "has the name of another block"
    try:
        block = point.load()
    except Exception as error:  # noqa: BLE001 - foreign code
        return f"cannot be imported: {type(error).__name__}: {error}"
    if not (isinstance(block, type) and issubclass(block, Block)):
        return "is no subclass of nas.blocks.Block"
    BLOCKS[point.name] = block
    return None


_add_installed()


def block_type(block: str) -> type[Block]:
    """Raises InputError if there is no such block."""
    if block not in BLOCKS:
        raise refuse("block", block, f"{choices(BLOCKS)}; one of your own must be registered before, or be installed")
    return BLOCKS[block]


@dataclass(frozen=True)
class Option:
    """A keyword argument of a block: `kind` is its annotation, `default` None where it must be given."""

    kind: Any
    default: Any


@cache
def options_of(block: str) -> dict[str, Option]:
    """The options of a block by name, in the order of its signature. Raises InputError if there is no such block."""
    constructor = block_type(block).__init__
    kinds = typing.get_type_hints(constructor, include_extras=True)
    return {
        name: Option(kinds[name], None if parameter.default is inspect.Parameter.empty else parameter.default)
        for name, parameter in inspect.signature(constructor).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


@cache
def defaults_of(block: str) -> Mapping[str, Any]:
    """The default of every option of a block, None where it must be given."""
    return {name: option.default for name, option in options_of(block).items()}


def check_options(block: str, options: Mapping[str, Any]) -> None:
    """Raises InputError for an unknown block, an unknown or missing option, or an illegal value."""
    known = options_of(block)
    for name, value in options.items():
        if name not in known:
            has = f"its options are: {', '.join(known)}" if known else "it has no options"
            raise InputError(f"{name} is not an option of {block}; {has}")
        checked(known[name].kind, value, f"{block}.{name}")
    for name, option in known.items():
        if option.default is None and name not in options:
            raise InputError(f"{block}.{name} is missing")


def problem(
    block: str, in_channels: int, out_channels: int, stride: int, resolution: int, options: Mapping[str, Any]
) -> str | None:
    """Why this block with these (legal) options cannot stand at this place, or None."""
    try:
        BLOCKS[block].check(in_channels, out_channels, stride, resolution, **{**defaults_of(block), **options})
    except ValueError as error:
        return str(error)
    return None


def make(
    block: str, in_channels: int, out_channels: int, stride: int, resolution: int, options: Mapping[str, Any]
) -> Block:
    """A new module. Raises InputError for illegal options, or if the block cannot stand at this place."""
    check_options(block, options)
    if reason := problem(block, in_channels, out_channels, stride, resolution, options):
        raise InputError(f"{block}{out_channels}: {reason}")
    return BLOCKS[block](in_channels, out_channels, stride, resolution, **options)
