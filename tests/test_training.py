"""Training: schedules, augmentation against a naive version, resuming to the bit, refusals, and that it learns."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.augment import Augmentation, Batches, Draws
from nas.data.splits import Images
from nas.inputs import InputError, checked
from nas.training import (
    Distillation,
    Diverged,
    Epoch,
    Group,
    Normalisation,
    Recipe,
    Stage,
    Teacher,
    evaluate,
    learning_rate,
    pick_device,
    train,
)

CPU = torch.device("cpu")
GREY = Normalisation((0.4,), (0.3,))
# Leaves pixels as they are: (pixel / 255 - 0) / (1 / 255).
RAW = {1: Normalisation((0.0,), (1 / 255,)), 3: Normalisation((0.0,) * 3, (1 / 255,) * 3)}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """These networks are tiny: on busy cores two threads wait for each other, ten times as long as one computes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def noise(n: int = 22, size: int | tuple[int, int] = 8, channels: int = 1, seed: int = 0) -> Images:
    rng = np.random.default_rng(seed)
    height, width = (size, size) if isinstance(size, int) else size
    return Images(rng.integers(0, 256, (n, height, width, channels), np.uint8), rng.integers(0, 3, n))


def small(seed: int = 0, channels: int = 1, dropout: float = 0.3) -> nn.Sequential:
    """conv - BN - ReLU - depthwise conv - dropout - linear, with weights of its own seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(channels, 8, 3, 2, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 8, 3, 1, 1, groups=8),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(8, 3),
        )


def fit(network: nn.Module, recipe: Recipe, images: Images | None = None, **options: Any) -> list[Epoch]:
    options = {"normalisation": GREY, "resolution": 8, "validation": None, **options}
    validation = options.pop("validation")
    return train(network, images or noise(), validation, recipe, **options)


class Watch(nn.Module):
    """Linear on the mean pixel. Shows what it is given and its weights to `see`, which may raise, and counts calls."""

    def __init__(self, see: Callable[[int, Tensor, Tensor], object], channels: int = 1) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, 3)
        nn.init.constant_(self.linear.weight, 0.1)
        nn.init.zeros_(self.linear.bias)
        self.see, self.calls = see, 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
            self.see(self.calls, x, self.linear.weight)
        out: Tensor = self.linear(x.mean((2, 3)))
        return out


def timeless(curve: list[Epoch]) -> list[Epoch]:
    return [replace(epoch, seconds=0.0) for epoch in curve]


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, tensors and all."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a if key != "seconds")
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def saved(path: Path) -> dict[str, Any]:
    state = torch.load(path, weights_only=True)
    assert isinstance(state, dict)
    return state


# --- recipes and schedules


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ({"schedule": "constant"}, [1, 1, 1, 1, 1, 1, 1, 1]),
        ({"schedule": "linear"}, [1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        ({"schedule": "cosine"}, [math.cos(math.pi * i / 16) ** 2 for i in range(8)]),
        ({"schedule": "exponential", "decay": 0.25}, [1, 0.5, 0.25, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128]),
        ({"schedule": "constant", "warmup_epochs": 1.5}, [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]),
        ({"schedule": "linear", "warmup_epochs": 1.5}, [0.25, 0.5, 0.75, 1, 0.8, 0.6, 0.4, 0.2]),
        ({"schedule": "cosine", "warmup_epochs": 2}, [0.2, 0.4, 0.6, 0.8, 1, 0.5 + math.sqrt(1 / 8), 0.5, None]),
        ({"schedule": "exponential", "decay": 0.25, "warmup_epochs": 0.5}, [0.5, 1, 0.5, 0.25, None, None, None, None]),
    ],
)
def test_schedules_in_closed_form(recipe: dict[str, Any], expected: list[float | None]) -> None:
    rates = [learning_rate(Recipe(epochs=4, lr=0.3, **recipe), step, 2) / 0.3 for step in range(8)]
    assert [r for r, e in zip(rates, expected, strict=True) if e is not None] == pytest.approx(
        [e for e in expected if e is not None]
    )


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_schedules_end_at_zero(schedule: Any) -> None:
    assert learning_rate(Recipe(epochs=3, schedule=schedule, warmup_epochs=0.4), 30, 10) == pytest.approx(0, abs=1e-12)


def test_each_step_takes_the_rate_of_the_schedule() -> None:
    """Plain SGD on a constant gradient: the weights fall by lr times that gradient."""

    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.zeros(2, 2))

        def forward(self, x: Tensor) -> Tensor:
            seen.append(self.a[0, 0].item())
            sizes = self.a.sum() - self.a.sum().detach()
            return torch.stack([torch.zeros(len(x)) + sizes, torch.zeros(len(x)) - sizes], 1)

    seen: list[float] = []
    images = Images(noise(8).pixels, np.ones(8, np.int64))
    recipe = Recipe(epochs=2, batch_size=4, lr=0.5, momentum=0.0, weight_decay=0.0, warmup_epochs=0.5)
    network = Constant()
    curve = fit(network, recipe, images)
    rates = [learning_rate(recipe, step, 2) for step in range(4)]
    falls = -np.diff([*seen, network.a[0, 0].item()])
    assert falls == pytest.approx(np.array(rates), rel=1e-5)
    assert [epoch.lr for epoch in curve] == [rates[1], rates[3]]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"epochs": 0}, "recipe: epochs is 0, but must be greater than or equal to 1"),
        ({"epochs": 3, "warmup_epochs": 3}, "recipe: warmup_epochs is 3, but must be less than the 3 epochs"),
        ({"epochs": 1, "lr": "fast"}, "recipe: lr is 'fast', but must be a number"),
        ({"epochs": 1, "lr": float("inf")}, "recipe: lr is inf, but must be a finite number"),
        ({"epochs": 1, "lr": "nan"}, "recipe: lr is nan, but must be a finite number"),
        ({"epochs": 1, "batch_size": 1}, "recipe: batch_size is 1, but must be greater than or equal to 2"),
        ({"epochs": 1, "optimiser": "adam"}, "recipe: optimiser is 'adam', but must be one of: sgd, rmsprop, adamw"),
    ],
)
def test_recipes_are_refused(data: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError) as error:
        checked(Recipe, data, "recipe")
    assert str(error.value) == line


def test_numbers_that_yaml_reads_as_text() -> None:
    assert checked(Recipe, {"epochs": 1, "weight_decay": "5e-4"}, "recipe").weight_decay == 5e-4


# --- the optimisers


@pytest.mark.parametrize("optimiser", ["sgd", "rmsprop", "adamw"])
def test_weight_decay_leaves_norms_and_biases_alone(optimiser: Any) -> None:
    after = []
    for decay in (0.0, 0.5):
        network = small(dropout=0.0)
        recipe = Recipe(epochs=1, optimiser=optimiser, lr=0.25, momentum=0.0, weight_decay=decay, schedule="constant")
        fit(network, recipe)
        after.append({name: x.detach() for name, x in network.named_parameters()})
    for name, start in small().named_parameters():
        change = after[1][name] - after[0][name]
        assert (change.abs().max() > 1e-4) == (start.ndim > 1), name
        if optimiser != "rmsprop" and start.ndim > 1:
            torch.testing.assert_close(change, -0.25 * 0.5 * start.detach(), rtol=1e-4, atol=1e-6)


def test_sgd_is_nesterov_and_rmsprop_as_documented() -> None:
    """One step from zero state, by hand: Nesterov (1 + momentum) lr g; RMSprop lr g / (sqrt(0.1 g^2) + eps)."""
    moved = {}
    for optimiser, momentum in (("sgd", 0.0), ("sgd", 0.9), ("rmsprop", 0.9)):
        network = small(dropout=0.0)
        options = {"lr": 0.01, "schedule": "constant", "weight_decay": 0.0}
        fit(network, Recipe(epochs=1, optimiser=optimiser, momentum=momentum, **options))
        moved[optimiser, momentum] = network[7].weight.detach() - small()[7].weight.detach()
    gradient = -moved["sgd", 0.0] / 0.01
    torch.testing.assert_close(moved["sgd", 0.9], -0.019 * gradient, rtol=1e-3, atol=1e-7)
    expected = -0.01 * gradient / ((0.1 * gradient**2).sqrt() + 0.0316)
    torch.testing.assert_close(moved["rmsprop", 0.9], expected, rtol=1e-3, atol=1e-7)


def test_clip_norm_bounds_the_step() -> None:
    network = small(dropout=0.0)
    recipe = {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant"}
    fit(network, Recipe(epochs=1, clip_norm=0.01, **recipe))
    moved = [(a - b).detach() for a, b in zip(network.parameters(), small().parameters(), strict=True)]
    assert torch.stack([x.square().sum() for x in moved]).sum().sqrt().item() == pytest.approx(0.01, rel=1e-3)


def test_training_loss_and_accuracy() -> None:
    """Of a single step, so at the first weights: with label smoothing, over all images."""
    images, network = noise(), small(dropout=0.0)
    x = (torch.from_numpy(images.pixels).permute(0, 3, 1, 2) / 255 - 0.4) / 0.3
    logits, y = small(dropout=0.0)(x), torch.from_numpy(images.labels)
    (epoch,) = fit(network, Recipe(epochs=1, label_smoothing=0.2))
    assert epoch.train_loss == pytest.approx(F.cross_entropy(logits, y, label_smoothing=0.2).item(), rel=1e-5)
    assert epoch.train_accuracy == pytest.approx((logits.argmax(1) == y).float().mean().item())


def test_average_of_weights_and_statistics(tmp_path: Path) -> None:
    """Against the definition, step by step, from the states after each step."""
    states: list[dict[str, Tensor]] = []
    network = small()
    keep = network.register_forward_pre_hook(lambda net, _: states.append(copied(net)) if net.training else None)
    path = tmp_path / "c.pt"
    fit(network, Recipe(epochs=5, batch_size=8, ema=0.5, lr=0.2), checkpoint=path)
    keep.remove()
    states.append(saved(path)["model"])
    assert len(states) == 16
    average = states[0]
    for step, state in enumerate(states[1:]):
        decay = min(0.5, (1 + step) / (10 + step))
        floats = {k: decay * average[k] + (1 - decay) * v for k, v in state.items() if v.is_floating_point()}
        average = {**state, **floats}
    # The forward pass of a training step changes BN's statistics after the hook, as the step does the weights.
    for name, value in saved(path)["average"].items():
        torch.testing.assert_close(value, average[name], msg=name)
    assert not torch.equal(states[-1]["0.weight"], average["0.weight"])


def copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_afterwards_the_network_holds_the_average_in_eval_mode(tmp_path: Path) -> None:
    network, validation = small(), noise(12, seed=1)
    curve = fit(network, Recipe(epochs=2, ema=0.9), checkpoint=tmp_path / "c.pt", validation=validation)
    state = saved(tmp_path / "c.pt")
    assert not any(module.training for module in network.modules())
    average = small()
    average.load_state_dict(state["average"])
    assert same(dict(network.named_parameters()), dict(average.named_parameters()))
    assert not same(dict(state["average"]), dict(state["model"]))
    accuracy, loss = evaluate(network, validation, normalisation=GREY, resolution=8)
    assert (curve[-1].validation_accuracy, curve[-1].validation_loss) == (accuracy, pytest.approx(loss))
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize(("pays", "automatic"), [(True, torch.bfloat16), (False, torch.float32)])
def test_precision_and_layout(pays: bool, automatic: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.training.step.pays_in_bfloat16", lambda: pays)
    seen: list[tuple[torch.dtype, bool]] = []
    for precision, last in (("auto", True), ("bfloat16", False)):
        network = small(channels=3)
        network[0].register_forward_hook(
            lambda module, x, y: (
                seen.append((y.dtype, x[0].is_contiguous(memory_format=torch.channels_last)))
                if module.training
                else None
            )
        )
        recipe = Recipe(epochs=1, precision=precision, channels_last=last)
        fit(network, recipe, noise(channels=3), normalisation=RAW[3])
        assert network[0].weight.is_contiguous(memory_format=torch.channels_last) == last
    assert seen == [(automatic, True), (torch.bfloat16, False)]


# --- batches


def naive(images: Images, draws: Draws, augmentation: Augmentation) -> np.ndarray[Any, Any]:
    """Float pixels (n, h, w, channels), one image at a time, in plain loops."""
    crop, cutout = augmentation.crop, augmentation.cutout
    out = []
    for i, index in enumerate(draws.order.tolist()):
        pixels = images.pixels[index]
        height, width, _ = pixels.shape
        padded = np.pad(pixels, ((crop, crop), (crop, crop), (0, 0)))
        top, left = draws.offsets[i].tolist()
        image = padded[top : top + height, left : left + width].astype(np.float32)
        if draws.flips[i]:
            image = image[:, ::-1].copy()
        if cutout:
            top, left = (draws.centres[i] - cutout // 2).tolist()
            image[max(top, 0) : max(top + cutout, 0), max(left, 0) : max(left + cutout, 0)] = 0
        out.append(image)
    return np.stack(out)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(crop=2),
        Augmentation(flip=True),
        Augmentation(cutout=3),
        Augmentation(crop=1, flip=True, cutout=4),
        Augmentation(crop=3, flip=True, cutout=30),
    ],
)
def test_augmentation_is_that_of_plain_loops(channels: int, augmentation: Augmentation) -> None:
    images = noise(50, channels=channels)
    batches = Batches(images, RAW[channels], 8, CPU, augmentation)
    draws = batches.draw(torch.Generator().manual_seed(1))
    parts = [batches.augmented(draws, start, start + 16) for start in range(0, 50, 16)]
    assert [len(x) for x, _ in parts] == [16, 16, 16, 2]
    x = torch.cat([x for x, _ in parts]).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(x, naive(images, draws, augmentation))
    np.testing.assert_array_equal(torch.cat([y for _, y in parts]).numpy(), images.labels[draws.order.numpy()])


def test_draws_cover_what_they_should() -> None:
    images = noise(2000, size=(4, 6))
    batches = Batches(images, GREY, 4, CPU, Augmentation(crop=1, flip=True, cutout=2))
    draws = batches.draw(torch.Generator().manual_seed(0))
    assert sorted(draws.order.tolist()) == list(range(2000)) and draws.order[:5].tolist() != list(range(5))
    counts = [np.bincount(column, minlength=3) for column in draws.offsets.T.numpy()]
    assert all(len(count) == 3 and count.min() > 560 for count in counts)
    assert 900 < draws.flips.sum().item() < 1100
    assert [len(set(column.tolist())) for column in draws.centres.T] == [4, 6]
    assert draws.centres.amax(0).tolist() == [3, 5]


def test_without_augmentation_an_epoch_shows_the_images_as_they_are() -> None:
    images = noise(20, channels=3)
    batches = Batches(images, RAW[3], 8, CPU)
    draws = batches.draw(torch.Generator().manual_seed(0))
    x, _ = batches.augmented(draws, 0, 20)
    np.testing.assert_array_equal(x.permute(0, 2, 3, 1).numpy(), images.pixels[draws.order.numpy()])
    assert x.is_contiguous(memory_format=torch.channels_last) and x.dtype == torch.float32
    plain, labels = batches.plain(5, 30)
    np.testing.assert_array_equal(plain.permute(0, 2, 3, 1).numpy(), images.pixels[5:])
    np.testing.assert_array_equal(labels.numpy(), images.labels[5:])


def test_normalisation_per_channel_and_cutout_to_the_mean() -> None:
    images, normalisation = noise(20, channels=3), Normalisation((0.1, 0.5, 0.9), (0.2, 0.3, 0.4))
    batches = Batches(images, normalisation, 8, CPU, Augmentation(cutout=2))
    expected = (images.pixels / 255 - np.array(normalisation.mean)) / np.array(normalisation.std)
    x, _ = batches.plain(0, 20)
    np.testing.assert_allclose(x.permute(0, 2, 3, 1).numpy(), expected, rtol=1e-5, atol=1e-6)
    draws = batches.draw(torch.Generator().manual_seed(0))
    x, _ = batches.augmented(draws, 0, 20)
    changed = ~np.isclose(x.permute(0, 2, 3, 1).numpy(), expected[draws.order.numpy()], atol=1e-5)
    assert changed.any() and (x.permute(0, 2, 3, 1).numpy()[changed] == 0).all()


@pytest.mark.parametrize(("size", "resolution"), [((8, 8), 5), ((6, 9), 9), ((12, 7), 8), ((4, 4), 10)])
def test_resizing_is_bilinear_and_antialiased(size: tuple[int, int], resolution: int) -> None:
    images = noise(5, size, channels=3)
    x, _ = Batches(images, RAW[3], resolution, CPU).plain(0, 5)
    pixels = torch.from_numpy(images.pixels).permute(0, 3, 1, 2).float()
    expected = F.interpolate(pixels, size=(resolution, resolution), mode="bilinear", antialias=True)
    torch.testing.assert_close(x, expected, rtol=1e-5, atol=1e-3)


def test_images_may_be_a_read_only_file(tmp_path: Path) -> None:
    images = noise(24)
    np.save(tmp_path / "pixels.npy", images.pixels)
    mapped = Images(np.load(tmp_path / "pixels.npy", mmap_mode="r"), images.labels)
    mapped.labels.flags.writeable = False
    networks = small(), small()
    curves = [
        fit(n, Recipe(epochs=1, crop=1), x, validation=x) for n, x in zip(networks, (images, mapped), strict=True)
    ]
    assert timeless(curves[0]) == timeless(curves[1])


def test_images_that_stay_on_the_device_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What CUDA and MPS do, on the CPU."""
    images, outcomes = noise(20, channels=3), []
    for free in (0, 4 * images.pixels.nbytes):
        monkeypatch.setattr("nas.augment._free_bytes", lambda _, free=free: free)
        batches = Batches(images, RAW[3], 8, CPU, Augmentation(crop=1, flip=True))
        assert isinstance(batches._images, Tensor) == (free > 0)
        outcomes += [batches.augmented(batches.draw(torch.Generator().manual_seed(0)), 4, 20), batches.plain(3, 9)]
    assert same(outcomes[:2], outcomes[2:])


