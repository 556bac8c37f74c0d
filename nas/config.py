"""The study file: what is searched, on which images, for what, within what."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
import yaml
from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from nas.costs import COSTS
from nas.data import DATASETS, DataConfig
from nas.evaluation import Rung
from nas.executors import check_executor
from nas.files import FOLDER_NAME, is_folder_name
from nas.inputs import Config, InputError, Quantity, checked, choices, parse_value, path_rule, read_yaml, refuse
from nas.latency import LATENCY, check_int8, check_runtime
from nas.samplers import check_sampler
from nas.space import Space
from nas.storages import absolute, open_database, without_password
from nas.training import PUBLISHED, Recipe
from nas.weights import IMAGENET, WEIGHTS_RULE

OBJECTIVES = ("accuracy", *COSTS, LATENCY)

_Epochs = Annotated[int, Ge(1), Le(100_000)]
_Share = Annotated[float, Gt(0), Le(1)]
_Folder = Annotated[str, path_rule("the folder of an earlier retraining")]

Overrides = Iterable[str] | Mapping[str, Any]
"""Other values than the study's: {"retrain.epochs": 3}, or lines "retrain.epochs=3", the value as YAML."""


def _folder_name(value: str) -> str:
    if not is_folder_name(value):
        raise ValueError(FOLDER_NAME)
    return value


class SamplerConfig(Config):
    """`name` of SAMPLERS, the seed of everything random in the study, and the sampler's own options."""

    model_config = ConfigDict(extra="allow")
    name: str = "surrogate"
    seed: Annotated[int, Ge(0), Le(2**31 - 1)] = 0

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class ExecutorConfig(Config):
    """Where candidates are trained: `name` of EXECUTORS, and the executor's own options."""

    model_config = ConfigDict(extra="allow")
    name: str = "processes"

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class RungConfig(Config):
    """A fidelity of the short training; a number alone is its epochs."""

    epochs: _Epochs
    share: _Share = 1.0
    resolution: _Share = 1.0

    @model_validator(mode="before")
    @classmethod
    def _epochs_alone(cls, value: object) -> object:
        return value if isinstance(value, dict | RungConfig) else {"epochs": value}


class ProxyConfig(Config):
    """The short training: rungs in rising order (epochs; share of the training set; multiple of the resolution).

    keep: the least share of a rung's candidates that goes on to the next, see `nas.rungs`; with 1 all do.
    audit: the share of the candidates that should be cut that goes on all the same, to tell what cutting loses.
    seeds: a candidate is trained so many times, from seeds of its own, and scored by the mean.
    confirm: so often are the members of the front, and their near misses, measured again, from other seeds.
    """

    rungs: Annotated[list[RungConfig], Field(min_length=1)]
    keep: _Share = 1 / 3
    audit: Annotated[float, Ge(0), Le(1)] = 0.1
    seeds: Annotated[int, Ge(1), Le(100)] = 1
    confirm: Annotated[int, Ge(0), Le(100)] = 1
    recipe: dict[str, Any] = {}

    def ladder(self) -> tuple[Rung, ...]:
        return tuple(Rung(rung.epochs, rung.share, rung.resolution) for rung in self.rungs)


class ProgressConfig(Config):
    """A part of the full training: up to the share `until` of its epochs, at a multiple of the resolution."""

    until: Annotated[float, Gt(0), Lt(1)]
    resolution: _Share


class TeacherConfig(Config):
    """Networks that were retrained before, by their folders, and what is learnt from them: see
    `nas.training.Distillation`."""

    folder: Annotated[list[_Folder], MinLen(1), BeforeValidator(lambda x: [x] if isinstance(x, str) else x)]
    share: Annotated[float, Gt(0), Le(1)] = 0.9
    temperature: Annotated[float, Gt(0), Le(1000)] = 4.0
    average_flips: bool = False


class RetrainConfig(Config):
    """The full training of the chosen candidate, on the training split alone or with the validation split.

    `weights` is what it starts from (see `nas.load_weights`), by default new ones. Of `teacher` it learns.
    `progressive` are parts of lower resolution that it begins with. With `average_flips` the test accuracy is that of
    the mean over an image and its mirror image of the logits.
    """

    epochs: _Epochs
    data: Literal["train", "train+validation"] = "train+validation"
    recipe: dict[str, Any] = {}
    weights: Annotated[str, path_rule(WEIGHTS_RULE)] | None = None
    teacher: TeacherConfig | None = None
    progressive: list[ProgressConfig] = []
    average_flips: bool = False

    @field_validator("progressive")
    @classmethod
    def _rising(cls, value: list[ProgressConfig]) -> list[ProgressConfig]:
        until = [part.until for part in value]
        if sorted(set(until)) != until:
            raise ValueError("parts whose `until` rises")
        return value

    def parts(self, epochs: int) -> list[tuple[int, float]]:
        """What a training of `epochs` falls into: the last epoch of each part, and its multiple of the resolution."""
        begins = [(min(round(part.until * epochs), epochs - 1), part.resolution) for part in self.progressive]
        return [*((until, multiple) for until, multiple in begins if until), (epochs, 1.0)]

    def found_from(self, base: Path) -> RetrainConfig:
        """The same with absolute paths of the weights, where they are a file, and of the teachers."""
        update: dict[str, Any] = {}
        if self.weights not in {None, IMAGENET}:
            update["weights"] = str(base / self.weights)
        if self.teacher is not None:
            folder = [str(base / folder) for folder in self.teacher.folder]
            update["teacher"] = self.teacher.model_copy(update={"folder": folder})
        return self.model_copy(update=update)


