"""`params < 0.3M and accuracy > 0.9`: rows of a table, chosen and put in order by what a user writes."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

import pandas as pd

from nas.costs import COSTS
from nas.inputs import choices, quantity, refuse
from nas.latency import LATENCY

COLUMNS = [
    *"id accuracy accuracy_std accuracy_int8 accuracy_float32 measurements".split(),
    *(*COSTS, LATENCY, "measured_ms", "latency_int8_ms"),
    *"number rung epochs seconds knee stages".split(),
]
_SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
}
_COMPARISON = re.compile(r"\s*([A-Za-z_]\w*)\s*(" + "|".join(map(re.escape, _SIGNS)) + r")\s*(\S.*?)\s*")
_RULE = "comparisons such as params < 0.3M, joined by and, or (and binds closer)"
_WORDS = ("id", "stages")


def where(table: pd.DataFrame, text: str) -> pd.DataFrame:
    """The rows of which the condition holds; a value that is missing fulfils none.

    The grammar is comparisons of a column with a number (0.3M, 30k) or, of `id`, with a word, joined by `and` and `or`.
    Nothing is evaluated as code. Raises InputError for what is no such condition.
    """
    mask = pd.Series(False, index=table.index)
    for part in re.split(r"\s+or\s+", text.strip()):
        whole = pd.Series(True, index=table.index)
        for comparison in re.split(r"\s+and\s+", part):
            whole &= _compared(table, comparison, text)
        mask |= whole
    return table[mask].reset_index(drop=True)


def _compared(table: pd.DataFrame, comparison: str, text: str) -> pd.Series[bool]:
    found = _COMPARISON.fullmatch(comparison)
    if not found:
        raise refuse("--where", text, _RULE)
    name, sign, right = found.groups()
    if name not in (known := _known(table)):
        raise refuse("--where: column", name, choices(known))
    if name in _WORDS:
        if sign not in {"=", "==", "!="}:
            raise refuse(f"--where: {name}", f"{sign} {right}", "= or != a word")
        limit: Any = right.strip("'\"")
    else:
        try:
            limit = 0.0 if right == "0" else quantity(right)
        except ValueError as error:
            raise refuse(f"--where: {name}", right, str(error)) from None
    held: pd.Series[bool] = _SIGNS[sign](table[name], limit) & table[name].notna()
    return held.fillna(False).astype(bool)


def in_order(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Sorted by a column, falling if a minus stands in front of it. Raises InputError for one that is not there."""
    column = name.removeprefix("-")
    if column not in (known := _known(table)):
        raise refuse("--sort", name, f"{choices(known)}, with a minus in front: falling")
    return table.sort_values(column, ascending=not name.startswith("-"), kind="stable", ignore_index=True)


def columns_of(text: str, table: pd.DataFrame) -> list[str]:
    """The columns that are named, with commas between. Raises InputError for one that is not there, or named twice."""
    names = [name.strip() for name in text.split(",")]
    known = _known(table)
    for name in names:
        if name not in known:
            raise refuse("--columns", name, choices(known))
        if names.count(name) > 1:
            raise refuse("--columns", text, f"each once, but has {name} twice")
    return names


def _known(table: pd.DataFrame) -> list[str]:
    return [name for name in COLUMNS if name in table]
