"""The only place where an architecture becomes a measurement."""

from __future__ import annotations

import errno
import json
import logging
import math
import statistics
import time
import traceback
import zlib
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nas.architecture import Architecture
from nas.augment import Batches
from nas.data import DataConfig, Splits, load
from nas.data.splits import Images
from nas.export.int8 import CALIBRATION
from nas.export.onnx import int8_predict
from nas.export.proof import accuracy
from nas.files import sweep, write_text
from nas.inputs import InputError, first_line, is_out_of_memory
from nas.network import build
from nas.training import Diverged, Epoch, Normalisation, Recipe, Stage, train

logger = logging.getLogger("nas")
ERROR_FILE = "error.txt"
"""In a job's folder: the traceback of what its evaluation raised."""
ATTEMPTS_FILE = "attempts.json"
"""In a job's folder: how often it was begun since there last was something new, and what was there then."""
ATTEMPTS = 10
"""So often is a job begun without anything new in its folder: its process ended each time, and nobody saw why."""
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""The disk is full or cannot be written: no candidate's fault."""


@dataclass(frozen=True)
class Rung:
    """One fidelity of the proxy: up to `epochs` on a `share` of the training set, at a multiple of the resolution."""

    epochs: int
    share: float = 1.0
    resolution: float = 1.0


@dataclass(frozen=True)
class Job:
    """What to measure: trial `number` at the last of `rungs`, trained up through all of them; `folder` holds its
    checkpoint. Longer than `limit_seconds` it does not take, unless it hangs."""

    number: int
    architecture: Architecture
    rungs: tuple[Rung, ...]
    seed: int
    folder: Path
    limit_seconds: float = math.inf

    @property
    def rung(self) -> Rung:
        return self.rungs[-1]


@dataclass(frozen=True)
class Measurement:
    """What came of a job. Either `accuracy` (fraction, validation split) or `failure` (why there is none, one line).

    `accuracy` and `loss` are means where the candidate was trained from several seeds, `accuracy_std` is then the
    sample standard deviation. `epochs` are all that it has been trained for; `seconds` are this job's wall time;
    `curve` is of plain values, an epoch of a seed each. `accuracy_int8` is that of the same networks in int8, where it
    was asked for beside it; where `accuracy` itself is (and the last in the curve, too), `accuracy_float32` is of those
    that were trained. All of it goes into the record, as JSON.
    """

    accuracy: float | None = None
    loss: float | None = None
    accuracy_std: float | None = None
    epochs: int = 0
    seconds: float = 0.0
    failure: str | None = None
    curve: list[dict[str, Any]] = field(default_factory=list)
    accuracy_int8: float | None = None
    accuracy_float32: float | None = None


class Evaluator(ABC):
    """Gives a job's measurement. Must be picklable: worker processes get a copy."""

    device: str = "cpu"
    """Where it trains."""

    @abstractmethod
    def evaluate(self, job: Job) -> Measurement:
        """Trains on from what the job's folder holds. May raise, see `measure`."""

    def work(self, macs: float, rungs: tuple[Rung, ...]) -> float:
        """The multiply-adds that training from the last rung but one to the last takes, about; 0 if that is not known.

        `macs` are the network's for one image at its full resolution.
        """
        return 0.0

    def images(self) -> Any:
        """What is large and alike for all jobs, to be shared by those on one machine; None if there is nothing."""
        return None

    def give(self, images: Any) -> None:
        """Takes the `images` of this evaluator's original, not to be changed, instead of reading them itself."""
        return


