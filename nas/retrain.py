"""Full training of one candidate; the only place that reads the test set, once, at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save

from nas.architecture import Architecture
from nas.blocks import BLOCKS
from nas.card import write_card
from nas.config import RetrainConfig
from nas.costs import costs
from nas.data import DataConfig, Splits
from nas.data import load as load_data
from nas.data.splits import Images
from nas.files import FOLDER_NAME, is_folder_name, sweep, write_json, write_text, write_whole
from nas.inputs import InputError, damaged, first_line, is_out_of_memory, refuse
from nas.machine import hardware, versions
from nas.network import Network, build
from nas.run import Run
from nas.storages import locked
from nas.training import (
    Distillation,
    Diverged,
    Epoch,
    Group,
    Normalisation,
    Recipe,
    Stage,
    Teacher,
    as_many_threads,
    evaluate,
    pick_device,
    pick_threads,
    together,
    train,
)
from nas.weights import WEIGHTS_FILE, Start, load_weights, read_tensors, slug


@dataclass(frozen=True)
class Retrained:
    """The folder of a full training, and what its result.json says."""

    folder: Path
    result: dict[str, Any]


def retrain(
    run: Run,
    pick: str = "knee",
    *,
    epochs: int | None = None,
    seed: int = 0,
    device: str | None = None,
    data_root: str | None = None,
    weights: Path | str | None = None,
    name: str | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Retrained:
    """Trains a candidate (`pick`: knee, best or an id) as the study's `retrain` section says; goes on where it was.

    `pick` may also be the file (.yaml) of any architecture for the study's images. Processes that torchrun starts train
    it together.

    It begins with the weights that `seed` draws, or with `weights` (a file, a retrain folder or "imagenet", see
    `load_weights`), by default those that the study's `retrain.weights` names.

    The folder, retrain/ID-`name` in the run (without one, named after epochs, seed, weights and teachers), gets
    architecture.yaml, weights.safetensors, curve.csv, README.md (its card) and result.json; one that has a result.json
    is finished and is returned as it is. Raises InputError for a candidate that is not there, for weights or a teacher
    that do not fit it, for a name that is none, or a folder that was begun with another recipe, data, seed, weights or
    teacher or is being trained by another process, or if the loss is not finite or the memory too small.
    """
    if name is not None and not is_folder_name(name):
        raise refuse("name", name, FOLDER_NAME)
    architecture = Architecture.load(pick) if pick.endswith(".yaml") else run.pick(pick)[0]
    recipe, config = run.config.retrain_recipe(epochs), run.config.retrain
    assert config is not None, "or there is no recipe"
    network = build(architecture, seed)
    start = config.weights if weights is None else weights
    folders = config.teacher.folder if config.teacher else []
    with together(device or run.config.device or str(pick_device())) as (group, place):
        training = _Training(
            architecture=architecture,
            recipe=recipe,
            data=run.config.data if data_root is None else run.config.data.model_copy(update={"root": data_root}),
            config=config,
            label=name,
            seed=seed,
            device=str(place),
            start=None if start is None else load_weights(network, start),
            teachers=[(folder, read_tensors(Path(folder, WEIGHTS_FILE))[1]) for folder in folders],
            group=group,
        )
        training.check()
        folder = run.folder / "retrain" / training.name
        with locked(folder / "train.lock", "trained") if group.first else nullcontext():
            try:
                return Retrained(folder, training.finish(folder, network, on_epoch))
            except Diverged as error:
                raise InputError(f"{folder}: {error}") from None
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                rule = "a smaller retrain.recipe.batch_size needs less"
                raise InputError(f"{folder}: out of memory ({first_line(error)}); {rule}") from None


_BEGUN = ("checkpoint.pt", "result.json")
_AGAIN = "move the folder away or choose another --name to train again"


def _weights(sha256: str | None) -> str:
    return f"weights of SHA-256 {sha256}" if sha256 else "weights that its seed draws"


def _flat(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{section}.{name}": value for section, part in sections.items() for name, value in part.items()}


@dataclass(frozen=True)
class _Training:
    """All that a full training depends on."""

    architecture: Architecture
    recipe: Recipe
    data: DataConfig
    config: RetrainConfig
    label: str | None
    seed: int
    device: str
    start: Start | None
    teachers: list[tuple[str, str]]
    """The folder of each, and the SHA-256 of its weights."""
    group: Group

    @property
    def name(self) -> str:
        if self.label is not None:
            return f"{self.architecture.id}-{self.label}"
        name = f"{self.architecture.id}-epochs{self.recipe.epochs}-seed{self.seed}"
        if self.start is not None:
            name += f"-from-{slug(self.start.source) or self.start.sha256}"
        name += "".join(f"-by-{slug(folder) or sha256}" for folder, sha256 in self.teachers)
        return name[:200]  # file systems take 255 bytes

    def settings(self) -> dict[str, dict[str, Any]]:
        data = self.data.model_dump(mode="json", exclude={"root", "download"})
        config = self.config.model_dump(mode="json", include={"progressive", "average_flips"})
        weights = [sha256 for _, sha256 in self.teachers]
        teacher = self.config.teacher and {**self.config.teacher.model_dump(exclude={"folder"}), "sha256": weights}
        return {
            "data": data | {"trained_on": self.config.data},
            "recipe": self.recipe.model_dump(mode="json"),
            "training": {**config, "teacher": teacher},
        }

    def check(self) -> None:
        """Raises InputError if the resolution is to change and the architecture's cannot."""
        bound = [x.block for x in self.architecture.layers if BLOCKS[x.block].one_resolution]
        if bound and self.config.progressive:
            parts = [part.model_dump() for part in self.config.progressive]
            why = f"the weights of block {bound[0]} in architecture {self.architecture.id} belong to one resolution"
            raise refuse("retrain.progressive", parts, f"empty, as {why}: --set 'retrain.progressive=[]'")

    def finish(self, folder: Path, network: Network, on_epoch: Callable[[Epoch], None] | None) -> dict[str, Any]:
        """Trains on from what is in the folder, or else `network`, to its result.json. Returns that."""
        if self.group.first:
            self._begin(folder)
        if (folder / "result.json").exists():
            return self._result(folder)
        if self.group.first:
            sweep(folder, 0)  # nobody else writes there
        splits = load_data(self.data)
        self._fits(splits)
        distillation = self._distillation(splits)
        both = self.config.data == "train+validation"
        images = splits.train_and_validation if both else splits.train
        with as_many_threads(self._threads(folder, network)):
            curve = train(
                network,
                images,
                None if both else splits.validation,
                self.recipe,
                normalisation=Normalisation(splits.mean, splits.std),
                resolution=self.architecture.resolution,
                seed=self.seed,
                device=self.device,
                before=self._before(images),
                distillation=distillation,
                checkpoint=folder / "checkpoint.pt",
                on_epoch=on_epoch,
                group=self.group,
            )
            if self.group.first:
                self._write(folder, network, curve, splits, len(images))
        self.group.wait()
        return self._result(folder)

    def _fits(self, splits: Splits) -> None:
        """Raises InputError if the architecture is one for other images."""
        takes = self.architecture.in_channels, self.architecture.classes
        there = splits.shape[0], len(splits.classes)
        if takes != there:
            rule = f"{there} as the images of {self.data.source} have them"
            raise refuse(f"architecture {self.architecture.id}: (channels, classes)", takes, rule)

    def _distillation(self, splits: Splits) -> Distillation | None:
        if self.config.teacher is None:
            return None
        teachers = tuple(self._teacher(folder, sha256, splits) for folder, sha256 in self.teachers)
        return Distillation(teachers, **self.config.teacher.model_dump(exclude={"folder"}))

    def _teacher(self, folder: str, sha256: str, splits: Splits) -> Teacher:
        """Raises InputError if it knows other classes, or its folder is damaged."""
        network, channels, file = load(folder), splits.shape[0], Path(folder, "result.json")
        try:
            result = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{file}: cannot be read: {first_line(error)}") from None
        with damaged(str(file)):
            classes, side = list(result["classes"]), int(result["resolution"])
            mean, std = (tuple(map(float, result[name])) for name in ("mean", "std"))
        if not len(mean) == len(std) == channels:
            rule = f"{channels} as the images of {self.data.source} have"
            raise refuse(f"teacher {folder}: channels", len(mean), rule)
        if classes != list(splits.classes):
            raise refuse(
                f"teacher {folder}: classes", classes, f"{list(splits.classes)} as those of {self.data.source}"
            )
        return Teacher(network, Normalisation(mean, std), side, sha256)

    def _threads(self, folder: Path, network: Network) -> int:
        """Those that the training began with: other numbers of them would round otherwise."""
        file = folder / "threads.json"
        if self.group.size > 1 or torch.device(self.device).type != "cpu":
            return torch.get_num_threads()
        if not file.exists():
            architecture = self.architecture
            sizes = architecture.in_channels, architecture.resolution
            count = pick_threads(network, architecture.id, self.recipe, *sizes)
            write_json(file, {"threads": count})
        with damaged(str(file), "delete it to go on with other threads"):
            return int(json.loads(file.read_text(encoding="utf-8"))["threads"])

    def _before(self, images: Images) -> list[Stage]:
        full, parts = self.architecture.resolution, self.config.parts(self.recipe.epochs)[:-1]
        return [Stage(until, images, max(1, round(multiple * full))) for until, multiple in parts]

    def _write(self, folder: Path, network: Network, curve: list[Epoch], splits: Splits, images: int) -> None:
        write_text(folder / "architecture.yaml", self.architecture.to_yaml())
        weights = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
        about = {"architecture": self.architecture.id}
        # Not `save_file`, whose files others may not read.
        write_whole(folder / WEIGHTS_FILE, lambda path: path.write_bytes(save(weights, about)))
        table = pd.DataFrame([vars(epoch) for epoch in curve])
        write_whole(folder / "curve.csv", lambda path: table.to_csv(path, index=False))
        seconds = sum(epoch.seconds for epoch in curve)
        result = self._tested(folder, splits, images, seconds)
        write_card(folder, self.architecture, result)
        write_json(folder / "result.json", result)

    def _begin(self, folder: Path) -> None:
        """Writes what the training starts from, where it does not start from nothing, into start.json.

        Raises InputError if the folder was begun with other weights: its name has only the last name of their source.
        """
        file, here = folder / "start.json", None if self.start is None else self.start.sha256
        if self.start is not None and not any((folder / name).exists() for name in (file.name, *_BEGUN)):
            write_json(file, {"source": self.start.source, "sha256": here})
        try:
            before = json.loads(file.read_text(encoding="utf-8"))["sha256"] if file.exists() else None
        except (KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError):
            raise InputError(f"{file}: is damaged; {_AGAIN}") from None
        if before != here:
            raise InputError(f"{folder}: was begun with {_weights(before)}, not with {_weights(here)}; {_AGAIN}")

    def _tested(self, folder: Path, splits: Splits, images: int, seconds: float) -> dict[str, Any]:
        """The result. What is tested is the network that `load` gives, so the accuracy is that of the files."""
        accuracy, loss = evaluate(
            load(folder),
            splits.test,
            normalisation=Normalisation(splits.mean, splits.std),
            resolution=self.architecture.resolution,
            device=self.device,
            average_flips=self.config.average_flips,
        )
        _, height, width = splits.shape
        return {
            "id": self.architecture.id,
            "test_accuracy": accuracy,
            "test_loss": loss,
            **costs(self.architecture),
            "mean": list(splits.mean),
            "std": list(splits.std),
            "resolution": self.architecture.resolution,
            "classes": list(splits.classes),
            "images": {"train": images, "test": len(splits.test), "height": height, "width": width},
            **self.settings(),
            "weights": None if self.start is None else asdict(self.start),
            "teachers": [folder for folder, _ in self.teachers],
            "seed": self.seed,
            "wall_seconds": round(seconds, 1),
            "device": self.device,
            "processes": self.group.size,
            "threads": torch.get_num_threads(),
            "hardware": hardware(),
            "versions": versions(),
        }

    def _result(self, folder: Path) -> dict[str, Any]:
        """The result that is there. Raises InputError if it is damaged or of another training."""
        file, now = folder / "result.json", self.settings()
        try:
            # Earlier versions had no section `training`.
            result: dict[str, Any] = {"training": {}} | json.loads(file.read_text(encoding="utf-8"))
            there = {"seed": result["seed"], **_flat({section: result[section] for section in now})}
            for name, value in {"seed": self.seed, **_flat(now)}.items():
                if (before := there.get(name, value)) != value:
                    was, is_ = json.dumps(before), json.dumps(value)
                    raise InputError(f"{folder}: was trained with {name} {was}, which is {is_} now; {_AGAIN}")
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError):
            raise InputError(f"{file}: is damaged; delete it to train again") from None
        for name in ("checkpoint.pt", "threads.json"):
            (folder / name).unlink(missing_ok=True)
        return result


def load(folder: Path | str) -> Network:
    """The trained network of a retrain folder, on the CPU, in evaluation mode.

    It wants images as `result.json` says: float32 (batch, channels, resolution, resolution), pixels / 255, minus
    `mean`, over `std`; `preprocess` makes them of pictures. Raises InputError if the folder lacks the architecture or
    fitting weights.
    """
    folder = Path(folder)
    network = build(Architecture.load(folder / "architecture.yaml"))
    file = folder / WEIGHTS_FILE
    tensors, _ = read_tensors(file)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file}: does not fit architecture.yaml: {reason[:200]}") from None
    return network.eval()
