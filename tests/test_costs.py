"""Costs: equal to two counters that are not ours, to published tables, and to arithmetic by hand."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nas.architecture import Architecture, Layer, Stage
from nas.blocks import BLOCKS, defaults_of
from nas.costs import COSTS, cost, costs
from nas.costs.check import cross_check, on_meta, ptflops_counts
from nas.inputs import InputError
from nas.space import Space
from nas.trace import trace, trace_layer

SPACES = Path(__file__).parents[1] / "search_spaces"
SEARCHED = [Space.load(SPACES / f"{name}.yaml") for name in ("mobile_cifar", "mobile_tiny")]


def torch_counts(architecture: Architecture) -> tuple[int, int]:
    """(params, MACs) by torch's own counter, of the network as it is trained."""
    network = on_meta(architecture).eval()
    x = torch.empty(1, architecture.in_channels, architecture.resolution, architecture.resolution, device="meta")
    with FlopCounterMode(display=False) as counter:
        network(x)
    assert counter.get_total_flops() % 2 == 0
    return sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2


def ours(architecture: Architecture) -> tuple[int, int]:
    return cost(architecture, "params"), cost(architecture, "macs")


# --- against two other counters


OPTIONS: dict[str, list[dict[str, Any]]] = {
    "bottleneck": [
        {"t": 1},
        {"t": 6, "k": 5},
        {"t": 1.5, "groups": 2, "linear": False},
        {"t": 2, "groups": 4, "bias": True},
        {"t": 1, "expand": True, "shortcut": "projection", "bias": True},
        {"t": 3, "se": 0.25},
    ],
    "conv": [{}, {"k": 1}, {"k": 5, "groups": 2, "bias": True}],
    "cse": [
        {"t": 3},
        {"t": 4, "norm": "each", "groups": 2},
        {"t": 2.5, "reduction": 2, "cap": 4},
        {"t": 1, "stack": True},
    ],
    "identity": [{}],
    "maxpool": [{}, {"k": 5}],
    "fused_bottleneck": [{"t": 1}, {"t": 4, "k": 5, "activation": "silu"}],
    "separable": [{}, {"k": 7, "activation": "silu"}],
    "shuffle": [{"groups": 1}, {"groups": 4}, {"groups": 2, "dense": True, "ratio": 2, "shuffle": False}],
}


def test_every_block_is_counted_below() -> None:
    assert {*OPTIONS, "classifier"} == set(BLOCKS)


@pytest.mark.parametrize(("block", "options"), [(block, each) for block, all_ in OPTIONS.items() for each in all_])
def test_a_block_costs_what_others_count(block: str, options: dict[str, Any]) -> None:
    # Two layers: one that changes stride and channels, at an odd resolution, and one that keeps its shape.
    c = 16 if block == "maxpool" else 32
    stages = (Stage.of("conv", 16), Stage.of(block, c, n=2, s=2, **options), Stage.of("classifier", 3))
    architecture = Architecture(stages, 7)
    assert ours(architecture) == torch_counts(architecture) == ptflops_counts(on_meta(architecture))


@pytest.mark.parametrize("space", SEARCHED, ids=lambda space: space.name)
def test_random_architectures_cost_what_others_count(space: Space) -> None:
    rng = random.Random(1)
    for _ in range(2):
        architecture = space.sample(rng)
        assert ours(architecture) == torch_counts(architecture)
        cross_check(architecture)


