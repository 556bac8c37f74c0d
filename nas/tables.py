"""The record as tables: every proposal, the front, and what multi-fidelity saved."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from nas import pareto
from nas.architecture import Architecture
from nas.costs import COSTS, costs
from nas.evaluation import Rung
from nas.inputs import damaged
from nas.latency import LATENCY


def trials_table(trials: list[FrozenTrial]) -> pd.DataFrame:
    """One row per proposal, its columns those of `_KINDS`; those of `_OPTIONAL` only where there are such values.

    `outcome` is trained, cut, failed, over budget, impossible, repeated, confirmation, interrupted, running or waiting;
    `reason` says why it was not trained (on). `accuracy` is a fraction of the validation split, at the last rung: the
    mean of `measurements` from as many seeds, those of confirmations among them, `accuracy_std` their sample standard
    deviation; it is NaN, and a cost is missing, where there is none; `accuracy_int8` is the mean of the same networks
    in int8, and where `accuracy` is that already, `accuracy_float32` of those that were trained. `rung` (from 1) is the
    highest that is measured, `audited_at` the last from which it went on for the audit alone; a confirmation has
    neither, but `confirms`, the number of the candidate. `epochs` and `seconds` are of training; `rungs` and
    `architecture` are JSON.
    """
    again: dict[int, list[dict[str, Any]]] = {}
    rows = []
    for trial in trials:
        with damaged(f"trial {trial.number} on record"):
            if "confirms" in trial.user_attrs and trial.user_attrs.get("outcome") == "confirmation":
                again.setdefault(trial.user_attrs["confirms"][0], []).append(trial.user_attrs["rungs"][-1])
    for trial in trials:
        with damaged(f"trial {trial.number} on record"):
            rows.append(_row(trial, again.get(trial.number, [])))
    kinds = dict(_KINDS)
    for name in _OPTIONAL:
        if all(row[name] is None for row in rows):
            del kinds[name]
    with damaged("the record"):
        return pd.DataFrame(rows, columns=list(kinds)).astype(kinds)


def save_csv(table: pd.DataFrame, path: Path) -> None:
    """Writes a table for spreadsheets, in which no text is a formula (it gets a ' in front), whoever wrote it."""
    texts = table.select_dtypes(exclude=["number", "bool"]).columns
    safe = {name: [_no_formula(value) for value in table[name]] for name in texts}
    table.assign(**safe).to_csv(path, index=False)


def _no_formula(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = value.replace("\r", " ")  # which readers take for the end of a row
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


def _accuracies(rung: dict[str, Any]) -> list[float]:
    """Of a measurement, one for each seed."""
    last = {epoch["seed"]: epoch["validation_accuracy"] for epoch in rung["curve"] if "seed" in epoch}
    return list(last.values()) or [rung["accuracy"]]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


_PRECISIONS = ("accuracy_int8", "accuracy_float32")
_OPTIONAL = (LATENCY, *_PRECISIONS)
_KINDS = {
    "number": "int64",
    "id": "str",
    "outcome": "str",
    "accuracy": "float64",
    "accuracy_std": "float64",
    **dict.fromkeys(_PRECISIONS, "Float64"),
    "measurements": "int64",
    "rung": "Int64",
    "audited_at": "Int64",
    "confirms": "Int64",
    **dict.fromkeys(COSTS, "Int64"),
    LATENCY: "Float64",
    "reason": "str",
    "epochs": "int64",
    "seconds": "float64",
    "stages": "str",
    "rungs": "str",
    "architecture": "str",
}


def seconds_of(attrs: Mapping[str, Any]) -> float:
    """What the training of a proposal took, by what is on record of it: its rungs, and one that failed."""
    return float(sum(rung["seconds"] for rung in attrs.get("rungs", [])) + attrs.get("seconds", 0.0))


def _row(trial: FrozenTrial, again: list[dict[str, Any]]) -> dict[str, Any]:
    """`again`: the confirmations of it."""
    attrs = trial.user_attrs
    candidate, rungs = attrs.get("candidate", {}), attrs.get("rungs", [])
    outcome = attrs.get("outcome", "waiting" if trial.state == TrialState.WAITING else "running")
    architecture = candidate.get("architecture")
    last = rungs[-1] if rungs else {}
    measured = [last, *again] if outcome in {"trained", "confirmation"} else []
    accuracies = [accuracy for each in measured for accuracy in _accuracies(each)]
    if "confirms" in attrs and outcome in {"trained", "cut"}:
        raise ValueError(f"a confirmation was {outcome}")
    known = candidate.get("costs", {})
    if known and (new := COSTS.keys() - known):  # a run from before these were costs
        known = {**known, **costs(Architecture.from_dict(architecture), new)}
    return {
        "number": trial.number,
        "id": candidate.get("id", ""),
        "outcome": outcome,
        "accuracy": _mean(accuracies),
        "accuracy_std": statistics.stdev(accuracies) if len(accuracies) > 1 else None,
        **{name: _mean(each.get(name) for each in measured) for name in _PRECISIONS},
        "measurements": len(accuracies),
        "rung": None if "confirms" in attrs else len(rungs),
        "audited_at": attrs.get("audited_at"),
        "confirms": attrs["confirms"][0] if "confirms" in attrs else None,
        **{name: known.get(name) for name in (*COSTS, LATENCY)},
        "reason": attrs.get("reason", ""),
        "epochs": last.get("epochs", 0),
        "seconds": seconds_of(attrs),
        "stages": str(Architecture.from_dict(architecture)) if architecture else "",
        "rungs": json.dumps(rungs),
        "architecture": json.dumps(architecture) if architecture else "",
    }


def front_table(trials: pd.DataFrame, objectives: list[str]) -> pd.DataFrame:
    """The non-dominated trained candidates in `objectives`, by the first cost (or accuracy); `knee` marks exactly one.

    The knee is that of log scales: halving the error weighs like halving a cost. Costs are int64. May be empty.
    """
    with damaged("the record"):
        trained = trials[trials["outcome"] == "trained"].astype(dict.fromkeys(COSTS, "int64"))
    trained = trained.reindex(columns=list(dict.fromkeys([*trained, *objectives])))  # one is missing until it is known
    maximise = [name == "accuracy" for name in objectives]
    front = trained[pareto.front(trained[objectives].to_numpy(float), maximise)]
    first = [name for name in objectives if name != "accuracy"][:1]
    front = front.sort_values([*first, "accuracy"], ascending=[*(True for _ in first), False], ignore_index=True)
    if front.empty:
        return front.assign(knee=pd.Series(dtype=bool))
    error = (1 - front["accuracy"]).clip(lower=1e-4)
    values = front[objectives].assign(accuracy=error).to_numpy(float)
    knee = pareto.knee(values, [False] * len(objectives), [True] * len(objectives))
    return front.assign(knee=front.index == knee)


def receipt(trials: pd.DataFrame, front: pd.DataFrame, rungs: Sequence[Rung], seeds: int = 1) -> dict[str, Any]:
    """What the rungs saved, and what cutting lost; plain values.

    `epochs` count passes over the whole training set: an epoch on a share of it counts as that share, and each of the
    `seeds` of a measurement for itself. `spent` are those of the candidates, `saved` is what it would have taken to
    train all but the failed ones to the top, less that; `confirming` are those of measuring again. `audit`: of the
    `candidates` that were, or would have been, cut, `trained` went to the top, of which `on_front` are on the front;
    `lost` is the 95 % interval (Clopper and Pearson 1934) of the share of those cut that would have been there, None
    without an audit.
    """
    steps = [rung.epochs - before for rung, before in zip(rungs, [0, *(rung.epochs for rung in rungs)], strict=False)]
    passes = [0.0, *accumulate(step * rung.share * seeds for step, rung in zip(steps, rungs, strict=True))]
    candidates = trials[trials["outcome"].isin(["trained", "cut"])]
    spent = sum(passes[rung] for rung in candidates["rung"])
    cut, audited = candidates[candidates["outcome"] == "cut"], candidates[candidates["audited_at"].notna()]
    on_front = int(audited["id"].isin(front["id"]).sum())
    return {
        "candidates": len(candidates),
        "reached": {str(index + 1): int((candidates["rung"] >= index + 1).sum()) for index in range(len(rungs))},
        "epochs": {
            "spent": round(spent, 6),
            "saved": round(max(0.0, len(candidates) * passes[-1] - spent), 6),  # a rounding error is no saving
            "confirming": round(passes[-1] * int((trials["outcome"] == "confirmation").sum()), 6),
        },
        "audit": {
            "candidates": len(cut) + len(audited),
            "trained": len(audited),
            "on_front": on_front,
            "lost": _proportion(on_front, len(audited)) if len(audited) else None,
        },
    }


def _proportion(successes: int, count: int) -> list[float]:
    """The 95 % interval of Clopper and Pearson."""
    from scipy.special import betaincinv  # 0.2 s that other tables do without

    low = betaincinv(successes, count - successes + 1, 0.025) if successes else 0.0
    high = betaincinv(successes + 1, count - successes, 0.975) if successes < count else 1.0
    return [float(low), float(high)]
