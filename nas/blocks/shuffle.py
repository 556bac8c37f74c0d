"""ShuffleNet unit (ShuffleNet v1, arXiv 1707.01083, figure 2b and 2c)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor, nn

from nas.blocks.block import Activation, Block, ChannelShuffle, Groups, Kernel, activate, conv, divides


class Shuffle(Block):
    """Grouped 1x1 to out_channels / ratio, channel shuffle, depthwise k x k, grouped 1x1; then the activation.

    Where the shape stays the unit is added to its input (2b). Where it changes (stride 2, more channels) it is
    concatenated to its input (2c), average-pooled 3x3 at stride 2, and makes only the missing channels. No activation
    after the depthwise convolution. `dense` leaves the first 1x1 ungrouped, as in the first unit behind the stem.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        resolution: int,
        *,
        groups: Groups,
        k: Kernel = 3,
        shuffle: bool = True,
        activation: Activation = "relu",
        ratio: Annotated[int, Ge(1)] = 4,
        dense: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, resolution)
        hidden = out_channels // ratio
        self.concatenates = _concatenates(in_channels, out_channels, stride)
        made = out_channels - in_channels if self.concatenates else out_channels
        self.layers = nn.Sequential(
            *conv(in_channels, hidden, groups=1 if dense else groups),
            activate(activation),
            *([ChannelShuffle(groups)] if shuffle and groups > 1 else []),
            *conv(hidden, hidden, k, stride, groups=hidden),
            *conv(hidden, made, groups=groups),
        )
        self.shortcut = nn.AvgPool2d(3, stride, padding=1) if stride > 1 else nn.Identity()
        self.activation = activate(activation)

    @classmethod
    def check(cls, in_channels: int, out_channels: int, stride: int, resolution: int, **options: Any) -> None:
        groups, ratio = options["groups"], options["ratio"]
        concatenates = _concatenates(in_channels, out_channels, stride)
        if concatenates and out_channels <= in_channels:
            raise ValueError(f"it concatenates, so c={out_channels} must exceed the {in_channels} input channels")
        if out_channels % ratio:
            raise ValueError(f"ratio={ratio} does not divide the {out_channels} output channels")
        if not options["dense"]:
            divides(groups, input_channels=in_channels)
        made = out_channels - in_channels if concatenates else out_channels
        divides(groups, bottleneck_channels=out_channels // ratio, made_channels=made)

    @classmethod
    def used(cls, option: str, chosen: Mapping[str, Any]) -> bool:
        return option not in {"shuffle", "dense"} or chosen.get("groups", 1) > 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        if self.concatenates:
            return self.activation(torch.cat([self.shortcut(x), y], dim=1))
        return self.activation(self.beside(x, y))


def _concatenates(in_channels: int, out_channels: int, stride: int) -> bool:
    return stride > 1 or in_channels != out_channels
