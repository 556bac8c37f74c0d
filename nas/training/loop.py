"""The loop over epochs and steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.augment import Batches, Draws, Normalisation
from nas.data.splits import Images
from nas.files import write_whole
from nas.inputs import damaged, refuse
from nas.machine import keep_freed_memory
from nas.training.checkpoint import FORMAT, read, shapes
from nas.training.measure import measure
from nas.training.mixing import Mixing, mixing
from nas.training.parallel import Group
from nas.training.recipe import Recipe, learning_rate
from nas.training.stages import Loaded, Stage
from nas.training.statistics import is_young, recalibrated
from nas.training.step import Average, autocast, fast, layout, optimiser, precision
from nas.training.teacher import Distillation, Lessons

_CHECK_EVERY = 50
_FOR_STATISTICS = 8
"""Batches that those of a young network are computed from."""
_ON_CPU = ("float32", "bfloat16")
_ON_GPU = (*_ON_CPU, "float16")


@dataclass(frozen=True)
class Epoch:
    """A point of the learning curve. `epoch` counts from 1; `lr` is that of its last step; accuracies are fractions.

    Training loss and accuracy are means over the epoch's augmented images while the weights change; losses are
    cross-entropies with the labels, the training loss with their smoothing. `seconds`: wall time with the validation.
    """

    epoch: int
    lr: float
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float


class Diverged(RuntimeError):  # noqa: N818 - an outcome of a candidate, not a fault of the program
    """The loss or a weight is not finite. The checkpoint, where there is one, is that of the last good epoch."""


def train(
    network: nn.Module,
    images: Images,
    validation: Images | None,
    recipe: Recipe,
    *,
    normalisation: Normalisation,
    resolution: int,
    before: Sequence[Stage] = (),
    distillation: Distillation | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
    until: int | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    every: int = 1,
    group: Group | None = None,
) -> list[Epoch]:
    """Trains `network`, as it is or on from `checkpoint`, up to epoch `until` of the recipe's schedule.

    Returns the curve from epoch 1 on, with the epochs found in the checkpoint. Afterwards `network` is on `device`, in
    eval mode, and holds the weights to use: the moving average where the recipe has one. It is validated, with those
    weights, after every `every` epochs and after `until`; `on_epoch` is called when the epoch's checkpoint is written.

    `images` and `resolution` are of all epochs, or of those behind the stages in `before`; validation images are seen
    at the resolution of their epoch. The schedule counts in epochs, however many images they have. The teachers
    of a `distillation` move to `device`, and stay as they are.

    `checkpoint` is written at the start and after every epoch, and stays. Killed anywhere, or stopped by `until`, and
    called again with the same arguments, a training ends on the CPU, with as many threads and the same kernels (see
    nas.fused), in the same bits as one that ran through; a checkpoint that is already beyond `until` is not trained
    further. What an epoch draws follows from (seed, epoch), so no state of a generator has to be kept; the caller's
    generators are left as they were. On the CPU the process keeps its freed memory from then on, see
    `keep_freed_memory`.

    The processes of a `group` train one network on a part of each batch each, and call this with the same arguments;
    only the first writes the checkpoint. Batch normalisation sees a process' part.

    Raises InputError if the checkpoint is of another training or damaged, if there are fewer than two images a process,
    in all or in a batch, or if `until` is not an epoch of the recipe; Diverged if the loss is not finite. A checkpoint
    of another training that has no epoch yet is overwritten.
    """
    device, last = torch.device(device), recipe.epochs if until is None else until
    if not 1 <= last <= recipe.epochs:
        raise refuse("until", last, f"an epoch of the recipe, 1 to {recipe.epochs}")
    if device.type == "cpu":
        keep_freed_memory()
    stages = [*before, Stage(recipe.epochs, images, resolution)]
    run = _Run(network, stages, validation, recipe, normalisation, distillation, seed, device, group or Group())
    if checkpoint is not None and not (checkpoint.exists() and run.restore(checkpoint)):
        run.save(checkpoint)
    # One that sees no checkpoint, or an older one, would train other epochs than the first.
    first, _ = run.group.told(lambda: (float(len(run.curve)), 0.0), device)
    if len(run.curve) != first:
        raise refuse(f"{checkpoint}: epochs", len(run.curve), f"{first:.0f} as the first process reads there")
    for number in range(len(run.curve) + 1, last + 1):
        epoch = run.epoch(number, validate=number % every == 0 or number == last)
        if checkpoint is not None:
            run.save(checkpoint)
        if on_epoch is not None:
            on_epoch(epoch)
    if run.curve[-1].validation_accuracy is None:
        run.curve[-1] = run.validated(run.curve[-1])
    run.finish()
    return run.curve


class _Run:
    """A training between two epochs: all that the next one depends on, and its way to a file and back."""

    def __init__(
        self,
        network: nn.Module,
        stages: Sequence[Stage],
        validation: Images | None,
        recipe: Recipe,
        normalisation: Normalisation,
        distillation: Distillation | None,
        seed: int,
        device: torch.device,
        group: Group,
    ) -> None:
        for stage in stages:
            if len(stage.images) < group.least:
                rule = f"at least {group.least} to train on: batch normalisation needs two a process"
                raise refuse("images", len(stage.images), rule)
        if recipe.batch_size < group.least:
            rule = f"at least {group.least}: batch normalisation needs two images a process"
            raise refuse("recipe.batch_size", recipe.batch_size, rule)
        self.stages, self.validation, self.normalisation = stages, validation, normalisation
        self.recipe, self.seed, self.device, self.group = recipe, seed, device, group
        self.network = network.to(device).to(memory_format=layout(recipe))
        self.lessons = None if distillation is None else Lessons(distillation, normalisation, device, layout(recipe))
        self.loaded: Loaded | None = None
        self.parameters = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.optimiser = optimiser(self.parameters, recipe)
        self.precision = precision(recipe, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == torch.float16)
        self.average = Average(self.network, recipe.ema) if recipe.ema else None
        self.curve: list[Epoch] = []
        _drop_paths(network, recipe.stochastic_depth)
        self.parallel = group.wrapped(self.network)
        self.mixing: Mixing | None = None
        self.recalibrated: tuple[int, nn.Module] | None = None
        """The epoch that it was done behind, and what is then kept."""

    def settings(self, number: int) -> dict[str, Any]:
        """What epoch `number` and those before it depend on."""
        index = self._stage(number)
        stages = [{"until": stage.until, **stage.about()} for stage in self.stages[:index]]
        return {
            **{f"recipe.{name}": value for name, value in self.recipe.model_dump().items()},
            "seed": self.seed,
            "processes": self.group.size,
            "normalisation": [list(self.normalisation.mean), list(self.normalisation.std)],
            **self.stages[index].about(),
            **({"earlier stages": stages} if stages else {}),
            **({"teacher": self.lessons.distillation.about()} if self.lessons else {}),
        }

    def _stage(self, number: int) -> int:
        return next(index for index, stage in enumerate(self.stages) if number <= stage.until)

    def _load(self, number: int) -> Loaded:
        """The batches of epoch `number`; those of one stage at a time are on the device."""
        stage = self.stages[self._stage(number)]
        if self.loaded is None or self.loaded.stage is not stage:
            self.loaded = None
            options = self.recipe, self.normalisation, self.device, self.group.least
            self.loaded = Loaded.of(stage, self.validation, *options)
        return self.loaded

    def epoch(self, number: int, validate: bool) -> Epoch:
        """Trains epoch `number`, validates it if asked, adds it to the curve. Raises Diverged."""
        start = time.perf_counter()
        loaded = self._load(number)
        batches, steps = loaded.batches, loaded.steps
        draws, network_seed = self._drawn(number, batches)
        total = torch.zeros(3, device=self.device)
        lr, size = 0.0, self.recipe.batch_size
        mixed = self._mixing(batches)
        self.network.train()
        with (
            _seeded(self.device, (network_seed + self.group.rank) % 2**64),
            fast(self.network, self.recipe, self.device),
        ):
            for index in range(steps):
                step, first = (number - 1) * steps + index, index * size
                last = min(first + size, len(batches))
                lr = learning_rate(self.recipe, step, steps)
                x, targets = mixed(*batches.augmented(draws, *self.group.part(first, last)))
                with autocast(self.device, self.precision):
                    logits = self.parallel(x)
                    taught = None if self.lessons is None else self.lessons.log_probabilities(x)
                loss = F.cross_entropy(logits.float(), targets, label_smoothing=self.recipe.label_smoothing)
                total += _counted(loss, logits, targets)
                if self.lessons is not None and taught is not None:
                    loss = self.lessons.loss(loss, logits, taught)
                if self.device.type == "cpu" or (index + 1) % _CHECK_EVERY == 0 or index + 1 == steps:
                    _check(total[0], f"the loss, in epoch {number} at step {index + 1} of {steps}", lr)
                self._update(loss * (len(x) * self.group.size / (last - first)), step, lr)
        finite = torch.stack([parameter.detach().isfinite().all() for parameter in self.parameters])
        _check(torch.where(finite.all(), 0.0, math.nan), f"a weight, after epoch {number}", lr)
        if self.average is not None:
            self.average.copy_counts()
        self.group.add(total)
        summed, correct, trained = total.tolist()
        epoch = Epoch(number, lr, summed / trained, correct / trained, None, None, 0.0)
        if validate:
            epoch = self.validated(epoch)
        self.curve.append(replace(epoch, seconds=time.perf_counter() - start))
        return self.curve[-1]

    def _drawn(self, number: int, batches: Batches) -> tuple[Draws, int]:
        """What the batches of epoch `number` are made with, and a seed for all else in it."""
        order, other = np.random.SeedSequence((self.seed, number)).generate_state(2, np.uint64).tolist()
        return batches.draw(torch.Generator().manual_seed(order)), other

    def _mixing(self, batches: Batches) -> Mixing:
        """The network says how many classes there are: labels need not have all."""
        if self.mixing is None:
            self.network.eval()
            with torch.inference_mode():
                self.mixing = mixing(self.recipe, lambda: self.network(batches.plain(0, 1)[0]).shape[1])
        return self.mixing

    def _update(self, loss: Tensor, step: int, lr: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if self.recipe.clip_norm:
            self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.average is not None:
            self.average.update(step)

    def validated(self, epoch: Epoch) -> Epoch:
        """With its validation, where there are images for it. Raises Diverged."""
        if self.validation is None:
            return epoch
        held = self._load(epoch.epoch).held
        assert held is not None
        accuracy, loss = self.group.told(lambda: measure(self._kept(epoch.epoch), held, self.device), self.device)
        _check(torch.tensor(loss), f"the validation loss, after epoch {epoch.epoch}", epoch.lr)
        return replace(epoch, validation_loss=loss, validation_accuracy=accuracy)

    def _kept(self, number: int) -> nn.Module:
        """The network to use after epoch `number`, its statistics those of the epoch's first batches if it is young."""
        network = self.network if self.average is None else self.average.network
        if not is_young(network):
            return network
        if self.recalibrated is None or self.recalibrated[0] != number:
            loaded, size = self._load(number), self.recipe.batch_size
            draws, seed = self._drawn(number, loaded.batches)
            starts = range(0, min(loaded.steps, _FOR_STATISTICS) * size, size)
            with _seeded(self.device, seed):
                inputs = (loaded.batches.augmented(draws, x, x + size)[0] for x in starts)
                self.recalibrated = number, recalibrated(network, inputs)
        return self.recalibrated[1]

    def finish(self) -> None:
        kept = self._kept(len(self.curve))
        if kept is not self.network:
            self.network.load_state_dict(kept.state_dict())
        self.group.send(list(self.network.state_dict().values()))
        _drop_paths(self.network, 0.0)
        self.network.zero_grad(set_to_none=True)
        self.network.eval()

    def save(self, path: Path) -> None:
        """Written by the first process of the group alone."""
        if not self.group.first:
            return
        state = {
            "format": FORMAT,
            "settings": self.settings(max(1, len(self.curve))),
            "precision": str(self.precision).removeprefix("torch."),
            "curve": [asdict(epoch) for epoch in self.curve],
            "model": self.network.state_dict(),
            "average": None if self.average is None else self.average.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        write_whole(path, lambda temporary: torch.save(state, temporary))

    def restore(self, path: Path) -> bool:
        """Takes over what `save` wrote. With nothing taken over, if it is not of this training: False where there is no
        epoch in it to lose, or else raises InputError."""
        again = "delete the file to start over"
        state = read(path, again)
        with damaged(str(path), again):
            return self._take_over(state, path, again)

    def _take_over(self, state: dict[str, Any], path: Path, again: str) -> bool:
        curve = [Epoch(**epoch) for epoch in state["curve"]]
        number = min(max(1, len(curve)), self.recipe.epochs)
        here = {**self.settings(number), **shapes(self.network.state_dict())}
        there = {"processes": 1, **state["settings"], **shapes(state["model"])}
        for name in [*here, *(name for name in there if name not in here)]:
            if here.get(name) != there.get(name):
                if not curve:
                    return False
                raise refuse(f"{path}: {name}", there.get(name), f"{here.get(name)!r} as in this training; {again}")
        kept = state.get("precision")
        if self.recipe.precision == "auto" and kept in (_ON_CPU if self.device.type == "cpu" else _ON_GPU):
            self.precision = getattr(torch, str(kept))
            self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == torch.float16)
        self.network.load_state_dict(state["model"])
        if self.average is not None:
            self.average.network.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        self.curve = curve
        return True


@contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Global generators of the CPU and of `device` seeded, and afterwards as they were; other devices untouched."""
    index = device.index if device.index is not None else torch.cuda.current_device() if device.type == "cuda" else 0
    with torch.random.fork_rng([] if device.type == "cpu" else [index], device_type=device.type):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(index):
                torch.cuda.manual_seed(seed)
        elif device.type == "mps":
            torch.mps.manual_seed(seed)
        yield


def _counted(loss: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """(3,): summed loss, right answers and images of a batch; of mixed labels the greater share's counts."""
    labels = targets if targets.ndim == 1 else targets.argmax(1)
    right = (logits.detach().argmax(1) == labels).sum()
    return torch.stack([loss.detach() * len(labels), right, torch.full_like(right, len(labels))])


def _drop_paths(network: nn.Module, last: float) -> None:
    """A module of that name, as timm's blocks have one, is not ours to set."""
    blocks: list[Any] = [x for x in network.modules() if isinstance(getattr(x, "drop_path", None), float)]
    for index, block in enumerate(blocks):
        block.drop_path = last * index / max(1, len(blocks) - 1)


def _check(value: Tensor, what: str, lr: float) -> None:
    if not math.isfinite(value.item()):
        raise Diverged(f"{what}, is not finite at lr {lr:g}; try a lower lr, a longer warm-up or clip_norm")