@pytest.mark.parametrize(("n", "sizes"), [(8, [4, 4]), (10, [4, 4, 2]), (9, [4, 4]), (3, [3])])
def test_only_a_last_single_image_is_dropped(n: int, sizes: list[int]) -> None:
    seen: list[int] = []
    fit(Watch(lambda _, x, w: seen.append(len(x))).eval(), Recipe(epochs=1, batch_size=4), noise(n))
    assert seen == sizes


def test_epochs_differ_in_order_and_seeds_in_everything() -> None:
    seen: list[Tensor] = []
    for seed in (0, 0, 1):
        fit(Watch(lambda _, x, w: seen.append(x)), Recipe(epochs=2), seed=seed)
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[4])


def test_images_that_cannot_be_used() -> None:
    for images, normalisation, line in (
        (noise(1), GREY, "images is 1, but must be at least 2 to train on: batch normalisation needs two a process"),
        (noise(4), RAW[3], "normalisation has 3 means and 3 stds, but must have one for each of 1 channels"),
    ):
        with pytest.raises(InputError) as error:
            fit(small(), Recipe(epochs=1), images, normalisation=normalisation)
        assert str(error.value) == line
    with pytest.raises(InputError, match="images: there are none"):
        evaluate(small(), noise(0), normalisation=GREY, resolution=8)


