"""Blocks that compute their hidden channels in pieces (MobileNetV2, section 5.1), to hold a model of memory against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.blocks import BLOCKS
from nas.blocks.block import ACTIVATIONS, ChannelShuffle
from nas.blocks.bottleneck import SqueezeExcite

Part = tuple[Tensor, slice, slice]  # weights of one group of a 1x1 convolution, the channels it reads and writes


@dataclass
class Piece:
    """Some hidden channels, from `start`, and the weights that make, filter and use them."""

    start: int
    expand: list[Part]
    expand_bias: Tensor | None
    order: Tensor | None  # of the shuffle
    depthwise: Tensor
    depthwise_bias: Tensor
    project: list[Part]


class InPieces:
    """A block without normalisations, run piece by piece; each piece's share is added to the output.

    The weights are cut in the constructor: calls allocate activations alone.
    """

    no_projection: Sequence[None] = ()

    def __init__(self, block: nn.Module, splits: int) -> None:
        self.block, layers = block, list(outside_gates(block.layers))
        *expand, self.depthwise, self.project = [*[x for x in layers if isinstance(x, nn.Conv2d)], *self.no_projection]
        self.expand = expand[0] if expand else None
        activations = [x for x in layers if type(x) in ACTIVATIONS.values()]
        self.between = activations[0] if expand else nn.Identity()
        self.behind = nn.Identity() if isinstance(block, BLOCKS["shuffle"]) else activations[len(expand)]
        self.around = any(type(x).__name__ == "_Residual" for x in layers)
        self.shuffle = next((x.groups for x in layers if isinstance(x, ChannelShuffle)), 0)
        hidden = torch.arange(self.depthwise.in_channels)
        self.pieces = [self.cut(piece) for piece in hidden.split(-(-len(hidden) // splits))]

    def cut(self, hidden: Tensor) -> Piece:
        groups, all_ = max(self.shuffle, 1), self.depthwise.in_channels
        source = hidden % groups * (all_ // groups) + hidden // groups  # where the shuffle takes them from
        first = source.sort().values
        order = torch.searchsorted(first, source) if self.shuffle else None
        expand, bias = [], None
        if self.expand is not None:
            bias = torch.zeros(all_) if self.expand.bias is None else self.expand.bias
            bias = bias[first].view(1, -1, 1, 1)
            narrow = self.expand.in_channels // self.expand.groups
            for group, inside in by_group(first, all_ // self.expand.groups):
                weight = self.expand.weight.flatten(1)[first[inside]]
                expand.append((weight, slice(group * narrow, (group + 1) * narrow), inside))
        project = []
        if self.project is not None:
            wide, narrow = all_ // self.project.groups, self.project.out_channels // self.project.groups
            for group, inside in by_group(hidden, wide):
                rows = slice(group * narrow, (group + 1) * narrow)
                project.append((self.project.weight.flatten(1)[rows][:, hidden[inside] - group * wide], inside, rows))
        weight, depthwise_bias = self.depthwise.weight[hidden], self.depthwise.bias[hidden]
        return Piece(int(hidden[0]), expand, bias, order, weight, depthwise_bias, project)

    def __call__(self, box: list[Tensor]) -> Tensor:
        x, block = box.pop(), self.block
        side = -(-x.shape[-1] // block.stride)
        out = x.new_empty(1, block.out_channels, side, side)
        made = out[:, block.out_channels - self.project.out_channels :]
        made.copy_(self.project.bias.view(1, -1, 1, 1).expand_as(made))
        for piece in self.pieces:
            self.add(piece, x, made)
        if isinstance(block, BLOCKS["shuffle"]):
            if block.concatenates:
                pool = [3, 3], [block.stride] * 2, [1, 1]
                torch.ops.aten.avg_pool2d.out(x, *pool, out=out[:, : x.shape[1]])
            return block.activation(out if block.concatenates else out.add_(x))
        out = block.layers[-1](out) if type(block.layers[-1]) in ACTIVATIONS.values() else out
        return out if getattr(block, "shortcut", None) is None else out.add_(x)

    def made(self, piece: Piece, x: Tensor) -> Tensor:
        """What the depthwise convolution reads."""
        count = len(piece.depthwise)
        if piece.expand_bias is None:
            y = x[:, piece.start : piece.start + count]
        else:
            y = x.new_empty(1, count, *x.shape[2:])
            for weight, reads, writes in piece.expand:
                torch.mm(weight, x[0, reads].flatten(1), out=y[0, writes].flatten(1))
            y = self.between(y.add_(piece.expand_bias))
        return y if piece.order is None else y.index_select(1, piece.order)

    def add(self, piece: Piece, x: Tensor, out: Tensor) -> None:
        y, count, conv = self.made(piece, x), len(piece.depthwise), self.depthwise
        z = F.conv2d(y, piece.depthwise, piece.depthwise_bias, conv.stride, conv.padding, groups=count)
        z = self.behind(z)
        if self.around:
            z.add_(y)
        del y
        for weight, reads, writes in piece.project:
            out[0, writes].flatten(1).addmm_(weight, z[0, reads].flatten(1))

    def weights(self) -> list[Tensor]:
        fields = [value for piece in self.pieces for value in vars(piece).values()]
        parts = [part[0] for field in fields if isinstance(field, list) for part in field]
        return [*self.block.parameters(), *parts, *(field for field in fields if isinstance(field, Tensor))]


class CSEInPieces(InPieces):
    """The gate sees all channels, so the depthwise output is whole; the expansion in front of it is not."""

    no_projection = (None,)

    def __call__(self, box: list[Tensor]) -> Tensor:
        x, block = box.pop(), self.block
        side = -(-x.shape[-1] // block.stride)
        out = x.new_empty(1, block.out_channels, side, side)
        z = self.filtered(x, side)
        first, _, second, _ = block.layers[-1].gate
        gate = z.mean(dim=1).flatten(1)
        gate = first(gate).relu_()
        gate = second(gate).sigmoid_()
        z.mul_(gate.view(1, 1, side, side))
        torch.mean(z.view(1, block.out_channels, -1, side, side), dim=2, out=out)
        return out.add_(x) if block.shortcut else out

    def filtered(self, x: Tensor, side: int) -> Tensor:
        """All hidden channels behind the depthwise convolution and its activation."""
        z = None
        for piece in self.pieces:
            y = self.made(piece, x)
            z = x.new_empty(1, self.depthwise.out_channels, side, side) if z is None else z
            self.filter(piece, y, z[:, piece.start : piece.start + len(piece.depthwise)])
            del y
        assert z is not None
        return self.behind(z)

    def filter(self, piece: Piece, y: Tensor, z: Tensor) -> None:
        """The depthwise convolution of `y` into its place: torch's own cannot write into a part of a tensor."""
        z.copy_(piece.depthwise_bias.view(1, -1, 1, 1).expand_as(z))
        (k, _), (stride, _), (pad, _) = self.depthwise.kernel_size, self.depthwise.stride, self.depthwise.padding
        ranges = []
        for offset in range(-pad, k - pad):
            inside = [i for i in range(z.shape[-1]) if 0 <= i * stride + offset < y.shape[-1]]
            start = inside[0] * stride + offset
            ranges.append((slice(inside[0], inside[-1] + 1), slice(start, inside[-1] * stride + offset + 1, stride)))
        for row, (to_y, from_y) in enumerate(ranges):
            for column, (to_x, from_x) in enumerate(ranges):
                weight = piece.depthwise[:, 0, row, column].view(1, -1, 1, 1)
                z[..., to_y, to_x].addcmul_(y[..., from_y, from_x], weight)


