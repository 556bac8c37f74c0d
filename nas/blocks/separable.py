"""Depthwise-separable convolution (MobileNetV1, arXiv 1704.04861, section 3.1 and figure 3)."""

from __future__ import annotations

from torch import Tensor, nn

from nas.blocks.block import Activation, Block, Kernel, activate, conv


class Separable(Block):
    """Depthwise k x k, then pointwise 1x1; batch normalisation and activation after both."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        resolution: int,
        *,
        k: Kernel = 3,
        activation: Activation = "relu",
    ) -> None:
        super().__init__(in_channels, out_channels, stride, resolution)
        self.layers = nn.Sequential(
            *conv(in_channels, in_channels, k, stride, groups=in_channels),
            activate(activation),
            *conv(in_channels, out_channels),
            activate(activation),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