def test_a_batch_has_two_images_for_each_process() -> None:
    line = "^recipe.batch_size is 3, but must be at least 4: batch normalisation needs two images a process$"
    with pytest.raises(InputError, match=line):
        fit(small(), Recipe(epochs=1, batch_size=3), group=Group(size=2))


# --- stopping, killing, going on

RECIPES = {
    "sgd": Recipe(epochs=4, batch_size=8, lr=0.2, ema=0.95, crop=1, flip=True, cutout=3, warmup_epochs=0.5),
    "rmsprop": Recipe(epochs=4, batch_size=8, optimiser="rmsprop", lr=0.01, schedule="exponential", clip_norm=1.0),
    "adamw": Recipe(epochs=4, batch_size=8, optimiser="adamw", lr=0.01, schedule="linear", ema=0.5, flip=True),
}


class Killed(BaseException):
    pass


def stop_by_until(path: Path, recipe: Recipe) -> None:
    for until in (1, 3):
        curve = fit(small(), recipe, validation=noise(12, seed=1), checkpoint=path, until=until)
        assert len(curve) == until


def stop_in_callback(path: Path, recipe: Recipe) -> None:
    def on_epoch(epoch: Epoch) -> None:
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(small(), recipe, validation=noise(12, seed=1), checkpoint=path, on_epoch=on_epoch)
    assert len(saved(path)["curve"]) == 2