@pytest.mark.parametrize("wrong", ["params", "macs"])
def test_a_disagreement_is_an_error(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    architecture = Architecture((Stage.of("conv", 4), Stage.of("classifier", 3)), 8)
    params, macs = ours(architecture)
    cross_check(architecture)
    monkeypatch.setattr("nas.costs.check.cost", lambda _, name: cost(architecture, name) + (name == wrong))
    with pytest.raises(RuntimeError) as caught:
        cross_check(architecture)
    here = (params + (wrong == "params"), macs + (wrong == "macs"))
    assert str(caught.value) == (
        f"architecture {architecture.id}: (params, macs) are {here} here, {(params, macs)} in ptflops"
    )


# --- published and exact figures (golden tables, sections 1 to 3)


def mobilenet_v1(classes: int = 1000) -> Architecture:
    rows = [(64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2)]
    body = [Stage.of("separable", c, n=n, s=s) for c, n, s in rows]
    return Architecture((Stage.of("conv", 32, s=2), *body, Stage.of("classifier", classes)), 224)


def mobilenet_v2(resolution: int = 224, classes: int = 1000) -> Architecture:
    rows = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    body = [Stage.of("bottleneck", c, n=n, s=s, t=t) for t, c, n, s in rows]
    tail = (Stage.of("conv", 1280, k=1), Stage.of("classifier", classes))
    return Architecture((Stage.of("conv", 32, s=2), *body, *tail), resolution)


@pytest.mark.parametrize(
    ("architecture", "params", "macs"),
    [
        (mobilenet_v1(), 4_231_976, 568_740_352),
        (mobilenet_v2(), 3_504_872, 300_774_272),
        (mobilenet_v2(resolution=96), 3_504_872, 56_289_152),
        (mobilenet_v2(classes=10), 2_236_682, 299_507_072),
        (mobilenet_v2(resolution=32), 3_504_872, 7_392_128),
    ],
)
def test_published_networks(architecture: Architecture, params: int, macs: int) -> None:
    assert ours(architecture) == (params, macs)


def test_shares_of_the_macs_and_weights_of_mobilenet_v1() -> None:
    # Table 2 of the paper: pointwise, depthwise, standard convolution (its 1.19 % of MACs is a misprint), classifier.
    depthwise = pointwise = 0
    weights = {"pointwise": 0, "depthwise": 0, "stem": 27 * 32, "classifier": 1024 * 1000}
    for layer in mobilenet_v1().layers[1:-1]:
        depthwise += layer.out_resolution**2 * 9 * layer.in_channels
        pointwise += layer.out_resolution**2 * layer.in_channels * layer.out_channels
        weights["depthwise"] += 9 * layer.in_channels
        weights["pointwise"] += layer.in_channels * layer.out_channels
    stem, classifier = 112**2 * 27 * 32, 1024 * 1000
    total = cost(mobilenet_v1(), "macs")
    assert depthwise + pointwise + stem + classifier == total
    shares = [round(100 * part / total, 2) for part in (pointwise, depthwise, stem, classifier)]
    assert shares == [94.86, 3.06, 1.91, 0.18]
    # Beside the weights there are two numbers for each of 10,944 normalised channels, and 1,000 biases.
    assert sum(weights.values()) + 2 * 10_944 + 1000 == cost(mobilenet_v1(), "params")
    shares = [round(100 * part / sum(weights.values()), 2) for part in weights.values()]
    assert shares == [74.59, 1.06, 0.02, 24.33]


def test_the_bottleneck_formula() -> None:
    # MobileNetV2, section 3.3: h * w * d' * t * (d' + k^2 + d'') multiply-adds at stride 1.
    for t, k, out_channels in ((6, 3, 24), (2, 5, 24), (3, 3, 16)):
        trace = trace_layer(Layer("bottleneck", 24, out_channels, 1, 14, (("k", k), ("t", t))))
        assert trace.macs == 14 * 14 * 24 * t * (24 + k * k + out_channels)


@pytest.mark.parametrize("groups", [1, 2, 3, 4])
def test_the_shufflenet_formula(groups: int) -> None:
    # ShuffleNet, section 3.2: h w (2 c m / g + 9 m) for the unit that keeps its shape, m = c / 4.
    c, m = 48 * groups, 12 * groups
    trace = trace_layer(Layer("shuffle", c, c, 1, 7, (("groups", groups),)))
    assert trace.macs == 49 * (2 * c * m // groups + 9 * m)
    assert trace.params == 2 * c * m // groups + 9 * m + 2 * (m + m + c)
    # Figure 2c: the first 1x1 at the input's resolution, and only o - i channels made.
    i, o = 24 * groups, 72 * groups
    trace = trace_layer(Layer("shuffle", i, o, 2, 14, (("groups", groups),)))
    m = o // 4
    assert trace.macs == 196 * i * m // groups + 49 * (9 * m + m * (o - i) // groups)


def test_the_cse_rows_of_the_korean_paper() -> None:
    # search_spaces/mobilenet_v2_cse.yaml: rows (c, n, s) with t = 2 behind 32 channels at 32 x 32.
    rows = tuple(Stage.of("cse", c, n=n, s=s, t=2) for c, n, s in ((64, 4, 2), (96, 3, 2), (160, 3, 1), (320, 1, 2)))
    stages = Architecture(rows, 32, 32)
    assert cost(stages, "params") == 314_112
    squeeze = sum(2 * p * 16 + 16 + p for p in (layer.out_resolution**2 for layer in stages.layers))
    assert squeeze == 47_168 and 314_112 - squeeze == 266_944


# --- costs by hand


def test_params_and_macs_of_one_layer_by_hand() -> None:
    one = trace_layer(Layer("conv", 3, 8, 2, 7, (("k", 3),)))
    assert (one.params, one.macs) == (8 * 27 + 16, 16 * 8 * 27)
    two = trace_layer(Layer("classifier", 8, 10, 1, 7))
    assert (two.params, two.macs) == (90, 80)
    assert trace_layer(Layer("identity", 8, 8, 1, 7)).macs == 0


def peak(*rows: Stage, resolution: int = 8, in_channels: int = 3) -> int:
    """In elements."""
    return cost(Architecture(rows, resolution, in_channels), "peak_memory_bytes") // 4


def test_peak_memory_of_chains_by_hand() -> None:
    # Input beside output; activations and normalisations in place.
    assert peak(Stage.of("conv", 8)) == 3 * 64 + 8 * 64
    assert peak(Stage.of("conv", 8, s=2)) == 3 * 64 + 8 * 16
    assert peak(Stage.of("conv", 8), Stage.of("conv", 16, s=2)) == max(3 * 64 + 8 * 64, 8 * 64 + 16 * 16)
    # Depthwise 3 -> 3, then pointwise 3 -> 16.
    assert peak(Stage.of("separable", 16)) == 3 * 64 + 16 * 64
    # The image alone, where there is nothing else; the pooled channels beside it.
    assert peak(Stage.of("identity", 3)) == 0
    assert peak(Stage.of("classifier", 10)) == 3 * 64 + 3
    assert peak(Stage.of("classifier", 10), resolution=1) == 3 + 10
    # A float has four bytes, and only the worst operator counts.
    assert cost(Architecture((Stage.of("conv", 8),) * 3, 8, 8), "peak_memory_bytes") == 4 * 2 * 8 * 64


def test_peak_memory_of_bottlenecks_by_hand() -> None:
    # 4 -> 24 -> 24 -> 4: the input is held for the addition.
    assert peak(Stage.of("bottleneck", 4, t=6), in_channels=4) == (4 + 24 + 24) * 64
    # No shortcut: the input is free behind the expansion.
    assert peak(Stage.of("bottleneck", 8, t=6), in_channels=4) == (24 + 24) * 64
    assert peak(Stage.of("bottleneck", 4, t=6, s=2), in_channels=4) == max((4 + 24) * 64, 24 * 64 + 24 * 16)
    # A shuffle of the groups writes a copy.
    assert peak(Stage.of("bottleneck", 8, t=6, s=2, groups=2), in_channels=4) == (24 + 24) * 64
    assert peak(Stage.of("bottleneck", 8, t=6, s=2, groups=2, shuffle=False), in_channels=4) == 24 * 64 + 24 * 16


def test_peak_memory_of_concatenation_by_hand() -> None:
    # 2c: the main branch makes 8 channels of 4 x 4, then the input is pooled, then both are joined.
    x, bottleneck, made, pooled, joined = 4 * 64, 3 * 64, 8 * 16, 4 * 16, 12 * 16
    steps = [x + bottleneck, x + bottleneck + 3 * 16, x + 3 * 16 + made, x + made + pooled, made + pooled + joined]
    assert peak(Stage.of("shuffle", 12, s=2, groups=1), in_channels=4) == max(steps)
    # Large enough for the joined tensor to be the worst: 4 channels become 64.
    x, bottleneck, made, pooled, joined = 4 * 64, 16 * 64, 60 * 16, 4 * 16, 64 * 16
    steps = [x + bottleneck, x + bottleneck + 16 * 16, x + 16 * 16 + made, x + made + pooled, made + pooled + joined]
    assert max(steps) == steps[-1]
    assert peak(Stage.of("shuffle", 64, s=2, groups=1), in_channels=4) == max(steps)
    # 2b: an addition, of which both terms and the sum are there.
    assert peak(Stage.of("shuffle", 8, groups=1), in_channels=8) == (8 + 8 + 8) * 64


def test_peak_memory_of_cse_by_hand() -> None:
    # Expanded 8, weighted by the gate: both and 64 weights of pixels; 4 channels wait for the addition.
    stage = Stage.of("cse", 4, t=2)
    assert peak(stage, in_channels=4) == 4 * 64 + 8 * 64 + 8 * 64 + 64
    assert peak(Stage.of("cse", 8, t=2), in_channels=4) == 8 * 64 + 8 * 64 + 64


@pytest.mark.parametrize("space", SEARCHED, ids=lambda space: space.name)
def test_costs_combine_over_layers(space: Space) -> None:
    rng = random.Random(2)
    for _ in range(5):
        architecture = space.sample(rng)
        traces = trace(architecture)
        assert tuple(trace.layer for trace in traces) == architecture.layers
        found = costs(architecture)
        assert list(found) == list(COSTS)
        assert found["flops"] == 2 * found["macs"]
        for name in ("params", "macs", "flops"):
            assert found[name] == sum(COSTS[name].of(each) for each in traces)
        for name in ("peak_memory_bytes", "peak_memory_int8_bytes", "block_memory_bytes"):
            assert found[name] == max(COSTS[name].of(each) for each in traces)
        assert found["peak_memory_bytes"] == 4 * found["peak_memory_int8_bytes"]
        sizes = [layer.in_channels * layer.resolution**2 for layer in architecture.layers]
        assert found["peak_memory_bytes"] > 4 * max(sizes)


def test_costs_by_name() -> None:
    architecture = mobilenet_v1()
    assert costs(architecture, ["macs"]) == {"macs": cost(architecture, "macs")}
    assert all(costs(architecture)[name] == cost(architecture, name) and COSTS[name].help for name in COSTS)
    with pytest.raises(KeyError):
        cost(architecture, "joules")


def test_row_cuts_and_nothings_cost_nothing() -> None:
    cut = Architecture((Stage.of("conv", 8), Stage.of("identity", 8, n=3), Stage.of("conv", 8, n=0)), 8)
    assert costs(cut) == costs(Architecture((Stage.of("conv", 8),), 8))


def test_the_cost_of_what_cannot_be_built_is_refused() -> None:
    for stage in (Stage.of("mbcnv", 8), Stage.of("conv", 8, k=2), Stage.of("conv", 8, groups=2)):
        with pytest.raises(InputError):
            cost(Architecture((stage,), 8), "macs")


def test_a_trace_allocates_nothing() -> None:
    # 4096 x 4096 x 32 floats are 2 GB.
    assert cost(Architecture((Stage.of("conv", 32),), 4096), "peak_memory_bytes") == 4 * 35 * 4096**2


def test_every_option_of_a_block_reaches_its_trace() -> None:
    # A layer is remembered by all that it is: two that differ must not share a trace.
    for block in BLOCKS:
        if "k" in defaults_of(block) and block != "maxpool":  # which has nothing to count
            options = {name: 2 for name, default in defaults_of(block).items() if default is None}
            small, large = (
                trace_layer(Layer(block, 16, 16, 1, 8, tuple(sorted((options | {"k": k}).items())))) for k in (3, 5)
            )
            assert small.macs < large.macs and small.params < large.params
