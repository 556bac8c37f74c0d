"""Several runs side by side: their fronts, and the hypervolume that each had when."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nas.costs import COSTS
from nas.inputs import InputError
from nas.latency import LATENCY
from nas.pareto import hypervolume, hypervolumes
from nas.report.growth import Array, measured, reference, rises
from nas.report.plot import line, save_figure
from nas.report.progress import duration
from nas.report.tables import front_records
from nas.report.text import aligned
from nas.run import Run
from nas.tables import front_table, trials_table


def compare_runs(runs: Sequence[Run]) -> dict[str, Any]:
    """Plain values. Hypervolumes are shares of that of all candidates of all runs together, measured from `reference`,
    a tenth of its range beyond the worst in each objective; a candidate counts as first measured at the last rung.

    Of each run: `members` of its front; `curve`, the hypervolume after so many seconds of search, a point wherever it
    rises; `seconds_to`, by run, when it first had what that run has at its end (None: never); and `again`, the
    hypervolume of its front as it was measured again (None: it was not). `differences` says where the studies measure
    otherwise. Raises InputError if the objectives differ, or a run has no trained candidate.
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
        trials, sittings, _ = run.record()
        tables[name], found[name] = trials_table(trials), measured(run.folder, trials, sittings)
    points = np.vstack([values for _, values in found.values()])
    worst = reference(points, maximise)
    whole = hypervolume(points, worst, maximise)
    facts: dict[str, Any] = {}
    for run, (name, (seconds, values)) in zip(runs, found.items(), strict=True):
        members = front_table(tables[name], objectives)
        repeated = bool((members["measurements"] > 1).any())
        shown = ["id", "accuracy", *COSTS, *([LATENCY] if LATENCY in members else [])]
        spent = run.receipt(tables[name], members)
        facts[name] = {
            "sampler": run.config.sampler.name,
            "candidates": spent["candidates"],
            "reached": spent["reached"],
            "epochs": spent["epochs"],
            "hours": round(float(seconds[-1]) / 3600, 4),
            "front": len(members),
            "members": front_records(members, shown),
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


def _differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Where the runs measure otherwise: values by key path, one for each run."""
    fixed = [run.config.fixed() for run in runs]
    keys = [key for key in fixed[0] if key.startswith(("data.", "proxy.", "latency"))]
    return {key: [each[key] for each in fixed] for key in keys if any(each[key] != fixed[0][key] for each in fixed)}


def _curve(seconds: Array, shares: Array) -> list[tuple[float, float]]:
    """The points at which the shares (n,) rise."""
    places = rises(shares)
    return list(zip(seconds[places].round(1).tolist(), shares[places].tolist(), strict=True))


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
