"""Fused inverted residual (EfficientNet-EdgeTPU; FusedMBConv of EfficientNetV2, arXiv 2104.00298, figure 2)."""

from __future__ import annotations

from torch import Tensor, nn

from nas.blocks.block import Activation, Block, Expansion, Kernel, activate, conv, expanded


class FusedBottleneck(Block):
    """Expand k x k to t * in_channels, project 1x1 without activation; shortcut at stride 1 and equal channels.

    A bottleneck whose expansion and depthwise convolution are one full convolution: more MACs, which most processors
    carry out several times as fast. At t = 1 it is one k x k convolution with its activation, as in EfficientNetV2.
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
        activation: Activation = "relu6",
    ) -> None:
        super().__init__(in_channels, out_channels, stride, resolution)
        hidden = out_channels if t == 1 else expanded(in_channels, t)
        layers = [*conv(in_channels, hidden, k, stride), activate(activation)]
        if t != 1:
            layers += conv(hidden, out_channels)
        self.layers = nn.Sequential(*layers)
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        return self.beside(x, self.layers(x)) if self.shortcut else self.layers(x)
