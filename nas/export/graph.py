"""A module as an ONNX graph: what it does to one image is recorded, function by function, as plain operators.

torch.onnx.export does the same for any module, but takes 10 to 26 s a network where this takes 0.05 s (three members of
mobile_cifar, torch 2.14.1, two busy cores), and a space has thousands of layers to look at. Its older tracer is as
fast, but spells the shape of every reshape out of Shape, Gather and Concat, which converters had trouble with
(NVIDIA/TensorRT#3273, onnx/models#77); here shapes are constants behind a free batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from nas.inputs import InputError
from nas.meta import made

OPSET = 17
"""Of 2022: what converters and runtimes of today take."""
IR_VERSION = 8
INPUT, OUTPUT, BATCH = "image", "logits", "batch"
Array = NDArray[Any]


class Unsupported(InputError):  # noqa: N818 - as torch.onnx has it
    """A module does something that has no operator here; the text names it."""


class Graph(TorchFunctionMode):
    """Records what is done to tensors while it is active. Names are of values: in-place work gives a tensor a new one.

    A weight without values (on the meta device) gets random ones: enough to be timed.
    """

    def __init__(self) -> None:
        super().__init__()
        from onnx import helper, numpy_helper

        self.helper, self.numpy_helper = helper, numpy_helper
        self.nodes: list[Any] = []
        self.weights: dict[str, Array] = {}
        self._names: dict[int, str] = {}
        self._kept: list[Tensor] = []
        self._folding: dict[str, tuple[str, str | None]] = {}
        """The weight and bias of the convolution that made a value, into which normalisation may be folded."""
        self._random = np.random.default_rng(0)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        record = OPERATORS.get(func)
        if record is None:
            out = func(*args, **kwargs)
            known = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor) and id(x) in self._names]
            if isinstance(out, Tensor) and known:
                raise Unsupported(f"operator {_spelled(func)} cannot be exported to ONNX")
            return out
        if func in _SHAPELY and args[0].is_meta:
            out = torch.empty(args[0].shape, device="meta")
        else:
            with torch._C.DisableTorchFunction():
                out = func(*args, **kwargs)
        record(self, out, *args, **kwargs)
        return out

    def start(self, x: Tensor, name: str) -> None:
        self._names[id(x)] = name
        self._kept.append(x)

    def name(self, x: Tensor) -> str:
        return self._names[id(x)]

    def same(self, out: Tensor, x: Tensor) -> None:
        """`out` is the value of `x`."""
        self._names[id(out)] = self.name(x)
        self._kept.append(out)

    def add(self, out: Tensor, kind: str, inputs: Sequence[Tensor | str], **attributes: Any) -> str:
        """A node that makes `out` of tensors, and of weights by name; its value's name."""
        names = [x if isinstance(x, str) else self.name(x) for x in inputs]
        for name in names:
            self._folding.pop(name, None)  # it is used as it is
        made = self.fresh(kind)
        self.nodes.append(self.helper.make_node(kind, names, [made], name=f"{made}_node", **attributes))
        self._names[id(out)] = made
        self._kept.append(out)  # alive, or its id could be given to another tensor
        return made

    def fresh(self, kind: str) -> str:
        return f"{kind.lower()}_{len(self.nodes)}"

    def weight(self, name: str, value: Array) -> str:
        assert name not in self.weights
        self.weights[name] = value
        return name

    def floats(self, x: Tensor) -> Array:
        """The values of a weight as float32."""
        if x.device.type == "meta":
            spread = 1 / np.sqrt(max(1, x[0].numel())) if x.dim() > 1 else 1.0
            return (spread * self._random.standard_normal(tuple(x.shape))).astype(np.float32)
        return x.detach().to("cpu", torch.float32).numpy().copy()

    def fold(self, out: Tensor, x: Tensor, scale: Array, shift: Array) -> bool:
        """Puts scale * x + shift, by channel, into the convolution that made `x`; False if none did for this alone."""
        if (place := self._folding.pop(self.name(x), None)) is None:
            return False
        weight, bias = place
        shift = shift + (scale * self.weights[bias] if bias else 0)
        self.weights[weight] = (self.weights[weight] * scale.reshape(-1, 1, 1, 1)).astype(np.float32)
        if bias is None:
            bias = self.weight(weight.replace("weight", "bias"), shift)
            node = next(node for node in reversed(self.nodes) if weight in node.input)
            node.input.append(bias)
        self.weights[bias] = shift.astype(np.float32)
        self._names[id(out)] = self.name(x)
        self._kept.append(out)
        del self._names[id(x)]  # nobody may read what is not there any more
        return True

    def folds(self, value: str, weight: str, bias: str | None) -> None:
        self._folding[value] = weight, bias


