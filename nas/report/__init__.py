"""Views of a run: tables, pictures, progress; rebuilt from its storage at any time."""

from nas.report.bench import bench_text, plot_bench
from nas.report.compare import compare_runs, compare_text, plot_compare
from nas.report.describe import describe_space
from nas.report.plot import FORMATS, plot_front
from nas.report.progress import SearchWatch, TrainingWatch, TrustWatch
from nas.report.space import space_text
from nas.report.tables import front_csv, front_records, save_tables
from nas.report.text import front_text, front_view, receipt_text
from nas.report.trust import plot_trust, save_trust, trust_text

__all__ = [
    "FORMATS",
    "SearchWatch",
    "TrainingWatch",
    "TrustWatch",
    "bench_text",
    "compare_runs",
    "compare_text",
    "describe_space",
    "front_csv",
    "front_records",
    "front_text",
    "front_view",
    "plot_bench",
    "plot_compare",
    "plot_front",
    "plot_trust",
    "receipt_text",
    "save_tables",
    "save_trust",
    "space_text",
    "trust_text",
]
