"""Layers as they run inside a network: behind a convolution, in front of a pooling, less what those two take alone.

Alone, a layer would pay for turning its input into the runtime's own layout and back, its shortcut would not be fused
into the convolution before it, and a session costs some microseconds by itself: sums of layers timed alone were off by
3.9 %, of layers in this frame by 2.7 % (ONNX Runtime, 40 members of mobile_cifar, a noisy machine).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from torch import nn

from nas import blocks
from nas.architecture import Architecture, Layer, Stage
from nas.meta import Blank
from nas.network import Network

Shape = tuple[int, int, int]
_IMAGE_CHANNELS = 4

REFERENCE = Architecture(
    (
        Stage.of("conv", 16),
        Stage.of("bottleneck", 24, n=2, s=2, t=3),
        Stage.of("separable", 48, n=2, s=2),
        Stage.of("conv", 96, k=1),
        Stage.of("classifier", 10),
    ),
    resolution=32,
)
"""What all running times are multiples of; another one would be another unit."""


def whole(architecture: Architecture) -> tuple[nn.Module, Shape]:
    """A network without values, and its image."""
    with Blank():
        network = Network(architecture)
    return network, (architecture.in_channels, architecture.resolution, architecture.resolution)


def framed(layer: Layer) -> tuple[nn.Module, Shape]:
    """A layer in its frame; its name there is `layer`."""
    with Blank():
        inside = blocks.make(
            layer.block, layer.in_channels, layer.out_channels, layer.stride, layer.resolution, dict(layer.options)
        )
    return _frame(layer.in_channels, layer.resolution, {"layer": inside}, pooled=layer.block == "classifier")


def frame(channels: int, resolution: int) -> tuple[nn.Module, Shape]:
    """The frame of layers with this input, without a layer."""
    return _frame(channels, resolution, {}, pooled=False)


def frames(layers: Iterable[Layer]) -> list[tuple[int, int]]:
    """(channels, resolution) of the frames of these layers."""
    return sorted({(layer.in_channels, layer.resolution) for layer in layers})


def _frame(channels: int, resolution: int, inside: dict[str, nn.Module], pooled: bool) -> tuple[nn.Module, Shape]:
    with Blank():
        before = {"before": nn.Conv2d(_IMAGE_CHANNELS, channels, 1), "activation": nn.ReLU()}
        behind = {} if pooled else {"behind": nn.AdaptiveAvgPool2d(1)}
    parts = OrderedDict[str, nn.Module]({**before, **inside, **behind})
    return nn.Sequential(parts).eval(), (_IMAGE_CHANNELS, resolution, resolution)