def stop_within_epochs(path: Path, recipe: Recipe) -> None:
    """In the first, second and third epoch (of three steps), each time in the network that the last kill left."""
    network = small()
    for last in (2, 4, 5):
        calls = []

        def die(*_: object, calls: list[int] = calls, last: int = last) -> None:
            calls.append(1)
            if len(calls) == last:
                raise Killed

        handle = network[7].register_forward_hook(die)
        with pytest.raises(Killed):
            fit(network, recipe, checkpoint=path)
        handle.remove()
    assert len(saved(path)["curve"]) == 2


@pytest.mark.parametrize("stop", [stop_by_until, stop_in_callback, stop_within_epochs])
@pytest.mark.parametrize("name", RECIPES)
def test_resumed_is_uninterrupted_to_the_bit(name: str, stop: Callable[[Path, Recipe], None], tmp_path: Path) -> None:
    recipe = RECIPES[name]
    validation = None if stop is stop_within_epochs else noise(12, seed=1)
    straight, resumed = small(), small(seed=1)
    expected = fit(straight, recipe, validation=validation, checkpoint=tmp_path / "straight.pt")
    stop(tmp_path / "stopped.pt", recipe)
    torch.manual_seed(123)
    curve = fit(resumed, recipe, validation=validation, checkpoint=tmp_path / "stopped.pt")
    assert timeless(curve) == timeless(expected) and [epoch.epoch for epoch in curve] == [1, 2, 3, 4]
    assert same(dict(resumed.state_dict()), dict(straight.state_dict()))
    assert same(saved(tmp_path / "stopped.pt"), saved(tmp_path / "straight.pt"))


