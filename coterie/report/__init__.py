"""Make HTML pages about runs from their folders alone. No tensor and no network is needed; each page is one file.

A name is imported when it is asked for, so that a module of this room can be imported without the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coterie.core.lazy import export_lazily

if TYPE_CHECKING:
    from coterie.report.comparison import Comparison, compare_runs
    from coterie.report.comparison_page import write_comparison
    from coterie.report.run_page import write_report
    from coterie.report.run_reader import Run, read_run

__all__ = ["Comparison", "Run", "compare_runs", "read_run", "write_comparison", "write_report"]

export_lazily(
    __name__,
    {
        "Comparison": "coterie.report.comparison:Comparison",
        "Run": "coterie.report.run_reader:Run",
        "compare_runs": "coterie.report.comparison:compare_runs",
        "read_run": "coterie.report.run_reader:read_run",
        "write_comparison": "coterie.report.comparison_page:write_comparison",
        "write_report": "coterie.report.run_page:write_report",
    },
)
