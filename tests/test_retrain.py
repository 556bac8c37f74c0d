"""A real search on handwritten digits, then the full training: resumed to the same bits, its files, its network."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from PIL import Image
from safetensors import safe_open
from torchvision.models import mobilenet_v2

import nas
from nas.architecture import Architecture
from nas.config import StudyConfig
from nas.costs import costs
from nas.data import DataConfig
from nas.data import load as load_data
from nas.files import write_json
from nas.inputs import InputError
from nas.network import Network, build
from nas.retrain import Retrained, load, retrain
from nas.run import Run
from nas.study import Told, search
from nas.training import Epoch, Normalisation, evaluate
from nas.weights import load_weights

RECIPE = {"batch_size": 256, "lr": 0.05}
STUDY: dict[str, Any] = {
    "name": "digits",
    "proxy": {"rungs": [1, 2], "recipe": RECIPE, "confirm": 0},
    "budget": {"params": 1300},
    "trials": 3,
    "retrain": {"epochs": 3, "recipe": {**RECIPE, "ema": 0.9, "crop": 1}},
}


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory, quiet_optuna: None) -> Path:
    """The folder of a finished search; tests copy what they change."""
    folder = tmp_path_factory.mktemp("studied")
    search(fakes.write_study(folder, fakes.SIX, **STUDY), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def done(studied: Path) -> Retrained:
    return retrain(Run.open(studied), "best", device="cpu")


def copy(studied: Path, folder: Path) -> Run:
    """The search alone, without what was retrained."""
    shutil.copytree(studied, folder / "run", ignore=shutil.ignore_patterns("retrain"))
    return Run.open(folder / "run")


# The search


def test_a_real_search_stopped_and_resumed_is_the_same(studied: Path, tmp_path: Path) -> None:
    file = fakes.write_study(tmp_path, fakes.SIX, **STUDY)

    def stop(told: Told) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(file, tmp_path / "run", on_told=stop)
    started: list[int] = []
    run, reason = search(file, tmp_path / "run", on_start=lambda study: started.append(study.config.trials))
    assert (reason, started) == (None, [3])
    table, whole = run.trials(), Run.open(studied).trials()
    timeless = ["number", "id", "outcome", "accuracy", "epochs"]
    pd.testing.assert_frame_equal(table[timeless], whole[timeless])
    assert set(whole["outcome"]) == {"trained"} and set(whole["epochs"]) == {2} and whole["accuracy"].gt(0.1).all()
    curve = json.loads(whole["rungs"][0])[1]["curve"]
    assert [epoch["validation_accuracy"] for epoch in curve][1] == whole["accuracy"][0]
    assert run.config.device is None, "what the search picked is of this machine, and is not in the study"


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = fakes.write_study(tmp_path, fakes.SIX, **STUDY)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("nas.evaluation.train", full)
        with pytest.raises(InputError, match=r"run: cannot go on: \[Errno 28\] No space left .*; nothing is lost"):
            search(file, tmp_path / "run")
    run, reason = search(file, tmp_path / "run")
    assert reason is None and set(run.trials()["outcome"]) == {"trained"}


def test_overrides_and_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, studied: Path) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(studied, tmp_path / "runs" / "digits")
    run, reason = search(fakes.write_study(tmp_path, fakes.SIX, **STUDY), None, ["trials=2"])
    assert run.folder == Path("runs/digits") and reason is None and len(run.trials()) == 3


# What a full training leaves


def test_result(done: Retrained, studied: Path) -> None:
    assert sorted(file.name for file in done.folder.iterdir() if file.name != "train.lock") == [
        "README.md",
        "architecture.yaml",
        "curve.csv",
        "result.json",
        "weights.safetensors",
    ]
    modes = {file.stat().st_mode for file in done.folder.iterdir()}
    assert len(modes) == 1, "who may read one may read all"
    result = json.loads((done.folder / "result.json").read_text())
    assert result == done.result
    architecture = Architecture.load(done.folder / "architecture.yaml")
    assert done.folder.name == f"{architecture.id}-epochs3-seed0" and result["id"] == architecture.id
    best = Run.open(studied).front()["accuracy"].max()
    assert Run.open(studied).trials().set_index("id").loc[architecture.id, "accuracy"] == best
    assert costs(architecture).items() <= result.items()
    splits = load_data(DataConfig(source="digits"))
    assert (result["mean"], result["std"]) == (list(splits.mean), list(splits.std))
    counts = {"train": len(splits.train) + len(splits.validation), "test": len(splits.test)}
    assert result["images"] == {**counts, "height": 8, "width": 8}
    assert result["recipe"]["epochs"] == 3 and result["recipe"]["ema"] == 0.9 and result["seed"] == 0
    assert result["data"]["trained_on"] == "train+validation" and result["data"]["source"] == "digits"
    assert result["data"]["seed"] == 0 and result["classes"] == [str(digit) for digit in range(10)]
    assert torch.__version__.startswith(result["versions"]["torch"]) and result["hardware"]["cores"] >= 1
    curve = pd.read_csv(done.folder / "curve.csv")
    assert list(curve["epoch"]) == [1, 2, 3] and result["wall_seconds"] == round(curve["seconds"].sum(), 1)
    assert 0.1 < result["test_accuracy"] <= 1 and result["test_loss"] > 0
    with safe_open(done.folder / "weights.safetensors", "pt") as weights:
        assert weights.metadata() == {"architecture": architecture.id}


def test_load_gives_the_network_that_was_tested(done: Retrained) -> None:
    network = nas.load(done.folder)
    assert not any(module.training for module in network.modules())
    assert sum(parameter.numel() for parameter in network.parameters()) == done.result["params"]
    test = load_data(DataConfig(source="digits")).test
    mean, std = done.result["mean"][0], done.result["std"][0]
    x = torch.from_numpy(((test.gather().astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        logits = network(x)
        again = load(str(done.folder))(x)
    assert torch.equal(logits, again)
    assert (logits.argmax(1).numpy() == test.labels).mean() == pytest.approx(done.result["test_accuracy"], abs=0)
    accuracy, loss = evaluate(network, test, normalisation=Normalisation((mean,), (std,)), resolution=8)
    assert (accuracy, loss) == (done.result["test_accuracy"], done.result["test_loss"])


def test_a_finished_training_is_not_trained_again(
    done: Retrained, studied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.retrain.train", None)
    (done.folder / "checkpoint.pt").write_bytes(b"a stop between result and this file's removal leaves it")
    again = retrain(Run.open(studied), "best", device="cpu")
    assert (again.folder, again.result) == (done.folder, done.result)
    assert not (done.folder / "checkpoint.pt").exists()


def test_another_seed_or_length_is_another_training(done: Retrained, studied: Path) -> None:
    other = retrain(Run.open(studied), done.result["id"][:6], epochs=1, seed=1, device="cpu")
    assert other.folder.name == f"{done.result['id']}-epochs1-seed1" and other.result["recipe"]["epochs"] == 1
    assert other.result["seed"] == 1 and other.result["test_loss"] != done.result["test_loss"]


class Stopped:
    """Presses Ctrl-C behind an epoch."""

    def __init__(self, behind: int) -> None:
        self.behind = behind

    def __call__(self, epoch: Epoch) -> None:
        if epoch.epoch == self.behind:
            raise KeyboardInterrupt


def test_stopped_and_resumed_it_has_the_same_weights(done: Retrained, studied: Path, tmp_path: Path) -> None:
    run = copy(studied, tmp_path)
    for behind in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            retrain(run, "best", device="cpu", on_epoch=Stopped(behind))
    seen: list[int] = []
    again = retrain(run, "best", device="cpu", on_epoch=lambda epoch: seen.append(epoch.epoch))
    assert seen == [3]
    one, other = load(done.folder).state_dict(), load(again.folder).state_dict()
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    timeless = ("test_accuracy", "test_loss", "recipe", "mean", "id")
    assert [again.result[name] for name in timeless] == [done.result[name] for name in timeless]


def test_stopped_before_the_result_the_test_set_is_read_again_and_nothing_trained(
    done: Retrained, studied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy(studied, tmp_path)

    def stop(path: Path, data: object) -> None:
        if path.name == "result.json":
            raise KeyboardInterrupt
        write_json(path, data)

    with monkeypatch.context() as patch:
        patch.setattr("nas.retrain.write_json", stop)
        with pytest.raises(KeyboardInterrupt):
            retrain(run, "best", device="cpu")
    seen: list[Epoch] = []
    again = retrain(run, "best", device="cpu", on_epoch=seen.append)
    assert not seen and again.result["test_loss"] == done.result["test_loss"]


# Starting from weights


V2 = (Path(__file__).parent.parent / "search_spaces/mobilenet_v2.yaml").read_text(encoding="utf-8")
TINY_V2 = (
    V2.replace("classes: 1000", "classes: 2")
    .replace("[96, 128, 160, 192, 224]", "32")
    .replace("[0.35, 0.5, 0.75, 1.0, 1.3, 1.4]", "0.35")
)


def torchvisions(file: Path, seed: int = 0, **options: Any) -> Path:
    """A file of a randomly initialised MobileNetV2."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.save(mobilenet_v2(**{"width_mult": 0.35, "num_classes": 7} | options).state_dict(), file)
    return file


