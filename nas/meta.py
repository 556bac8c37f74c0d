"""Modules and tensors without values, for what only shapes are asked of: torch's meta device, made fast."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor
from torch.nn import init
from torch.utils._device import DeviceContext

_MAKERS = frozenset({torch.empty, torch.zeros, torch.ones})
_FILLERS = frozenset({*filter(callable, vars(init).values()), Tensor.fill_, Tensor.zero_})


class Blank(DeviceContext):
    """Builds modules on the meta device without drawing their weights, where most of the time went."""

    def __init__(self) -> None:
        super().__init__("meta")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _FILLERS:
            return args[0] if args else kwargs["tensor"]
        if func in _MAKERS:
            return torch.empty(*args, **{**(kwargs or {}), "device": self.device})
        return super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]


def made(func: Any, args: Any, kwargs: Any) -> Any:
    """What an operator makes of contiguous tensors on the meta device.

    Torch's own way to say so is in Python for most operators and takes a millisecond; the first time it imports a
    compiler, for two seconds. The frequent ones are answered here.
    """
    shape = SHAPES[func](*args, **kwargs) if func in SHAPES else None
    return func(*args, **kwargs) if shape is None else torch.empty(shape, device="meta")


def _convolved(
    x: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, *_: Any
) -> list[int] | None:
    sides = _slid(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    return None if transposed else [len(x), len(weight), *sides]


def _pooled(x: Tensor, kernel: Any, stride: Any = (), padding: Any = (0, 0), *others: Any) -> list[int] | None:
    return None if others else [*x.shape[:-2], *_slid(x.shape[-2:], kernel, stride or kernel, padding, (1, 1))]


def _slid(sides: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Iterator[int]:
    for n, k, s, p, d in zip(sides, kernel, stride, padding, dilation, strict=True):
        yield (n + 2 * p - d * (k - 1) - 1) // s + 1


def _joined(parts: Any, dim: int = 0) -> list[int]:
    sizes = list(parts[0].shape)
    sizes[dim] = sum(x.shape[dim] for x in parts)
    return sizes


def _averaged(x: Tensor, over: Any, keepdim: bool = False, **_: Any) -> list[int]:
    gone = {d % x.dim() for d in over or range(x.dim())}
    return [1 if d in gone else n for d, n in enumerate(x.shape) if keepdim or d not in gone]


def _broadcast(x: Tensor, y: Tensor | float, **_: Any) -> list[int]:
    other = y.shape if isinstance(y, Tensor) else ()
    return [max(pair) for pair in zip_longest(reversed(x.shape), reversed(other), fillvalue=1)][::-1]


_ATEN = torch.ops.aten
SHAPES: dict[Any, Callable[..., Sequence[int] | None]] = {
    _ATEN._adaptive_avg_pool3d.default: lambda x, sides: (*x.shape[:-3], *sides),
    _ATEN.add.Tensor: _broadcast,
    _ATEN.addmm.default: lambda bias, x, weight, **_: (len(x), weight.shape[1]),
    _ATEN.avg_pool2d.default: _pooled,
    _ATEN.cat.default: _joined,
    _ATEN.convolution.default: _convolved,
    _ATEN.mean.dim: _averaged,
    _ATEN.mul.Tensor: _broadcast,
}
"""The arguments of an operator to the shape of what it makes of them; None where torch is to be asked."""
