"""The layer that is not there, or as little as the shape allows."""

from __future__ import annotations

from torch import Tensor, nn

from nas.blocks.block import Block, conv


class Identity(Block):
    """The input itself; where stride or channels change, a 1x1 convolution with normalisation, no activation."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, resolution: int) -> None:
        super().__init__(in_channels, out_channels, stride, resolution)
        same = stride == 1 and in_channels == out_channels
        self.layers = nn.Identity() if same else nn.Sequential(*conv(in_channels, out_channels, stride=stride))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
