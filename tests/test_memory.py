"""Activation memory: what is modelled against what real networks allocate, in both readings."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from live import folded, peak_of, weights_of
from torch import Tensor, nn
from torch.fx import Interpreter
from torch.fx.experimental.proxy_tensor import make_fx

from nas.architecture import Architecture, Stage
from nas.blocks import BLOCKS
from nas.costs import cost
from nas.network import build
from nas.space import Space
from nas.trace import Trace, trace

SPACES = Path(__file__).parents[1] / "search_spaces"
Row = tuple[str, dict[str, Any]]


def network_of(architecture: Architecture) -> tuple[nn.Module, Tensor]:
    size = (1, architecture.in_channels, architecture.resolution, architecture.resolution)
    return folded(build(architecture, 0).eval()), torch.randn(size, generator=torch.Generator().manual_seed(0))


def compiled(network: nn.Module, x: Tensor) -> torch.fx.GraphModule:
    """The network's operators in a row, as they really run: in-place work in place, nothing fused or reordered."""
    with torch.no_grad():
        return make_fx(network)(x)


def measured(architecture: Architecture) -> int:
    """Peak bytes of a run on the CPU that lets go of a tensor behind its last reader, as a runtime does."""
    network, x = network_of(architecture)
    graph = compiled(network, x)
    out, peak = peak_of(lambda box: Interpreter(graph).boxed_run(box), x, [*weights_of(network), *weights_of(graph)])
    with torch.no_grad():
        assert torch.allclose(out, network(x), atol=1e-5)
    return peak


def of(*rows: Stage, resolution: int = 15) -> Architecture:
    return Architecture((Stage.of("conv", 16), *rows, Stage.of("classifier", 3)), resolution)


ROWS: list[Row] = [
    ("conv", {"k": 5, "groups": 2}),
    ("separable", {}),
    ("separable", {"k": 5, "activation": "silu"}),
    ("identity", {}),
    ("bottleneck", {"t": 1}),
    ("bottleneck", {"t": 6, "k": 5}),
    ("bottleneck", {"t": 3, "linear": False, "activation": "hardswish", "bias": True}),
    ("bottleneck", {"t": 4, "groups": 2}),
    ("bottleneck", {"t": 4, "groups": 4, "shuffle": False}),
    ("bottleneck", {"t": 4, "shortcut": "expansion"}),
    ("bottleneck", {"t": 4, "shortcut": "none"}),
    ("bottleneck", {"t": 4, "shortcut": "projection"}),
    ("bottleneck", {"t": 4, "se": 0.25}),
    ("fused_bottleneck", {"t": 1}),
    ("fused_bottleneck", {"t": 4, "k": 5}),
    ("shuffle", {"groups": 1}),
    ("shuffle", {"groups": 4}),
    ("shuffle", {"groups": 2, "dense": True, "ratio": 2, "shuffle": False}),
    ("cse", {"t": 3}),
    ("cse", {"t": 2.5, "norm": "each"}),
    ("cse", {"t": 4, "groups": 2, "reduction": 2}),
]


def placed(block: str, options: dict[str, Any], stride: int) -> Architecture:
    """The first layer changes stride or channels or both, the second keeps its shape (and has a shortcut)."""
    return of(Stage.of(block, 32, n=2, s=stride, **options))


def test_every_block_is_measured() -> None:
    assert {name for name, _ in ROWS} | {"classifier", "maxpool"} == set(BLOCKS)


def test_max_pooling_allocates_what_is_modelled_and_indices_that_only_torch_has() -> None:
    architecture = of(Stage.of("maxpool", 16))
    assert measured(architecture) == cost(architecture, "peak_memory_bytes") + 8 * 16 * 15**2


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("block", "options"), ROWS)
def test_the_operator_reading_is_what_is_allocated(block: str, options: dict[str, Any], stride: int) -> None:
    architecture = placed(block, options, stride)
    assert measured(architecture) == cost(architecture, "peak_memory_bytes")


@pytest.mark.parametrize("name", ["mobile_cifar", "mobile_tiny"])
def test_members_of_spaces_allocate_what_is_modelled(name: str) -> None:
    space, rng = Space.load(SPACES / f"{name}.yaml"), random.Random(3)
    for _ in range(4):
        architecture = space.sample(rng)
        assert measured(architecture) == cost(architecture, "peak_memory_bytes")


def test_plain_python_holds_the_inputs_of_running_modules_too() -> None:
    # Called as a module, a network has its image and the running layer's input in Python's frames until they return.
    # That is all the difference there is.
    for block, options in ROWS:
        architecture = placed(block, options, 2)
        network, x = network_of(architecture)
        _, peak = peak_of(lambda box, network=network: network(box.pop()), x, weights_of(network))
        layers = trace(architecture)
        assert peak == 4 * max(
            with_input_held(layer) + (x.numel() if index else 0) for index, layer in enumerate(layers)
        )


def with_input_held(trace: Trace) -> int:
    last = {number: step for step, operator in enumerate(trace.operators) for number in operator.reads}
    totals = []
    for step in range(len(trace.operators)):
        made = [operator.writes for operator in trace.operators[: step + 1]]
        totals.append(sum(trace.elements[number] for number in made if last.get(number, step) >= step))
    return trace.elements[0] + max(totals)


def test_the_allocator_agrees() -> None:
    """Torch's own record of every allocation, less what an operator allocates and frees inside (workspace)."""
    architecture = of(
        Stage.of("bottleneck", 24, n=2, s=2, t=6), Stage.of("cse", 48, t=3), Stage.of("shuffle", 96, s=2, groups=4)
    )
    network, x = network_of(architecture)
    graph = compiled(network, x)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.no_grad(), torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        Interpreter(graph).boxed_run([x.clone()])
    events = allocations(profile.profiler.kineto_results.experimental_event_tree())
    assert events and peak_of_events(events) > cost(architecture, "peak_memory_bytes")
    assert peak_of_events(without_workspace(events)) == cost(architecture, "peak_memory_bytes")


Event = tuple[int, int, int, int]  # time, address, bytes (negative: freed), the outermost operator (0: none)


def allocations(tree: list[Any]) -> list[Event]:
    events: list[Event] = []

    def visit(node: Any, operator: int) -> None:
        if node.tag.name == "Allocation":
            events.append((node.start_time_ns, node.extra_fields.ptr, node.extra_fields.alloc_size, operator))
        for child in node.children:
            visit(child, operator or node.id)

    for node in tree:
        visit(node, 0)
    return sorted(events)


def without_workspace(events: list[Event]) -> list[Event]:
    open_, workspace = {}, set()
    for event in events:
        _, address, size, operator = event
        if size > 0:
            open_[address] = event
        elif address in open_:
            made = open_.pop(address)
            if made[3] == operator != 0:
                workspace |= {made, event}
    return [event for event in events if event not in workspace]


def peak_of_events(events: list[Event]) -> int:
    live = peak = 0
    for _, _, size, _ in events:
        live += size
        peak = max(peak, live)
    return peak
