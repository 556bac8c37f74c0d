"""Standard convolution: the stem, and the 1x1 in front of the classifier."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from nas.blocks.block import Activation, Block, Groups, Kernel, activate, conv, divides


class Conv(Block):
    """k x k convolution (with `bias`, if it must be), batch normalisation, activation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        resolution: int,
        *,
        k: Kernel = 3,
        groups: Groups = 1,
        activation: Activation = "relu6",
        bias: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, resolution)
        self.layers = nn.Sequential(*conv(in_channels, out_channels, k, stride, groups, bias), activate(activation))

    @classmethod
    def check(cls, in_channels: int, out_channels: int, stride: int, resolution: int, **options: Any) -> None:
        divides(options["groups"], input_channels=in_channels, output_channels=out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
