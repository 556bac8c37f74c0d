"""The front as a picture, and what all pictures share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from nas.config import StudyConfig
from nas.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")

# Okabe and Ito's colours are told apart with any colour vision; the marks differ in shape, too.
GREY, BLUE, VERMILLION = "0.62", "#0072B2", "#D55E00"


def plot_front(config: StudyConfig, trials: pd.DataFrame, front: pd.DataFrame, path: Path) -> None:
    """Writes the picture, see `draw_front`; its format follows the ending of `path`, one of FORMATS."""
    save_figure(draw_front(config, trials, front), path)


def save_figure(figure: Figure, path: Path) -> None:
    """Its format follows the ending of `path`, one of FORMATS."""
    kind = path.suffix.removeprefix(".")
    write_whole(path, lambda temporary: figure.savefig(temporary, dpi=150, format=kind))


def line(number: int) -> dict[str, Any]:
    """How line `number` of many is drawn: ten colours, then other dashes."""
    return {"color": f"C{number % 10}", "linestyle": ("-", "--", ":", "-.")[number // 10 % 4]}


def draw_front(config: StudyConfig, trials: pd.DataFrame, front: pd.DataFrame) -> Figure:
    """Accuracy against each cost among the objectives: all trained candidates, the front, its knee, the budget."""
    from matplotlib.figure import Figure

    names = [name for name in config.objectives if name != "accuracy"] or ["params"]
    figure = Figure(figsize=(max(6.4, 0.6 + 4.2 * len(names)), 4.6), layout="constrained")
    axes = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    trained = trials[trials["outcome"] == "trained"]
    for axis, name in zip(axes, names, strict=True):
        axis.set_xscale("log")
        _scatter(axis, name, trained, front, len(names) == 1)
        if name in config.budget:
            axis.axvline(config.budget[name], color="0.25", ls=(0, (4, 3)), lw=1.2, label="budget")
        _label_ticks(axis)
        axis.set_xlabel(name)
        axis.grid(alpha=0.3, lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("validation accuracy of the short training")
    entries = {label: mark for axis in axes for mark, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=len(entries), frameon=False)
    figure.suptitle(config.name)
    return figure


def _scatter(axis: Axes, name: str, trained: pd.DataFrame, front: pd.DataFrame, line: bool) -> None:
    """With one cost the front is a line; a projection of a front in more dimensions is not."""
    label = f"trained ({len(trained)})"
    axis.plot(trained[name], trained["accuracy"], "o", color=GREY, alpha=0.7, mew=0, ms=5, label=label)
    along, style = front.sort_values(name), "-D" if line else "D"
    label = f"front ({len(front)})"
    axis.plot(along[name], along["accuracy"], style, drawstyle="steps-post", color=BLUE, ms=5.5, lw=1.4, label=label)
    knee = front[front["knee"]]
    axis.plot(knee[name], knee["accuracy"], "*", color=VERMILLION, ms=18, mec="white", mew=1.2, zorder=5, label="knee")


def _label_ticks(axis: Axes) -> None:
    """Round numbers on a log axis: as many as fit, and enough where all values lie within a decade."""
    from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullLocator

    low, high = axis.get_xlim()
    if high / low < 1.05:
        low, high = axis.set_xlim(low / 1.025, high * 1.025)
    if high / low < 2.5:
        ticks: Locator = MaxNLocator(8, steps=[1, 2, 5, 10])
    elif high / low < 30:
        ticks = LogLocator(subs=(1, 2, 3, 4, 6, 8))
    else:
        ticks = LogLocator(subs=(1, 2, 5) if high / low < 3000 else (1,))
    axis.xaxis.set_major_locator(ticks)
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))


def short_number(value: float) -> str:
    """363000 as 363k: no exponents at the ticks."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.4g}{suffix}"
    return f"{value:.4g}"
