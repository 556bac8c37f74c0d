"""What can be said exactly of all members of a space, however many, and members within a budget drawn uniformly."""

from nas.census.feasible import DRAWS, Feasible
from nas.census.graph import Graph
from nas.census.ledger import TooManyLayers

__all__ = ["DRAWS", "Feasible", "Graph", "TooManyLayers"]
