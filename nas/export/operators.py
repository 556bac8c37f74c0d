"""The operators: one function for each records what torch was asked for. A new one: a function and a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nas.export.graph import Array, Graph, Record, Unsupported


def _conv(
    g: Graph,
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> None:
    if isinstance(padding, str):
        raise Unsupported(f"operator conv2d cannot be exported to ONNX with the padding {padding}")
    names = g.parameters(g.fresh("conv"), weight, bias)
    made = g.add(
        out,
        "Conv",
        [x, *names],
        kernel_shape=list(weight.shape[2:]),
        strides=_pair(stride),
        pads=_pair(padding) * 2,
        dilations=_pair(dilation),
        group=groups,
    )
    g.folds(made, *names)


def _batch_norm(
    g: Graph,
    out: Tensor,
    x: Tensor,
    mean: Any,
    var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> None:
    if training:
        raise Unsupported("operator batch_norm cannot be exported to ONNX from a network in training mode")
    scale: Array
    shift: Array
    if x.device.type == "meta":
        scale, shift = np.ones(x.shape[1]), np.zeros(x.shape[1])
    else:
        mean, var, weight, bias = (
            default if t is None else t.detach().double().numpy()
            for t, default in ((mean, 0.0), (var, 1.0), (weight, 1.0), (bias, 0.0))
        )
        scale = weight / np.sqrt(var + eps)
        shift = bias - mean * scale
    if not g.fold(out, x, scale, shift):
        base = g.fresh("scale")
        scale, shift = (v.astype(np.float32).reshape(-1, 1, 1) for v in (scale, shift))
        product = torch.empty(0)
        g.add(product, "Mul", [x, g.weight(f"{base}.weight", scale)])
        g.add(out, "Add", [product, g.weight(f"{base}.bias", shift)])


def _linear(g: Graph, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
    g.add(out, "Gemm", [x, *g.parameters(g.fresh("linear"), weight, bias)], transB=1)


def _clip(g: Graph, out: Tensor, x: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
    limits = {f"clip.{value:g}": np.array(value, dtype=np.float32) for value in (min_val, max_val)}
    g.weights |= limits
    g.add(out, "Clip", [x, *limits])


def _silu(g: Graph, out: Tensor, x: Tensor, *_: Any, **__: Any) -> None:
    name, gate = g.name(x), torch.empty(0)
    g.add(gate, "Sigmoid", [x])
    g.add(out, "Mul", [name, gate])


def _hardsigmoid(g: Graph, out: Tensor, x: Tensor, *_: Any, **__: Any) -> None:
    g.add(out, "HardSigmoid", [x], alpha=1 / 6, beta=0.5)


def _reshape(g: Graph, out: Tensor, x: Tensor, *_: Any, **__: Any) -> None:
    if out.shape[0] != x.shape[0]:
        raise Unsupported("operator reshape cannot be exported to ONNX where it moves the batch")
    if out.shape == x.shape:
        g.same(out, x)
    else:
        shape = g.weight(f"{g.fresh('reshape')}.shape", np.array([-1, *out.shape[1:]], dtype=np.int64))
        g.add(out, "Reshape", [x, shape])


def _transpose(g: Graph, out: Tensor, x: Tensor, first: int, second: int) -> None:
    order = list(range(x.dim()))
    order[first], order[second] = order[second], order[first]
    g.add(out, "Transpose", [x], perm=order)


def _mean(g: Graph, out: Tensor, x: Tensor, dim: Any = None, keepdim: bool = False, **_: Any) -> None:
    axes = [d % x.dim() for d in ([dim] if isinstance(dim, int) else dim or range(x.dim()))]
    g.add(out, "ReduceMean", [x], axes=axes, keepdims=int(keepdim))


def _average(
    g: Graph,
    out: Tensor,
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> None:
    if ceil_mode or divisor_override is not None:
        raise Unsupported("operator avg_pool2d cannot be exported to ONNX with ceil_mode or divisor_override")
    window = _window(kernel_size, stride, padding)
    g.add(out, "AveragePool", [x], count_include_pad=int(count_include_pad), **window)


def _largest(
    g: Graph,
    out: Tensor,
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> None:
    if ceil_mode or return_indices or _pair(dilation) != [1, 1]:
        raise Unsupported("operator max_pool2d cannot be exported to ONNX with dilation, ceil_mode or return_indices")
    g.add(out, "MaxPool", [x], **_window(kernel_size, stride, padding))


def _window(kernel_size: Any, stride: Any, padding: Any) -> dict[str, list[int]]:
    """Of a pooling; by default its windows do not overlap."""
    return {"kernel_shape": _pair(kernel_size), "strides": _pair(stride or kernel_size), "pads": _pair(padding) * 2}


def _global_average(g: Graph, out: Tensor, x: Tensor, output_size: Any) -> None:
    if _pair(output_size) != [1, 1]:
        raise Unsupported("operator adaptive_avg_pool2d cannot be exported to ONNX but for an output of 1 x 1")
    g.add(out, "GlobalAveragePool", [x])


def _channels_average(g: Graph, out: Tensor, x: Tensor, output_size: Any) -> None:
    """Of (batch, 1, channels, h, w): adaptive over the channels alone, which is a 1x1 convolution of known weights."""
    channels, made = x.shape[2], out.shape[2]
    if x.shape[1] != 1 or out.shape[3:] != x.shape[3:]:
        raise Unsupported("operator adaptive_avg_pool3d cannot be exported to ONNX but over channels")
    weight = channels_average(channels, made)
    flat, mixed = (torch.empty(0) for _ in range(2))
    shapes = [channels, *x.shape[3:]], [1, made, *x.shape[3:]]
    inner, outer = (
        g.weight(f"{g.fresh('average')}.{i}", np.array([-1, *shape], dtype=np.int64)) for i, shape in enumerate(shapes)
    )
    g.add(flat, "Reshape", [x, inner])
    g.add(mixed, "Conv", [flat, g.weight(f"{g.fresh('average')}.weight", weight)], kernel_shape=[1, 1])
    g.add(out, "Reshape", [mixed, outer])


def channels_average(channels: int, made: int) -> Array:
    """(made, channels, 1, 1) weights of the convolution that averages `channels` into `made`, as adaptive pooling."""
    weight = np.zeros((made, channels, 1, 1), dtype=np.float32)
    for i in range(made):
        low, high = i * channels // made, -(-(i + 1) * channels // made)
        weight[i, low:high] = 1 / (high - low)
    return weight


def _concat(g: Graph, out: Tensor, parts: Sequence[Tensor], dim: int = 0) -> None:
    g.add(out, "Concat", list(parts), axis=dim)


def _plain(kind: str) -> Record:
    """An operator of one or two tensors that has no settings."""

    def record(g: Graph, out: Tensor, *args: Any, alpha: float = 1, **settings: Any) -> None:
        tensors = [x for x in (*args, *settings.values()) if isinstance(x, Tensor)]
        if alpha != 1 or (kind in ("Add", "Mul") and len(tensors) != 2):
            raise Unsupported(f"operator {kind.lower()} cannot be exported to ONNX with a number")
        g.add(out, kind, tensors)

    return record


def _nothing(g: Graph, out: Tensor, x: Tensor, *_: Any, **__: Any) -> None:
    g.same(out, x)


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


OPERATORS: dict[Any, Record] = {
    F.conv2d: _conv,
    F.batch_norm: _batch_norm,
    F.linear: _linear,
    F.relu: _plain("Relu"),
    F.hardtanh: _clip,
    F.hardswish: _plain("HardSwish"),
    F.silu: _silu,
    F.hardsigmoid: _hardsigmoid,
    torch.sigmoid: _plain("Sigmoid"),
    Tensor.add: _plain("Add"),
    Tensor.__add__: _plain("Add"),
    torch.add: _plain("Add"),
    Tensor.mul: _plain("Mul"),
    Tensor.__mul__: _plain("Mul"),
    torch.mul: _plain("Mul"),
    torch.cat: _concat,
    Tensor.reshape: _reshape,
    Tensor.flatten: _reshape,
    torch.flatten: _reshape,
    Tensor.unsqueeze: _reshape,
    Tensor.squeeze: _reshape,
    torch.transpose: _transpose,
    Tensor.transpose: _transpose,
    Tensor.mean: _mean,
    F.avg_pool2d: _average,
    F.max_pool2d: _largest,
    F.adaptive_avg_pool2d: _global_average,
    F.adaptive_avg_pool3d: _channels_average,
    F.dropout: _nothing,
}
"""What torch calls to what it records."""
SHAPELY = {F.batch_norm, F.relu, F.hardtanh, F.hardswish, F.hardsigmoid, F.silu, torch.sigmoid, F.dropout}
"""Those whose output has the shape of their input."""
