"""Inverted residual with linear bottleneck (MobileNetV2, arXiv 1801.04381, table 1 and figure 4d)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from nas.blocks.block import (
    Activation,
    Block,
    ChannelShuffle,
    Expansion,
    Groups,
    Kernel,
    activate,
    conv,
    divides,
    expanded,
)


class Bottleneck(Block):
    """Expand 1x1 to t * in_channels, depthwise k x k, project 1x1; shortcut at stride 1 and equal channels.

    At t = 1 there is no expansion, as in the paper's first row. `linear` (the paper's linear bottleneck) leaves the
    projection without activation. `groups` cuts both 1x1 convolutions into groups; `shuffle` then mixes the groups
    in front of the depthwise convolution (ShuffleNet v1, figure 2b).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        resolution: int,
        *,
        t: Expansion,
        k: Kernel = 3,
        groups: Groups = 1,
        shuffle: bool = True,
        activation: Activation = "relu6",
        linear: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, resolution)
        hidden = expanded(in_channels, t)
        layers: list[nn.Module] = []
        if hidden != in_channels:
            layers += [*conv(in_channels, hidden, groups=groups), activate(activation)]
        if groups > 1 and shuffle:
            layers.append(ChannelShuffle(groups))
        layers += [*conv(hidden, hidden, k, stride, groups=hidden), activate(activation)]
        layers += conv(hidden, out_channels, groups=groups)
        if not linear:
            layers.append(activate(activation))
        self.layers = nn.Sequential(*layers)
        self.shortcut = stride == 1 and in_channels == out_channels

    @classmethod
    def check(cls, in_channels: int, out_channels: int, stride: int, resolution: int, **options: Any) -> None:
        hidden = expanded(in_channels, options["t"])
        divides(options["groups"], input_channels=in_channels, expanded_channels=hidden, output_channels=out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.shortcut else self.layers(x)