def test_training_depends_on_dropout_and_all_that_is_compared() -> None:
    """Without this, the test above could not fail."""
    outcomes = []
    for seed, dropout in ((0, 0.3), (0, 0.0), (1, 0.3)):
        network = small(dropout=dropout)
        fit(network, RECIPES["sgd"], seed=seed)
        outcomes.append(network[0].weight.detach())
    assert not torch.equal(outcomes[0], outcomes[1]) and not torch.equal(outcomes[0], outcomes[2])


STAGES = [Stage(1, noise(14, seed=5), 4), Stage(3, noise(16, seed=6), 8)]


def test_stages_train_on_from_one_to_the_next(tmp_path: Path) -> None:
    """Each call knows the stages so far; the whole in one call gives the same bits."""
    recipe, path = RECIPES["sgd"], tmp_path / "c.pt"
    straight, stepped = small(), small(seed=1)
    expected = fit(straight, recipe, before=STAGES, validation=noise(12, seed=1))
    for count, until in ((1, 1), (2, 2), (2, 3)):
        *before, last = STAGES[:count]
        part = {"before": before, "images": last.images, "resolution": last.resolution}
        fit(small(), recipe, checkpoint=path, until=until, validation=noise(12, seed=1), **part)
    curve = fit(stepped, recipe, checkpoint=path, before=STAGES, validation=noise(12, seed=1))
    assert timeless(curve) == timeless(expected)
    assert same(dict(stepped.state_dict()), dict(straight.state_dict()))
    other = fit(small(), recipe, validation=noise(12, seed=1))
    assert timeless(other) != timeless(expected), "or stages make no difference"


def test_earlier_stages_must_be_those_of_the_checkpoint(tmp_path: Path) -> None:
    recipe, path = RECIPES["sgd"], tmp_path / "c.pt"
    fit(small(), recipe, checkpoint=path, before=STAGES, until=2)
    with pytest.raises(InputError, match=r"earlier stages is .* but must be .* as in this training"):
        fit(small(), recipe, checkpoint=path, before=[Stage(1, noise(14, seed=7), 4), STAGES[1]])
    with pytest.raises(InputError, match=r"images is .*16, 8, 8, 1"):
        fit(small(), recipe, checkpoint=path)
    with pytest.raises(InputError, match=r"images is 1, but must be at least 2"):
        fit(small(), recipe, before=[Stage(1, noise(1), 8)])


# --- teachers


def teacher(network: nn.Module, **options: Any) -> Teacher:
    return Teacher(network, **{"normalisation": GREY, "resolution": 8, "sha256": "a", **options})


def taught(network: nn.Module, sha256: str = "a", **options: Any) -> Distillation:
    return Distillation((teacher(network, sha256=sha256),), **options)


