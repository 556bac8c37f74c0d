"""What a recipe may ask for: mixing, trivial augment, stochastic depth, published recipes; and several processes."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import fakes
import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn
from torchvision.transforms.v2 import TrivialAugmentWide

from nas import trivial
from nas.architecture import Architecture
from nas.augment import Augmentation, Batches, Normalisation
from nas.blocks import make
from nas.config import StudyConfig
from nas.data.splits import Images
from nas.inputs import InputError
from nas.network import build
from nas.retrain import retrain
from nas.run import Run
from nas.space import Space
from nas.study import search
from nas.training import PUBLISHED, Epoch, Group, Recipe, as_many_threads, evaluate, pick_threads, train
from nas.training.mixing import mixing

SPACES = Path(__file__).parent.parent / "search_spaces"
GREY = Normalisation((0.4,), (0.3,))
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def noise(n: int = 22, size: int = 8, channels: int = 1) -> Images:
    rng = np.random.default_rng(0)
    return Images(rng.integers(0, 256, (n, size, size, channels), np.uint8), rng.integers(0, 3, n))


# --- mixing


@pytest.mark.parametrize("options", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_mixed_targets_say_what_is_in_the_images(options: dict[str, float]) -> None:
    """An image that is all its label's number: the mean of the mixed one is that of its targets."""
    mixed, seen = mixing(Recipe(epochs=1, **options), lambda: 5), []  # type: ignore[arg-type]
    for _ in range(20):
        labels = torch.randint(5, (6,))
        images = labels.float()[:, None, None, None].expand(6, 1, 16, 16).clone()
        x, targets = mixed(images, labels)
        assert targets.shape == (6, 5)
        torch.testing.assert_close(targets.sum(1), torch.ones(6))
        torch.testing.assert_close(x.mean((1, 2, 3)), targets @ torch.arange(5.0))
        seen.append(targets.max(1).values.mean().item() < 0.99)
    assert any(seen), "or nothing is ever mixed"


def test_without_mixing_nothing_is_asked() -> None:
    def never() -> int:
        raise AssertionError

    images, labels = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
    assert mixing(Recipe(epochs=1), never)(images, labels) == (images, labels)


def with_shortcut() -> Architecture:
    draw, space = random.Random(0), Space.load(SPACES / "mobile_tiny.yaml", 1, 3)
    while True:
        architecture = space.sample(draw)
        for layer in architecture.layers[2:]:
            if layer.block in BESIDE and layer.stride == 1 and layer.in_channels == layer.out_channels:
                return architecture


def test_all_that_is_random_is_resumed_to_the_bit(tmp_path: Path) -> None:
    architecture = with_shortcut()
    recipe = Recipe(
        epochs=3, batch_size=8, lr=0.05, trivial_augment=True, mixup=0.3, cutmix=0.5, stochastic_depth=0.5, flip=True
    )

    def fit(until: int | None, checkpoint: Path, options: Recipe = recipe) -> tuple[list[Epoch], Tensor]:
        network = build(architecture, seed=0)
        curve = train(
            network,
            noise(size=architecture.resolution),
            None,
            options,
            normalisation=GREY,
            resolution=architecture.resolution,
            checkpoint=checkpoint,
            until=until,
        )
        return curve, next(network.parameters()).detach()

    _, straight = fit(None, tmp_path / "a.pt")
    fit(1, tmp_path / "b.pt")
    torch.manual_seed(123)
    curve, resumed = fit(None, tmp_path / "b.pt")
    assert torch.equal(straight, resumed) and len(curve) == 3
    for name, off in {"trivial_augment": False, "mixup": 0.0, "cutmix": 0.0, "stochastic_depth": 0.0}.items():
        _, other = fit(None, tmp_path / f"{name}.pt", recipe.model_copy(update={name: off}))
        assert not torch.equal(straight, other), f"or {name} does nothing"


# --- trivial augment


