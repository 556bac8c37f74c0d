"""A module as an ONNX model: what it does to one image, as plain operators.

torch.onnx.export does the same for any module, but takes 10 to 26 s a network where this takes 0.05 s (three members of
mobile_cifar, torch 2.14.1, two busy cores), and a space has thousands of layers to look at. Its older tracer is as
fast, but spells the shape of every reshape out of Shape, Gather and Concat, which converters had trouble with
(NVIDIA/TensorRT#3273, onnx/models#77); here shapes are constants behind a free batch.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nas.export.graph import Array, Graph
from nas.export.operators import OPERATORS, SHAPELY
from nas.meta import made

OPSET = 17
"""Of 2022: what converters and runtimes of today take."""
IR_VERSION = 8
INPUT, OUTPUT, BATCH = "image", "logits", "batch"


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
    graph = Graph(OPERATORS, SHAPELY)
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
