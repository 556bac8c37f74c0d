"""The study file: what is searched, on which images, for what, within what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from annotated_types import Ge, Gt, Le
from pydantic import ConfigDict, Field

from nas.costs import COSTS
from nas.data import DATASETS, DataConfig
from nas.evaluation import Rung
from nas.inputs import Config, InputError, Quantity, checked, choices, read_yaml, refuse
from nas.samplers import check_sampler
from nas.space import Space
from nas.training import Recipe

OBJECTIVES = ("accuracy", *COSTS)


class SamplerConfig(Config):
    """`name` of SAMPLERS, the seed of everything random in the study, and the sampler's own options."""

    model_config = ConfigDict(extra="allow")
    name: str = "tpe"
    seed: Annotated[int, Ge(0), Le(2**31 - 1)] = 0

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class RungConfig(Config):
    epochs: Annotated[int, Ge(1)]
    share: Annotated[float, Gt(0), Le(1)] = 1.0


class ProxyConfig(Config):
    """The short training: rungs (epochs, or epochs and share of the training set) in rising order, and the recipe."""

    rungs: Annotated[list[Annotated[int, Ge(1)] | RungConfig], Field(min_length=1)]
    recipe: dict[str, Any] = {}

    def ladder(self) -> tuple[Rung, ...]:
        return tuple(Rung(r) if isinstance(r, int) else Rung(r.epochs, r.share) for r in self.rungs)


class RetrainConfig(Config):
    """The full training of the chosen candidate, on the training split alone or with the validation split."""

    epochs: Annotated[int, Ge(1)]
    data: Literal["train", "train+validation"] = "train+validation"
    recipe: dict[str, Any] = {}


class StudyConfig(Config):
    """A study file, checked. `trials` counts the candidates that are trained; `space` is a path from the file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
    space: str
    data: DataConfig
    objectives: Annotated[list[str], Field(min_length=1)] = ["accuracy", "params"]
    budget: dict[str, Quantity] = {}
    sampler: SamplerConfig = SamplerConfig()
    proxy: ProxyConfig
    trials: Annotated[int, Ge(1)]
    workers: Annotated[int, Ge(1), Le(256)] = 1
    retrain: RetrainConfig | None = None
    enqueue: list[str] = []
    storage: str | None = None
    device: str | None = None

    @classmethod
    def load(cls, path: Path | str, overrides: Iterable[str] = ()) -> Self:
        """Reads a file and applies `overrides` (`key.path=value`, the value as YAML).

        Relative paths (space, enqueue) become absolute. Raises InputError naming place, value and rule.
        """
        path = Path(path)
        data = read_yaml(path)
        for override in overrides:
            _override(data, override)
        config = cls.of(data, str(path))
        base = path.absolute().parent
        return config.model_copy(
            update={"space": str(base / config.space), "enqueue": [str(base / item) for item in config.enqueue]}
        )

    @classmethod
    def of(cls, data: Mapping[str, Any], where: str) -> Self:
        config: Self = checked(cls, dict(data), where)
        for name in config.objectives:
            if name not in OBJECTIVES:
                raise refuse(f"{where}: objectives", name, choices(OBJECTIVES))
        if "accuracy" not in config.objectives or len(set(config.objectives)) < len(config.objectives):
            raise refuse(f"{where}: objectives", config.objectives, "accuracy and costs, each once")
        for name in config.budget:
            if name not in COSTS:
                raise refuse(f"{where}: budget: name", name, choices(COSTS))
        if config.data.source not in DATASETS:
            raise refuse(f"{where}: data.source", config.data.source, choices(DATASETS))
        check_sampler(config.sampler.name, config.sampler.options, f"{where}: sampler")
        epochs = [rung.epochs for rung in config.proxy.ladder()]
        if sorted(set(epochs)) != epochs:
            raise refuse(f"{where}: proxy.rungs: epochs", epochs, "rising")
        if len({rung.share for rung in config.proxy.ladder()}) > 1:
            shares = [rung.share for rung in config.proxy.ladder()]
            raise refuse(f"{where}: proxy.rungs: share", shares, "the same in all rungs: a candidate trains on")
        config.proxy_recipe(where)
        if config.retrain:
            _recipe(config.retrain.recipe, config.retrain.epochs, f"{where}: retrain.recipe")
        return config

    def proxy_recipe(self, where: str = "study") -> Recipe:
        return _recipe(self.proxy.recipe, self.proxy.ladder()[-1].epochs, f"{where}: proxy.recipe")

    def retrain_recipe(self, epochs: int | None = None) -> Recipe:
        """The recipe of the full training. Raises InputError if the study has no `retrain` section."""
        if self.retrain is None:
            raise InputError(f"study {self.name}: retrain is missing; it needs at least: retrain: {{epochs: N}}")
        return _recipe(self.retrain.recipe, epochs or self.retrain.epochs, "retrain.recipe")

    def load_space(self, in_channels: int | None = None, classes: int | None = None) -> Space:
        return Space.load(self.space, in_channels, classes)

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    def fixed(self) -> dict[str, Any]:
        """What must not change when a study goes on. More trials, other workers or another data root may."""
        data = self.model_dump(mode="json", exclude={"trials", "workers", "retrain", "device", "space", "enqueue"})
        data["data"].pop("root")
        return data


def _recipe(data: dict[str, Any], epochs: int, where: str) -> Recipe:
    if "epochs" in data:
        raise InputError(f"{where}.epochs is not known here: the epochs stand beside the recipe")
    recipe: Recipe = checked(Recipe, {**data, "epochs": epochs}, where, ".")
    return recipe


def _override(data: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    path = key.strip().split(".")
    if not sign or not all(path):
        raise refuse("--set", override, "KEY.PATH=VALUE")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise refuse(f"--set {key}", text, "a YAML value") from None
    for name in path[:-1]:
        inner = data.setdefault(name, {})
        if not isinstance(inner, dict):
            raise refuse(f"--set {key}: {name}", inner, "a mapping, to set a key in it")
        data = inner
    data[path[-1]] = value
