"""All that the report of a run shows, as plain values: read from the run alone, also while it is searched."""

from __future__ import annotations

import json
import math
import shlex
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from optuna.trial import FrozenTrial

from nas.architecture import Architecture, Layer, Stage, spelled
from nas.census import MOST_LAYERS, layer_costs
from nas.costs import COSTS, costs
from nas.inputs import InputError
from nas.latency import LATENCY, Latency
from nas.latency.table import layer_name
from nas.machine import hardware, versions
from nas.pareto import hypervolumes
from nas.report.growth import measured, reference, rises
from nas.report.importance import MOST, importances, in_common, plain_trials
from nas.report.text import OPTIONAL
from nas.run import Run
from nas.space import Space
from nas.storages import without_password
from nas.tables import trials_table

SHOWN = ("trained", "cut", "failed", "running", "over budget")
"""The outcomes of proposals that are networks of their own: they have a row."""
PUBLISHED = (
    "mobilenet_v2_cse mobilenet_v2_cse_only mobilenet_v2_kuangliu mobilenet_v2_cifar mobilenet_v2 "
    "mobilenet_v1_kuangliu mobilenet_v1 shufflenet_v1"
).split()
"""The spaces of published networks that are looked for beside a study's own space."""
MOST_REFERENCES = 30
_LEAST_PROBABLE = 10
_DIGITS = 5

Walk = tuple[Stage, int, int]


def report_facts(run: Run, references: Sequence[str] | None = None) -> dict[str, Any]:
    """Plain values. `table` has a column for each fact and a row for each candidate; `front` has places
    in it, along the first cost, `knee` is one of them. Networks share most of their stages: theirs are places in
    `rows`, and of these the layers, with how often each stands there, places in `layers`, which have their costs.

    `references` are spaces (YAML) of published networks; None: those small enough beside the study's own space.
    Raises InputError if the search has not begun, or a reference cannot be read.
    """
    trials, sittings, ended = run.record()
    every = trials_table(trials)
    front = run.front_of(every)
    shown = every["outcome"].isin(SHOWN) & (every["architecture"] != "") & every["confirms"].isna()
    of_front = front[["number", *(name for name in OPTIONAL if name in front and name not in every)]]
    table = every[shown].merge(of_front, on="number", how="left")
    architectures = [Architecture.from_json(text) for text in table["architecture"]]
    rows = _Rows()
    places = {number: place for place, number in enumerate(table["number"])}
    # An outcome is on record a moment before its values are.
    trained = [x for x in trials if x.values is not None and x.user_attrs.get("outcome") == "trained"]
    maximise = [name == "accuracy" for name in run.config.objectives]
    plain = plain_trials(trained)
    latency = run.latency if run.latency_file.is_file() else None
    columns = _table(table, architectures, rows, set(front["number"]))
    published = _references(run, references, architectures, rows)  # what may be refused comes before what takes time
    return {
        "study": _study(run),
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "status": _status(run, every, ended),
        "costs": _costs(every, latency),
        "table": columns,
        "front": [places[number] for number in front["number"]],
        "knee": next((places[number] for number in front["number"][front["knee"]]), None),
        "growth": _growth(run, trials, sittings, maximise) if trained else {"seconds": [], "trained": [], "share": []},
        "importance": importances(plain, maximise),
        "importance_of": min(len(plain), MOST),
        "common": in_common(trained, set(front["number"]))[:_LEAST_PROBABLE],
        "receipt": run.receipt(every, front),
        "references": published,
        "retrained": _retrained(run),
        "measured": _measured(run, set(table["id"])),
        "trust": _trust(run),
        "environment": {**versions(), **hardware()},
        "commands": _commands(run),
        "rows": rows.rows,  # after all that adds to them
        "layers": rows.costs(latency),
    }


def _study(run: Run) -> dict[str, Any]:
    config = run.config
    storage = config.storage and without_password(config.storage)  # the page is for others, too
    return {
        "name": config.name,
        "space": Path(config.space).stem,
        "data": config.data.source,
        "objectives": config.objectives,
        "budget": config.budget,
        "sampler": config.sampler.name,
        "seed": config.sampler.seed,
        "rungs": [rung.model_dump() for rung in config.proxy.rungs],
        "yaml": config.model_copy(update={"storage": storage}).to_yaml(),
    }


