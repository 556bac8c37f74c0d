#!/usr/bin/env python
"""What each choice of a space does, all else equal: a table per choice, of runs that trained every member.

    scripts/ablations.py runs/inverted_residual runs/group_convolution runs/channel_excitation

A row is a value of a choice. Its accuracy is the mean over the settings of all other choices in which every value of
this one was trained, and over the seeds. Behind it the difference to the first value, setting by setting and seed by
seed, with its 95 % interval: Student's t over the seeds alone, because settings that share a seed are no repetitions.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
from scipy.stats import t as student

from nas.architecture import Architecture, Value
from nas.run import Run


def trainings(run: Run) -> pd.DataFrame:
    """One row per training: the value of every choice, the seed, accuracy (validation split), params and MACs."""
    space, trials = run.space(), run.trials()
    rows = []
    for trial in trials[trials["outcome"] == "trained"].to_dict("records"):
        choices = space.encode(Architecture.from_json(trial["architecture"]))
        last = {point["seed"]: point["validation_accuracy"] for point in json.loads(trial["rungs"])[-1]["curve"]}
        costs = {"params": trial["params"], "macs": trial["macs"]}
        rows += [{**choices, **costs, "seed": seed, "accuracy": accuracy} for seed, accuracy in last.items()]
    return pd.DataFrame(rows)


def effect(table: pd.DataFrame, choice: str, values: tuple[Value, ...], others: list[str]) -> pd.DataFrame:
    """A row per value of `choice`: settings and seeds compared, costs, accuracy, difference and its half-width."""
    accuracy = table.pivot_table(index=[*others, "seed"], columns=choice, values="accuracy")
    accuracy = accuracy.reindex(columns=list(values)).dropna()
    kept = table.set_index([*others, "seed"]).loc[accuracy.index]
    by_seed = accuracy.sub(accuracy.iloc[:, 0], axis=0).groupby("seed").mean()
    n = len(by_seed)
    half = student.ppf(0.975, n - 1) * by_seed.std() / n**0.5
    return pd.DataFrame(
        {
            "settings": len(accuracy) // n,
            "seeds": n,
            **{cost: kept.groupby(choice)[cost].mean() for cost in ("params", "macs")},
            "accuracy": accuracy.mean(),
            "difference": by_seed.mean(),
            "half_width": half,
        },
        index=accuracy.columns,
    )


def text(run: Run, title: str, found: pd.DataFrame) -> str:
    """The table in Markdown, accuracies in percent."""
    first = found.index[0]
    lines = [
        f"**{title}** ({run.config.name}; {found['settings'].iloc[0]} settings of the other choices, "
        f"n = {found['seeds'].iloc[0]} seeds)",
        "",
        f"| {title} | params | MACs | accuracy % | against {first}, points (95 % interval) |",
        "|---|---|---|---|---|",
    ]
    for value, row in found.iterrows():
        against = "" if value == first else f"{100 * row['difference']:+.2f} ± {100 * row['half_width']:.2f}"
        costs = f"{row['params']:,.0f} | {row['macs']:,.0f}"
        lines.append(f"| {value} | {costs} | {100 * row['accuracy']:.2f} | {against} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    parser.add_argument("--csv", type=Path, metavar="FOLDER", help="also write every training as FOLDER/NAME.csv")
    options = parser.parse_args()
    for folder in options.runs:
        run = Run.open(folder)
        table = trainings(run)
        choices = {name: values for name, values in run.space().choices.items() if name in table}
        if options.csv:
            table.to_csv(options.csv / f"{run.config.name}.csv", index=False)
        for choice, values in choices.items():
            others = [name for name in choices if name != choice]
            print(text(run, choice.removeprefix("defaults."), effect(table, choice, values, others)), end="\n\n")


if __name__ == "__main__":
    main()
