"""What a layer does, seen once: every distinct layer is run on the meta device and remembered."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from nas import blocks
from nas.architecture import Architecture, Layer, Stage

# An inference runtime folds these into the operator in front of them: they work in its output's place. So they are
# not even run here: their meta kernels are the slowest of all (4 ms for a batch normalisation).
_NORMS = frozenset({"native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"})
_ACTIVATIONS = frozenset("relu relu_ hardtanh hardtanh_ hardswish hardswish_ silu silu_ sigmoid sigmoid_".split())


@dataclass(frozen=True)
class Operator:
    """One operator that materialises a tensor. Tensors are numbered; 0 is the layer's input."""

    name: str
    reads: tuple[int, ...]
    writes: int


@dataclass(frozen=True)
class Trace:
    """One layer on one image: parameters, MACs, its operators, and the element count of each tensor they touch."""

    layer: Layer
    params: int
    macs: int
    operators: tuple[Operator, ...]
    elements: tuple[int, ...]


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts MACs and notes which operator reads and writes which tensor, views and in-place work looked through."""

    def __init__(self, x: torch.Tensor, parameters: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs = 0
        self.operators: list[Operator] = []
        self.parameters = parameters
        self.numbers = {self.storage(x): 0}
        self.elements = [x.numel()]
        self.kept: list[torch.Tensor] = [x]

    @staticmethod
    def storage(x: torch.Tensor) -> int:
        return int(x.untyped_storage()._cdata)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func._overloadpacket
        if packet.__name__ in _ACTIVATIONS:
            return args[0]
        if packet.__name__ in _NORMS:
            return args[0], args[0].new_empty(0), args[0].new_empty(0)
        out = func(*args, **(kwargs or {}))
        if packet in flop_registry:
            self.macs += flop_registry[packet](*args, **(kwargs or {}), out_val=out) // 2
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        reads = [self.numbers[self.storage(x)] for x in tensors if self.storage(x) in self.numbers]
        written = next(x for x in tree_leaves(out) if isinstance(x, torch.Tensor))
        place = self.storage(written)
        if place not in self.numbers and place not in self.parameters and reads:
            self.kept.append(written)  # alive, or its address could be given to another tensor
            self.numbers[place] = len(self.elements)
            self.elements.append(written.numel())
            self.operators.append(Operator(packet.__name__, tuple(dict.fromkeys(reads)), self.numbers[place]))
        return out


@cache
def trace_layer(layer: Layer) -> Trace:
    """Builds the layer on the meta device and runs it once in evaluation mode: no weights, no arithmetic."""
    with torch.device("meta"), torch.no_grad():
        module = blocks.make(
            layer.block, layer.in_channels, layer.out_channels, layer.stride, layer.resolution, dict(layer.options)
        ).eval()
        x = torch.empty(1, layer.in_channels, layer.resolution, layer.resolution)
        weights = [*module.parameters(), *module.buffers()]
        recorder = _Recorder(x, {_Recorder.storage(weight) for weight in weights})
        with recorder:
            module(x)
    params = sum(weight.numel() for weight in module.parameters())
    return Trace(layer, params, recorder.macs, tuple(recorder.operators), tuple(recorder.elements))


@cache
def trace_stage(stage: Stage, channels: int, resolution: int) -> tuple[Trace, ...]:
    """The traces of a stage's layers on an input of `channels` x `resolution`^2."""
    return tuple(trace_layer(layer) for layer in stage.layers(channels, resolution))


def trace(architecture: Architecture) -> tuple[Trace, ...]:
    """The traces of all layers. Two neighbouring traces share the tensor between them."""
    return tuple(trace for row in architecture.walk() for trace in trace_stage(*row))