class SEInPieces(CSEInPieces):
    """As in CSE the gate sees all channels, here their means; the projection reads what was weighted in place."""

    no_projection = ()

    def __call__(self, box: list[Tensor]) -> Tensor:
        x, block = box.pop(), self.block
        side = -(-x.shape[-1] // block.stride)
        out = x.new_empty(1, block.out_channels, side, side)
        z = self.filtered(x, side)
        _, first, _, second, _ = next(m for m in block.layers if isinstance(m, SqueezeExcite)).gate
        spans = [slice(piece.start, piece.start + len(piece.depthwise)) for piece in self.pieces]
        squeezed = x.new_empty(first.out_channels).copy_(first.bias)
        for span in spans:
            squeezed.addmv_(first.weight[:, span, 0, 0], z[0, span].mean(dim=(1, 2)))
        squeezed.relu_()
        for span in spans:
            gate = torch.addmv(second.bias[span], second.weight[span, :, 0, 0], squeezed)
            z[0, span].mul_(F.hardsigmoid(gate, inplace=True).view(-1, 1, 1))
            del gate
        del squeezed
        out.copy_(self.project.bias.view(1, -1, 1, 1).expand_as(out))
        for piece, span in zip(self.pieces, spans, strict=True):
            for weight, reads, writes in piece.project:
                out[0, writes].flatten(1).addmm_(weight, z[0, span][reads].flatten(1))
        return out if block.shortcut is None else out.add_(x)


def outside_gates(module: nn.Module) -> Iterator[nn.Module]:
    """All modules in it, but for those in a squeeze-and-excitation."""
    yield module
    for child in () if isinstance(module, SqueezeExcite) else module.children():
        yield from outside_gates(child)


def by_group(channels: Tensor, wide: int) -> list[tuple[int, slice]]:
    """(group, the positions in sorted `channels` of its channels), for groups of `wide` channels."""
    counts = torch.bincount(channels // wide).tolist()
    ends = torch.tensor(counts).cumsum(0).tolist()
    return [
        (group, slice(end - count, end)) for group, (count, end) in enumerate(zip(counts, ends, strict=True)) if count
    ]
