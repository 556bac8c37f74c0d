"""Activation memory with each block as one operator (MobileNetV2, section 5.1, "Bottleneck residual block").

M = |input| + |output| + what the block needs inside. Inner tensors are disposable: computed some channels at a time,
each piece going into the output before the next is begun (F = sum of A_i . N . B_i), where what lies between is
channelwise. In pieces of one channel that is the paper's |s^2 k| + |s'^2 k'| + O(max(s^2, s'^2)).

All of it follows from the trace:

* bottleneck (fused or not), separable, ShuffleNet unit: all hidden channels are cut. Groups and shuffle are no
  obstacle (a hidden channel needs one group of the input and adds to one group of the output), but a shuffle still
  copies its piece.
* Shortcuts and concatenation: written into the output itself, which is there once. Only where both terms of an
  addition are made inside (`shortcut: projection`) has one of them a place of its own.
* CSE, and squeeze-and-excitation: the gate needs all channels before the first is weighted. Nothing is computed twice,
  as in the paper, so the depthwise output stays whole (weighted in place) and only the expansion is cut. Two passes
  would need less memory, for twice the arithmetic.
* conv and whatever else is one operator: as in the operator reading.

A block is not always better off as one operator: its input and output are held together. A separable convolution,
which has nothing wide inside, needs a channel more than its worst operator.
"""

from __future__ import annotations

from dataclasses import dataclass

from nas.costs.cost import Cost
from nas.costs.peak_memory import ELEMENT_BYTES
from nas.trace import Operator, Trace


def block_elements(trace: Trace, splits: int | None = None) -> int:
    """Elements a layer needs as one operator, its inner tensors in `splits` pieces (None: one channel each).

    A tensor is cut if that can be done without computing anything twice, and if it needs no more memory.
    """
    if not trace.operators:
        return trace.elements[0]
    plan = _Plan(trace)
    inner = sorted(set(plan.places) - plan.uncut, key=lambda place: (-plan.size(place, 1), place))
    cut: frozenset[int] = frozenset()
    least = plan.peak(cut, 1)
    for place in inner if splits != 1 else ():
        wider = cut | {place}
        if plan.feasible(wider) and (needed := plan.peak(wider, splits)) <= least:
            cut, least = wider, needed
    return least


@dataclass(frozen=True)
class _Span:
    first: int
    last: int

    def meets(self, other: _Span) -> bool:
        return self.first <= other.last and other.first <= self.last


class _Plan:
    """Which tensors of a layer share a place, which places may be cut, and what is alive when."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.places = list(range(len(trace.elements)))
        self.uncut = {0}
        for step, operator in enumerate(trace.operators):
            self._share(step, operator)
        self.output = self.places[trace.operators[-1].writes]
        self.elements, self.channels = [0] * len(self.places), list(trace.channels)
        for number, place in enumerate(self.places):
            self.elements[place] = max(self.elements[place], trace.elements[number])
            self.channels[place] = min(self.channels[place], trace.channels[number])
        self.uncut |= {self.output} | {place for place in self.places if self.channels[place] == 1}

    def _share(self, step: int, operator: Operator) -> None:
        """Joined tensors are written where they will lie; an elementwise operator overwrites one that dies."""
        later = {number for each in self.trace.operators[step + 1 :] for number in each.reads}
        dying = [number for number in operator.reads if number != 0 and number not in later]
        if operator.kind == "elementwise":
            size = self.trace.elements[operator.writes]
            dying = [x for x in dying if x in operator.sliced and self.trace.elements[x] == size][:1]
        elif operator.kind != "concat":
            dying = []
        for number in dying:
            self.places = [operator.writes if place == self.places[number] else place for place in self.places]
        if operator.kind == "concat":
            self.uncut.add(operator.writes)

    def size(self, place: int, splits: int | None) -> int:
        """Elements of a place, or of its largest piece: ceil(channels / splits) channels."""
        channels = self.channels[place]
        return self.elements[place] // channels * (1 if splits is None else -(-channels // splits))

    def feasible(self, cut: frozenset[int]) -> bool:
        """Whether each piece of the places in `cut` is complete once computed, used, and never needed again.

        `ready` is the number of loops over pieces behind which a place can be read, `order` which shuffle its
        channels went through: pieces of two orders are not pieces of the same channels.
        """
        ready, order = {0: 0}, {0: -1}
        for step, operator in enumerate(self.trace.operators):
            place = self.places[operator.writes]
            reads = [number for number in operator.reads if self.places[number] in cut]
            loop = max(ready[self.places[number]] for number in operator.reads)
            orders = {order[self.places[number]] for number in reads}
            if (reads or place in cut) and not self._in_pieces(operator, reads, place in cut):
                return False
            if any(ready[self.places[number]] != loop for number in reads) or len(orders) > 1:
                return False
            if reads and place not in cut and self._destroys(operator, cut):
                return False
            ready[place] = loop + 1 if reads and place not in cut else loop
            order[place] = step if operator.kind == "shuffle" else orders.pop() if orders else -1
        return True

    def _in_pieces(self, operator: Operator, reads: list[int], writes: bool) -> bool:
        """Whether an operator can read the tensors `reads` in pieces and, if `writes`, give its output in pieces."""
        if operator.kind in ("concat", "whole") or any(number not in operator.sliced for number in reads):
            return False
        if operator.kind == "sum":
            return not (reads and writes)
        return all(self.trace.channels[number] == self.trace.channels[operator.writes] for number in reads)

    def _destroys(self, operator: Operator, cut: frozenset[int]) -> bool:
        """Whether it overwrites, piece by piece, what another operator in pieces reads all of each time."""
        place = self.places[operator.writes]
        if place not in {self.places[number] for number in operator.reads}:
            return False
        for other in self.trace.operators:
            touched = {self.places[number] for number in (*other.reads, other.writes)}
            whole = [number for number in other.reads if self.places[number] == place]
            if whole and touched & cut and other.kind not in ("elementwise", "channelwise"):
                return True
        return False

    def peak(self, cut: frozenset[int], splits: int | None) -> int:
        """Input, output, and the most that is alive inside. What meets a loop over pieces is there for all of it."""
        spans: dict[int, _Span] = {}
        for step, operator in enumerate(self.trace.operators):
            for place in {self.places[number] for number in (*operator.reads, operator.writes)}:
                spans[place] = _Span(spans[place].first if place in spans else step, step)
        held = {0, self.output}
        loops = _joined([spans[place] for place in cut])
        for place in set(spans) - cut - held:
            meeting = [spans[place], *(loop for loop in loops if loop.meets(spans[place]))]
            spans[place] = _Span(min(x.first for x in meeting), max(x.last for x in meeting))
        sizes = {place: self.size(place, splits if place in cut else 1) for place in spans}
        inside = [
            sum(sizes[place] for place, span in spans.items() if place not in held and span.first <= step <= span.last)
            for step in range(len(self.trace.operators))
        ]
        return sum(self.size(place, 1) for place in held) + max(inside)


def _joined(spans: list[_Span]) -> list[_Span]:
    """Spans that meet, made one."""
    joined: list[_Span] = []
    for span in sorted(spans, key=lambda span: span.first):
        if joined and joined[-1].meets(span):
            joined[-1] = _Span(joined[-1].first, max(joined[-1].last, span.last))
        else:
            joined.append(span)
    return joined


BLOCK_MEMORY_BYTES = Cost(
    "activation memory with each block as one operator, one hidden channel at a time, float32, one image",
    lambda trace: ELEMENT_BYTES["float32"] * block_elements(trace),
    "max",
)
