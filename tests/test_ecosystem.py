"""The tools that people have already: timm, the Hub's cards, TensorBoard, MLflow, Optuna's dashboard."""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path

import fakes
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

import nas
from nas.architecture import Architecture, Stage
from nas.card import write_card
from nas.costs import costs
from nas.inputs import InputError
from nas.network import build
from nas.run import Run
from nas.space import Space
from nas.study import Told
from nas.timm_models import TimmNetwork, register
from nas.tracking import TRACKERS, tracking
from nas.tracking.tracker import Tracker

ARCHITECTURE = Space.from_dict(yaml.safe_load(fakes.TOY)).sample(random.Random(0))
RESULT = {
    "test_accuracy": 0.75,
    **costs(ARCHITECTURE),
    "mean": [0.25],
    "std": [0.5],
    "classes": [str(digit) for digit in range(10)],
    "images": {"train": 1437, "test": 360},
    "data": {"source": "cifar10"},
    "recipe": {"epochs": 3, "lr": 0.1},
    "seed": 1,
    "wall_seconds": 12.3,
    "hardware": {"processor": "a processor: with a colon"},
    "versions": {"torch": "2.0"},
}
TOLD = Told(3, "abc", "trained", 0.5, {"params": 1234, "macs": 56789}, 60.0, "")
CUT = Told(5, "def", "cut", 0.25, {"params": 2345, "macs": 67890}, 20.0, "behind 3")


