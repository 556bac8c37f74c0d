"""The front as a picture."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from nas.files import write_whole
from nas.run import Run


def plot_front(run: Run, trials: pd.DataFrame, front: pd.DataFrame, path: Path) -> None:
    """Accuracy against each cost among the objectives: all trained candidates, the front, its knee, the budget.

    The format follows the ending of `path` (png, svg, pdf).
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = [name for name in run.config.objectives if name != "accuracy"] or ["params"]
    figure, axes = plt.subplots(1, len(names), figsize=(1.5 + 5 * len(names), 4.2), squeeze=False, layout="constrained")
    trained = trials[trials["outcome"] == "trained"]
    knee = front[front["knee"]]
    for axis, name in zip(axes[0], names, strict=True):
        axis.scatter(trained[name], trained["accuracy"], s=18, color="0.65", label=f"trained ({len(trained)})")
        along = front.sort_values(name)
        style = "-o" if len(names) == 1 else "o"
        axis.plot(along[name], along["accuracy"], style, color="C0", ms=5, lw=1.2, label=f"front ({len(front)})")
        axis.plot(knee[name], knee["accuracy"], "*", color="C3", ms=15, label="knee")
        if name in run.config.budget:
            axis.axvline(run.config.budget[name], color="0.3", ls=":", lw=1, label="budget")
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(_plain)
        axis.xaxis.set_minor_formatter(_plain)
        axis.set(xlabel=name, ylabel="validation accuracy, short training")
        axis.tick_params(axis="x", which="both", labelsize=8)
        axis.grid(alpha=0.25)
    axes[0][0].legend(loc="lower right", frameon=False)
    figure.suptitle(run.config.name, fontsize=11)
    kind = path.suffix.removeprefix(".")
    write_whole(path, lambda temporary: figure.savefig(temporary, dpi=150, format=kind))
    plt.close(figure)


def _plain(value: float, _: object = None) -> str:
    """363000 as 363k: tick labels that need no exponent. Only the leading digits 1, 2 and 5 are labelled."""
    text = f"{value:.3g}"
    if f"{value:e}"[0] not in "125":
        return ""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{suffix}"
    return text
