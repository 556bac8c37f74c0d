"""Inverted residual with linear bottleneck (MobileNetV2, arXiv 1801.04381, table 1 and figure 4d; MobileNetV3,
arXiv 1905.02244, figure 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
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
    divisible,
    expanded,
)


class _Residual(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self:
            y = layer(y)
        return x + y


class SqueezeExcite(nn.Module):
    """(batch, channels, h, w) -> the same, every channel weighted by what the means of all channels say of it.

    Mean over h and w -> 1x1 to `squeezed` channels -> ReLU -> 1x1 back -> hard sigmoid (MobileNetV3, section 5.3).
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(squeezed, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class Bottleneck(Block):
    """Expand 1x1 to t * in_channels, depthwise k x k, project 1x1; shortcut at stride 1 and equal channels.

    At t = 1 there is no expansion, as in the paper's first row, unless `expand` asks for it. `linear` (the paper's
    linear bottleneck) leaves the projection without activation. `groups` cuts both 1x1 convolutions into groups;
    `shuffle` then mixes the groups in front of the depthwise convolution (ShuffleNet v1, figure 2b).
    `shortcut` says what is added at stride 1 (section 6.4, figure 6b): "bottleneck" the input to the output;
    "expansion" the expanded tensor to itself, around the depthwise convolution; "none" nothing; "projection" is
    "bottleneck" with a 1x1 convolution where the channels differ (kuangliu's pytorch-cifar). `bias` gives every
    convolution one. `se` above 0 puts squeeze-and-excitation in front of the projection, with that share of the
    expanded channels, made a multiple of 8 (MobileNetV3's is 0.25).
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
        expand: bool = False,
        shortcut: Literal["bottleneck", "expansion", "none", "projection"] = "bottleneck",
        bias: bool = False,
        se: Annotated[float, Ge(0), Le(1)] = 0.0,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, resolution)
        hidden = expanded(in_channels, t)
        layers: list[nn.Module] = []
        if t != 1 or expand:
            layers += [*conv(in_channels, hidden, groups=groups, bias=bias), activate(activation)]
        if groups > 1 and shuffle:
            layers.append(ChannelShuffle(groups))
        depthwise = [*conv(hidden, hidden, k, stride, groups=hidden, bias=bias), activate(activation)]
        layers += [_Residual(*depthwise)] if shortcut == "expansion" and stride == 1 else depthwise
        if se:
            layers.append(SqueezeExcite(hidden, divisible(hidden * se, 8)))
        layers += conv(hidden, out_channels, groups=groups, bias=bias)
        if not linear:
            layers.append(activate(activation))
        self.layers = nn.Sequential(*layers)
        self.shortcut: nn.Module | None = None
        if stride == 1 and shortcut in {"bottleneck", "projection"}:
            if in_channels == out_channels:
                self.shortcut = nn.Identity()
            elif shortcut == "projection":
                self.shortcut = nn.Sequential(*conv(in_channels, out_channels, bias=bias))

    @classmethod
    def check(cls, in_channels: int, out_channels: int, stride: int, resolution: int, **options: Any) -> None:
        hidden = expanded(in_channels, options["t"])
        divides(options["groups"], input_channels=in_channels, expanded_channels=hidden, output_channels=out_channels)

    @classmethod
    def used(cls, option: str, chosen: Mapping[str, Any]) -> bool:
        return chosen["t"] == 1 if option == "expand" else super().used(option, chosen)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) if self.shortcut is None else self.beside(self.shortcut(x), self.layers(x))
