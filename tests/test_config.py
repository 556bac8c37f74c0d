"""Study files: what is read, what is refused, what may change when a study goes on."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from nas.config import StudyConfig, as_lines, check_device, overridden
from nas.evaluation import Rung
from nas.inputs import InputError, read_yaml
from nas.run import Run
from nas.space import Space
from nas.storages import open_database

ROOT = Path(__file__).parent.parent
STUDIES = sorted([*(ROOT / "studies").glob("*.yaml"), *(ROOT / "studies" / "ablations").glob("*.yaml")])
SPACES = sorted((ROOT / "search_spaces").rglob("*.yaml"))

STUDY: dict[str, Any] = {
    "name": "made",
    "space": "space.yaml",
    "data": {"source": "digits"},
    "proxy": {"rungs": [1, 3], "recipe": {"lr": 0.05}},
    "trials": 3,
}


def of(**values: Any) -> StudyConfig:
    return StudyConfig.of(STUDY | values, "f")


def written(folder: Path, data: dict[str, Any] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(yaml.safe_dump(data or STUDY))
    return folder / "study.yaml"


# The files of this repository


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_every_space_loads(path: Path) -> None:
    space = Space.load(path)
    assert space.size >= 1
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_loads_with_its_space(path: Path) -> None:
    config = StudyConfig.load(path)
    assert config.name == path.stem
    assert config.load_space().size >= 1
    assert path.read_text().startswith("# Question: ")


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_run_keeps_the_study_it_was_given(path: Path, tmp_path: Path) -> None:
    config = StudyConfig.load(path)
    Run.create(tmp_path / "run", config)
    kept = Run.open(tmp_path / "run").config
    assert kept == config
    assert kept.fixed() == config.fixed()
    assert kept.to_yaml() == config.to_yaml()


# Reading


def test_what_is_left_out() -> None:
    config = of()
    assert config.objectives == ["accuracy", "params"] and config.budget == {}
    assert (config.sampler.name, config.sampler.seed, config.sampler.options) == ("surrogate", 0, {})
    assert config.retrain is None and config.workers == 1 and config.device is None


@pytest.mark.parametrize(
    ("rungs", "ladder"),
    [
        ([8], (Rung(8),)),
        ([1, 3, 9], (Rung(1), Rung(3), Rung(9))),
        ([{"epochs": 2, "share": 0.2}], (Rung(2, 0.2),)),
        ([{"epochs": 1}, 3], (Rung(1), Rung(3))),
        ([{"epochs": 1, "share": 0.5, "resolution": 0.75}, 3], (Rung(1, 0.5, 0.75), Rung(3))),
    ],
)
def test_rungs(rungs: list[object], ladder: tuple[Rung, ...]) -> None:
    config = of(proxy={"rungs": rungs})
    assert config.proxy.ladder() == ladder
    assert config.proxy_recipe().epochs == ladder[-1].epochs
    assert StudyConfig.of(yaml.safe_load(config.to_yaml()), "f") == config


def test_the_budget_is_in_plain_numbers() -> None:
    assert of(budget={"params": "0.363M", "macs": 2e7, "flops": "1e3"}).budget == {
        "params": 363_000.0,
        "macs": 2e7,
        "flops": 1000.0,
    }


def test_the_recipe_of_the_retraining() -> None:
    config = of(retrain={"epochs": 9, "recipe": {"lr": 0.3, "warmup_epochs": 2}})
    assert (config.retrain_recipe().epochs, config.retrain_recipe(4).epochs) == (9, 4)
    assert config.retrain_recipe().lr == 0.3
    with pytest.raises(InputError, match=r"^study made: retrain\.recipe\.warmup_epochs is 2, but must be less"):
        config.retrain_recipe(2)
    with pytest.raises(InputError, match=r"^study made: retrain is missing; add retrain: \{epochs: N\} to the study"):
        of().retrain_recipe()


@pytest.mark.parametrize(
    ("recipe", "line"),
    [
        ({"colour": 1}, "colour is not known; the keys here are: like, batch_size, channels_last, clip_norm, crop,"),
        ({"epochs": 3}, "epochs is not known; it stands beside the recipe"),
        ({"warmup_epochs": 3}, "warmup_epochs is 3, but must be less than the 3 epochs"),
    ],
)
def test_recipes_are_checked(recipe: dict[Any, Any], line: str) -> None:
    for section in ({"proxy": {"rungs": [3], "recipe": recipe}}, {"retrain": {"epochs": 3, "recipe": recipe}}):
        with pytest.raises(InputError) as error:
            of(**section)
        assert str(error.value).startswith(f"f: {next(iter(section))}.recipe.{line}")


# Overrides and paths


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("trials=9", "trials", 9),
        ("sampler.seed=3", "sampler.seed", 3),
        ("budget.params=30k", "budget.params", 30_000.0),
        ("budget={params: 30k}", "budget.params", 30_000.0),
        ("retrain.epochs=2", "retrain.epochs", 2),
        ("proxy.recipe.lr=0.5", "proxy.recipe.lr", 0.5),
        ("objectives=[accuracy, macs]", "objectives", ["accuracy", "macs"]),
        ("retrain=", "retrain", None),
        ("name=2024-01-01", "name", "2024-01-01"),
        ("data.root=/a=b", "data.root", "/a=b"),
    ],
)
def test_an_override(override: str, path: str, value: object, tmp_path: Path) -> None:
    study = written(tmp_path)
    found: Any = StudyConfig.load(study, [override])
    for part in path.split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    assert found == value


def test_an_override_changes_one_place_also_where_the_file_has_an_alias(tmp_path: Path) -> None:
    data = {**STUDY, "retrain": {"epochs": 2}}
    data["proxy"] = {"rungs": [1], "recipe": {"lr": 0.1}}
    data["retrain"]["recipe"] = data["proxy"]["recipe"]
    study = written(tmp_path, data)
    assert "&id" in study.read_text()
    config = StudyConfig.load(study, ["retrain.recipe.lr=0.03"])
    assert (config.proxy_recipe().lr, config.retrain_recipe().lr) == (0.1, 0.03)


def test_an_override_makes_the_section_that_it_is_of(tmp_path: Path) -> None:
    config = StudyConfig.load(written(tmp_path, {**STUDY, "retrain": None}), ["retrain.epochs=2"])
    assert config.retrain_recipe().epochs == 2


def test_the_last_override_counts(tmp_path: Path) -> None:
    assert StudyConfig.load(written(tmp_path), ["trials=4", "trials=5"]).trials == 5


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("trials", "--set is 'trials', but must be KEY.PATH=VALUE"),
        ("=1", "--set is '=1', but must be KEY.PATH=VALUE"),
        ("a..b=1", "--set is 'a..b=1', but must be KEY.PATH=VALUE"),
        ("name.x=1", "--set name.x=1: name is 'made', but must be a mapping, to set a key in it"),
        ("proxy.rungs.0=1", "--set proxy.rungs.0=1: rungs is [1, 3], but must be a mapping, to set a key in it"),
        ("trials={a: 1, a: 2}", "--set trials={a: 1, a: 2}, line 1: is not valid YAML: key 'a' is repeated"),
    ],
)
def test_what_is_no_override(override: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        StudyConfig.load(written(tmp_path), [override])
    assert str(error.value) == line


def test_paths_count_from_the_file_and_overrides_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"source": "imagefolder", "root": "images"}
    study = written(tmp_path / "studies", STUDY | {"data": data, "space": "../s.yaml", "enqueue": ["a.yaml"]})
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    config = StudyConfig.load("../studies/study.yaml")
    assert Path(config.space).resolve() == tmp_path / "s.yaml"
    assert [Path(path).resolve() for path in config.enqueue] == [tmp_path / "studies/a.yaml"]
    assert config.data.root is not None and Path(config.data.root).resolve() == tmp_path / "studies/images"
    assert all(Path(path).is_absolute() for path in (config.space, *config.enqueue, config.data.root))
    assert StudyConfig.load(study, ["data.root=x"]).data.root == str(tmp_path / "here/x")
    monkeypatch.setenv("HOME", "/home/me")
    assert StudyConfig.load(study, ["data.root=~/x"]).data.root == "/home/me/x"
    home = written(tmp_path / "other", STUDY | {"data": data | {"root": "~/y"}})
    assert StudyConfig.load(home).data.root == "/home/me/y"


@pytest.mark.parametrize(
    ("weights", "path"),
    [
        (None, None),
        ("imagenet", "imagenet"),
        ("../w/v2.pth", "FOLDER/studies/../w/v2.pth"),
        ("./imagenet", "FOLDER/studies/imagenet"),
        ("/w/v2.pth", "/w/v2.pth"),
        ("~/v2.pth", "/home/me/v2.pth"),
    ],
)
def test_where_the_weights_are(
    weights: str | None, path: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They count from the file, also among the overrides, and a run keeps where they are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    expected = path and path.replace("FOLDER", str(tmp_path))
    study = written(tmp_path / "studies", STUDY | {"retrain": {"epochs": 3, "weights": weights}})
    config = StudyConfig.load(study.relative_to(tmp_path))
    assert config.retrain is not None and config.retrain.weights == expected
    assert StudyConfig.of(yaml.safe_load(config.to_yaml()), "f") == config
    study = written(tmp_path / "studies", STUDY | {"retrain": {"epochs": 3}})
    assert StudyConfig.load(study, [f"retrain.weights={weights or 'null'}"]).retrain == config.retrain


# Going on


@pytest.mark.parametrize(
    "change",
    [
        {"trials": 9},
        {"workers": 2},
        {"device": "cpu"},
        {"space": "elsewhere.yaml"},
        {"enqueue": ["a.yaml"]},
        {"retrain": {"epochs": 3}},
        {"retrain": {"epochs": 3, "weights": "imagenet"}},
        {"data": {"source": "digits", "root": "/elsewhere", "download": True}},
        {"data": {"source": "digits", "validation": 0.1}},
        {"proxy": {"rungs": [{"epochs": 1}, {"epochs": 3, "share": 1.0}], "recipe": {"lr": 0.05, "momentum": 0.9}}},
        {"proxy": {"rungs": [1, 3], "recipe": {"lr": 0.05}, "confirm": 5}},
        {"objectives": ["accuracy", "params"]},
    ],
    ids=lambda change: str(change)[:50],
)
def test_what_may_change(change: dict[str, Any]) -> None:
    assert of(**change).fixed() == of().fixed()


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"name": "other"}, "name"),
        ({"objectives": ["accuracy", "macs"]}, "objectives"),
        ({"budget": {"params": "30k"}}, "budget"),
        ({"sampler": {"seed": 1}}, "sampler"),
        ({"sampler": {"startup": 3}}, "sampler"),
        ({"data": {"source": "digits", "seed": 1}}, "data.seed"),
        ({"data": {"source": "cifar10"}}, "data.source"),
        ({"proxy": {"rungs": [1, 4], "recipe": {"lr": 0.05}}}, "proxy.rungs"),
        ({"proxy": {"rungs": [1, 3], "recipe": {"lr": 0.06}}}, "proxy.recipe.lr"),
        ({"proxy": {"rungs": [1, 3], "recipe": {"lr": 0.05}, "seeds": 3}}, "proxy.seeds"),
        ({"proxy": {"rungs": [1, 3], "recipe": {"lr": 0.05}, "keep": 1}}, "proxy.keep"),
        ({"proxy": {"rungs": [1, 3], "recipe": {"lr": 0.05}, "audit": 0.5}}, "proxy.audit"),
        ({"proxy": {"rungs": [1, 3], "recipe": {"lr": 0.05, "flip": True}}}, "proxy.recipe.flip"),
    ],
    ids=lambda change: str(change)[:50],
)
def test_what_may_not_change(change: dict[str, Any], key: str) -> None:
    before, after = of().fixed(), of(**change).fixed()
    assert before.keys() == after.keys()
    assert [name for name in before if before[name] != after[name]] == [key]


def test_a_run_goes_on_with_what_may_change_and_refuses_the_rest(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text((ROOT / "search_spaces/mobile_tiny.yaml").read_text())
    study = written(tmp_path)
    Run.create(tmp_path / "run", StudyConfig.load(study))
    more = StudyConfig.load(study, ["trials=9", "workers=2", "retrain.epochs=3", "data.root=/x"])
    Run.create(tmp_path / "run", more)
    assert Run.open(tmp_path / "run").config == more
    before = (tmp_path / "run/study.yaml").read_bytes()
    other = StudyConfig.load(study, ["proxy.recipe.lr=0.5"])
    with pytest.raises(InputError, match=r"begun with another study: proxy\.recipe\.lr is 0\.05 there and 0\.5 now"):
        Run.create(tmp_path / "run", other)
    assert (tmp_path / "run/study.yaml").read_bytes() == before


def test_a_study_survives_its_own_yaml() -> None:
    everything = {
        "objectives": ["accuracy", "macs", "params"],
        "budget": {"params": "0.363M", "macs": 2e7},
        "sampler": {"name": "nsga2", "seed": 3, "population": 8},
        "data": {"source": "imagefolder", "root": "/fotos/날씨 \U0001f600", "size": 32, "corrupt": "skip"},
        "retrain": {"epochs": 3, "data": "train", "weights": "/w", "recipe": {"lr": 1e-3, "optimiser": "adamw"}},
        "enqueue": ["/a.yaml"],
        "storage": "sqlite:///x.db",
        "device": "cuda:1",
        "workers": 2,
    }
    config = of(**copy.deepcopy(everything))
    again = StudyConfig.of(yaml.safe_load(config.to_yaml()), "f")
    assert again == config and again.fixed() == config.fixed()
    assert "날씨" in config.to_yaml()


# This machine


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    check_device("cpu", "here")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name in ("cuda", "cuda:0", "cuda:1"):
        check_device(name, "here")
    for name in ("cuda:2", "gpu", "", "mps", "CPU"):
        with pytest.raises(InputError) as error:
            check_device(name, "here")
        rule = "a device of this machine, one of: cpu, cuda, cuda:0, cuda:1"
        assert str(error.value) == f"here is {name!r}, but must be {rule}"


def test_a_study_of_another_machine_can_be_looked_at_but_not_searched(tmp_path: Path) -> None:
    study = written(tmp_path, STUDY | {"device": "cuda:9"})
    assert StudyConfig.of(read_yaml(study), "f").device == "cuda:9"
    with pytest.raises(InputError, match="device is 'cuda:9', but must be a device of this machine"):
        StudyConfig.load(study)


def test_an_sqlite_file_counts_from_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = written(tmp_path / "studies", STUDY | {"storage": "sqlite:///all.db"})
    expected = f"sqlite:///{tmp_path}/studies/all.db"
    for folder in (tmp_path, tmp_path / "studies"):
        monkeypatch.chdir(folder)
        assert StudyConfig.load(study).storage == expected
    assert StudyConfig.load(study, ["storage=sqlite:///../x.db"]).storage == f"sqlite:///{tmp_path}/studies/../x.db"
    for url in ("sqlite://", "sqlite:///:memory:"):
        with pytest.raises(InputError, match=r"storage is 'sqlite:.*', but must be a file, such as"):
            StudyConfig.load(study, [f"storage='{url}'"])


def test_storages(tmp_path: Path) -> None:
    open_database(f"sqlite:///{tmp_path}/x.db", "here")
    for url in ("", "nonsense", f"sqlite:///{tmp_path}/nowhere/x.db", "mysql://", "gone://x"):
        with pytest.raises(InputError) as error:
            open_database(url, "here")
        assert str(error.value).startswith(f"here is {url!r}"[:70]) and len(str(error.value).splitlines()) == 1


def test_overrides_are_lines_or_a_mapping() -> None:
    assert as_lines({"trials": 2, "sampler.name": "tpe"}) == ("trials=2", 'sampler.name="tpe"')
    assert as_lines("trials=2") == as_lines(["trials=2"]) == ("trials=2",)
    data = {"trials": 8, "sampler": {"name": "random"}}
    assert overridden(data, {"trials": 2, "sampler.name": "tpe"}) == {"trials": 2, "sampler": {"name": "tpe"}}


def test_a_space_is_no_study() -> None:
    with pytest.raises(InputError, match=r"tiny\.yaml: is a space, not a study; a study names it as its `space`$"):
        StudyConfig.load(ROOT / "search_spaces" / "mobile_tiny.yaml")
