"""How long a job may take: what it is expected to take, many times over; beyond that it hangs."""

from __future__ import annotations

import math

FLOOR_SECONDS = 300.0
"""For what does not depend on the network: imports, reading the images, a busy machine."""
LEAST = 3
"""Jobs that must have ended before theirs say what others take."""
SLOWEST = 1e8
"""Multiply-adds a second; a training that is slower from its first candidates on is taken for one that hangs."""


class Pace:
    """Seconds for each multiply-add of training, of the slowest job so far."""

    def __init__(self, times: float) -> None:
        self.times = times
        self._seconds: list[float] = []

    def note(self, work: float, seconds: float) -> None:
        """A job of so many multiply-adds (0: not known) took so long."""
        if work:
            self._seconds.append(seconds / work)

    def limit_seconds(self, work: float) -> float:
        """`times` what a job of so much work is expected to take at most, and FLOOR_SECONDS; infinite if not known."""
        if not work:
            return math.inf
        return FLOOR_SECONDS + work * (self.times * max(self._seconds) if len(self._seconds) >= LEAST else 1 / SLOWEST)