def _costs(every: pd.DataFrame, latency: Latency | None) -> list[dict[str, Any]]:
    """Names, and how layers make a network's (None: theirs are not known); latency is the last."""
    known: list[dict[str, Any]] = [{"name": name, "combine": each.combine} for name, each in COSTS.items()]
    return [*known, *([{"name": LATENCY, "combine": latency and "sum"}] if LATENCY in every else [])]


def _measured(run: Run, shown: Collection[str]) -> dict[str, list[float]]:
    """Milliseconds of whole networks, by id: the estimate, and the interval around it."""
    return {
        id_: [_number(each[key]) for key in ("ms", "low_ms", "high_ms")]
        for id_, each in run.measured().items()
        if id_ in shown
    }


def _status(run: Run, every: pd.DataFrame, ended: str | None) -> dict[str, Any]:
    """`ended`: as in `Run.record`, but known: of an earlier version, complete where all candidates are trained."""
    counts = every["outcome"].value_counts()
    done = int(counts.get("trained", 0) + counts.get("cut", 0))
    if ended is None:
        ended = "complete" if done >= run.config.trials else ""
    return {
        "done": done,
        "wanted": run.config.trials,
        "ended": ended,
        "running": int(counts.get("running", 0)),
        "seconds": round(float(every["seconds"].sum()), 1),
        "outcomes": {str(name): int(count) for name, count in counts.items()},
    }


class _Rows:
    """The distinct stages of many networks, each with what it stands on and its layers."""

    def __init__(self) -> None:
        self.rows: list[list[Any]] = []
        self._places: dict[Walk, int] = {}
        self._layers: dict[Layer, int] = {}

    def of(self, architecture: Architecture) -> list[int]:
        """The places of a network's stages; new ones are added."""
        return [self._place(walk) for walk in architecture.walk()]

    def _place(self, walk: Walk) -> int:
        if walk not in self._places:
            stage, channels, resolution = walk
            options = dict(stage.options)
            t = options.pop("t", None)
            rest = " ".join(f"{name}={spelled(value)}" for name, value in sorted(options.items()))
            runs = stage.runs(channels, resolution)
            layers = [[self._layers.setdefault(layer, len(self._layers)), times] for layer, times in runs]
            self._places[walk] = len(self.rows)
            self.rows.append([stage.block, channels, resolution, stage.c, stage.n, stage.s, t, rest, layers])
        return self._places[walk]

    def costs(self, latency: Latency | None) -> list[list[float | None]]:
        """Of each layer, in the order of COSTS, and its share of the milliseconds where that is predicted."""
        layers = list(self._layers)
        parts = [layers[start : start + MOST_LAYERS] for start in range(0, len(layers), MOST_LAYERS)]
        found: list[list[float | None]] = [list(known) for part in parts for known in layer_costs(part).values()]
        if latency is not None:
            for known, layer in zip(found, layers, strict=True):
                known.append(_number(latency.shares.get(layer_name(layer))))
        return found


def _table(
    table: pd.DataFrame, architectures: Sequence[Architecture], rows: _Rows, front: set[int]
) -> dict[str, list[Any]]:
    rungs = [json.loads(text) for text in table["rungs"]]
    last = [each[-1]["accuracy"] if each else None for each in rungs]
    accuracy = [own if own == own else seen for own, seen in zip(table["accuracy"], last, strict=True)]
    epochs = [
        _train_curve(each[-1]) if number in front and each else []
        for number, each in zip(table["number"], rungs, strict=True)
    ]
    return {
        "number": table["number"].tolist(),
        "id": table["id"].tolist(),
        "outcome": table["outcome"].tolist(),
        "reason": table["reason"].tolist(),
        "accuracy": _numbers(accuracy),
        "std": _numbers(table["accuracy_std"]),
        "measurements": table["measurements"].tolist(),
        "rung": table["rung"].tolist(),
        **{name: [int(value) if pd.notna(value) else None for value in table[name]] for name in COSTS},
        **{name: _numbers(table[name].to_numpy(float)) for name in (LATENCY, *OPTIONAL) if name in table},
        "seconds": [round(value, 1) for value in table["seconds"]],
        "stages": [rows.of(architecture) for architecture in architectures],
        "curve": [[[rung["epochs"], _number(rung["accuracy"])] for rung in each] for each in rungs],
        "epochs": epochs,
    }


