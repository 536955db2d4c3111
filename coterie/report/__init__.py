"""Make HTML pages about runs from their folders alone. No tensor and no network is needed; each page is one file."""

from coterie.report.comparison import Comparison, compare_runs
from coterie.report.comparison_page import write_comparison
from coterie.report.run_page import write_report
from coterie.report.run_reader import Run, read_run

__all__ = ["Comparison", "Run", "compare_runs", "read_run", "write_comparison", "write_report"]
