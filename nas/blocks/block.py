"""The one base class of the family, and the parts that blocks share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator
from torch import Tensor, nn


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("an odd number")
    return value


Activation = Literal["relu", "relu6", "hardswish", "silu"]
Expansion = Annotated[float, Gt(0), Le(100)]
Kernel = Annotated[int, Ge(1), Le(99), AfterValidator(_odd)]
Groups = Annotated[int, Ge(1)]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardswish": nn.Hardswish,
    "silu": nn.SiLU,
}


class Block(nn.Module):
    """A layer of a network: (batch, in_channels, h, w) -> (batch, out_channels, ceil(h / stride), ceil(w / stride)).

    The keyword-only arguments of a subclass' `__init__` are its options: their annotations say which values are
    legal, their names are what a search space may vary. An option has one meaning in all blocks.
    """

    one_resolution: ClassVar[bool] = False
    """Whether the shape of its weights follows from the resolution."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, resolution: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.stride, self.resolution = stride, resolution
        self.drop_path = 0.0

    def beside(self, shortcut: Tensor, layers: Tensor) -> Tensor:
        """Their sum; in training each image is without `layers` with chance `drop_path`, and has more of it else."""
        if self.training and self.drop_path:
            from torchvision.ops import stochastic_depth

            layers = stochastic_depth(layers, self.drop_path, "row")
        return shortcut + layers

    @classmethod
    def check(cls, in_channels: int, out_channels: int, stride: int, resolution: int, **options: Any) -> None:
        """Raises ValueError saying why this block cannot stand here; `options` are complete."""

    @classmethod
    def used(cls, option: str, chosen: Mapping[str, Any]) -> bool:
        """Whether `option` makes a difference, given all options in front of it in the signature (in `chosen`)."""
        return option != "shuffle" or chosen.get("groups", 1) > 1


def activate(name: str) -> nn.Module:
    return ACTIVATIONS[name](inplace=True)


def conv(
    in_channels: int, out_channels: int, k: int = 1, stride: int = 1, groups: int = 1, bias: bool = False
) -> list[nn.Module]:
    """k x k convolution padded by k // 2 and its batch normalisation, which makes a bias superfluous."""
    return [
        nn.Conv2d(in_channels, out_channels, k, stride, k // 2, groups=groups, bias=bias),
        nn.BatchNorm2d(out_channels),
    ]


def expanded(in_channels: int, t: float) -> int:
    """t * in_channels, to the nearest whole channel."""
    return max(1, round(in_channels * t))


def divisible(wanted: float, divisor: int) -> int:
    """The nearest multiple of `divisor`, but never below 90 % of `wanted` (the rule of MobileNetV2 and V3)."""
    rounded = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * wanted else rounded


def divides(groups: int, **channels: int) -> None:
    """Raises ValueError naming the first of `channels` that `groups` does not divide."""
    for name, count in channels.items():
        if count % groups:
            raise ValueError(f"groups={groups} does not divide the {count} {name.replace('_', ' ')}")


class ChannelShuffle(nn.Module):
    """(batch, g * n, h, w): reshape to (g, n), transpose, flatten (ShuffleNet v1, section 3.1).

    Written with reshape and transpose alone, so that every exporter takes it.
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        x = x.reshape(batch, self.groups, channels // self.groups, height, width)
        return torch.transpose(x, 1, 2).reshape(batch, channels, height, width)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"