class LatencyConfig(Config):
    """Where networks will run: a name of RUNTIMES or of an imported device, and the threads of one inference.

    With it `latency_ms` is a cost, and what the runtime cannot run is not trained. On a runtime in int8 networks are
    quantised at every rung, and `accuracy` is theirs. With `int8` they are at the last rung alone, and beside it:
    `accuracy_int8` on the validation split, and `latency_int8_ms` of those on the front.
    """

    runtime: str = "onnxruntime"
    threads: Annotated[int, Ge(1), Le(256)] = 1
    int8: bool = False


class StudyConfig(Config):
    """A study file, checked. `trials` counts the candidates that are trained.

    time_limit: a candidate that takes so many times what it is expected to, and five minutes, hangs and is ended.
    """

    name: Annotated[str, AfterValidator(_folder_name)]
    space: str
    data: DataConfig
    objectives: Annotated[list[str], Field(min_length=1)] = ["accuracy", "params"]
    budget: dict[str, Quantity] = {}
    sampler: SamplerConfig = SamplerConfig()
    proxy: ProxyConfig
    trials: Annotated[int, Ge(1), Le(1_000_000)]
    workers: Annotated[int, Ge(1), Le(256)] = 1
    executor: ExecutorConfig = ExecutorConfig()
    time_limit: Annotated[float, Ge(1), Le(1e6)] = 10.0
    retrain: RetrainConfig | None = None
    latency: LatencyConfig | None = None
    enqueue: list[str] = []
    storage: str | None = None
    device: str | None = None

    @classmethod
    def load(cls, path: Path | str, overrides: Overrides = ()) -> Self:
        """Reads a file and applies `overrides` (see `Overrides`), to search on this machine.

        Relative paths count from the file (space, enqueue, retrain.weights and teacher, data.root, an SQLite storage)
        and become absolute; data.root and storage among the overrides count from the working directory. Raises
        InputError naming place, value and rule.
        """
        path = Path(path)
        data = read_yaml(path)
        base = path.absolute().parent
        section = data.get("data")
        if isinstance(section, dict) and isinstance(root := section.get("root"), str) and root.strip():
            data["data"] = section | {"root": str(base / os.path.expanduser(root))}
        if isinstance(storage := data.get("storage"), str):
            data["storage"] = absolute(storage, base, f"{path}: storage")
        config = cls.of(overridden(data, overrides), str(path))
        if config.device is not None:
            check_device(config.device, f"{path}: device")
        if config.latency is not None:
            check_runtime(config.latency.runtime, f"{path}: latency.runtime")
        root, storage = config.data.root, config.storage
        if storage is not None:
            storage = absolute(storage, Path.cwd(), f"{path}: storage")
            open_database(storage, f"{path}: storage")
        return config.model_copy(
            update={
                "space": str(base / config.space),
                "enqueue": [str(base / item) for item in config.enqueue],
                "data": config.data.model_copy(update={"root": root and str(Path(root).absolute())}),
                "retrain": config.retrain and config.retrain.found_from(base),
                "storage": storage,
            }
        )

    @classmethod
    def of(cls, data: Mapping[str, Any], where: str) -> Self:
        """A study from plain values. Raises InputError naming place, value and rule; `where` is the place of all."""
        if "stages" in data and "space" not in data:
            raise InputError(f"{where}: is a space, not a study; a study names it as its `space`")
        config: Self = checked(cls, dict(data), where)
        for name in config.objectives:
            if name not in OBJECTIVES:
                raise refuse(f"{where}: objectives", name, choices(OBJECTIVES))
        if "accuracy" not in config.objectives or len(set(config.objectives)) < len(config.objectives):
            raise refuse(f"{where}: objectives", config.objectives, "accuracy and costs, each once")
        for name in config.budget:
            if name not in OBJECTIVES[1:]:
                raise refuse(f"{where}: budget: name", name, choices(OBJECTIVES[1:]))
        if LATENCY in {*config.objectives, *config.budget} and config.latency is None:
            raise InputError(f"{where}: {LATENCY} needs to know where: add latency: {{runtime: onnxruntime}}")
        if config.latency is not None and config.latency.int8:
            check_int8(config.latency.runtime, f"{where}: latency.runtime")
        if config.data.source not in DATASETS:
            raise refuse(f"{where}: data.source", config.data.source, choices(DATASETS))
        check_sampler(config.sampler.name, config.sampler.options, f"{where}: sampler")
        check_executor(config.executor.name, config.executor.options, f"{where}: executor")
        epochs = [rung.epochs for rung in config.proxy.rungs]
        if sorted(set(epochs)) != epochs:
            raise refuse(f"{where}: proxy.rungs: epochs", epochs, "rising")
        for name in ("share", "resolution"):
            values = [getattr(rung, name) for rung in config.proxy.rungs]
            if sorted(values) != values:
                raise refuse(f"{where}: proxy.rungs: {name}", values, "rising, or the same in all rungs")
        config.proxy_recipe(where)
        if config.retrain:
            _recipe(config.retrain.recipe, config.retrain.epochs, f"{where}: retrain.recipe")
        return config

    def proxy_recipe(self, where: str = "study") -> Recipe:
        """The recipe of the short training; its schedule is as long as the last rung."""
        return _recipe(self.proxy.recipe, self.proxy.rungs[-1].epochs, f"{where}: proxy.recipe")

    def retrain_recipe(self, epochs: int | None = None) -> Recipe:
        """The recipe of the full training. Raises InputError if the study has no `retrain` section."""
        if self.retrain is None:
            rule = "add retrain: {epochs: N} to the study file, then run nas search again"
            raise InputError(f"study {self.name}: retrain is missing; {rule}")
        return _recipe(self.retrain.recipe, epochs or self.retrain.epochs, f"study {self.name}: retrain.recipe")

    def load_space(self, in_channels: int | None = None, classes: int | None = None) -> Space:
        return Space.load(self.space, in_channels, classes)

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def fixed(self) -> dict[str, Any]:
        """What must not change when a study goes on, by key path; the keys are the same for all studies.

        More trials, other workers, another device or place of the data may. Recipes are told apart by what they mean.
        """
        study = self.model_dump(mode="json", include={"name", "objectives", "budget", "sampler", "storage"})
        study["storage"] = self.storage and without_password(self.storage)
        data = self.data.model_dump(mode="json", exclude={"root", "download"})
        rungs = [rung.model_dump(mode="json") for rung in self.proxy.rungs]
        recipe = self.proxy_recipe().model_dump(mode="json", exclude={"epochs"})
        return {
            **study,
            **{f"data.{name}": value for name, value in data.items()},
            "proxy.rungs": rungs,
            "proxy.keep": self.proxy.keep,
            "proxy.audit": self.proxy.audit,
            "proxy.seeds": self.proxy.seeds,
            **{f"proxy.recipe.{name}": value for name, value in recipe.items()},
            "latency": self.latency and self.latency.model_dump(mode="json", exclude={"int8"}),
            "latency.int8": self.latency is not None and self.latency.int8,
        }


