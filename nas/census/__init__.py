"""What can be said exactly of all members of a space, however many, and members within a budget drawn uniformly."""

from nas.census.choices import used_ranges
from nas.census.counts import Counted, count, networks
from nas.census.feasible import DRAWS, Feasible, shown
from nas.census.graph import Graph
from nas.census.ledger import MOST_LAYERS, TooManyLayers, layer_costs

__all__ = [
    "DRAWS",
    "MOST_LAYERS",
    "Counted",
    "Feasible",
    "Graph",
    "TooManyLayers",
    "count",
    "layer_costs",
    "networks",
    "shown",
    "used_ranges",
]
