"""Views of a run: tables, pictures, progress; rebuilt from its storage at any time."""

from nas.report.describe import describe_space
from nas.report.plot import plot_front
from nas.report.progress import SearchWatch, TrainingWatch
from nas.report.tables import front_csv, front_view, save_tables

__all__ = ["SearchWatch", "TrainingWatch", "describe_space", "front_csv", "front_view", "plot_front", "save_tables"]