def measure(evaluator: Evaluator, job: Job) -> Measurement:
    """The evaluator's measurement; what goes wrong with a candidate, or a value that is none, is its failure.

    Raises what is not the candidate's fault: InputError, OSError where the disk is full or cannot be written, and
    AcceleratorError, after which this process cannot use its GPU any more.
    """
    start = time.perf_counter()
    if begin(job.folder) > ATTEMPTS:
        return Measurement(failure=f"was begun {ATTEMPTS} times and did not get through an epoch")
    try:
        return _checked(evaluator.evaluate(job))
    except (InputError, torch.AcceleratorError):
        raise
    except Diverged as error:
        failure = f"diverged: {error}"
    except Exception as error:  # whatever it is, it costs this candidate and is on record
        if isinstance(error, OSError) and error.errno in DISK:
            raise
        if is_out_of_memory(error):
            failure = f"out of memory: {error}"
        else:
            write_text(job.folder / ERROR_FILE, traceback.format_exc())
            failure = f"{type(error).__name__}: {error}"
    return Measurement(failure=first_line(failure), seconds=time.perf_counter() - start)


def begun(folder: Path) -> int:
    """How often the job of this folder was begun since there was something new in it."""
    try:
        known = json.loads((folder / ATTEMPTS_FILE).read_text(encoding="utf-8"))
        return int(known["begun"]) if known["found"] == found(folder) else 0
    except (OSError, ValueError, TypeError, KeyError):  # there is none, or it is damaged
        return 0


def begin(folder: Path) -> int:
    """Notes that the job of this folder is begun (again), before it can end its process; returns `begun`.

    What its killed writers left there is removed: nobody else writes into it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder, 0)
    count = begun(folder) + 1
    # Not synced: it is for a process that dies; a machine that does has lost nothing but the count.
    text = json.dumps({"begun": count, "found": found(folder)})
    (folder / ATTEMPTS_FILE).write_text(text, encoding="utf-8")
    return count


def found(folder: Path) -> list[list[str | int]]:
    """What is in a job's folder, by content: a copy of it, made for another machine, is nothing new."""
    files = [file for file in sorted(folder.glob("[!.]*")) if file.name != ATTEMPTS_FILE]
    return [[file.name, zlib.crc32(file.read_bytes())] for file in files]


def _checked(measurement: Measurement) -> Measurement:
    """With plain floats. Raises Diverged if there is neither a finite accuracy nor a failure."""
    if measurement.failure is not None:
        return measurement
    if measurement.accuracy is None or not math.isfinite(measurement.accuracy):
        raise Diverged(f"its accuracy is {measurement.accuracy}")
    return replace(measurement, accuracy=float(measurement.accuracy), loss=measurement.loss and float(measurement.loss))