def check_device(name: str, where: str) -> None:
    """Raises InputError unless this machine has the device."""
    there = ["cpu"]
    if torch.cuda.is_available():
        there += ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        there += ["mps"]
    if name not in there:
        raise refuse(where, name, f"a device of this machine, {choices(there)}")


def _recipe(data: dict[str, Any], epochs: int, where: str) -> Recipe:
    """The recipe of a file: that of `like`, where it names a published one, with the other keys in its place."""
    data = dict(data)
    if (like := data.pop("like", None)) is not None:
        if not isinstance(like, str) or like not in PUBLISHED:
            raise refuse(f"{where}.like", like, choices(PUBLISHED))
        data = PUBLISHED[like] | data
    known = sorted(set(Recipe.model_fields) - {"epochs"})
    for key in data:
        if key not in known:
            rule = "it stands beside the recipe" if key == "epochs" else f"the keys here are: like, {', '.join(known)}"
            raise InputError(f"{where}.{key} is not known; {rule}")
    recipe: Recipe = checked(Recipe, {**data, "epochs": epochs}, where, ".")
    return recipe


def as_lines(overrides: Overrides) -> tuple[str, ...]:
    """`key.path=value` each, the value as YAML."""
    if isinstance(overrides, Mapping):
        return tuple(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in overrides.items())
    return (overrides,) if isinstance(overrides, str) else tuple(overrides)


def overridden(data: dict[str, Any], overrides: Overrides) -> dict[str, Any]:
    """The values of a study file, changed by each override. Raises InputError."""
    for override in as_lines(overrides):
        _override(data, override)
    return data


def _override(data: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    path = key.strip().split(".")
    if not sign or not all(path):
        raise refuse("--set", override, "KEY.PATH=VALUE")
    value = parse_value(text, f"--set {override}")
    for name in path[:-1]:
        inner = {} if data.get(name) is None else data[name]
        if not isinstance(inner, dict):
            raise refuse(f"--set {override}: {name}", inner, "a mapping, to set a key in it")
        data[name] = dict(inner)  # another: by an alias in the file, the same may stand in two places
        data = data[name]
    data[path[-1]] = value
