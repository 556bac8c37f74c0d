"""Max pooling: between the stem and the stages of ShuffleNet v1 (arXiv 1707.01083, table 1)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from nas.blocks.block import Block, Kernel


class MaxPool(Block):
    """(batch, in_channels, h, w): the largest of k x k pixels, channel by channel. No parameters, no MACs."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, resolution: int, *, k: Kernel = 3) -> None:
        super().__init__(in_channels, out_channels, stride, resolution)
        self.layers = nn.MaxPool2d(k, stride, padding=k // 2)

    @classmethod
    def check(cls, in_channels: int, out_channels: int, stride: int, resolution: int, **options: Any) -> None:
        if in_channels != out_channels:
            raise ValueError(f"it keeps the channels, so c={out_channels} must be the {in_channels} input channels")

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
