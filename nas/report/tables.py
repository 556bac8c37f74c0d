"""The files of a run: trials, front, picture."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from nas.architecture import Architecture
from nas.costs import COSTS
from nas.costs.check import cross_check
from nas.files import write_text, write_whole
from nas.report.plot import plot_front
from nas.run import Run, front_table, trials_table


def save_tables(run: Run) -> pd.DataFrame:
    """Writes trials.parquet, front.parquet, front.csv, front.png and front/ID.yaml into the run; returns the front.

    Raises RuntimeError, and writes no front, if ptflops counts a member's parameters or MACs otherwise.
    """
    trials = trials_table(run.all_trials())
    front = front_table(trials, run.config.objectives)
    write_whole(run.folder / "trials.parquet", lambda path: trials.to_parquet(path, index=False))
    for data in front["architecture"]:
        architecture = Architecture.from_json(data)
        cross_check(architecture)
        write_text(run.folder / "front" / f"{architecture.id}.yaml", architecture.to_yaml())
    write_whole(run.folder / "front.parquet", lambda path: front.to_parquet(path, index=False))
    write_whole(run.folder / "front.csv", lambda path: front_csv(front, path))
    if not front.empty:
        plot_front(run, trials, front, run.folder / "front.png")
    return front


def front_csv(front: pd.DataFrame, path: Path) -> None:
    """The front for people and spreadsheets: without the long columns."""
    front.drop(columns=["rungs", "architecture", "reason", "outcome"]).to_csv(path, index=False)


def front_view(front: pd.DataFrame, objectives: list[str]) -> pd.DataFrame:
    """What is shown of a front: the knee's mark, id, accuracy, params, MACs, other objectives, stages."""
    names = list(dict.fromkeys(["accuracy", "params", "macs", *objectives]))
    view = front[["id", *(name for name in names if name in front), "stages"]].copy()
    view.insert(0, "", ["knee" if knee else "" for knee in front["knee"]])
    for name in COSTS:
        if name in view:
            view[name] = [f"{value:,.0f}" for value in view[name]]
    view["accuracy"] = [f"{value:.4f}" for value in view["accuracy"]]
    return view
