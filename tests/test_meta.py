"""Modules and tensors without values: as torch has them, only sooner."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_costs import OPTIONS
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from nas import blocks, meta
from nas.architecture import Layer
from nas.meta import SHAPES, Blank, made
from nas.trace import _Recorder, trace_layer

PLACES = [(16, 32, 2, 7), (16, 16, 2, 8), (24, 36, 1, 8), (32, 32, 1, 7)]
"""Input and output channels, stride, resolution."""


def layers() -> list[Layer]:
    """Every block with its options wherever it can stand."""
    found = [Layer("classifier", 16, 10, 1, 7)]
    for block, all_ in OPTIONS.items():
        for options in all_:
            here = [place for place in PLACES if blocks.problem(block, *place, options) is None]
            assert here
            found += [Layer(block, *place, tuple(sorted(options.items()))) for place in here]
    return found


LAYERS = layers()


def module_of(layer: Layer) -> torch.nn.Module:
    place = (layer.in_channels, layer.out_channels, layer.stride, layer.resolution)
    return blocks.make(layer.block, *place, dict(layer.options)).eval()


class Compared(TorchDispatchMode):
    """Holds what is made of contiguous tensors to what torch makes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[Any] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in SHAPES and all(x.is_contiguous() for x in args if isinstance(x, torch.Tensor)):
            mine = made(func, args, kwargs or {})
            assert (mine.shape, mine.stride(), mine.dtype) == (out.shape, out.stride(), out.dtype), func
            self.seen.add(func)
        return out


def test_operators_make_what_torch_says() -> None:
    seen = set()
    for layer in LAYERS:
        with torch.device("meta"):
            module = module_of(layer)
            x = torch.empty(1, layer.in_channels, layer.resolution, layer.resolution)
        with torch.no_grad(), Compared() as compared:
            module(x)
        seen |= compared.seen
    assert seen >= set(SHAPES) - {torch.ops.aten.addmm.default}  # whose weight is a view, turned


ARGUMENTS = [
    lambda x, y: torch.add(x, y, alpha=2),
    lambda x, y: x * 2,
    lambda x, y: x * y[:, :1] + y[0, 0],
    lambda x, y: x.mean(dim=(1, -1), keepdim=True),
    lambda x, y: x.mean(dim=[2, 3]),
    lambda x, y: torch.cat([x, y, x], dim=-1),
    lambda x, y: torch.addmm(x[0, 0, 0], x[0, 0], x[0, 1], beta=2),
    lambda x, y: torch.nn.functional.avg_pool2d(x, 2),
    lambda x, y: torch.nn.functional.avg_pool2d(x, (3, 2), 2, (1, 0), ceil_mode=True),
    lambda x, y: torch.nn.functional.conv2d(x, x, stride=2, padding=(1, 2)),
    lambda x, y: torch.nn.functional.conv_transpose2d(x, y),
]


@pytest.mark.parametrize("call", ARGUMENTS)
def test_operators_take_other_arguments_than_blocks_give(call: Any) -> None:
    x = torch.empty(4, 4, 5, 5, device="meta")
    with Compared() as compared:
        call(x, x)
    assert compared.seen


PRODUCTS = [
    lambda x, y: torch.nn.functional.conv_transpose2d(x, y, stride=2),
    lambda x, y: torch.nn.functional.conv2d(x, y[:, :2], groups=2),
    lambda x, y: torch.nn.functional.linear(x, y[0, 0], y[0, 0, 0]),
    lambda x, y: torch.nn.functional.linear(x, y[0, 0]),
    lambda x, y: x @ y,
]


@pytest.mark.parametrize("call", ARGUMENTS + PRODUCTS)
def test_multiply_adds_are_those_of_torchs_counter(call: Any) -> None:
    x, y = torch.empty(4, 4, 5, 5, device="meta"), torch.empty(4, 4, 5, 5, device="meta")
    with FlopCounterMode(display=False) as counter:
        call(x, y)
    with _Recorder(x, set()) as recorder:
        call(x, y)
    assert recorder.macs == counter.get_total_flops() // 2
    assert recorder.macs > 0 or call not in PRODUCTS


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_a_trace_is_what_it_is_by_torch_alone(layer: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = trace_layer.__wrapped__(layer)
    monkeypatch.setattr(meta, "SHAPES", {})
    assert trace_layer.__wrapped__(layer) == fast


def test_a_blank_module_has_all_that_a_module_has() -> None:
    for layer in LAYERS:
        with Blank():
            blank = module_of(layer)
        with torch.device("meta"):
            module = module_of(layer)
        for one, other in (
            (blank.named_parameters(), module.named_parameters()),
            (blank.named_buffers(), module.named_buffers()),
        ):
            assert [(n, x.shape, x.dtype, x.device) for n, x in one] == [
                (n, x.shape, x.dtype, x.device) for n, x in other
            ]


def test_what_is_not_a_weight_is_made_there_too() -> None:
    with Blank():
        assert torch.full((2,), 1.0).is_meta and torch.tensor(1).is_meta and torch.ones(2, 3).is_meta
        assert torch.zeros(size=(2,), dtype=torch.int8).dtype is torch.int8
    assert not torch.ones(2).is_meta
