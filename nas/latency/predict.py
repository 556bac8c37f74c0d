"""A network's latency from those of its layers, and how far that can be believed."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from nas.architecture import Architecture, Layer
from nas.inputs import InputError
from nas.latency.table import Source, Table, layer_name
from nas.space import Space

logger = logging.getLogger("nas")
_DISTURBED = 0.05
LATENCY = "latency_ms"
"""The name of the cost."""
CALIBRATION = 40
"""Whole networks that say what a sum of layers leaves out."""


@dataclass(frozen=True)
class Latency:
    """Predicts: slope x (its layers) + each for every layer + per_param for every parameter + once, in ms.

    Layers inside a network are slower than in their frame, as their weights are no longer in the nearest cache: the
    more of them the slower. All four are at least 0, so a part of a network never costs less than nothing.
    """

    manifest: dict[str, Any]
    shares: Mapping[str, float]
    """What a layer takes in ms, by name; a classifier, which every network has once, has `once` in it."""
    refused: Mapping[str, str]
    """Why the runtime cannot run a layer, by name."""
    fitted: Mapping[str, float]
    """slope, each, per_param, once; the `networks` they were fitted to, and by what share (`mape`) those are off."""

    def of(self, layer: Layer) -> float:
        """A layer's share in ms.

        Raises InputError for a layer that cannot run there (the text names its operator), or was not measured.
        """
        name = layer_name(layer)
        if (share := self.shares.get(name)) is not None:
            return share
        what = f"{layer.block}{layer.out_channels}"
        if name in self.refused:
            raise InputError(f"{what}: {self.refused[name]}")
        raise InputError(f"{what} behind {layer.in_channels} channels at {layer.resolution} pixels was not measured")

    def predict(self, architecture: Architecture) -> float:
        """Milliseconds of a whole network, one image."""
        return sum(map(self.of, architecture.layers))

    def problem(self, architecture: Architecture) -> str | None:
        """Why the runtime cannot run a network, naming block and operator, or None."""
        try:
            self.predict(architecture)
        except InputError as error:
            return str(error)
        return None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_dict(cls, data: Any, where: str) -> Latency:
        """Raises InputError if `data` is not what `to_dict` gives."""
        try:
            return cls(**{each.name: data[each.name] for each in fields(cls)})
        except (KeyError, TypeError):
            raise InputError(f"{where}: is no prediction of latencies, or is damaged") from None


def distinct_layers(space: Space) -> list[Layer]:
    """All layers that some member has, in an order of their own."""
    members = space.members
    found: dict[str, Layer] = {}
    states: set[Any] = {((space.in_channels, resolution), alive) for resolution, alive in members.starts[0]}
    for index in range(len(members.rows)):
        behind = set()
        for state, alive in states:
            for branch in members.branches(index, state, alive)[0]:
                for stage in branch.stages:
                    found.update((layer_name(layer), layer) for layer, _ in stage.runs(*state))
                behind.add((branch.after, branch.alive))
        states = behind
    return [found[name] for name in sorted(found)]


def members(space: Space, count: int, what: str) -> list[Architecture]:
    """Distinct members drawn uniformly, other ones for another word; as many as are found of a space that has fewer."""
    rng = random.Random(f"latency/{what}")
    found: dict[str, Architecture] = {}
    for _ in range(20 * count):
        member = space.sample(rng)
        found[member.id] = member
        if len(found) == count:
            break
    return list(found.values())


def calibrate(table: Table, layers: Sequence[Layer], networks: Sequence[Architecture]) -> Latency:
    """Fits the four numbers to whole networks in the table, least squares of relative errors, none below 0."""
    from scipy.optimize import nnls

    refused = {name: table.refused[name] for layer in layers if (name := layer_name(layer)) in table.refused}
    known = {
        name: np.array([table.layer_ms(layer), 1.0, table.params[name], layer.block == "classifier"])
        for layer in layers
        if (name := layer_name(layer)) not in refused
    }
    rows = np.array([sum(known[layer_name(layer)] for layer in each.layers) for each in networks])
    truth = np.array([table.ms(table.networks[each.id])["ms"] for each in networks])
    scale = rows.mean(axis=0)
    scale[scale == 0] = 1.0  # a column that is 0 for all networks explains nothing
    weights = nnls(rows / scale / truth[:, None], np.ones(len(truth)))[0] / scale
    fitted = dict(zip(("slope", "each", "per_param", "once"), map(float, weights), strict=True))
    off = float(np.abs(rows @ weights / truth - 1).mean())
    shares = {name: float(parts @ weights) for name, parts in known.items()}
    return Latency(table.manifest, shares, refused, {**fitted, "networks": len(networks), "mape": off})


def latency_of(space: Space, bench: Source, layers: Sequence[Layer] | None = None) -> Latency:
    """A calibrated prediction for all members of a space, or for those of some `layers`; measures what is missing.

    Raises InputError if the runtime can run none of them.
    """
    wanted = distinct_layers(space) if layers is None else list(layers)
    networks = members(space, CALIBRATION, "calibration")
    refused = bench.layers([*wanted, *(layer for network in networks for layer in network.layers)]).refused
    networks = [x for x in networks if x.id not in refused and not any(layer_name(y) in refused for y in x.layers)]
    if not networks:
        why = next(iter(refused.values()), "")
        raise InputError(
            f"space {space.name}: none of its members was found that {bench.manifest['runtime']} runs: {why}"
        )
    known = {layer_name(x): x for x in [*wanted, *(x for each in networks for x in each.layers)]}
    table = bench.networks(networks)
    disturbed = sum(table.layers[name].quiet == 0 for name in known if name in table.layers)
    if disturbed > _DISTURBED * len(known):
        logger.warning(
            "%s: for %d of %d layers the machine was never quiet; latencies may be off: measure on a quiet machine",
            bench.manifest["runtime"],
            disturbed,
            len(known),
        )
    return calibrate(table, list(known.values()), networks)