@pytest.mark.parametrize("channels", [1, 3])
def test_trivial_augment_changes_images_one_by_one(channels: int) -> None:
    images = noise(40, 12, channels)
    raw = Normalisation((0.0,) * channels, (1 / 255,) * channels)
    batches = Batches(images, raw, 12, CPU, Augmentation(trivial_augment=True))
    draws = batches.draw(torch.Generator().manual_seed(0))
    x, labels = batches.augmented(draws, 0, 40)
    plain = torch.from_numpy(images.pixels[draws.order]).permute(0, 3, 1, 2).float()
    changed = ((x - plain).abs() > 1e-3).flatten(1).any(1)
    assert 10 <= changed.sum() < 40, "one of the operations is identity"
    assert x.shape == plain.shape and x.min() >= 0 and x.max() <= 255.01
    assert torch.equal(labels, torch.from_numpy(images.labels)[draws.order])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", list(TrivialAugmentWide._AUGMENTATION_SPACE)[1:])
def test_each_operation_is_torchvisions(name: str, channels: int) -> None:
    """At every strength and sign; where torchvision cuts off the fraction of a whole number, we may be one above it."""
    theirs = TrivialAugmentWide()
    table, signed = theirs._AUGMENTATION_SPACE[name]
    for sign in (1.0, -1.0):
        strengths = trivial.strengths_of(name, torch.arange(trivial.LEVELS), torch.full((trivial.LEVELS,), sign))
        wanted = table(theirs.num_magnitude_bins, 12, 12)
        assert torch.equal(strengths, torch.zeros(31) if wanted is None else wanted * (sign if signed else 1.0))
    smooth = np.linspace(20, 220, 12)[:, None] * np.linspace(0.3, 1, 12)
    for image in (noise(1, 12, channels).pixels[0], np.repeat(smooth[..., None], channels, 2).astype(np.uint8)):
        pixels = torch.from_numpy(image).expand(trivial.LEVELS, -1, -1, -1)
        for sign in (1.0, -1.0):
            strengths = trivial.strengths_of(name, torch.arange(trivial.LEVELS), torch.full((trivial.LEVELS,), sign))
            each = zip(pixels.permute(0, 3, 1, 2), strengths.tolist(), strict=True)
            options = {"interpolation": theirs.interpolation, "fill": theirs._fill}
            wanted = [theirs._apply_image_or_video_transform(x, name, strength, **options) for x, strength in each]
            found = trivial.changed(name, pixels, strengths).permute(0, 3, 1, 2)
            difference = (found.int() - torch.stack(wanted).int()).abs()
            assert difference.max() <= 1 and (difference > 0).float().mean() < 0.01


def test_operations_strengths_and_signs_are_drawn_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, Tensor] = {}

    def record(name: str, pixels: Tensor, strengths: Tensor) -> Tensor:
        drawn[name] = strengths
        return pixels

    monkeypatch.setattr("nas.trivial.changed", record)
    torch.manual_seed(0)
    trivial.trivial_augment(torch.zeros(14_000, 1, 1, 1, dtype=torch.uint8))
    assert set(drawn) == set(TrivialAugmentWide._AUGMENTATION_SPACE) - {"Identity"}
    assert all(850 < len(strengths) < 1150 for strengths in drawn.values())
    assert len(drawn["Rotate"].unique()) == 61 and abs((drawn["Rotate"] < 0).float().mean() - 0.5) < 0.1
    assert len(drawn["Solarize"].unique()) == 31 and set(drawn["Posterize"].tolist()) == set(range(2, 9))


def test_trivial_augment_needs_grey_or_colour() -> None:
    images = noise(channels=2)
    with pytest.raises(InputError, match="trivial_augment is for images of 1 or 3 channels, not 2"):
        Batches(images, Normalisation((0, 0), (1, 1)), 8, CPU, Augmentation(trivial_augment=True))


# --- stochastic depth

BESIDE: dict[str, dict[str, Any]] = {
    "bottleneck": {"t": 2},
    "cse": {"t": 2},
    "shuffle": {"groups": 1},
}


