"""Global average pooling and the fully connected layer, or two: the last row of every network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Ge, Lt
from torch import Tensor, nn

from nas.blocks.block import Activation, Block, activate


class Classifier(Block):
    """(batch, in_channels, h, w) -> (batch, out_channels): mean over h and w, dropout, linear (with `bias`).

    `hidden` above 0: a linear layer to so many channels, and the activation, behind the mean (MobileNetV3, arXiv
    1905.02244, figure 5; the 1x1 convolution of 1x1 pixels in its tables 1 and 2).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        resolution: int,
        *,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
        bias: bool = True,
        hidden: Annotated[int, Ge(0)] = 0,
        activation: Activation = "hardswish",
    ) -> None:
        super().__init__(in_channels, out_channels, stride, resolution)
        inner = [nn.Linear(in_channels, hidden), activate(activation)] if hidden else []
        last = nn.Linear(hidden or in_channels, out_channels, bias)
        self.layers = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *inner, nn.Dropout(dropout), last)

    @classmethod
    def check(cls, in_channels: int, out_channels: int, stride: int, resolution: int, **options: Any) -> None:
        if stride != 1:
            raise ValueError(f"it sees the whole image at once, so s={stride} must be 1")

    @classmethod
    def used(cls, option: str, chosen: Mapping[str, Any]) -> bool:
        return chosen["hidden"] > 0 if option == "activation" else super().used(option, chosen)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