class _Shapes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Answers for tensors without values, for which torch takes a millisecond an operator."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and the import of torch._dynamo takes a second

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [x for x in args if isinstance(x, Tensor)]
        if all(x.is_meta and x.is_contiguous() for x in tensors):
            return made(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def module_graph(module: nn.Module, x: Tensor) -> tuple[Graph, str]:
    """What an evaluated `module` does to `x` (1, channels, height, width), and the name of its output.

    Raises Unsupported, with the operator's name, for what has no operator in OPERATORS.
    """
    graph = Graph()
    graph.start(x, INPUT)
    with torch.no_grad(), graph, _Shapes() if x.is_meta else nullcontext():  # type: ignore[no-untyped-call]
        out = module(x)
    return graph, graph.name(out)


def make_model(module: nn.Module, x: Tensor, metadata: dict[str, str], checked: bool = True) -> Any:
    """An onnx.ModelProto: float32 `image` (batch, *x.shape[1:]) to `logits`, any batch; `checked` by onnx."""

    graph, last = module_graph(module, x)
    if last == INPUT:  # a module that does nothing
        graph.nodes.append(graph.helper.make_node("Identity", [INPUT], [last := "same"]))
    for node in graph.nodes:
        names = [OUTPUT if name == last else name for name in node.output]
        node.output[:] = names
        node.input[:] = [OUTPUT if name == last else name for name in node.input]
    return _assemble(graph.nodes, graph.weights, tuple(x.shape[1:]), metadata, checked)


def _assemble(
    nodes: list[Any], weights: dict[str, Array], shape: tuple[int, ...], metadata: dict[str, str], checked: bool
) -> Any:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = helper.make_model(
        helper.make_graph(
            nodes,
            "network",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [BATCH, *shape])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, None)],
            [numpy_helper.from_array(value, name) for name, value in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="nas",
    )
    helper.set_model_props(model, metadata)
    if checked:
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        onnx.checker.check_model(model)
    return model


def _spelled(func: Any) -> str:
    return str(getattr(func, "__name__", func))


# One function for each operator: (graph, what torch made of it, the arguments that torch was given).


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
    base = g.fresh("conv")
    names = [g.weight(f"{base}.weight", g.floats(weight))]
    if bias is not None:
        names.append(g.weight(f"{base}.bias", g.floats(bias)))
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
    g.folds(made, names[0], names[1] if bias is not None else None)


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
        mean, var, weight, bias = (t.detach().double().numpy() for t in (mean, var, weight, bias))
        scale = weight / np.sqrt(var + eps)
        shift = bias - mean * scale
    if not g.fold(out, x, scale, shift):
        base = g.fresh("scale")
        scale, shift = (v.astype(np.float32).reshape(-1, 1, 1) for v in (scale, shift))
        product = torch.empty(0)
        g.add(product, "Mul", [x, g.weight(f"{base}.weight", scale)])
        g.add(out, "Add", [product, g.weight(f"{base}.bias", shift)])


