"""`nas trust`: from a study file to what its short training is worth."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from nas.architecture import Architecture
from nas.census import Feasible
from nas.config import Overrides, StudyConfig
from nas.costs import COSTS, costs
from nas.evaluation import ProxyTraining, Rung, turns
from nas.inputs import InputError, read_yaml, refuse
from nas.latency import latency_of, open_source, precision_of
from nas.storages import locked
from nas.training import Recipe, pick_device
from nas.trust.candidates import spread
from nas.trust.experiment import KINDS, LEAST, Experiment, Step, Training
from nas.trust.ranking import Candidate, verdict

logger = logging.getLogger("nas")


@dataclass(frozen=True)
class Trust:
    """The folder of the experiment, what follows from it (plain values for JSON), and what was measured."""

    folder: Path
    facts: dict[str, Any]
    candidates: list[Candidate]


def trust(
    study_file: Path | str,
    folder: Path | str | None = None,
    overrides: Overrides = (),
    *,
    candidates: int = 16,
    epochs: int | None = None,
    tau: float = 0.5,
    on_start: Callable[[Experiment], None] = lambda experiment: None,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Trust:
    """Trains `candidates` of a study twice, or goes on with it, and says which epochs rank as the long training does.

    Short: the study's proxy, validated after every epoch. Long: `epochs` (default: those of the study's `retrain`) with
    the recipe of `retrain`, or else of the proxy, from new weights and another seed, on the training split, scored on
    the validation split. No test image is looked at. `folder` is runs/NAME-trust by default; nothing is written before
    all that the user gave has been checked. Raises InputError for what the user can mend.
    """
    if candidates < LEAST:
        raise refuse("--candidates", candidates, f"at least {LEAST}")
    config = StudyConfig.load(study_file, overrides)
    trainings = _trainings(config, _long_recipe(config, epochs))
    splits = trainings["short"].evaluator.splits
    space = config.load_space(splits.shape[0], len(splits.classes))
    latency = None
    if config.latency is not None:
        source = open_source(config.latency.runtime, config.latency.threads, lambda what, done, total: None)
        latency = latency_of(space, source)
        if precision_of(config.latency.runtime) == "int8":
            logger.warning("study %s: accuracies here are of float32 networks, in its search of int8 ones", config.name)
    feasible = Feasible(space, config.budget, latency=latency)
    cost = _main_cost(config, feasible)
    members = spread(feasible, cost, candidates, config.sampler.seed)
    folder = Path(folder) if folder else Path("runs") / f"{config.name}-trust"
    if (folder / "study.yaml").exists():
        raise InputError(f"{folder}: is the run of a search; choose another folder with --run")
    with locked(folder / "trust.lock", "worked on"):
        experiment = Experiment(folder, members, trainings, config, on_step)
        experiment.begin({"candidates": candidates, "cost": cost, **_settings(config, trainings)})
        on_start(experiment)
        found = experiment.run()
    facts = {
        "study": config.name,
        "cost": cost,
        "precision": trainings["short"].evaluator.precision,
        **_described(found, members, cost),
        "failed": [{"id": id_, "reason": reason} for id_, reason in experiment.failed.items()],
        "long_epochs": trainings["long"].rungs[-1].epochs,
        **verdict(found, tau, config.sampler.seed),
    }
    if facts["recommended"]:
        facts["recommended"] = [_written(epochs, trainings["short"].rungs) for epochs in facts["recommended"]]
    return Trust(folder, facts, found)


def _long_recipe(config: StudyConfig, epochs: int | None) -> Recipe:
    if config.retrain is not None:
        recipe = config.retrain_recipe(epochs)
    elif epochs is not None:
        recipe = config.proxy_recipe().model_copy(update={"epochs": epochs})
    else:
        raise InputError(f"--epochs is missing: study {config.name} has no retrain section to take it from")
    short = config.proxy.ladder()[-1].epochs
    if recipe.epochs <= short:
        raise refuse("--epochs", recipe.epochs, f"more than the {short} of the study's short training")
    return recipe


def _trainings(config: StudyConfig, long: Recipe) -> dict[str, Training]:
    device, seeds, seed = config.device or str(pick_device()), config.proxy.seeds, config.sampler.seed
    short = ProxyTraining(config.data, config.proxy_recipe(), device, seeds, every=1)
    return {
        "short": Training(short, turns(config.proxy.ladder()), seed),
        "long": Training(ProxyTraining(config.data, long, device), (Rung(long.epochs),), seed + seeds),
    }


def _written(epochs: int, rungs: Sequence[Rung]) -> int | dict[str, float]:
    """A rung of so many epochs as a study has it, on the images that it was measured with."""
    stage = asdict(next(rung for rung in rungs if epochs <= rung.epochs))
    others = {name: value for name, value in stage.items() if name != "epochs" and value != 1}
    return {"epochs": epochs, **others} if others else epochs


def _settings(config: StudyConfig, trainings: dict[str, Training]) -> dict[str, Any]:
    """What the measurements depend on, by key path; rungs that train like the next are not among it."""
    fixed = {name: value for name, value in config.fixed().items() if name == "budget" or name.startswith("data.")}
    settings = {"sampler.seed": config.sampler.seed, **fixed, "proxy.seeds": config.proxy.seeds}
    for kind in KINDS:
        training = trainings[kind]
        *before, last = map(asdict, training.rungs)
        settings |= {f"{kind}.{name}": value for name, value in last.items()} | {f"{kind}.before": before}
        recipe = training.evaluator.recipe.model_dump(mode="json", exclude={"epochs"})
        settings |= {f"{kind}.recipe.{name}": value for name, value in recipe.items()}
    return {**settings, "space": read_yaml(config.space)}


def _main_cost(config: StudyConfig, feasible: Feasible) -> str:
    """The limit that leaves least; without one the first objective that is a cost, or params."""
    costs_named = (name for name in (*config.budget, *config.objectives) if name in COSTS)
    return feasible.main or next(costs_named, "params")


def _described(found: list[Candidate], members: list[Architecture], cost: str) -> dict[str, Any]:
    known = [costs(member, [cost])[cost] for member in members]
    accuracies = [each.long_accuracy for each in found]
    return {
        "candidates": len(found),
        "least_cost": min(known),
        "most_cost": max(known),
        "least_accuracy": min(accuracies),
        "most_accuracy": max(accuracies),
        "long_seconds": fmean(each.long_seconds for each in found),
    }