@pytest.fixture(scope="module")
def v2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run of one published network on colour images of two classes; its search only pretended to train."""
    folder = tmp_path_factory.mktemp("v2")
    pixels = np.random.default_rng(0).integers(0, 255, (18, 20, 20, 3), np.uint8)
    for index, image in enumerate(pixels):
        place = folder / "images" / ("train" if index < 12 else "test") / ("cat", "dog")[index % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{index}.png")
    torchvisions(folder / "v2.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAS_CACHE", str(folder / "cache"))
        file = fakes.write_study(
            folder,
            TINY_V2,
            data={"source": "imagefolder", "root": "images", "validation": 2},
            trials=1,
            device="cpu",
            retrain={"epochs": 2, "weights": "v2.pth", "recipe": {"batch_size": 6, "lr": 1e-5, "ema": 0.9}},
        )
        run = fakes.search(file, folder / "run", fakes.Tabular(folder / "calls"))
        yield run


@pytest.fixture(scope="module")
def started(v2: Run) -> Retrained:
    return retrain(v2)


def test_a_retraining_from_torchvisions_weights(v2: Run, started: Retrained) -> None:
    """With two classes instead of seven, at 32 pixels."""
    source = v2.folder.parent / "v2.pth"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    new = ["layers.19.layers.3.weight", "layers.19.layers.3.bias"]
    assert started.folder.name == f"{started.result['id']}-epochs2-seed0-from-v2"
    assert started.result["weights"] == {"source": str(source), "sha256": digest, "new": new}
    network = load(started.folder)
    assert (network.architecture.classes, network.architecture.resolution) == (2, 32)
    begun = build(network.architecture, 0)
    load_weights(begun, source)
    drawn, trained = build(network.architecture, 0).state_dict(), network.state_dict()
    for name, value in begun.state_dict().items():
        if value.ndim == 4:
            assert 0 < (trained[name] - value).norm() < 0.1 * value.norm() < (trained[name] - drawn[name]).norm(), name


def test_it_is_trained_from_the_body_of_the_file_and_the_classifier_of_the_seed(
    v2: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Network] = []

    def stop(network: Network, *_: object, **__: object) -> None:
        seen.append(network)
        raise KeyboardInterrupt

    monkeypatch.setattr("nas.retrain.train", stop)
    shutil.copytree(v2.folder, tmp_path / "run", ignore=shutil.ignore_patterns("retrain"))
    with pytest.raises(KeyboardInterrupt):
        retrain(Run.open(tmp_path / "run"), seed=3)
    expected = build(seen[0].architecture, 3)
    load_weights(expected, v2.folder.parent / "v2.pth")
    for name, value in expected.state_dict().items():
        assert torch.equal(seen[0].state_dict()[name], value)


def test_from_weights_stopped_and_resumed_it_has_the_same_weights(v2: Run, started: Retrained, tmp_path: Path) -> None:
    shutil.copytree(v2.folder, tmp_path / "run", ignore=shutil.ignore_patterns("retrain"))
    run = Run.open(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        retrain(run, on_epoch=Stopped(1))
    seen: list[int] = []
    again = retrain(run, on_epoch=lambda epoch: seen.append(epoch.epoch))
    assert seen == [2] and again.folder.name == started.folder.name
    one, other = load(started.folder).state_dict(), load(again.folder).state_dict()
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert again.result["test_loss"] == started.result["test_loss"]


@pytest.mark.parametrize("finished", [True, False])
def test_other_weights_are_refused(v2: Run, started: Retrained, tmp_path: Path, finished: bool) -> None:
    """Of the same name, so of the same folder."""
    shutil.copytree(v2.folder, tmp_path / "run", ignore=None if finished else shutil.ignore_patterns("retrain"))
    run = Run.open(tmp_path / "run")
    if not finished:
        with pytest.raises(KeyboardInterrupt):
            retrain(run, on_epoch=Stopped(1))
    other = torchvisions(tmp_path / "v2.pth", seed=1)
    before = {path: path.read_bytes() for path in (run.folder / "retrain").rglob("*") if path.is_file()}
    with pytest.raises(
        InputError, match=r"from-v2: was begun with weights of SHA-256 \w{64}, not with weights of S"
    ) as e:
        retrain(run, weights=other)
    assert "\n" not in str(e.value) and started.result["weights"]["sha256"] in str(e.value)
    assert before == {path: path.read_bytes() for path in (run.folder / "retrain").rglob("*") if path.is_file()}
    moved = shutil.copy(v2.folder.parent / "v2.pth", tmp_path / "v2.pth")
    assert retrain(run, weights=moved).result["test_loss"] == started.result["test_loss"], "the same, elsewhere"


def test_a_damaged_start_is_one_line(v2: Run, started: Retrained, tmp_path: Path) -> None:
    shutil.copytree(v2.folder, tmp_path / "run")
    for content in ("", "[]", "{}"):
        (tmp_path / "run/retrain" / started.folder.name / "start.json").write_text(content)
        with pytest.raises(InputError, match=r"start\.json: is damaged; move the folder away or"):
            retrain(Run.open(tmp_path / "run"))


def test_weights_that_do_not_fit_leave_no_folder(v2: Run, tmp_path: Path) -> None:
    shutil.copytree(v2.folder, tmp_path / "run", ignore=shutil.ignore_patterns("retrain"))
    wide = torchvisions(tmp_path / "wide.pth", width_mult=0.5)
    with pytest.raises(InputError, match=r"wide\.pth: features\.\S+ has shape \[\d+, \d+, 1, 1\], but must be the we"):
        retrain(Run.open(tmp_path / "run"), weights=wide)
    assert not (tmp_path / "run/retrain").exists()


def test_from_another_retraining(done: Retrained, studied: Path, tmp_path: Path) -> None:
    run = copy(studied, tmp_path)
    again = retrain(run, "best", epochs=1, weights=done.folder, device="cpu")
    assert again.folder.name == f"{done.result['id']}-epochs1-seed0-from-{done.folder.name}"
    assert again.result["weights"]["source"] == str(done.folder) and again.result["weights"]["new"] == []
    scratch = retrain(run, "best", epochs=1, device="cpu")
    assert scratch.folder != again.folder and scratch.result["weights"] is None
    assert again.result["test_loss"] < done.result["test_loss"] < scratch.result["test_loss"]


# With a teacher


def test_a_teacher_makes_a_network_more_like_it(done: Retrained, studied: Path, tmp_path: Path) -> None:
    """Of two trainings alike but for the teacher, the taught one's probabilities are nearer to its."""
    run = copy(studied, tmp_path)

    def by(*folders: Path, **options: Any) -> Run:
        return Run.open(run.folder, {"retrain.teacher": {"folder": [*map(str, folders)], **options}})

    pupil = next(other for other in run.trials()["id"] if other != done.result["id"])
    alone = retrain(run, pupil, device="cpu")
    taught = retrain(by(done.folder), pupil, device="cpu")
    assert taught.folder.name == f"{alone.folder.name}-by-{done.folder.name}"
    assert alone.result["training"]["teacher"] is None and alone.result["teachers"] == []
    weights = (done.folder / "weights.safetensors").read_bytes()
    sha256 = hashlib.sha256(weights).hexdigest()
    about = {"share": 0.9, "temperature": 4.0, "average_flips": False, "sha256": [sha256]}
    assert taught.result["training"]["teacher"] == about
    assert taught.result["teachers"] == [str(done.folder)]
    assert f"taught by {done.folder.name}" in (taught.folder / "README.md").read_text()
    test = load_data(DataConfig(source="digits")).test
    mean, std = done.result["mean"][0], done.result["std"][0]
    x = torch.from_numpy(((test.gather().astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        its, mine, other = (load(x_.folder)(x).log_softmax(1) for x_ in (done, taught, alone))
    far = [torch.nn.functional.kl_div(x_, its, reduction="batchmean", log_target=True) for x_ in (mine, other)]
    assert far[0] < far[1]
    again = retrain(by(done.folder), pupil, device="cpu")
    assert again.result == taught.result
    two = retrain(by(done.folder, alone.folder, average_flips=True), pupil, device="cpu")
    assert two.folder.name == f"{taught.folder.name}-by-{alone.folder.name}"
    assert len(set(two.result["training"]["teacher"]["sha256"])) == 2
    assert f"taught by {done.folder.name} and {alone.folder.name}" in (two.folder / "README.md").read_text()
    many = retrain(by(*[shutil.copytree(done.folder, tmp_path / ("t" * 60))] * 4), pupil, epochs=1, device="cpu")
    assert many.folder.is_dir() and len(many.folder.name) == 200


def test_the_teacher_of_the_section_counts_from_the_study(done: Retrained, studied: Path, tmp_path: Path) -> None:
    for folder, expected in (("large", ["large"]), (["large", "a/b"], ["large", "a/b"])):
        section = STUDY["retrain"] | {"teacher": {"folder": folder, "share": 0.5}}
        file = fakes.write_study(tmp_path, fakes.SIX, **{**STUDY, "retrain": section})
        config = StudyConfig.load(file).retrain
        assert config and config.teacher and config.teacher.share == 0.5
        assert config.teacher.folder == [str(tmp_path / x) for x in expected]


def test_a_teacher_that_cannot_teach_is_refused(done: Retrained, studied: Path, tmp_path: Path) -> None:
    run, folder = copy(studied, tmp_path), shutil.copytree(done.folder, tmp_path / "large")
    taught = Run.open(run.folder, {"retrain.teacher.folder": str(folder)})
    with pytest.raises(InputError, match=r"nowhere/weights.safetensors: cannot be read: No such file"):
        retrain(Run.open(run.folder, {"retrain.teacher.folder": "nowhere"}), "best", device="cpu")
    result = json.loads((folder / "result.json").read_text())
    write_json(folder / "result.json", {**result, "classes": ["cat", "dog"]})
    with pytest.raises(InputError, match=r"large: classes is \['cat', 'dog'\], but must be \['0', .* of digits$"):
        retrain(taught, "best", device="cpu")
    write_json(folder / "result.json", {**result, "mean": [0.5] * 3, "std": [0.5] * 3})
    with pytest.raises(InputError, match=r"large: channels is 3, but must be 1 as the images of digits have$"):
        retrain(taught, "best", device="cpu")
    write_json(folder / "result.json", {**result, "mean": "ab"})
    with pytest.raises(InputError, match=r"large/result.json is damaged \(ValueError"):
        retrain(taught, "best", device="cpu")
    (folder / "result.json").write_text("{}")
    with pytest.raises(InputError, match=r"large/result.json is damaged \(KeyError: 'classes'\)"):
        retrain(taught, "best", device="cpu")
    (folder / "result.json").unlink()
    with pytest.raises(InputError, match=r"large/result.json: cannot be read: "):
        retrain(taught, "best", device="cpu")


# What is refused


def test_another_recipe_is_refused(done: Retrained, studied: Path, tmp_path: Path) -> None:
    shutil.copytree(studied, tmp_path / "run")
    config = Run.open(studied).config
    for section, says in (
        ({"epochs": 3, "recipe": {**RECIPE, "ema": 0.9, "crop": 1, "lr": 0.2}}, "recipe.lr 0.05, which is 0.2"),
        ({**STUDY["retrain"], "data": "train"}, 'data.trained_on "train+validation", which is "train"'),
    ):
        changed = StudyConfig.of(config.model_dump(mode="json") | {"retrain": section}, "study")
        (tmp_path / "run" / "study.yaml").write_text(changed.to_yaml())
        with pytest.raises(InputError, match=rf"was trained with {re.escape(says)} now; move"):
            retrain(Run.open(tmp_path / "run"), "best", device="cpu")


def test_overrides_stand_in_place_of_the_section_and_are_not_written_down(studied: Path, tmp_path: Path) -> None:
    run = copy(studied, tmp_path)
    before = run.study_file.read_bytes()
    result = retrain(Run.open(run.folder, ["retrain.epochs=1", "retrain.recipe.lr=0.01"]), "best", device="cpu").result
    assert (result["recipe"]["epochs"], result["recipe"]["lr"], result["recipe"]["ema"]) == (1, 0.01, 0.9)
    assert run.study_file.read_bytes() == before


def test_a_name_keeps_trainings_of_one_network_apart(done: Retrained, studied: Path, tmp_path: Path) -> None:
    run = copy(studied, tmp_path)
    changed = Run.open(run.folder, ["retrain.recipe.lr=0.01"])
    slow = retrain(changed, "best", epochs=1, name="slow", device="cpu")
    assert slow.folder.name == f"{done.result['id']}-slow" and slow.result["recipe"]["lr"] == 0.01
    assert retrain(changed, "best", epochs=1, name="slow", device="cpu").result == slow.result
    again = "move the folder away or choose another --name to train again"
    for what, says in (
        ({"epochs": 2}, "was trained with recipe.epochs 1, which is 2 now"),
        ({"epochs": 1, "seed": 1}, "was trained with seed 0, which is 1 now"),
        ({"epochs": 1, "weights": done.folder}, "was begun with weights that its seed draws, not with weights of SHA-"),
    ):
        with pytest.raises(InputError, match=f"{says}.*{again}$"):
            retrain(changed, "best", name="slow", device="cpu", **what)  # type: ignore[arg-type]
    for name in ("..", "a/b", ""):
        with pytest.raises(InputError, match=f"name is {re.escape(repr(name))}, but must be the name of a folder: at"):
            retrain(changed, "best", epochs=1, name=name, device="cpu")


@pytest.mark.parametrize("first", ["drawn", "loaded"])
def test_a_training_begun_from_other_weights_is_not_gone_on_with(
    done: Retrained, studied: Path, tmp_path: Path, first: str
) -> None:
    ways = {"drawn": {}, "loaded": {"weights": done.folder}}
    run = copy(studied, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        retrain(run, "best", name="x", device="cpu", on_epoch=Stopped(1), **ways.pop(first))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"-x: was begun with weights .*, not with weights "):
        retrain(run, "best", name="x", device="cpu", **ways.popitem()[1])  # type: ignore[arg-type]


def test_one_training_at_a_time(done: Retrained, studied: Path) -> None:
    with FileLock(done.folder / "train.lock"), pytest.raises(InputError, match="is being trained by another process"):
        retrain(Run.open(studied), "best", device="cpu")


def test_a_study_without_a_retrain_section_is_refused(studied: Path, tmp_path: Path) -> None:
    run = copy(studied, tmp_path)
    run.study_file.write_text(run.config.model_copy(update={"retrain": None}).to_yaml())
    with pytest.raises(InputError, match="retrain is missing"):
        retrain(Run.open(run.folder), "best")
    assert not (run.folder / "retrain").exists()


def test_divergence_is_one_line(studied: Path, tmp_path: Path) -> None:
    run = copy(studied, tmp_path)
    section = {"epochs": 1, "recipe": {"lr": 1e30}}
    wild = StudyConfig.of(run.config.model_dump(mode="json") | {"retrain": section}, "study")
    run.study_file.write_text(wild.to_yaml())
    with pytest.raises(InputError, match=r"epochs1-seed0: the loss, in epoch 1 .* is not finite"):
        retrain(Run.open(run.folder), "best", device="cpu")


def truncated(folder: Path) -> None:
    file = folder / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def foreign(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(b"\x80\x02" + bytes(100))


def empty(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(b"")


def missing(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()


def of_another(folder: Path) -> None:
    file = folder / "architecture.yaml"
    file.write_text(file.read_text().replace("c: 10", "c: 11"))


def no_architecture(folder: Path) -> None:
    (folder / "architecture.yaml").unlink()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (truncated, r"weights\.safetensors: is damaged or no safetensors file: "),
        (foreign, r"weights\.safetensors: is damaged or no safetensors file: "),
        (empty, r"weights\.safetensors: is damaged or no safetensors file: "),
        (missing, r"weights\.safetensors: cannot be read: No such file or directory$"),
        (of_another, r"weights\.safetensors: does not fit architecture\.yaml: .*size mismatch"),
        (no_architecture, r"architecture\.yaml: cannot be read: No such file or directory"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_damaged_files_are_one_line(done: Retrained, tmp_path: Path, damage: Callable[[Path], None], says: str) -> None:
    folder = tmp_path / "trained"
    shutil.copytree(done.folder, folder)
    damage(folder)
    with pytest.raises(InputError, match=says) as error:
        load(folder)
    assert "\n" not in str(error.value)


def test_a_result_of_an_earlier_version_is_finished(done: Retrained, studied: Path, tmp_path: Path) -> None:
    shutil.copytree(studied, tmp_path / "run")
    file = tmp_path / "run" / "retrain" / done.folder.name / "result.json"
    result = json.loads(file.read_text())
    del result["training"]
    file.write_text(json.dumps(result))
    assert retrain(Run.open(tmp_path / "run"), "best", device="cpu").result["test_accuracy"] == result["test_accuracy"]


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"data": 3, "recipe": {}}', '{"test_accuracy'])
def test_a_damaged_result_is_one_line(done: Retrained, studied: Path, tmp_path: Path, content: str) -> None:
    shutil.copytree(studied, tmp_path / "run")
    result = tmp_path / "run" / "retrain" / done.folder.name / "result.json"
    result.write_text(content)
    with pytest.raises(InputError, match=r"result\.json: is damaged; delete it to train again"):
        retrain(Run.open(tmp_path / "run"), "best", device="cpu")
