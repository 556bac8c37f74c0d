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
BEYOND = 0.1


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
    trials, found = {}, {}
    for run in runs:
        name = str(run.folder)
        if (here := run.config.objectives) != objectives:
            raise InputError(
                f"{name}: its objectives are {here}, but must be {objectives} as those of {runs[0].folder}"
            )
        trials[name] = run.all_trials()
        found[name] = _measured(run, trials[name])
    points = np.vstack([values for _, values in found.values()])
    beyond = BEYOND * np.where(np.ptp(points, axis=0) > 0, np.ptp(points, axis=0), 1.0)
    worst = np.where(maximise, points.min(axis=0) - beyond, points.max(axis=0) + beyond)
    whole = hypervolume(points, worst, maximise)
    facts: dict[str, Any] = {}
    for run, (name, (seconds, values)) in zip(runs, found.items(), strict=True):
        table = trials_table(trials[name])
        members = front_table(table, objectives)
        repeated = bool((members["measurements"] > 1).any())
        spent = receipt(table, members, run.config.proxy.ladder(), run.config.proxy.seeds)
        facts[name] = {
            "sampler": run.config.sampler.name,
            "candidates": spent["candidates"],
            "reached": spent["reached"],
            "epochs": spent["epochs"],
            "hours": round(float(seconds[-1]) / 3600, 4),
            "front": len(members),
            "curve": _curve(seconds, values, worst, whole, maximise),
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


def _measured(run: Run, trials: list[FrozenTrial]) -> tuple[Array, Array]:
    """Of the trained candidates in the order in which they ended: seconds (n,) of search, and objectives (n, k)."""
    ended = [trial for trial in trials if trial.datetime_start and trial.datetime_complete]
    trained = sorted((trial for trial in ended if trial.user_attrs.get("outcome") == "trained"), key=_end)
    if not trained:
        raise InputError(f"{run.folder}: has no trained candidate yet")
    events = np.sort([when for trial in ended for when in (_begin(trial), _end(trial))])
    ends = np.array([_end(trial) for trial in trained])
    seconds = ends - events[0]
    for sitting in run.sittings():
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
        style = ("-", "--", ":", "-.")[number // 10 % 4]
        axis.step([*hours, end], [*shares, shares[-1]], style, color=f"C{number % 10}", where="post", label=name)
    axis.set(xlabel="hours", ylabel="hypervolume, share of that of all runs")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    write_whole(path, lambda temporary: figure.savefig(temporary, dpi=150, format=path.suffix.removeprefix(".")))