def _train_curve(rung: Mapping[str, Any]) -> list[list[float]]:
    """[epoch, training accuracy] of the first seed of a measurement."""
    curve = rung["curve"]
    first = curve[0].get("seed") if curve else None
    return [[each["epoch"], _number(each["train_accuracy"])] for each in curve if each.get("seed") == first]


def _numbers(values: Iterable[float | None]) -> list[float | None]:
    return [_number(value) for value in values]


def _number(value: float | None) -> Any:
    return round(float(value), _DIGITS) if value is not None and math.isfinite(value) else None


def _growth(
    run: Run, trials: list[FrozenTrial], sittings: list[float], maximise: Sequence[bool]
) -> dict[str, list[float]]:
    """Where the hypervolume rises: seconds of search, trained candidates, and the share of what it is at the end."""
    seconds, values = measured(run.folder, trials, sittings)
    volumes = hypervolumes(values, reference(values, maximise), maximise)
    places = rises(volumes)
    end = len(volumes) - 1
    if places[-1] != end:  # the last stretch, in which nothing was gained
        places = np.append(places, end)
    return {
        "seconds": seconds[places].round(1).tolist(),
        "trained": [int(place) + 1 for place in places],
        "share": (volumes[places] / volumes[-1]).round(_DIGITS).tolist(),
    }


def _references(
    run: Run, named: Sequence[str] | None, ours: Sequence[Architecture], rows: _Rows
) -> list[dict[str, Any]]:
    """Published networks with the study's classes, at the resolutions of its candidates; their costs are exact."""
    if not ours:
        return []
    resolutions = {each.resolution for each in ours}
    found: dict[str, dict[str, Any]] = {}
    for file in _beside(run) if named is None else [Path(name) for name in named]:
        space = Space.load(file, ours[0].in_channels, ours[0].classes)
        if space.size > MOST_REFERENCES:
            if named is None:  # a space of the user's own that has the name of a published one
                continue
            rule = f"but a reference must have at most {MOST_REFERENCES}"
            raise InputError(f"{file}: has {space.size:,} networks, {rule}")
        for member in space.enumerate():
            if named is None and member.resolution not in resolutions:
                continue
            choices = [f"{name} {spelled(value)}" for name, value in space.encode(member).items()]
            about = {"name": ", ".join([space.name, *choices]), "id": member.id, "stages": rows.of(member)}
            found.setdefault(member.id, {**about, "resolution": member.resolution, **costs(member)})
    return list(found.values())


def _beside(run: Run) -> list[Path]:
    folder = Path(run.config.space).parent
    return [file for name in PUBLISHED if (file := folder / f"{name}.yaml").is_file()]


def _retrained(run: Run) -> list[dict[str, Any]]:
    """What full trainings of candidates ended with."""
    found = []
    for file in sorted(run.folder.glob("retrain/*/result.json")):
        result = _read(file)
        try:
            about = {"id": str(result["id"]), "accuracy": float(result["test_accuracy"])}
            about |= {"epochs": int(result["recipe"]["epochs"]), "seed": int(result["seed"])}
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{file}: is damaged; delete it to train again") from None
        found.append({**about, "folder": file.parent.relative_to(run.folder).as_posix()})
    return found


def _trust(run: Run) -> dict[str, Any] | None:
    """What `nas trust` found of the same study, where its folder lies beside the run."""
    file = run.folder.absolute().with_name(f"{run.folder.absolute().name}-trust") / "trust.json"
    if not file.is_file():
        return None
    found = _read(file)
    if not isinstance(found, dict) or found.get("study") != run.config.name:
        return None
    return found


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file}: is not valid JSON: {error}") from None


def _commands(run: Run) -> dict[str, str]:
    """How to go on; ID stands for a candidate."""
    folder = shlex.quote(str(run.folder))
    return {
        "Look at one network": f"nas front {folder} --pick ID",
        "Train it fully": f"nas retrain {folder} --pick ID",
        "Make this page again": f"nas report {folder}",
    }
