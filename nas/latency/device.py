"""Another device, by files: what is to be timed goes there with a script that needs no nas, a table comes back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nas.architecture import Architecture, Layer
from nas.export.graph import make_model
from nas.export.onnx import needed
from nas.files import data_folder, write_json, write_text
from nas.inputs import InputError, refuse
from nas.latency import measure
from nas.latency.predict import CALIBRATION, distinct_layers, members
from nas.latency.probe import REFERENCE, Shape, frame, framed, frames, whole
from nas.latency.table import LAYERS, NETWORKS, Table, frame_name, layer_name
from nas.space import Space

_SCRIPT = Path(__file__).with_name("time_models.py")


def plan(space: Space, folder: Path) -> dict[str, Any]:
    """Writes all that must be timed for a space as ONNX files, plan.json, and time_models.py with measure.py.

    Returns {"files": n, "bytes": n}. Raises InputError if the folder has something else in it.
    """
    needed()
    if folder.exists() and not (folder / "plan.json").is_file() and any(folder.iterdir()):
        raise refuse("--out", str(folder), "a new folder, or one of an earlier plan")
    layers = distinct_layers(space)
    jobs: list[dict[str, Any]] = []
    size = 0

    def write(part: str, name: str, module: nn.Module, shape: Shape, params: int = 0) -> None:
        nonlocal size
        file = f"models/{part}-{len(jobs):05d}.onnx"
        model = make_model(module.eval(), torch.empty(1, *shape, device="meta"), {}, checked=False)
        (folder / file).write_bytes(data := model.SerializeToString())
        jobs.append({"part": part, "name": name, "file": file, "shape": list(shape), "params": params})
        size += len(data)

    (folder / "models").mkdir(parents=True, exist_ok=True)
    write("reference", REFERENCE.id, *whole(REFERENCE))
    for place in frames(layers):
        write("frames", frame_name(*place), *frame(*place))
    for layer in layers:
        module, shape = framed(layer)
        own = sum(weight.numel() for weight in module.get_submodule("layer").parameters())
        write("layers", layer_name(layer), module, shape, own)
    for network in members(space, CALIBRATION, "calibration"):
        write("networks", network.id, *whole(network))
    efforts = {"frames": LAYERS, "layers": LAYERS, "networks": NETWORKS}
    least = {part: [effort.least, effort.most] for part, effort in efforts.items()}
    write_text(folder / "time_models.py", _SCRIPT.read_text(encoding="utf-8"))
    write_text(folder / "measure.py", Path(str(measure.__file__)).read_text(encoding="utf-8"))
    write_json(folder / "plan.json", {"space": space.name, "reference": REFERENCE.id, "effort": least, "jobs": jobs})
    return {"files": len(jobs), "bytes": size}


def import_table(file: Path, name: str) -> Path:
    """Keeps a table that time_models.py wrote as the runtime `name`. Raises InputError if it is none, or not whole."""
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,39}", name):
        raise refuse("--name", name, "at most 40 small letters, digits and _ -, the first a letter")
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise InputError(f"{file}: is not JSON") from None
    table = Table.of(data, str(file))
    if table.manifest.get("reference") != REFERENCE.id:
        raise refuse(f"{file}: manifest.reference", table.manifest.get("reference"), f"{REFERENCE.id}: plan again")
    if table.reference_ms <= 0:
        raise refuse(f"{file}: reference_ms", table.reference_ms, "more than 0")
    target = _folder() / f"{name}.json"
    write_json(target, table.to_dict())
    return target


def device_names() -> list[str]:
    return sorted(path.stem for path in _folder().glob("*.json"))


class Device:
    """The table of an imported device. Nothing can be measured there from here."""

    def __init__(self, name: str, table: Table) -> None:
        table.manifest = {**table.manifest, "runtime": name}
        self.name, self.table, self.manifest = name, table, table.manifest

    @classmethod
    def load(cls, name: str, threads: int) -> Device:
        """Raises InputError if the table is damaged, or of another number of threads."""
        file = _folder() / f"{name}.json"
        try:
            table = Table.of(json.loads(file.read_text(encoding="utf-8")), str(file))
        except (OSError, ValueError):
            raise InputError(f"{file}: is damaged; import it again") from None
        if (there := table.manifest.get("threads")) != threads:
            raise refuse(f"runtime {name}: threads", threads, f"{there}, as it was timed")
        return cls(name, table)

    def layers(self, layers: Iterable[Layer]) -> Table:
        known = self.table.layers.keys() | self.table.refused
        self._check({layer_name(layer) for layer in layers} - known, "layers")
        return self.table

    def networks(self, architectures: Iterable[Architecture]) -> Table:
        self._check({each.id for each in architectures} - self.table.networks.keys(), "networks")
        return self.table

    def _check(self, missing: set[str], what: str) -> None:
        if missing:
            first = min(missing)
            raise InputError(
                f"runtime {self.name}: {len(missing)} {what} were not timed there ({first}); nas latency plan SPACE, "
                "time and import them"
            )


def _folder() -> Path:
    return data_folder() / "devices"