@pytest.mark.parametrize("name", BESIDE)
def test_an_image_skips_the_layers_or_has_more_of_them(name: str) -> None:
    block = make(name, 8, 8, 1, 4, BESIDE[name])
    for norm in (x for x in block.modules() if isinstance(x, nn.BatchNorm2d)):
        norm.eval()  # type: ignore[no-untyped-call]
    x = torch.rand(400, 8, 4, 4)
    whole = block(x)
    block.drop_path = 0.25
    y = block(x)
    block.drop_path = 1 - 1e-12
    nothing = block(x)
    skipped = (y - nothing).abs().flatten(1).amax(1) < 1e-6
    assert 60 <= skipped.sum() <= 140
    if name != "shuffle":  # whose activation stands behind the sum
        torch.testing.assert_close(y[~skipped] - x[~skipped], (whole - x)[~skipped] / 0.75)
    block.eval()
    torch.testing.assert_close(block(x), whole)


def test_the_chance_rises_with_depth_while_it_trains() -> None:
    architecture = Space.load(SPACES / "mobile_tiny.yaml", 1, 3).sample(random.Random(0))
    network, seen = build(architecture, seed=0), []
    network.layers[-1].register_forward_hook(
        lambda *_: seen.append([layer.drop_path for layer in network.layers if network.training])
    )
    images = noise(size=architecture.resolution)
    recipe = Recipe(epochs=1, stochastic_depth=0.3)
    train(network, images, None, recipe, normalisation=GREY, resolution=architecture.resolution)
    count = len(network.layers)
    assert seen[-1] == pytest.approx([0.3 * i / (count - 1) for i in range(count)])
    assert all(layer.drop_path == 0 for layer in network.layers)


def test_a_module_of_that_name_is_not_set() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    network[0].drop_path, network[1].drop_path = nn.Identity(), None
    train(network, noise(), None, Recipe(epochs=1, stochastic_depth=0.3), normalisation=GREY, resolution=8)
    assert isinstance(network[0].drop_path, nn.Identity) and network[1].drop_path is None


# --- recipes by name


def study(tmp_path: Path, **data: Any) -> StudyConfig:
    return StudyConfig.load(fakes.write_study(tmp_path, fakes.SIX, **data))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipes(name: str, tmp_path: Path) -> None:
    recipe = {"like": name, "lr": 0.01}
    config = study(tmp_path, proxy={"rungs": [1], "recipe": recipe}, retrain={"epochs": 7, "recipe": recipe})
    expected = {**Recipe(epochs=7).model_dump(), **PUBLISHED[name], "lr": 0.01}
    assert config.retrain_recipe().model_dump() == expected
    assert config.proxy_recipe().model_dump() == {**expected, "epochs": 1}


@pytest.mark.parametrize("like", ["resnet", ["cifar"], 3])
def test_an_unknown_recipe_is_one_line(like: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"retrain.recipe.like is .*, but must be one of: .*mobilenet_v2"):
        study(tmp_path, retrain={"epochs": 7, "recipe": {"like": like}})


# --- retraining

RETRAIN: dict[str, Any] = {"epochs": 4, "recipe": {"batch_size": 256, "lr": 0.05}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, quiet_optuna: None) -> Run:
    folder = tmp_path_factory.mktemp("run")
    proxy = {"rungs": [1], "recipe": RETRAIN["recipe"], "confirm": 0}
    file = fakes.write_study(folder, fakes.SIX, name="digits", proxy=proxy, trials=1, retrain=RETRAIN)
    return search(file, folder / "run")[0]


def changed(run: Run, tmp_path: Path, **retraining: Any) -> Run:
    """The same search with another `retrain` section, in a new folder."""
    shutil.copytree(run.folder, tmp_path / "run", ignore=shutil.ignore_patterns("retrain"))
    file = tmp_path / "run" / run.study_file.name
    data = yaml.safe_load(file.read_text())
    data["retrain"] = {**data["retrain"], **retraining}
    file.write_text(yaml.safe_dump(data))
    return Run.open(tmp_path / "run")


