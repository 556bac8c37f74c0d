"""A retrained network as the file that a runtime reads, proven on images before it counts."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from nas.augment import Batches, Normalisation
from nas.data import DataConfig, Splits
from nas.data import load as load_data
from nas.data.splits import Images
from nas.export import EXPORTERS, Card, Format, write_proven
from nas.export.format import Floats
from nas.export.int8 import CALIBRATION
from nas.export.proof import accuracy
from nas.files import write_json, write_whole
from nas.inputs import InputError, choices, damaged, refuse
from nas.latency.measure import Effort, measure
from nas.machine import version_of, versions
from nas.network import Network
from nas.retrain import load
from nas.run import Run

IMAGES = 1_000
"""Of the validation split, that a file is compared with PyTorch on; all of them where there are fewer."""
TIMING = Effort(least=8, most=50)


@dataclass(frozen=True)
class Exported:
    """A file, and what is known of it (beside it, as FILE.json)."""

    file: Path
    facts: dict[str, Any]


def export(
    place: Path | str,
    pick: str | None = None,
    form: str = "onnx",
    *,
    out: Path | str | None = None,
    data_root: str | None = None,
    int8: bool = False,
) -> Exported:
    """Writes a retrained network in a format of EXPORTERS, by default to export/ID.onnx in its folder.

    `place` is a folder that `nas retrain` made, or a run, of which `pick` (knee, the default, best or an id) names
    the candidate. Only a file that the runtime reads, and that predicts what PyTorch does on IMAGES images of the
    validation split, is written. `int8` writes the same in 8-bit whole numbers beside it (-int8), calibrated on
    CALIBRATION training images, and says what either is worth: accuracy on the whole validation split, and how long
    an image takes here on one thread.
    Raises InputError if not, if the candidate was not retrained, or was several times, or the runtime or the
    images are missing.
    """
    if form not in EXPORTERS:
        raise refuse("--format", form, choices(EXPORTERS))
    format_ = EXPORTERS[form]
    if int8 and format_.quantise is None:
        with_int8 = [name for name, each in EXPORTERS.items() if each.quantise is not None]
        raise refuse("--format", form, f"for --int8 {choices(with_int8)}")
    format_.check()
    trained = Trained.find(place, pick, data_root)
    file = Path(out) if out is not None else trained.folder / "export" / f"{trained.card.id}{format_.suffix}"
    if file.suffix != format_.suffix or file.is_dir():
        raise refuse("--out", str(file), f"a file that ends in {format_.suffix}")
    splits = trained.splits()
    network, images = trained.network(), trained.images(splits.validation, IMAGES)
    proof = write_proven(format_, network, trained.card, images, file)
    facts = {**trained.facts(form), **asdict(proof), "bytes": file.stat().st_size, "versions": made_with(format_)}
    write_json(beside := file.with_name(f"{file.name}.json"), facts)
    if int8:
        facts["int8"] = _quantised(trained, splits, format_, file)
        write_json(beside, facts)
    return Exported(file, facts)


def _quantised(trained: Trained, splits: Splits, form: Format, file: Path) -> dict[str, Any]:
    """Writes the int8 file beside `file`, once the runtime has read it and scored it, and measures both."""
    assert form.quantise is not None
    quantise, small = form.quantise, file.with_name(f"{file.stem}-int8{form.suffix}")
    calibration = trained.images(splits.train, CALIBRATION)
    predicts = [form.load(file)]
    accuracies: list[float] = []

    def write(temporary: Path) -> None:
        quantise(file, calibration, temporary)
        predicts.append(form.load(temporary))
        accuracies.extend(accuracy(each, trained.batches(splits.validation).arrays()) for each in predicts)

    write_whole(small, write)
    whole, eighth = predicts
    image = calibration[:1]
    runs = [lambda: whole(image), lambda: eighth(image)]
    timings = measure(runs, runs[0], TIMING, one_thread=True)
    ms = [each.ratio * timings.unit * 1e3 for each in timings.models]
    return {
        "file": small.name,
        "bytes": small.stat().st_size,
        "images": len(splits.validation),
        "accuracy": accuracies[0],
        "accuracy_int8": accuracies[1],
        "latency_ms": ms[0],
        "latency_int8_ms": ms[1],
        "latency_ratio": ms[1] / ms[0],
        "quiet": min(each.quiet for each in timings.models),
    }


@dataclass(frozen=True)
class Trained:
    """A folder that `nas retrain` finished, and where its images are."""

    folder: Path
    card: Card
    data: DataConfig
    trained_on: str
    """The splits, as in `retrain.data` of a study."""

    @classmethod
    def find(cls, place: Path | str, pick: str | None, data_root: str | None) -> Trained:
        """See `export`."""
        folder = _retrained(Path(place), pick)
        file, root = folder / "result.json", data_root or _root(folder)
        with damaged(str(file), "delete it and retrain again"):
            result = json.loads(file.read_text(encoding="utf-8"))
            channels, side = len(result["mean"]), result["resolution"]
            moments = tuple(result["mean"]), tuple(result["std"])
            card = Card(result["id"], channels, side, *moments, tuple(result["classes"]))
            data = {key: value for key, value in result["data"].items() if key != "trained_on"}
            return cls(folder, card, DataConfig(**data, root=root), result["data"]["trained_on"])

    def network(self) -> Network:
        return load(self.folder)

    def splits(self) -> Splits:
        return load_data(self.data)

    def batches(self, images: Images) -> Batches:
        normalisation = Normalisation(self.card.mean, self.card.std)
        return Batches(images, normalisation, self.card.resolution, torch.device("cpu"))

    def images(self, images: Images, count: int) -> Floats:
        """(n, channels, resolution, resolution) normalised, of at most `count` images, every class in proportion."""
        batches = self.batches(images.some(count))
        return next(batches.arrays(count))[0]

    def facts(self, form: str) -> dict[str, Any]:
        return {
            "id": self.card.id,
            "format": form,
            "retrained": str(self.folder),
            "trained_on": self.trained_on,
            "input": self.card.texts()["input"],
        }


def made_with(form: Format) -> dict[str, str]:
    return {**versions(), **{name: version_of(name) for name in form.packages}}


def _retrained(place: Path, pick: str | None) -> Path:
    if (place / "result.json").is_file() and (place / "architecture.yaml").is_file():
        if pick is not None:
            raise refuse("--pick", pick, f"left out: {place} is the folder of one retraining")
        return place
    run = Run.open(place)
    architecture, _ = run.pick(pick or "knee")
    found = sorted(file.parent for file in (run.folder / "retrain").glob(f"{architecture.id}-*/result.json"))
    if not found:
        todo = f"nas retrain {place} --pick {architecture.id}"
        raise InputError(f"{place}: candidate {architecture.id} was not retrained yet; first: {todo}")
    if len(found) > 1:
        raise InputError(
            f"{place}: candidate {architecture.id} was retrained {len(found)} times; name one folder instead of the "
            f"run: {', '.join(map(str, found))}"
        )
    return found[0]


def _root(folder: Path) -> str | None:
    """Where the images of the run are that a retrained folder lies in, if it lies in one."""
    run = folder.absolute().parent.parent
    return Run.open(run).config.data.root if (run / "study.yaml").is_file() else None
