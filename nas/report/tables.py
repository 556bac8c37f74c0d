"""The files of a run: trials, front, picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from nas.architecture import Architecture
from nas.costs.check import cross_check
from nas.files import write_json, write_text, write_whole
from nas.report.plot import plot_front
from nas.run import Run
from nas.tables import save_csv

_LONG = ["rungs", "architecture", "reason", "outcome", "rung", "audited_at", "confirms"]


def save_tables(run: Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Writes trials.parquet, front.parquet, front.csv, front.png, receipt.json and front/ID.yaml into the run; returns
    the trials and the front.

    Raises RuntimeError, and writes no front, if ptflops counts a member's parameters or MACs otherwise.
    """
    trials = run.trials()
    front = run.front_of(trials)
    members = set(front["id"])
    write_whole(run.folder / "trials.parquet", lambda path: trials.to_parquet(path, index=False))
    for data in front["architecture"]:
        architecture = Architecture.from_json(data)
        cross_check(architecture)
        write_text(run.folder / "front" / f"{architecture.id}.yaml", architecture.to_yaml())
    for file in (run.folder / "front").glob("*.yaml"):
        if file.stem not in members:
            file.unlink()
    write_whole(run.folder / "front.parquet", lambda path: front.to_parquet(path, index=False))
    write_whole(run.folder / "front.csv", lambda path: front_csv(front, path))
    write_json(run.folder / "receipt.json", run.receipt(trials, front))
    if not front.empty:
        plot_front(run.config, trials, front, run.folder / "front.png")
    return trials, front


def front_csv(front: pd.DataFrame, path: Path, columns: list[str] | None = None) -> None:
    """The front for people and spreadsheets: these columns, or all without the long ones, and those that are the same
    for all members."""
    save_csv(_columns(front, columns), path)


def front_records(front: pd.DataFrame, columns: list[str] | None = None) -> list[dict[str, Any]]:
    """The front as plain values, the columns those of `front_csv`."""
    text = _columns(front, columns).to_json(orient="records", double_precision=15)
    records: list[dict[str, Any]] = json.loads(text)
    return records


def _columns(front: pd.DataFrame, columns: list[str] | None) -> pd.DataFrame:
    return front.drop(columns=_LONG) if columns is None else front[columns]
