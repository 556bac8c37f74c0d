"""What a layer does, seen once: every distinct layer is run on the meta device and remembered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from nas import blocks
from nas.architecture import Architecture, Layer, Stage
from nas.inputs import refuse
from nas.meta import SHAPES, Blank, made

# An inference runtime folds these into the operator in front of them: they work in its output's place.
_FOLDED = frozenset("batch_norm relu relu_ relu6 hardtanh hardtanh_ hardswish silu sigmoid hardsigmoid".split())
_SUMS = frozenset({"addmm", "mm", "_adaptive_avg_pool3d"})
_ATEN = torch.ops.aten
_WITHOUT_MACS = {_ATEN._unsafe_view.default, *SHAPES} - {_ATEN.convolution.default, _ATEN.addmm.default}
_POOLS = frozenset({"avg_pool2d", "max_pool2d_with_indices", "_adaptive_avg_pool2d"})


Kind = Literal["elementwise", "channelwise", "shuffle", "sum", "concat", "whole"]


@dataclass(frozen=True)
class Operator:
    """One operator that materialises a tensor. Tensors are numbered; 0 is the layer's input.

    `kind` says what one output channel needs: elementwise and channelwise (depthwise convolution, pooling) the same
    channel of what is in `sliced`; shuffle one other channel; sum (convolution, linear, mean over channels) a weighted
    sum over the channels of `sliced`; concat copies; whole may be anything. Reads not in `sliced` are needed whole.
    """

    name: str
    reads: tuple[int, ...]
    writes: int
    kind: Kind = "whole"
    sliced: tuple[int, ...] = ()


@dataclass(frozen=True)
class Trace:
    """One layer on one image: parameters, MACs, its operators, and element and channel count of each tensor they touch.

    A tensor that is not (channels, ...) has one channel.
    """

    layer: Layer
    params: int
    macs: int
    operators: tuple[Operator, ...]
    elements: tuple[int, ...]
    channels: tuple[int, ...]


class _Folding(TorchFunctionMode):
    """Leaves out what is folded into the operator in front of it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func.__name__ in _FOLDED else func(*args, **(kwargs or {}))


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts MACs and notes which operator reads and writes which tensor, views and in-place work looked through."""

    def __init__(self, x: torch.Tensor, parameters: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs = 0
        self.operators: list[Operator] = []
        self.parameters = parameters
        self.numbers = {self.storage(x): 0}
        self.elements, self.channels = [x.numel()], [x.shape[1]]
        self.kept: list[torch.Tensor] = [x]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and the import of torch._dynamo takes a second

    @staticmethod
    def storage(x: torch.Tensor) -> int:
        return int(x.untyped_storage()._cdata)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet, kwargs = func._overloadpacket, kwargs or {}
        places = [(self.storage(x), x) for x in _tensors([*args, *kwargs.values()])]
        inputs = [(self.numbers[place], x) for place, x in places if place in self.numbers]
        out = made(func, args, kwargs) if all(x.is_contiguous() for _, x in inputs) else func(*args, **kwargs)
        written = next(_tensors([out]))
        self.macs += _macs(func, args, written)
        place = self.storage(written)
        if place not in self.numbers and place not in self.parameters and inputs:
            number, x = inputs[0]
            kind = _kind(func, args, x, written, self.channels[number])
            channels = written.shape[1] if written.dim() in (2, 4) else 1
            channels = self.channels[number] if kind == "shuffle" else channels
            self.kept.append(written)  # alive, or its address could be given to another tensor
            self.numbers[place] = len(self.elements)
            self.elements.append(written.numel())
            self.channels.append(channels)
            reads = tuple(dict.fromkeys(number for number, _ in inputs))
            sliced = tuple(number for number in reads if self._sliced(kind, number, inputs, channels))
            self.operators.append(Operator(packet.__name__, reads, self.numbers[place], kind, sliced))
        return out

    def _sliced(self, kind: Kind, number: int, inputs: list[tuple[int, torch.Tensor]], channels: int) -> bool:
        """Whether all that an operator reads of a tensor, it may read some channels at a time."""
        views = [x for other, x in inputs if other == number]
        if kind in ("concat", "whole") or any(x.numel() != self.elements[number] for x in views):
            return False
        if kind in ("elementwise", "channelwise"):  # channel i is channel i
            same = self.channels[number] == channels
            return same and all(x.is_contiguous() and x.shape[1:2] == (channels,) for x in views)
        return kind == "shuffle" or all(x.is_contiguous() for x in views)


def _macs(func: Any, args: Any, written: torch.Tensor) -> int:
    """Torch's own count, but for the frequent operators: it imports a compiler, which takes a fifth of a second."""
    if func is _ATEN.convolution.default and not args[6]:  # every output is a sum over one filter
        return int(written.numel() * args[1][0].numel())
    if func is _ATEN.addmm.default:
        return int(written.numel() * args[1].shape[1])
    count = _counter(func)
    shapes = [x.shape if isinstance(x, torch.Tensor) else x for x in args] if count else ()
    return count(*shapes, out_shape=written.shape) // 2 if count else 0


