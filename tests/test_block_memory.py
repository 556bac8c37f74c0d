"""A block as one operator: the model against blocks that are really computed in pieces, and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from in_pieces import CSEInPieces, InPieces
from live import folded, peak_of

from nas import blocks
from nas.architecture import Layer
from nas.costs.block_memory import block_elements
from nas.trace import trace_layer

SPLIT: list[tuple[str, int, int, int, dict[str, Any]]] = [
    ("bottleneck", 16, 16, 1, {"t": 6}),
    ("bottleneck", 16, 24, 2, {"t": 6, "k": 5}),
    ("bottleneck", 16, 24, 1, {"t": 1}),
    ("bottleneck", 16, 24, 1, {"t": 2.5, "linear": False, "activation": "hardswish"}),
    ("bottleneck", 16, 16, 1, {"t": 3, "linear": False}),
    ("bottleneck", 16, 16, 1, {"t": 4, "groups": 2}),
    ("bottleneck", 16, 32, 2, {"t": 3, "groups": 4, "bias": True}),
    ("bottleneck", 16, 16, 1, {"t": 4, "groups": 4, "shuffle": False}),
    ("bottleneck", 16, 16, 1, {"t": 4, "shortcut": "expansion"}),
    ("bottleneck", 16, 16, 1, {"t": 4, "groups": 2, "shortcut": "expansion"}),
    ("bottleneck", 16, 16, 1, {"t": 4, "shortcut": "none"}),
    ("separable", 16, 32, 1, {}),
    ("separable", 16, 32, 2, {"k": 5}),
    ("shuffle", 48, 48, 1, {"groups": 3}),
    ("shuffle", 48, 48, 1, {"groups": 1}),
    ("shuffle", 48, 96, 2, {"groups": 4}),
    ("shuffle", 48, 96, 2, {"groups": 2, "dense": True, "ratio": 2}),
    ("cse", 16, 16, 1, {"t": 3}),
    ("cse", 16, 24, 2, {"t": 3, "groups": 2, "k": 5}),
    ("cse", 16, 32, 1, {"t": 4, "groups": 4, "norm": "each", "reduction": 2}),
]


def layer(block: str, in_channels: int, out_channels: int, stride: int, options: dict[str, Any]) -> Layer:
    return Layer(block, in_channels, out_channels, stride, 15, tuple(sorted(options.items())))


@pytest.mark.parametrize("splits", [1, 2, 3, 4, 7, 1000])
@pytest.mark.parametrize(("block", "i", "o", "stride", "options"), SPLIT)
def test_a_block_in_pieces_allocates_what_is_modelled(
    block: str, i: int, o: int, stride: int, options: dict[str, Any], splits: int
) -> None:
    torch.manual_seed(0)
    module = folded(blocks.make(block, i, o, stride, 15, options).eval())
    x = torch.randn(1, i, 15, 15)
    pieces = (CSEInPieces if block == "cse" else InPieces)(module, splits)
    out, peak = peak_of(pieces, x, pieces.weights())
    with torch.no_grad():
        assert torch.allclose(out, module(x), atol=1e-5)
    assert peak == 4 * block_elements(trace_layer(layer(block, i, o, stride, options)), splits)
