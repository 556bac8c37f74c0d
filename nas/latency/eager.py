"""PyTorch as it is, on the CPU and on CUDA: what a network costs where it was trained, not where it will run."""

from __future__ import annotations

import torch
from torch import nn

from nas.inputs import InputError
from nas.latency.measure import RunOnce
from nas.latency.runtime import Runtime


def with_values(module: nn.Module, shape: tuple[int, int, int], device: str) -> tuple[nn.Module, torch.Tensor]:
    """With small random weights, as denormal numbers would cost time."""
    module = module.to_empty(device=device).eval()
    generator = torch.Generator(device=device).manual_seed(0)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            tensor.fill_(1.0) if "running_var" in name else tensor.normal_(0, 0.1, generator=generator)
    return module, torch.randn(1, *shape, device=device, generator=generator)


def _eager(module: nn.Module, shape: tuple[int, int, int], threads: int) -> RunOnce:
    module, image = with_values(module, shape, "cpu")

    def run() -> object:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return module(image)

    return run


def _cuda(module: nn.Module, shape: tuple[int, int, int], threads: int) -> RunOnce:
    module, image = with_values(module, shape, "cuda")

    def run() -> None:
        with torch.inference_mode():
            module(image)
        torch.cuda.synchronize()

    return run


def _has_cuda() -> None:
    if not torch.cuda.is_available():
        raise InputError("runtime cuda: this machine has no CUDA device")


EAGER = Runtime(("torch",), lambda: None, True, _eager)
CUDA = Runtime(("torch",), _has_cuda, False, _cuda)
