"""What a module does to a tensor, recorded function by function as plain operators of ONNX."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from nas.inputs import InputError

Array = NDArray[Any]
Record = Callable[..., None]
"""(graph, what torch made of it, the arguments that torch was given)"""


class Unsupported(InputError):  # noqa: N818 - as torch.onnx has it
    """A module does something that has no operator here; the text names it."""


class Graph(TorchFunctionMode):
    """Records what is done to tensors while it is active. Names are of values: in-place work gives a tensor a new one.

    A weight without values (on the meta device) gets random ones: enough to be timed.
    """

    def __init__(self, operators: Mapping[Any, Record], shapely: AbstractSet[Any]) -> None:
        """`operators` are what torch calls, and how that is recorded; of the `shapely` the output is like the input."""
        super().__init__()
        from onnx import helper

        self.helper, self._operators, self._shapely = helper, operators, shapely
        self.nodes: list[Any] = []
        self.weights: dict[str, Array] = {}
        self._names: dict[int, str] = {}
        self._kept: list[Tensor] = []
        self._folding: dict[str, tuple[str, str | None]] = {}
        """The weight and bias of the convolution that made a value, into which normalisation may be folded."""
        self._random = np.random.default_rng(0)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        record = self._operators.get(func)
        if record is None:
            out = func(*args, **kwargs)
            known = any(isinstance(x, Tensor) and id(x) in self._names for x in tree_leaves((args, kwargs)))
            if known and any(isinstance(x, Tensor) for x in tree_leaves(out)):
                raise Unsupported(f"operator {_spelled(func)} cannot be exported to ONNX")
            return out
        if func in self._shapely and args[0].is_meta:
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
        if id(x) not in self._names:
            raise Unsupported(
                "a tensor that no operator here made, such as a parameter, cannot be exported to ONNX beside another"
            )
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

    def parameters(self, base: str, weight: Tensor, bias: Tensor | None) -> list[str]:
        """Keeps a weight, and a bias where there is one; their names."""
        parts = {"weight": weight, "bias": bias}
        return [self.weight(f"{base}.{part}", self.floats(x)) for part, x in parts.items() if x is not None]

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

    def folds(self, value: str, weight: str, bias: str | None = None) -> None:
        self._folding[value] = weight, bias


def _spelled(func: Any) -> str:
    return str(getattr(func, "__name__", func))
