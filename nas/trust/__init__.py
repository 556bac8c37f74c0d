"""What a short training is worth: how well each of its epochs ranks candidates as a long training does."""

from nas.trust.experiment import LEAST, Experiment, Step
from nas.trust.ranking import Candidate
from nas.trust.trust import Trust, trust

__all__ = ["LEAST", "Candidate", "Experiment", "Step", "Trust", "trust"]
