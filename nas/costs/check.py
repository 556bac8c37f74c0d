"""A second opinion: the same network counted by ptflops."""

from __future__ import annotations

import torch
from torch import nn

from nas.architecture import Architecture
from nas.costs import cost
from nas.network import Network, build


def on_meta(architecture: Architecture) -> Network:
    """The network without weights: enough to count."""
    with torch.device("meta"):
        return build(architecture)


def ptflops_counts(network: Network) -> tuple[int, int]:
    """(params, MACs) by ptflops, backend aten.

    That backend counts a bias as one more multiply-add per output; a MAC here has none, so they are taken off: the
    outputs of all biased layers, counted as ptflops runs them on its one image.
    """
    from ptflops import get_model_complexity_info

    architecture = network.architecture
    biases = 0

    def add(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal biases
        biases += output.numel()

    biased = [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d) and m.bias is not None]
    hooks = [module.register_forward_hook(add) for module in biased]
    shape = (architecture.in_channels, architecture.resolution, architecture.resolution)
    macs, params = get_model_complexity_info(
        network, shape, as_strings=False, print_per_layer_stat=False, backend="aten"
    )
    for hook in hooks:
        hook.remove()
    return int(params), int(macs) - biases


def cross_check(architecture: Architecture) -> None:
    """Raises RuntimeError if ptflops counts other parameters or MACs than we do."""
    ours = cost(architecture, "params"), cost(architecture, "macs")
    theirs = ptflops_counts(on_meta(architecture))
    if ours != theirs:
        raise RuntimeError(f"architecture {architecture.id}: (params, macs) are {ours} here, {theirs} in ptflops")
