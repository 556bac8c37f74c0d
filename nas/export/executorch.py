"""ExecuTorch, PyTorch's runtime for phones, with XNNPACK: one .pte file for one image at a time.

Batch normalisation is folded by the lowering. The card is in the file as constant methods, which a phone reads as it
runs `forward`: `module.execute("mean")`. The batch is fixed: with a free one (ExecuTorch 1.5.1) a channel shuffle went
back to the portable kernels, six delegated parts in place of two, and batches of 64 were refused below a stated
maximum of 65.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from nas.export.format import Card, Floats, Format, Predict
from nas.export.graph import Unsupported
from nas.export.operators import channels_average
from nas.export.quiet import quiet
from nas.inputs import InputError, refuse

_pool: list[int] = []
"""How many threads the runtime has in this process, once it was asked for a network."""


def needed() -> Any:
    """The class executorch.runtime.Runtime. Raises InputError, with what to install, if it is missing."""
    try:
        with quiet():
            from executorch.runtime import Runtime
    except ImportError as error:
        raise InputError(
            f"ExecuTorch needs a package that cannot be imported ({error}): pip install 'mobile-nas[executorch]'"
        ) from None
    return Runtime


def lowered(network: nn.Module, shape: tuple[int, ...], texts: dict[str, str]) -> bytes:
    """A .pte program of a network in evaluation mode, for one image of `shape` (channels, height, width).

    `texts` are constant methods, by name. Raises Unsupported, with the operator's name, if ExecuTorch has no such
    program or no kernel for an operator of it.
    """
    runtime = needed().get()
    if any(each.training for each in network.modules() if next(each.children(), None) is None):
        raise Unsupported("ExecuTorch: a network in training mode cannot be exported")
    with quiet(), torch.no_grad():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        try:
            with _ChannelsAverage():
                exported = torch.export.export(network, (torch.zeros(1, *shape),))
            edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()], constant_methods=texts)
            program = edge.to_executorch()
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 - its own kinds have no other base
            raise Unsupported(f"ExecuTorch cannot lower it: {str(error).strip().partition(chr(10))[0][:200]}") from None
    known = runtime.operator_registry.operator_names
    for operator in program.executorch_program.execution_plan[0].operators:
        name = ".".join(filter(None, (operator.name, operator.overload)))
        if name not in known:
            raise Unsupported(f"ExecuTorch has no kernel for operator {name}")
    return bytes(program.buffer)


def opened(program: bytes | Path, threads: int | None = None) -> Callable[[list[Tensor]], list[Tensor]]:
    """Runs `forward` of a program; `threads` None takes those that this process has, and one if it has none yet.

    Raises InputError for another number of threads than before: networks keep a pointer to the one pool of their
    process, and were seen to hang when it was replaced beneath them. Before the first it is safe to: with one thread
    there is no other that could wait (20 of 20 processes with 20 networks and 10,000 runs).
    """
    runtime = needed().get()
    _set_pool(threads)
    loaded = runtime.load_program(program)
    forward = loaded.load_method("forward").execute

    def run(inputs: list[Tensor], _alive: Any = loaded) -> list[Tensor]:
        """The program owns the bytes that its methods read."""
        found: list[Tensor] = forward(inputs)
        return found

    return run


def _set_pool(threads: int | None) -> None:
    from executorch.extension.pybindings.portable_lib import _threadpool_get_thread_count, _unsafe_reset_threadpool

    if not _pool:
        _pool.append(threads or 1)
        if _threadpool_get_thread_count() != _pool[0]:
            _unsafe_reset_threadpool(_pool[0])
    if threads not in (None, _pool[0]):
        raise refuse(
            "threads", threads, f"{_pool[0]}: ExecuTorch has one number of threads in a process, that of its first run"
        )


class _ChannelsAverage(TorchFunctionMode):
    """The adaptive mean over channels, which has no kernel, as the 1x1 convolution of known weights that it is."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.adaptive_avg_pool3d:
            return func(*args, **(kwargs or {}))
        x, (made, *sides) = args
        if x.shape[1] != 1 or tuple(sides) != tuple(x.shape[3:]):
            raise Unsupported("operator adaptive_avg_pool3d cannot be exported to ExecuTorch but over channels")
        weight = torch.tensor(channels_average(x.shape[2], made).tolist())
        return F.conv2d(x.squeeze(1), weight).unsqueeze(1)


def _write(network: nn.Module, card: Card, path: Path) -> None:
    path.write_bytes(lowered(network, card.shape, {**card.texts(), "batch": "1"}))


def _load(path: Path) -> Predict:
    run = opened(path)

    def predict(images: Floats) -> Floats:
        found: Floats = np.concatenate([run([torch.from_numpy(image[None])])[0].numpy() for image in images])
        return found

    return predict


def _texts(path: Path) -> dict[str, str]:
    program = needed().get().load_program(path)
    names = sorted(program.method_names - {"forward"})
    return {name: program.load_method(name).execute([])[0] for name in names}


EXECUTORCH = Format(".pte", "executorch", ("executorch",), needed, _write, _load, _texts)
