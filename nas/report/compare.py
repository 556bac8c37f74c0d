"""Several runs side by side: their fronts, and the hypervolume that each had when."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from nas.files import write_whole
from nas.inputs import InputError
from nas.pareto import front, hypervolume
from nas.report.progress import duration
from nas.report.text import aligned
from nas.run import Run
from nas.tables import front_table, receipt, trials_table

Array = NDArray[np.float64]


def compare_runs(runs: Sequence[Run]) -> dict[str, Any]:
    """Plain values. Hypervolumes are shares of that of all candidates of all runs together, measured from `reference`,
    the worst trained candidate's value in each objective; a candidate counts as it was first measured at the last rung.

    Of each run: `curve`, the hypervolume after so many seconds of search, a point wherever it rises; `seconds_to`, by
    run, when it first had what that run has at its end (None: never); and `again`, the hypervolume of its front as it
    was measured again. Raises InputError if the objectives differ, or a run has no trained candidate.
    """
    objectives = runs[0].config.objectives
    maximise = [name == "accuracy" for name in objectives]
    found = {}
    for run in runs:
        if run.config.objectives != objectives:
            here, there = run.config.objectives, objectives
            raise InputError(
                f"{run.folder}: its objectives are {here}, but must be {there} as those of {runs[0].folder}"
            )
        found[str(run.folder)] = _measured(run, objectives)
    points = np.vstack([values for _, values in found.values()])
    worst = np.where(maximise, points.min(axis=0), points.max(axis=0))
    whole = hypervolume(points, worst, maximise)
    facts: dict[str, Any] = {}
    for run, (seconds, values) in zip(runs, found.values(), strict=True):
        table = trials_table(run.all_trials())
        members = front_table(table, objectives)
        facts[str(run.folder)] = {
            "sampler": run.config.sampler.name,
            "front": len(members),
            "hours": round(float(seconds[-1]) / 3600, 4),
            **{
                name: value
                for name, value in receipt(table, members, run.config.proxy.ladder()).items()
                if name != "audit"
            },
            "curve": _curve(seconds, values, worst, whole, maximise),
            "again": hypervolume(members[objectives].to_numpy(float), worst, maximise) / whole,
        }
    for mine in facts.values():
        mine["seconds_to"] = {
            name: next((when for when, share in mine["curve"] if share >= other["curve"][-1][1] - 1e-9), None)
            for name, other in facts.items()
        }
    return {"objectives": objectives, "reference": worst.tolist(), "runs": facts}


def _measured(run: Run, objectives: list[str]) -> tuple[Array, Array]:
    """Of the trained candidates in the order in which they ended: seconds (n,) of search, and objectives (n, k).

    The seconds are those in which any candidate was proposed or trained: without the time between two sittings.
    """
    trials = [trial for trial in run.all_trials() if trial.datetime_start and trial.datetime_complete]
    trials.sort(key=_ended)
    trained = [trial for trial in trials if trial.user_attrs.get("outcome") == "trained"]
    if not trained:
        raise InputError(f"{run.folder}: has no trained candidate yet")
    seconds = [_busy(trials, _ended(trial)) for trial in trained]
    return np.array(seconds), np.array([trial.values for trial in trained], dtype=np.float64)


def _busy(trials: list[FrozenTrial], until: float) -> float:
    """Seconds before `until` in which one of the trials ran."""
    total, free = 0.0, 0.0
    for begin, end in sorted((_began(trial), min(_ended(trial), until)) for trial in trials):
        total += max(0.0, end - max(begin, free))
        free = max(free, end)
    return total


def _began(trial: FrozenTrial) -> float:
    assert trial.datetime_start is not None
    return trial.datetime_start.timestamp()


def _ended(trial: FrozenTrial) -> float:
    assert trial.datetime_complete is not None
    return trial.datetime_complete.timestamp()


def _curve(
    seconds: Array,
    values: Array,
    worst: Array,
    whole: float,
    maximise: list[bool],
) -> list[tuple[float, float]]:
    kept = values[:0]
    curve: list[tuple[float, float]] = []
    for when, value in zip(seconds.tolist(), values, strict=True):
        kept = np.vstack([kept, value])
        kept = kept[front(kept, maximise)]
        share = hypervolume(kept, worst, maximise) / whole
        if not curve or share > curve[-1][1]:
            curve.append((round(when, 1), share))
    return curve


def compare_text(facts: dict[str, Any]) -> str:
    """A line for each run, and when each had what the others have at their end."""
    names = list(facts["runs"])
    rows = [["run", "sampler", "candidates", "epochs", "hours", "front", "hypervolume", "measured again"]]
    for name, run in facts["runs"].items():
        numbers = [str(run["candidates"]), f"{run['epochs']['spent']:.4g}", f"{run['hours']:.2f}", str(run["front"])]
        rows.append([name, run["sampler"], *numbers, f"{run['curve'][-1][1]:.4f}", f"{run['again']:.4f}"])
    reached = [["time to the hypervolume at the end of", *names]]
    for name, run in facts["runs"].items():
        reached.append([name, *("never" if x is None else duration(x) for x in run["seconds_to"].values())])
    worst = ", ".join(
        f"{name} {value:,.4g}" for name, value in zip(facts["objectives"], facts["reference"], strict=True)
    )
    return "\n".join([f"reference: {worst}", "", *aligned(rows), "", *aligned(reached)])


def plot_compare(facts: dict[str, Any], path: Path) -> None:
    """Writes a picture: hypervolume against time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axis = figure.subplots()
    end = max(run["hours"] for run in facts["runs"].values())
    for number, (name, run) in enumerate(facts["runs"].items()):
        hours, shares = [when / 3600 for when, _ in run["curve"]], [share for _, share in run["curve"]]
        style = ("-", "--", ":", "-.")[number // 10 % 4]
        axis.step([*hours, end], [*shares, shares[-1]], style, color=f"C{number % 10}", where="post", label=name)
    axis.set(xlabel="hours", ylabel="hypervolume, share of that of all runs")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    write_whole(path, lambda temporary: figure.savefig(temporary, dpi=150, format=path.suffix.removeprefix(".")))
