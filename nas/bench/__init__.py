"""Samplers compared on a table that stands in for training."""

from nas.bench.play import Played, play, play_all
from nas.bench.players import PLAYERS
from nas.bench.score import summary
from nas.bench.table import Table, read_table
from nas.bench.task import Task

__all__ = ["PLAYERS", "Played", "Table", "Task", "play", "play_all", "read_table", "summary"]
