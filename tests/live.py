"""Bytes of activations that a real run has alive, and networks as an inference runtime has them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Live(TorchDispatchMode):
    """Bytes of the storages that operators made and that still exist; none but torch decides when one is freed."""

    def __init__(self, weights: list[Tensor]) -> None:
        super().__init__()
        self.bytes = self.peak = 0
        self.known = {weight.untyped_storage()._cdata for weight in weights}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for storage in [x.untyped_storage() for x in tree_leaves(out) if isinstance(x, Tensor)]:
            if storage._cdata not in self.known:
                self.known.add(storage._cdata)
                self.bytes += storage.nbytes()
                self.peak = max(self.peak, self.bytes)
                weakref.finalize(storage, self.freed, storage._cdata, storage.nbytes())
        return out

    def freed(self, place: int, size: int) -> None:
        self.known.remove(place)
        self.bytes -= size


def peak_of(run: Callable[[list[Tensor]], Tensor], x: Tensor, weights: list[Tensor]) -> tuple[Tensor, int]:
    """What `run` makes of a copy of `x`, handed over in a box that it empties, and the peak of live bytes."""
    with torch.no_grad(), Live(weights) as live:
        out = run([x.clone()])
    return out, live.peak


def weights_of(module: nn.Module) -> list[Tensor]:
    constants = [value for value in vars(module).values() if isinstance(value, Tensor)]
    return [*module.parameters(), *module.buffers(), *constants]


def folded(module: nn.Module) -> nn.Module:
    """Every batch normalisation inside the convolution in front of it, by torch's own function."""
    for parent in module.modules():
        children = list(parent.named_children())
        for (name, first), (after, second) in pairwise(children):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(first, second))
                setattr(parent, after, nn.Identity())
    assert not any(isinstance(each, nn.BatchNorm2d) for each in module.modules())
    return module
