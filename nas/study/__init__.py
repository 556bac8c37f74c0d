"""The search: ask, check the budget, evaluate rung by rung, tell."""

from nas.study.drawing import draw
from nas.study.record import Told
from nas.study.study import Study, search

__all__ = ["Study", "Told", "draw", "search"]
