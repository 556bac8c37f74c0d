"""Training steps of mobile networks on the CPU, with own kernels where torch is slow; elsewhere nothing changes.

Batch normalisation with the activation behind it is one operation that reads its input twice, where torch's three read
and write theirs eight times; gradients of depthwise convolutions in bfloat16 take a half to a sixtieth of torch's time.
With that the bfloat16 of newer CPUs pays, which multiply it 2 (AVX-512) to 5 times (AMX) as fast as float32.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nas.files import cache_folder, write_whole
from nas.machine import cpu_flags, processor

logger = logging.getLogger(__name__)

_SOURCE = Path(__file__).with_name("kernels.cpp")
_FLAGS = ("-std=c++17", "-O2", "-march=native", "-fno-math-errno", "-ffp-contract=fast", "-fopenmp", "-fPIC", "-shared")
_COMPILERS = ("c++", "g++")
_ACTIVATIONS: dict[type[nn.Module], int] = {nn.ReLU: 1, nn.ReLU6: 2, nn.Hardswish: 3}
_DTYPES = (torch.float32, torch.bfloat16)
_KERNELS = (3, 5)
_STRIDES = (1, 2)


@cache
def kernels() -> ctypes.CDLL | None:
    """The compiled kernels; None without Linux or a C++ compiler ($CXX, c++, g++), or if NAS_FUSED is 0.

    The first process on a machine compiles them into the cache folder, in about 15 s.
    """
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", ""), *_COMPILERS))), None)
    if os.environ.get("NAS_FUSED") == "0" or platform.system() != "Linux" or compiler is None:
        return None
    code = _SOURCE.read_bytes()
    facts = code, _FLAGS, compiler, processor(), sorted(cpu_flags()), torch.__version__
    key = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    file = cache_folder() / f"fused-{key}.so"
    try:
        if not file.exists():
            logger.info("compiling training kernels, once on this machine")
            write_whole(file, lambda path: _compile(compiler, path))
        return ctypes.CDLL(str(file))
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("training is slower than it could be, its kernels are not there: %s", error)
        return None


def _compile(compiler: str, path: Path) -> None:
    done = subprocess.run(  # noqa: S603 - the user's own compiler and our own source
        [compiler, *_FLAGS, str(_SOURCE), "-o", str(path)], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        raise OSError(f"{compiler} ended with {done.returncode}: {done.stderr.strip().partition(chr(10))[0]}")


def pays_in_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 faster than float32 (AMX, AVX-512), and the rest of a step keeps up."""
    return bool({"amx_bf16", "avx512_bf16"} & cpu_flags()) and kernels() is not None