def _linear(g: Graph, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
    base = g.fresh("linear")
    names = [g.weight(f"{base}.weight", g.floats(weight))]
    if bias is not None:
        names.append(g.weight(f"{base}.bias", g.floats(bias)))
    g.add(out, "Gemm", [x, *names], transB=1)


def _clip(g: Graph, out: Tensor, x: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
    limits = {f"clip.{value:g}": np.array(value, dtype=np.float32) for value in (min_val, max_val)}
    g.weights |= limits
    g.add(out, "Clip", [x, *limits])


def _silu(g: Graph, out: Tensor, x: Tensor, *_: Any, **__: Any) -> None:
    name, gate = g.name(x), torch.empty(0)
    g.add(gate, "Sigmoid", [x])
    g.add(out, "Mul", [name, gate])


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
    sides = {"kernel_shape": _pair(kernel_size), "strides": _pair(stride or kernel_size), "pads": _pair(padding) * 2}
    g.add(out, "AveragePool", [x], count_include_pad=int(count_include_pad), **sides)


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
    sides = {"kernel_shape": _pair(kernel_size), "strides": _pair(stride or kernel_size), "pads": _pair(padding) * 2}
    g.add(out, "MaxPool", [x], **sides)


def _global_average(g: Graph, out: Tensor, x: Tensor, output_size: Any) -> None:
    if _pair(output_size) != [1, 1]:
        raise Unsupported("operator adaptive_avg_pool2d cannot be exported to ONNX but for an output of 1 x 1")
    g.add(out, "GlobalAveragePool", [x])


def _channels_average(g: Graph, out: Tensor, x: Tensor, output_size: Any) -> None:
    """Of (batch, 1, channels, h, w): adaptive over the channels alone, which is a 1x1 convolution of known weights."""
    channels, made = x.shape[2], out.shape[2]
    if x.shape[1] != 1 or out.shape[3:] != x.shape[3:]:
        raise Unsupported("operator adaptive_avg_pool3d cannot be exported to ONNX but over channels")
    weight = np.zeros((made, channels, 1, 1), dtype=np.float32)
    for i in range(made):
        low, high = i * channels // made, -(-(i + 1) * channels // made)
        weight[i, low:high] = 1 / (high - low)
    flat, mixed = (torch.empty(0) for _ in range(2))
    g.same(flat, x)
    shapes = [channels, *x.shape[3:]], [1, made, *x.shape[3:]]
    inner, outer = (
        g.weight(f"{g.fresh('average')}.{i}", np.array([-1, *shape], dtype=np.int64)) for i, shape in enumerate(shapes)
    )
    g.add(flat, "Reshape", [x, inner])
    g.add(mixed, "Conv", [flat, g.weight(f"{g.fresh('average')}.weight", weight)], kernel_shape=[1, 1])
    g.add(out, "Reshape", [mixed, outer])


def _concat(g: Graph, out: Tensor, parts: Sequence[Tensor], dim: int = 0) -> None:
    g.add(out, "Concat", list(parts), axis=dim)


def _plain(kind: str) -> Callable[..., None]:
    """An operator of one or two tensors that has no settings."""

    def record(g: Graph, out: Tensor, *args: Any, **_: Any) -> None:
        tensors = [x for x in args if isinstance(x, Tensor)]
        if kind in ("Add", "Mul") and len(tensors) != 2:
            raise Unsupported(f"operator {kind.lower()} cannot be exported to ONNX with a number")
        g.add(out, kind, tensors)

    return record


def _nothing(g: Graph, out: Tensor, x: Tensor, *_: Any, **__: Any) -> None:
    g.same(out, x)


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


OPERATORS: dict[Any, Callable[..., None]] = {
    F.conv2d: _conv,
    F.batch_norm: _batch_norm,
    F.linear: _linear,
    F.relu: _plain("Relu"),
    F.hardtanh: _clip,
    F.hardswish: _plain("HardSwish"),
    F.silu: _silu,
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
_SHAPELY = {F.batch_norm, F.relu, F.hardtanh, F.hardswish, F.silu, torch.sigmoid, F.dropout}
"""Those whose output has the shape of their input."""