@pytest.mark.parametrize("average_flips", [False, True])
@pytest.mark.parametrize("seeds", [(5,), (5, 6)])
def test_the_loss_with_teachers_is_hintons(seeds: tuple[int, ...], average_flips: bool) -> None:
    """Its gradient over three steps of plain descent, by the formulas of the paper's sections 1 and 2."""
    share, temperature, network = 0.7, 3.0, small(dropout=0.0)
    them = [small(seed=seed, dropout=0.0).eval() for seed in seeds]
    recipe = Recipe(
        epochs=3, batch_size=22, lr=0.05, momentum=0.0, weight_decay=0.0, schedule="constant", precision="float32"
    )
    by_hand = copy.deepcopy(network).train()
    images = noise()
    x = torch.from_numpy((images.gather().astype(np.float32) / 255 - 0.4) / 0.3).permute(0, 3, 1, 2)
    optimiser = torch.optim.SGD(by_hand.parameters(), 0.05)
    with torch.no_grad():
        views = [x, x.flip(3)] if average_flips else [x]
        soft = torch.stack([(its(view) / temperature).softmax(1) for its in them for view in views]).mean(0)
    for _ in range(3):
        logits = by_hand(x)
        mine = (logits / temperature).log_softmax(1)
        divergence = (soft * (soft.log() - mine)).sum(1).mean()
        hard = nn.functional.cross_entropy(logits, torch.from_numpy(images.labels).long())
        optimiser.zero_grad()
        ((1 - share) * hard + share * temperature**2 * divergence).backward()
        optimiser.step()
    before = [copied(its) for its in them]
    distillation = Distillation(tuple(map(teacher, them)), share, temperature, average_flips)
    curve = fit(network, recipe, distillation=distillation)
    expected = dict(by_hand.named_parameters())
    for name, tensor in network.named_parameters():
        assert torch.allclose(tensor, expected[name], atol=1e-5), name
    assert all(same(copied(its), was) for its, was in zip(them, before, strict=True)), "teachers stay as they are"
    assert curve[-1].train_loss == pytest.approx(hard.item(), rel=1e-4), "the curve has the cross-entropy"


def test_a_teacher_sees_the_batch_in_its_own_normalisation_and_resolution() -> None:
    seen: list[Tensor] = []

    class Its(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return torch.zeros(len(x), 3)

    shown: list[Tensor] = []
    recipe = Recipe(epochs=1, batch_size=22, crop=2, flip=True, mixup=0.4, precision="bfloat16")
    other = Normalisation((0.1,), (0.6,))
    its = teacher(Its(), normalisation=other, resolution=12)
    fit(Watch(lambda _, x, __: shown.append(x)), recipe, distillation=Distillation((its,)))
    pixels = shown[0] * 0.3 + 0.4
    larger = nn.functional.interpolate(pixels, size=(12, 12), mode="bilinear", antialias=True)
    assert torch.allclose(seen[0], (larger - 0.1) / 0.6, atol=1e-5)


def test_with_a_teacher_resumed_is_uninterrupted_and_another_one_is_refused(tmp_path: Path) -> None:
    recipe = Recipe(epochs=3, batch_size=8, crop=1, ema=0.5)
    straight, resumed, path = small(), small(seed=1), tmp_path / "c.pt"
    expected = fit(straight, recipe, distillation=taught(small(seed=5)))
    fit(small(), recipe, distillation=taught(small(seed=5)), checkpoint=path, until=2)
    for other in (taught(small(seed=6), "b"), taught(small(seed=5), share=0.5), None):
        there = r"\{'average_flips': False, 'sha256': \['a'\], .*"
        with pytest.raises(InputError, match=rf"c.pt: teacher is {there}, but must be .* as in this training"):
            fit(small(), recipe, checkpoint=path, distillation=other)
    assert timeless(fit(resumed, recipe, distillation=taught(small(seed=5)), checkpoint=path)) == timeless(expected)
    assert same(copied(resumed), copied(straight))


def test_the_callers_generators_are_left_alone(tmp_path: Path) -> None:
    outcomes = []
    for seed in (5, 6):
        torch.manual_seed(seed)
        before, numpy_before = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
        network = small()
        fit(network, RECIPES["sgd"], validation=noise(4), on_epoch=lambda _: outcomes.append(torch.rand(1)))
        torch.manual_seed(seed)
        drawn = torch.cat([torch.rand(1) for _ in range(4)])
        assert torch.equal(torch.cat(outcomes[-4:]), drawn)
        torch.manual_seed(seed)
        fit(small(), RECIPES["sgd"], validation=noise(4))
        with pytest.raises(Killed):
            fit(small(), RECIPES["sgd"], on_epoch=raise_killed)
        assert torch.equal(before, torch.get_rng_state())
        assert np.array_equal(numpy_before, np.random.get_state()[1])  # noqa: NPY002
        outcomes.append(network[0].weight.detach())
    assert torch.equal(outcomes[4], outcomes[9])


def raise_killed(_: Epoch) -> None:
    raise Killed


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_short_training_is_measured_with_the_statistics_of_its_weights(ema: float, tmp_path: Path) -> None:
    """Those of its last epoch's batches, each counting the same: not of earlier weights, nor of none."""
    network, path, recipe = small(dropout=0.0), tmp_path / "c.pt", Recipe(epochs=2, batch_size=8, ema=ema, lr=0.2)
    fit(network, recipe, checkpoint=path, validation=noise(5))
    state = saved(path)["average" if ema else "model"]
    conv = nn.Conv2d(1, 8, 3, 2, 1, bias=False)
    conv.weight.data = state["0.weight"]
    batches = Batches(noise(), GREY, 8, torch.device("cpu"))
    order = torch.Generator().manual_seed(int(np.random.SeedSequence((0, 2)).generate_state(2, np.uint64)[0]))
    draws = batches.draw(order)
    maps = [conv(batches.augmented(draws, x, x + 8)[0]) for x in (0, 8, 16)]
    mean = torch.stack([y.mean((0, 2, 3)) for y in maps]).mean(0)
    variance = torch.stack([y.transpose(0, 1).flatten(1).var(1) for y in maps]).mean(0)
    torch.testing.assert_close(network[1].running_mean, mean)
    torch.testing.assert_close(network[1].running_var, variance)
    assert int(network[1].num_batches_tracked) == 6 and network[1].momentum == 0.1
    assert not torch.allclose(state["1.running_var"], variance)


def test_a_long_training_keeps_its_running_statistics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.training.statistics.SETTLED", 6)
    network, path = small(), tmp_path / "c.pt"
    fit(network, Recipe(epochs=2, batch_size=8, lr=0.2), checkpoint=path)
    assert same(dict(network.state_dict()), dict(saved(path)["model"]))


def test_a_finished_training_is_read_not_trained(tmp_path: Path) -> None:
    path, calls = tmp_path / "c.pt", []
    network, again = small(), small(seed=1)
    curve = fit(network, RECIPES["sgd"], checkpoint=path)
    again.register_forward_pre_hook(lambda net, _: calls.append(1) if net.training else None)
    before = torch.get_rng_state()
    assert fit(again, RECIPES["sgd"], checkpoint=path, until=2) == curve
    assert torch.equal(before, torch.get_rng_state())
    assert not calls and same(dict(again.state_dict()), dict(network.state_dict()))
    assert fit(again, RECIPES["sgd"], checkpoint=path, validation=noise(5))[-1].validation_accuracy is not None


def test_validation_every_so_often_and_at_the_end() -> None:
    recipe, shown = Recipe(epochs=5), []
    curve = fit(small(), recipe, validation=noise(5), every=2, until=3, on_epoch=shown.append)
    assert [epoch.validation_loss is not None for epoch in curve] == [False, True, True]
    assert curve == shown and all(epoch.seconds > 0 for epoch in curve)


@pytest.mark.parametrize("until", [0, 6])
def test_until_must_be_an_epoch(until: int) -> None:
    with pytest.raises(InputError, match=f"^until is {until}, but must be an epoch of the recipe, 1 to 5$"):
        fit(small(), Recipe(epochs=5), until=until)


# --- divergence


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path: Path) -> None:
    def spoil(call: int, x: Tensor, weight: Tensor) -> None:
        if call == 8:
            with torch.no_grad():
                weight.fill_(torch.inf)

    path, network = tmp_path / "c.pt", Watch(spoil)
    with pytest.raises(Diverged) as error:
        fit(network, Recipe(epochs=4, batch_size=8, schedule="constant", lr=0.01), checkpoint=path)
    line = (
        "the loss, in epoch 3 at step 2 of 3, is not finite at lr 0.01; try a lower lr, a longer warm-up or clip_norm"
    )
    assert str(error.value) == line
    assert network.calls == 8
    state = saved(path)
    assert len(state["curve"]) == 2 and all(x.isfinite().all() for x in state["model"].values())


