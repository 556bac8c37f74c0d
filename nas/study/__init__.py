"""The search: ask, check the budget, evaluate rung by rung, tell."""

from nas.study.drawing import draw
from nas.study.record import Told
from nas.study.start import search
from nas.study.study import Study

__all__ = ["Study", "Told", "draw", "search"]
