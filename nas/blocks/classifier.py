"""Global average pooling and the fully connected layer: the last row of every network."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Ge, Lt
from torch import Tensor, nn

from nas.blocks.block import Block


class Classifier(Block):
    """(batch, in_channels, h, w) -> (batch, out_channels): mean over h and w, dropout, linear (with `bias`)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        resolution: int,
        *,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, resolution)
        self.layers = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(in_channels, out_channels, bias)
        )

    @classmethod
    def check(cls, in_channels: int, out_channels: int, stride: int, resolution: int, **options: Any) -> None:
        if stride != 1:
            raise ValueError(f"it sees the whole image at once, so s={stride} must be 1")

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
