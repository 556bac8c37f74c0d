"""A block as one operator: the model against blocks that are really computed in pieces, and by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from in_pieces import CSEInPieces, InPieces, SEInPieces
from live import folded, peak_of
from test_costs import mobilenet_v1, mobilenet_v2

from nas import blocks
from nas.architecture import Architecture, Layer, Stage
from nas.costs import cost
from nas.costs.block_memory import block_elements
from nas.costs.memory import memory_bytes
from nas.costs.peak_memory import ELEMENT_BYTES
from nas.inputs import InputError
from nas.trace import Kind, Operator, Trace, trace_layer

PAGE = (Path(__file__).parents[1] / "docs" / "costs.md").read_text(encoding="utf-8")
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
    ("bottleneck", 16, 16, 1, {"t": 4, "se": 0.25}),
    ("bottleneck", 16, 24, 2, {"t": 3, "groups": 2, "se": 0.5, "activation": "hardswish"}),
    ("bottleneck", 16, 24, 1, {"t": 1, "se": 0.25}),
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
    pieces = (CSEInPieces if block == "cse" else SEInPieces if "se" in options else InPieces)(module, splits)
    out, peak = peak_of(pieces, x, pieces.weights())
    with torch.no_grad():
        assert torch.allclose(out, module(x), atol=1e-5)
    assert peak == 4 * block_elements(trace_layer(layer(block, i, o, stride, options)), splits)


# --- by hand


def test_the_equation_of_the_paper() -> None:
    # |s^2 k| + |s'^2 k'| and, one channel at a time, s^2 + s'^2; t pieces of an expansion by t have k channels each.
    trace = trace_layer(Layer("bottleneck", 24, 32, 2, 56, (("t", 6),)))
    assert block_elements(trace) == 56**2 * 24 + 28**2 * 32 + 56**2 + 28**2
    assert block_elements(trace, 6) == 56**2 * 24 + 28**2 * 32 + 24 * (56**2 + 28**2)
    assert block_elements(trace, 1) == 56**2 * 24 + 28**2 * 32 + 6 * 24 * (56**2 + 28**2)


def test_blocks_by_hand() -> None:
    def elements(block: str, in_channels: int, out_channels: int, stride: int = 1, **options: Any) -> int:
        return block_elements(trace_layer(Layer(block, in_channels, out_channels, stride, 8, tuple(options.items()))))

    assert elements("conv", 3, 8) == (3 + 8) * 64
    assert elements("separable", 4, 8) == (4 + 8 + 1) * 64
    # One hidden channel of a full convolution at a time.
    assert elements("fused_bottleneck", 4, 8, t=3) == (4 + 8 + 1) * 64
    # A shuffle copies its channel; at stride 2 that is the most: 64 + 64 against 64 + 16.
    assert elements("bottleneck", 4, 8, 2, groups=2, t=6) == 4 * 64 + 8 * 16 + 2 * 64
    # The concatenated tensor is there once.
    assert elements("shuffle", 4, 12, 2, groups=1) == 4 * 64 + 12 * 16 + 64 + 16
    # The projected shortcut waits beside the sum of the pieces.
    assert elements("bottleneck", 4, 8, shortcut="projection", t=2) == (4 + 8 + 8 + 1 + 1) * 64
    # All 8 filtered channels wait for their gate: 64 pixels, from 16 numbers; or 8 channels, beside an expanded one.
    assert elements("cse", 4, 8, t=2) == (4 + 8 + 8) * 64 + 64 + 16
    assert elements("bottleneck", 4, 8, t=2, se=0.25) == (4 + 8 + 8 + 1) * 64
    assert elements("classifier", 4, 10) == 4 * 64 + 10 + 1


def made(channels: tuple[int, ...], *operators: tuple[Kind, tuple[int, ...]]) -> Trace:
    """A layer of 10 elements a channel; operator i writes tensor i + 1."""
    steps = [
        Operator("x", reads, step + 1, kind, () if kind in ("concat", "whole") else reads)
        for step, (kind, reads) in enumerate(operators)
    ]
    return Trace(Layer("x", 1, 1, 1, 1), 0, 0, tuple(steps), tuple(10 * c for c in channels), channels)


@pytest.mark.parametrize(
    ("trace", "inside"),
    [
        (made((2, 8, 2), ("sum", (0,)), ("sum", (1,))), 10),
        # Of two hidden tensors between sums only one can be cut: the larger.
        (made((2, 8, 6, 2), ("sum", (0,)), ("sum", (1,)), ("sum", (2,))), 10 + 60),
        # Needed whole (a softmax over channels): nothing is cut.
        (made((2, 8, 8, 2), ("sum", (0,)), ("whole", (1,)), ("sum", (2,))), 160),
        # Two that are cut one behind the other, a whole tensor between.
        (made((2, 8, 3, 8, 2), ("sum", (0,)), ("sum", (1,)), ("sum", (2,)), ("sum", (3,))), 30 + 10),
        # Needed again behind a sum over all of its channels: it would be computed twice.
        (made((2, 8, 8, 8, 2), ("sum", (0,)), ("sum", (1,)), ("elementwise", (1, 2)), ("sum", (3,))), 160),
        # Channel i and channel shuffled(i) are not in one piece, and the sum may not overwrite what is yet to be moved.
        (made((2, 8, 8, 8, 2), ("sum", (0,)), ("shuffle", (1,)), ("elementwise", (1, 2)), ("sum", (3,))), 160),
    ],
)
def test_what_can_be_cut(trace: Trace, inside: int) -> None:
    assert block_elements(trace) == 20 + 20 + inside


# --- networks and types


@pytest.mark.parametrize(("dtype", "size"), ELEMENT_BYTES.items())
def test_mobilenet_v2(dtype: str, size: int) -> None:
    network = mobilenet_v2()
    # The first expansion by 6: 96 channels at 112 x 112, and behind the depthwise convolution at 56 x 56.
    assert memory_bytes(network, dtype=dtype) == size * (96 * 112**2 + 96 * 56**2) == size * 1_505_280
    # As one operator that block needs little; the worst is then the one in front of it, 32 to 16 channels.
    assert memory_bytes(network, "block", dtype) == size * (32 + 16 + 1) * 112**2 == size * 614_656
    assert memory_bytes(network, "block", dtype, splits=1) == size * (16 * 112**2 + 24 * 56**2 + 1_505_280)
    assert memory_bytes(network, "block", dtype, splits=10_000) == memory_bytes(network, "block", dtype)


def shufflenet_2x() -> Architecture:
    """Groups 3, from the output of its max pooling: there is no such block."""
    rows = []
    for index, n in enumerate((4, 8, 4)):
        c, dense = 480 * 2**index, {"dense": True} if index == 0 else {}
        rows += [Stage.of("shuffle", c, s=2, groups=3, **dense), Stage.of("shuffle", c, n=n - 1, groups=3)]
    return Architecture(tuple(rows), 56, 48)


@pytest.mark.parametrize(
    ("name", "network"),
    [("MobileNetV1", mobilenet_v1()), ("MobileNetV2", mobilenet_v2()), ("ShuffleNet 2x", shufflenet_2x())],
    ids=["v1", "v2", "shufflenet"],
)
def test_the_table_of_the_page(name: str, network: Architecture) -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| {name} ")]
    shown = [cell.strip() for cell in rows[0].split("|")[2:6]]
    found = [memory_bytes(network, dtype="float16")]
    found += [memory_bytes(network, "block", "float16", splits) for splits in (1, 4, None)]
    assert shown == [f"{number / 1000:,.0f}" for number in found]


def test_the_costs_are_memory_bytes() -> None:
    network = mobilenet_v2()
    assert cost(network, "peak_memory_bytes") == memory_bytes(network)
    assert cost(network, "peak_memory_int8_bytes") == memory_bytes(network, dtype="int8")
    assert cost(network, "block_memory_bytes") == memory_bytes(network, "block")
    nothing = Architecture((Stage.of("identity", 3),), 8)
    assert memory_bytes(nothing) == memory_bytes(nothing, "block") == cost(nothing, "block_memory_bytes") == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"reading": "layer"}, "reading is 'layer', but must be one of: block, operator"),
        ({"dtype": "int4"}, "dtype is 'int4', but must be one of: float16, float32, int8"),
        ({"reading": "block", "splits": 0}, "splits is 0, but must be at least 1, and only of the reading block"),
        ({"splits": 2}, "splits is 2, but must be at least 1, and only of the reading block"),
    ],
)
def test_what_is_no_reading_is_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as caught:
        memory_bytes(mobilenet_v2(), **arguments)
    assert str(caught.value) == says
