"""A comparison of samplers as text and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nas.report.plot import line, save_figure
from nas.report.text import aligned


def bench_text(facts: dict[str, Any]) -> str:
    """What `nas bench` found: a line for each sampler, the first to reach most in front."""
    head = f"{facts['table']}: {facts['rows']:,} rows, accuracy against {facts['cost']}"
    limits = ", ".join(f"{name} <= {limit:,.0f}" for name, limit in facts["budget"].items())
    accuracy, cost = facts["reference"]
    head += f" within {limits}" if limits else ""
    head += f"; reference: accuracy {accuracy:.4f}, {facts['cost']} {cost:,.0f}\n"
    head += "evaluations to a share of the whole hypervolume: median (90th percentile; seeds that came so far)\n"
    samplers = sorted(facts["samplers"].items(), key=lambda item: item[1]["evaluations_to_99"] or float("inf"))
    marks = list(samplers[0][1]["hypervolume_at"])
    rows = [
        ["sampler", "seeds", "to 95 %", "to 98 %", "to 99 %", *(f"@{mark}" for mark in marks), "repeated", "ms/ask"]
    ]
    for name, found in samplers:
        shares = [_reached(found, share) for share in (95, 98, 99)]
        volumes = [f"{100 * value:.2f}" for value in found["hypervolume_at"].values()]
        rest = [f"{found['repeated']:.0%}", f"{found['ms_per_ask']:.1f}"]
        rows.append([name, str(found["seeds"]), *shares, *volumes, *rest])
    lines = aligned(rows)
    if facts["budget"]:
        regrets = [[name, *(f"{100 * value:.2f}" for value in found["regret_at"].values())] for name, found in samplers]
        head_row = ["sampler", *(f"@{mark}" for mark in marks)]
        lines += ["", "regret within the budget, points of accuracy:", *aligned([head_row, *regrets])]
    return "\n".join([head, *lines])


def _reached(found: dict[str, Any], share: int) -> str:
    key = f"evaluations_to_{share}"
    median, late = (f"{value:.0f}" if value is not None else ">" for value in (found[key], found[f"{key}_p90"]))
    return f"{median} ({late}; {found[f'{key}_reached']})"


def plot_bench(facts: dict[str, Any], path: Path) -> None:
    """Writes a picture: the mean hypervolume that is missing, against evaluations, both on log scales."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axis = figure.subplots()
    for number, (name, found) in enumerate(facts["samplers"].items()):
        missing = [max(1e-4, 1 - value) * 100 for value in found["hypervolume"]]
        axis.plot(range(1, len(missing) + 1), missing, label=name, **line(number))
    axis.set(xscale="log", yscale="log", xlabel="evaluations", ylabel="hypervolume missing, %")
    seeds = max(found["seeds"] for found in facts["samplers"].values())
    axis.set_title(f"{facts['table']}, accuracy against {facts['cost']}, mean of {seeds} seeds", fontsize="medium")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    save_figure(figure, path)
