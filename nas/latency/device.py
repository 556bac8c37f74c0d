"""Another device, by files: what is to be timed goes there with a script that needs no nas, a table comes back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nas.architecture import Architecture, Layer
from nas.export.model import make_model
from nas.export.onnx import needed
from nas.files import code_digest, data_folder, write_json, write_text
from nas.inputs import InputError, refuse
from nas.latency import measure
from nas.latency.predict import CALIBRATION, distinct_layers, members
from nas.latency.probe import REFERENCE, Shape, frame, framed, frames, whole
from nas.latency.table import LAYERS, NETWORKS, Table, frame_name, layer_name
from nas.space import Space
from nas.trace import trace_layer

_SCRIPT = Path(__file__).with_name("time_models.py")


def plan(what: Space | Sequence[Architecture], folder: Path) -> dict[str, Any]:
    """Writes all that must be timed as ONNX files, plan.json, and time_models.py with measure.py.

    That is the layers of a space and some of its members, or whole networks alone, such as those of a front.
    Returns {"files": n, "bytes": n}. Raises InputError if the folder has something else in it.
    """
    needed()
    if folder.exists() and not (folder / "plan.json").is_file() and any(folder.iterdir()):
        raise refuse("--out", str(folder), "a new folder, or one of an earlier plan")
    if isinstance(what, Space):
        layers, networks = distinct_layers(what), members(what, CALIBRATION, "calibration")
    else:
        layers, networks = [], list(what)
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
    write_json(folder / "plan.json", {"jobs": []})  # ours, also where it ends here, and not to be timed
    write("reference", REFERENCE.id, *whole(REFERENCE))
    for place in frames(layers):
        write("frames", frame_name(*place), *frame(*place))
    for layer in layers:
        module, shape = framed(layer)
        write("layers", layer_name(layer), module, shape, trace_layer(layer).params)
    for network in networks:
        write("networks", network.id, *whole(network))
    efforts = {"frames": LAYERS, "layers": LAYERS, "networks": NETWORKS}
    plain = {part: astuple(effort) for part, effort in efforts.items()}
    write_text(folder / "time_models.py", _SCRIPT.read_text(encoding="utf-8"))
    method = Path(str(measure.__file__))
    write_text(folder / "measure.py", method.read_text(encoding="utf-8"))
    about = {"reference": REFERENCE.id, "method": code_digest([method], ()), "effort": plain}
    write_json(folder / "plan.json", {**about, "jobs": jobs})
    return {"files": len(jobs), "bytes": size}


def device_file(name: str) -> Path:
    """Where the table of a device is kept."""
    return data_folder() / "devices" / f"{name}.json"


def kept_table(name: str) -> Table:
    """What was imported. Raises InputError if it is not there, or damaged."""
    file = device_file(name)
    try:
        return Table.of(json.loads(file.read_text(encoding="utf-8")), str(file))
    except (OSError, ValueError, InputError):
        raise InputError(f"{file}: is damaged; import it again") from None


def device_names() -> list[str]:
    return sorted(path.stem for path in device_file("").parent.glob("*.json"))


class Device:
    """The table of an imported device. Nothing can be measured there from here."""

    def __init__(self, name: str, table: Table) -> None:
        table.manifest = {**table.manifest, "runtime": name}
        self.name, self.table, self.manifest = name, table, table.manifest

    @classmethod
    def load(cls, name: str, threads: int) -> Device:
        """Raises InputError if the table is damaged, or of another number of threads."""
        table = kept_table(name)
        if (there := table.manifest.get("threads")) != threads:
            raise refuse(f"runtime {name}: threads", threads, f"{there}, as it was timed")
        return cls(name, table)

    def layers(self, layers: Iterable[Layer]) -> Table:
        known = self.table.layers.keys() | self.table.refused
        self._check({layer_name(layer) for layer in layers} - known, "layers")
        return self.table

    def networks(self, architectures: Iterable[Architecture]) -> Table:
        known = self.table.networks.keys() | self.table.refused
        self._check({each.id for each in architectures} - known, "networks")
        return self.table

    def _check(self, missing: set[str], what: str) -> None:
        if missing:
            first = min(missing)
            raise InputError(
                f"runtime {self.name}: {len(missing)} {what} were not timed there ({first}); nas latency plan SPACE, "
                "time and import them"
            )
