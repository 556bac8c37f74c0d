"""A space as text: its size, what its members cost, and what a budget leaves of it."""

from __future__ import annotations

from typing import Any

from nas.architecture import Architecture, spelled
from nas.report.text import aligned, assigned, short_stages

MOST_ROWS = 40
"""Members that are shown; `--json` has all of those listed."""


def space_text(facts: dict[str, Any]) -> str:
    """What `describe_space` found."""
    if facts["size"] == 1:
        parts = [f"{facts['name']}: one network", _networks(facts)]
        return "\n\n".join([*parts, *_within(facts)])
    same = facts["networks"]
    known = "distinct networks not counted" if same is None else f"{same:,} distinct networks"
    head = f"{facts['name']}: {facts['size']:,} architectures ({known}), {len(facts['choices'])} choices"
    parts = [head, _costs(facts), *([_extremes(facts)] if facts["extremes"] else []), *_within(facts)]
    parts.append(_members(facts) if facts["members"] else _networks(facts))
    return "\n\n".join(part for part in parts if part)


def _costs(facts: dict[str, Any]) -> str:
    rows = [[name, *(f"{value:,.0f}" for value in row.values())] for name, row in facts["costs"].items()]
    drawn = [name for name in facts["costs"] if name not in facts["exact"]]
    how = "costs of all architectures, exact"
    if drawn:
        how = f"costs ({', '.join(drawn)} of {facts['samples']} architectures drawn uniformly, seed {facts['seed']})"
    return "\n".join([f"{how}:", *aligned([["", *next(iter(facts["costs"].values()))], *rows])])


def _extremes(facts: dict[str, Any]) -> str:
    """One line for each network; the costs in which it is the cheapest or the dearest together."""
    found: dict[str, dict[str, Any]] = {}
    for row in facts["extremes"]:
        found.setdefault(row["id"], {"row": row, "cheapest": [], "dearest": []})[row["which"]].append(row["cost"])
    shared, stages = short_stages([Architecture.from_dict(x["row"]["architecture"]) for x in found.values()])
    lines = []
    for (name, x), text in zip(found.items(), stages, strict=True):
        which = ", ".join(f"{way} in {', '.join(x[way])}" for way in ("cheapest", "dearest") if x[way])
        lines.append(f"{name} {which}:\n  {text}")
    return "\n".join([*lines, *([f"all of them: {shared}"] if shared else [])])


def _within(facts: dict[str, Any]) -> list[str]:
    """What a budget leaves, and of which choices."""
    fits, budget = facts["fits"], facts["budget"]
    if not fits:
        return []
    alone = fits["alone"] if len(budget) > 1 else {}
    lines = [f"within {name} <= {budget[name]:,.0f}: {share:.1%} (exact)" for name, share in alone.items()]
    limits = ", ".join(f"{name} <= {limit:,.0f}" for name, limit in budget.items())
    interval = f"95 % interval {fits['low']:.1%} to {fits['high']:.1%}"
    of = f"the architectures within {fits['main']}" if fits["main"] else "all"
    how = "exact" if fits["exact"] else f"{interval}, from {facts['samples']} of {of}, drawn uniformly"
    lines.append(f"within {limits}: {fits['share']:.1%} ({how})")
    if facts["nothing"]:
        return ["\n".join([*lines, facts["nothing"]])]
    return ["\n".join(lines), *([_values(facts)] if facts["values"] else [])]


def _values(facts: dict[str, Any]) -> str:
    unused, free = facts["values"]["unused"], facts["values"]["free"]
    some = "one of the limits" if len(facts["budget"]) > 1 else "the budget"
    lines = []
    if unused:
        lines.append(f"never within {some}: {_listed(unused, facts['choices'])}")
    else:
        lines.append(f"never within {some}: no value of any choice")
    if free:
        lines.append(f"always within the budget: {_listed(free, facts['choices'])}")
    return "\n".join(lines)


def _listed(values: dict[str, list[Any]], choices: dict[str, list[Any]]) -> str:
    return "; ".join(
        f"{name} (all)" if len(found) == len(choices[name]) else assigned(name, ", ".join(map(spelled, found)))
        for name, found in values.items()
    )


def _members(facts: dict[str, Any]) -> str:
    names = list(facts["costs"])
    rows = sorted(facts["members"], key=lambda row: [row[name] for name in names])
    table = [["id", *names, "choices"]]
    for row in rows[:MOST_ROWS]:
        given = " ".join(assigned(name, value) for name, value in row["params_of_choices"].items())
        table.append([row["id"], *(f"{row[name]:,}" for name in names), given])
    left = len(rows) - MOST_ROWS
    return "\n".join(
        [*(x.rstrip() for x in aligned(table)), *([f"... and {left} more, see --json"] if left > 0 else [])]
    )


def _networks(facts: dict[str, Any]) -> str:
    return "\n\n".join(
        f"{x['id']}: {x['params']:,} params, {x['macs']:,} MACs\n{Architecture.from_dict(x['architecture']).table()}"
        for x in facts["examples"]
    )