def finish(folder: Path, architecture: Architecture) -> None:
    """As nas retrain leaves it."""
    (folder / "architecture.yaml").write_text(architecture.to_yaml(), encoding="utf-8")
    save_file(build(architecture, seed=1).state_dict(), folder / "weights.safetensors")
    (folder / "result.json").write_text(json.dumps(RESULT), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    finish(tmp_path, ARCHITECTURE)
    return tmp_path


def test_a_card_has_its_head_in_yaml_and_its_numbers(folder: Path) -> None:
    write_card(folder, ARCHITECTURE, RESULT)
    _, head, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    about = yaml.safe_load(head)
    assert about["pipeline_tag"] == "image-classification" and about["datasets"] == ["uoft-cs/cifar10"]
    measured = about["model-index"][0]["results"][0]
    assert measured["metrics"][0]["value"] == 0.75 and measured["dataset"]["split"] == "test"
    assert "by architecture search" not in text, "nas retrain --pick FILE.yaml takes any architecture"
    more = {"training": {"average_flips": True}, "weights": {"source": "/home/me/imagenet.pth", "sha256": "0"}}
    write_card(folder, ARCHITECTURE, RESULT | more)
    told = (folder / "README.md").read_text(encoding="utf-8")
    assert "average_flips: true" in told and ", from the weights imagenet.pth" in told and "/home/me" not in told
    assert "| 0.7500 |" in text and f"{RESULT['params']:,}" in text and ARCHITECTURE.table() in text


def test_a_retrained_network_is_a_model_of_timm(folder: Path) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed (pip install 'mobile-nas[timm]')")
    name = register(folder)
    assert name == f"nas_{ARCHITECTURE.id}" and timm.is_model(name)
    model = timm.create_model(name, pretrained=True).eval()
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(model(x), nas.load(folder)(x))
    assert torch.equal(model.forward_head(model.forward_features(x)), model(x))
    assert model.forward_head(model.forward_features(x), pre_logits=True).shape == (2, model.num_features)
    data = timm.data.resolve_model_data_config(model)
    assert data["input_size"] == (1, 8, 8) and data["mean"] == (0.25,) and data["std"] == (0.5,)
    other = timm.create_model(name, pretrained=True, num_classes=3).eval()
    assert other(x).shape == (2, 3) and torch.equal(other.forward_features(x), model.forward_features(x))
    other.reset_classifier(0)
    assert other(x).shape == (2, model.num_features)
    for pretrained in (True, False):
        bare = timm.create_model(name, pretrained=pretrained, num_classes=0).eval()
        assert bare.num_classes == 0 and bare(x).shape == (2, model.num_features)
        assert torch.equal(bare(x), model.forward_head(model.forward_features(x), pre_logits=True)) == pretrained


def test_a_new_classifier_is_one_of_the_architectures() -> None:
    model = TimmNetwork(ARCHITECTURE).double()
    model.reset_classifier(0)
    model.reset_classifier(5)
    new = model.get_classifier()
    assert isinstance(new, nn.Linear) and new.weight.dtype == torch.float64
    assert new.weight.std().item() == pytest.approx(0.01, rel=0.5) and new.bias.tolist() == [0.0] * 5


def test_a_hidden_layer_stays_when_the_classifier_is_new() -> None:
    stages = (Stage.of("bottleneck", 8, s=2, t=2, se=0.25), Stage.of("classifier", 10, hidden=12))
    model = TimmNetwork(Architecture(stages, 8)).eval()
    x = torch.rand(2, 3, 8, 8)
    hidden = model.forward_head(model.forward_features(x), pre_logits=True)
    assert (model.num_features, model.head_hidden_size, hidden.shape) == (8, 12, (2, 12))
    assert torch.equal(model.get_classifier()(hidden), model(x))
    model.reset_classifier(0)
    assert torch.equal(model(x), hidden)
    model.reset_classifier(5)
    assert model(x).shape == (2, 5) and torch.equal(model.forward_head(model.forward_features(x), True), hidden)


def test_timm_is_told_of_a_network_of_one_resolution(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed (pip install 'mobile-nas[timm]')")
    stages = (Stage.of("conv", 8, k=3), Stage.of("cse", 8, t=2), Stage.of("classifier", 10))
    finish(tmp_path, architecture := Architecture(stages, 8, 1))
    name = register(tmp_path)
    model = timm.create_model(name, pretrained=True).eval()
    assert model.pretrained_cfg["fixed_input_size"]
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(model(x), nas.load(tmp_path)(x))
    with pytest.raises(InputError, match=f"^img_size is 16, but must be 8 as architecture {architecture.id} has it$"):
        timm.create_model(name, img_size=16)


def test_a_folder_without_a_result_is_no_model(folder: Path) -> None:
    pytest.importorskip("timm", reason="timm is not installed (pip install 'mobile-nas[timm]')")
    (folder / "result.json").unlink()
    with pytest.raises(InputError, match=r"is no finished retraining: result\.json: FileNotFoundError"):
        register(folder)


def test_tensorboard_has_every_candidate(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (pip install 'mobile-nas[tensorboard]')")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tracking(["tensorboard"], tmp_path, "toy") as tell:
        tell(TOLD)
        tell(Told(4, "", "impossible", None, {}, 0.0, "why"))
        tell(CUT)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(each.step, each.value) for each in events.Scalars("accuracy/trained")] == [(3, 0.5)]
    assert events.Scalars("cost/params")[0].value == 1234
    names = {"accuracy/trained", "expected_accuracy/cut", "seconds", "cost/params", "cost/macs"}
    assert set(events.Tags()["scalars"]) == names, "no best of what this process alone has seen"


def test_mlflow_has_every_candidate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed (pip install 'mobile-nas[mlflow]')")
    from mlflow.entities import Metric
    from mlflow.exceptions import MlflowException

    made: dict[str, dict[str, float]] = {}

    class Gone:
        def get_experiment_by_name(self, name: str) -> None:
            raise MlflowException("no server\nat all")

    monkeypatch.setattr("mlflow.MlflowClient", Gone)
    with pytest.raises(InputError, match=r"^--track mlflow: no server$"), tracking(["mlflow"], tmp_path, "toy"):
        pass

    class Client:
        def get_experiment_by_name(self, name: str) -> None:
            return None

        def create_experiment(self, name: str) -> str:
            return name

        def create_run(self, experiment: str, tags: dict[str, str], run_name: str) -> object:
            made[run_name] = {}
            return type("R", (), {"info": type("I", (), {"run_id": run_name})})

        def log_batch(self, run: str, metrics: list[Metric]) -> None:
            made[run] = {each.key: each.value for each in metrics}

        def set_terminated(self, run: str, status: str) -> None:
            assert status == "FINISHED"

    monkeypatch.setattr("mlflow.MlflowClient", Client)
    with tracking(["mlflow"], tmp_path, "toy") as tell:
        tell(TOLD)
    assert made == {"abc": {"accuracy": 0.5, "seconds": 60.0, "params": 1234.0, "macs": 56789.0}}
    with tracking(["mlflow"], tmp_path, "toy") as tell:
        tell(CUT)
    assert made["def"] == {"expected_accuracy": 0.25, "seconds": 20.0, "params": 2345.0, "macs": 67890.0}


def test_a_tracker_that_fails_ends_no_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Gone(Tracker):
        def tell(self, told: Told) -> None:
            raise ConnectionError("nobody listens\nin many lines")

        def close(self) -> None:
            raise OSError("no space")

    heard: list[str] = []

    class Hears(Gone):
        def tell(self, told: Told) -> None:
            heard.append(told.id)

        def close(self) -> None:
            heard.append("closed")

    for name, kind in (("gone", Gone), ("hears", Hears)):
        monkeypatch.setitem(TRACKERS, name, lambda folder, study, kind=kind: kind())
    with tracking(["gone", "hears"], tmp_path, "toy") as tell:
        tell(TOLD)
        tell(CUT)
    assert heard == ["abc", "def", "closed"]
    assert [record.getMessage() for record in caplog.records] == [
        "gone misses candidate 3 abc: ConnectionError: nobody listens",
        "gone misses candidate 5 def: ConnectionError: nobody listens",
        "gone was not closed: OSError: no space",
    ]


def test_an_unknown_tracker_is_refused(tmp_path: Path) -> None:
    message = "--track is 'wandb', but must be one of: mlflow, tensorboard"
    with pytest.raises(InputError, match=message), tracking(["wandb"], tmp_path, "toy"):
        pass
    assert set(TRACKERS) == {"tensorboard", "mlflow"}


def test_optunas_dashboard_reads_the_storage_with_names(tmp_path: Path, quiet_optuna: None) -> None:
    pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from optuna_dashboard import wsgi
    file = fakes.write_study(tmp_path, trials=3, budget={"params": 3000})
    run = fakes.search(file, tmp_path / "run", fakes.Tabular(tmp_path / "calls"))
    found = asked(wsgi(Run.open(run.folder).open_storage()), "/api/studies/0")
    assert found["objective_names"] == ["accuracy", "params"]
    trained = [x for x in found["trials"] if "trained" in str([y for y in x["user_attrs"] if y["key"] == "outcome"])]
    assert len(trained) == 3, found["trials"][0]["user_attrs"]
    assert all(len(each["values"]) == 2 for each in trained)
    assert {each["name"] for each in found["union_search_space"]} >= {"stem.c", "stages[0]"}


def asked(application: object, path: str) -> dict:
    from wsgiref.util import setup_testing_defaults

    environment: dict = {"PATH_INFO": path, "QUERY_STRING": "after=0"}
    setup_testing_defaults(environment)
    body = b"".join(application(environment, lambda *head: None))  # type: ignore[operator]
    assert body.startswith(b"{"), body
    return json.loads(body)
