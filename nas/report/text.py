"""A front as text: aligned, no wider than the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nas.architecture import Architecture, Value, spelled
from nas.blocks import BLOCKS, defaults_of
from nas.costs import COSTS

if TYPE_CHECKING:
    import pandas as pd

OPTIONAL = ("accuracy_int8", "accuracy_float32", "measured_ms", "latency_int8_ms")
"""Columns that are shown where a front has them."""
LEAST_WIDTH = 60
"""Columns for the stages beside the numbers; where there are fewer, they stand under them."""


def front_text(front: pd.DataFrame, objectives: list[str], width: int | None) -> str:
    """The table: knee, id, accuracy (std and number of measurements, where some were repeated), params, MACs, the other
    objectives, stages in short form; in at most `width` columns (None: any)."""
    view, shared = front_view(front, objectives)
    stages = list(view.pop("stages"))
    numbers = aligned([list(view.columns), *view.to_numpy().tolist()])
    lines = _with_stages(numbers, ["stages", *stages], width)
    return "\n".join([*lines, *([f"\nall of them: {shared}"] if shared else [])])


def columns_text(front: pd.DataFrame, columns: Sequence[str]) -> str:
    """The table with these columns alone."""
    # Column by column: one array of all of them would make a float of every number.
    cells = zip(*(front[name] for name in columns), strict=True)
    rows = [[_cell(name, value) for name, value in zip(columns, row, strict=True)] for row in cells]
    return "\n".join(line.rstrip() for line in aligned([list(columns), *rows]))


def _cell(name: str, value: Any) -> str:
    if value is None or str(value) in {"nan", "<NA>"}:
        return "not yet" if name in ("measured_ms", "latency_int8_ms") else ""
    if name in COSTS:
        return f"{value:,.0f}"
    if isinstance(value, float):
        return f"{value:.1f}" if name == "seconds" else f"{value:.4f}"
    return spelled(value)


def receipt_text(receipt: Mapping[str, Any]) -> str:
    """What the rungs saved; empty if there is but one."""
    reached, epochs, audit = receipt["reached"], receipt["epochs"], receipt["audit"]
    if len(reached) == 1:
        return ""
    every = epochs["spent"] + epochs["saved"]
    share = f"{epochs['saved'] / every:.0%}" if every else "none"
    rungs = " > ".join(str(count) for count in reached.values())
    text = f"rungs: {rungs} candidates; {epochs['spent']:.4g} epochs, {share} saved of {every:.4g} to the top"
    if epochs["confirming"]:
        text += f"; {epochs['confirming']:.4g} to measure the front again"
    if not audit["candidates"]:
        return text
    if audit["lost"] is None:
        return f"{text}\naudit: none of the {audit['candidates']} that were to be cut was trained on"
    low, high = audit["lost"]
    return (
        f"{text}\naudit: {audit['trained']} of {audit['candidates']} that were to be cut were trained on, "
        f"{audit['on_front']} are on the front ({low:.0%} to {high:.0%} of all, with 95 % confidence)"
    )


def front_view(front: pd.DataFrame, objectives: list[str]) -> tuple[pd.DataFrame, str]:
    """What is shown of a front, every cell a text; and what all its networks share, which `stages` leaves out."""
    names = list(dict.fromkeys(["accuracy", "params", "macs", *objectives]))
    names += [name for name in OPTIONAL if name in front]
    view = front[["id", *names]].copy()
    view.insert(0, "", ["knee" if knee else "" for knee in front["knee"]])
    if (front["measurements"] > 1).any():
        deviations = [f"{value:.4f}" if value == value else "" for value in front["accuracy_std"]]  # NaN of one alone
        view.insert(3, "std", deviations)
        view.insert(4, "n", [str(count) for count in front["measurements"]])
    for name in names:
        view[name] = [_cell(name, value) for value in front[name]]
    shared, view["stages"] = short_stages([Architecture.from_json(text) for text in front["architecture"]])
    return view, shared


def short_stages(architectures: Sequence[Architecture]) -> tuple[str, list[str]]:
    """(what all of them share, the rest of each). What holds in all stages of a network is said once, in front."""
    heads, rows = [], []
    for architecture in architectures:
        common = _common(architecture)
        heads.append([f"{architecture.resolution}px", *(assigned(*item) for item in sorted(common.items()))])
        stages = [stage for stage in architecture.stages if stage.n]
        rows.append(
            [str(replace(x, options=tuple(item for item in x.options if item[0] not in common))) for x in stages]
        )
    shared = [word for word in heads[0] if all(word in head for head in heads)] if heads else []
    if rows and all(row[-1] == rows[0][-1] for row in rows):
        shared.append(rows[0][-1])
        rows = [row[:-1] for row in rows]
    own = [" ".join(word for word in head if word not in shared) for head in heads]
    texts = [(f"{head}: " if head else "") + " | ".join(row) for head, row in zip(own, rows, strict=True)]
    return ", ".join(shared), texts


def _common(architecture: Architecture) -> dict[str, Value]:
    """The options that are set somewhere and have one value in all the stages that take them, two at least."""
    values: dict[str, list[Value]] = {}
    for stage in architecture.stages:
        if stage.n:
            options = {**defaults_of(stage.block), **dict(stage.options)}
            for name, value in options.items():
                if BLOCKS[stage.block].used(name, options):
                    values.setdefault(name, []).append(value)
    named = {name for stage in architecture.stages for name, _ in stage.options}
    return {name: found[0] for name, found in values.items() if name in named and len(found) > 1 == len(set(found))}


def assigned(name: str, value: Value) -> str:
    return f"{name}={spelled(value)}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of equal length, the first row the header; columns of numbers stand to the right."""
    columns = []
    for head, *cells in zip(*rows, strict=True):
        size = max(map(len, (head, *cells)))
        numeric = head != "id" and all(cell[:1].isdigit() for cell in cells)
        columns.append([cell.rjust(size) if numeric else cell.ljust(size) for cell in (head, *cells)])
    return ["  ".join(cells) for cells in zip(*columns, strict=True)]


def _with_stages(lines: list[str], stages: list[str], width: int | None) -> list[str]:
    longest, left = max(map(len, stages)), len(lines[0]) + 2
    room = longest if width is None else width - left
    rows = []
    for line, text in zip(lines, stages, strict=True):
        if room >= min(LEAST_WIDTH, longest):
            first, *more = _wrapped(text, room)
            rows += [f"{line}  {first}", *(" " * left + part for part in more)]
        else:
            rows += [line, *(f"      {part}" for part in _wrapped(text, room + left - 6))]
    return [row.rstrip() for row in rows]


def _wrapped(stages: str, width: int) -> list[str]:
    """Broken between stages alone: a stage is read as one word."""
    lines = [""]
    for index, stage in enumerate(stages.split(" | ")):
        more = f" | {stage}" if index else stage
        if index and len(lines[-1]) + len(more) > width:
            lines.append(more.lstrip())
        else:
            lines[-1] += more
    return lines
