"""Several runs side by side: their fronts, and the hypervolume that each had when."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from nas.inputs import InputError
from nas.pareto import hypervolume, hypervolumes
from nas.report.plot import line, save_figure
from nas.report.progress import duration
from nas.report.text import aligned
from nas.run import Run
from nas.tables import front_table, trials_table

Array = NDArray[np.float64]
BEYOND = 0.1
"""Of the range of an objective, how far the reference is beyond the worst: so the ends of a front count, too."""


def compare_runs(runs: Sequence[Run]) -> dict[str, Any]:
    """Plain values. Hypervolumes are shares of that of all candidates of all runs together, measured from `reference`,
    a tenth of its range beyond the worst in each objective; a candidate counts as first measured at the last rung.

    Of each run: `curve`, the hypervolume after so many seconds of search, a point wherever it rises; `seconds_to`, by
    run, when it first had what that run has at its end (None: never); and `again`, the hypervolume of its front as it
    was measured again (None: it was not). `differences` says where the studies measure otherwise. Raises InputError if
    the objectives differ, or a run has no trained candidate.
    """
    objectives = runs[0].config.objectives
    maximise = [name == "accuracy" for name in objectives]
    tables, found = {}, {}
    for run in runs:
        name = str(run.folder)
        if (here := run.config.objectives) != objectives:
            raise InputError(
                f"{name}: its objectives are {here}, but must be {objectives} as those of {runs[0].folder}"
            )
        trials, sittings = run.record()
        tables[name], found[name] = trials_table(trials), _measured(run, trials, sittings)
    points = np.vstack([values for _, values in found.values()])
    beyond = BEYOND * np.where(np.ptp(points, axis=0) > 0, np.ptp(points, axis=0), 1.0)
    worst = np.where(maximise, points.min(axis=0) - beyond, points.max(axis=0) + beyond)
    whole = hypervolume(points, worst, maximise)
    facts: dict[str, Any] = {}
    for run, (name, (seconds, values)) in zip(runs, found.items(), strict=True):
        members = front_table(tables[name], objectives)
        repeated = bool((members["measurements"] > 1).any())
        spent = run.receipt(tables[name], members)
        facts[name] = {
            "sampler": run.config.sampler.name,
            "candidates": spent["candidates"],
            "reached": spent["reached"],
            "epochs": spent["epochs"],
            "hours": round(float(seconds[-1]) / 3600, 4),
            "front": len(members),
            "curve": _curve(seconds, hypervolumes(values, worst, maximise) / whole),
            "again": hypervolume(members[objectives].to_numpy(float), worst, maximise) / whole if repeated else None,
        }
    for mine in facts.values():
        mine["seconds_to"] = {
            name: next((when for when, share in mine["curve"] if share >= other["curve"][-1][1] - 1e-9), None)
            for name, other in facts.items()
        }
    return {
        "objectives": objectives,
        "reference": worst.tolist(),
        "differences": _differences(runs),
        "runs": facts,
    }


def _measured(run: Run, trials: list[FrozenTrial], sittings: list[float]) -> tuple[Array, Array]:
    """Of the trained candidates in the order in which they ended: seconds (n,) of search, and objectives (n, k)."""
    ended = [trial for trial in trials if trial.datetime_start and trial.datetime_complete]
    trained = sorted((trial for trial in ended if trial.user_attrs.get("outcome") == "trained"), key=_end)
    if not trained:
        raise InputError(f"{run.folder}: has no trained candidate yet")
    events = np.sort([when for trial in ended for when in (_begin(trial), _end(trial))])
    ends = np.array([_end(trial) for trial in trained])
    seconds = ends - events[0]
    for sitting in sittings:
        # Between two sittings nothing happens: what was in training when the first ended counts to its last event.
        place = int(np.searchsorted(events, sitting))
        if place:
            seconds[ends >= sitting] -= sitting - events[place - 1]
    return seconds, np.array([trial.values for trial in trained], dtype=np.float64)


def _begin(trial: FrozenTrial) -> float:
    assert trial.datetime_start is not None
    return trial.datetime_start.timestamp()


def _end(trial: FrozenTrial) -> float:
    assert trial.datetime_complete is not None
    return trial.datetime_complete.timestamp()


def _differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Where the runs measure otherwise: values by key path, one for each run."""
    fixed = [run.config.fixed() for run in runs]
    keys = [key for key in fixed[0] if key.startswith(("data.", "proxy."))]
    return {key: [each[key] for each in fixed] for key in keys if any(each[key] != fixed[0][key] for each in fixed)}


def _curve(seconds: Array, shares: Array) -> list[tuple[float, float]]:
    """The points at which the shares (n,) rise."""
    rises = np.diff(shares, prepend=-1.0) > 0
    return list(zip(seconds[rises].round(1).tolist(), shares[rises].tolist(), strict=True))


def compare_text(facts: dict[str, Any]) -> str:
    """A line for each run, and when each had what the others have at their end."""
    names = list(facts["runs"])
    rows = [["run", "sampler", "candidates", "epochs", "hours", "front", "hypervolume", "measured again"]]
    for name, run in facts["runs"].items():
        again = "-" if run["again"] is None else f"{run['again']:.4f}"
        numbers = [str(run["candidates"]), f"{run['epochs']['spent']:.4g}", f"{run['hours']:.2f}", str(run["front"])]
        rows.append([name, run["sampler"], *numbers, f"{run['curve'][-1][1]:.4f}", again])
    reached = [["time to the hypervolume at the end of", *names]]
    for name, run in facts["runs"].items():
        reached.append([name, *("never" if x is None else duration(x) for x in run["seconds_to"].values())])
    worst = ", ".join(
        f"{name} {value:,.4g}" for name, value in zip(facts["objectives"], facts["reference"], strict=True)
    )
    differ = [f"they differ in {key}: {' | '.join(map(str, values))}" for key, values in facts["differences"].items()]
    return "\n".join([f"reference: {worst}", *differ, "", *aligned(rows), "", *aligned(reached)])


def plot_compare(facts: dict[str, Any], path: Path) -> None:
    """Writes a picture: hypervolume against time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axis = figure.subplots()
    end = max(run["hours"] for run in facts["runs"].values())
    for number, (name, run) in enumerate(facts["runs"].items()):
        hours, shares = [when / 3600 for when, _ in run["curve"]], [share for _, share in run["curve"]]
        axis.step([*hours, end], [*shares, shares[-1]], where="post", label=name, **line(number))
    axis.set(xlabel="hours", ylabel="hypervolume, share of that of all runs")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    save_figure(figure, path)