@pytest.mark.parametrize(
    ("parts", "shares"),
    [
        ({0.25: 0.5, 0.75: 0.75}, [0.5, 0.75, 0.75, 1.0]),
        ({0.99: 0.5}, [0.5, 0.5, 0.5, 1.0]),
    ],
)
def test_progressive_resolution(
    parts: dict[float, float], shares: list[float], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever `until` is rounded to, the last epoch is of the full resolution."""
    progressive = [{"until": until, "resolution": resolution} for until, resolution in parts.items()]
    other = changed(run, tmp_path, progressive=progressive)
    seen: list[int] = []
    plain = Batches.augmented

    def watched(self: Batches, *arguments: Any) -> tuple[Tensor, Tensor]:
        x, y = plain(self, *arguments)
        seen.append(x.shape[-1])
        return x, y

    monkeypatch.setattr(Batches, "augmented", watched)
    monkeypatch.setattr("nas.training.loop.recalibrated", lambda network, batches: network)
    done = retrain(other, "best", device="cpu")
    full = run.pick("best")[0].resolution
    steps = len(seen) // 4
    assert seen == [size for share in shares for size in [round(share * full)] * steps]
    assert done.result["training"]["progressive"] == progressive


def test_parts_must_rise_and_fit(run: Run, tmp_path: Path) -> None:
    falling = [{"until": 0.5, "resolution": 0.5}, {"until": 0.25, "resolution": 0.75}]
    with pytest.raises(InputError, match=r"retrain.progressive is .* but must be parts whose `until` rises"):
        study(tmp_path, retrain={**RETRAIN, "progressive": falling})
    other = changed(run, tmp_path, progressive=[{"until": 0.5, "resolution": 0.5}])
    file = tmp_path / "cse.yaml"
    file.write_text(Space.load(SPACES / "mobilenet_v2_cse.yaml", 1, 10).sample(random.Random(0)).to_yaml())
    line = r"retrain.progressive is \[{'resolution': 0.5, 'until': 0.5}\], but must be empty, as the weights of block"
    with pytest.raises(InputError, match=line):
        retrain(other, str(file), device="cpu")


def test_any_architecture_may_be_retrained(run: Run, tmp_path: Path) -> None:
    architecture, file = run.pick("best")[0], tmp_path / "mine.yaml"
    file.write_text(architecture.to_yaml())
    done = retrain(run, str(file), device="cpu", epochs=1)
    assert done.result["id"] == architecture.id
    assert Architecture.load(done.folder / "architecture.yaml") == architecture


def test_an_architecture_for_other_images_is_one_line(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "other.yaml"
    file.write_text(run.pick("best")[0].to_yaml().replace("in_channels: 1", "in_channels: 3"))
    with pytest.raises(InputError, match=r"\(channels, classes\) is \[?\(?3, 10.* \(1, 10\) as the images of digits"):
        retrain(run, str(file), device="cpu")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory.\nTried"), MemoryError()], ids=repr)
def test_too_little_memory_is_one_line(
    error: Exception, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.retrain.train", Mock(side_effect=error))
    with pytest.raises(InputError, match=r"out of memory \(.*\); a smaller retrain\.recipe\.batch_size needs less$"):
        retrain(changed(run, tmp_path), "best", device="cpu")


def test_average_of_an_image_and_its_mirror_image(run: Run, tmp_path: Path) -> None:
    plain = retrain(run, "best", device="cpu", epochs=1).result
    flipped = retrain(changed(run, tmp_path, average_flips=True), "best", device="cpu", epochs=1).result
    assert plain["test_loss"] != flipped["test_loss"]

    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    images = noise()
    mirrored = Images(images.pixels[:, :, ::-1].copy(), images.labels)

    def loss(which: Images, average: bool) -> float:
        return evaluate(network, which, normalisation=GREY, resolution=8, average_flips=average)[1]

    assert loss(images, True) == pytest.approx(loss(mirrored, True))
    assert loss(images, True) != pytest.approx(loss(mirrored, False))


# --- threads


@pytest.mark.parametrize(("faster", "expected"), [(1.05, 1), (1.2, 2)])
def test_more_threads_only_where_they_pay(
    tmp_path: Path,
    faster: float,
    expected: int,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("nas.training.pace._seconds", lambda *arguments: 1.0 if arguments[-1] == 1 else 1 / faster)
    monkeypatch.setenv("NAS_CACHE", str(tmp_path))
    network = build(run.pick("best")[0], 0)
    with as_many_threads(2), caplog.at_level("INFO", "nas"):
        assert pick_threads(network, f"x{faster}", Recipe(epochs=1, batch_size=100), 1, 8) == expected
        assert torch.get_num_threads() == 2
        monkeypatch.setattr("nas.training.pace._seconds", lambda *_: 1 / 0)
        assert pick_threads(network, f"x{faster}", Recipe(epochs=1, batch_size=100), 1, 8) == expected, "kept"
    rate = 100 * faster
    assert f"with {expected} of 2 threads (100 images/s with 1, {rate:.0f} images/s with 2)" in caplog.text


def test_timing_leaves_the_network_and_the_generators_alone(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_CACHE", str(tmp_path))
    network = build(run.pick("best")[0], 0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    with as_many_threads(2):
        pick_threads(network, "y", Recipe(epochs=1, batch_size=4), 1, 8)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_training_goes_on_with_the_threads_it_began_with(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, seen = changed(run, tmp_path), []
    monkeypatch.setattr("nas.retrain.pick_threads", lambda *_: 2)

    def stop(epoch: Epoch) -> None:
        seen.append(torch.get_num_threads())
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            retrain(other, "best", device="cpu", on_epoch=stop)
        monkeypatch.setattr("nas.retrain.pick_threads", lambda *_: 1)
    done = retrain(other, "best", device="cpu")
    assert seen == [2, 2]
    assert done.result["threads"] == 2
    assert not (done.folder / "threads.json").exists()


# --- several processes


def fit_together(folder: str, group: Group) -> list[list[float]]:
    """The curve, and weights at its end. Layer normalisation: a process' part of a batch does not matter to it."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 3))
    recipe = Recipe(epochs=4, batch_size=9, lr=0.05, ema=0.9, label_smoothing=0.1, crop=1, flip=True)
    options: dict[str, Any] = {"normalisation": GREY, "resolution": 8, "group": group}
    options["checkpoint"] = Path(folder, "checkpoint.pt")
    for until in (2, 4):  # stopped and resumed
        curve = train(network, noise(40), noise(13), recipe, until=until, **options)
    rows = [[x.train_loss, x.train_accuracy, x.validation_loss or 0, x.validation_accuracy or 0] for x in curve]
    return [*rows, network[2].weight[0, :8].tolist()]


TOGETHER = """
import json, sys, torch
from test_recipes import fit_together
from nas.training import together
torch.set_num_threads(1)
with together("cpu") as (group, _):
    rows = fit_together(sys.argv[1], group)
    with open(f"{sys.argv[1]}/{group.rank}-of-{group.size}.json", "w") as file:
        json.dump(rows, file)
"""


def torchrun(*arguments: str) -> list[str]:
    """The lines that two processes print."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=220, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "UserWarning" not in done.stderr, done.stderr[-2000:]
    return done.stdout.splitlines()


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(TOGETHER)
    expected = np.array(fit_together(str(tmp_path), Group())[:4])
    (tmp_path / "checkpoint.pt").unlink()
    torchrun(str(tmp_path / "run.py"), str(tmp_path))
    first, second = (json.loads((tmp_path / f"{rank}-of-2.json").read_text()) for rank in (0, 1))
    assert first == second, "both end with the same network and the same curve"
    np.testing.assert_allclose(np.array(first[:4]), expected, rtol=1e-4)


@pytest.mark.slow
def test_nas_retrain_under_torchrun(run: Run, tmp_path: Path) -> None:
    other = changed(run, tmp_path)
    lines = torchrun("-m", "nas", "retrain", str(other.folder), "--pick", "best", "--device", "cpu", "--json")
    result = json.loads("\n".join(lines))
    assert (result["processes"], result["device"], result["recipe"]["epochs"]) == (2, "cpu", 4)
    assert retrain(other, "best", device="cpu").result["test_accuracy"] == result["test_accuracy"]
