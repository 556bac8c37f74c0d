"""Zen-score (Lin et al. 2021, arXiv 2102.01063, algorithm 1)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from nas.network import Network

ALPHA = 0.01


def zen(network: Network, batch: Tensor, seed: int) -> float:
    """log E ||f(x) - f(x + ALPHA e)||_F + sum over batch normalisations of log sqrt(mean of the channels' variances).

    f are the features in front of the classifier, without residual links, all weights drawn from N(0, 1); x and e are
    drawn from N(0, 1), as many as `batch` has images and of their shape (its values are not looked at). The variances
    are those of x, over images and pixels.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator).to(like.device)

    features = network.layers[:-1]
    deviations: list[float] = []

    def note(_module: nn.Module, inputs: tuple[Tensor]) -> None:
        variances = inputs[0].var(dim=(0, 2, 3))
        deviations.append(0.5 * variances.mean().log().item())

    norms = [module for module in features.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for module in features.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.copy_(normal(module.weight))
        x = normal(batch)
        near = x + ALPHA * normal(batch)
        with WithoutShortcuts():
            hooks = [norm.register_forward_pre_hook(note) for norm in norms]
            here = features(x)
            for hook in hooks:
                hook.remove()
            difference = (here - features(near)).flatten(1).norm(dim=1).mean().item()
    return math.log(difference) + sum(deviations) if difference > 0 else math.nan


class WithoutShortcuts(TorchFunctionMode):
    """Inside, the sum of two feature maps is the second: in every block the shortcut comes before the branch."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.add, Tensor.__add__) and isinstance(args[1], Tensor) and args[1].ndim == 4:
            return args[1]
        return func(*args, **(kwargs or {}))