@dataclass(frozen=True)
class ProxyTraining(Evaluator):
    """Short training, scored on the validation split. Candidates of a study share the recipe and the images.

    Each is trained from `seeds` seeds, the job's and those that follow it, for weights, order and augmentation, and
    validated after every `every` epochs, by default at the end of a job alone. At the rung `int8` they are quantised,
    too, calibrated on CALIBRATION of the training images; with `precision` int8 they are at every rung, and that is
    what they are scored by.
    """

    data: DataConfig
    recipe: Recipe
    device: str = "cpu"
    seeds: int = 1
    every: int | None = None
    int8: Rung | None = None
    precision: str = "float32"

    @cached_property
    def splits(self) -> Splits:
        return load(self.data)

    @cached_property
    def _shares(self) -> dict[float, Images]:
        """Parts of the training set that were used."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        """Without the images: a worker process reads, or maps, them itself."""
        return {
            name: value for name, value in self.__dict__.items() if name not in {"splits", "_shares", "_calibration"}
        }

    def images(self) -> Splits:
        return self.splits

    def give(self, images: Splits) -> None:
        self.__dict__["splits"] = images

    def work(self, macs: float, rungs: tuple[Rung, ...]) -> float:
        """A backward pass counts as two; validation once at the end, or after each of so many epochs."""
        before = rungs[-2].epochs if len(rungs) > 1 else 0
        trained, held, rung = len(self.splits.train), len(self.splits.validation), rungs[-1]
        validations = (rung.epochs - before) / (self.every or rung.epochs - before)
        passes = 3 * (rung.epochs - before) * rung.share * trained + validations * held
        return self.seeds * macs * rung.resolution**2 * passes

    def evaluate(self, job: Job) -> Measurement:
        """Trains on from the job's checkpoints; one that cannot be used costs a warning and the epochs in it."""
        start = time.perf_counter()
        curves: dict[int, list[Epoch]] = {}
        in_int8: list[float] = []
        scored_in_int8 = self.precision == "int8"
        for index in range(self.seeds):
            curves[job.seed + index], network = self._resumed(job, index)
            if scored_in_int8 or job.rung == self.int8:
                in_int8.append(self._accuracy_int8(network, job))
        last = [curve[-1] for curve in curves.values()]
        losses = [epoch.validation_loss for epoch in last if epoch.validation_loss is not None]
        trained = [epoch.validation_accuracy for epoch in last if epoch.validation_accuracy is not None]
        accuracies = in_int8 if scored_in_int8 else trained
        if scored_in_int8:
            for curve, found in zip(curves.values(), in_int8, strict=True):
                curve[-1] = replace(curve[-1], validation_accuracy=found)
        return Measurement(
            accuracy=statistics.fmean(accuracies),
            loss=statistics.fmean(losses),
            accuracy_std=statistics.stdev(accuracies) if self.seeds > 1 else None,
            epochs=last[0].epoch,
            seconds=time.perf_counter() - start,
            curve=[{"seed": seed, **asdict(epoch)} for seed, curve in curves.items() for epoch in curve],
            accuracy_int8=statistics.fmean(in_int8) if job.rung == self.int8 else None,
            accuracy_float32=statistics.fmean(trained) if scored_in_int8 else None,
        )

    @cached_property
    def _calibration(self) -> Images:
        return self.splits.train.some(CALIBRATION)

    def _accuracy_int8(self, network: nn.Module, job: Job) -> float:
        """Of a trained network, on the validation split."""
        normalisation = Normalisation(self.splits.mean, self.splits.std)
        resolution = self._stage(job.rung, job.architecture).resolution
        calibration, validation = (
            Batches(images, normalisation, resolution, torch.device("cpu"))
            for images in (self._calibration, self.splits.validation)
        )
        predict = int8_predict(network.cpu(), next(calibration.arrays(CALIBRATION))[0])
        return accuracy(predict, validation.arrays())

    def _resumed(self, job: Job, index: int) -> tuple[list[Epoch], nn.Module]:
        checkpoint = job.folder / f"checkpoint{index or ''}.pt"
        try:
            return self._train(job, job.seed + index, checkpoint)
        except InputError as error:
            if not checkpoint.exists():
                raise
            logger.warning("candidate %d is trained from its start: %s", job.number, error)
            checkpoint.unlink()
            return self._train(job, job.seed + index, checkpoint)

    def _train(self, job: Job, seed: int, checkpoint: Path) -> tuple[list[Epoch], nn.Module]:
        network = build(job.architecture, seed)
        *before, last = [self._stage(rung, job.architecture) for rung in turns(job.rungs)]
        curve = train(
            network,
            last.images,
            self.splits.validation,
            self.recipe,
            normalisation=Normalisation(self.splits.mean, self.splits.std),
            resolution=last.resolution,
            before=before,
            seed=seed,
            device=self.device,
            checkpoint=checkpoint,
            until=job.rung.epochs,
            every=self.every or job.rung.epochs,
        )
        return curve, network

    def _stage(self, rung: Rung, architecture: Architecture) -> Stage:
        resolution = max(1, round(rung.resolution * architecture.resolution))
        if rung.share not in self._shares:
            self._shares[rung.share] = self.splits.train.share(rung.share, self.data.seed)
        return Stage(rung.epochs, self._shares[rung.share], resolution)


def turns(rungs: tuple[Rung, ...]) -> tuple[Rung, ...]:
    """Of rungs that train alike, one after the other, the last: where the images change."""
    return (*(rung for rung, after in pairwise(rungs) if replace(rung, epochs=after.epochs) != after), rungs[-1])
