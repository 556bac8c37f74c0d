"""What is on record of a proposal, and how it is read back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial

from nas.architecture import Architecture


@dataclass(frozen=True)
class Told:
    """A proposal with its outcome: trained, failed, over budget, impossible, repeated or interrupted."""

    number: int
    id: str
    outcome: str
    accuracy: float | None
    costs: dict[str, int]
    seconds: float
    reason: str


@dataclass(frozen=True)
class Candidate:
    """A candidate in training, and its measurements so far, one for each rung."""

    number: int
    architecture: Architecture
    costs: dict[str, int]
    rungs: list[dict[str, Any]]

    @classmethod
    def of(cls, trial: FrozenTrial) -> Candidate:
        data = trial.user_attrs["candidate"]
        architecture = Architecture.from_dict(data["architecture"])
        return cls(trial.number, architecture, data["costs"], list(trial.user_attrs.get("rungs", [])))

    def to_dict(self) -> dict[str, Any]:
        return {"id": self.architecture.id, "costs": self.costs, "architecture": self.architecture.to_dict()}

    def told(self, outcome: str, accuracy: float | None = None, reason: str = "", seconds: float = 0.0) -> Told:
        seconds += sum(rung["seconds"] for rung in self.rungs)
        return Told(self.number, self.architecture.id, outcome, accuracy, self.costs, seconds, reason)


def told_of(trial: FrozenTrial) -> Told:
    """What is on record of a proposal; the outcome is empty if it has none yet, the id if it is not formed."""
    attrs = trial.user_attrs
    candidate, rungs, outcome = attrs.get("candidate", {}), attrs.get("rungs", []), attrs.get("outcome", "")
    accuracy = rungs[-1]["accuracy"] if outcome == "trained" else None
    seconds = sum(rung["seconds"] for rung in rungs)
    costs = candidate.get("costs", {})
    return Told(trial.number, candidate.get("id", ""), outcome, accuracy, costs, seconds, attrs.get("reason", ""))
