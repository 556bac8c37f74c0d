"""Published networks cost what they were published to cost, to the digit (`golden_published.json`).

`params` and `macs` are exact figures worked out from the papers' tables; `published` are the papers' own, rounded:
MobileNetV1 (slim) rounds MACs, MobileNetV2 cuts them off and counts no normalisation among the parameters.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nas.costs import cost
from nas.network import build
from nas.space import Space

ROOT = Path(__file__).parent.parent
GOLDEN: list[dict[str, Any]] = json.loads((Path(__file__).parent / "golden_published.json").read_text())


@cache
def space(name: str) -> Space:
    return Space.load(ROOT / "search_spaces" / f"{name}.yaml")


@pytest.mark.parametrize(
    "golden", GOLDEN, ids=lambda row: f"{row['space']}-{'-'.join(map(str, row['choices'].values()))}"
)
def test_costs_are_exact(golden: dict[str, Any]) -> None:
    architecture = space(golden["space"]).decode(golden["choices"])
    assert (cost(architecture, "params"), cost(architecture, "macs")) == (golden["params"], golden["macs"])


def test_published_macs_agree_but_for_the_listed_misprints() -> None:
    for row in GOLDEN:
        if "published" in row:
            cut = int if row["space"] == "mobilenet_v2" else round
            agrees = cut(row["macs"] / 1e6) == row["published"]["macs_m"]
            assert agrees == ("misprint" not in row), row


def test_published_params_of_mobilenet_v2_leave_out_normalisation() -> None:
    widths = {row["choices"]["width"]: row for row in GOLDEN if row["space"] == "mobilenet_v2"}
    for row in widths.values():
        with torch.device("meta"):
            network = build(space("mobilenet_v2").decode(row["choices"]))
        norms = sum(2 * norm.num_features for norm in network.modules() if isinstance(norm, nn.BatchNorm2d))
        assert round((row["params"] - norms) / 1e6, 2) == row["published"]["params_m"]
    assert len(widths) == 6


def test_isomorphic_codes_of_nas_bench_macro_are_one_network() -> None:
    macro = space("nas_bench_macro")
    assert macro.size == 6561
    assert len({architecture.id for architecture in macro.enumerate()}) == 3969  # 9 * 21 * 21
