"""A table of candidates that were all trained once: answers to choices, accuracy per seed, costs."""

from __future__ import annotations

import json
import lzma
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution

from nas.inputs import InputError, first_line, refuse

Array = NDArray[np.float64]
Params = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """`rows` are the choices' values, one row a candidate. `accuracy` (n, seeds) is a fraction, each cost (n,).

    `features` are other numbers that are known without training. `reference` are the worst values that count as
    hypervolume, where the table has some of its own.
    """

    name: str
    choices: Mapping[str, tuple[Any, ...]]
    rows: tuple[tuple[Any, ...], ...]
    accuracy: Array
    costs: Mapping[str, Array]
    features: Mapping[str, Array] = field(default_factory=dict)
    reference: Mapping[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        return {name: CategoricalDistribution(values) for name, values in self.choices.items()}

    @cached_property
    def _places(self) -> dict[tuple[Any, ...], int]:
        return {row: place for place, row in enumerate(self.rows)}

    def place(self, params: Mapping[str, Any]) -> int:
        """The number of a row. Raises ValueError if the table has none with these answers."""
        row = tuple(params[name] for name in self.choices)
        if row not in self._places:
            raise ValueError(f"{self.name} has no row with {dict(params)}")
        return self._places[row]

    def params(self, place: int) -> Params:
        return dict(zip(self.choices, self.rows[place], strict=True))


def read_table(path: Path | str) -> Table:
    """NAS-Bench-Macro's JSON (also .json.xz), or a CSV or Parquet file.

    The columns of the latter: `accuracy`, or one `accuracy.X` for each seed; `cost.NAME`; `feature.NAME`, if there are
    other numbers known without training; all others are choices. Raises InputError.
    """
    path = Path(path)
    try:
        match path.suffixes[-2:]:
            case [".json", ".xz"]:
                with lzma.open(path, "rt", encoding="utf-8") as file:
                    return _macro(json.load(file), str(path))
            case [*_, ".json"]:
                return _macro(json.loads(path.read_text(encoding="utf-8")), str(path))
            case [*_, ".csv"]:
                return _frame(pd.read_csv(path), str(path))
            case [*_, ".parquet"]:
                return _frame(pd.read_parquet(path), str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, lzma.LZMAError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read: {first_line(error)}") from None
    raise refuse("a table", path.name, "a file that ends in .json, .json.xz, .csv or .parquet")


def _frame(data: pd.DataFrame, where: str) -> Table:
    names = [str(name) for name in data.columns]
    seeds = [name for name in names if name == "accuracy" or name.startswith("accuracy.")]
    costs = [name for name in names if name.startswith("cost.")]
    features = [name for name in names if name.startswith("feature.")]
    choices = [name for name in names if name not in {*seeds, *costs, *features}]
    for found, rule in ((seeds, "accuracy"), (costs, "cost.NAME"), (choices, "a choice")):
        if not found:
            raise InputError(f"{where}: has no column for {rule}; its columns are: {', '.join(names)}")
    numbers = data[[*seeds, *costs, *features]]
    if not all(pd.api.types.is_numeric_dtype(kind) for kind in numbers.dtypes) or not np.isfinite(numbers).all(
        axis=None
    ):
        raise InputError(f"{where}: accuracies, costs and features must be numbers, in every row")
    if data[choices].isna().any(axis=None) or data.duplicated(choices).any() or data.empty:
        raise InputError(f"{where}: every row must have its own answers to all of: {', '.join(choices)}")
    accuracy = data[seeds].to_numpy(dtype=np.float64)
    if accuracy.min() < 0 or accuracy.max() > 1:
        raise refuse(f"{where}: an accuracy", float(accuracy.max()), "a fraction, from 0 to 1")
    values = [data[name].tolist() for name in choices]
    return Table(
        Path(where).stem,
        {name: tuple(sorted(set(column), key=_order)) for name, column in zip(choices, values, strict=True)},
        tuple(zip(*values, strict=True)),
        accuracy,
        {name.removeprefix("cost."): data[name].to_numpy(dtype=np.float64) for name in costs},
        {name.removeprefix("feature."): data[name].to_numpy(dtype=np.float64) for name in features},
    )


def _order(value: Any) -> tuple[bool, Any]:
    return isinstance(value, str), value


def _macro(data: Any, where: str) -> Table:
    """Su et al. 2021, Prioritized Architecture Sampling with Monto-Carlo Tree Search, CVPR: 8 layers of 3 kinds (0 is
    nothing), trained on CIFAR-10 from 3 seeds. Its `flops` are multiply-adds."""
    try:
        codes = sorted(data)
        accuracy = np.array([data[code]["test_acc"] for code in codes], dtype=np.float64) / 100
        costs = {
            name: np.array([data[code][key] for code in codes], dtype=np.float64)
            for name, key in (("params", "params"), ("macs", "flops"))
        }
        rows = tuple(tuple(map(int, code)) for code in codes)
        if accuracy.ndim != 2 or len({len(row) for row in rows}) != 1:
            raise ValueError
    except (KeyError, TypeError, ValueError, AttributeError):
        rule = "CODE: {test_acc: [...], params: ..., flops: ...} for every code"
        raise InputError(f"{where}: is not in the form of NAS-Bench-Macro, {rule}") from None
    layers = range(len(rows[0]))
    return Table(
        "NAS-Bench-Macro",
        {f"layer {layer + 1}": tuple(sorted({row[layer] for row in rows})) for layer in layers},
        rows,
        accuracy,
        costs,
        {"depth": np.array([sum(kind > 0 for kind in row) for row in rows], dtype=np.float64)},
        # Below 80 % nobody would use a network; the costs are about those of the largest.
        {"accuracy": 0.8, "params": 3.5e6, "macs": 126.1e6},
    )