@cache
def _counter(func: Any) -> Callable[..., int] | None:
    if func in _WITHOUT_MACS or func.is_view or torch.Tag.pointwise in func.tags:
        return None
    from torch.utils.flop_counter import flop_registry

    counter = flop_registry.get(func._overloadpacket)
    return counter and counter.__wrapped__  # it is behind a wrapper that walks through trees of tensors


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _kind(func: Any, args: Any, x: torch.Tensor, written: torch.Tensor, channels: int) -> Kind:
    """What one channel of `written` needs of `x`, a view of a tensor of `channels`."""
    name = func._overloadpacket.__name__
    over = {d % x.dim() for d in args[1] or ()} if name == "mean" and len(args) > 1 else set()
    if name == "convolution":
        return "channelwise" if args[8] == x.shape[1] == written.shape[1] else "sum"
    if name == "clone" and x.stride()[-2:] == (x.shape[-1], 1) and x.shape[-2:].numel() * channels == x.numel():
        return "shuffle"  # a view with its channels in another order, each of them whole
    if name == "cat":
        return "concat"
    if name in _SUMS or over == {1 if x.dim() == 4 else 2}:  # 2: of (batch, channels, in a group, height, width)
        return "sum"
    if name in _POOLS or (x.dim() == 4 and over == {2, 3}):
        return "channelwise"
    return "elementwise" if torch.Tag.pointwise in func.tags else "whole"


def _check_shape(layer: Layer, output: torch.Tensor) -> None:
    """Raises InputError: what is behind would be counted, and budgeted, at another size than it has."""
    wanted = [1, layer.out_channels, *([] if layer.block == "classifier" else [layer.out_resolution] * 2)]
    if list(output.shape) != wanted:
        where = f"block {layer.block} behind {layer.in_channels} channels of {layer.resolution} pixels"
        raise refuse(f"{where}: the output's shape, at stride {layer.stride},", list(output.shape), f"{wanted}")


@cache
def trace_layer(layer: Layer) -> Trace:
    """Builds the layer on the meta device and runs it once in evaluation mode: no weights, no arithmetic."""
    with Blank():
        module = blocks.make(
            layer.block, layer.in_channels, layer.out_channels, layer.stride, layer.resolution, dict(layer.options)
        ).eval()
    x = torch.empty(1, layer.in_channels, layer.resolution, layer.resolution, device="meta")
    weights = list(module.parameters())
    recorder = _Recorder(x, {_Recorder.storage(held) for held in (*weights, *module.buffers())})
    with torch.no_grad(), recorder, _Folding():
        output = module(x)
    _check_shape(layer, output)
    params = sum(weight.numel() for weight in weights)
    elements, channels = tuple(recorder.elements), tuple(recorder.channels)
    return Trace(layer, params, recorder.macs, tuple(recorder.operators), elements, channels)


@cache
def trace_stage(stage: Stage, channels: int, resolution: int) -> tuple[Trace, ...]:
    """The traces of a stage's layers on an input of `channels` x `resolution`^2."""
    return tuple(trace_layer(layer) for layer in stage.layers(channels, resolution))


def trace(architecture: Architecture) -> tuple[Trace, ...]:
    """The traces of all layers. Two neighbouring traces share the tensor between them."""
    return tuple(trace for row in architecture.walk() for trace in trace_stage(*row))
