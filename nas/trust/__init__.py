"""What a short training is worth: how well each of its epochs ranks candidates as a long training does."""

from nas.trust.experiment import Experiment, Step
from nas.trust.judge import Trust, trust
from nas.trust.ranking import Candidate

__all__ = ["Candidate", "Experiment", "Step", "Trust", "trust"]
