"""What a short training is worth, as text, files and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from nas.files import write_json, write_whole
from nas.report.plot import BLUE, VERMILLION, save_figure
from nas.report.text import aligned
from nas.tables import save_csv
from nas.trust import Candidate, Trust


def trust_text(facts: dict[str, Any]) -> str:
    """The table, a line for each epoch and score; then which rungs to trust, or that none is, and what to try."""
    costs = f"{facts['least_cost']:,} to {facts['most_cost']:,} {facts['cost']}"
    accuracies = f"{facts['least_accuracy']:.4f} to {facts['most_accuracy']:.4f}"
    head = [
        f"{facts['study']}: {facts['candidates']} candidates of {costs}; {facts['long_epochs']} epochs "
        f"({facts['long_seconds']:.3g} s each) lead to accuracies of {accuracies}",
        "Kendall's tau with them, its 95 % interval, and among the better half:",
    ]
    rows = [
        ["", "tau", "interval", "better half", "s/candidate"],
        *map(_cells, [*facts["rungs"], *facts["scores"]]),
    ]
    failed = [f"left out, as it failed: {each['id']} ({each['reason']})" for each in facts["failed"]]
    return "\n".join([*head, *(line.rstrip() for line in aligned(rows)), *failed, "", *_verdict(facts)])


def _cells(ranking: dict[str, Any]) -> list[str]:
    tau, low, high, top = (_number(ranking[key]) for key in ("tau", "low", "high", "tau_top"))
    return [ranking["name"], tau, f"{low} to {high}", top, f"{ranking['seconds']:.3g}"]


def _number(value: float | None) -> str:
    return "    -" if value is None else f"{value:5.2f}"


def _verdict(facts: dict[str, Any]) -> list[str]:
    tau, rungs, last = facts["required_tau"], facts["recommended"], facts["rungs"][-1]
    if not rungs:
        lines = [f"no epoch can be trusted: no interval lies above {tau:g}; {facts['advice']}"]
    else:
        first = f"epoch {facts['trusted']} is the first with its interval above {tau:g}"
        written = yaml.safe_dump(rungs, default_flow_style=True, width=1000).strip()
        lines = [f"{first}; in the study: proxy: {{rungs: {written}, ...}}"]
        if last["low"] is None or last["low"] <= tau:
            more = "more --candidates, in a new folder, may tell"
            lines.append(f"but that of {last['name']}, which a search ends with, is not: {more}")
    if facts["trusted_scores"]:
        lines.append(f"above it without any training: {', '.join(facts['trusted_scores'])}")
    return lines


def save_trust(found: Trust) -> None:
    """Writes trust.json, trust.csv (a row for each epoch and score), candidates.csv and trust.png into the folder."""
    facts, folder = found.facts, found.folder
    write_json(folder / "trust.json", facts)
    table = pd.DataFrame([*facts["rungs"], *facts["scores"]])
    write_whole(folder / "trust.csv", lambda path: save_csv(table, path))
    candidates = pd.DataFrame([_row(each) for each in found.candidates])
    write_whole(folder / "candidates.csv", lambda path: save_csv(candidates, path))
    plot_trust(facts, folder / "trust.png")


def _row(candidate: Candidate) -> dict[str, Any]:
    curve = zip(candidate.accuracies, candidate.seconds, strict=True)
    return {
        "id": candidate.id,
        **candidate.costs,
        "long_accuracy": candidate.long_accuracy,
        "long_seconds": candidate.long_seconds,
        **{
            f"{name}.{epoch}": value
            for epoch, (accuracy, seconds) in enumerate(curve, 1)
            for name, value in (("accuracy", accuracy), ("seconds", seconds))
        },
        **{f"score.{name}": value for name, (value, _) in candidate.scores.items()},
    }


def plot_trust(facts: dict[str, Any], path: Path) -> None:
    """Writes a picture: tau with its interval against seconds a candidate, of epochs and scores."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axis = figure.subplots()
    for key, colour, mark, label in (("rungs", BLUE, "-o", "epochs"), ("scores", VERMILLION, "D", "without training")):
        shown = [each for each in facts[key] if each["tau"] is not None]
        seconds, tau = [each["seconds"] for each in shown], [each["tau"] for each in shown]
        # A percentile interval need not hold the estimate.
        bars = [
            [max(0, each["tau"] - each["low"]) for each in shown],
            [max(0, each["high"] - each["tau"]) for each in shown],
        ]
        axis.errorbar(
            seconds, tau, bars, fmt=mark, color=colour, ms=4.5, lw=1.2, elinewidth=0.8, capsize=2, label=label
        )
        for each in shown:
            name = each["name"].removeprefix("epoch ")
            axis.annotate(name, (each["seconds"], each["tau"]), (4, 4), textcoords="offset points", fontsize="x-small")
    axis.axhline(facts["required_tau"], color="0.25", ls=(0, (4, 3)), lw=1.2, label="required")
    axis.set(xscale="log", xlabel="seconds a candidate", ylabel=f"Kendall's tau with {facts['long_epochs']} epochs")
    axis.set_title(f"{facts['study']}, {facts['candidates']} candidates, 95 % intervals", fontsize="medium")
    axis.grid(alpha=0.3, lw=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize="small", frameon=False)
    save_figure(figure, path)
