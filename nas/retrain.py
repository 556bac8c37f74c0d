"""Full training of one candidate; the only place that reads the test set, once, at the end."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from nas.architecture import Architecture
from nas.costs import costs
from nas.data import load as load_data
from nas.files import write_json, write_text, write_whole
from nas.inputs import InputError
from nas.machine import hardware, versions
from nas.network import Network, build
from nas.run import Run
from nas.training import Epoch, Normalisation, evaluate, pick_device, train


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
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Retrained:
    """Trains a candidate (`pick`: knee, best or an id) as the study's `retrain` section says; goes on where it was.

    The folder gets architecture.yaml, weights.safetensors, curve.csv and result.json; one that has a result.json is
    finished and is returned as it is. Raises InputError for a candidate that is not there or a changed recipe.
    """
    architecture, _ = run.pick(pick)
    recipe = run.config.retrain_recipe(epochs)
    section = run.config.retrain
    assert section is not None
    folder = run.folder / "retrain" / f"{architecture.id}-epochs{recipe.epochs}-seed{seed}"
    if (folder / "result.json").exists():
        return Retrained(folder, json.loads((folder / "result.json").read_text(encoding="utf-8")))
    data = run.config.data if data_root is None else run.config.data.model_copy(update={"root": data_root})
    splits = load_data(data)
    where = device or run.config.device or str(pick_device())
    normalisation = Normalisation(splits.mean, splits.std)
    both = section.data == "train+validation"
    images = splits.train_and_validation if both else splits.train
    network = build(architecture, seed)
    write_text(folder / "architecture.yaml", architecture.to_yaml())
    curve = train(
        network,
        images,
        None if both else splits.validation,
        recipe,
        normalisation=normalisation,
        resolution=architecture.resolution,
        seed=seed,
        device=where,
        checkpoint=folder / "checkpoint.pt",
        on_epoch=on_epoch,
    )
    accuracy, loss = evaluate(
        network, splits.test, normalisation=normalisation, resolution=architecture.resolution, device=where
    )
    weights = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_whole(
        folder / "weights.safetensors", lambda path: save_file(weights, path, {"architecture": architecture.id})
    )
    table = pd.DataFrame([vars(epoch) for epoch in curve])
    write_whole(folder / "curve.csv", lambda path: table.to_csv(path, index=False))
    result = {
        "id": architecture.id,
        "test_accuracy": accuracy,
        "test_loss": loss,
        **costs(architecture),
        "mean": list(splits.mean),
        "std": list(splits.std),
        "resolution": architecture.resolution,
        "classes": list(splits.classes),
        "data": {**data.model_dump(mode="json", exclude={"root"}), "trained_on": section.data},
        "images": {"train": len(images), "test": len(splits.test)},
        "recipe": recipe.model_dump(mode="json"),
        "seed": seed,
        "wall_seconds": round(sum(epoch.seconds for epoch in curve), 1),
        "device": where,
        "threads": torch.get_num_threads(),
        "hardware": hardware(),
        "versions": versions(),
    }
    write_json(folder / "result.json", result)
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    return Retrained(folder, result)


def load(folder: Path | str) -> Network:
    """The trained network of a retrain folder, on the CPU, in evaluation mode.

    It wants images as `result.json` says: float32 (batch, channels, resolution, resolution), pixels / 255, minus
    `mean`, over `std`. Raises InputError if the folder lacks the architecture or fitting weights.
    """
    folder = Path(folder)
    network = build(Architecture.load(folder / "architecture.yaml"))
    weights = folder / "weights.safetensors"
    try:
        network.load_state_dict(load_file(weights))
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{weights}: cannot be loaded: {str(error).splitlines()[0]}") from None
    except Exception as error:  # SafetensorError derives from Exception alone
        if type(error).__name__ != "SafetensorError":
            raise
        raise InputError(f"{weights}: is not a safetensors file: {error}") from None
    return network.eval()