def test_a_last_step_that_spoils_the_weights_is_not_saved(tmp_path: Path) -> None:
    class Steep(nn.Module):
        """A finite loss with a gradient that is not."""

        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.zeros(1, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.a.abs().sqrt().expand(len(x), 3)

    path = tmp_path / "c.pt"
    with pytest.raises(Diverged, match="a weight, after epoch 1, is not finite"):
        fit(Steep(), Recipe(epochs=1), checkpoint=path)
    assert not saved(path)["curve"] and saved(path)["model"]["a"].isfinite().all()


def test_too_high_a_rate_diverges() -> None:
    with pytest.raises(Diverged):
        fit(Watch(lambda *_: None), Recipe(epochs=50, batch_size=4, lr=1e30, schedule="constant"))


# --- checkpoints that cannot be used

BASE = Recipe(epochs=2, batch_size=8)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"recipe": BASE.model_copy(update={"lr": 0.05})}, "recipe.lr is 0.1, but must be 0.05"),
        ({"recipe": BASE.model_copy(update={"epochs": 3})}, "recipe.epochs is 2, but must be 3"),
        ({"recipe": BASE.model_copy(update={"ema": 0.5})}, "recipe.ema is 0.0, but must be 0.5"),
        ({"seed": 7}, "seed is 0, but must be 7"),
        ({"images": noise(30)}, "images is [22, 8, 8, 1], but must be [30, 8, 8, 1]"),
        ({"images": noise(seed=3)}, "labels (CRC-32) is 361954419, but must be 292908709"),
        ({"resolution": 6}, "resolution is 8, but must be 6"),
        (
            {"normalisation": Normalisation((0.5,), (0.3,))},
            "normalisation is [[0.4], [0.3]], but must be [[0.5], [0.3]]",
        ),
        ({"network": nn.Sequential(*small()[:7], nn.Linear(8, 4))}, "model.7.weight is [3, 8], but must be [4, 8]"),
        ({"network": small()[:7]}, "model.7.weight is [3, 8], but must be None"),
        ({"network": small().append(nn.Linear(3, 3))}, "model.8.weight is None, but must be [3, 3]"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(change: dict[str, Any], line: str, tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    fit(small(), BASE, checkpoint=path, until=1)
    before = path.read_bytes()
    network = change.get("network", small(seed=1))
    weights = copied(network)
    options: dict[str, Any] = {"network": network, "recipe": BASE, **change}
    with pytest.raises(InputError) as error:
        fit(options.pop("network"), options.pop("recipe"), checkpoint=path, **options)
    assert str(error.value).startswith(f"{path}: {line}")
    assert str(error.value).endswith(" as in this training; delete the file to start over")
    assert "\n" not in str(error.value)
    assert path.read_bytes() == before and same(copied(network), weights)


def test_a_checkpoint_of_another_training_without_an_epoch_is_overwritten(tmp_path: Path) -> None:
    def die(*_: object) -> None:
        raise Killed

    path, other = tmp_path / "c.pt", BASE.model_copy(update={"batch_size": 4})
    with pytest.raises(Killed):
        fit(Watch(die), BASE, checkpoint=path)
    assert saved(path)["settings"]["recipe.batch_size"] == 8
    assert timeless(fit(small(), other, checkpoint=path)) == timeless(fit(small(), other))
    assert saved(path)["settings"]["recipe.batch_size"] == 4


def test_a_checkpoint_of_more_processes_is_refused_and_one_that_does_not_say_is_of_one(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    fit(small(), BASE, checkpoint=path, until=1)
    state = torch.load(path, weights_only=True)
    assert state["settings"].pop("processes") == 1
    torch.save(state, path)
    fit(small(), BASE, checkpoint=path, until=1)
    state["settings"]["processes"] = 2
    torch.save(state, path)
    with pytest.raises(InputError, match="processes is 2, but must be 1 as in this training"):
        fit(small(), BASE, checkpoint=path)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    fit(small(), BASE, checkpoint=path, until=1)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    foreign = [whole[:cut] for cut in (0, 1, 4, 100, len(whole) // 2, len(whole) - 1)]
    foreign += [
        rng.bytes(200),
        b"epochs: 3\n",
        b"\x80\x02}",
        b"PK\x03\x04" + rng.bytes(100),
        b"\x80\x04" + rng.bytes(99),
    ]
    for content in foreign:
        path.write_bytes(content)
        with pytest.raises(InputError) as error:
            fit(small(), BASE, checkpoint=path)
        assert str(error.value).startswith(f"{path}: is damaged or no checkpoint ("), content[:10]
        assert str(error.value).endswith("; delete the file to start over")
    for data, line in (
        (small().state_dict(), "is no checkpoint of a training; delete the file to start over"),
        ([1, 2], "is no checkpoint of a training; delete the file to start over"),
        ({"format": 0}, "format is 0, but must be 1; delete the file to start over"),
    ):
        torch.save(data, path)
        with pytest.raises(InputError) as error:
            fit(small(), BASE, checkpoint=path)
        assert str(error.value) == f"{path}: {line}"
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        fit(small(), BASE, checkpoint=tmp_path)


def test_nothing_but_the_checkpoint_is_left_in_the_folder(tmp_path: Path) -> None:
    fit(small(), BASE, checkpoint=tmp_path / "deep" / "c.pt")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["c.pt"]


# --- evaluation, and the whole


def test_evaluate_gives_every_module_its_mode_back() -> None:
    network = small()
    network.train()
    network[1].eval()
    flags = [module.training for module in network.modules()]
    before = copied(network)
    evaluate(network, noise(), normalisation=GREY, resolution=8)
    assert [module.training for module in network.modules()] == flags and len(set(flags)) == 2
    assert same(copied(network), before)
    network[0].register_forward_hook(lambda *_: raise_killed(None))  # type: ignore[arg-type]
    with pytest.raises(Killed):
        evaluate(network, noise(), normalisation=GREY, resolution=8)
    assert [module.training for module in network.modules()] == flags


@pytest.mark.parametrize("batch_size", [None, 4, 100])
def test_evaluate_is_accuracy_and_cross_entropy(batch_size: int | None) -> None:
    images, network = noise(30, seed=4), small()
    for _ in range(3):
        network(torch.randn(16, 1, 8, 8))
    outcome = evaluate(network, images, normalisation=GREY, resolution=8, device="cpu", batch_size=batch_size)
    x = (torch.from_numpy(images.pixels).permute(0, 3, 1, 2) / 255 - 0.4) / 0.3
    with torch.no_grad():
        logits, y = network.eval()(x), torch.from_numpy(images.labels)
    assert outcome[0] == pytest.approx((logits.argmax(1) == y).float().mean().item())
    assert outcome[1] == pytest.approx(F.cross_entropy(logits, y).item(), rel=1e-5)


def test_the_device_is_the_fastest_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device() == torch.device("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device() == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device() == torch.device("cuda")


def test_it_learns_digits() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    pixels = np.rint(digits.images * 255 / 16).astype(np.uint8)[..., None]
    parts = [Images(pixels[part], digits.target[part]) for part in (slice(1400), slice(1400, None))]
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after, stride in ((1, 16, 1), (16, 32, 2), (32, 64, 2)):
        layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    recipe = Recipe(epochs=5, batch_size=64, lr=0.05, warmup_epochs=0.5, crop=1, ema=0.98, label_smoothing=0.1)
    curve = train(network, *parts, recipe, normalisation=Normalisation((0.3,), (0.38,)), resolution=8)
    accuracies = [epoch.validation_accuracy or 0.0 for epoch in curve]
    assert accuracies[-1] > 0.9 and curve[-1].train_loss < curve[0].train_loss
