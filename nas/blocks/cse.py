"""Bottleneck with channel-wise squeeze and excitation in place of the projecting 1x1 (Park and Kim, section 3)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from torch import Tensor, nn
from torch.nn import functional as F

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


class ChannelwiseSE(nn.Module):
    """(batch, channels, h, w) -> the same, every pixel weighted by what all channels say of it.

    Squeeze (mean over channels) -> flatten -> FC reduction -> FC scaling -> stacking -> excitation (figure 1).
    Its parameters depend on the resolution h * w alone: 2 h w r + r + h w with r = max(h w // reduction, cap).
    """

    def __init__(self, resolution: int, reduction: int, cap: int) -> None:
        super().__init__()
        pixels = resolution * resolution
        hidden = max(pixels // reduction, cap)
        self.gate = nn.Sequential(
            nn.Linear(pixels, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, pixels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        gate = self.gate(x.mean(dim=1).flatten(1))
        return x * gate.reshape(batch, 1, height, width)


class CSE(Block):
    """Expand 1x1 to t * in_channels, depthwise k x k, CSE, then the mean over channel groups (no parameters).

    The text does not say how t * in_channels become out_channels, nor where it normalises. Its parameter counts are
    met by the mean, and by two numbers per expanded channel: `norm: pair` puts one batch normalisation behind the
    depthwise convolution for the pair (2.253 M -> 0.363110 M on CIFAR-10), `norm: each` one behind either
    convolution as MobileNetV2 does. Where out_channels does not divide the expanded channels the mean is adaptive.
    More output channels than expanded ones are refused, unless `stack` allows it: then channels are also repeated, as
    the paper's "CSE block only" needs, which loses every 1x1 that could have made them (its 0.228 M, table 5).
    """

    one_resolution = True

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
        reduction: Annotated[int, Ge(1)] = 16,
        cap: Annotated[int, Ge(1), Le(100_000)] = 16,
        norm: Literal["pair", "each"] = "pair",
        stack: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, resolution)
        hidden = expanded(in_channels, t)
        expand, norm_1 = conv(in_channels, hidden, groups=groups)
        layers: list[nn.Module] = [expand, *([norm_1] if norm == "each" else []), activate(activation)]
        if groups > 1 and shuffle:
            layers.append(ChannelShuffle(groups))
        layers += [*conv(hidden, hidden, k, stride, groups=hidden), activate(activation)]
        layers.append(ChannelwiseSE(-(-resolution // stride), reduction, cap))
        self.layers = nn.Sequential(*layers)
        self.shortcut, self.stack = stride == 1 and in_channels == out_channels, stack

    @classmethod
    def check(cls, in_channels: int, out_channels: int, stride: int, resolution: int, **options: Any) -> None:
        hidden = expanded(in_channels, options["t"])
        divides(options["groups"], input_channels=in_channels, expanded_channels=hidden)
        if hidden < out_channels and not options["stack"]:
            raise ValueError(f"the {hidden} expanded channels are fewer than the {out_channels} output channels")

    def extra_repr(self) -> str:
        return "stack" if self.stack else ""

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        batch, hidden, height, width = y.shape
        if hidden % self.out_channels == 0:
            y = y.reshape(batch, self.out_channels, hidden // self.out_channels, height, width).mean(dim=2)
        else:
            y = F.adaptive_avg_pool3d(y.unsqueeze(1), (self.out_channels, height, width)).squeeze(1)
        return self.beside(x, y) if self.shortcut else y
