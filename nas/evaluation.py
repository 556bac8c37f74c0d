"""The only place where an architecture becomes a measurement."""

from __future__ import annotations

import time
import traceback
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from nas.architecture import Architecture
from nas.data import DataConfig, Splits, load
from nas.files import write_text
from nas.inputs import InputError
from nas.network import build
from nas.training import Diverged, Normalisation, Recipe, train


@dataclass(frozen=True)
class Rung:
    """One fidelity of the proxy: train up to `epochs` on a `share` of the training set."""

    epochs: int
    share: float = 1.0


@dataclass(frozen=True)
class Job:
    """What to measure: trial `number` at rung `index`; `folder` holds its checkpoint."""

    number: int
    architecture: Architecture
    index: int
    rung: Rung
    seed: int
    folder: Path


@dataclass(frozen=True)
class Measurement:
    """What came of a job. Either `accuracy` (fraction, validation split) or `failure` (why there is none)."""

    accuracy: float | None = None
    loss: float | None = None
    epochs: int = 0
    seconds: float = 0.0
    failure: str | None = None
    curve: list[dict[str, Any]] = field(default_factory=list)


class Evaluator(ABC):
    """Gives a job's measurement. Must be picklable: worker processes get a copy."""

    @abstractmethod
    def evaluate(self, job: Job) -> Measurement: ...


@dataclass(frozen=True)
class ProxyTraining(Evaluator):
    """Short training, scored on the validation split. Candidates of a study share the recipe and the seed's data."""

    data: DataConfig
    recipe: Recipe
    device: str = "cpu"

    @cached_property
    def splits(self) -> Splits:
        return load(self.data)

    def evaluate(self, job: Job) -> Measurement:
        """Trains on from the job's checkpoint. What goes wrong with a candidate is its failure, not the study's."""
        start = time.perf_counter()
        try:
            curve = train(
                build(job.architecture, job.seed),
                self.splits.train.share(job.rung.share, self.data.seed),
                self.splits.validation,
                self.recipe,
                normalisation=Normalisation(self.splits.mean, self.splits.std),
                resolution=job.architecture.resolution,
                seed=job.seed,
                device=self.device,
                checkpoint=job.folder / "checkpoint.pt",
                until=job.rung.epochs,
                every=job.rung.epochs,
            )
        except Diverged as error:
            return Measurement(failure=f"diverged: {error}", seconds=time.perf_counter() - start)
        except InputError:
            raise
        except (MemoryError, torch.OutOfMemoryError) as error:
            return Measurement(failure=f"out of memory: {error}", seconds=time.perf_counter() - start)
        except Exception as error:  # noqa: BLE001 - whatever it is, it costs this candidate and is on record
            write_text(job.folder / "error.txt", traceback.format_exc())
            return Measurement(failure=f"{type(error).__name__}: {error}", seconds=time.perf_counter() - start)
        last = curve[-1]
        return Measurement(
            accuracy=last.validation_accuracy,
            loss=last.validation_loss,
            epochs=last.epoch,
            seconds=time.perf_counter() - start,
            curve=[asdict(epoch) for epoch in curve],
        )
