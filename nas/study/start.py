"""A study file, run."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from optuna.exceptions import StorageInternalError

from nas.architecture import Architecture
from nas.blocks import BLOCKS
from nas.census import Feasible
from nas.config import Overrides, StudyConfig
from nas.data import Splits
from nas.evaluation import DISK, ProxyTraining
from nas.files import write_json
from nas.inputs import InputError, first_line, refuse
from nas.latency import Latency, latency_of, open_source, precision_of
from nas.latency.table import Progress
from nas.run import Run, refuse_changes
from nas.space import Space
from nas.study.measuring import measure_front
from nas.study.record import Told
from nas.study.study import Study
from nas.training import pick_device

logger = logging.getLogger("nas")
_FIRST = 4
"""Candidates after which it can be seen that a short training is too short."""


def search(
    study_file: Path | str,
    folder: Path | str | None = None,
    overrides: Overrides = (),
    on_start: Callable[[Study], None] = lambda study: None,
    on_told: Callable[[Told], None] = lambda told: None,
    hours: float = math.inf,
    on_progress: Progress = lambda what, done, total: None,
) -> tuple[Run, str | None]:
    """Runs a study file, or goes on with it. Returns its run, and why it stopped before `trials`, if it did.

    Where latency is a cost, the layers of the space are measured first (once for a machine), and the members of the
    front as whole networks in the end; `on_progress` hears of it.
    `overrides` ({"trials": 8}) stand in place of what the file says. `folder` is runs/NAME by default; no new candidate
    is begun after so many `hours`. Nothing is written before everything that the user gave has been checked.
    Raises InputError for what the user can mend; what was trained until then is on record.
    """
    config = StudyConfig.load(study_file, overrides)
    elsewhere = "cuda" if config.executor.options.get("gpus") else None  # this machine need not have one
    device = config.device or elsewhere or str(pick_device())
    recipe, top = config.proxy_recipe(str(study_file)), config.proxy.ladder()[-1]
    int8 = top if config.latency is not None and config.latency.int8 else None
    precision = precision_of(config.latency.runtime) if config.latency is not None else "float32"
    evaluator = ProxyTraining(config.data, recipe, device, config.proxy.seeds, int8=int8, precision=precision)
    splits = evaluator.splits
    space = config.load_space(splits.shape[0], len(splits.classes))
    _check_rungs(config, space, str(study_file))
    run = Run(Path(folder) if folder else Path("runs") / config.name)
    latency = _latency(run, config, space, on_progress)
    feasible = Feasible(space, config.budget, latency=latency)
    first = [_first(path, space) for path in config.enqueue]
    try:
        with run.lock():
            run = Run.create(run.folder, config)
            if latency is not None and not run.latency_file.exists():
                write_json(run.latency_file, latency.to_dict())

            def heard(told: Told) -> None:
                on_told(told)
                if told.outcome == "trained" and study.trained == _FIRST:
                    known = [each.accuracy for each in study.record.values() if each.accuracy is not None]
                    _warn_of_chance(known, splits.validation.labels)

            study = Study(run, space, evaluator, heard, feasible)
            _check_images(study, splits)
            on_start(study)
            exhausted = study.search(first, hours)
            if latency is not None:
                measure_front(run, on_progress)
            study.study.set_user_attr("ended", study.exhausted or "complete")
            return run, exhausted
    except (OSError, StorageInternalError) as error:
        if isinstance(error, OSError) and error.errno not in DISK:
            raise
        raise InputError(
            f"{run.folder}: cannot go on: {first_line(error)}; nothing is lost, run it again then"
        ) from error


def _check_images(study: Study, splits: Splits) -> None:
    """Raises InputError where candidates on record were trained on other images."""
    now = {
        "classes": list(splits.classes),
        "shape": list(splits.shape),
        "images": {"train": len(splits.train), "validation": len(splits.validation), "test": len(splits.test)},
        "mean": [round(x, 3) for x in splits.mean],
    }
    before = study.study.user_attrs.get("images")
    if before is not None and any(trial.state.is_finished() for trial in study.study.get_trials(deepcopy=False)):
        refuse_changes(study.run.folder, "other images", before, now)
    if before != now:
        study.study.set_user_attr("images", now)


def _warn_of_chance(accuracies: Sequence[float], labels: NDArray[np.int64]) -> None:
    """Warns where none is better than what the most frequent class on each image would be, by two deviations."""
    chance = float(np.bincount(labels).max()) / len(labels)
    if max(accuracies) <= chance + 2.0 * math.sqrt(chance * (1.0 - chance) / len(labels)):
        logger.warning(
            "none of %d candidates reads the images better than chance (%.2f), so nothing can be chosen: "
            "make proxy.rungs longer, with another --run",
            len(accuracies),
            chance,
        )


def _latency(run: Run, config: StudyConfig, space: Space, on_progress: Progress) -> Latency | None:
    """What a run predicts latencies with: what it began with, or what is measured now."""
    if config.latency is None:
        return None
    if run.study_file.exists() and run.latency_file.exists():
        return run.latency
    source = open_source(config.latency.runtime, config.latency.threads, on_progress)
    return latency_of(space, source)


def _first(path: str, space: Space) -> Architecture:
    architecture = Architecture.load(path)
    try:
        space.encode(architecture)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return architecture


def _check_rungs(config: StudyConfig, space: Space, where: str) -> None:
    """Raises InputError if rungs have a resolution that the weights of a block of the space do not fit."""
    settings = [alternative.settings["block"] for row in space.rows for alternative in row.alternatives]
    blocks = sorted({str(name) for setting in settings for name in setting.values})
    bound = [name for name in blocks if BLOCKS[name].one_resolution]
    scales = [rung.resolution for rung in config.proxy.rungs]
    if bound and set(scales) != {1.0}:
        rule = f"1 in all rungs: the weights of block {bound[0]} in space {space.name} belong to one resolution"
        raise refuse(f"{where}: proxy.rungs: resolution", scales, rule)
