"""What is on record of a proposal, and how it is read back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, Trial

from nas.architecture import Architecture
from nas.tables import seconds_of


@dataclass(frozen=True)
class Told:
    """A proposal with its outcome: trained, cut, failed, over budget, impossible, repeated, confirmation, interrupted.

    `accuracy`: of the highest rung; of one that was cut, what it is expected to reach. `confirms`: the trained
    candidate that was measured again.
    """

    number: int
    id: str
    outcome: str
    accuracy: float | None
    costs: dict[str, float]
    seconds: float
    reason: str
    confirms: int | None = None


@dataclass(frozen=True)
class Candidate:
    """A candidate in training, and its measurements so far, one for each rung.

    `confirms`: the number of the candidate that it measures again, and for which time; then it has one measurement,
    that of the last rung. `sent_on`: so many measurements it had when it was found worth another.
    """

    number: int
    architecture: Architecture
    costs: dict[str, float]
    rungs: list[dict[str, Any]]
    confirms: tuple[int, int] | None = None
    sent_on: int = 0

    @classmethod
    def of(cls, trial: FrozenTrial) -> Candidate:
        attrs = trial.user_attrs
        data = attrs["candidate"]
        architecture = Architecture.from_dict(data["architecture"])
        rungs, sent_on = list(attrs.get("rungs", [])), attrs.get("sent_on", 0)
        return cls(trial.number, architecture, data["costs"], rungs, confirmed_by(trial), sent_on)

    def to_dict(self) -> dict[str, Any]:
        return {"id": self.architecture.id, "costs": self.costs, "architecture": self.architecture.to_dict()}

    def told(self, outcome: str, accuracy: float | None = None, reason: str = "", seconds: float = 0.0) -> Told:
        seconds += sum(rung["seconds"] for rung in self.rungs)
        confirms = self.confirms and self.confirms[0]
        return Told(self.number, self.architecture.id, outcome, accuracy, self.costs, seconds, reason, confirms)


def told_of(trial: FrozenTrial) -> Told:
    """What is on record of a proposal; the outcome is empty if it has none yet, the id if it is not formed."""
    attrs = trial.user_attrs
    candidate, rungs, outcome = attrs.get("candidate", {}), attrs.get("rungs", []), attrs.get("outcome", "")
    accuracy = attrs["expected"] if outcome == "cut" else None
    if outcome in {"trained", "confirmation"}:
        accuracy = rungs[-1]["accuracy"]
    costs, confirms = candidate.get("costs", {}), confirmed_by(trial)
    return Told(
        number=trial.number,
        id=candidate.get("id", ""),
        outcome=outcome,
        accuracy=accuracy,
        costs=costs,
        seconds=seconds_of(attrs),
        reason=attrs.get("reason", ""),
        confirms=confirms and confirms[0],
    )


def confirmed_by(trial: FrozenTrial | Trial) -> tuple[int, int] | None:
    """The number of the candidate that a trial measures again, and for which time; None for candidates themselves."""
    number = trial.user_attrs.get("confirms")
    return None if number is None else (int(number[0]), int(number[1]))
