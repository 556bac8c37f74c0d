"""What a tracker is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from nas.study import Told

MEASURED = {"trained", "cut", "confirmation"}
"""The outcomes that have an accuracy and took time."""


def accuracy_name(told: Told) -> str:
    """What the accuracy of an outcome is called: that of one that was cut is none that was measured."""
    return "expected_accuracy" if told.outcome == "cut" else "accuracy"


class Tracker(ABC):
    """Takes what becomes of proposals, one after the other."""

    @abstractmethod
    def tell(self, told: Told) -> None: ...

    @abstractmethod
    def close(self) -> None: ...