@contextmanager
def fused(network: nn.Module) -> Iterator[None]:
    """Within, `network` runs with the kernels where they can stand in; its modules and weights stay its own.

    They stand in for a BatchNorm2d, together with the ReLU, ReLU6 or Hardswish behind it in a Sequential, and for the
    gradients of depthwise convolutions of 3 x 3 and 5 x 5 at stride 1 or 2; in training mode, on the CPU, in float32
    and bfloat16. Results differ from torch's by rounding; as many threads give the same bits.
    """
    replaced: list[nn.Module] = []

    def replace(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> None:
        module.forward = forward
        replaced.append(module)

    library = kernels()
    try:
        if library is not None:
            followed = _followed(network)
            for module in network.modules():
                if type(module) is nn.BatchNorm2d and module.affine and module.track_running_stats:
                    behind = followed.get(module)
                    first, second = _norm(library, module, behind)
                    replace(module, first)
                    if behind is not None:
                        replace(behind, second)
                elif type(module) is nn.Conv2d and _is_depthwise(module):
                    replace(module, _depthwise(library, module))
        yield
    finally:
        for module in replaced:
            del module.forward


def _followed(network: nn.Module) -> dict[nn.Module, nn.Module]:
    """Of each batch normalisation with an activation right behind it, that activation."""
    runs = [list(module) for module in network.modules() if isinstance(module, nn.Sequential)]
    pairs = [pair for run in runs for pair in pairwise(run)]
    found = [(a, b) for a, b in pairs if type(a) is nn.BatchNorm2d and type(b) in _ACTIVATIONS]
    stands = Counter(module for _, module in network.named_modules(remove_duplicate=False))
    return {a: b for a, b in found if stands[a] == stands[b] == 1}


def _is_depthwise(conv: nn.Conv2d) -> bool:
    k, stride = conv.kernel_size[0], conv.stride[0]
    return (
        conv.groups == conv.in_channels == conv.out_channels
        and conv.kernel_size == (k, k)
        and k in _KERNELS
        and conv.stride == (stride, stride)
        and stride in _STRIDES
        and conv.padding == (k // 2, k // 2)
        and conv.dilation == (1, 1)
        and conv.bias is None
        and conv.padding_mode == "zeros"
    )


def _suits(module: nn.BatchNorm2d | nn.Conv2d, x: Tensor) -> bool:
    trains = module.training and torch.is_grad_enabled() and module.weight.dtype == torch.float32
    return trains and x.device.type == "cpu" and x.dtype in _DTYPES and x.ndim == 4


def _norm(
    library: ctypes.CDLL, norm: nn.BatchNorm2d, activation: nn.Module | None
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """What stands in for the two; the second lets through what the first has seen to."""
    kind, activated = 0 if activation is None else _ACTIVATIONS[type(activation)], False

    def first(x: Tensor) -> Tensor:
        nonlocal activated
        activated = _suits(norm, x)
        if not activated:
            return type(norm).forward(norm, x)
        x = x.contiguous(memory_format=torch.channels_last)
        return _Norm.apply(x, norm.weight, norm.bias, norm, kind, library)  # type: ignore[no-any-return]

    def second(x: Tensor) -> Tensor:
        return x if activated or activation is None else type(activation).forward(activation, x)

    return first, second


def _depthwise(library: ctypes.CDLL, conv: nn.Conv2d) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        if not _suits(conv, x):
            return type(conv).forward(conv, x)
        x = x.contiguous(memory_format=torch.channels_last)
        return _Depthwise.apply(x, conv.weight, conv, library)  # type: ignore[no-any-return]

    return forward


class _Norm(torch.autograd.Function):
    """Batch normalisation and activation of (batch, channels, h, w), channels-last; sees to the running statistics."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d, kind: int, library: ctypes.CDLL
    ) -> Tensor:
        y, (mean, variance) = torch.empty_like(x), x.new_empty(2, x.shape[1], dtype=torch.float32)
        ctx.scalars = (int(x.dtype == torch.bfloat16), kind, x.numel() // x.shape[1], x.shape[1], norm.eps)
        ctx.library = library
        _call(library.norm_forward, *ctx.scalars, weight, bias, x, y, mean, variance)
        ctx.save_for_backward(x, weight, bias, mean, variance)
        _track(norm, mean, variance, ctx.scalars[2])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, variance = ctx.saved_tensors
        dy = gradient.to(x.dtype).contiguous(memory_format=torch.channels_last)
        dx, dweight, dbias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias)
        _call(ctx.library.norm_backward, *ctx.scalars, weight, bias, x, dy, dx, mean, variance, dweight, dbias)
        return dx, dweight, dbias, None, None, None


def _track(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    """Moves the running statistics as torch does: the variance there is the unbiased one."""
    assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
    norm.num_batches_tracked += 1
    share = norm.momentum if norm.momentum is not None else 1 / int(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance * (count / max(1, count - 1)), share)


class _Depthwise(torch.autograd.Function):
    """Depthwise convolution: torch's forward, own gradients, that of the weights in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, conv: nn.Conv2d, library: ctypes.CDLL) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.conv, ctx.library = conv, library
        return nn.functional.conv2d(x, weight.to(x.dtype), None, conv.stride, conv.padding, 1, conv.groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (images, channels, height, width), k = x.shape, weight.shape[-1]
        dy = gradient.to(x.dtype).contiguous(memory_format=torch.channels_last)
        dx, taps = torch.empty_like(x), weight.detach().reshape(channels, k * k).t().contiguous()
        dtaps = torch.empty_like(taps)
        sizes = (int(x.dtype == torch.bfloat16), k, ctx.conv.stride[0], images, height, width, channels)
        _call(ctx.library.depthwise_backward, *sizes, x, taps, dy, dx, dtaps)
        # In the strides of the weights, or DistributedDataParallel warns of every network.
        return dx, torch.empty_like(weight).copy_(dtaps.t().reshape(weight.shape)), None, None


def _call(function: Any, *arguments: int | float | Tensor) -> None:
    """With as many threads as torch has: the compiler's OpenMP may be another than torch's."""
    status = function(
        *(
            ctypes.c_void_p(x.data_ptr())
            if isinstance(x, Tensor)
            else ctypes.c_double(x)
            if isinstance(x, float)
            else ctypes.c_int64(x)
            for x in (torch.get_num_threads(), *arguments)
        )
    )
    assert status == 0, "an option that the kernels do not have"
